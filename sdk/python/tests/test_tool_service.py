# SPDX-License-Identifier: Apache-2.0
"""The tool service as an executor sees it."""

import asyncio
import dataclasses
import datetime
import json
import os
import subprocess
import sys
import threading
import time
from typing import Dict, List, Literal, Optional

import grpc
import pytest

from codemode import CodemodeError, ComponentRegistry, ContextAwareTool, get_current_context
from codemode.core.correlation import generate_correlation_id
from codemode.grpc import create_tool_server, start_tool_service, start_tool_service_async
from fakes import ToolCaller, certificates

KEY = "a-key"


class RunAsync:
    async def run_async(self, n: int):
        return {"kind": "run_async", "n": n}

    def run(self, n: int):
        raise AssertionError("run_async comes first")


class WithContext(ContextAwareTool):
    """Who asks?"""

    def run_with_context(self, context, greeting: str = "hello"):
        return f"{greeting} {context['user']} of {context.get('tenant', 'none')}"


class RunContext:
    def run(self, n: int, context):
        return [n, context.require("user"), get_current_context() == context]


class Crewish:
    name = "crewish"
    description = "A tool of a framework."

    def run(self, *args, **kwargs):
        return self._run(*args, **kwargs)

    def _run(self, city: str) -> str:
        return city.upper()


class OnlyPrivate:
    def _run(self, x):
        return x


class AsyncCall:
    async def __call__(self, x=1):
        return x


@dataclasses.dataclass
class Point:
    x: int
    label: str = ""


class Model:
    """Looks like Pydantic's classes."""

    @classmethod
    def model_json_schema(cls):
        return {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def typed(
    city: str,
    days: int = 3,
    units: Literal["C", "F"] = "C",
    tags: Optional[List[str]] = None,
    extra: Dict[str, float] = {},
    *,
    point: Optional[Point] = None,
):
    """Weather of a city.

    More about it.

    Args:
        city: where,
            exactly
        days (int): how many

    Returns:
        nothing
    """
    return [city, days]


class Counter:
    """Counts the calls, for all that must not happen twice."""

    def __init__(self):
        self.lock, self.calls, self.gate = threading.Lock(), [], threading.Event()
        self.gate.set()

    def run(self, **arguments):
        with self.lock:
            self.calls.append(arguments)
            count = len(self.calls)
        assert self.gate.wait(60)
        return count


class Slow:
    def __init__(self):
        self.started, self.cancelled, self.finish = threading.Event(), threading.Event(), threading.Event()

    async def run(self, **arguments):
        self.started.set()
        try:
            while not self.finish.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "done"


@pytest.fixture(scope="module")
def registry():
    made = ComponentRegistry()
    for name, tool in {
        "run_async": RunAsync(),
        "with_context": WithContext(),
        "run_context": RunContext(),
        "crewish": Crewish(),
        "only_private": OnlyPrivate(),
        "async_call": AsyncCall(),
        "typed": typed,
    }.items():
        made.register_tool(name, tool)
    return made


@pytest.fixture(scope="module")
def service(registry):
    with start_tool_service(registry, "127.0.0.1", 0, KEY) as server:
        yield server


@pytest.fixture(scope="module")
def caller(service):
    made = ToolCaller(service.target, KEY)
    yield made
    made.close()


def add(registry, tool, name=None):
    """Registers a tool under a name of its own; registration while the service runs is what is meant to work."""
    name = name or f"tool-{len(registry)}"
    registry.register_tool(name, tool)
    return name


# --- dispatch


@pytest.mark.parametrize(
    "name, arguments, result",
    [
        ("run_async", {"n": 3}, {"kind": "run_async", "n": 3}),
        ("with_context", {}, {"value": "hello ann of none"}),
        ("run_context", {"n": 1}, {"value": [1, "ann", True]}),
        ("crewish", {"city": "rome"}, {"value": "ROME"}),
        ("only_private", {"x": None}, {"value": None}),
        ("async_call", {}, {"value": 1}),
        ("typed", {"city": "a"}, {"value": ["a", 3]}),
    ],
)
def test_every_kind_of_tool(caller, name, arguments, result):
    assert caller.result(name, arguments, context={"user": "ann"}) == result


def test_what_the_list_says(caller):
    tools = caller.tools()
    assert {name for name, tool in tools.items() if tool.is_async} >= {"run_async", "async_call"}
    assert not tools["crewish"].is_async and not tools["typed"].is_async
    assert tools["with_context"].has_context and tools["run_context"].has_context and not tools["typed"].has_context
    assert tools["with_context"].description == "Who asks?" and tools["crewish"].description == "A tool of a framework."
    assert tools["typed"].description == "Weather of a city.\n\nMore about it."
    assert json.loads(tools["crewish"].input_schema.json_schema)["required"] == ["city"]
    assert list(json.loads(tools["with_context"].input_schema.json_schema)["properties"]) == ["greeting"]
    assert json.loads(tools["typed"].input_schema.json_schema) == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "where, exactly"},
            "days": {"type": "integer", "description": "how many", "default": 3},
            "units": {"enum": ["C", "F"], "default": "C"},
            "tags": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}], "default": None},
            "extra": {"type": "object", "additionalProperties": {"type": "number"}, "default": {}},
            "point": {
                "anyOf": [
                    {
                        "type": "object",
                        "properties": {"x": {"type": "integer"}, "label": {"type": "string"}},
                        "additionalProperties": False,
                        "required": ["x"],
                    },
                    {"type": "null"},
                ],
                "default": None,
            },
        },
        "required": ["city"],
        "additionalProperties": False,
    }


