# SPDX-License-Identifier: Apache-2.0
"""codemode.v1.Sessions: every method, with grpcio as the client."""

import functools
import json
import time

import grpc
import pytest

from grpc_support import Rpc, code_of
from support import CODEMODE, eventually, resident_bytes

SETTINGS = {"MAX_OUTPUT": "64Ki", "STORED_OUTPUT": "1Mi", "MAX_SESSIONS": "12", "EXECUTION_TIMEOUT": "20"}


@pytest.fixture(scope="module")
def rpc(sidecar):
    with Rpc(sidecar.port) as made:
        yield made


@pytest.fixture
def made(rpc):
    """The id of a fresh session."""
    session = rpc.create()
    yield session
    rpc.session_call("Delete", session_id=session)


def refused(call, status, *words):
    with pytest.raises(grpc.RpcError) as error:
        call()
    assert code_of(error) == status, error.value.details()
    assert all(word in error.value.details() for word in words), error.value.details()
    return dict(error.value.trailing_metadata() or ())


def test_a_session_is_the_same_over_both_protocols(rpc, sidecar, made):
    result = rpc.run(made, "x = 42\nx * 2")
    assert (result.success, result.result, result.state, result.session_id) == (True, "84", 0, made)
    assert json.loads(result.locals_json) == {"x": 42} and result.execution_id and result.correlation_id
    assert sidecar.request("POST", f"/session/{made}/execute", json={"code": "x"}).json()["result"] == "42"
    assert made in rpc.session_call("List").session_ids and made in sidecar.sessions()


def test_output_comes_while_the_code_runs(rpc, made):
    """The first of it makes us interrupt a loop that would not end otherwise."""
    loop = "try:\n    print(0, flush=True)\n    while True: pass\nexcept KeyboardInterrupt: pass\n"
    seen = []
    for event in rpc.stream(made, f"import sys\n{loop}for i in (1, 2): print(i, flush=True)\nprint('e', file=sys.stderr)\ni"):
        if not seen:
            assert rpc.session_call("Interrupt", session_id=made).interrupted
        seen.append(event)
    outputs = [(event.output.stream, event.output.data) for event in seen if event.WhichOneof("event") == "output"]
    assert b"".join(d for s, d in outputs if s == 1) == b"0\n1\n2\n" and b"".join(d for s, d in outputs if s == 2) == b"e\n"
    result = seen[-1].result
    assert (result.stdout, result.stderr, result.result) == ("0\n1\n2\n", "e\n", "2")
    assert rpc.run(made, "print('quiet')", quiet=True).stdout == "quiet\n"
    assert len(list(rpc.stream(made, "print('quiet')", quiet=True))) == 1


def test_no_result_differs_from_an_empty_text(rpc, made):
    assert not rpc.run(made, "None").HasField("result") and not rpc.run(made, "x = 1").HasField("result")
    assert rpc.run(made, "class E:\n    def __repr__(self): return ''\nE()").HasField("result")


def test_errors_of_the_code(rpc, made):
    result = rpc.run(made, "def f():\n    raise ValueError('wrong')\nf()")
    assert (result.success, result.error_type, result.error) == (False, "ValueError", "ValueError: wrong")
    assert "in f" in result.traceback and result.stderr
    timeout = rpc.run(made, "while True: pass", timeout=0.3)
    assert timeout.timed_out and timeout.error_type == "Timeout" and 0.25 < timeout.execution_time < 3


def test_context_keeps_whole_numbers(rpc, made):
    assert rpc.run(made, "n, f", context={"n": 2**60 + 1, "f": 1.0}).result == f"({2**60 + 1}, 1.0)"


def test_limits(rpc):
    session = rpc.create(limits={"output": 2048, "memory": 256 << 20})
    assert rpc.session_call("Get", session_id=session).limits["output"] == 2048
    result = rpc.run(session, "print('x' * 5000)")
    assert result.stdout_truncated and result.stdout_bytes == 5001 and len(result.stdout) <= 2100
    assert not rpc.run(session, "print('x' * 5000)", limits={"output": 60000}).stdout_truncated
    rpc.session_call("Delete", session_id=session)


