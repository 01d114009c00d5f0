# SPDX-License-Identifier: Apache-2.0
"""Hostile clients of streams, of calls and of values that are sent as files."""

import json
import random
import socket
import struct
import time

import pytest

from support import PATIENCE, eventually
from test_http import IDS, crowd, is_closed, request, together

STAGE = "http"

EVENTS = b"Accept: text/event-stream"


def execute(session, code, *lines, tools=None, **more):
    """The bytes of a request for a stream."""
    body = json.dumps({"code": code, **({"caller_tools": tools} if tools else {}), **more}).encode()
    return request(b"Content-Length: %d" % len(body), EVENTS, *lines, path=f"{session.path}/execute".encode(), body=body)


def upload(session, length, body=b"", name=b"x"):
    lines = (b"Content-Length: %d" % length, b"Content-Type: text/plain")
    return request(*lines, method=b"PUT", path=f"{session.path}/variables/".encode() + name, body=body)


def idle(session):
    info = session.info()
    return info["state"] == "idle" and info["queued"] == 0


def files_in_memory(stage):
    return [target for target in stage.server.descriptor_targets() if "memfd:body" in target]


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_streams_never_read(stage):
    """Output without end for clients that read none of it: they are let go, and their code ends."""
    sessions = [stage.server.create() for _ in range(12)]
    sockets = []
    for session in sessions:
        with crowd(stage, 1, receive=4096) as (sock,):
            sock.sendall(execute(session, "while True: print('x' * 65536)"))
            sockets.append(sock.dup())
    assert stage.server.request("GET", "/health").status_code == 200
    eventually(lambda: all(map(idle, sessions)), "nothing runs for nobody", 25)
    for sock in sockets:
        sock.close()
    for session in sessions:
        assert session.value("1") == "1"
        session.delete()


