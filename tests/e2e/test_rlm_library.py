# SPDX-License-Identifier: Apache-2.0
"""The Python library `rlm` in its own process: the guide's programs, Ctrl-C, threads, event loops, and what is left behind.

What a run does is tested for library and service alike in the other files with this beginning.
"""

import asyncio
import concurrent.futures
import gc
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from model_server import KEY, ModelServer, Reply, answer, by_model, grep_model, never, repl, rules, turns
from support import CODEMODE, PATIENCE, ROOT, Sidecar, eventually

SDK = ROOT / "sdk" / "python"
sys.path.insert(0, str(SDK))

from rlm import RLM, CancellationError, RLMLogger, SandboxError, TimeoutExceededError  # noqa: E402
from rlm.remote import SidecarExecutionConfig, create_sidecar_repl_factory  # noqa: E402

GUIDE = re.findall(r"```python\n(.*?)```", (pathlib.Path(__file__).parent / "guide_usage.md").read_text(encoding="utf-8"), re.DOTALL)
FOREVER = "print('be' + 'gun')\nwhile True: pass"


MADE = []


@pytest.fixture(autouse=True)
def nothing_is_left(sidecar):
    yield
    while MADE:
        MADE.pop().close()
    eventually(lambda: sidecar.sessions() == [], "all sessions have gone")


