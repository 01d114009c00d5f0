# SPDX-License-Identifier: Apache-2.0
"""MAX_SESSIONS and SESSION_TTL."""

import time

from support import PATIENCE, eventually

SETTINGS = {"MAX_SESSIONS": "2", "SESSION_TTL": "3"}


def empty(sidecar):
    for session_id in sidecar.sessions():
        sidecar.request("DELETE", f"/session/{session_id}")


def test_third_session_is_refused(sidecar):
    empty(sidecar)
    first, _ = sidecar.create(), sidecar.create()
    assert sidecar.metric("wasm_sessions_active") == 2
    answer = sidecar.request("POST", "/session")
    body = answer.json()
    assert answer.status_code == 429 and body["code"] == "too_many_sessions" and body["detail"] and body["remediation"]
    assert int(answer.headers["Retry-After"]) >= 0
    first.delete()
    assert sidecar.create().value("1") == "1"


def test_idle_session_expires(sidecar):
    empty(sidecar)
    session = sidecar.create()
    pid = session.pid()
    session.ok("x = 1")
    eventually(lambda: session.id not in sidecar.sessions(), "the session has expired", 30, pause=0.1)
    answer = session.post("x")
    assert answer.status_code == 404 and answer.json()["code"] == "unknown_session"
    assert sidecar.metric("wasm_sessions_active") == 0
    eventually(lambda: pid not in sidecar.children(), "its process has ended")


def test_use_keeps_a_session(sidecar):
    empty(sidecar)
    session = sidecar.create()
    session.ok("n = 0")
    end = time.monotonic() + 5
    while time.monotonic() < end:
        session.ok("n += 1")
        time.sleep(0.4)
    assert int(session.value("n")) >= 4


def test_running_execution_keeps_a_session(sidecar):
    empty(sidecar)
    session = sidecar.create()
    assert session.value("import time\nx = 7\ntime.sleep(5)\nx", timeout=20 * PATIENCE) == "7"
    assert session.value("x") == "7"
