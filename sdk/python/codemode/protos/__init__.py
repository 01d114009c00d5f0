# SPDX-License-Identifier: Apache-2.0
"""Messages and stubs of ``proto/codemode.proto``. Needs ``protobuf``; the ``_grpc`` module needs ``grpcio``."""
