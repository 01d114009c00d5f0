# SPDX-License-Identifier: Apache-2.0
"""Threads inside a session: waits overlap, and nothing hangs for good."""

import pytest


def test_four_sleeps_overlap(session):
    """The last one has begun before the first one ends."""
    code = """
import time
from concurrent.futures import ThreadPoolExecutor
def sleep(n):
    began = time.monotonic()
    time.sleep(1)
    return n, began, time.monotonic()
with ThreadPoolExecutor(4) as pool:
    numbers, begins, ends = zip(*pool.map(sleep, range(4)))
numbers, max(begins) < min(ends), all(0.9 < end - begin for begin, end in zip(begins, ends))
"""
    assert session.value(code) == "((0, 1, 2, 3), True, True)"


@pytest.mark.parametrize(
    "code, expected",
    [
        ("t = threading.Thread(target=out.append, args=(1,)); t.start(); t.join(); out", "[1]"),
        ("ts = [threading.Thread(target=out.append, args=(n,)) for n in range(100)]\n[t.start() for t in ts]; [t.join() for t in ts]; sorted(out) == list(range(100))", "True"),
        ("e = threading.Event(); threading.Timer(0.05, e.set).start(); e.wait(5)", "True"),
        ("e = threading.Event(); e.wait(0.05)", "False"),
        ("q = queue.Queue(); threading.Thread(target=lambda: [q.put(n) for n in range(3)]).start(); [q.get(timeout=5) for _ in range(3)]", "[0, 1, 2]"),
        ("b = threading.Barrier(3); ts = [threading.Thread(target=b.wait) for _ in range(2)]; [t.start() for t in ts]; n = b.wait(5); [t.join() for t in ts]; 0 <= n < 3", "True"),
        ("with ThreadPoolExecutor() as p: r = list(p.map(pow, [2, 3], [3, 2]))\nr", "[8, 9]"),
        ("with ThreadPoolExecutor() as p: f = p.submit(int, 'x')\ntype(f.exception()).__name__", "'ValueError'"),
        ("s = threading.Semaphore(2); s.acquire(); s.acquire(); s.acquire(timeout=0.05)", "False"),
        ("l = threading.local(); l.x = 1; t = threading.Thread(target=lambda: out.append(hasattr(l, 'x'))); t.start(); t.join(); out", "[False]"),
        ("import time; a = time.sleep(0); threading.active_count() >= 1", "True"),
    ],
)
def test_primitives(session, code, expected):
    session.ok("import threading, queue\nfrom concurrent.futures import ThreadPoolExecutor\nout = []")
    assert session.value(code) == expected


def test_threads_that_compute_take_turns(session):
    code = """
import threading, time
stop, counts = threading.Event(), [0, 0, 0]
def spin(n):
    while not stop.is_set():
        counts[n] += 1
threads = [threading.Thread(target=spin, args=(n,)) for n in range(3)]
for t in threads: t.start()
while not all(counts): time.sleep(0.01)
stop.set()
for t in threads: t.join()
all(counts)
"""
    assert session.value(code) == "True"


@pytest.mark.parametrize(
    "code",
    [
        "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
        "import threading; threading.Event().wait()",
        "import queue; queue.Queue().get()",
        "import threading; c = threading.Condition()\nwith c: c.wait()",
        "import threading; a, b = threading.Lock(), threading.Lock()\na.acquire(); t = threading.Thread(target=lambda: (b.acquire(), a.acquire()), daemon=True); t.start()\nimport time; time.sleep(0.05); b.acquire()",
        "import asyncio; await asyncio.get_running_loop().create_future()",
    ],
)
def test_deadlock_raises_instead_of_hanging(session, code):
    session.ok("kept = 1")
    reply = session.run(code, timeout=30)
    assert reply["success"] is False and not reply["timed_out"] and "deadlock" in reply["error"].lower(), reply
    assert session.value("kept") == "1"


def test_error_in_a_thread_goes_to_stderr(session):
    reply = session.ok("import threading\ndef bad(): raise ValueError('in a thread')\nt = threading.Thread(target=bad)\nt.start(); t.join()")
    assert "ValueError: in a thread" in reply["stderr"]


def test_too_many_threads_is_an_error_not_a_crash(session):
    code = """
import threading
gate, started = threading.Event(), []
try:
    while len(started) < 5000:
        t = threading.Thread(target=gate.wait, args=(60,), daemon=True)
        t.start()
        started.append(t)
    outcome = 'all'
except (RuntimeError, MemoryError) as error:
    outcome = type(error).__name__
gate.set()
for t in started: t.join()
len(started) >= 100, outcome
"""
    value = session.value(code, timeout=30)
    assert value in ("(True, 'RuntimeError')", "(True, 'MemoryError')", "(True, 'all')")
    assert session.value("1") == "1"


def test_deep_recursion_in_a_thread(session):
    code = """
import threading
out = []
def f(n): return f(n + 1)
def run():
    try: f(0)
    except RecursionError: out.append('RecursionError')
t = threading.Thread(target=run); t.start(); t.join()
out
"""
    assert session.value(code) == "['RecursionError']"


def test_threads_left_behind_do_not_disturb(session):
    session.ok("import threading, time\nt = threading.Thread(target=time.sleep, args=(0.5,), daemon=True); t.start()")
    assert session.value("1 + 1") == "2"
    assert session.value("t.join(10); t.is_alive()") == "False"


def test_processes_do_not_exist(session):
    for code in ("import subprocess; subprocess.run(['ls'])", "import os; os.fork()", "import os; os.system('ls')"):
        reply = session.run(code)
        assert reply["success"] is False or reply["result"] not in ("0",), reply
    assert session.value("1") == "1"
