# SPDX-License-Identifier: Apache-2.0
"""Registry, schemas, contexts, messages, and the memory of calls, each by itself."""

import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import grpc
import pytest
from google.protobuf import descriptor_pb2

from codemode import (
    Codemode,
    ComponentAlreadyExistsError,
    ComponentNotFoundError,
    ComponentRegistry,
    ExecutionResult,
    ExecutorClient,
    RuntimeContext,
    ValueNotSentError,
)
from codemode.core.executor_client import ErrorDetails
from codemode.grpc.memory import CallMemory, LateCall
from codemode.integrations.crewai import CodemodeTool, describe, report, strip_fence
from codemode.protos import codemode_pb2, codemode_pb2_grpc
from codemode.tools.schema import argument_texts, of_signature, of_type, schema_of

ROOT = pathlib.Path(__file__).resolve().parents[3]

# --- the messages are those of proto/codemode.proto


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    made = tmp_path_factory.mktemp("proto") / "set"
    assert shutil.which("protoc"), "protobuf-compiler is one of the packages of the build"
    command = ["protoc", "-I", ROOT / "proto", f"--descriptor_set_out={made}", ROOT / "proto/codemode.proto"]
    subprocess.run(command, check=True, timeout=60)
    return descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file[0]


def test_messages(described):
    ours = descriptor_pb2.FileDescriptorProto()
    codemode_pb2.DESCRIPTOR.CopyToProto(ours)
    described.ClearField("source_code_info")
    for field in (f for file in (ours, described) for message in file.message_type for f in message.field):
        field.ClearField("json_name")
    assert ours == described, "sdk/python/codemode/protos is out of date: see its README"


def test_stubs(described):
    stubs = {"ExecutorService": codemode_pb2_grpc.ExecutorServiceStub, "ToolService": codemode_pb2_grpc.ToolServiceStub}
    assert {service.name for service in described.service} == set(stubs)
    for service in described.service:
        methods = codemode_pb2_grpc._METHODS[f"codemode.{service.name}"]
        types = {
            method.name: (f".{methods[method.name][0].DESCRIPTOR.full_name}", f".{methods[method.name][1].DESCRIPTOR.full_name}")
            for method in service.method
        }
        assert types == {method.name: (method.input_type, method.output_type) for method in service.method}
        stub = stubs[service.name](grpc.insecure_channel("localhost:1"))
        assert all(callable(getattr(stub, method.name)) for method in service.method)


def test_grpc_is_imported_where_it_is_used_only():
    code = "import sys, codemode, codemode.grpc, codemode.config\nassert not {'grpc', 'google.protobuf', 'yaml'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    blocked = "import sys\nsys.modules['grpc'] = None\nfrom codemode import ExecutorClient\nExecutorClient('http://x')"
    ended = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, timeout=60)
    assert "pip install 'codemode[grpc]'" in ended.stderr


# --- registry


def test_registration():
    registry = ComponentRegistry()
    registry.register_tool("a", len)
    with pytest.raises(ComponentAlreadyExistsError, match="overwrite=True"):
        registry.register_tool("a", max)
    registry.register_tool("a", func=max, overwrite=True)
    assert registry.get_tool("a") is max and "a" in registry and len(registry) == 1
    with pytest.raises(ComponentNotFoundError, match="tool 'b' is not registered. Available tools: a"):
        registry.get_tool("b")
    assert isinstance(ComponentNotFoundError("tool", "b"), KeyError)
    assert registry.get_component_names() == {"tools": ["a"], "agents": [], "crews": [], "flows": []}
    registry.unregister("tool", "a")
    assert registry.available_tools() == []


@pytest.mark.parametrize("name", ["", " ", "__list__", "a\nb", "x" * 201, None, "agents.x"])
def test_names_that_cannot_be_one(name):
    with pytest.raises(ValueError, match="cannot be"):
        ComponentRegistry().register_tool(name, len)


@pytest.mark.parametrize(
    "tool, text",
    [(3, "cannot be called"), (type("Tool", (), {"run": lambda self: 1}), r"register an instance, Tool\(\)"), (None, "pass one")],
)
def test_tools_that_cannot_be_called(tool, text):
    with pytest.raises(TypeError, match=text):
        ComponentRegistry().register_tool("x", tool)
    with pytest.raises(TypeError, match="is no schema"):
        ComponentRegistry().register_tool("x", len, input_schema=5)
    with pytest.raises(TypeError, match="execute_task"):
        ComponentRegistry().register_agent("x", 3)