def test_schemas_that_were_given(caller, registry):
    registry.register_tool("given", lambda **kw: kw, input_schema=Model, output_schema={"type": "object"}, description="d" * 900)
    tool = caller.tools()["given"]
    assert json.loads(tool.input_schema.json_schema)["required"] == ["n"] and len(tool.description) == 500
    from codemode.protos import codemode_pb2

    ask = codemode_pb2.GetToolSchemaRequest
    answer = caller.stub.GetToolSchema(ask(tool_name="given"), metadata=caller.metadata, timeout=30)
    assert answer.input_schema == tool.input_schema and answer.output_schema.json_schema == '{"type": "object"}'
    with pytest.raises(grpc.RpcError) as caught:
        caller.stub.GetToolSchema(ask(tool_name="givn"), metadata=caller.metadata, timeout=30)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND and "Did you mean 'given'" in caught.value.details()


def test_agents_crews_and_flows(caller, registry):
    class Agent:
        role, goal = "analyst", "To analyse."

        def execute_task(self, task, context=None):
            return {"task": task, "context": context}

    class Output:
        raw = "the answer"

    class Crew:
        def kickoff(self, inputs=None):
            assert inputs == {"n": 1}
            return Output()

    class Flow:
        async def kickoff(self, inputs=None):
            return inputs

    registry.register_agent("analyst", Agent())
    registry.register_crew("research", Crew())
    registry.register_flow("daily", Flow())
    assert caller.result("agents.analyst", {"task": "t", "context": "c"}) == {"task": "t", "context": "c"}
    assert caller.result("crews.research", {"inputs": {"n": 1}}) == {"value": "the answer"}
    assert caller.result("flows.daily", {}) == {"value": None}
    assert caller.tools()["agents.analyst"].description == "To analyse." and caller.tools()["flows.daily"].is_async


# --- values


def test_values_there_and_back(caller, registry):
    name = add(registry, lambda x: x)
    for value in [72, -0.5, 2**53, 1e300, "ü\0", True, None, [], {}, {"a": [{"b": None}]}]:
        back = caller.result(name, {"x": value})
        back = back if isinstance(value, dict) else back["value"]
        assert back == value and type(back) is type(value)


