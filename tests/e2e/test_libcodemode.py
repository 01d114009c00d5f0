# SPDX-License-Identifier: Apache-2.0
"""The C library against a real sidecar, its tool service against grpcio, its installation against a compiler."""

import concurrent.futures
import contextlib
import os
import shutil
import subprocess

import grpc
import pytest
from google.protobuf import empty_pb2, json_format

from grpc_support import Rpc, code_of
from support import BUILD, CODEMODE, PATIENCE, ROOT, eventually, running_sidecar

LIBRARY = BUILD / "sdk" / "c"


def run(*command, **more):
    """The standard output of a program that must succeed."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("CODEMODE_")}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120 * PATIENCE, env={**env, **more})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def passed(tap):
    lines = tap.splitlines()
    return len([line for line in lines if line.startswith("ok ")]), lines[-1]


def test_every_function_of_the_client(sidecar):
    assert passed(run(LIBRARY / "libcodemode-drive", "client", f"127.0.0.1:{sidecar.port}")) == (32, "1..32")


def test_what_a_tool_service_refuses():
    assert passed(run(LIBRARY / "libcodemode-drive", "tools")) == (9, "1..9")


def test_the_example_of_the_readme(sidecar):
    out = run(LIBRARY / "codemode-hello", CODEMODE_EXECUTOR_URL=sidecar.url)
    assert out == "x is 42\n=> None\n=> 84\n!! ZeroDivisionError: division by zero\n"


def test_no_name_but_its_own_is_exported():
    symbols = {line.split()[-1].split("@")[0] for line in run("nm", "-D", "--defined-only", LIBRARY / "libcodemode.so").splitlines()}
    header = (ROOT / "sdk" / "c" / "codemode.h").read_text(encoding="utf-8")
    assert {name for name in symbols if name.startswith("codemode_")} == {name for name in symbols if name != "CODEMODE_0"}
    assert len(symbols) > 25 and all(f"{name}(" in header for name in symbols - {"CODEMODE_0"})


def test_installation_and_pkg_config(sidecar, tmp_path):
    """A program that knows nothing but pkg-config compiles, links and runs."""
    run("meson", "install", "-C", BUILD, "--destdir", tmp_path / "root", "--no-rebuild", "--quiet")
    folder = next((tmp_path / "root").rglob("codemode.pc")).parent
    env = {"PKG_CONFIG_PATH": str(folder), "PKG_CONFIG_SYSROOT_DIR": str(tmp_path / "root")}
    flags = run("pkg-config", "--cflags", "--libs", "codemode", **env).split()
    if "__asan_init" in run("nm", "-D", LIBRARY / "libcodemode.so"):
        flags.append("-fsanitize=address,undefined")  # a library with sanitizers wants a program with them
    for example in ("hello", "weather"):
        source = ROOT / "sdk" / "c" / "examples" / f"{example}.c"
        run("cc", "-std=c17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", source, *flags, "-o", tmp_path / example)
    out = run(tmp_path / "hello", f"127.0.0.1:{sidecar.port}", LD_LIBRARY_PATH=str(folder.parent))
    assert "=> 84" in out
    if shutil.which("c++"):
        run("c++", "-x", "c++", "-fsyntax-only", *flags, ROOT / "sdk" / "c" / "codemode.h")


class Tools:
    """A tool service in C and a channel to it."""

    def __init__(self, credentials=None, **env):
        env = {**{key: value for key, value in os.environ.items() if not key.startswith("CODEMODE_")}, **env}
        self.process = subprocess.Popen(
            [LIBRARY / "libcodemode-drive", "serve", "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        self.port = int(self.process.stdout.readline())
        self.rpc = Rpc(self.port, credentials=credentials)

    def ask(self, method, request, answer, **more):
        return self.rpc.unary(f"/codemode.ToolService/{method}", request, answer, **more)[0]

    def call(self, name, arguments=None, context=None, **more):
        request = self.rpc.v0.ToolCallRequest(tool_name=name, correlation_id="corr-1")
        json_format.ParseDict(arguments or {}, request.arguments)
        if context is not None:
            json_format.ParseDict(context, request.context)
        return self.ask("CallTool", request, self.rpc.v0.ToolCallResponse, **more)

    def wait_begun(self):
        """Until the tool `slow` has begun, which says so."""
        assert self.process.stdout.readline() == "begun\n"

    def stop(self):
        """What it says at its end."""
        self.rpc.close()
        out, _ = self.process.communicate("", timeout=60 * PATIENCE)
        assert self.process.returncode == 0
        return out


@contextlib.contextmanager
def tool_service(credentials=None, **env):
    tools = Tools(credentials, **env)
    try:
        yield tools
    finally:
        if tools.process.poll() is None:
            tools.process.kill()
        tools.process.wait()


@pytest.fixture(scope="module")
def tools():
    with tool_service() as made:
        yield made


def test_tools_are_listed(tools):
    listed = {tool.name: tool for tool in tools.ask("ListTools", empty_pb2.Empty(), tools.rpc.v0.ListToolsResponse).tools}
    assert list(listed) == ["echo", "slow", "about", "fail", "silent", "broken", "count"]
    assert listed["echo"].is_async and listed["echo"].description.startswith("Gives back")
    assert listed["about"].has_context and listed["about"].input_schema.json_schema == '{"type":"object"}'
    assert not listed["echo"].HasField("input_schema")
    schema = tools.ask("GetToolSchema", tools.rpc.v0.GetToolSchemaRequest(tool_name="about"), tools.rpc.v0.GetToolSchemaResponse)
    assert (schema.tool_name, schema.has_context) == ("about", True)
    with pytest.raises(grpc.RpcError) as error:
        tools.ask("GetToolSchema", tools.rpc.v0.GetToolSchemaRequest(tool_name="no"), tools.rpc.v0.GetToolSchemaResponse)
    assert code_of(error) == grpc.StatusCode.NOT_FOUND


def test_tools_answer(tools):
    given = {"n": 72, "f": 0.5, "deep": {"list": [None, True, "ä\0"]}}
    answer = tools.call("echo", given)
    assert answer.success and json_format.MessageToDict(answer.result) == given and answer.correlation_id == "corr-1"
    about = json_format.MessageToDict(tools.call("about", context={"user": 7}).result)
    assert about == {"tool": "about", "id": "corr-1", "left": True, "context": {"user": 7}}
    assert json_format.MessageToDict(tools.call("about").result)["context"] is None
    assert json_format.MessageToDict(tools.call("count").result) == {"value": 1}


def test_tools_fail(tools):
    for name, text in (("fail", "it did not work: \ufffd"), ("silent", "not answered"), ("broken", "no JSON"), ("nope", "nope")):
        answer = tools.call(name)
        assert answer.success is False and text in answer.error, name


def test_calls_overlap_and_can_be_cancelled(tools):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        running = [pool.submit(tools.call, "slow", timeout=0.5) for _ in range(8)]
        errors = [future.exception() for future in running]
    assert all(error.code() == grpc.StatusCode.DEADLINE_EXCEEDED for error in errors)
    with tool_service() as own:
        method = own.rpc.channel.unary_unary("/codemode.ToolService/CallTool")
        call = method.future(own.rpc.v0.ToolCallRequest(tool_name="slow").SerializeToString())
        own.wait_begun()
        call.cancel()
        assert "cancelled 1" in own.stop()


def test_tools_need_the_key():
    with tool_service(CODEMODE_API_KEY="a-key-of-tools") as tools:
        for key in (None, "wrong", "a-key-of-tools-and-more", ""):
            tools.rpc.key = key
            with pytest.raises(grpc.RpcError) as error:
                tools.ask("ListTools", empty_pb2.Empty(), tools.rpc.v0.ListToolsResponse)
            assert code_of(error) == grpc.StatusCode.UNAUTHENTICATED
            with pytest.raises(grpc.RpcError) as error:
                tools.call("count")
            assert code_of(error) == grpc.StatusCode.UNAUTHENTICATED
        tools.rpc.key = "a-key-of-tools"
        assert json_format.MessageToDict(tools.call("count").result) == {"value": 1}


def test_stopping_lets_tools_finish():
    with tool_service() as tools, concurrent.futures.ThreadPoolExecutor(2) as pool:
        running = pool.submit(tools.call, "slow")
        tools.wait_begun()
        tools.process.stdin.close()
        assert running.result(60 * PATIENCE).success
        assert tools.process.wait(30 * PATIENCE) == 0


# --- TLS, with certificates asked of both sides


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs")
    subprocess.run([CODEMODE, "tls", "generate-certs", "--ecdsa", "--force", "-o", folder], check=True, capture_output=True)
    return {name: str(folder / name) for name in os.listdir(folder)}


def presents(certs, who):
    return {"CERT_FILE": certs[f"{who}.crt"], "KEY_FILE": certs[f"{who}.key"], "CA_FILE": certs["ca.crt"]}


def test_the_client_over_mutual_tls(certs):
    tls = {
        "CODEMODE_TLS_ENABLED": "true", "CODEMODE_TLS_MODE": "custom", "CODEMODE_TLS_REQUIRE_CLIENT_AUTH": "true",
        **{f"CODEMODE_TLS_{name}": path for name, path in presents(certs, "server").items()},
    }  # fmt: skip
    mine = (certs["client.crt"], certs["client.key"])
    with running_sidecar(verify=certs["ca.crt"], cert=mine, **tls) as server:
        drive = (LIBRARY / "libcodemode-drive", "client", f"localhost:{server.port}")
        assert passed(run(*drive, **presents(certs, "client"))) == (32, "1..32")
        hello = [LIBRARY / "codemode-hello", f"https://localhost:{server.port}"]  # trusts the system's authorities only
        done = subprocess.run(hello, capture_output=True, text=True, timeout=60 * PATIENCE)
        assert done.returncode != 0 and "certificate" in done.stdout + done.stderr


def test_the_tool_service_over_mutual_tls(certs):
    pems = [open(certs[name], "rb").read() for name in ("ca.crt", "client.key", "client.crt")]
    with tool_service(grpc.ssl_channel_credentials(*pems), CODEMODE_API_KEY="", **presents(certs, "server")) as tools:
        assert "echo" in [t.name for t in tools.ask("ListTools", empty_pb2.Empty(), tools.rpc.v0.ListToolsResponse).tools]
        with Rpc(tools.port, credentials=grpc.ssl_channel_credentials(pems[0])) as stranger, pytest.raises(grpc.RpcError) as error:
            stranger.unary("/codemode.ToolService/ListTools", empty_pb2.Empty(), tools.rpc.v0.ListToolsResponse, timeout=5)
        assert code_of(error) == grpc.StatusCode.UNAVAILABLE
        callback = {
            "CODEMODE_MAIN_APP_TARGET": f"localhost:{tools.port}", "CODEMODE_CALLBACK_TLS_ENABLED": "true",
            "CODEMODE_CALLBACK_TLS_CA_FILE": certs["ca.crt"], "CODEMODE_CALLBACK_TLS_CLIENT_CERT": certs["client.crt"],
            "CODEMODE_CALLBACK_TLS_CLIENT_KEY": certs["client.key"],
        }  # fmt: skip
        with running_sidecar(**callback) as server:
            code = {"code": "r = tools['echo'].run(n=72)\nresult = (await r) if hasattr(r, '__await__') else r"}
            answer = server.request("POST", "/execute", json=code).json()
            assert answer["success"] and "72" in answer["result"], answer