def test_config_and_context():
    registry = ComponentRegistry()
    registry.set_config({"a": 1}, b=2)
    registry.update_config(b=3)
    registry.config["a"] = "a copy"
    assert registry.config == {"a": 1, "b": 3}
    with pytest.raises(ValueNotSentError, match=r"config\['key'\]"):
        registry.update_config(key=object())
    registry.set_context(RuntimeContext({"user": 1}))
    assert registry.get_context()["user"] == 1
    registry.set_context(None)
    assert registry.get_context() is None


def test_contexts():
    context = RuntimeContext(variables={"a": 1}, b=2)
    assert (context["a"], context.get("c"), dict(context), len(context)) == (1, None, {"a": 1, "b": 2}, 2)
    assert context.variables == context.to_dict() == context and context.with_variables(a=3)["a"] == 3
    assert repr(RuntimeContext(secret="x")) == "RuntimeContext(secret)"
    with pytest.raises(KeyError, match=r"with_context\(tenant=...\)"):
        context.require("tenant")


# --- schemas


def test_argument_texts():
    doc = """Text: not one of them.

    Args:
        city (str): where
            it is
        **more: others

    Returns:
        city: not an argument
    """
    assert argument_texts(textwrap.dedent(doc)) == {"city": "where it is", "more": "others"}
    assert argument_texts(":param str a: first\n:param b: second\n:return: c") == {"a": "first", "b": "second"}


def test_unusual_signatures():
    def unknown(x: "NoSuchType", y: int = None):  # noqa: F821
        pass

    assert of_signature(unknown)["required"] == ["x"]
    assert of_signature(lambda **kwargs: 1) is None and of_signature(print) is not None
    assert of_type(tuple) == {"type": "array"} and of_type(object()) == {}
    assert schema_of('{"type": "object"}') == {"type": "object"}


def test_references_of_an_arguments_class_find_their_definitions():
    class Outer:
        """Looks like a Pydantic class with another one inside."""

        @classmethod
        def model_json_schema(cls):
            inner = {"type": "object", "properties": {"n": {"type": "integer"}}}
            return {"type": "object", "properties": {"inner": {"$ref": "#/$defs/Inner"}}, "$defs": {"Inner": inner}}

    def tool(outer: Outer):
        pass

    schema = of_signature(tool)
    assert schema["properties"]["outer"]["properties"]["inner"] == {"$ref": "#/$defs/Inner"}
    assert "$defs" not in schema["properties"]["outer"] and schema["$defs"]["Inner"]["type"] == "object"


# --- CrewAI, which is not here


def test_the_tool_without_crewai():
    registry = ComponentRegistry()
    registry.register_tool("weather", lambda city, days=1: 1, description="Weather.\nMore.")
    registry.register_agent("analyst", type("A", (), {"execute_task": lambda self, task, context=None: task, "goal": "Thinks"})())
    with Codemode(registry, ExecutorClient("http://localhost:1", retry_enabled=False)) as codemode:
        tool = codemode.as_crewai_tool()
        assert tool.name == "codemode" and "- tools['weather'](city, days): Weather.\n" in tool.description
        assert "- agents['analyst'](task, context): Thinks" in describe(codemode)
        assert tool.run("1").startswith("ERROR: no executor can be reached") and tool._run("1").count("\n") == 2
        assert codemode.as_crewai_tool("mine").description == "mine"
        with pytest.raises(ImportError, match=r"pip install 'codemode\[crewai\]'"):
            CodemodeTool(codemode)


def test_reports():
    assert report(ExecutionResult(True, "4")) == "4"
    assert "no result was returned" in report(ExecutionResult(True, stdout="x")) and "x" in report(ExecutionResult(True, stdout="x"))
    failed = ExecutionResult(False, "", "", "oops\n", "bad", ErrorDetails("ValueError", "bad", "Traceback"), "cm-1", 2.0)
    said = report(failed)
    for line in ("ERROR: bad", "Type: ValueError", "Traceback:\nTraceback", "Stderr: oops", "Correlation ID: cm-1", "Duration: 2.0 ms"):
        assert line in said
    assert strip_fence("```python\nx = 1\n```") == "x = 1" and strip_fence("x = '```'") == "x = '```'"