def test_what_has_an_obvious_form_gets_it(caller, registry):
    rows = {"when": datetime.date(2024, 5, 1), "point": Point(1), "pair": (1, 2), 3: {4}, "keys": {"a": 1}.keys()}
    assert caller.result(add(registry, lambda: rows), {}) == {
        "when": "2024-05-01",
        "point": {"x": 1, "label": ""},
        "pair": [1, 2],
        "3": [4],
        "keys": ["a"],
    }


@pytest.mark.parametrize("value", [float("nan"), 2**60 + 1, object(), lambda: 1])
def test_what_has_none_is_an_error(caller, registry, value):
    assert "its result['deep'][0] is" in caller.error(add(registry, lambda: {"deep": [value]}), {})


def test_a_result_that_contains_itself(caller, registry):
    loop = []
    loop.append(loop)
    assert "levels deep" in caller.error(add(registry, lambda: loop), {})


# --- errors


@pytest.mark.parametrize(
    "error, text",
    [
        (ValueError("no such city"), "no such city"),
        (KeyError("city"), "KeyError: 'city'"),
        (RuntimeError(), "RuntimeError"),
        (SystemExit(3), "3"),
    ],
)
def test_exceptions_are_answers(caller, registry, error, text):
    def raises():
        raise error

    async def raises_later():
        raise error

    assert caller.error(add(registry, raises), {}) == text
    if not isinstance(error, SystemExit):  # asyncio hands that one to its loop
        assert caller.error(add(registry, raises_later), {}) == text


def test_unknown_tools_and_wrong_arguments(caller):
    assert "Did you mean 'typed'" in caller.error("type", {})
    assert "unexpected keyword argument 'town'" in caller.error("typed", {"city": "a", "town": "b"})
    assert "'context' is filled in" in caller.error("run_context", {"n": 1, "context": {"user": "eve"}})


def test_arguments_are_not_in_the_log(caller, registry, caplog):
    caplog.set_level("INFO", "codemode")
    caller.result(add(registry, lambda password: None, "login"), {"password": "hunter2"}, correlation="cm-abc")
    assert "cm-abc tool 'login' ok in" in caplog.text and "hunter2" not in caplog.text and KEY not in caplog.text


# --- side by side, and given up


def test_calls_overlap(caller, registry):
    barrier = threading.Barrier(40)
    both = asyncio.Barrier(40) if hasattr(asyncio, "Barrier") else None

    async def meet():
        if both:
            await both.wait()

    plain, later = add(registry, lambda: barrier.wait(60)), add(registry, meet)
    calls = [caller.start(name, {}) for name in (plain, later) for _ in range(40)]
    assert all(call.result(60).success for call in calls)


def test_giving_up_cancels_async_tools(caller, registry):
    slow = Slow()
    call = caller.start(add(registry, slow), {})
    assert slow.started.wait(30)
    call.cancel()
    assert slow.cancelled.wait(30)
    slow = Slow()
    with pytest.raises(grpc.RpcError) as caught:
        caller.start(add(registry, slow), {}, call="timed:1", timeout=2).result()
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED and slow.cancelled.wait(30)


# --- calls by name


def test_a_named_call_runs_once(caller, registry):
    counter = Counter()
    name, request = add(registry, counter), generate_correlation_id()
    first = caller.result(name, {"a": 1}, call=f"{request}:1")
    assert caller.result(name, {"a": 1}, call=f"{request}:1") == first == {"value": 1}
    assert caller.result(name, {"a": 1}, call=f"{request}:2") == {"value": 2}  # the code calls it twice
    assert caller.result(name, {"a": 2}, call=f"{request}:1") == {"value": 3}  # other arguments
    assert caller.result(name, {"a": 1}, call="another:1") == {"value": 4}
    assert caller.result(name, {"a": 1}, call="another:1", context={"user": "b"}) == {"value": 5}
    other = Counter()
    assert caller.result(add(registry, other), {"a": 1}, call="another:1") == {"value": 1}  # another tool
    assert caller.result(name, {"a": 1}) == caller.result(name, {"a": 1}, call="no number") or len(counter.calls) == 7


