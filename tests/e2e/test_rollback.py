# SPDX-License-Identifier: Apache-2.0
"""What a session goes back to, when its process dies, when an execution asks for it, and on request."""

import os
import signal

import pytest

from streams import Held
from support import alive, eventually, running_sidecar


def kill(session):
    """Ends the session's process between two executions, when its state has been saved."""
    pid = session.pid()
    session.rest()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: session.info()["pid"] not in (0, pid), "there is a new process")


# --- everything comes back

STATES = {
    "functions and classes": ("class A:\n    def f(self): return self.x\na = A(); a.x = 5", "a.f()", "5"),
    "a generator in its middle": ("def g():\n    for i in range(9): yield i\ng = g(); next(g); next(g)", "next(g)", "2"),
    "a closure": ("def outer():\n    n = 0\n    def inner():\n        nonlocal n\n        n += 1\n        return n\n    return inner\nf = outer(); f()", "f()", "2"),
    "imports": ("import json, decimal\nfrom collections import Counter\nc = Counter('abca')", "json.dumps(c)", "'{\"a\": 2, \"b\": 1, \"c\": 1}'"),
    "files": ("open('notes.txt', 'w').write('kept')\nimport os; os.makedirs('a/b')", "open('notes.txt').read(), os.listdir('a')", "('kept', ['b'])"),
    "an open file": ("f = open('log', 'w+'); f.write('one')", "f.seek(0); f.read()", "'one'"),
    "a database": ("import sqlite3\ndb = sqlite3.connect('d.sqlite'); _ = db.execute('create table t(x)'); _ = db.execute('insert into t values (7)'); db.commit()", "db.execute('select x from t').fetchone()", "(7,)"),
    "seeded random numbers": ("import random; random.seed(1); a = random.random(); s = random.getstate()", "random.getstate() == s", "True"),
    "a recursion limit": ("import sys; sys.setrecursionlimit(2345)", "sys.getrecursionlimit()", "2345"),
    "thirty megabytes": ("big = bytearray(30_000_000); big[::1_000_000] = b'x' * 30", "big.count(b'x'), len(big)", "(30, 30000000)"),
    "a hundred thousand objects": ("rows = [{'n': n} for n in range(100_000)]", "sum(row['n'] for row in rows)", "4999950000"),
}


@pytest.mark.parametrize("name", sorted(STATES))
def test_the_state_survives_its_process(session, name):
    code, question, answer = STATES[name]
    session.ok(code)
    kill(session)
    assert session.value(question) == answer
    session.ok("more = [0] * 100_000")
    kill(session)
    assert session.value("len(more)") == "100000"


def test_threads_go_on_in_the_next_process(session):
    session.ok("import threading, time\nn = 0\ndef count():\n    global n\n    while True:\n        time.sleep(0.001); n += 1\n"
               "threading.Thread(target=count, daemon=True).start()\ntime.sleep(0.05)")
    kill(session)
    assert session.value("before = n\ntime.sleep(0.05)\nbefore > 0 and n > before") == "True"


def test_many_deaths_in_a_row(session):
    session.ok("x = 0; history = []")
    for n in range(1, 16):
        session.ok("x += 1; history.append(x)")
        if n % 3:
            kill(session)
    assert session.value("x, history == list(range(1, 16))") == "(15, True)"
    assert session.info()["restores"] == 10


def test_memory_grows_and_is_changed_over_many_saves(session):
    """Each save takes what has changed, pages that are new, changed for a second time, and unchanged ones."""
    session.ok("import random, hashlib\nrandom.seed(5)\nmemory = bytearray(8_000_000)\ndef digest(): return hashlib.sha256(memory).hexdigest()")
    for _ in range(6):
        digest = session.value("for _ in range(200): memory[random.randrange(len(memory))] = random.randrange(256)\nmemory += bytes(500_000)\ndigest()")
        kill(session)
        assert session.value("digest()") == digest


# --- an execution that does not end well

def test_a_crash_leaves_no_trace(session):
    session.ok("x = [1, 2]; big = list(range(50_000))")
    error = session.rolled_back("x.append(3); del big; y = 1\nimport os; os.abort()")
    assert "back in the state before" in error
    assert session.value("x, len(big), 'y' in globals()") == "([1, 2], 50000, False)"


def test_a_killed_timeout_leaves_no_trace(session):
    session.ok("x = 1")
    reply = session.run("x = 2; sum(range(10**13))", timeout=0.2)
    assert reply["timed_out"] and reply["state"] == "rolled_back" and reply["error_type"] == "Timeout", reply
    assert "did not stop" in reply["error"] and "state before" in reply["error"]
    assert session.value("x") == "1"


def test_crash_after_crash(session):
    session.ok("x = 1")
    for _ in range(5):
        session.rolled_back("x += 1; import os; os._exit(1)")
    assert session.value("x") == "1"


# --- on_error

def test_atomic_executions(session):
    session.ok("x = 1; items = []")
    reply = session.run("x = 2; items.append(1); 1 / 0", on_error="rollback")
    assert reply["state"] == "rolled_back" and reply["error_type"] == "ZeroDivisionError" and "line 1" in reply["traceback"], reply
    assert session.value("x, items") == "(1, [])"
    reply = session.run("x = 3; print('out'); x", on_error="rollback")
    assert reply["state"] == "kept" and reply["success"] and reply["result"] == "3" and reply["stdout"] == "out\n", reply
    reply = session.run("x = 4\nwhile True: pass", on_error="rollback", timeout=0.2)
    assert ", at line 2 of <cell " in reply["error"], reply
    assert reply["error"].endswith("; the session is back in the state before it"), reply
    assert reply["state"] == "rolled_back" and reply["timed_out"], reply
    assert session.value("x") == "3"
    reply = session.run("x = 5; 1 / 0", on_error="keep")
    assert reply["state"] == "kept"
    assert session.value("x") == "5"


