from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExecutionRequest(_message.Message):
    __slots__ = ["available_tools", "code", "config", "context", "correlation_id", "timeout"]
    AVAILABLE_TOOLS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    available_tools: _containers.RepeatedScalarFieldContainer[str]
    code: str
    config: _struct_pb2.Struct
    context: _struct_pb2.Struct
    correlation_id: str
    timeout: int
    def __init__(self, code: _Optional[str] = ..., available_tools: _Optional[_Iterable[str]] = ..., config: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., timeout: _Optional[int] = ..., context: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., correlation_id: _Optional[str] = ...) -> None: ...

class ExecutionResponse(_message.Message):
    __slots__ = ["correlation_id", "duration_ms", "error", "error_type", "result", "stderr", "stdout", "success"]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    correlation_id: str
    duration_ms: float
    error: str
    error_type: str
    result: str
    stderr: str
    stdout: str
    success: bool
    def __init__(self, success: bool = ..., result: _Optional[str] = ..., stdout: _Optional[str] = ..., stderr: _Optional[str] = ..., error: _Optional[str] = ..., correlation_id: _Optional[str] = ..., error_type: _Optional[str] = ..., duration_ms: _Optional[float] = ...) -> None: ...

class GetToolSchemaRequest(_message.Message):
    __slots__ = ["tool_name"]
    TOOL_NAME_FIELD_NUMBER: _ClassVar[int]
    tool_name: str
    def __init__(self, tool_name: _Optional[str] = ...) -> None: ...

class GetToolSchemaResponse(_message.Message):
    __slots__ = ["description", "has_context", "input_schema", "is_async", "output_schema", "tool_name"]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    HAS_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    INPUT_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    IS_ASYNC_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    TOOL_NAME_FIELD_NUMBER: _ClassVar[int]
    description: str
    has_context: bool
    input_schema: ToolSchema
    is_async: bool
    output_schema: ToolSchema
    tool_name: str
    def __init__(self, tool_name: _Optional[str] = ..., input_schema: _Optional[_Union[ToolSchema, _Mapping]] = ..., output_schema: _Optional[_Union[ToolSchema, _Mapping]] = ..., description: _Optional[str] = ..., is_async: bool = ..., has_context: bool = ...) -> None: ...

class HealthResponse(_message.Message):
    __slots__ = ["main_app_target", "status", "version"]
    MAIN_APP_TARGET_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    main_app_target: str
    status: str
    version: str
    def __init__(self, status: _Optional[str] = ..., version: _Optional[str] = ..., main_app_target: _Optional[str] = ...) -> None: ...

class ListToolsResponse(_message.Message):
    __slots__ = ["tools"]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    tools: _containers.RepeatedCompositeFieldContainer[ToolInfo]
    def __init__(self, tools: _Optional[_Iterable[_Union[ToolInfo, _Mapping]]] = ...) -> None: ...

class ToolCallRequest(_message.Message):
    __slots__ = ["arguments", "context", "correlation_id", "tool_name"]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    TOOL_NAME_FIELD_NUMBER: _ClassVar[int]
    arguments: _struct_pb2.Struct
    context: _struct_pb2.Struct
    correlation_id: str
    tool_name: str
    def __init__(self, tool_name: _Optional[str] = ..., arguments: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., context: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., correlation_id: _Optional[str] = ...) -> None: ...

class ToolCallResponse(_message.Message):
    __slots__ = ["correlation_id", "error", "result", "success"]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    correlation_id: str
    error: str
    result: _struct_pb2.Struct
    success: bool
    def __init__(self, success: bool = ..., error: _Optional[str] = ..., result: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., correlation_id: _Optional[str] = ...) -> None: ...

class ToolInfo(_message.Message):
    __slots__ = ["description", "has_context", "input_schema", "is_async", "name", "output_schema"]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    HAS_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    INPUT_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    IS_ASYNC_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    description: str
    has_context: bool
    input_schema: ToolSchema
    is_async: bool
    name: str
    output_schema: ToolSchema
    def __init__(self, name: _Optional[str] = ..., is_async: bool = ..., has_context: bool = ..., description: _Optional[str] = ..., input_schema: _Optional[_Union[ToolSchema, _Mapping]] = ..., output_schema: _Optional[_Union[ToolSchema, _Mapping]] = ...) -> None: ...

class ToolSchema(_message.Message):
    __slots__ = ["json_schema"]
    JSON_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    json_schema: str
    def __init__(self, json_schema: _Optional[str] = ...) -> None: ...
