# SPDX-License-Identifier: Apache-2.0
"""The library with the real executor."""

import ast
import asyncio
import concurrent.futures
import random
import socket
import threading
import time

import pytest

from codemode import Codemode, ComponentRegistry, ContextAwareTool, ExecutorClient, ExecutorConnectionError
from codemode.grpc import start_tool_service
from executor import KEY, PATIENCE, Executor, running_executor
from fakes import certificates


class Weather:
    """Weather of a city."""

    def run(self, location: str, days: int = 1):
        """Looks it up.

        Args:
            location: the city
        """
        if location == "Atlantis":
            raise ValueError("no such city: Atlantis")
        return {"location": location, "temperature": 72, "days": days}


class Whoami(ContextAwareTool):
    def run_with_context(self, context, greeting: str = "hello"):
        return f"{greeting} {context.get('user', 'nobody')} ({context.correlation_id})"


class Meeting:
    """Returns when `parties` calls have come: those that overlap, and no others, get an answer."""

    def __init__(self, parties):
        self.barrier = threading.Barrier(parties)

    def run(self):
        return self.barrier.wait(30 * PATIENCE)


class AsyncMeeting:
    def __init__(self, parties):
        self.parties, self.here, self.all_here = parties, 0, None

    async def run(self):
        if self.all_here is None:
            self.all_here = asyncio.Event()
        self.here += 1
        if self.here == self.parties:
            self.all_here.set()
        await asyncio.wait_for(self.all_here.wait(), 30 * PATIENCE)
        return self.here


class Forever:
    def __init__(self):
        self.started, self.cancelled = threading.Event(), threading.Event()

    async def run(self):
        self.started.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.cancelled.set()


class Analyst:
    goal = "Says what the numbers say."

    def execute_task(self, task, context=None):
        return f"{task}: {context}"


class Crew:
    def kickoff(self, inputs=None):
        return {"planned": inputs}


@pytest.fixture(scope="module")
def registry():
    made = ComponentRegistry()
    made.register_tool("weather", Weather())
    made.register_tool("whoami", Whoami())
    made.register_agent("analyst", Analyst())
    made.register_crew("planners", Crew())
    made.register_flow("daily", Crew())
    return made


@pytest.fixture(scope="module")
def executor(registry):
    with start_tool_service(registry, "127.0.0.1", 0, KEY) as service, running_executor(service.target) as made:
        yield made


@pytest.fixture(scope="module")
def codemode(executor, registry):
    with Codemode(registry, ExecutorClient(executor.url, KEY)) as made:
        yield made


def value(codemode, code, **more):
    """The value of code that must succeed."""
    result = codemode.execute_result(code, **more)
    assert result.success, (result.error, result.stderr)
    return ast.literal_eval(result.result)


def failure(codemode, code, **more):
    result = codemode.execute_result(code, **more)
    assert not result.success, result
    return result


def test_results(codemode):
    assert codemode.execute("result = 2 + 2") == "4" and codemode.execute("2 + 3") == "5"
    assert codemode.execute("x = 1") == "Execution successful"
    result = codemode.execute_result("print('out')\nresult = [1, 'a']")
    assert (result.stdout, result.result) == ("out\n", "[1, 'a']") and result.duration_ms > 0
    assert codemode.health_check() and codemode.ready_check()


def test_errors(codemode):
    result = failure(codemode, "def f():\n    return 1 / 0\nf()")
    assert result.error_details.error_type == "ZeroDivisionError" and "in f" in result.error_details.traceback
    assert codemode.execute("1 +").startswith("ERROR: ") and "SyntaxError" in codemode.execute("1 +")
    assert failure(codemode, "while 1: pass", execution_timeout=1).error_details.error_type == "Timeout"


def test_a_tool(codemode):
    code = "result = tools['weather'].run(location='NYC', days=2)"
    assert value(codemode, code) == {"location": "NYC", "temperature": 72, "days": 2}
    caught = "try:\n    tools['weather'].run(location='Atlantis')\nexcept RuntimeError as e:\n    result = str(e)"
    assert "no such city: Atlantis" in codemode.execute(caught)
    assert "location" in failure(codemode, "tools['weather'].run(locatoin='x')").error  # the schema says so
    unknown = "try:\n    tools['wether']\nexcept KeyError as e:\n    result = str(e)"
    assert "did you mean 'weather'" in codemode.execute(unknown)


def test_async_forms(codemode):
    async def main():
        code = "result = tools['weather'].run(location='NYC', days={})['days']"
        return await asyncio.gather(*(codemode.execute_async(code.format(n)) for n in range(1, 6)))

    assert asyncio.run(main()) == ["1", "2", "3", "4", "5"]


def test_context_and_config(codemode, registry):
    registry.set_config(region="eu")
    scoped = codemode.with_context(user="ann")
    code = "result = [context['user'], config['region'], tools['whoami'].run()]"
    result = scoped.execute_result(code, correlation_id="mine-1")
    assert ast.literal_eval(result.result) == ["ann", "eu", {"value": "hello ann (mine-1)"}]
    other = "result = tools['whoami'].run_with_context({'user': 'bob'}, greeting='hi')['value']"
    assert scoped.execute(other).startswith("hi bob")