def environment(sidecar, models, **more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLM_", "OPENAI_", "CODEMODE_API", "RLM_"))}
    made = {"PYTHONPATH": str(SDK), "WASM_MANAGER_SERVICE_URL": sidecar.url, "LLM_BASE_URL": models.url, "LLM_API_KEY": KEY}
    return {**kept, **made, **more}


def start(program, sidecar, models, *arguments, **more):
    return subprocess.Popen(
        [sys.executable, *(["-c", program] if isinstance(program, str) else [str(program)]), *arguments],
        env=environment(sidecar, models, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=60 * PATIENCE)
    return process.returncode, out, err


def make(sidecar, models, **more):
    kwargs = {"base_url": models.url, "api_key": KEY}
    made = RLM(backend_kwargs=kwargs, environment_kwargs={"url": sidecar.url, **more.pop("environment_kwargs", {})}, **more)
    MADE.append(made)
    return made


# --- the guide


def test_secrets_of_a_url_are_not_shown():
    from rlm.common import shown

    assert shown("https://me:SECRET@h.example:8443/v1?key=SECRET#SECRET") == "https://h.example:8443/v1"
    assert shown("http://localhost:11434/v1") == "http://localhost:11434/v1"


def test_a_key_that_the_service_repeats_is_not_told():
    from rlm.models import Model, ModelClient, ModelSettings

    with ModelServer(Reply(status=401, message=f"your key {KEY} is unknown")) as models:
        client = ModelClient(ModelSettings())
        reply = client.ask(Model("root", base_url=models.url, api_key=KEY), [{"role": "user", "content": "?"}])
        client.close()
    assert reply.failure == "refused" and "your key" in reply.reason and KEY not in reply.reason


def test_the_guides_basic_usage(sidecar):
    fibonacci = "def f(n): return n if n < 2 else f(n - 1) + f(n - 2)\nr = rlm_query('add nothing to ' + str(f(7)))"
    child = repl(answer("context.split()[-1]"))
    root = turns(repl("print(context)"), repl(fibonacci), repl(answer("r")))
    with ModelServer(rules((lambda request: "8th Fibonacci" in request.text, root), ("", child))) as models:
        code, out, err = finish(start(GUIDE[0] + "\nprint(result, type(result).__name__)", sidecar, models))
    assert (code, out) == (0, "13 str\n"), err
    assert "What is the 8th Fibonacci number?" in err and "turn 3/20" in err and "answer: 13" in err
    assert len(models.requests) == 4 and {request.model for request in models.requests} == {"gpt-5"}


def test_the_guides_sessions(sidecar):
    with ModelServer(never()) as models:
        assert finish(start(GUIDE[1], sidecar, models)) == (0, "Result: 84\nNew x: 52\n", "")


# --- examples


def test_the_example_of_a_needle(sidecar):
    with ModelServer(grep_model) as models:
        code, out, err = finish(start(SDK / "examples/needle.py", sidecar, models))
    found = re.match(r"answered (\d+), hidden was (\d+)\n", out)
    assert code == 0 and found and found[1] == found[2], err
    assert all(len(request.raw) < 30_000 for request in models.requests)


def test_the_example_of_own_tools(sidecar):
    script = repl("owed = {name: sum(orders_of(name)) * (1 + vat) for name in context}\n" + answer("owed"))
    with ModelServer(script) as models:
        code, out, err = finish(start(SDK / "examples/own_tools.py", sidecar, models))
    assert code == 0 and json.loads(out) == {"Ada": 24.0, "Grace": 48.0, "Linus": 0.0}, err
    assert "orders_of(customer)" in models.requests[0].system and "vat" in models.requests[0].system


def test_the_example_of_an_endpoint(sidecar, tmp_path):
    (tmp_path / "book.txt").write_text("Call me Ishmael.")
    script = by_model({"large": repl("who = rlm_query('Who speaks? ' + context)\n" + answer("who")), "small": repl(answer("context.split()[-1]"))})
    with ModelServer(script) as models:
        arguments = (models.url, "large", "small", str(tmp_path / "book.txt"), "Who is the narrator?")
        process = subprocess.Popen(
            [sys.executable, str(SDK / "examples/endpoint.py"), *arguments],
            env=environment(sidecar, models), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        code, out, err = finish(process)
    assert (code, out) == (0, "Ishmael.\n"), err
    assert "  small: " in err and len(list((tmp_path / "trajectories").glob("*.jsonl"))) == 1


# --- Ctrl-C and other ends

PROGRAM = """
import sys, threading
from rlm import RLM, CancellationError
rlm = RLM(max_depth=2, persistent=%s)
def run():
    print("answer", rlm.completion("the context", "q"))
"""
INTERRUPTED = (
    PROGRAM % False
    + """
try:
    run()
except CancellationError as error:
    print("cancelled:", error.partial_answer.strip())
"""
)


@pytest.mark.parametrize(
    ("script", "begun"),
    [
        pytest.param(turns(repl("1"), repl(FOREVER)), lambda m: len(m.requests) == 2, id="code"),
        pytest.param(turns(repl("1"), never()), lambda m: len(m.requests) == 2, id="model"),
        pytest.param(
            rules((lambda r: "Turn" not in r.last, never()), ("", repl("llm_query_batched(['a', 'b', 'c'])"))), lambda m: len(m.requests) == 4, id="batch"
        ),
        pytest.param(
            rules((lambda r: "The query is part" in r.text, turns(repl("1"), never())), ("", repl("rlm_query('child')"))),
            lambda m: len(m.requests) == 3,
            id="child",
        ),
    ],
)
def test_ctrl_c(sidecar, script, begun):
    with ModelServer(script) as models:
        process = start(INTERRUPTED, sidecar, models)
        models.wait(begun, "the run is in its middle")
        if len(models.requests) == 2:
            eventually(lambda: sidecar.sessions() != [], "it has a session")
        process.send_signal(signal.SIGINT)
        code, out, err = finish(process)
        assert code == 0 and out.startswith("cancelled: ```repl"), err
        models.wait(lambda m: m.in_flight == 0, "its requests were broken off")
    assert sidecar.sessions() == [], "they have gone when it returns"


def test_a_program_that_ends_in_the_middle(sidecar):
    """The main thread ends while another one waits for a run; nobody calls close()."""
    program = PROGRAM % False + """
def wait():
    try:
        run()
    except CancellationError:
        pass
threading.Thread(target=wait, daemon=True).start()
sys.stdin.read()
"""
    with ModelServer(repl(FOREVER)) as models:
        process = subprocess.Popen([sys.executable, "-c", program], env=environment(sidecar, models), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        models.wait(lambda m: len(m.requests) == 1, "the first turn")
        eventually(lambda: sidecar.sessions() != [], "it has a session")
        _, err = process.communicate(timeout=60 * PATIENCE)
    assert process.returncode == 0 and "Traceback" not in err, err


def test_a_program_that_forgets_to_close(sidecar):
    with ModelServer(repl(answer("context"))) as models:
        code, out, err = finish(start(PROGRAM % True + "run()", sidecar, models))
    assert (code, out, err) == (0, "answer the context\n", "")


def test_what_is_dropped(sidecar):
    with ModelServer(repl(answer("context"))) as models:
        rlm = make(sidecar, models, persistent=True)
        MADE.clear()
        assert rlm.completion("here", "q").response == "here" and len(sidecar.sessions()) == 1
        del rlm
        gc.collect()
        assert sidecar.sessions() == []


# --- threads and event loops


def test_many_threads_with_one_object(sidecar):
    with ModelServer(repl("x = llm_query('q')\n" + answer("context"), delay=0.05), strict=False) as models:
        models.script = rules((lambda r: r.is_loop, repl("x = llm_query('q')\n" + answer("context"))), ("", Reply("r", delay=0.05)))
        with make(sidecar, models) as rlm, concurrent.futures.ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda number: rlm.completion(f"mine {number}", "q").response, range(24)))
        assert rlm.usage_summary().total_calls == 48
    assert done == [f"mine {number}" for number in range(24)]


def test_in_a_running_event_loop(sidecar):
    """As in a notebook: blocking calls work where a loop runs, and tasks beside each other."""

    async def cell():
        async with make(sidecar, models) as rlm:
            first = rlm.completion("one", "q").response
            ticks = 0

            async def tick():
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0.01)

            ticking = asyncio.ensure_future(tick())
            others = await asyncio.gather(*(rlm.acompletion(f"task {number}", "q") for number in range(6)))
            ticking.cancel()
            return first, [done.response for done in others], ticks

    with ModelServer(Reply(repl(answer("context")).text, delay=0.2)) as models:
        first, others, ticks = asyncio.run(cell())
    assert first == "one" and others == [f"task {number}" for number in range(6)] and ticks > 3


@pytest.mark.parametrize("stage", ["code", "model"])
def test_a_task_that_is_cancelled(sidecar, stage):
    async def run():
        task = asyncio.ensure_future(make(sidecar, models, max_depth=2).acompletion("c", "q"))
        while len(models.requests) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return sidecar.sessions()

    child = repl(FOREVER) if stage == "code" else never()
    with ModelServer(rules((lambda r: "The query is part" in r.text, child), ("", repl("rlm_query('x')")))) as models:
        assert asyncio.run(run()) == []
        models.wait(lambda m: m.in_flight == 0, "its requests were broken off")


def test_cancel_ends_all_that_run(sidecar):
    with ModelServer(repl(FOREVER)) as models:
        rlm = make(sidecar, models)
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            runs = [pool.submit(rlm.completion, "c", "q") for _ in range(3)]
            models.wait(lambda m: len(m.requests) == 3, "all three")
            rlm.cancel()
            for run in runs:
                with pytest.raises(CancellationError):
                    run.result(30 * PATIENCE)


# --- the caller's own tools


def test_tools_of_this_process(sidecar):
    seen = []
    both = threading.Barrier(2, timeout=20 * PATIENCE)

    def meet(name):
        both.wait()  # two calls at once
        seen.append((name, os.getpid()))
        return {"name": name, "sum": sum(range(10))}

    async def later(x):
        await asyncio.sleep(0.01)
        return x * 2

    def broken(key):
        raise KeyError(key)

    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(2) as pool:\n    met = sorted(m['name'] for m in pool.map(meet, ['a', 'b']))\n"
        "try:\n    broken('k')\nexcept Exception as error:\n    why = str(error)\n" + answer("[met, later(21), why, settings['deep'][1]]")
    )
    tools = {"meet": meet, "later": {"tool": later, "description": "Doubles, but not at once."}, "broken": broken, "settings": {"deep": [1, "ü"]}}
    with ModelServer(repl(code)) as models:
        found = json.loads(make(sidecar, models, custom_tools=tools).completion("c", "q").response)
    assert found == [["a", "b"], 42, "broken: KeyError: 'k'", "ü"] and {pid for _, pid in seen} == {os.getpid()}
    assert "Doubles, but not at once." in models.requests[0].system and "meet(name)" in models.requests[0].system