def test_clients_of_streams_that_leave(stage):
    """At every point of a stream, by a reset or politely."""
    session = stage.server.create()
    code = "for _ in range(5): print(1, flush=True); tools['ask'].run()"
    alone, two = execute(session, code, tools=["ask"]), execute(session, "1", tools=["ask"], then={"code": code})
    for number in range(60):
        data = two if number % 4 > 1 else alone
        sock = socket.create_connection(("127.0.0.1", stage.server.port))
        sock.sendall(data[: len(data) * (number % 6 + 3) // 8])
        time.sleep(0.002 * (number % 7))
        reset(sock) if number % 2 else sock.close()
    eventually(lambda: idle(session), "nothing runs for nobody", 25)
    assert session.value("1") == "1"
    session.delete()


def test_guessed_calls(stage):
    """Many who do not know which calls there are, around one who does."""
    session = stage.server.create()
    sock = socket.create_connection(("127.0.0.1", stage.server.port), timeout=60 * PATIENCE)
    sock.sendall(execute(session, "tools['ask'].run()", tools=["ask"]))
    heard = b""
    while b"event: call" not in heard or not heard.endswith(b"\r\n"):
        heard += sock.recv(65536)
    execution = heard.split(b'"execution_id":"')[1].split(b'"')[0].decode()
    rng = random.Random(7)
    guesses = [f"{rng.choice([execution[:-1], execution + '0', 'exec-0', '', '%00'])}/calls/{n}" for n in range(100)]
    guesses += [f"{execution}/calls/{n}" for n in ("0", "-1", "01", "1e0", "18446744073709551617", "9" * 700, "%2531", "1/", "call", "*")]

    def one(number):
        answer = stage.server.request("POST", f"{session.path}/executions/{guesses[number]}", json={"result": "forged"})
        stage.server.hang_up()
        return answer.status_code

    assert set(together(len(guesses), one)) <= {404, 405}
    assert stage.server.request("POST", f"{session.path}/executions/{execution}/calls/1", json={"result": "true one"}).status_code == 200
    while b"event: result" not in heard:
        heard += sock.recv(65536)
    assert b"true one" in heard and b"forged" not in heard
    sock.close()
    session.delete()


def test_an_answer_by_many(stage):
    """One call, many answers at once: one of them is taken."""
    session = stage.server.create()
    for _ in range(5):
        sock = socket.create_connection(("127.0.0.1", stage.server.port), timeout=60 * PATIENCE)
        sock.sendall(execute(session, "tools['ask'].run()", tools=["ask"]))
        heard = b""
        while b"event: call" not in heard or not heard.endswith(b"\r\n"):
            heard += sock.recv(65536)
        execution = heard.split(b'"execution_id":"')[1].split(b'"')[0].decode()

        def one(number, path=f"{session.path}/executions/{execution}/calls/1"):
            answer = stage.server.request("POST", path, json={"result": number})
            stage.server.hang_up()
            return answer.status_code

        statuses = together(20, one)
        assert sorted(statuses) == [200] + [404] * 19
        while b"event: result" not in heard or not heard.endswith(b"\r\n"):
            heard += sock.recv(65536)
        assert f'"result":"{statuses.index(200)}"'.encode() in heard
        sock.close()
    session.delete()


ANSWERS = {
    "deep": b'{"result": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "equal keys": b'{"result": 1, "result": 2}',
    "both": b'{"result": 1, "error": "x"}',
    "a lone surrogate": b'{"error": "\\ud800"}',
    "no object": b"[1]",
    "NaN": b'{"result": NaN}',
    "bad text": b'{"result": "\xff"}',
    "empty": b"",
}


@pytest.mark.parametrize("name", list(ANSWERS))
def test_answers(stage, name):
    """Refused, and the call waits on."""
    session = stage.server.create()
    sock = socket.create_connection(("127.0.0.1", stage.server.port), timeout=60 * PATIENCE)
    sock.sendall(execute(session, "tools['ask'].run()", tools=["ask"]))
    heard = b""
    while b"event: call" not in heard or not heard.endswith(b"\r\n"):
        heard += sock.recv(65536)
    path = f"{session.path}/executions/{heard.split(b'execution_id')[1].split(bytes([34]))[2].decode()}/calls/1"
    answer = stage.server.request("POST", path, data=ANSWERS[name], headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 413, 422), answer.text
    assert stage.server.request("POST", path, json={"result": 5}).status_code == 200
    while b"event: result" not in heard:
        heard += sock.recv(65536)
    sock.close()
    session.delete()


# --- values as files


def test_uploads_that_stop(stage):
    """Many that say much and send little; then nothing. They end, and with them their files."""
    session = stage.server.create()
    with crowd(stage, 60, upload(session, 50_000_000, b"x" * 100_000)) as sockets:
        assert stage.server.request("GET", "/health").status_code == 200
        eventually(lambda: all(map(is_closed, sockets)), "uploads that stop are cut off", 60)
    stage.server.hang_up()  # our own connection was idle meanwhile, and may be closed as well
    eventually(lambda: files_in_memory(stage) == [], "no file is left")
    assert "x" not in session.ok("1")["locals"]
    session.delete()


def test_uploads_that_are_broken_off(stage):
    session = stage.server.create()
    for number in range(60):
        sock = socket.create_connection(("127.0.0.1", stage.server.port))
        sock.sendall(upload(session, 300_000, b"x" * (number * 5000)))
        reset(sock) if number % 2 else sock.close()
    eventually(lambda: files_in_memory(stage) == [], "no file is left")
    assert "x" not in session.ok("1")["locals"]
    session.delete()


def test_uploads_byte_by_byte(stage):
    """A trickle is not worth waiting for, whatever is promised."""
    session = stage.server.create()
    with crowd(stage, 20, upload(session, 1_000_000)) as sockets:
        end = time.monotonic() + 60
        while not all(map(is_closed, sockets)):
            assert time.monotonic() < end, "slow uploads are never cut off"
            for sock in sockets:
                sock.setblocking(True)
                try:
                    sock.sendall(b"x")
                except OSError:
                    pass
            time.sleep(0.1)
    stage.server.hang_up()  # as above
    session.delete()


@pytest.mark.parametrize("name", list(IDS))
def test_names(stage, name):
    """No variable comes of it, and nothing of the name in a header."""
    session = stage.server.create()
    received = stage.server.raw(upload(session, 1, b"v", IDS[name].encode()))
    assert received.split(b" ", 2)[1] in (b"400", b"404", b"414", b"422", b"431") or name == "null", received[:200]
    assert b"X-Evil" not in received.split(b"\r\n\r\n", 1)[0]
    session.ok("1")
    session.delete()


def test_names_of_the_session(stage):
    """Names that mean something to whoever serves the session: its own variables are all that can be harmed."""
    session = stage.server.create()
    for name in ("__builtins__", "__name__", "tools", "print", "config", "context", "__import__", "_", "__loader__", "None"):
        answer = stage.server.request("PUT", f"{session.path}/variables/{name}", data=b"v", headers={"Content-Type": "text/plain"})
        assert answer.status_code in (200, 422), (name, answer.text)
    assert stage.server.request("POST", f"{session.path}/execute", json={"code": "1"}).status_code in (200, 410)
    session.delete()
    assert stage.server.create().value("print.__name__") == "'print'"


def test_json_that_wants_too_much(stage):
    session = stage.server.create()
    for data in (b"[" * 5_000_000, b"[" * 200_000 + b"]" * 200_000, b"[" + b"1," * 4_000_000 + b"1]", b"1" * 5_000_000, b'"' + b"\\u0000" * 800_000 + b'"'):
        answer = stage.server.request("PUT", f"{session.path}/variables/x", data=data, headers={"Content-Type": "application/json"})
        assert answer.status_code in (200, 422, 504, 507), answer.text[:300]
    assert session.value("6 * 7") == "42"
    session.delete()
