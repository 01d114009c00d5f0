# SPDX-License-Identifier: Apache-2.0
"""Code that comes over gRPC and calls tools that are served from C; and requests that are sent again."""

import concurrent.futures
import contextlib
import itertools
import json
import random
import select
import socket
import threading
import time

import grpc
import pytest

from grpc_support import Rpc, code_of
from support import PATIENCE, Sidecar, eventually, running_sidecar
from test_libcodemode import tool_service


@pytest.fixture(scope="module")
def tools():
    with tool_service() as made:
        yield made


@pytest.fixture(scope="module")
def sidecar(tools):
    server = Sidecar({"CODEMODE_MAIN_APP_TARGET": f"127.0.0.1:{tools.port}", "MAX_TIMEOUT": "60"})
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def rpc(sidecar):
    with Rpc(sidecar.port) as made:
        yield made


def test_ready_with_the_application(rpc, tools):
    ready = rpc.probe("Ready")
    assert (ready.status, ready.main_app_target) == ("ready", f"127.0.0.1:{tools.port}")


def test_ready_without_the_application():
    with running_sidecar(CODEMODE_MAIN_APP_TARGET="127.0.0.1:1") as sidecar, Rpc(sidecar.port) as rpc:
        assert rpc.probe("Ready").status == "unreachable" and rpc.probe("Health").status == "healthy"
        assert rpc.execute("result = 1").result == "1"


def test_calling_tools(rpc):
    assert rpc.execute("result = await tools['echo'].run(n=72, text='ä')").result == "{'n': 72, 'text': 'ä'}"
    assert rpc.execute("result = sorted(tools)[:2]").result == "['about', 'broken']"
    failed = rpc.execute("tools['fail'].run()")
    assert (failed.success, failed.error_type) == (False, "RuntimeError") and "it did not work" in failed.error
    caught = "try:\n    tools['fail'].run()\nexcept RuntimeError as e:\n    result = 'caught: ' + str(e)"
    assert "caught: " in rpc.execute(caught).result


def test_context_and_correlation_id_reach_the_tool(rpc):
    answer = rpc.execute("import json\nresult = json.dumps(tools['about'].run())", context={"user": 7}, correlation_id="trace-me-1")
    seen = json.loads(answer.result)
    assert seen["context"] == {"user": 7} and seen["left"] is True and seen["id"].startswith("trace-me-1")


def test_only_the_tools_that_were_named(rpc):
    assert rpc.execute("result = list(tools)", available_tools=["count"]).result == "['count']"
    denied = rpc.execute("await tools['echo'].run()", available_tools=["count"])
    assert denied.success is False
    unknown = rpc.execute("1", available_tools=["not-served"])
    assert (unknown.success, unknown.error_type) == (False, "RuntimeError") and "not-served" in unknown.error


def test_tools_overlap(rpc):
    code = "import asyncio\nresult = len(await asyncio.gather(*(tools['slow'].run() for _ in range(8))))"
    began = time.monotonic()
    assert rpc.execute(code).result == "8"
    assert time.monotonic() - began < 8 * 2, "one after the other takes that long"


def test_cancelling_reaches_the_tool():
    with tool_service() as tools, running_sidecar(CODEMODE_MAIN_APP_TARGET=f"127.0.0.1:{tools.port}") as sidecar:
        with Rpc(sidecar.port) as rpc:
            method = rpc.channel.unary_unary("/codemode.ExecutorService/Execute")
            call = method.future(rpc.v0.ExecutionRequest(code="await tools['slow'].run()").SerializeToString())
            tools.wait_begun()
            call.cancel()
        eventually(lambda: sidecar.metric("codemode_executions_running") == 0, "the execution has ended")
        sidecar.hang_up()
        assert "cancelled 1" in tools.stop()


def test_tools_of_a_streamed_execution(rpc):
    session = rpc.create()
    result = rpc.run(session, "first = tools['count'].run()['value']\nsecond = tools['count'].run()['value']\nsecond - first", available_tools=["count"])
    assert result.success, result.error
    assert result.result == "1"
    rpc.session_call("Delete", session_id=session)


class Cutter:
    """A proxy that cuts every connection after a while, at no particular moment."""

    def __init__(self, port, seed):
        self.target, self.dice = port, random.Random(seed)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.cuts, self.calm = self.listener.getsockname()[1], 0, False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client):
        # Longer and longer: a machine on which each cut came too soon would never give an answer.
        end = time.monotonic() + self.dice.uniform(0.01, 0.25) * (1 + self.cuts / 50)
        with client, socket.create_connection(("127.0.0.1", self.target)) as server, contextlib.suppress(OSError):
            while self.calm or time.monotonic() < end:
                for ready in select.select([client, server], [], [], 0.005)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    (server if ready is client else client).sendall(data)
            self.cuts += 1
            for end in (client, server):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not an end


def test_a_request_that_is_sent_again_runs_once(sidecar, tools):
    """Each request calls a counter. Connections break at random moments; the client sends again until it has an answer."""
    before = tools.call("count").result["value"]
    cutter, numbers, attempts = Cutter(sidecar.port, 7), itertools.count(), itertools.count()

    def ask(worker):
        answers = []
        for _ in range(6):
            name = f"once-{next(numbers)}"
            while True:
                next(attempts)
                with Rpc(cutter.port) as own, contextlib.suppress(grpc.RpcError):
                    answer = own.execute(f"import time\ntime.sleep({worker} * 0.015)\nresult = tools['count'].run()['value']", correlation_id=name, call_timeout=10)
                    assert answer.success, answer.error
                    answers.append(int(answer.result))
                    break
        return answers

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = sorted(itertools.chain(*pool.map(ask, range(6))))
    sent, after = next(attempts), tools.call("count").result["value"]
    assert answers == [int(before) + 1 + i for i in range(36)], "every request has counted once, and was told its own number"
    assert after == before + 37 and cutter.cuts > 0 and sent > 36, (cutter.cuts, sent)


def test_an_idempotency_key_means_one_run(rpc):
    def once(**more):
        return rpc.execute_with_call("result = tools['count'].run()['value']", metadata={"idempotency_key": "the-same"}, **more)[0].result

    first = once()
    assert once() == first
    assert rpc.execute("result = tools['count'].run()['value']").result == str(int(first) + 1)
    session = rpc.create()
    runs = [rpc.run(session, "n = tools['count'].run()['value']; n", idempotency_key="k-1").result for _ in range(3)]
    assert len(set(runs)) == 1 and rpc.session_call("Get", session_id=session).executions == 1
    rpc.session_call("Delete", session_id=session)
