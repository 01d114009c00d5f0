# SPDX-License-Identifier: Apache-2.0
"""A sidecar that runs code in threads of its own process: for what the real one cannot be made to do at will, and without it.

It has sessions, variables by PUT, executions as streams with the caller's tools, and interrupts (docs/streaming.md). `refuse`, `cut` and
`limit` make it fail.
"""

import ast
import builtins
import contextlib
import ctypes
import http.server
import io
import itertools
import json
import queue
import threading
import time
import traceback
import types
import urllib.parse


#: Python before 3.11.5 counts how deep it makes objects of a tree for all threads together, and finds its count wrong.
_parsing = threading.Lock()


class ToolError(RuntimeError):
    pass


class Session:
    def __init__(self, ident):
        self.id = ident
        self.modules = {}
        self.space = {"__builtins__": {**vars(builtins), "__import__": self._import}, "__name__": "__main__"}
        self.lock = threading.Lock()
        self.running = None

    def _import(self, name, *rest):
        if name == "sys":
            return types.SimpleNamespace(modules=self.modules)
        if name == "builtins":
            return _Builtins(self)
        return self.modules.get(name) or __import__(name, *rest)


class _Builtins:
    """What `builtins` is in a session of ours: one process has many."""

    def __init__(self, session):
        self.session = session

    tools = property(lambda self: self.session.running)


