# SPDX-License-Identifier: Apache-2.0
"""The Python client against the real sidecar."""

import asyncio
import os
import subprocess
import sys
import threading

import pytest

from support import PATIENCE, ROOT, eventually

SDK = ROOT / "sdk" / "python"
sys.path.insert(0, str(SDK))

from rlm.remote import (  # noqa: E402
    ExecutionResult,
    RemoteREPLFactory,
    SidecarExecutionConfig,
    SidecarREPLEnv,
    create_sidecar_repl_factory,
)


@pytest.fixture
def factory(sidecar):
    made = create_sidecar_repl_factory(SidecarExecutionConfig(wasm_service_url=sidecar.url))
    yield made
    made.close()


def test_the_state_example(sidecar):
    done = subprocess.run(
        [sys.executable, str(SDK / "examples" / "state.py")],
        env={**os.environ, "PYTHONPATH": str(SDK), "WASM_MANAGER_SERVICE_URL": sidecar.url},
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "Result: 84\nNew x: 52\n", "")
    assert sidecar.sessions() == []


def test_async_sessions_overlap(sidecar, factory):
    async def one(number):
        session_id = await factory.create_session()
        try:
            await factory.execute_in_session(session_id, f"n = {number}")
            begun.append(number)
            while len(begun) < 8:  # nobody goes on before all are there
                await asyncio.sleep(0.01)
            return int(str(await factory.execute_in_session(session_id, "import time; time.sleep(0.2); n * n")))
        finally:
            await factory.delete_session(session_id)

    async def run():
        return await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(8))), 60 * PATIENCE)

    begun = []
    assert asyncio.run(run()) == [number * number for number in range(8)]
    assert sidecar.sessions() == []


def test_result_is_a_dict_that_prints_its_value(factory):
    with factory.create_repl_env() as env:
        result = env.code_execution("print('out'); x = [1, 'a']; x")
        assert isinstance(result, ExecutionResult) and isinstance(result, dict)
        assert str(result) == f"{result}" == "[1, 'a']"
        assert (result["success"], result["stdout"], result["stderr"], result["error"]) == (True, "out\n", "", None)
        assert result["locals"] == {"x": [1, "a"]} and result["execution_time"] >= 0
        assert str(env.code_execution("print('only text')")) == "only text"
        assert str(env.code_execution("y = 1")) == ""
        failed = env.code_execution("1/0")
        assert not failed["success"] and "ZeroDivisionError" in failed["error"] and failed["traceback"]


def test_environment(sidecar, factory):
    async def run():
        env = SidecarREPLEnv(factory=factory)
        env.set_context({"rows": [1, 2]}, None)
        await env.initialize()
        await env.initialize()
        assert str(await env.execute_code("context['rows']")) == "[1, 2]"
        assert str(await env.execute_code("n + 1", {"n": 5})) == "6"
        env.set_context(None, "a text")
        assert str(env.code_execution("context")) == "'a text'"
        await env.cleanup()
        await env.cleanup()

    asyncio.run(run())
    assert sidecar.sessions() == []


def test_session_that_is_gone(sidecar, factory):
    session_id = factory.create_session_sync()
    factory.delete_session_sync(session_id)
    factory.delete_session_sync(session_id)
    result = factory.execute_in_session_sync(session_id, "1")
    assert (result["success"], result["code"], result["status"]) == (False, "unknown_session", 404)


def test_cancelled_task_interrupts_the_execution(sidecar, factory):
    async def run():
        session_id = await factory.create_session()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(factory.execute_in_session(session_id, "while True: pass"), 0.5)
        return session_id

    session_id = asyncio.run(run())
    eventually(lambda: sidecar.request("GET", f"/session/{session_id}").json()["state"] == "idle", "it was interrupted")
    assert str(factory.execute_in_session_sync(session_id, "1 + 1")) == "2"
    factory.delete_session_sync(session_id)


def test_threads_share_a_factory(sidecar, factory):
    failures = []

    def work(number):
        with factory.create_repl_env() as env:
            for step in range(20):
                if str(env.code_execution(f"{number} * {step}")) != str(number * step):
                    failures.append((number, step))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60 * PATIENCE)
    assert failures == [] and sidecar.sessions() == []


def test_timeout_of_the_configuration(sidecar):
    config = SidecarExecutionConfig(wasm_service_url=sidecar.url, timeout=0.5)
    with create_sidecar_repl_factory(config).create_repl_env() as env:
        env.code_execution("kept = 1")
        result = env.code_execution("while True: pass")
        assert not result["success"] and "timed out" in result["error"].lower()
        assert str(env.code_execution("kept")) == "1"


def test_remote_factory(sidecar):
    factory = RemoteREPLFactory(sidecar.url)
    assert factory.health_check() is True and factory.readiness_check() is True
    with factory.create(max_depth=2, current_depth=0) as env:
        env.code_execution("def f(): return 12")
        assert str(env.code_execution("f()")) == "12"
    factory.close()