def test_what_was_cut_can_be_read(rpc, made):
    result = rpc.run(made, "print('ä' * 100000)", quiet=True)
    assert result.stdout_stored and result.stdout_bytes == 200001
    where = {"session_id": made, "execution_id": result.execution_id, "stream": 1}
    part = rpc.session_call("ReadOutput", **where, offset=100000, length=10)
    assert (part.data, part.printed, part.stored) == ("ä".encode() * 5, 200001, 200001)
    assert len(rpc.session_call("ReadOutput", **where).data) == 200001
    refused(lambda: rpc.session_call("ReadOutput", **{**where, "stream": 0}), grpc.StatusCode.INVALID_ARGUMENT, "stream")
    refused(lambda: rpc.session_call("ReadOutput", **{**where, "stream": 2}), grpc.StatusCode.NOT_FOUND)
    refused(lambda: rpc.session_call("ReadOutput", **{**where, "execution_id": "x" * 100}), grpc.StatusCode.NOT_FOUND)


def test_rolling_back(rpc, made):
    rpc.run(made, "x = 1")
    rpc.run(made, "x = 2")
    assert rpc.session_call("Get", session_id=made).can_roll_back
    rpc.session_call("Rollback", session_id=made)
    assert rpc.run(made, "x").result == "1"
    failed = rpc.run(made, "x = 3\n1/0", on_error=1)
    assert failed.state == 1 and rpc.run(made, "x").result == "1"
    rpc.session_call("Rollback", session_id=made)
    refused(lambda: rpc.session_call("Rollback", session_id=made), grpc.StatusCode.FAILED_PRECONDITION)


def test_interrupting(rpc, made):
    assert rpc.session_call("Interrupt", session_id=made).interrupted is False
    events = rpc.stream(made, "print('begun', flush=True)\nimport time\ntime.sleep(15)")
    assert next(events).output.data == b"begun\n"
    assert rpc.session_call("Interrupt", session_id=made).interrupted is True
    result = list(events)[-1].result
    assert (result.success, result.error_type, result.state) == (False, "KeyboardInterrupt", 0)


def test_interrupting_the_one_that_is_named(rpc, made):
    first, second = (rpc.stream(made, f"import time\nprint('begun')\ntime.sleep(15)\n{n}", announce=True) for n in (1, 2))
    ids = [next(events).started.execution_id for events in (first, second)]  # the second one waits in the queue
    assert len(set(ids)) == 2 and all(ids)
    assert next(first).output.data == b"begun\n"
    stop = functools.partial(rpc.session_call, "Interrupt", session_id=made)
    for other in (ids[1], "exec-0000000000000000", "x" * 1000, ids[0][:-1], "a\0b"):
        assert stop(execution_id=other).interrupted is False
    assert stop(execution_id=ids[0]).interrupted is True
    result = list(first)[-1].result
    assert (result.error_type, result.execution_id) == ("KeyboardInterrupt", ids[0])
    assert next(second).output.data == b"begun\n"
    assert stop(execution_id=ids[0]).interrupted is False  # too late: it does not meet the next one
    assert stop(execution_id=ids[1]).interrupted is True
    assert list(second)[-1].result.execution_id == ids[1]
    refused(lambda: stop(session_id="session-00000000", execution_id=ids[0]), grpc.StatusCode.NOT_FOUND)


def test_the_beginning_is_told_where_it_is_asked_for(rpc, made):
    events = list(rpc.stream(made, "print(1)", announce=True, quiet=True))
    assert [event.WhichOneof("event") for event in events] == ["started", "result"]
    assert events[0].started.execution_id == events[1].result.execution_id
    assert [event.WhichOneof("event") for event in rpc.stream(made, "print(1)")] == ["output", "result"]
    again = [list(rpc.stream(made, "print(1)", announce=True, idempotency_key="k")) for _ in range(2)]
    assert again[0][-1].result.execution_id == again[1][-1].result.execution_id == again[1][0].started.execution_id


