# SPDX-License-Identifier: Apache-2.0
"""A time limit ends the execution; what is in the session stays, and everybody else goes on."""

import time

import pytest

from support import PATIENCE, eventually

SETTINGS = {"EXECUTION_TIMEOUT": "1.5", "MAX_TIMEOUT": "3"}

FOREVER = {
    "loop": "while True: pass",
    "sleep": "import time; time.sleep(1000)",
    "timed lock": "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire(timeout=1000)",
    "event": "import threading; threading.Event().wait(1000)",
    "queue": "import queue; queue.Queue().get(timeout=1000)",
    "await": "import asyncio; await asyncio.sleep(1000)",
    "asyncio.run": "import asyncio; asyncio.run(asyncio.sleep(1000))",
    "join": "import threading, time; t = threading.Thread(target=time.sleep, args=(1000,), daemon=True); t.start(); t.join()",
    "generator": "sum(i for i in iter(int, 1))",
}


def says_timeout(reply):
    return reply["success"] is False and "timed out" in reply["error"].lower() and "timeout" in reply["error"].lower()


@pytest.mark.parametrize("name", sorted(FOREVER))
def test_timeout_keeps_the_state(session, name):
    session.ok("kept = [1, 2, 3]")
    started = time.monotonic()
    reply = session.run(FOREVER[name], timeout=0.4)
    assert says_timeout(reply), reply
    assert reply["state"] == "kept", reply
    assert time.monotonic() - started < 1.9 * PATIENCE
    assert 0.3 < reply["execution_time"] < 1.9 * PATIENCE
    assert session.value("kept") == "[1, 2, 3]"


def test_wait_on_a_lock_that_another_thread_holds(session):
    code = """
import threading, time
lock = threading.Lock()
def hold():
    with lock:
        time.sleep(1000)
threading.Thread(target=hold, daemon=True).start()
time.sleep(0.05)
lock.acquire()
"""
    session.ok("kept = 1")
    reply = session.run(code, timeout=0.5)
    assert says_timeout(reply) and reply["state"] == "kept", reply
    assert session.value("kept") == "1"


def test_finally_blocks_run(session):
    code = "log = []\ntry:\n    while True: pass\nexcept Exception: log.append('caught')\nfinally: log.append('finally')"
    assert says_timeout(session.run(code, timeout=0.3))
    assert session.value("log") == "['finally']"


def test_output_before_the_timeout_is_there(session):
    reply = session.run("print('before')\nwhile True: pass", timeout=0.3)
    assert says_timeout(reply) and reply["stdout"] == "before\n"


@pytest.mark.parametrize("body", [{}, {"timeout": None}, {"timeout": 0}])
def test_default_limit(session, body):
    started = time.monotonic()
    assert says_timeout(session.run("while True: pass", **body))
    assert 1.2 < time.monotonic() - started < 3.0 * PATIENCE


def test_limit_is_capped(session):
    started = time.monotonic()
    assert says_timeout(session.run("while True: pass", timeout=9999))
    assert 2.7 < time.monotonic() - started < 5 * PATIENCE


def test_limit_counts_from_the_start_of_the_run(session):
    session.ok("import time")
    first = session.in_background("time.sleep(1)")
    eventually(lambda: session.info()["state"] == "running", "the first one runs")
    second = session.in_background("time.sleep(0.3); 5", timeout=0.8)
    assert first.result().json()["success"] and second.result().json()["result"] == "5"


def test_others_answer_meanwhile(sidecar, session):
    other = sidecar.create()
    work = session.in_background("while True: pass", timeout=1.2)
    eventually(lambda: session.info()["state"] == "running", "it runs")
    for number in range(20):
        started = time.monotonic()
        assert other.value(str(number)) == str(number)
        assert sidecar.request("GET", "/health").status_code == 200
        assert time.monotonic() - started < 1 * PATIENCE
    assert says_timeout(work.result().json())
    other.delete()


DEAF = {
    "catches everything": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "one long C call": "sum(range(10**14))",
    "at the recursion limit": "def f():\n    while True:\n        try: f()\n        except RecursionError: pass\nf()",
}


@pytest.mark.parametrize("name", sorted(DEAF))
def test_code_that_does_not_yield_is_killed(sidecar, name):
    """Either the interrupt takes after all, or the process is ended and the session goes back."""
    session = sidecar.create()
    session.ok("kept = 1")
    started = time.monotonic()
    reply = session.run(DEAF[name], timeout=0.3)
    assert says_timeout(reply), reply
    assert time.monotonic() - started < 4 * PATIENCE
    assert reply["state"] in ("kept", "rolled_back"), reply
    assert session.value("kept") == "1"
    session.delete()
    assert sidecar.execute("1")["result"] == "1"


def test_interrupt_does_not_reach_the_next_execution(session):
    for _ in range(5):
        assert says_timeout(session.run("while True: pass", timeout=0.1))
        assert session.value("sum(range(1000))") == "499500"


def test_timeout_near_the_end_is_one_thing_or_the_other(session):
    """A run that ends about when its limit does either succeeds or times out, and the next one is untouched."""
    session.ok("import time")
    for number in range(10):
        reply = session.run("time.sleep(0.2); 'done'", timeout=0.195 + number / 1000)
        assert reply["result"] == "'done'" if reply["success"] else says_timeout(reply)
        assert session.value("1") == "1"