def test_a_slow_tool_does_not_use_up_the_blocks_time(sidecar):
    with ModelServer(repl(answer("slow()"))) as models:
        rlm = make(sidecar, models, custom_tools={"slow": lambda: time.sleep(1.5) or "done"}, environment_kwargs={"execution_timeout": 1})
        assert rlm.completion("c", "q").response == "done"


def test_tools_of_children(sidecar):
    script = rules((lambda r: "The query is part" in r.text, repl(answer("'above' in globals(), below()"))), ("", repl("r = rlm_query('x')\n" + answer("above() + r"))))
    with ModelServer(script) as models:
        rlm = make(sidecar, models, max_depth=2, custom_tools={"above": lambda: "A"}, custom_sub_tools={"below": lambda: "B"})
        assert rlm.completion("c", "q").response == 'A[false, "B"]'


# --- the sidecar


def test_a_sidecar_with_a_key(sidecar, monkeypatch):
    monkeypatch.delenv("CODEMODE_API_KEY", raising=False)
    locked = Sidecar({"CODEMODE_API_KEY": "a-key-that-is-long-enough"})
    try:
        with ModelServer(repl(answer("context"))) as models:
            with pytest.raises(SandboxError) as refused:
                make(locked, models).completion("c", "q")
            assert refused.value.reason == "unauthenticated"
            key = {"api_key": "a-key-that-is-long-enough"}
            assert make(locked, models, environment_kwargs=key).completion("by argument", "q").response == "by argument"
            monkeypatch.setenv("CODEMODE_API_KEY", key["api_key"])
            assert make(locked, models).completion("by variable", "q").response == "by variable"
            factory = create_sidecar_repl_factory(SidecarExecutionConfig(wasm_service_url=locked.url))
            kwargs = {"base_url": models.url, "api_key": KEY}
            assert RLM(backend_kwargs=kwargs, repl_factory=factory).completion("by factory", "q").response == "by factory"
            factory.close()
        assert locked.sessions() == []
    finally:
        locked.stop()