# --- the memory of calls

A, B, C = ("a", b"1"), ("b", b"2"), ("c", b"3")


def run(memory, name, identity, server=""):
    """True when the tool would run."""
    call, new = memory.begin(name, identity, server)
    if new:
        memory.finish(call, f"{identity[0]} of {name}", 10)
    assert call.answer.result(0).startswith(identity[0])
    return new


def test_a_second_run_of_the_same_calls():
    for servers in (("", ""), ("one", "two")):
        memory = CallMemory()
        assert all(run(memory, f"r:{n}", A, servers[0]) for n in (1, 2, 3))
        assert not any(run(memory, f"r:{n}", A, servers[1]) for n in (3, 1, 2))
        assert run(memory, "r:4", A, servers[1]) and not run(memory, "r:4", A, servers[1])


@pytest.mark.parametrize("second", ["ba", "cab", "cba", "bca", "acb", "aab", "bbca"])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_second_run_in_another_order(second, backwards):
    """Also where the calls of threads arrive in another order than that of their numbers."""
    memory, tools = CallMemory(), {"a": A, "b": B, "c": C}
    assert [run(memory, f"r:{n}", tools[tool], "one") for n, tool in enumerate("abc", 1)] == [True] * 3
    calls = list(enumerate(second, 1))
    ran = [tool for n, tool in (calls[::-1] if backwards else calls) if run(memory, f"r:{n}", tools[tool], "two")]
    assert sorted(ran) == sorted(tool for tool in set(second) for _ in range(second.count(tool) - 1))


def test_a_third_run_meets_the_calls_of_both_before():
    memory = CallMemory()
    assert run(memory, "r:1", A, "one") and run(memory, "r:1", B, "two") and run(memory, "r:1", C, "three")
    assert not run(memory, "r:2", A, "three") and not run(memory, "r:3", B, "three") and run(memory, "r:4", B, "three")


def test_a_call_of_a_replaced_run_comes_too_late():
    memory = CallMemory()
    assert run(memory, "r:1", A, "one") and not run(memory, "r:1", A, "two")
    with pytest.raises(LateCall):
        memory.begin("r:2", B, "one")
    assert run(memory, "r:2", B, "two")


def test_names_without_runs():
    memory = CallMemory()
    assert run(memory, "r:2", A) and run(memory, "r:1", A)  # two calls of two threads
    assert run(memory, "r:1", B) and run(memory, "r:3", A)  # other calls


def test_old_requests_are_forgotten():
    now = [0.0]
    memory = CallMemory(keep_seconds=600, clock=lambda: now[0])
    running, _ = memory.begin("running:1", A)
    assert run(memory, "r:1", A)
    now[0] = 599
    assert not run(memory, "r:1", A)
    now[0] = 1198
    assert not run(memory, "r:1", A)  # ten minutes after the newest call
    now[0] = 1800
    assert run(memory, "r:1", A) and len(memory) == 2
    memory.finish(running, "a", 1)
    assert memory.begin("running:1", A) == (running, False)
    now[0] = 9999
    assert run(memory, "x:1", A) and len(memory) == 1


def test_large_answers_are_dropped_but_not_repeated():
    memory = CallMemory(bytes_max=25)
    for name in ("r:1", "r:2", "r:3"):
        assert run(memory, name, A)
    first, new = memory.begin("r:1", A)
    assert not new and not first.kept and first.answer.result(0) is None
    assert not run(memory, "r:2", A) and not run(memory, "r:3", A)


def test_too_many_requests():
    memory = CallMemory(calls_max=10)
    for n in range(50):
        run(memory, f"r{n}:1", A)
    assert len(memory) <= 11 and not run(memory, "r49:1", A) and run(memory, "r0:1", A)


@pytest.mark.parametrize("name", ["", "no number", ":1", "r:x", "r:" + "9" * 600])
def test_names_of_others(name):
    memory = CallMemory()
    assert run(memory, name, A) and run(memory, name, A) and len(memory) == 0


def test_what_the_documentation_names_exists():
    text = (ROOT / "docs/python-sdk.md").read_text()
    for name in re.findall(r"`Codemode\.(\w+)", text):
        assert hasattr(Codemode, name), name