class Execution:
    """One execution; as a mapping it is `tools`."""

    numbers = itertools.count(1)

    def __init__(self, session, code, names):
        self.id = f"exec-{next(self.numbers)}"
        self.session, self.code, self.names = session, code, names
        self.events, self.calls, self.numbers_of_calls = queue.Queue(), {}, itertools.count(1)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __getitem__(self, name):
        if name not in self.names:
            raise KeyError(name)
        return types.SimpleNamespace(run=lambda **arguments: self._call(name, arguments))

    def _call(self, name, arguments):
        number, box = next(self.numbers_of_calls), queue.Queue()
        self.calls[number] = box
        self.events.put(("call", {"call": number, "name": name, "arguments": json.loads(json.dumps(arguments))}))
        try:
            while True:
                with contextlib.suppress(queue.Empty):
                    answer = box.get(timeout=0.01)  # short, so that an interrupt gets through
                    break
        except BaseException:
            self.events.put(("call_gone", {"call": number}))
            raise
        finally:
            del self.calls[number]
        if "error" in answer:
            raise ToolError(answer["error"])
        return answer["result"]

    def interrupt(self):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread.ident), ctypes.py_object(KeyboardInterrupt))

    def _run(self):
        session, out, value, error = self.session, io.StringIO(), None, None
        started = time.monotonic()
        session.space["__builtins__"]["print"] = lambda *args, **kwargs: self._print(out, *args, **kwargs)
        try:
            with _parsing:
                tree = ast.parse(self.code)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "<cell>", "exec"), session.space)
            if last is not None:
                found = eval(compile(ast.Expression(last.value), "<cell>", "eval"), session.space)
                value = None if found is None else repr(found)
        except BaseException as caught:
            error = caught
        text = "" if error is None else f"{type(error).__name__}: {error}"
        self.events.put(
            (
                "result",
                {
                    "success": error is None,
                    "stdout": out.getvalue(),
                    "stderr": "" if error is None else "".join(traceback.format_exception_only(type(error), error)),
                    "result": value,
                    "error": text or None,
                    "error_type": type(error).__name__ if error else None,
                    "execution_time": time.monotonic() - started,
                    "timed_out": False,
                    "state": "kept",
                },
            )
        )

    def _print(self, out, *args, **kwargs):
        before = out.tell()
        print(*args, **{**kwargs, "file": out})
        self.events.put(("output", {"stream": "stdout", "text": out.getvalue()[before:]}))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        sidecar = self.server.sidecar
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [urllib.parse.unquote(part) for part in self.path.strip("/").split("/")]
        with sidecar.lock:
            sidecar.seen.append((self.command, self.path, dict(self.headers)))
            refusal = next((plan for plan in sidecar.refusals if plan[0] in f"{self.command} {self.path}"), None)
            if refusal:
                sidecar.refusals.remove(refusal)
        if refusal:
            return self.reply(refusal[1], refusal[2])
        if parts == ["session"]:
            return self.create(json.loads(body))
        session = sidecar.sessions.get(parts[1]) if len(parts) > 1 else None
        if self.command == "DELETE":
            sidecar.sessions.pop(parts[1], None)
            if session and session.running:
                session.running.interrupt()
            return self.reply(200, {"status": "ok"})
        if session is None:
            return self.reply(404, {"detail": "no such session", "code": "unknown_session"})
        getattr(self, parts[2])(session, parts, body)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def create(self, body):
        sidecar = self.server.sidecar
        if sidecar.slow:
            sidecar.slow.wait(10)
        with sidecar.lock:
            if len(sidecar.sessions) >= sidecar.limit:
                return self.reply(429, {"detail": "full", "code": "too_many_sessions"}, {"Retry-After": "0"})
            session = Session(f"session-{next(sidecar.numbers)}")
            sidecar.sessions[session.id] = session
            sidecar.most = max(sidecar.most, len(sidecar.sessions))
        self.reply(200, {"session_id": session.id})

    def variables(self, session, parts, body):
        kind = self.headers["Content-Type"].split(";")[0]
        value = body if kind.endswith("octet-stream") else body.decode()
        value = json.loads(value) if kind == "application/json" else value
        session.space[parts[3]] = value
        length = len(value) if hasattr(value, "__len__") else None
        self.reply(200, {"name": parts[3], "type": type(value).__name__, "length": length, "bytes": len(body)})

    def interrupt(self, session, parts, body):
        run, asked = session.running, json.loads(body or "{}")
        found = run is not None and asked.get("execution_id", run.id) == run.id
        if found:
            run.interrupt()
        self.reply(200, {"status": "ok", "interrupted": found})

    def executions(self, session, parts, body):
        running = session.running
        box = running.calls.get(int(parts[5])) if running and running.id == parts[3] else None
        if box is None:
            return self.reply(404, {"detail": "nobody waits", "code": "unknown_call"})
        box.put(json.loads(body))
        self.reply(200, {"status": "ok"})

    def execute(self, session, parts, body):
        sidecar, asked = self.server.sidecar, json.loads(body)
        with session.lock:
            run = session.running = Execution(session, asked["code"], asked.get("caller_tools", []))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.event("start", {"execution_id": run.id})
            run.thread.start()
            try:
                self.follow(run, sidecar)
            except OSError:
                run.interrupt()  # the client has hung up
                run.thread.join(10)
                self.close_connection = True
            session.running = None

    def follow(self, run, sidecar):
        name = ""
        while name != "result":
            try:
                name, data = run.events.get(timeout=0.05)
            except queue.Empty:
                self.connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    if self.connection.recv(1) == b"":
                        raise ConnectionResetError
                self.connection.setblocking(True)
                continue
            if sidecar.cut and sidecar.cut in run.code:
                self.connection.close()
                raise ConnectionResetError
            self.event(name, data)
        self.wfile.write(b"0\r\n\r\n")

    def event(self, name, data):
        piece = f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def reply(self, status, body, headers=()):
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


class FakeSidecar:
    def __init__(self, limit=100):
        self.sessions, self.seen, self.refusals, self.numbers = {}, [], [], itertools.count(1)
        self.limit, self.cut, self.slow, self.most, self.lock = limit, None, None, 0, threading.Lock()

    def refuse(self, where, status, **body):
        """The next request that has `where` in its method and path is refused."""
        self.refusals.append((where, status, body))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads, self.server.sidecar = True, self
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