def test_agents_crews_flows(codemode):
    code = (
        "result = [agents['analyst'].execute_task('t', [1]), "
        "crews['planners'].kickoff(inputs={'n': 1}), flows['daily'].kickoff()]"
    )
    assert value(codemode, code) == [{"value": "t: [1]"}, {"planned": {"n": 1}}, {"planned": None}]


def test_tools_registered_later_are_there(codemode, registry):
    registry.register_tool("later", lambda x: x + 1)
    assert codemode.execute("result = tools['later'].run(x=1)['value']") == "2"


def test_only_what_the_request_allows(codemode, executor):
    client = ExecutorClient(executor.url, KEY)
    assert not client.execute("tools['whoami'].run()", ["weather"]).success
    assert client.execute("result = sorted(tools)", ["weather"]).result == "['weather']"
    client.close()


def test_calls_overlap(codemode, registry):
    registry.register_tool("meet", Meeting(3))
    threads = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(3) as pool:\n"
        "    result = sorted(f['value'] for f in pool.map(lambda _: tools['meet'].run(), range(3)))"
    )
    assert value(codemode, threads) == [0, 1, 2]
    registry.register_tool("meet_async", AsyncMeeting(3))
    gathered = (
        "import asyncio\n"
        "async def main():\n"
        "    return await asyncio.gather(*(tools['meet_async'].run() for _ in range(3)))\n"
        "result = asyncio.run(main())"
    )
    assert value(codemode, gathered) == [{"value": 3}] * 3


def test_many_calls_at_once(codemode, registry):
    """200 calls that are out at the same time, from 50 executions."""
    registry.register_tool("crowd", Meeting(200))
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    result = len(list(pool.map(lambda _: tools['crowd'].run(), range(4))))"
    )
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        assert [*pool.map(lambda _: codemode.execute(code), range(50))] == ["4"] * 50


def test_a_timeout_cancels_the_tool(codemode, registry):
    forever = Forever()
    registry.register_tool("forever", forever)
    result = failure(codemode, "await tools['forever'].run()", execution_timeout=4)
    assert result.error_details.error_type == "Timeout" and forever.cancelled.wait(30 * PATIENCE)


