# SPDX-License-Identifier: Apache-2.0
"""A time limit ends the execution; what is in the session stays, and everybody else goes on."""

import time

import pytest

from streams import Held
from support import eventually, running_sidecar

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


@pytest.fixture(scope="module")
def strict():
    with running_sidecar(GRACE="0.5") as server:
        yield server


def says_timeout(reply, limit=""):
    """`limit`: the one that it names, in seconds."""
    return reply["success"] is False and f"timed out (timeout of {limit}" in reply["error"]


@pytest.mark.parametrize("name", sorted(FOREVER))
def test_timeout_keeps_the_state(session, name):
    session.ok("kept = [1, 2, 3]")
    reply = session.run(FOREVER[name], timeout=0.4)
    assert says_timeout(reply, "0.4 s"), reply
    assert reply["state"] == "kept", reply
    assert reply["execution_time"] > 0.3
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
    reply = session.run("while True: pass", **body)
    assert says_timeout(reply, "1.5 s") and reply["execution_time"] > 1.4, reply


def test_limit_is_capped(session):
    reply = session.run("while True: pass", timeout=9999)
    assert says_timeout(reply, "3 s") and reply["execution_time"] > 2.9, reply


def test_limit_counts_from_the_start_of_the_run(strict):
    """The second one waits longer than its limit is."""
    session = strict.create()
    first = Held(session)
    second = session.in_background("5", timeout=1)
    eventually(lambda: session.info()["queued"] == 1, "it waits")
    time.sleep(1.2)
    assert first.result()["success"] and second.result().json()["result"] == "5"
    session.delete()


def test_others_answer_meanwhile(sidecar, session):
    other = sidecar.create()
    work = session.in_background("while True: pass", timeout=3)
    eventually(lambda: session.info()["state"] == "running", "it runs")
    answered = 0
    while session.info()["state"] == "running":
        assert other.value(str(answered)) == str(answered)
        assert sidecar.request("GET", "/health").status_code == 200
        answered += 1
    assert answered >= 3
    assert says_timeout(work.result().json(), "3 s")
    other.delete()


DEAF = {
    "catches everything": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "one long C call": "sum(range(10**14))",
    "at the recursion limit": "def f():\n    while True:\n        try: f()\n        except RecursionError: pass\nf()",
}


@pytest.mark.parametrize("name", sorted(DEAF))
def test_code_that_does_not_yield_is_killed(strict, name):
    """Either the interrupt takes after all, or the process is ended and the session goes back."""
    session = strict.create()
    session.ok("kept = 1")
    reply = session.run(DEAF[name], timeout=0.5)
    assert says_timeout(reply, "0.5 s"), reply
    assert reply["state"] in ("kept", "rolled_back"), reply
    assert session.value("kept") == "1"
    session.delete()
    assert strict.execute("1")["result"] == "1"


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
