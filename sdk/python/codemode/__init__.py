# SPDX-License-Identifier: Apache-2.0
"""Runs Python code that a model wrote, in a sandbox beside the application, with the application's tools.

    from codemode import Codemode
    from codemode.grpc import start_tool_service

    codemode = Codemode.from_config("codemode.yaml")
    codemode.registry.register_tool("weather", WeatherTool())
    start_tool_service(codemode.registry)
    codemode.execute("result = tools['weather'].run(location='NYC')")
"""

from codemode.core.codemode import Codemode, Execution
from codemode.core.context import RuntimeContext, get_current_context
from codemode.core.errors import (
    CodemodeError,
    ComponentAlreadyExistsError,
    ComponentError,
    ComponentNotFoundError,
    ConfigError,
    ValueNotSentError,
)
from codemode.core.executor_client import (
    ErrorDetails,
    ExecutionResult,
    ExecutorClient,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorTimeoutError,
)
from codemode.core.registry import ComponentRegistry
from codemode.tools.base import ContextAwareTool

__version__ = "0.1.0"

__all__ = [
    "Codemode",
    "CodemodeError",
    "ComponentAlreadyExistsError",
    "ComponentError",
    "ComponentNotFoundError",
    "ComponentRegistry",
    "ConfigError",
    "ContextAwareTool",
    "ErrorDetails",
    "Execution",
    "ExecutionResult",
    "ExecutorClient",
    "ExecutorClientError",
    "ExecutorConnectionError",
    "ExecutorTimeoutError",
    "RuntimeContext",
    "ValueNotSentError",
    "__version__",
    "get_current_context",
]
