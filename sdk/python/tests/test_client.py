# SPDX-License-Identifier: Apache-2.0
"""The client against a scripted server: what goes over the wire and what becomes of each answer."""

import asyncio
import http.server
import json
import queue
import socket
import threading
import time

import pytest

from rlm.remote import (
    ExecutionResult,
    RemoteExecutionConfig,
    RemoteREPLFactory,
    SidecarError,
    SidecarExecutionConfig,
    SidecarREPLEnv,
    SidecarREPLFactory,
    SidecarUnavailable,
)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        self.server.seen.append((self.command, self.path, body, dict(self.headers), self.client_address[1]))
        status, headers, reply = self.server.replies.get(timeout=30)
        if callable(reply):
            reply = reply(self)
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    httpd.seen, httpd.replies = [], queue.Queue()
    httpd.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.reply = lambda reply, status=200, **headers: httpd.replies.put((status, headers, reply))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def factory(server):
    made = SidecarREPLFactory(SidecarExecutionConfig(wasm_service_url=server.url, queue_timeout=10, timeout=20))
    yield made
    made.close()


OK = {"success": True, "stdout": "", "stderr": "", "locals": {"x": 42}, "execution_time": 0.1, "error": None, "result": "84"}


@pytest.mark.parametrize(
    "answer, text",
    [
        ({"result": "84", "stdout": "noise\n"}, "84"),
        ({"result": None, "stdout": "a\nb\n"}, "a\nb"),
        ({"result": None, "stdout": ""}, ""),
        ({"success": False, "error": "ZeroDivisionError: division by zero"}, ""),
    ],
)
def test_result_prints_like_a_session(answer, text):
    result = ExecutionResult(answer)
    assert (str(result), f"{result}", f"{result:>5}") == (text, text, format(text, ">5"))
    assert isinstance(result, dict) and result["locals"] == {} and repr(result).startswith("{")


def test_results_share_nothing():
    ExecutionResult({})["locals"]["x"] = 1
    assert ExecutionResult({})["locals"] == {}


def test_session_life_over_one_connection(server, factory):
    server.reply({"session_id": "session-ab"})
    server.reply(OK)
    server.reply({"status": "ok"})

    async def life():
        session_id = await factory.create_session()
        result = await factory.execute_in_session(session_id, "x * 2", {"x": 42}, timeout=1.5)
        await factory.destroy_session(session_id)
        return result

    result = asyncio.run(life())
    assert str(result) == "84" and result["success"] is True and result.success
    wire = [entry[:3] for entry in server.seen]
    assert wire == [
        ("POST", "/session", {}),
        ("POST", "/session/session-ab/execute", {"code": "x * 2", "timeout": 1.5, "context": {"x": 42}}),
        ("DELETE", "/session/session-ab", None),
    ]
    assert len({entry[4] for entry in server.seen}) == 1


def test_stale_connection_is_replaced_without_repeating(server, factory):
    for _ in range(2):
        server.replies.put((200, {}, lambda handler: setattr(handler, "close_connection", True) or OK))
        assert factory.execute_in_session_sync("s", "1").success
        time.sleep(0.05)
    assert len(server.seen) == 2


def test_lost_answer_is_a_result_and_not_sent_again(server, factory):
    server.reply({}, status=0)
    result = factory.execute_in_session_sync("s", "1")
    assert not result.success and result["code"] == "unavailable" and len(server.seen) == 1


@pytest.mark.parametrize("reply", [b"<html>", b"[1]", b"", {"unexpected": 1}])
def test_answer_that_is_no_execution(server, factory, reply):
    server.reply(reply)
    result = factory.execute_in_session_sync("s", "1")
    assert not result.success and result["code"] == "bad_answer" and str(result) == ""


def test_refusals(server, factory):
    body = {"detail": "no such session", "code": "unknown_session", "remediation": "create one"}
    server.reply(body, status=404)
    result = factory.execute_in_session_sync("a/b?c", "1")
    assert (result["status"], result["code"], result["remediation"]) == (404, "unknown_session", "create one")
    assert "no such session" in result["error"] and server.seen[0][1] == "/session/a%2Fb%3Fc/execute"
    server.reply({"detail": "full", "code": "too_many_sessions"}, status=429, **{"Retry-After": "7"})
    with pytest.raises(SidecarError) as caught:
        factory.create_session_sync()
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (429, "too_many_sessions", 7.0)
    server.reply({"detail": "gone"}, status=404)
    factory.delete_session_sync("gone")


def test_500_with_a_result_is_a_result(server, factory):
    server.reply({**OK, "success": False, "error": "NameError: x"}, status=500)
    assert factory.execute_in_session_sync("s", "x")["error"] == "NameError: x"


