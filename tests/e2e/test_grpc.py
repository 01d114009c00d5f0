# SPDX-License-Identifier: Apache-2.0
"""gRPC on the port of the HTTP interface, as another implementation sees it: codemode.ExecutorService, health checks."""

import concurrent.futures
import re
import subprocess
import time

import grpc
import pytest

from grpc_support import Rpc, code_of
from streams import Held
from support import PATIENCE, eventually, running_sidecar

SETTINGS = {"MAX_TIMEOUT": "20", "EXECUTION_TIMEOUT": "10", "MAX_CODE_LENGTH": "10000", "MAX_BODY": "1Mi"}


@pytest.fixture(scope="module")
def rpc(sidecar):
    with Rpc(sidecar.port) as made:
        yield made


def test_one_port_speaks_both(sidecar, rpc):
    assert sidecar.request("GET", "/health").json() == {"status": "healthy"}
    assert sidecar.execute("6 * 7")["result"] == "42"
    assert rpc.execute("6 * 7").result == "42"
    health = rpc.probe("Health")
    assert (health.status, health.version) == ("healthy", sidecar.request("GET", "/version").json()["version"])
    assert rpc.unary("/grpc.health.v1.Health/Check", rpc.health.HealthCheckRequest(), rpc.health.HealthCheckResponse)[0].status == 1


@pytest.mark.parametrize(
    "code, result",
    [
        ("result = 2 + 2", "4"),
        ("result = {'a': (1, 2)}", "{'a': (1, 2)}"),
        ("result = 'text'", "text"),
        ("'text'", "'text'"),
        ("x = 1", ""),
        ("import asyncio\nasync def f():\n    return 5\nresult = asyncio.run(f())", "5"),
        ("import asyncio\nresult = await asyncio.sleep(0, 'awaited')", "awaited"),
    ],
)
def test_the_result_is_a_text(rpc, code, result):
    answer = rpc.execute(code)
    assert (answer.success, answer.result, answer.error, answer.error_type) == (True, result, "", "")
    assert answer.duration_ms > 0


def test_output_is_kept_apart(rpc):
    answer = rpc.execute("import sys\nprint('out\\0')\nprint('err', file=sys.stderr)\nresult = 1")
    assert (answer.stdout, answer.stderr, answer.result) == ("out\0\n", "err\n", "1")


@pytest.mark.parametrize(
    "code, kind, text",
    [
        ("1/0", "ZeroDivisionError", "ZeroDivisionError: division by zero"),
        ("import nothing_of_that_name", "ImportError", "ModuleNotFoundError"),
        ("def", "SyntaxError", "SyntaxError"),
        ("  x\n y", "SyntaxError", "IndentationError"),
        ("nope", "NameError", "NameError"),
        ("{}['k']", "KeyError", "KeyError"),
        ("class Own(Exception): pass\nraise Own('mine')", "Unknown", "Own: mine"),
    ],
)
def test_failures_of_the_code_are_answers(rpc, code, kind, text):
    answer = rpc.execute(code)
    assert (answer.success, answer.error_type, answer.result) == (False, kind, "")
    assert text in answer.error and text.split(":")[0] in answer.stderr


def test_timeout_says_what_users_of_both_systems_look_for(rpc):
    answer = rpc.execute("while True: pass", timeout=1)
    assert answer.success is False and answer.error_type == "Timeout"
    assert answer.error.startswith("Execution timeout after 1 seconds")
    assert "timed out" in answer.error and 900 < answer.duration_ms < 5000


def test_timeouts_have_bounds(rpc):
    assert rpc.execute("result = 1", timeout=0).result == "1"
    assert rpc.execute("result = 1", timeout=99999).result == "1"
    with pytest.raises(grpc.RpcError) as error:
        rpc.execute("1", timeout=-1)
    assert code_of(error) == grpc.StatusCode.INVALID_ARGUMENT and "timeout" in error.value.details()


def test_code_has_a_maximum_in_characters(rpc):
    assert rpc.execute("#" + "ä" * 4990).success
    answer = rpc.execute("#" * 10001)
    assert (answer.success, answer.error_type) == (False, "SecurityViolation")
    assert answer.error == "Code exceeds maximum length of 10000 characters"


