# SPDX-License-Identifier: Apache-2.0
"""Stateful, sandboxed Python sessions in a sidecar.

>>> from rlm.remote import create_sidecar_repl_factory
>>> with create_sidecar_repl_factory().create_repl_env() as env:    # doctest: +SKIP
...     env.code_execution("x = 42")
...     print(env.code_execution("x * 2"))
84
"""

from .errors import SidecarError, SidecarUnavailable
from .remote import RemoteExecutionConfig, RemoteREPLEnv, RemoteREPLFactory
from .result import ExecutionResult
from .sidecar import SidecarExecutionConfig, SidecarREPLEnv, SidecarREPLFactory, create_sidecar_repl_factory

__all__ = [
    "ExecutionResult",
    "RemoteExecutionConfig",
    "RemoteREPLEnv",
    "RemoteREPLFactory",
    "SidecarError",
    "SidecarExecutionConfig",
    "SidecarREPLEnv",
    "SidecarREPLFactory",
    "SidecarUnavailable",
    "create_sidecar_repl_factory",
]