def closed_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_nobody_there():
    config = SidecarExecutionConfig(wasm_service_url=f"http://127.0.0.1:{closed_port()}")
    factory = SidecarREPLFactory(config)
    env = factory.create_repl_env()
    result = env.code_execution("1")
    assert not result["success"] and "refused" in result["error"]
    assert not asyncio.run(env.execute_code("1"))["success"]
    assert factory.health_check() is False and factory.readiness_check() is False
    with pytest.raises(SidecarUnavailable):
        asyncio.run(factory.create_session())


def test_no_answer_in_time(server):
    config = SidecarExecutionConfig(wasm_service_url=server.url, timeout=0.1, queue_timeout=0.1)
    told = threading.Event()
    server.replies.put((200, {}, lambda handler: told.wait(60) and OK))
    result = SidecarREPLFactory(config).execute_in_session_sync("s", "1")
    told.set()
    assert result["code"] == "no_answer"


def test_cancelled_task_cuts_the_connection(server, factory):
    cut = threading.Event()

    def wait_for_end(handler):
        if handler.connection.recv(1) == b"":
            cut.set()
        return OK

    server.replies.put((0, {}, wait_for_end))

    async def cancel():
        task = asyncio.ensure_future(factory.execute_in_session("s", "while True: pass"))
        while not server.seen:
            await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    assert cut.wait(30)


def test_env_context_is_sent_once_and_kept_over_a_fault(server, factory):
    env = factory.create_repl_env()
    env.set_context({"rows": 3}, None)
    server.reply({"session_id": "session-1"})
    server.reply({"detail": "later", "code": "queue_full"}, status=429)
    server.reply(OK)
    server.reply(OK)
    for _ in range(3):
        env.code_execution("1")
    sent = [entry[2].get("context") for entry in server.seen[1:]]
    assert sent == [{"context": {"rows": 3}}, {"context": {"rows": 3}}, None]
    env.set_context({"rows": 3}, "text wins")
    server.reply(OK)
    env.code_execution("1", {"extra": 1})
    assert server.seen[-1][2]["context"] == {"context": "text wins", "extra": 1}


def test_env_as_context_managers(server, factory):
    async def both():
        async with factory.create_repl_env() as env:
            return env.session_id

    for run in (lambda: asyncio.run(both()), lambda: sync_use(factory)):
        server.reply({"session_id": "session-7"})
        server.reply({"status": "ok"})
        assert run() == "session-7"
    assert [entry[0] for entry in server.seen] == ["POST", "DELETE"] * 2


def sync_use(factory):
    with SidecarREPLEnv(factory=factory) as env:
        return env.session_id


def test_context_without_json_form_raises(factory):
    with pytest.raises(TypeError):
        factory.execute_in_session_sync("s", "1", {"f": object()})
    with pytest.raises(ValueError):
        factory.execute_in_session_sync("s", "1", {"f": float("nan")})


def test_urls(monkeypatch):
    monkeypatch.delenv("WASM_MANAGER_SERVICE_URL", raising=False)
    assert SidecarExecutionConfig().wasm_service_url == "http://localhost:8080"
    monkeypatch.setenv("WASM_MANAGER_SERVICE_URL", "http://manager:9")
    assert SidecarExecutionConfig().wasm_service_url == "http://manager:9"
    assert SidecarExecutionConfig(wasm_service_url="http://own").wasm_service_url == "http://own"
    for bad in ("manager:8080", "ftp://x", "http://"):
        with pytest.raises(ValueError):
            SidecarREPLFactory(SidecarExecutionConfig(wasm_service_url=bad))


def remote(server, **settings):
    return RemoteREPLFactory(server.url, RemoteExecutionConfig(retry_backoff=0.01, **settings))


def test_remote_repeats_with_one_key(server):
    server.reply({"detail": "starting"}, status=503)
    server.reply({"detail": "busy"}, status=429)
    server.reply({"session_id": "session-9"})
    assert remote(server).create_session_sync() == "session-9"
    assert len({entry[3]["Idempotency-Key"] for entry in server.seen}) == 1


def test_remote_gives_up(server):
    for _ in range(3):
        server.reply({"detail": "down"}, status=503)
    env = remote(server, max_retries=2).create(max_depth=3, current_depth=1, context_str="c", other=1)
    assert env.code_execution("1")["status"] == 503 and (env.max_depth, env.current_depth) == (3, 1)
    assert len(server.seen) == 3


def test_remote_repeats_neither_results_nor_lost_answers(server):
    factory = remote(server)
    server.reply({**OK, "success": False}, status=500)
    assert not factory.execute_in_session_sync("s", "1/0").success
    server.reply({}, status=0)
    assert factory.execute_in_session_sync("s", "1")["code"] == "unavailable"
    server.reply({"detail": "unknown"}, status=404)
    assert factory.execute_in_session_sync("s", "1")["status"] == 404
    assert len(server.seen) == 3
