# SPDX-License-Identifier: Apache-2.0
"""Client and server classes of the two services in ``proto/codemode.proto``.

They have the shape that gRPC's generator gives them, so that code written for generated stubs works. They are kept by
hand, from one table, because they then work with every release of ``grpcio``; a test compares them with the proto file.
"""

from __future__ import annotations

from typing import Any, Dict, Tuple

import grpc
from google.protobuf import empty_pb2
from google.protobuf.message import Message

from codemode.protos import codemode_pb2

_EXECUTOR = "codemode.ExecutorService"
_TOOLS = "codemode.ToolService"

#: service -> method -> (request, response)
_METHODS: Dict[str, Dict[str, Tuple[Any, Any]]] = {
    _EXECUTOR: {
        "Execute": (codemode_pb2.ExecutionRequest, codemode_pb2.ExecutionResponse),
        "Health": (empty_pb2.Empty, codemode_pb2.HealthResponse),
        "Ready": (empty_pb2.Empty, codemode_pb2.HealthResponse),
    },
    _TOOLS: {
        "CallTool": (codemode_pb2.ToolCallRequest, codemode_pb2.ToolCallResponse),
        "ListTools": (empty_pb2.Empty, codemode_pb2.ListToolsResponse),
        "GetToolSchema": (codemode_pb2.GetToolSchemaRequest, codemode_pb2.GetToolSchemaResponse),
    },
}


def _connect(stub: Any, service: str, channel: Any) -> None:
    for name, (request, response) in _METHODS[service].items():
        call = channel.unary_unary(
            f"/{service}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        setattr(stub, name, call)


def _serve(service: str, servicer: Any, server: Any) -> None:
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, name),
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )
        for name, (request, response) in _METHODS[service].items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


def _unimplemented(context: Any) -> Message:
    context.set_code(grpc.StatusCode.UNIMPLEMENTED)
    context.set_details("Method not implemented!")
    raise NotImplementedError("Method not implemented!")


class ExecutorServiceStub:
    """Calls the executor: `Execute`, `Health`, `Ready` over a channel of ``grpc`` or ``grpc.aio``."""

    Execute: Any
    Health: Any
    Ready: Any

    def __init__(self, channel: Any) -> None:
        _connect(self, _EXECUTOR, channel)


class ExecutorServiceServicer:
    """What an executor answers; override the methods."""

    def Execute(self, request: Any, context: Any) -> Any:
        return _unimplemented(context)

    def Health(self, request: Any, context: Any) -> Any:
        return _unimplemented(context)

    def Ready(self, request: Any, context: Any) -> Any:
        return _unimplemented(context)


def add_ExecutorServiceServicer_to_server(servicer: ExecutorServiceServicer, server: Any) -> None:
    _serve(_EXECUTOR, servicer, server)


class ToolServiceStub:
    """Calls an application's tools: `CallTool`, `ListTools`, `GetToolSchema`."""

    CallTool: Any
    ListTools: Any
    GetToolSchema: Any

    def __init__(self, channel: Any) -> None:
        _connect(self, _TOOLS, channel)


class ToolServiceServicer:
    """What an application answers; override the methods."""

    def CallTool(self, request: Any, context: Any) -> Any:
        return _unimplemented(context)

    def ListTools(self, request: Any, context: Any) -> Any:
        return _unimplemented(context)

    def GetToolSchema(self, request: Any, context: Any) -> Any:
        return _unimplemented(context)


def add_ToolServiceServicer_to_server(servicer: ToolServiceServicer, server: Any) -> None:
    _serve(_TOOLS, servicer, server)
