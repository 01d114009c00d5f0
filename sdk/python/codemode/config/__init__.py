# SPDX-License-Identifier: Apache-2.0
"""Configuration: ``codemode.yaml``, ``codemode-client.yaml``, dicts and environment variables."""

from codemode.core.errors import ConfigError

from .loader import client_from_dict, client_from_env, load_client, load_unified, unified_from_dict
from .model import ClientConfig, CodemodeConfig, ObservabilityConfig, RetryConfig, TLSConfig

__all__ = [
    "ClientConfig",
    "CodemodeConfig",
    "ConfigError",
    "ObservabilityConfig",
    "RetryConfig",
    "TLSConfig",
    "client_from_dict",
    "client_from_env",
    "load_client",
    "load_unified",
    "unified_from_dict",
]
