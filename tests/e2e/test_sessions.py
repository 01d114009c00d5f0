# SPDX-License-Identifier: Apache-2.0
"""Sessions over HTTP: life, state, separation, order."""

import json
import re
import socket

import pytest

from streams import Held
from support import eventually

SETTINGS = {"QUEUE_MAX": "4"}

FIELDS = {"stdout", "stderr", "locals", "execution_time", "success", "error", "result", "error_type", "traceback"}


def test_life_of_a_session(sidecar):
    session = sidecar.create()
    assert re.fullmatch(r"session-[0-9a-f]{32}", session.id)
    assert session.id in sidecar.sessions()
    assert session.value("1 + 1") == "2"
    answer = session.delete()
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert session.id not in sidecar.sessions()
    answer = session.post("1")
    assert answer.status_code == 404 and answer.json()["code"] == "unknown_session" and answer.json()["detail"]


def test_deleting_twice_is_fine(sidecar):
    for session_id in ("session-" + "0" * 32, "nonsense"):
        answer = sidecar.request("DELETE", f"/session/{session_id}")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_creation_takes_an_empty_object_and_no_body(sidecar):
    for kwargs in ({}, {"json": {}}, {"data": b""}):
        answer = sidecar.request("POST", "/session", **kwargs)
        assert answer.status_code == 200, answer.text
        assert sidecar.request("DELETE", f"/session/{answer.json()['session_id']}").status_code == 200


def test_ids_are_unique(sidecar):
    made = [sidecar.create() for _ in range(20)]
    assert len({session.id for session in made}) == 20
    assert set(sidecar.sessions()) >= {session.id for session in made}
    for session in made:
        session.delete()


def test_state_persists(session):
    session.ok("x = 42")
    assert session.value("x * 2") == "84"
    session.ok("x = x + 10")
    assert session.value("x") == "52"


def test_answer_has_all_fields_and_the_right_types(session):
    reply = session.ok("import math\ndef f(): pass\nn = 5\nprint('out')\nn")
    assert set(reply) >= FIELDS
    assert (reply["stdout"], reply["stderr"], reply["result"]) == ("out\n", "", "5")
    assert (reply["error"], reply["error_type"], reply["traceback"]) == (None, None, None)
    assert isinstance(reply["execution_time"], float) and 0 <= reply["execution_time"] < 30
    assert reply["locals"]["n"] == 5 and reply["state"] == "kept"
    assert "math" in reply["locals"] and "f" in reply["locals"]


def test_content_type_is_json(session):
    assert session.post("1").headers["Content-Type"].split(";")[0] == "application/json"


def test_user_error_is_data(session):
    session.ok("kept = 1")
    reply = session.fails("1/0", "ZeroDivisionError")
    assert "ZeroDivisionError" in reply["traceback"] and "ZeroDivisionError" in reply["stderr"]
    assert session.value("kept") == "1"


def test_sessions_are_apart(sidecar):
    a, b = sidecar.create(), sidecar.create()
    a.ok("x = 1\nopen('/tmp/mark', 'w').write('a')\nimport sys\nsys.modules['planted'] = 1")
    b.fails("x", "NameError")
    assert b.value("import os, sys\nos.path.exists('/tmp/mark'), 'planted' in sys.modules") == "(False, False)"
    a.delete()
    b.delete()


def test_sessions_share_no_randomness(sidecar):
    draw = "import random, uuid, os, secrets\nrandom.random(), uuid.uuid4(), os.urandom(8), secrets.token_hex()"
    made = [sidecar.create() for _ in range(6)]
    values = [parts(session.value(draw)) for session in made]
    for column in zip(*values):
        assert len(set(column)) == len(made), column
    for session in made:
        session.delete()


def parts(text):
    """The parts of a printed tuple, as text."""
    return text.strip("()").replace("UUID(", "").split(", ")


def test_context_becomes_variables(session):
    context = {"n": 5, "rows": [{"a": 1.5, "b": None}], "text": "grüße \U0001f40d", "flag": True, "big": 2**70}
    assert session.value("n + 1", context=context) == "6"
    assert session.value("rows, text, flag, big") == repr((context["rows"], context["text"], True, 2**70))
    assert session.value("n", context=None) == "5"
    assert session.value("n", context={}) == "5"


def test_large_context(session):
    text = "needle in hay " * 100_000
    assert session.value("len(doc), doc.count('needle')", context={"doc": text}) == repr((len(text), 100_000))


