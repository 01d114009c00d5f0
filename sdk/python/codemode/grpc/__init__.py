# SPDX-License-Identifier: Apache-2.0
"""Serves an application's tools to the executor over gRPC. Needs ``grpcio`` and ``protobuf`` once a service is made."""

from .server import AsyncToolServer, ToolServer, create_tool_server, start_tool_service, start_tool_service_async

__all__ = ["AsyncToolServer", "ToolServer", "create_tool_server", "start_tool_service", "start_tool_service_async"]
