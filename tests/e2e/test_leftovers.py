# SPDX-License-Identifier: Apache-2.0
"""What an execution leaves behind it, and what ends more than the execution: threads, exits, full stacks."""

import pytest

SETTINGS = {"MEMORY_LIMIT": "512Mi", "GRACE": "2"}


# --- threads that outlive their cell

def test_a_thread_that_computes_goes_on_with_the_session(session):
    session.ok("""
import threading, time
n, stop = 0, False
def count():
    global n
    while not stop: n += 1
t = threading.Thread(target=count); t.start()
""")
    assert session.value("seen = n\nwhile n == seen: time.sleep(0.01)\nn > seen") == "True"
    assert session.value("sum(range(100000))") == "4999950000"
    assert session.value("stop = True; t.join(20); t.is_alive()") == "False"


def test_a_thread_that_waits_is_woken_by_a_later_cell(session):
    session.ok("import threading\ne, got = threading.Event(), []\nt = threading.Thread(target=lambda: got.append(e.wait()))\nt.start()")
    assert session.value("threading.active_count(), got") == "(2, [])"
    assert session.value("e.set(); t.join(20); got") == "[True]"


def test_output_of_a_thread_belongs_to_the_cell_that_runs(session):
    session.ok("import threading, time\ndef work():\n    for n in range(3): time.sleep(0.1); print('step', n)\nt = threading.Thread(target=work); t.start()")
    assert session.ok("t.join()")["stdout"] == "step 0\nstep 1\nstep 2\n"


def test_a_deadlock_beside_threads_of_an_earlier_cell(session):
    session.ok("import threading\nlock = threading.Lock(); lock.acquire()\nt = threading.Thread(target=lock.acquire); t.start()")
    assert "deadlock" in session.fails("lock.acquire()", "RuntimeError")["error"]
    assert session.value("lock.release(); t.join(20); t.is_alive()") == "False"


def test_an_interrupted_cell_leaves_its_threads_in_order(session):
    session.ok("import threading, time, queue\nq, out = queue.Queue(), []\ndef work():\n    while (item := q.get()) is not None: out.append(item)\nt = threading.Thread(target=work); t.start()")
    reply = session.run("q.put(1)\nwhile True: pass", timeout=1)
    assert reply["timed_out"] and reply["state"] == "kept", reply
    assert session.value("q.put(2); q.put(None); t.join(20); out") == "[1, 2]"


# --- exits

def test_os_exit_undoes_its_execution_and_says_with_what(session):
    session.ok("kept = 1")
    for code in ("import os; os._exit(3)", "import os, threading; t = threading.Thread(target=os._exit, args=(3,)); t.start(); t.join()"):
        assert "status 3" in session.rolled_back("kept = 2\n" + code)
        assert session.value("kept") == "1"


def test_sys_exit_in_a_thread_ends_the_thread(session):
    assert session.value("import sys, threading\nt = threading.Thread(target=sys.exit, args=(3,)); t.start(); t.join(); 'on'") == "'on'"
    assert session.value("threading.active_count()") == "1"


def test_a_killed_execution_has_lost_none_of_its_output(sidecar):
    session = sidecar.create()
    # A loop in C that never looks for signals.
    reply = session.run("print('first'); print('second'); sum(range(10**12))", timeout=1)
    assert (reply["state"], reply["stdout"]) == ("rolled_back", "first\nsecond\n")
    session.delete()


# --- as many threads as there are stacks

def test_the_limit_of_threads(session):
    code = """
import threading
gate, started = threading.Event(), []
try:
    for n in range(300):
        t = threading.Thread(target=gate.wait); t.start(); started.append(t)
except RuntimeError as error:
    said = str(error)
gate.set()
for t in started: t.join()
len(started), said
"""
    for _ in range(2):  # their stacks are used again
        assert session.value(code) == "(255, \"can't start new thread\")"
    assert session.value("threading.active_count()") == "1"


# --- stacks

DEEP = """
import sys, json, threading
sys.setrecursionlimit(10**6)
nested = []
for _ in range(10**5): nested = [nested]
class Adds:
    def __add__(self, other): return self + other
class Looks:
    def __getattr__(self, name): return getattr(self, name + 'x')
def sorts(n=0): return sorted([1, 2], key=lambda _: sorts(n + 1))
def calls(): calls()
ways = [lambda: json.dumps(nested), lambda: json.loads('[' * 10**5), lambda: repr(nested), sorts, calls,
        lambda: nested == [nested], lambda: Adds() + 1, lambda: Looks().x, lambda: eval('+'.join('1' * 10**5))]
def outcome(way):
    try:
        return way() and 'ended'
    except RecursionError:
        return 'RecursionError'
def in_thread(way):
    got = []
    t = threading.Thread(target=lambda: got.append(outcome(way))); t.start(); t.join()
    return got[0]
"""


@pytest.mark.parametrize("where", ["outcome", "in_thread"])
def test_recursion_through_c_raises(session, where):
    session.ok(DEEP)
    assert session.value(f"{{{where}(way) for way in ways}}", timeout=60) == "{'RecursionError'}"


def test_a_full_stack_is_an_error_in_its_thread(session):
    # C that calls itself without counting; the main thread's stack is eight times as large.
    code = "import threading\nx = [1]\nfor _ in range(10**5): x = map(int, x)\nt = threading.Thread(target=list, args=(x,)); t.start(); t.join()"
    assert "RecursionError" in session.ok(code)["stderr"]
    assert session.value("1 + 1") == "2"


# --- memory

def test_the_memory_limit_in_a_thread(session):
    session.ok("""
import threading
got = []
def fill():
    held = []
    try:
        while True: held.append(bytearray(1 << 20))
    except MemoryError as error: got.append(type(error).__name__)
""")
    assert session.value("t = threading.Thread(target=fill); t.start(); t.join(); got") == "['MemoryError']"
    reply = session.ok("def grow():\n    held = []\n    while True: held.append([0] * 10000)\nt = threading.Thread(target=grow); t.start(); t.join()", timeout=60)
    assert "MemoryError" in reply["stderr"]
    assert session.value("t = threading.Thread(target=got.append, args=(1,)); t.start(); t.join(); got") == "['MemoryError', 1]"


# --- descriptors

def test_closing_descriptors_keeps_the_file_system(session):
    session.ok("import os; os.closerange(3, 200)")
    assert session.value("open('/tmp/x', 'w').write('kept'); import ftplib; open('/tmp/x').read()") == "'kept'"