def test_the_first_execution_may_be_atomic(session):
    session.run("x = 1; 1 / 0", on_error="rollback")
    assert session.value("'x' in globals()") == "False"


@pytest.mark.parametrize("value", ["undo", 1, True, [], {}])
def test_on_error_is_one_of_two_words(session, value):
    answer = session.post("1", on_error=value)
    assert answer.status_code == 422 and "on_error" in answer.json()["detail"], answer.text


# --- POST /session/{id}/rollback

def roll_back(session):
    return session.sidecar.request("POST", f"/session/{session.id}/rollback")


def test_the_last_execution_is_undone(session):
    answer = roll_back(session)
    assert answer.status_code == 409 and answer.json()["code"] == "nothing_to_undo", answer.text
    session.ok("x = 1")
    session.ok("x = 2; y = 1; open('f', 'w').write('x')")
    assert session.info()["can_roll_back"] is True
    answer = roll_back(session)
    assert answer.status_code == 200 and answer.json() == {"status": "ok", "state": "rolled_back"}, answer.text
    assert session.info()["can_roll_back"] is False
    assert roll_back(session).json()["code"] == "nothing_to_undo"
    assert session.value("import os\nx, 'y' in globals(), os.path.exists('f')") == "(1, False, False)"
    assert roll_back(session).status_code == 200
    assert session.value("x") == "1"


def test_the_first_execution_is_undone(session):
    session.ok("x = 1")
    assert roll_back(session).status_code == 200
    assert session.value("'x' in globals()") == "False"


def test_large_changes_are_undone(session):
    session.ok("memory = bytearray(20_000_000)")
    session.ok("for n in range(0, len(memory), 4096): memory[n] = 1\nmore = bytearray(10_000_000)")
    assert roll_back(session).status_code == 200
    assert session.value("sum(memory), 'more' in globals()") == "(0, False)"
    session.ok("more = bytearray(10_000_000)")
    assert session.value("any(more)") == "False"  # the memory that was given back is zero


def test_a_busy_session_is_not_rolled_back(session):
    work = Held(session, "x = 1")
    assert roll_back(session).json()["code"] == "session_busy"
    assert work.result()["success"]
    assert session.value("x") == "1"


def test_unknown_sessions(sidecar):
    for verb in ("rollback", "interrupt"):
        assert sidecar.request("POST", f"/session/session-{'0' * 32}/{verb}").status_code == 404


# --- POST /session/{id}/interrupt

def interrupt(session):
    return session.sidecar.request("POST", f"/session/{session.id}/interrupt").json()


def test_a_running_execution_is_interrupted(session):
    assert interrupt(session) == {"status": "ok", "interrupted": False}
    session.ok("x = 1")
    session.rest()
    work = session.in_background("x = 2\nwhile True: pass")
    eventually(lambda: session.info()["state"] == "running", "it runs")
    session.computes()
    assert interrupt(session) == {"status": "ok", "interrupted": True}
    reply = work.result().json()
    assert reply["error_type"] == "KeyboardInterrupt" and reply["state"] == "kept" and not reply["timed_out"], reply
    assert session.value("x") == "2"


def test_code_that_will_not_stop_is_ended_and_undone(session):
    session.ok("x = 1")
    session.rest()
    work = session.in_background("x = 2; sum(range(10**13))")
    eventually(lambda: session.info()["state"] == "running", "it runs")
    session.computes()
    assert interrupt(session)["interrupted"]
    reply = work.result().json()
    assert reply["error_type"] == "KeyboardInterrupt" and reply["state"] == "rolled_back", reply
    assert session.value("x") == "1"


# --- what is never silent

def test_a_death_right_after_an_answer_is_told(sidecar):
    """Between an answer and its save lies a moment. Whoever dies in it is told, once; the session goes on."""
    seen = set()
    for _ in range(12):
        session = sidecar.create()
        session.ok("x = 1")
        pid = session.pid()
        session.ok("x = 2; big = [None] * 3_000_000")  # a large state takes its time
        os.kill(pid, signal.SIGKILL)
        answer = session.post("x")
        if answer.status_code == 409:
            seen.add("told")
            assert answer.json()["code"] == "state_rolled_back", answer.text
            assert session.value("x") == "1"
        else:
            reply = answer.json()
            seen.add(reply["state"])
            assert reply["state"] == "rolled_back" or reply["result"] == "2", reply
            assert session.value("x") == "2"
        session.delete()
    assert "told" in seen, seen  # else this test has tested nothing


def checkpoints(pid):
    names = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            names.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:  # it was that of the list itself
            pass
    return sum("memfd:checkpoint" in name for name in names)


def test_no_process_and_no_memory_is_left():
    with running_sidecar() as own:
        session = own.create()
        session.ok("x = bytearray(5_000_000)")
        pids = set()
        for _ in range(10):
            pids.add(session.pid())
            kill(session)
        session.delete()
        eventually(lambda: not any(alive(pid) for pid in pids), "no process is left")
        gateway = own.process.pid
        eventually(lambda: checkpoints(gateway) == own.metric("codemode_spare_workers"), "each worker has one, and nobody else")