def test_a_sidecar_behind_tls(sidecar, tmp_path, monkeypatch):
    """Also a connection that is encrypted is cut in its middle, whatever waits on it."""
    command = [CODEMODE, "tls", "generate-certs", "-o", tmp_path / "certs", "--ecdsa"]
    subprocess.run(command, check=True, capture_output=True, timeout=60 * PATIENCE)
    files = {"CODEMODE_TLS_CERT_FILE": str(tmp_path / "certs/server.crt"), "CODEMODE_TLS_KEY_FILE": str(tmp_path / "certs/server.key")}
    authority = str(tmp_path / "certs/ca.crt")
    monkeypatch.setenv("SSL_CERT_FILE", authority)
    safe = Sidecar({"CODEMODE_TLS_ENABLED": "true", **files}, verify=authority)
    try:
        with ModelServer(repl(answer("len(context)"))) as models:
            assert make(safe, models).completion("x" * 3_000_000, "q").response == "3000000"
            models.script = rules((lambda r: r.is_loop, repl("llm_query('q')\n" + FOREVER)), ("", "r"))
            for seconds in (0.5, 0.8, 1.1):
                with pytest.raises(TimeoutExceededError):
                    make(safe, models, max_timeout=seconds).completion("c", "q")
                assert safe.sessions() == []
        while MADE:
            MADE.pop().close()
        safe.check_clean()
    finally:
        safe.stop()


def test_code_of_the_callers_runs_first(sidecar):
    with ModelServer(repl(answer("greet('you')"))) as models:
        setup = {"setup_code": "def greet(name): return 'hello ' + name"}
        assert make(sidecar, models, environment_kwargs=setup).completion("c", "q").response == "hello you"


def test_a_trajectory_in_memory(sidecar):
    script = rules((lambda r: "The query is part" in r.text, repl(answer("'inner'"))), ("", repl("r = rlm_query('x')\n" + answer("r"))))
    with ModelServer(script) as models:
        done = make(sidecar, models, max_depth=2, logger=RLMLogger()).completion("c", "q")
    call = done.metadata["iterations"][0]["code_blocks"][0]["result"]["rlm_calls"][0]
    assert call["response"] == "inner" and call["metadata"]["iterations"][0]["final_answer"] == "inner"
    assert json.dumps(done.to_dict()).count(KEY) == 0
