# SPDX-License-Identifier: Apache-2.0
"""Stands in for uvicorn: ``python -m uvicorn main:app``. Prints its port, serves until its standard input ends.

STAND_IN_TOOL_PORT replaces the port of the application's tool service, because the tests of several checkouts
may run at the same time on one machine."""

import asyncio
import functools
import http.server
import importlib
import json
import os
import sys
import threading
import urllib.parse

import codemode.grpc


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        url = urllib.parse.urlsplit(self.path)
        arguments = dict(urllib.parse.parse_qsl(url.query))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if body:
            arguments.update(json.loads(body))
        function = self.server.routes[self.command, url.path]
        data = json.dumps(asyncio.run(function(**arguments))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = answer

    def log_message(self, *args):
        pass


def main():
    sys.path.insert(0, os.getcwd())
    start = codemode.grpc.start_tool_service
    if "STAND_IN_TOOL_PORT" in os.environ:

        @functools.wraps(start)
        def elsewhere(registry, host="0.0.0.0", port=50051, **more):
            return start(registry, host, int(os.environ["STAND_IN_TOOL_PORT"]), **more)

        codemode.grpc.start_tool_service = elsewhere
    module, name = sys.argv[1].split(":")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.routes = getattr(importlib.import_module(module), name).routes
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


main()