def test_failures_are_remembered_too(caller, registry):
    calls = []

    def fails():
        calls.append(1)
        raise ValueError("spent")

    name = add(registry, fails)
    assert [caller.error(name, {}, call="fails:1") for _ in range(2)] == ["spent"] * 2 and len(calls) == 1


def test_a_running_call_is_joined(caller, registry):
    counter = Counter()
    counter.gate.clear()
    name = add(registry, counter)
    first = caller.start(name, {}, call="joined:1", correlation="first")
    while not counter.calls:
        time.sleep(0.01)
    first.cancel()  # its executor is gone; the replaced one asks again
    second = caller.start(name, {}, call="joined:1", correlation="second")
    counter.gate.set()
    answer = second.result(60)
    assert answer.success and answer.correlation_id == "second" and len(counter.calls) == 1


def test_an_async_call_waits_for_a_replaced_executor(caller, registry):
    slow = Slow()
    name = add(registry, slow)
    first = caller.start(name, {}, call="again:1")
    assert slow.started.wait(30)
    first.cancel()
    second = caller.start(name, {}, call="again:1")
    time.sleep(0.1)
    slow.finish.set()
    assert second.result(60).success and not slow.cancelled.is_set()


# --- who may call


def test_keys(service, caller, registry):
    for shown in ("", "wrong", KEY + " ", KEY[:-1]):
        stranger = ToolCaller(service.target, shown.strip() if shown == KEY + " " else shown)
        if shown.strip() == KEY:
            stranger.tools()
        else:
            from codemode.protos import codemode_pb2

            for ask in (stranger.tools, lambda: stranger.answer("typed", {"city": "a"}), lambda: stranger.stub.GetToolSchema(
                codemode_pb2.GetToolSchemaRequest(tool_name="typed"), metadata=stranger.metadata, timeout=30
            )):
                with pytest.raises(grpc.RpcError) as caught:
                    ask()
                assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        stranger.close()


def test_several_keys_and_none(registry, monkeypatch):
    with start_tool_service(registry, "127.0.0.1", 0, ["old", "new"]) as server:
        for key in ("old", "new"):
            assert ToolCaller(server.target, key).tools()
    monkeypatch.setenv("CODEMODE_API_KEY", "from-env")
    with start_tool_service(registry, "127.0.0.1", 0) as server, pytest.raises(grpc.RpcError):
        ToolCaller(server.target).tools()
    with start_tool_service(registry, "127.0.0.1", 0, "") as server:
        assert ToolCaller(server.target).tools()


def test_without_a_key_other_machines_are_refused(registry):
    from codemode.grpc.server import _is_loopback

    peers = ["ipv4:127.0.0.1:5", "ipv4:127.9.9.9:5", "ipv6:[::1]:5", "ipv6:%5B::1%5D:5", "unix:", "ipv6:[::ffff:127.0.0.1]:5"]
    assert all(map(_is_loopback, peers))
    others = ["ipv4:10.0.0.1:5", "ipv6:[2001:db8::1]:5", "ipv6:[::ffff:10.0.0.1]:5", "", "vsock:1", "ipv4:localhost:1"]
    assert not any(map(_is_loopback, others))


@pytest.fixture(scope="module")
def pems(tmp_path_factory):
    return certificates(tmp_path_factory.mktemp("pems"))


def client_credentials(pems, name="client"):
    read = [(pems / file).read_bytes() for file in ("ca.crt", f"{name}.key", f"{name}.crt")]
    return grpc.ssl_channel_credentials(*read)