def test_context_is_given_to_the_code(rpc):
    answer = rpc.execute("result = (context['n'] + 1, context['items'], context['f'])", context={"n": 72, "items": [1, None], "f": 0.5})
    assert answer.result == "(73, [1, None], 0.5)"


def test_correlation_ids(rpc, sidecar):
    answer, call = rpc.execute_with_call("1", correlation_id="from-field")
    assert answer.correlation_id == "from-field"
    answer, call = rpc.execute_with_call("1", correlation_id="from-field", metadata={"x_correlation_id": "from-metadata"})
    assert answer.correlation_id == "from-metadata"
    assert dict(call.initial_metadata())["x-correlation-id"] == "from-metadata"
    answer, call = rpc.execute_with_call("1", correlation_id="not an id")
    assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]+", answer.correlation_id)
    with pytest.raises(grpc.RpcError) as error:
        rpc.execute_with_call("1", timeout=-1, metadata={"x_correlation_id": "of-a-failure"})
    assert ("x-correlation-id", "of-a-failure") in [tuple(m) for m in error.value.trailing_metadata()]


def test_a_session_in_the_metadata_keeps_state(rpc, session):
    kept = {"x_session_id": session.id}
    assert rpc.execute_with_call("counter = 41", metadata=kept)[0].success
    assert rpc.execute_with_call("result = counter + 1", metadata=kept)[0].result == "42"
    assert session.value("counter") == "41"
    assert not rpc.execute("counter").success
    for unknown in ("session-" + "0" * 32, "x" * 200):
        with pytest.raises(grpc.RpcError) as error:
            rpc.execute_with_call("1", metadata={"x_session_id": unknown})
        assert code_of(error) == grpc.StatusCode.NOT_FOUND


def test_state_of_a_call_survives_its_process(rpc, session):
    """What runs in the mode of this service is saved like any other execution of the session."""
    rpc.execute_with_call("saved = [1, 2]", metadata={"x_session_id": session.id})
    answer = rpc.execute_with_call("while True: pass", timeout=1, metadata={"x_session_id": session.id})[0]
    assert answer.error_type == "Timeout"
    assert session.value("saved") == "[1, 2]"


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xc3\x28", b"\x1a\x02\x0a\x7f", b"\x08"])
def test_malformed_messages_are_refused(rpc, data):
    with pytest.raises(grpc.RpcError) as error:
        rpc.raw("/codemode.ExecutorService/Execute", data)
    assert code_of(error) == grpc.StatusCode.INVALID_ARGUMENT
    assert rpc.execute("result = 1").result == "1"


def test_unknown_fields_are_ignored(rpc):
    request = rpc.v0.ExecutionRequest(code="result = 3").SerializeToString() + b"\xfa\x7f\x03new"
    answer = rpc.v0.ExecutionResponse.FromString(rpc.raw("/codemode.ExecutorService/Execute", request))
    assert answer.result == "3"


def test_messages_have_a_maximum(rpc):
    with pytest.raises(grpc.RpcError) as error:
        rpc.raw("/codemode.ExecutorService/Execute", b"\x0a\x80\x80\x80\x01" + bytes(1 << 21))
    assert code_of(error) == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert rpc.execute("result = 1").result == "1"


def test_unknown_methods(rpc):
    for path in ("/codemode.ExecutorService/Nope", "/nope/Nope"):
        with pytest.raises(grpc.RpcError) as error:
            rpc.raw(path, b"")
        assert code_of(error) == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as error:
        rpc.unary("/grpc.health.v1.Health/Check", rpc.health.HealthCheckRequest(service="nope"), rpc.health.HealthCheckResponse)
    assert code_of(error) == grpc.StatusCode.NOT_FOUND


def test_the_clients_deadline_ends_the_execution(rpc, session):
    with pytest.raises(grpc.RpcError) as error:
        rpc.execute_with_call("n = 1\nwhile True: n += 1", call_timeout=1, metadata={"x_session_id": session.id})
    assert code_of(error) == grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: session.info()["state"] == "idle", "the execution was interrupted")
    assert session.value("n > 1") == "True"