def test_cancelling_a_stream_interrupts_and_keeps_the_state(rpc, made):
    events = rpc.stream(made, "n = 0\nwhile True:\n    n += 1\n    print(n)")
    next(events)
    events.cancel()
    eventually(lambda: rpc.session_call("Get", session_id=made).state == "idle", "it was interrupted")
    assert int(rpc.run(made, "n").result) > 0


def test_a_lost_connection_ends_the_execution(sidecar, made):
    with Rpc(sidecar.port) as other:
        events = other.stream(made, "n = 0\nwhile True:\n    n += 1\n    print(n)")
        next(events)
    with Rpc(sidecar.port) as other:
        eventually(lambda: other.session_call("Get", session_id=made).state == "idle", "it was interrupted")


def test_a_slow_reader_holds_nothing_up(sidecar, rpc, made):
    """40 MB for a client that does not read: the code goes on, the server keeps a bounded part, and says what it left out."""
    before = resident_bytes(sidecar.process.pid)
    events = rpc.stream(made, "for i in range(40):\n    print('x' * 999999)")

    def ended():
        session = rpc.session_call("Get", session_id=made)
        return session.executions == 1 and session.state == "idle"

    eventually(ended, "the code has ended", 60)
    if b"__asan_init" not in CODEMODE.read_bytes():  # its allocator gives little back
        assert resident_bytes(sidecar.process.pid) < before + (20 << 20)
    rest = list(events)
    got = sum(len(e.output.data) for e in rest[:-1])
    omitted = sum(e.output.omitted for e in rest[:-1])
    assert got + omitted == 40_000_000 and omitted > 20_000_000 and rest[-1].result.success
    assert rest[-1].result.stdout_bytes == 40_000_000


def test_fresh_sessions(rpc):
    result = rpc.run("", "result = 5\n7")
    assert (result.result, result.session_id, result.stdout_stored) == ("5", "", False)


def test_what_does_not_fit(rpc, made):
    wrong = grpc.StatusCode.INVALID_ARGUMENT
    assert refused(lambda: rpc.create(limits={"memroy": 1}), wrong, "memroy", "memory")["x-error-code"] == "invalid_field"
    refused(lambda: rpc.create(limits={"memory": 1e15}), wrong, "memory", "MAX_MEMORY")
    refused(lambda: rpc.create(limits={"output": float("nan")}), wrong, "output")
    refused(lambda: rpc.run(made, "1", timeout=-1), wrong, "timeout")
    refused(lambda: rpc.run(made, "1", timeout=float("inf")), wrong, "timeout")
    refused(lambda: rpc.run(made, "1", timeout=1, limits={"timeout": 1}), wrong, "timeout")
    refused(lambda: rpc.run(made, "1", context_json="[1]"), wrong, "context_json")
    refused(lambda: rpc.run(made, "1", config_json="{"), wrong, "config_json")
    refused(lambda: rpc.run(made, "1", on_error=7), wrong, "on_error")
    refused(lambda: rpc.run(made, "1", idempotency_key="k" * 129), wrong, "idempotency_key")
    refused(lambda: rpc.session_call("Get"), wrong, "session_id")
    gone = refused(lambda: rpc.session_call("Get", session_id="session-" + "0" * 32), grpc.StatusCode.NOT_FOUND)
    assert gone["x-error-code"] == "unknown_session"
    assert rpc.session_call("Delete", session_id="session-nobody").deleted is False
    assert rpc.run(made, "result = 1\n2").result == "2"


def test_too_many_sessions(rpc):
    made = []
    with pytest.raises(grpc.RpcError) as error:
        for _ in range(20):
            made.append(rpc.create())
    assert code_of(error) == grpc.StatusCode.RESOURCE_EXHAUSTED
    for session in made:
        assert rpc.session_call("Delete", session_id=session).deleted
