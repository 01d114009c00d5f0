# SPDX-License-Identifier: Apache-2.0
"""Importing what is optional, with a text that says how to get it."""

from __future__ import annotations

from typing import Any


def need_grpc() -> Any:
    """The module ``grpc``."""
    try:
        import google.protobuf  # noqa: F401
        import grpc
    except ImportError as error:
        raise ImportError(
            f"{error}: calling the executor needs grpcio and protobuf: pip install 'codemode[grpc]', or "
            "apt install python3-grpcio python3-protobuf"
        ) from error
    return grpc