def test_tls_and_its_renewal(registry, pems):
    config = {"cert_file": str(pems / "live.crt"), "key_file": str(pems / "live.key")}

    def install(name):
        for kind in ("crt", "key"):
            os.replace(_copy(pems, name, kind), pems / f"live.{kind}")

    install("server")
    with start_tool_service(registry, "localhost", 0, KEY, tls_config=config) as server:
        trusting = grpc.ssl_channel_credentials((pems / "ca.crt").read_bytes())
        assert ToolCaller(server.target, KEY, trusting).tools()
        with pytest.raises(grpc.RpcError):
            ToolCaller(server.target, KEY).tools()
        assert _subject(server.port) == "server"
        install("renewed")
        assert _subject(server.port) == "renewed"


def _copy(pems, name, kind):
    made = pems / f"{name}.{kind}.new"
    made.write_bytes((pems / f"{name}.{kind}").read_bytes())
    return made


def _subject(port):
    import ssl

    pem = ssl.get_server_certificate(("localhost", port))
    text = subprocess.run(["certtool", "-i"], input=pem, capture_output=True, text=True, check=True, timeout=60).stdout
    return text.split("Subject: CN=")[1].split("\n")[0]


def test_mutual_tls(registry, pems):
    config = {name: str(pems / file) for name, file in (("cert_file", "server.crt"), ("key_file", "server.key"), ("ca_file", "ca.crt"))}
    with start_tool_service(registry, "localhost", 0, KEY, tls_config=config) as server:
        assert ToolCaller(server.target, KEY, client_credentials(pems)).tools()
        for credentials in (
            client_credentials(pems, "other"),
            grpc.ssl_channel_credentials((pems / "ca.crt").read_bytes()),
            None,
        ):
            with pytest.raises(grpc.RpcError):
                ToolCaller(server.target, KEY, credentials).tools()


@pytest.mark.parametrize(
    "config, text",
    [
        ({"cert_file": "server.crt"}, "belong together"),
        ({"ca_file": "ca.crt"}, "needs cert_file"),
        ({"cert_file": "server.crt", "key_file": "client.key"}, "do not fit"),
        ({"cert_file": "server.crt", "key_file": "server.key", "require_client_auth": True}, "needs ca_file"),
        ({"enabled": False, "require_client_auth": True, "ca_file": "ca.crt"}, "needs enabled"),
    ],
)
def test_tls_that_cannot_be_meant(registry, pems, config, text):
    config = {key: str(pems / value) if key.endswith("_file") else value for key, value in config.items()}
    with pytest.raises(CodemodeError, match=text):
        create_tool_server(registry, "localhost", 0, KEY, tls_config=config)


# --- its life


def test_a_taken_port_is_said(service, registry):
    with pytest.raises(CodemodeError, match="port taken"):
        start_tool_service(registry, "127.0.0.1", service.port, KEY)


def test_stopping(registry):
    server = create_tool_server(registry, "127.0.0.1", 0, KEY)
    assert server.start() is server.start() and not server.wait(0)
    slow = Slow()
    call = ToolCaller(server.target, KEY).start(add(registry, slow), {})
    assert slow.started.wait(30)
    server.stop(0)
    assert server.wait(30) and slow.cancelled.wait(30)
    with pytest.raises(grpc.RpcError):
        call.result(30)
    server.stop()


def test_async_tools_run_on_the_applications_loop(registry):
    async def main():
        loops = []

        async def which():
            loops.append(asyncio.get_running_loop())

        registry.register_tool("which", which, overwrite=True)
        async with await start_tool_service_async(registry, "127.0.0.1", 0, KEY) as server:
            call = ToolCaller(server.target, KEY).start("which", {})
            await asyncio.get_running_loop().run_in_executor(None, call.result, 60)
        assert loops == [asyncio.get_running_loop()] and await server.wait(30)

    asyncio.run(main())


def test_an_application_ends_with_its_service_running():
    code = (
        "from codemode import ComponentRegistry\n"
        "from codemode.grpc import start_tool_service\n"
        "registry = ComponentRegistry()\n"
        "registry.register_tool('x', lambda: 1)\n"
        "start_tool_service(registry, '127.0.0.1', 0)\n"
        "print('goes on')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "goes on\n", "")
