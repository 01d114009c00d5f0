# SPDX-License-Identifier: Apache-2.0
"""Executions as streams of events, and tools that their client answers (docs/streaming.md)."""

import contextlib
import http.client
import json
import os
import pathlib
import random
import signal
import subprocess
import tempfile
import time

import pytest

from streams import Stream, events_of
from support import PATIENCE, Background, eventually, resident_bytes, running_sidecar, uses_asan

SETTINGS = {"MAX_TOOL_ARGUMENT": "16Mi", "MAX_TOOL_RESULT": "16Mi"}
MIB = 1 << 20

#: Code that calls `ask` from several threads at once; `n` says how often.
THREADS = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor({threads}) as pool:
    found = list(pool.map(lambda i: tools['ask'].run(i=i), range({n})))
found == [i * i for i in range({n})]
"""


def idle(session):
    return session.info()["state"] == "idle"


# --- events


def test_the_order_of_events(session):
    code = "import sys\nfor i in range(50):\n    print('out', i)\n    print('err', i, file=sys.stderr)\n'last'"
    with Stream(session, code) as stream:
        result = stream.result()
        assert stream.answer.status == 200 and stream.answer.headers["Content-Type"] == "text/event-stream"
        assert stream.answer.headers["Transfer-Encoding"] == "chunked"
        names = [name for name, _ in stream.seen]
        assert names[0] == "start" and names[-1] == "result" and set(names[1:-1]) == {"output"}
        assert result["execution_id"] == stream.execution and result["result"] == "'last'" and result["success"]
        assert stream.text() == result["stdout"] == "".join(f"out {i}\n" for i in range(50))
        assert stream.text("stderr") == result["stderr"] == "".join(f"err {i}\n" for i in range(50))
        # The connection goes on.
        stream.http.request("GET", session.path)
        assert json.loads(stream.http.getresponse().read())["state"] == "idle"
    plain = session.run(code)
    assert set(plain) == set(result)


def test_output_comes_before_the_end(session):
    with Stream(session, "print('begun', flush=True)\ntools['go'].run()\nprint('done')", ["go"]) as stream:
        call = stream.until("call")
        assert stream.text() == "begun\n" and not idle(session)
        assert stream.reply(call["call"], result=None).status_code == 200
        assert stream.result()["stdout"] == "begun\ndone\n"


def test_all_output_comes_although_the_answer_cuts_it(session):
    with Stream(session, "for i in range(200_000):\n    print(f'line {i:06}')", limits={"output": 4096}) as stream:
        result = stream.result()
    assert stream.text() == "".join(f"line {i:06}\n" for i in range(200_000))
    assert result["stdout_truncated"] and len(result["stdout"]) < 5000 and result["stdout_bytes"] == 200_000 * 12


def test_text_and_what_is_none(session):
    code = (
        "import sys\nsys.stdout.write('größe 数 \\U0001f600' * 9999)\nsys.stdout.flush()\n"
        "sys.stderr.buffer.write(b'a\\xffb\\xe2\\x82')"
    )
    with Stream(session, code) as stream:
        stream.result()
    assert stream.text() == "größe 数 \U0001f600" * 9999
    assert stream.text("stderr") == "a\ufffdb\ufffd\ufffd"


@pytest.mark.parametrize("code, name", [("1 / 0", "ZeroDivisionError"), ("(", "SyntaxError"), ("raise SystemExit(3)", "SystemExit")])
def test_failures_are_results(session, code, name):
    with Stream(session, code) as stream:
        result = stream.result()
    assert result["success"] is False and result["error_type"] == name


def test_refusals_are_plain_answers(sidecar, session):
    gone = sidecar.create()
    gone.delete()
    many = [f"tool{i}" for i in range(65)]
    for where, body, status, code in (
        (gone, {"code": "1"}, 404, "unknown_session"),
        (session, {"code": 1}, 422, "invalid_field"),
        (session, {"code": "1", "caller_tools": "lookup"}, 422, "invalid_field"),
        (session, {"code": "1", "caller_tools": many}, 422, "invalid_field"),
        (session, {"code": "1", "caller_tools": ["a", "a"]}, 422, "invalid_field"),
        (session, {"code": "1", "caller_tools": [""]}, 422, "invalid_field"),
        (session, {"code": "1", "then": {"timeout": 1}}, 422, "invalid_field"),
    ):
        answer = sidecar.request("POST", where.path + "/execute", json=body, headers={"Accept": "text/event-stream"})
        assert answer.status_code == status and answer.json()["code"] == code, (body, answer.text)
    answer = session.post("1", caller_tools=["lookup"])
    assert answer.status_code == 422 and "event-stream" in answer.json()["detail"], answer.text
    assert session.value("6 * 7") == "42"


# --- code behind code


def both(stream):
    """The events of the first execution and those of what runs behind it."""
    events = list(stream)
    second = [number for number, (name, _) in enumerate(events) if name == "start"][1]
    return events[:second], events[second:]


def test_code_behind_code(session):
    session.run("x = 1")
    with Stream(session, "print('one')\nx += 1\nx", then={"code": "print('two')\n_, x"}) as stream:
        for events, out, result in zip(both(stream), ("one\n", "two\n"), ("2", "(2, 2)")):
            assert [name for name, _ in events] == ["start", "output", "result"]
            assert events[1][1]["text"] == events[2][1]["stdout"] == out
            assert events[2][1]["result"] == result and events[2][1]["execution_id"] == events[0][1]["execution_id"]
        assert len({data["execution_id"] for name, data in stream.seen if name == "start"}) == 2
    assert session.info()["executions"] == 3


@pytest.mark.parametrize("code, limits, error, state", [
    ("1 / 0", {}, "ZeroDivisionError", "kept"),
    ("(", {}, "SyntaxError", "kept"),
    ("raise SystemExit(3)", {}, "SystemExit", "kept"),
    ("while True: pass", {"timeout": 0.2}, None, "kept"),
    ("print(1, flush=True)\nimport time; time.sleep(60)", {}, None, "rolled_back"),
])
def test_it_runs_whatever_has_become_of_the_first(session, code, limits, error, state):
    session.run("x = 5")
    with Stream(session, code, then={"code": "x"}, limits=limits) as stream:
        if state == "rolled_back":
            stream.until("output")
            os.kill(session.info()["pid"], signal.SIGKILL)
        first = stream.until("result")
        assert first["success"] is False and first["state"] == state and error in (None, first["error_type"]), first
        assert stream.result()["result"] == "5"


def test_the_second_has_its_own_time(session):
    with Stream(session, "1", then={"code": "while True: pass", "timeout": 0.2}, limits={"timeout": 100}) as stream:
        assert stream.until("result")["result"] == "1"
        assert stream.result()["timed_out"] is True


def test_calls_and_interrupts_of_the_second(session):
    code = "tools['ask'].run(n={})"
    with Stream(session, code.format(1), ["ask"], then={"code": code.format(2) + "\nwhile True: pass"}) as stream:
        first, call = stream.until("start")["execution_id"], stream.until("call")
        assert stream.reply(call["call"], result=None).status_code == 200
        stream.until("result")
        second = stream.until("start")["execution_id"]
        call = stream.until("call")
        assert call["arguments"] == {"n": 2}
        assert stream.reply(call["call"], execution=first, result=None).status_code == 404

        def interrupt(execution):
            return session.sidecar.request("POST", session.path + "/interrupt", json={"execution_id": execution}).json()["interrupted"]

        assert interrupt(first) is False
        assert stream.reply(call["call"], execution=second, result=None).status_code == 200
        assert interrupt(second) is True
        assert stream.result()["error_type"] == "KeyboardInterrupt"


def test_the_second_is_looked_at_as_well(session):
    with Stream(session, "1", then={"code": "import ctypes"}, policy="strict") as stream:
        assert stream.until("result")["success"] is True
        assert stream.result()["error_type"] == "SecurityViolation"


def test_nothing_runs_behind_a_session_that_is_gone(sidecar):
    session = sidecar.create()
    with Stream(session, "tools['go'].run()", ["go"], then={"code": "1"}) as stream:
        stream.until("call")
        session.delete()
        assert [name for name, _ in stream] == ["call_gone", "error"]


def test_a_client_that_leaves_the_second(session):
    with Stream(session, "1", then={"code": "print('begun', flush=True)\nwhile True: pass"}) as stream:
        stream.until("output")
    eventually(lambda: idle(session), "nothing runs for nobody")


def test_a_session_that_is_deleted(sidecar):
    session = sidecar.create()
    with Stream(session, "print('begun')\ntools['go'].run()", ["go"]) as stream:
        stream.until("call")
        session.delete()
        error = stream.until("error")
        assert error["status"] == 404 and error["code"] == "unknown_session" and error["remediation"] and error["detail"]
        assert list(stream) == []


def test_an_interrupt(session):
    with Stream(session, "print('begun')\nwhile True:\n    pass") as stream:
        stream.until("output")
        session.sidecar.request("POST", session.path + "/interrupt")
        result = stream.result()
        assert result["error_type"] == "KeyboardInterrupt" and result["state"] == "kept"


def interrupt(session, **body):
    answer = session.sidecar.request("POST", session.path + "/interrupt", json=body)
    return answer.json()["interrupted"] if answer.status_code == 200 else (answer.status_code, answer.json()["code"])


def test_an_interrupt_of_one_execution_meets_no_other(session):
    """Neither the next one, when it comes late, nor the one that runs, when it comes early."""
    with Stream(session, "1") as first, Stream(session, "tools['go'].run()\nwhile True: pass", ["go"]) as stream:
        late = first.result()["execution_id"]
        stream.reply(stream.until("call")["call"], result=None)
        with Stream(session, "'next'") as queued:
            early = queued.until("start")["execution_id"]
            assert [interrupt(session, execution_id=other) for other in (late, early, "", stream.execution + "0", "x" * 9999)] == [False] * 5
            for bad in (1, ["e"], {}, True, "\0", stream.execution + "\0"):
                assert interrupt(session, execution_id=bad) == (422, "invalid_field"), bad
            assert session.info()["state"] == "running"
            assert interrupt(session, execution_id=stream.execution) is True
            assert stream.result()["error_type"] == "KeyboardInterrupt"
            assert queued.result()["result"] == "'next'"
    assert interrupt(session, execution_id=stream.execution) is False
    with Stream(session, "print('begun')\nwhile True:\n    pass") as stream:
        stream.until("output")
        assert interrupt(session, execution_id=None, other=1) is True  # names none: whichever runs
        assert stream.result()["error_type"] == "KeyboardInterrupt"


def test_streams_are_not_remembered(session):
    session.ok("count = 0")
    for expected in ("1", "2"):
        with Stream(session, "count += 1; count", headers={"Idempotency-Key": "the-same"}) as stream:
            assert stream.result()["result"] == expected


def test_real_client(session):
    url = f"{session.sidecar.url}{session.path}/execute"
    body = json.dumps({"code": "print('first', flush=True)\ntools['go'].run()\nprint('last')", "caller_tools": ["go"]})
    with subprocess.Popen(["curl", "-sSN", url, "-H", "Accept: text/event-stream", "-d", body], stdout=subprocess.PIPE) as curl:
        seen = []
        for name, data in events_of(iter(curl.stdout.readline, b"")):
            seen.append((name, data))
            if name == "call":
                path = f"{session.path}/executions/{seen[0][1]['execution_id']}/calls/{data['call']}"
                assert session.sidecar.request("POST", path, json={"result": 1}).status_code == 200
        assert curl.wait(30 * PATIENCE) == 0
    assert [name for name, _ in seen] == ["start", "output", "call", "output", "result"]


# --- calls


def test_calls(session):
    code = (
        "print(tools['lookup'].run(key='x', deep={'a': [1, None, 'ß']}))\n"
        "try:\n    tools['rlm.fail'].run()\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    with Stream(session, code, ["lookup", "rlm.fail"]) as stream:
        call = stream.until("call")
        assert call == {"call": call["call"], "name": "lookup", "arguments": {"key": "x", "deep": {"a": [1, None, "ß"]}}}
        assert stream.reply(call["call"], result={"found": ["ä\n", 2.5, True]}).json() == {"status": "ok"}
        call = stream.until("call")
        assert call["name"] == "rlm.fail" and call["arguments"] == {}
        assert stream.reply(call["call"], error="it is\nbroken ß").json() == {"status": "ok"}
        result = stream.result()
    assert result["stdout"] == "{'found': ['ä\\n', 2.5, True]}\nToolError tools['rlm.fail']: it is\nbroken ß\n", result


def test_many_calls_at_once(session):
    """Answered in any order, when all of them wait."""
    waiting = []
    with Stream(session, THREADS.format(threads=50, n=100), ["ask"]) as stream:
        answered = 0
        for name, data in stream:
            if name == "call":
                waiting.append(data)
            if len(waiting) == 50:
                random.shuffle(waiting)
                for data in waiting:
                    i = data["arguments"]["i"]
                    assert stream.reply(data["call"], result=i * i).status_code == 200
                answered += len(waiting)
                waiting = []
        assert answered == 100
        assert stream.seen[-1][1]["result"] == "True", stream.seen[-1]


def test_many_streams_at_once(sidecar):
    sessions = [sidecar.create() for _ in range(10)]

    def work(session):
        try:
            with Stream(session, THREADS.format(threads=8, n=40), ["ask"]) as stream:
                return stream.serve(ask=lambda i: i * i)
        finally:
            sidecar.hang_up()

    running = [Background(lambda s=s: work(s)) for s in sessions]
    for reply in (w.result(60) for w in running):
        assert reply["result"] == "True", reply
    for session in sessions:
        session.delete()


def test_answers_that_nobody_waits_for(sidecar, session):
    other = sidecar.create()
    with Stream(session, "tools['go'].run()", ["go"]) as stream:
        call = stream.until("call")["call"]
        for refused in (
            stream.reply(call + 1, result=1),
            stream.reply(0, result=1),
            stream.reply(f"0{call}", result=1),
            stream.reply("-1", result=1),
            stream.reply("x", result=1),
            stream.reply(call, execution="exec-0000000000000000", result=1),
            stream.reply(call, session=other, result=1),
        ):
            assert refused.status_code == 404 and refused.json()["code"] == "unknown_call", refused.text
        for body in ({}, {"result": 1, "error": "x"}, {"error": None}, {"error": 1}):
            assert stream.reply(call, **body).status_code == 422
        assert stream.reply(call, result="good").status_code == 200
        assert stream.reply(call, result="twice").status_code == 404
        assert stream.result()["result"] == "'good'"
        assert stream.reply(call, result="late").status_code == 404
    other.delete()


def test_a_call_that_has_taken_too_long(session):
    code = "try:\n    tools['go'].run()\nexcept Exception as error:\n    print(type(error).__name__)"
    with Stream(session, code, ["go"], limits={"tool_timeout": 0.2}) as stream:
        call = stream.until("call")
        assert stream.until("call_gone") == {"call": call["call"]}
        assert stream.reply(call["call"], result=1).status_code == 404
        assert stream.result()["stdout"] == "ToolTimeout\n"


def test_large_arguments_and_results(session):
    size = 9 * MIB  # more than a client may leave unread
    code = f"found = tools['go'].run(text='ab' * {size // 2})\nlen(found), found[:3]"
    limits = {"tool_argument": 16 * MIB, "tool_result": 16 * MIB}
    with Stream(session, code, ["go"], limits=limits) as stream:
        call = stream.until("call")
        assert call["arguments"] == {"text": "ab" * (size // 2)}
        assert stream.reply(call["call"], result="x" * size).status_code == 200
        assert stream.result()["result"] == f"({size}, 'xxx')"
    with Stream(session, "tools['go'].run()", ["go"], limits={"tool_result": 1000}) as stream:
        call = stream.until("call")
        assert stream.reply(call["call"], result="x" * 2000).status_code == 200
        assert "ToolLimit" in stream.result()["error"]


def test_another_key():
    """Whose session it is not cannot answer its calls, nor learn whether there are any."""
    with tempfile.TemporaryDirectory() as folder:
        keys = pathlib.Path(folder) / "keys"
        keys.write_text("alice alice-key-00c1a7\nbob bob-key-4be01d9a\n")
        with running_sidecar(CODEMODE_KEYS_FILE=str(keys), CODEMODE_API_KEY="alice-key-00c1a7x") as sidecar:
            heads = {"Authorization": "Bearer alice-key-00c1a7"}
            made = sidecar.request("POST", "/session", headers=heads).json()["session_id"]
            line = http.client.HTTPConnection("127.0.0.1", sidecar.port, timeout=60 * PATIENCE)
            body = json.dumps({"code": "tools['go'].run()", "caller_tools": ["go"]})
            line.request("POST", f"/session/{made}/execute", body, {**heads, "Accept": "text/event-stream"})
            events = events_of(iter(line.getresponse().readline, b""))
            execution = next(events)[1]["execution_id"]
            call = next(events)[1]["call"]
            path = f"/session/{made}/executions/{execution}/calls/{call}"
            for key in ("bob-key-4be01d9a", "alice-key-00c1a7x"):
                answer = sidecar.request("POST", path, json={"result": 1}, headers={"Authorization": f"Bearer {key}"})
                assert answer.status_code == 404 and answer.json()["code"] == "unknown_session", answer.text
            assert sidecar.request("POST", path, json={"result": 1}, headers={"Authorization": "Bearer no"}).status_code == 401
            assert sidecar.request("POST", path, json={"result": 5}, headers=heads).status_code == 200
            assert next(events)[1]["result"] == "5"
            line.close()


# --- clients that leave, clients that do not read, a server that stops


def test_a_client_that_leaves(session):
    stream = Stream(session, "x = 1\nprint('begun')\nwhile True:\n    pass")
    stream.until("output")
    stream.close()
    eventually(lambda: idle(session), "the execution has ended")
    assert session.value("x") == "1"


def test_a_client_that_leaves_while_its_code_waits_for_it(session):
    stream = Stream(session, "x = 2\ntools['go'].run()", ["go"])
    call = stream.until("call")["call"]
    stream.close()
    eventually(lambda: idle(session), "the execution has ended")
    assert stream.reply(call, result=1).status_code == 404
    assert session.value("x") == "2"


def test_a_client_that_does_not_read(sidecar, session):
    """It is let go when 8 MiB wait for it, and its code ends; until then nobody's memory is taken for it."""
    before = resident_bytes(sidecar.process.pid)
    stream = Stream(session, "text = 'x' * 65536\nwhile True:\n    print(text)", timeout=60)
    stream.until("start")
    highest = 0

    def done():
        nonlocal highest
        highest = max(highest, resident_bytes(sidecar.process.pid))
        return idle(session)

    eventually(done, "the execution has ended", 30)
    assert uses_asan(sidecar.process.pid) or highest - before < 48 * MIB, (before, highest)
    with contextlib.suppress(ConnectionError, http.client.HTTPException):
        for name, _ in stream:
            assert name == "output"  # and no result
    stream.close()
    assert session.value("6 * 7") == "42"


