# SPDX-License-Identifier: Apache-2.0
"""A ToolService of grpcio with one tool, `echo`; says its port and serves until standard input ends.

The same method, called by a plain grpcio client, is the bare echo that the tool is measured beside: BARE=1 does that here,
in a process of its own, and prints the seconds of each call.
"""

import concurrent.futures
import importlib
import os
import sys
import time

import grpc


def main():
    sys.path.insert(0, sys.argv[1])
    messages = importlib.import_module("codemode_pb2")

    def call(request, context):
        return messages.ToolCallResponse(success=True, result=request.arguments, correlation_id=request.correlation_id)

    def tools(request, context):
        return messages.ListToolsResponse(tools=[messages.ToolInfo(name="echo")])

    def method(function, request):
        return grpc.unary_unary_rpc_method_handler(
            function, request_deserializer=request, response_serializer=lambda message: message.SerializeToString()
        )

    if os.environ.get("BARE"):
        channel = grpc.insecure_channel(f"127.0.0.1:{sys.argv[2]}", [("grpc.enable_http_proxy", 0)])
        echo = channel.unary_unary(
            "/codemode.ToolService/CallTool",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=messages.ToolCallResponse.FromString,
        )
        request = messages.ToolCallRequest(tool_name="echo")
        request.arguments.update({"i": 1})
        for number in range(int(sys.argv[3]) + 50):
            begun = time.perf_counter()
            echo(request, timeout=10)
            if number >= 50:
                print(time.perf_counter() - begun)
        return
    from google.protobuf import empty_pb2

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    handlers = {"CallTool": method(call, messages.ToolCallRequest.FromString), "ListTools": method(tools, empty_pb2.Empty.FromString)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("codemode.ToolService", handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(0)


main()
