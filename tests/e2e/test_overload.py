# SPDX-License-Identifier: Apache-2.0
"""Who cannot be served now learns when to come again; nobody is slowed down or killed for it."""

import contextlib
import os
import subprocess
import time

import support


def test_without_memory_no_session_starts():
    with support.running_sidecar(MIN_FREE_MEMORY="900G") as sidecar:
        for path, body in (("/session", None), ("/execute", {"code": "1"})):
            answer = sidecar.request("POST", path, json=body)
            refusal = answer.json()
            assert answer.status_code == 503 and refusal["code"] == "low_memory" and refusal["remediation"]
            assert "MIN_FREE_MEMORY" in refusal["detail"] and int(answer.headers["Retry-After"]) > 0
        assert sidecar.request("GET", "/health").status_code == 200


def test_with_memory_they_do():
    with support.running_sidecar(MIN_FREE_MEMORY="1Mi") as sidecar:
        assert sidecar.create().value("6 * 7") == "42"


def test_computing_executions_take_turns_and_the_rest_is_sent_away():
    with support.running_sidecar(MAX_RUNNING="1", QUEUE_TOTAL="2") as sidecar:
        sessions = [sidecar.create() for _ in range(4)]
        first = sessions[0].in_background("while True:\n    pass", timeout=60)
        support.eventually(lambda: sessions[0].info()["state"] == "running", "the first one runs")
        waiting = [session.in_background("6 * 7", timeout=1) for session in sessions[1:3]]
        for session in sessions[1:3]:
            support.eventually(lambda: session.info()["state"] == "queued", "the others wait")
        answer = sessions[3].post("1")
        assert answer.status_code == 503 and answer.json()["code"] == "overloaded", answer.text
        assert int(answer.headers["Retry-After"]) > 0
        assert sidecar.request("GET", "/health").status_code == 200
        time.sleep(1.2)  # longer than their timeout: the time in the queue does not count
        assert not any(call.done() for call in waiting)
        sessions[0].delete()
        assert first.result().status_code == 404
        assert [call.result().json()["result"] for call in waiting] == ["42", "42"]
        assert sessions[3].value("1") == "1"


@contextlib.contextmanager
def starved(pid):
    """A process that would compute all the time, and gets next to no time for it."""
    processor = min(os.sched_getaffinity(0))
    # Linux may share processors among sessions of processes first: each has one of its own.
    busy = [subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"], start_new_session=True) for _ in range(20)]
    try:
        for other in busy:
            os.sched_setaffinity(other.pid, {processor})
        os.sched_setaffinity(pid, {processor})
        os.setpriority(os.PRIO_PROCESS, pid, 19)
        yield
    finally:
        for other in busy:
            other.kill()
            other.wait()


def test_who_finds_no_processor_does_not_sleep():
    """Where there are too many, each uses little: none of them is at rest for that, and makes room for still more."""
    with support.running_sidecar(MAX_RUNNING="1") as sidecar:
        first, second = sidecar.create(), sidecar.create()
        computes = first.in_background("while True: pass", timeout=60)
        first.computes()
        with starved(first.pid()):
            waits = second.in_background("6 * 7")
            support.eventually(lambda: second.info()["state"] == "queued", "it waits")
            time.sleep(1.5)
            assert not waits.done() and first.info()["state"] == "running"
        first.delete()
        assert computes.result().status_code == 404 and waits.result().json()["result"] == "42"


def test_who_sleeps_keeps_nobody_waiting():
    with support.running_sidecar(MAX_RUNNING="1") as sidecar:
        sessions = [sidecar.create() for _ in range(3)]
        sleepers = [session.in_background("import time\ntime.sleep(100)", timeout=100) for session in sessions]
        for session in sessions:
            support.eventually(lambda: session.info()["state"] == "running", "all of them sleep")
        assert sidecar.create().value("6 * 7") == "42"
        assert not any(call.done() for call in sleepers)
        for session in sessions:
            session.sidecar.request("POST", f"{session.path}/interrupt")
        assert [call.result().json()["error_type"] for call in sleepers] == ["KeyboardInterrupt"] * 3
