# SPDX-License-Identifier: Apache-2.0
"""Processes that die, stop or are meddled with at the worst moment. tests/e2e/test_resilience.py has the single faults."""

import contextlib
import os
import random
import signal
import socket
import time

import pytest

from attack import HARMLESS, ROLLED, ROLLS_BACK, outcome_of
from support import PATIENCE, eventually

STAGE = "guest"

MOMENTS = {
    "while it computes": "while True: pass",
    "while it sleeps": "import time; time.sleep(100)",
    "while it prints": "while True: print('x' * 1000, flush=True)",
    "while its result is large": "while True: x = ['r' * 60_000] * 50",
    "while threads wait": "import threading; e = threading.Event(); [threading.Thread(target=e.wait).start() for _ in range(20)]; e.wait(100)",
    "while it allocates": "while True: b = bytearray(5 << 20)",
}


@pytest.mark.parametrize("name", list(MOMENTS))
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_death_of_a_worker(stage, name, signum):
    session = stage.server.create()
    session.ok("kept = 1")
    session.rest()  # else its death may be told of the state that was still being saved
    pid = session.pid()
    before = stage.server.metrics()
    work = session.in_background(MOMENTS[name], timeout=20)
    eventually(lambda: session.info()["state"] == "running", "it runs")
    time.sleep(random.random() * 0.05)
    os.kill(pid, signum)
    answer = work.result()
    assert outcome_of(answer) == ROLLED, answer.text[:300]
    stage.counted(before, {"codemode_worker_deaths_total": 1})
    if ROLLS_BACK:
        assert session.value("kept") == "1" and session.pid() != pid
    else:
        assert session.post("kept").status_code == 410
    session.delete()


def test_deaths_at_random(stage):
    """Sixty kills at any moment of short executions: each call has one answer, and nothing is left."""
    rng = random.Random(5)
    for _ in range(60):
        session = stage.server.create()
        pid = session.pid()
        work = session.in_background("x = [n * n for n in range(20_000)]\nprint(len(x))\nx[-1]", timeout=20)
        time.sleep(rng.random() * 0.02)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        answer = work.result()
        assert answer.status_code in (200, 410), answer.text
        if answer.status_code == 200 and answer.json()["success"]:
            assert answer.json()["result"] == str(19_999**2)
        session.delete()


def test_a_stopped_worker_and_a_full_queue(stage):
    """SIGSTOP: the deadline comes from outside of the process."""
    session = stage.server.create()
    pid = session.pid()
    os.kill(pid, signal.SIGSTOP)
    first = session.in_background("1", timeout=2)
    eventually(lambda: session.info()["state"] == "running", "it runs")
    others = [session.in_background("2", timeout=0.4) for _ in range(5)]
    assert outcome_of(first.result()) == ROLLED
    for other in others:
        assert other.result().status_code in (200, 410)
    session.delete()


def test_an_idle_worker_that_is_killed(stage):
    session = stage.server.create()
    session.ok("kept = 1")
    session.rest()
    before = stage.server.metrics()
    os.kill(session.pid(), signal.SIGKILL)
    stage.counted(before, {"codemode_worker_deaths_total": 1})
    answer = session.post("kept")
    assert answer.status_code == (200 if ROLLS_BACK else 410), answer.text
    session.delete()


def test_spare_workers_that_are_killed(stage):
    """Processes that wait for a session die. Whoever gets one before its death is known learns of it as of any death;
    after that there are others."""
    for _ in range(3):
        known = {stage.server.zygote(), stage.heart.session.pid()}
        for pid in set(stage.server.children()) - known:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        session = stage.server.create()
        answer = session.post("1 + 1")
        assert outcome_of(answer) in (HARMLESS, ROLLED), answer.text
        session.delete()
        eventually(lambda: stage.server.request("POST", "/execute", json={"code": "2 + 2"}).status_code == 200, "there are others")
    eventually(lambda: stage.server.metric("codemode_spare_workers") >= 2, "the pool is full again")


def test_a_zygote_that_is_killed_while_many_ask(stage):
    """Sessions that run do not notice; creations succeed or say why not; the next ones succeed."""
    restarts = stage.server.metric("codemode_zygote_restarts_total")
    running = stage.server.create()
    running.ok("x = 41")
    os.kill(stage.server.zygote(), signal.SIGKILL)
    made = []
    for _ in range(12):
        answer = stage.server.request("POST", "/session")
        assert answer.status_code in (200, 503), answer.text
        if answer.status_code == 200:
            made.append(answer.json()["session_id"])
    assert running.value("x + 1") == "42"
    eventually(lambda: stage.server.metric("codemode_zygote_restarts_total") == restarts + 1, "there is a new zygote")
    eventually(lambda: stage.server.request("GET", "/ready").status_code == 200, "it is ready again")
    for name in made:
        stage.server.request("DELETE", "/session/" + name)
    assert stage.server.create().value("2 + 2") == "4"
    running.delete()


def test_a_stopped_zygote(stage):
    """It is found out by its silence; sessions that run do not notice."""
    zygote = stage.server.zygote()
    running = stage.server.create()
    os.kill(zygote, signal.SIGSTOP)
    try:
        for _ in range(5):
            assert running.value("6 * 7") == "42"
        with socket.create_connection(("127.0.0.1", stage.server.port), timeout=20 * PATIENCE) as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(zygote, signal.SIGCONT)
    assert stage.server.create().value("1") == "1"
    running.delete()


def test_signals_to_the_gateway(stage):
    """Those that ask for nothing change nothing."""
    for signum in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT):
        os.kill(stage.pid, signum)
    assert stage.server.request("GET", "/health").status_code == 200
