# SPDX-License-Identifier: Apache-2.0
"""The Python library as a client of the RLM service: `RLM(service_url=...)` and `Client`."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from model_server import ModelServer, Reply, answer, grep_model, never, repl, rules
from rlm_support import Service, root
from support import PATIENCE, ROOT

SDK = ROOT / "sdk" / "python"
sys.path.insert(0, str(SDK))

from rlm import (  # noqa: E402
    RLM,
    CancellationError,
    Client,
    ErrorThresholdExceededError,
    ModelError,
    RLMLogger,
    ServiceError,
    TimeoutExceededError,
    TokenLimitExceededError,
)


@pytest.fixture(scope="module")
def service(tmp_path_factory, sidecar):
    with ModelServer(None, strict=False) as models:
        made = Service(models, sidecar, tmp_path_factory.mktemp("trajectories"))
        try:
            yield made
        finally:
            status = made.close()
        assert status == 0
        models.check()


@pytest.fixture
def models(service):
    service.models.reset(None)
    yield service.models
    service.check_after()


@pytest.fixture
def client(service):
    made = Client(service.url)
    yield made
    made.close()


def make(service, **more):
    return RLM(service_url=service.url, **more)


def test_a_completion(service, models):
    told = []
    models.script = root(repl("print(len(context))\nr = llm_query('p' * 100)"), repl(answer("(r, len(context), list(context)[0])")), sub="réply")
    with make(
        service,
        max_iterations=5,
        on_subcall_start=lambda *args: told.append(args),
        on_subcall_complete=lambda *args: told.append(args),
        on_iteration_complete=lambda *args: told.append(args[:2]),
    ) as rlm:
        done = rlm.completion({"a": [1], "b": "ü"}, "What is it?")
    assert done.response == '["réply", 2, "a"]' and done.root_model == "root" and done.usage_summary.total_calls == 3
    assert rlm.cost_summary() == done.usage_summary.to_dict() and done.execution_time > 0
    assert told[0] == (1, "sub", "p" * 80) and told[1][:2] == (1, "sub") and told[1][3] is None and told[2:] == [(0, 1), (0, 2)]
    assert "What is it?" in models.requests[0].text and "Turn 1/5" in models.requests[0].last


def test_a_large_context(service, models, tmp_path):
    models.script = grep_model
    number = "7731902"
    text = "hay ü\n" * 900_000 + f"the needle {number}\n" + "hay\n" * 900_000
    path = tmp_path / "hay.txt"
    path.write_text(text, encoding="utf-8")
    with make(service) as rlm:
        assert rlm.completion(text, 'Where is "the needle"?').response == number
        assert rlm.completion(path, 'Where is "the needle"?').response == number
    assert str(len(text)) in models.requests[0].text


def test_contexts_without_text(service, models, tmp_path):
    path = tmp_path / "empty.txt"
    path.touch()
    models.script = root(repl(answer("repr(context)")))
    with make(service) as rlm:
        for context, seen in (("", "''"), (path, "''"), ([], "[]"), ({}, "{}"), ("half \ud800", "'half ?'")):
            assert rlm.completion(context, "What is there?").response == seen


def test_a_query_inside_of_the_context(service, models):
    models.script = root(repl(answer("context")))
    with make(service) as rlm:
        assert rlm.completion("How many?").response == "How many?"
    assert "The query is part of `context`" in models.requests[0].text


def test_errors(service, models):
    models.script = root(*[repl("1/0", usage=(400, 10))] * 9)
    with make(service, max_tokens=1000) as rlm, pytest.raises(TokenLimitExceededError) as tokens:
        rlm.completion("c", "q")
    assert tokens.value.tokens_used == 1230 and tokens.value.token_limit == 1000 and "1/0" in tokens.value.partial_answer
    with make(service, max_errors=2) as rlm, pytest.raises(ErrorThresholdExceededError):
        rlm.completion("c", "q")
    models.script = root(never())
    with make(service, max_timeout=0.5) as rlm, pytest.raises(TimeoutExceededError) as over:
        rlm.completion("c", "q")
    assert over.value.timeout == 0.5 and over.value.elapsed >= 0.4
    with make(service, backend_kwargs={"model_name": "nobody"}) as rlm, pytest.raises(ModelError):
        models.script = lambda request: Reply(status=404, message="no such model")
        rlm.completion("c", "q")
    with pytest.raises(ValueError, match="functions cannot run here"):
        make(service, custom_tools={"f": print})


def test_cancel(service, models):
    models.script = root(repl("while True: pass"))
    with make(service) as rlm:
        begun = threading.Thread(target=lambda: models.wait(lambda m: len(m.requests) == 1, "the turn") or rlm.cancel())
        begun.start()
        with pytest.raises(CancellationError):
            rlm.completion("c", "q")
        begun.join()


def test_a_task_that_is_cancelled(service, models):
    async def run():
        async with make(service) as rlm:
            await asyncio.wait_for(rlm.acompletion("c", "q"), 1)

    models.script = root(never())
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(run())
    models.wait(lambda m: m.in_flight == 0, "the service has broken the request off")


def test_ctrl_c(service, models):
    program = "import sys\nfrom rlm import RLM, CancellationError\ntry:\n    RLM(service_url=sys.argv[1]).completion('c', 'q')\nexcept CancellationError:\n    print('cancelled')"
    models.script = root(never())
    process = subprocess.Popen([sys.executable, "-c", program, service.url], env={**os.environ, "PYTHONPATH": str(SDK)}, stdout=subprocess.PIPE, text=True)
    models.wait(lambda m: len(m.requests) == 1, "the turn")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60 * PATIENCE)
    assert (process.returncode, out) == (0, "cancelled\n")
    models.wait(lambda m: m.in_flight == 0, "the service has broken the request off")


def test_persistent(service, models):
    with make(service, persistent=True) as rlm:
        models.script = root(repl("kept = len(context)\n" + answer("kept")))
        assert rlm.completion("12345", "first?").response == "5"
        models.script = root(repl(answer("(kept, context_1, len(history) > 1)")))
        assert json.loads(rlm.completion("second", "second?").response) == [5, "second", True]


def test_a_trajectory(service, models, tmp_path):
    models.script = root(repl("r = rlm_query('t')"), repl(answer("r")), sub=repl(answer("'child'")))
    log = RLMLogger(tmp_path / "mine")
    with make(service, max_depth=2, logger=log) as rlm:
        done = rlm.completion("c", "q")
    lines = [json.loads(line) for line in open(log.log_file_path, encoding="utf-8")]
    assert [line["type"] for line in lines] == ["metadata", "iteration", "iteration"] and lines[0]["root_model"] == "root"
    assert done.metadata["iterations"][0]["code_blocks"][0]["result"]["rlm_calls"][0]["response"] == "child"


def test_the_live_view(service, models, capsys):
    models.script = root(repl("print('shown')"), repl(answer("'the end'")))
    with make(service, verbose=True) as rlm:
        rlm.completion("c", "q")
    shown = capsys.readouterr().err
    assert "turn 2/30" in shown and "shown" in shown and "answer: the end" in shown


def test_the_client(service, models, client):
    assert client.health_check() and client.readiness_check() and "rlm" in client.models()
    models.script = rules((lambda request: request.is_loop, repl(answer("'it is ' + context"))), ("", "x"))
    told = client.infer("What?", "here", max_iterations=3)
    assert told["success"] is True and told["answer"] == "it is here" and told["model"] == "root"
    assert asyncio.run(client.ainfer("What?", ["there"], custom_tools={"x": 1}))["run_id"].startswith("run-")
    context_id = client.upload("somewhere")
    run_id = client.start("What?", context_id=context_id)
    events = list(client.events(run_id))
    assert events[0]["type"] == "metadata" and events[-1]["type"] == "result" and events[-1]["answer"] == "it is somewhere"
    assert client.run(run_id)["status"] == "succeeded" and client.runs()[0]["run_id"] == run_id
    assert client.trajectory(run_id)[0]["type"] == "metadata"
    with pytest.raises(ServiceError) as refused:
        client.start("again", context_id=context_id)
    assert (refused.value.status, refused.value.code) == (404, "unknown_context")
    with pytest.raises(ServiceError) as refused:
        client.infer("")
    assert refused.value.status == 400
    context_id = client.upload('{"a": 1}', "json")
    client.delete_context(context_id)


def test_the_client_cancels(service, models, client):
    models.script = root(never())
    run_id = client.start("q", "c")
    models.wait(lambda m: len(m.requests) == 1, "the turn")
    client.cancel(run_id)
    assert list(client.events(run_id))[-1]["error"]["code"] == "cancelled" and client.run(run_id)["status"] == "cancelled"

    async def infer():
        await asyncio.wait_for(client.ainfer("q", "c"), 0.5)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(infer())
    models.wait(lambda m: m.in_flight == 0, "hanging up ends the run")


def test_nobody_there():
    assert Client("http://127.0.0.1:9").health_check() is False
    with pytest.raises(ServiceError) as gone:
        Client("http://127.0.0.1:9").infer("q")
    assert gone.value.status == 0
    with pytest.raises(ServiceError):
        RLM(service_url="http://127.0.0.1:9").completion("c", "q")