def test_info_of_a_session(session):
    session.ok("1")
    info = session.info()
    assert info["session_id"] == session.id and info["state"] == "idle"
    assert info["executions"] == 1 and info["queued"] == 0 and info["pid"] > 1 and info["memory_bytes"] > 0
    work = Held(session)
    eventually(lambda: session.info()["state"] == "running", "the state says running")
    assert work.result()["success"]
    eventually(lambda: session.info()["state"] == "idle", "the state says idle")


def test_executions_of_one_session_queue_in_order(session):
    session.ok("seen = []")
    first, works = Held(session, "seen.append(0)"), []
    for number in range(1, 4):
        works.append(session.in_background(f"seen.append({number})"))
        eventually(lambda n=number: session.info()["queued"] == n, "the next one is queued")
    assert first.result()["success"] and all(work.result().json()["success"] for work in works)
    assert session.value("seen") == "[0, 1, 2, 3]"


def test_queue_has_an_end(session):
    running, waiting = Held(session), []
    for number in range(1, 5):
        waiting.append(session.in_background("1"))
        eventually(lambda n=number: session.info()["queued"] == n, "the next one is queued")
    answer = session.post("1")
    assert answer.status_code == 429 and answer.json()["code"] == "queue_full"
    assert running.result()["success"] and all(work.result().json()["success"] for work in waiting)


def test_sessions_run_in_parallel(sidecar):
    made = [sidecar.create() for _ in range(5)]
    works = [Held(session) for session in made]  # each one there, and none ended, when the last one has begun
    assert [session.info()["state"] for session in made] == ["running"] * 5
    assert all(work.result()["success"] for work in works)
    for session in made:
        session.delete()


def test_deleting_a_running_session(sidecar):
    session = sidecar.create()
    pid = session.pid()
    work = session.in_background("while True: pass")
    eventually(lambda: session.info()["state"] == "running", "it runs")
    queued = session.in_background("1")
    eventually(lambda: session.info()["queued"] == 1, "the second one is queued")
    assert session.delete().status_code == 200
    for answer in (work.result(), queued.result()):
        assert answer.status_code == 404 and answer.json()["code"] == "unknown_session"
    eventually(lambda: pid not in sidecar.children(), "its process has ended")


def disconnect(sidecar, session, code):
    """Sends an execution and closes the connection without waiting for the answer."""
    body = json.dumps({"code": code}).encode()
    head = f"POST {session.path}/execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    sock = socket.create_connection(("127.0.0.1", sidecar.port))
    sock.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return sock


def test_client_that_leaves_interrupts_its_execution(sidecar, session):
    session.ok("kept = 1")
    session.rest()
    code = "log = []\ntry:\n    while True: pass\nfinally:\n    log.append('finally')"
    sock = disconnect(sidecar, session, code)
    eventually(lambda: session.info()["state"] == "running", "it runs")
    session.computes()
    sock.close()
    eventually(lambda: session.info()["state"] == "idle", "it was interrupted", 5)
    assert session.value("kept, log") == "(1, ['finally'])"


def test_client_that_leaves_while_queued_never_runs(sidecar, session):
    session.ok("ran = 0")
    work = Held(session)
    sock = disconnect(sidecar, session, "ran = 1")
    eventually(lambda: session.info()["queued"] == 1, "the second one is queued")
    sock.close()
    eventually(lambda: session.info()["queued"] == 0, "it left the queue")
    assert work.result()["success"]
    assert session.value("ran") == "0"


def test_one_shot(sidecar):
    before = sidecar.sessions()
    assert sidecar.execute("x = 1\nx + 1")["result"] == "2"
    assert sidecar.execute("result = 2 + 2\n'last'")["result"] == "4"
    assert sidecar.execute("result = 'text'")["result"] == "text"
    assert sidecar.execute("n * 2", context={"n": 21})["result"] == "42"
    assert sidecar.execute("x")["error_type"] == "NameError"
    assert sidecar.execute("import time; time.sleep(30)", timeout=0.3)["success"] is False
    eventually(lambda: sidecar.sessions() == before, "one-shot executions leave no session")


def test_identity_routes(sidecar):
    health = sidecar.request("GET", "/health")
    assert (health.status_code, health.json()["status"]) == (200, "healthy")
    ready = sidecar.request("GET", "/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    version = sidecar.request("GET", "/version")
    assert version.status_code == 200 and re.match(r"\d+\.\d+", version.json()["version"])


@pytest.mark.parametrize("path", ["/health", "/ready", "/sessions", "/metrics", "/version"])
def test_head_requests(sidecar, path):
    answer = sidecar.request("HEAD", path)
    assert answer.status_code == 200 and answer.content == b""
