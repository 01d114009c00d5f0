# SPDX-License-Identifier: Apache-2.0
"""An application with tools: a real codemode.ToolService, made with grpcio."""

import concurrent.futures
import contextlib
import json
import threading

import grpc

from grpc_support import messages
from support import PATIENCE

#: What a barrier of a test waits for at the most: whoever waits that long alone has failed.
MEETING = 20 * PATIENCE


class Call:
    """One call that has arrived."""

    def __init__(self, name, request, context):
        self.name = name
        self.arguments = dict(request.arguments)
        self.context = dict(request.context) if request.HasField("context") else None
        self.correlation_id = request.correlation_id
        self.metadata = dict(context.invocation_metadata())
        self.cancelled = threading.Event()
        if not context.add_callback(self.cancelled.set):
            self.cancelled.set()


class Application:
    """Tools are functions of a Call that return a dict, or raise."""

    def __init__(self, key=None, port=0, once=False):
        self.pb = messages("codemode")
        self.key, self.port, self.once = key, port, once
        self.tools, self.infos, self.schemas = {}, {}, {}
        self.calls, self.listed, self.asked = [], 0, 0
        self.answered = {}  # with `once`: what each call was answered, by its id
        self.lock = threading.Lock()
        self.server = None

    def tool(self, name, schema=None, is_async=False, has_context=False, description="", lazy=False):
        """Makes a function a tool. `lazy`: its schema is not in the list, and has to be asked for."""

        def register(function):
            text = json.dumps(schema) if schema is not None else ""
            info = self.pb.ToolInfo(name=name, is_async=is_async, has_context=has_context, description=description)
            if schema is not None and not lazy:
                info.input_schema.json_schema = text
            self.tools[name], self.infos[name], self.schemas[name] = function, info, text
            return function

        return register

    def count(self, name):
        with self.lock:
            return sum(call.name == name for call in self.calls)

    def last(self, name):
        with self.lock:
            return [call for call in self.calls if call.name == name][-1]

    # --- the service

    def _admit(self, context):
        if self.key and dict(context.invocation_metadata()).get("authorization") != f"Bearer {self.key}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown key")

    def _list(self, _, context):
        self._admit(context)
        self.listed += 1
        return self.pb.ListToolsResponse(tools=list(self.infos.values()))

    def _schema(self, request, context):
        self._admit(context)
        self.asked += 1
        info = self.infos.get(request.tool_name)
        if info is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such tool")
        answer = self.pb.GetToolSchemaResponse(tool_name=info.name, description=info.description)
        answer.input_schema.json_schema = self.schemas[info.name]
        return answer

    def _call(self, request, context):
        self._admit(context)
        call = Call(request.tool_name, request, context)
        with self.lock:
            mine = call.metadata["x-codemode-call"]
            if self.once and mine in self.answered:
                return self.answered[mine]
            self.calls.append(call)
        answer = self.pb.ToolCallResponse(correlation_id=request.correlation_id)
        try:
            result = self.tools[call.name](call)
            answer.result.update(result if isinstance(result, dict) else {"value": result})
            answer.success = True
        except Exception as error:
            answer.error = str(error)
        with self.lock:
            self.answered[mine] = answer
        return answer

    def start(self):
        from google.protobuf import empty_pb2

        def unary(function, request):
            return grpc.unary_unary_rpc_method_handler(
                function, request.FromString, lambda message: message.SerializeToString()
            )

        handlers = {
            "CallTool": unary(self._call, self.pb.ToolCallRequest),
            "ListTools": unary(self._list, empty_pb2.Empty),
            "GetToolSchema": unary(self._schema, self.pb.GetToolSchemaRequest),
        }
        pool = concurrent.futures.ThreadPoolExecutor(256)
        self.server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("codemode.ToolService", handlers),))
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        assert self.port, "the port is taken"
        self.server.start()
        return self

    def stop(self):
        if self.server:
            self.server.stop(0).wait(10 * PATIENCE)
            self.server = None

    @property
    def target(self):
        return f"127.0.0.1:{self.port}"


CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Name of the city"},
        "days": {"type": "integer", "minimum": 1, "maximum": 14, "default": 1},
    },
    "required": ["city"],
}


def standard(**options):
    """The application of most tests."""
    app = Application(**options)
    app.meeting = threading.Barrier(2)  # two calls that are there at the same time let each other go

    @app.tool("get_weather", CITY, has_context=True, description="Current weather of a city")
    def get_weather(call):
        return {"city": call.arguments["city"], "temperature": 72, "context": call.context}

    @app.tool("query_database", {"properties": {"sql": {"type": "string"}}}, is_async=True, description="Runs SQL")
    def query_database(call):
        return {"rows": [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"}], "sql": call.arguments.get("sql")}

    @app.tool("fail", description="Always fails")
    def fail(call):
        raise ValueError(f"no luck with {call.arguments}")

    @app.tool("echo", description="Says what it was told")
    def echo(call):
        return call.arguments

    @app.tool("answer", description="A number, and no dict")
    def answer(call):
        return 42

    @app.tool("count", description="Counts")
    def count(call):
        return {"id": call.arguments.get("id")}

    @app.tool("big", description="A large answer")
    def big(call):
        return {"text": "x" * int(call.arguments["bytes"])}

    @app.tool("hang", description="Does not come back before it is cancelled")
    def hang(call):
        call.cancelled.wait(MEETING)
        return {}

    for name, is_async in (("meet", False), ("meet_async", True)):

        @app.tool(name, is_async=is_async, description="Waits for another one")
        def meet(call):
            app.meeting.wait(MEETING)
            return {"met": True}

    @app.tool("late_schema", {"required": ["x"]}, lazy=True, description="Its schema has to be asked for")
    def late_schema(call):
        return call.arguments

    @app.tool("agents.writer", is_async=False, description="Writes")
    def writer(call):
        return {"task": call.arguments}

    return app


@contextlib.contextmanager
def running(app):
    app.start()
    try:
        yield app
    finally:
        app.stop()