def test_cancelling_stops_the_code(codemode, registry):
    forever = Forever()
    registry.register_tool("forever", forever, overwrite=True)

    async def main():
        task = asyncio.ensure_future(codemode.execute_async("await tools['forever'].run()"))
        await asyncio.get_running_loop().run_in_executor(None, forever.started.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert forever.cancelled.wait(30 * PATIENCE)


def test_a_session_keeps_its_variables(codemode, executor):
    import json
    import urllib.request

    request = urllib.request.Request(
        f"{executor.url}/session", b"{}", {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        session = json.load(answer)["session_id"]
    codemode.execute("x = 41", session_id=session)
    assert codemode.execute("x + 1", session_id=session) == "42"


@pytest.mark.parametrize("key", ["a-wrong-key-here", None])
def test_other_keys_are_refused(executor, key):
    with ExecutorClient(executor.url, key) as client, pytest.raises(ExecutorConnectionError, match="CODEMODE_API_KEY"):
        client.execute("1")


def test_a_tool_service_with_another_key(registry):
    with start_tool_service(registry, "127.0.0.1", 0, "another-key") as service, running_executor(service.target) as made:
        with Codemode(registry, ExecutorClient(made.url, KEY)) as codemode:
            assert not codemode.ready_check()
            assert "key" in codemode.execute("tools['weather'].run(location='x')")


def test_mutual_tls_both_ways(registry, tmp_path):
    pems = certificates(tmp_path)
    file = {name: str(pems / name) for name in ("ca.crt", "server.crt", "server.key", "client.crt", "client.key")}
    serving = {"cert_file": file["server.crt"], "key_file": file["server.key"], "ca_file": file["ca.crt"]}
    calling = {"mode": "custom", "ca_file": file["ca.crt"], "client_cert_file": file["client.crt"], "client_key_file": file["client.key"]}
    settings = {
        "CODEMODE_TLS_ENABLED": "true",
        "CODEMODE_TLS_MODE": "custom",
        "CODEMODE_TLS_CERT_FILE": file["server.crt"],
        "CODEMODE_TLS_KEY_FILE": file["server.key"],
        "CODEMODE_TLS_CA_FILE": file["ca.crt"],
        "CODEMODE_TLS_REQUIRE_CLIENT_AUTH": "true",
        "CODEMODE_CALLBACK_TLS_ENABLED": "true",
        "CODEMODE_CALLBACK_TLS_CA_FILE": file["ca.crt"],
        "CODEMODE_CALLBACK_TLS_CLIENT_CERT": file["client.crt"],
        "CODEMODE_CALLBACK_TLS_CLIENT_KEY": file["client.key"],
    }
    with start_tool_service(registry, "localhost", 0, KEY, tls_config=serving) as service:
        with running_executor(service.target, **settings) as made:
            with Codemode(registry, ExecutorClient(f"https://localhost:{made.port}", KEY, tls_config=calling)) as codemode:
                assert codemode.execute("result = tools['weather'].run(location='NYC')['temperature']") == "72"
            for config in (None, {"mode": "custom", "ca_file": file["ca.crt"]}):
                with ExecutorClient(made.url, KEY, tls_config=config, retry_enabled=False, timeout=30) as client:
                    with pytest.raises(ExecutorConnectionError):
                        client.execute("1")


# --- nothing happens twice


class Counter:
    """Counts how often each token has been used up."""

    def __init__(self):
        self.lock, self.counts, self.slow = threading.Lock(), {}, 0.0

    def run(self, token: str):
        with self.lock:
            self.counts[token] = self.counts.get(token, 0) + 1
        time.sleep(self.slow)
        return self.counts[token]


class CutWire:
    """Forwards connections to a port, and cuts them all when asked to."""

    def __init__(self, port):
        self._to, self._pairs, self._lock = port, [], threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to), timeout=60)
            except OSError:
                return
            with self._lock:
                self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for sock in (source, sink):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for sock in pair:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                sock.close()

    def close(self):
        self._listener.close()
        self.cut()


THREE_CALLS = "result = [tools['counter'].run(token='{0}-' + str(n))['value'] for n in range(3)]"

#: The same calls in another order each time, from threads.
SHUFFLED_CALLS = """
import random
from concurrent.futures import ThreadPoolExecutor
tokens = [f'{0}-{{n}}' for n in range(3)]
random.shuffle(tokens)
with ThreadPoolExecutor(2) as pool:
    result = [answer['value'] for answer in pool.map(lambda token: tools['counter'].run(token=token), tokens)]
"""


def patient_client(port):
    return ExecutorClient(
        f"http://localhost:{port}", KEY, retry_max_attempts=20, retry_backoff_base_ms=200, retry_backoff_max_ms=3000
    )


def once_each(counter, tokens):
    assert counter.counts == {f"{token}-{n}": 1 for token in tokens for n in range(3)}


@pytest.fixture
def counting():
    registry, counter = ComponentRegistry(), Counter()
    registry.register_tool("counter", counter)
    with start_tool_service(registry, "127.0.0.1", 0, KEY) as service, running_executor(service.target) as made:
        yield counter, made


def test_connections_that_break_repeat_nothing(counting):
    counter, executor = counting
    counter.slow = 0.01
    wire, done = CutWire(executor.port), threading.Event()
    pick = random.Random(7)

    def cut():
        for _ in range(60):  # less often than a client asks again: where each cut came too soon, none would get its answer
            if done.wait(pick.uniform(0.02, 0.15)):
                break
            wire.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        with patient_client(wire.port) as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = [*pool.map(lambda token: client.execute(THREE_CALLS.format(token)), range(40))]
    finally:
        done.set()
        cutter.join()
        wire.close()
    assert [answer.result for answer in answers] == ["[1, 1, 1]"] * 40
    once_each(counter, range(40))


def test_an_executor_that_is_killed_repeats_nothing(counting):
    counter, executor = counting
    pick = random.Random(11)
    with patient_client(executor.port) as client, concurrent.futures.ThreadPoolExecutor(4) as pool:
        for round_number in range(4):
            counter.slow = 0.05
            tokens = [f"{round_number}.{n}" for n in range(4)]
            pending = [pool.submit(client.execute, SHUFFLED_CALLS.format(token)) for token in tokens]
            time.sleep(pick.uniform(0.01, 0.2))
            executor.kill()
            counter.slow = 0.0
            executor.start()
            assert [call.result(90 * PATIENCE).result for call in pending] == ["[1, 1, 1]"] * 4
    once_each(counter, [f"{round_number}.{n}" for round_number in range(4) for n in range(4)])


def test_one_id_for_different_code_is_no_repetition(counting):
    counter, executor = counting
    with patient_client(executor.port) as client:
        first = client.execute("tools['counter'].run(token='t')\nresult = 1", correlation_id="a-web-request")
        again = client.execute("tools['counter'].run(token='t')\nresult = 1", correlation_id="a-web-request")
        other = client.execute("tools['counter'].run(token='t')\nresult = 2", correlation_id="a-web-request")
    assert [answer.result for answer in (first, again, other)] == ["1", "1", "2"]
    assert counter.counts == {"t": 2}


def test_the_executor_ends_in_the_middle_of_a_call():
    """The call in flight is joined: its tool is still running when the second executor asks for it."""
    registry, counter = ComponentRegistry(), Counter()
    registry.register_tool("counter", counter)
    counter.slow = 1.5
    with start_tool_service(registry, "127.0.0.1", 0, KEY) as service:
        executor = Executor(service.target)
        try:
            with patient_client(executor.port) as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
                pending = pool.submit(client.execute, "result = tools['counter'].run(token='t')['value']")
                while not counter.counts:
                    time.sleep(0.01)
                executor.kill()
                executor.start()
                assert pending.result(90 * PATIENCE).result == "1" and counter.counts == {"t": 1}
        finally:
            executor.stop()