def test_a_long_silence():
    """A stream that waits is not idle, however long it takes: IDLE_TIMEOUT is one second."""
    with running_sidecar(IDLE_TIMEOUT="1") as sidecar:
        session = sidecar.create()
        with Stream(session, "print('begun')\ntools['go'].run()\nprint('done')", ["go"]) as stream:
            call = stream.until("call")["call"]
            time.sleep(3.5)
            assert stream.reply(call, result=1).status_code == 200
            assert stream.result()["stdout"] == "begun\ndone\n"


def test_a_server_that_is_told_to_stop():
    """What streams goes on to its end; calls are answered meanwhile."""
    with running_sidecar(DRAIN_TIMEOUT="20") as sidecar:
        session = sidecar.create()
        stream = Stream(session, "print('begun')\ntools['go'].run()\nprint('done')", ["go"])
        call = stream.until("call")["call"]
        answer = http.client.HTTPConnection("127.0.0.1", sidecar.port, timeout=60 * PATIENCE)
        answer.connect()
        sidecar.process.send_signal(signal.SIGTERM)
        eventually(lambda: any(line["event"] == "draining" for line in sidecar.log_lines()), "it drains")
        path = f"{session.path}/executions/{stream.execution}/calls/{call}"
        answer.request("POST", path, json.dumps({"result": 1}), {"Content-Type": "application/json"})
        assert answer.getresponse().status == 200
        assert stream.result()["stdout"] == "begun\ndone\n"
        assert sidecar.process.wait(30 * PATIENCE) == 0


def test_a_server_that_cannot_wait():
    with running_sidecar(DRAIN_TIMEOUT="0.5") as sidecar:
        session = sidecar.create()
        stream = Stream(session, "tools['go'].run()", ["go"])
        stream.until("call")
        sidecar.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            for name, data in stream:
                assert name in ("call_gone", "error", "result") and data.get("success") is not True
        assert sidecar.process.wait(30 * PATIENCE) == 0