def test_cancelling_keeps_the_session(rpc, session):
    session.ok("n = 0")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        method = rpc.channel.unary_unary("/codemode.ExecutorService/Execute")
        request = rpc.v0.ExecutionRequest(code="n = 1\nimport time\ntime.sleep(25)\nn = 2").SerializeToString()
        call = method.future(request, metadata=(("x-session-id", session.id),))
        eventually(lambda: session.info()["state"] == "running", "it runs")
        time.sleep(0.05)
        call.cancel()
        pool.submit(eventually, lambda: session.info()["state"] == "idle", "it was interrupted").result()
    assert session.value("n") in ("0", "1")


def test_calls_of_one_connection_overlap(rpc, sidecar):
    """None of them ends before all of them run."""
    sessions = [sidecar.create() for _ in range(8)]
    code = "import time\ntry:\n    time.sleep(20)\nexcept KeyboardInterrupt:\n    result = 'woken'"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(rpc.execute, code, timeout=20, call_timeout=60, metadata={"x_session_id": session.id}) for session in sessions]
        eventually(lambda: sidecar.metric("codemode_executions_running") == 8, "all of them run")
        for session, call in zip(sessions, calls):
            while not call.done():  # the first one may have come before the sleep
                sidecar.request("POST", f"{session.path}/interrupt")
                time.sleep(0.05)
    assert {call.result().result for call in calls} <= {"woken", ""}, [call.result() for call in calls]
    for session in sessions:
        session.delete()


def test_calls_are_counted_and_logged(rpc, sidecar):
    before = sidecar.metrics()
    rpc.execute("1")
    with pytest.raises(grpc.RpcError):
        rpc.raw("/codemode.ExecutorService/Execute", b"\xff")
    after = sidecar.metrics()
    for status in ("OK", "INVALID_ARGUMENT"):
        name = f'codemode_grpc_requests_total{{status="{status}"}}'
        assert after[name] == before.get(name, 0) + 1


def test_h2load_finds_no_fault(rpc, sidecar, tmp_path):
    """Another client of HTTP/2, at some speed, with requests that are complete gRPC messages."""
    message = rpc.v0.ExecutionRequest(code="result = 2 + 2").SerializeToString()
    body = tmp_path / "body"
    body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    command = ["h2load", "-n", "200", "-c", "4", "-m", "10", "-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers",
               f"http://127.0.0.1:{sidecar.port}/codemode.ExecutorService/Execute"]
    out = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "200 total, 200 started, 200 done, 200 succeeded, 0 failed, 0 errored, 0 timeout" in out, out
    assert "200 2xx" in out


def test_stopping_lets_calls_finish():
    with running_sidecar(LOG_LEVEL="DEBUG", DRAIN_TIMEOUT="300") as sidecar, Rpc(sidecar.port) as rpc:
        method = rpc.channel.unary_unary("/codemode.ExecutorService/Execute")
        session = sidecar.create()
        held = Held(session)  # the call waits behind it, as long as we wish
        request = rpc.v0.ExecutionRequest(code="result = 'finished'").SerializeToString()
        running = method.future(request, metadata=(("x-session-id", session.id),))
        eventually(lambda: session.info()["queued"] == 1, "it is there")
        sidecar.hang_up()
        sidecar.process.terminate()
        eventually(lambda: '"event":"stopping"' in sidecar.log_text(), "the server was told to stop")
        with pytest.raises(grpc.RpcError) as error:
            rpc.execute("1")
        assert code_of(error) == grpc.StatusCode.UNAVAILABLE
        assert held.result()["success"]
        assert rpc.v0.ExecutionResponse.FromString(running.result(60 * PATIENCE)).result == "finished"
        assert sidecar.process.wait(30 * PATIENCE) == 0
        lines = [line for line in sidecar.log_lines() if line["event"] == "grpc_request"]
        assert {line["method"] for line in lines} >= {"/codemode.ExecutorService/Execute"}
        assert all(line["correlation_id"] for line in lines if line["status"] == 0)
