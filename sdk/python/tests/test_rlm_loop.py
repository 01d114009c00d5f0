# SPDX-License-Identifier: Apache-2.0
"""The loop in this process, with a sidecar of the tests and a model service that answers by script."""

import asyncio
import gc
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from fake_sidecar import FakeSidecar
from rlm import (
    RLM,
    BudgetExceededError,
    CancellationError,
    ErrorThresholdExceededError,
    ModelError,
    RLMLogger,
    SandboxError,
    TimeoutExceededError,
    TokenLimitExceededError,
)
from rlm import common
from rlm.live import LiveView
from rlm.local.rlm_repl import RLM_REPL
from rlm.models import ModelSettings
from rlm.remote import SidecarExecutionConfig, SidecarREPLFactory
from scripted import KEY, ModelServer, Reply, answer, blocks, by_model, cut, empty, fail, final, final_var, never, order, raw, refusal, repl, rules, turns


@pytest.fixture
def sidecar():
    with FakeSidecar() as made:
        yield made
        assert made.sessions == {}, "a session is left over"


def make(sidecar, models, **more):
    kwargs = {"model_name": "gpt-5", "base_url": models.url, "api_key": KEY, **more.pop("backend_kwargs", {})}
    made = RLM(backend_kwargs=kwargs, environment="codemode", environment_kwargs={"url": sidecar.url}, **more)
    made._client.settings = ModelSettings(backoff=0.01)
    return made


def test_a_run(sidecar):
    script = turns(repl("print(len(context), context[:6])"), repl("x = context.count('needle')\nx"), repl(answer("f'{x} found'")))
    with ModelServer(script) as models:
        done = make(sidecar, models).completion("needle in hay, needle", "How many needles?")
    assert done.response == str(done) == "2 found" and done.root_model == "gpt-5" and done.error is None
    assert done.usage_summary.total_calls == 3 and done.usage_summary.total_cost > 0
    first, second, third = models.requests
    assert first.is_loop and "How many needles?" in first.text and "needle in hay" not in first.text
    assert "21 needle" in second.last and "Variables: x" in third.last and "2\n" in third.last


def test_final_in_words(sidecar):
    with ModelServer(turns(repl("found = 6 * 7"), final_var("nothing"), final_var("found"))) as models:
        assert make(sidecar, models).completion("c", "q").response == "42"
    assert "no variable 'nothing'" in models.requests[2].last
    with ModelServer(final("f(x) = (a + b)")) as models:
        assert make(sidecar, models).completion("c", "q").response == "f(x) = (a + b)"


def test_sub_queries(sidecar):
    code = "a = llm_query('one')\nb = llm_query_batched(['two', 'three', 'bad'])\nc = rlm_query('four')\n" + answer("[a, *b, c]")
    script = by_model(
        {
            "gpt-5": repl(code),
            "sub": rules(("bad", fail(400, "no such thing")), ("one", "1"), ("two", Reply("2", delay=0.2)), ("three", "3"), ("four", "4")),
        }
    )
    started = []
    ended = []
    with ModelServer(script) as models:
        rlm = make(
            sidecar,
            models,
            recursive_models=["sub"],
            on_subcall_start=lambda *args: started.append(args),
            on_subcall_complete=lambda *args: ended.append(args),
        )
        found = json.loads(rlm.completion("c", "q").response)
    assert found[:3] == ["1", "2", "3"] and found[3].startswith("Error: bad_request: HTTP 400") and found[4] == "4"
    assert len(started) == len(ended) == 5 and (1, "sub", "two") in started
    assert [error for depth, model, seconds, error in ended if error and "no such thing" in error]
    assert rlm.cost_summary()["model_usage_summaries"]["sub"]["total_calls"] == 5


def test_recursion(sidecar):
    root = repl("found = rlm_query_batched([f'task {n}' for n in range(6)])\n" + answer("found"))
    child = turns(repl("inner = llm_query('leaf of ' + context)"), repl(answer("inner.upper()")))
    script = rules((lambda request: not request.is_loop, lambda request: request.last), (lambda request: request.model == "gpt-5", root), ("", child))
    with ModelServer(script) as models:
        log = RLMLogger()
        rlm = make(sidecar, models, max_depth=2, recursive_models=["child"], logger=log, max_concurrent_subcalls=3)
        done = rlm.completion("c", "q")
    assert json.loads(done.response) == [f"LEAF OF TASK {n}" for n in range(6)]
    assert 2 <= sidecar.most <= 4
    calls = done.metadata["iterations"][0]["code_blocks"][0]["result"]["rlm_calls"]
    assert [call["prompt"] for call in calls] == [f"task {n}" for n in range(6)] or len(calls) == 6
    inner = calls[0]["metadata"]["iterations"]
    assert len(inner) == 2 and inner[0]["code_blocks"][0]["result"]["rlm_calls"][0]["metadata"] is None


def test_texts_longer_than_a_piece(sidecar):
    code = "big = 'x' * 3_500_000\na = llm_query(big)\n" + answer("(len(a), a[-5:])")
    with ModelServer(rules((lambda request: request.is_loop, repl(code)), ("", lambda request: "y" * 10 + str(len(request.last))))) as models:
        assert make(sidecar, models).completion("c", "q").response == '[17, "00000"]'


def test_custom_tools(sidecar):
    async def later(number):
        await asyncio.sleep(0.01)
        return number + 1

    def broken():
        raise LookupError("nothing there")

    tools = {
        "look": {"tool": lambda key, default="none": {"a": 1}.get(key, default), "description": "Looks a key up."},
        "later": later,
        "broken": broken,
        "limits": {"tool": {"most": 3}, "description": "What is allowed."},
        "twice": {"code": "def twice(x):\n    return 2 * x", "description": "Doubles."},
    }
    code = "try:\n    broken()\nexcept Exception as e:\n    why = str(e)\n" + answer("[look('a'), look('b'), later(4), limits['most'], twice(21), why]")
    with ModelServer(repl(code)) as models:
        found = make(sidecar, models, custom_tools=tools).completion("c", "q").response
    assert json.loads(found) == [1, "none", 5, 3, 42, "broken: LookupError: nothing there"]
    assert "Looks a key up." in models.requests[0].system and "What is allowed." in models.requests[0].system


@pytest.mark.parametrize("name", ["llm_query", "context", "answer", "1x", "for", "_hidden", "context_3", "SHOW_VARS"])
def test_names_of_custom_tools(name):
    with pytest.raises(ValueError):
        RLM(custom_tools={name: 1})


def test_what_cannot_be():
    for arguments in (
        {"environment": "docker"},
        {"backend": "azure_openai"},
        {"backend": "nobody"},
        {"backend": "vllm"},
        {"max_iterations": 0},
        {"max_budget": 0},
        {"other_backends": ["openai", "openai"], "other_backend_kwargs": [{}, {}]},
        {"compaction_threshold_pct": 1.5},
        {"service_url": "http://localhost:1", "custom_tools": {"f": print}},
        {"service_url": "http://localhost:1", "backend_kwargs": {"api_key": "k"}},
    ):
        with pytest.raises(ValueError):
            RLM(**arguments)
    for arguments in ({"backend_kwargs": {"colour": 1}}, {"custom_tools": {"x": object()}}, {"repl_factory": object()}, {"environment_kwargs": {"image": "x"}}):
        with pytest.raises(TypeError):
            RLM(**arguments)
    with pytest.raises(TypeError):
        RLM().completion(42)


def test_bad_replies(sidecar):
    """A reply of no use is asked for again, once; words without code are a turn."""
    script = order(
        refusal("I would rather not"),
        Reply("```repl\nx = 1\n"),
        raw(b"data: {not json\n\n"),
        Reply("Just words."),
        *[cut("```repl\ny = 2\n```\nand now I", 22)] * 4,
        empty(),
        empty(),
        repl("1/0"),
        repl(answer("y"), usage=None),
    )
    with ModelServer(script) as models:
        done = make(sidecar, models, max_iterations=10).completion("c", "q")
    assert done.response == "2"
    asked = models.requests
    assert "ZeroDivisionError" in asked[-1].last
    assert asked[1].messages[-2] == ("assistant", "I would rather not")
    assert asked[2].messages == asked[3].messages, "the same again"
    assert common.prompt("unclosed") in asked[2].last and common.prompt("no_code") in asked[4].last


def test_words_that_were_shown_are_not_asked_for_again(sidecar):
    with ModelServer(order(cut("```repl\ny = 2\n```\nand now I", 22), repl(answer("y")))) as models:
        assert make(sidecar, models, verbose=True).completion("c", "q").response == "2"


def test_what_a_service_does_not_understand_is_left_out(sidecar):
    def picky(request):
        if request.body.get("stream"):
            return fail(400, "This server does not support streaming")
        if "max_tokens" in request.body:
            return fail(400, "Unsupported parameter: use 'max_completion_tokens' instead")
        return repl(answer("'done'")) if request.turn > 1 else repl("1")

    with ModelServer(picky, strict=False) as models:
        assert make(sidecar, models, sampling_args={"max_tokens": 1000, "n": 5}).completion("c", "q").response == "done"
    assert len(models.requests) == 4 and models.requests[-1].body["max_completion_tokens"] == 1000


@pytest.mark.parametrize("bad", [empty(), raw(b"{}"), cut("a b c", 2)], ids=["empty", "no answer", "cut"])
def test_two_bad_replies_end_a_run(sidecar, bad):
    with ModelServer(lambda request: bad) as models:
        with pytest.raises(ModelError, match="no reply of use"):
            make(sidecar, models).completion("c", "q")


def test_model_failures_end_a_run(sidecar):
    with ModelServer(turns(repl("1"), fail(401, "who are you"))) as models:
        with pytest.raises(ModelError, match="who are you") as caught:
            make(sidecar, models).completion("c", "q")
    assert caught.value.failure == "refused" and "repl" in caught.value.partial_answer


def test_retries(sidecar):
    with ModelServer(order(fail(429, retry_after=0), fail(503), cut("", 0), final("ok"))) as models:
        assert make(sidecar, models).completion("c", "q").response == "ok"
    assert len(models.requests) == 4


def test_retry_after_may_take_all_the_time_that_is_left(sidecar):
    """Of the run, for the root's own request and for one of its code; a run without a limit has the patience of one attempt."""

    def busy(seconds, then):
        return order(fail(429, retry_after=seconds), then)

    with ModelServer(by_model({"gpt-5": busy(1, repl(answer("llm_query('?', 'small')"))), "small": busy(1, Reply("ok"))})) as models:
        rlm = make(sidecar, models, max_timeout=60, recursive_models=["small"])
        rlm._client.settings = ModelSettings(backoff=0.01, backoff_max=0.05)
        assert rlm.completion("c", "q").response == "ok"
    assert len(models.requests) == 4
    for one, two in zip(models.requests[::2], models.requests[1::2]):
        assert two.began - one.ended >= 0.99
    for limits in ({}, {"max_timeout": 250}):
        with ModelServer(busy(301, final("late"))) as models:
            with pytest.raises(ModelError, match="301 s of patience"):
                make(sidecar, models, **limits).completion("c", "q")
        assert len(models.requests) == 1


def test_out_of_turns(sidecar):
    with ModelServer(order(repl("x = 5"), repl("y = 6"), Reply("It is eleven."))) as models:
        assert make(sidecar, models, max_iterations=2).completion("c", "q").response == "It is eleven."
    assert len(models.requests) == 3


def test_limits(sidecar):
    with ModelServer(lambda request: repl("1/0", usage=(600, 100), cost=0.3)) as models:
        with pytest.raises(TokenLimitExceededError) as tokens:
            make(sidecar, models, max_tokens=1000).completion("c", "q")
        with pytest.raises(BudgetExceededError) as budget:
            make(sidecar, models, max_budget=0.5).completion("c", "q")
        with pytest.raises(ErrorThresholdExceededError) as errors:
            make(sidecar, models, max_errors=2).completion("c", "q")
    assert (tokens.value.tokens_used, tokens.value.token_limit) == (1400, 1000) and "1/0" in tokens.value.partial_answer
    assert (budget.value.spent, budget.value.budget) == (0.6, 0.5)
    assert (errors.value.error_count, errors.value.threshold) == (2, 2) and "ZeroDivisionError" in errors.value.last_error


@pytest.mark.parametrize("script", [repl("print('begun')\nwhile True: pass"), never(), repl("llm_query('slow')")], ids=["code", "model", "sub-query"])
def test_time_is_over(sidecar, script):
    script = rules((lambda request: request.turn == 1 and request.is_loop and len(request.text) > 0, script), ("", never()))
    with ModelServer(script) as models:
        started = time.monotonic()
        with pytest.raises(TimeoutExceededError) as caught:
            make(sidecar, models, max_timeout=0.7).completion("c", "q")
    assert 0.7 <= caught.value.elapsed <= time.monotonic() - started < 15 and caught.value.timeout == 0.7


def test_a_block_beyond_its_time(sidecar):
    script = turns(repl("kept = 1\nwhile True: pass"), repl(answer("kept")))
    with ModelServer(script) as models:
        rlm = make(sidecar, models)
        rlm._plan.execution_timeout = 0.3
        assert rlm.completion("c", "q").response == "1"
    assert "0.3 seconds" in models.requests[1].last


def test_waiting_for_models_takes_no_time_of_a_block(sidecar):
    script = rules((lambda request: request.is_loop, repl(answer("llm_query('slow')"))), ("", Reply("worth it", delay=1.0)))
    with ModelServer(script) as models:
        rlm = make(sidecar, models)
        rlm._plan.execution_timeout = 0.4
        assert rlm.completion("c", "q").response == "worth it"


def test_cancel_from_another_thread(sidecar):
    with ModelServer(repl("print('begun')\nwhile True: pass")) as models:
        rlm = make(sidecar, models)
        begun = threading.Event()
        threading.Thread(target=lambda: begun.wait(60) and rlm.cancel(), daemon=True).start()
        rlm._callbacks = (None, None, None, None)
        rlm._listener = lambda: lambda event: event["type"] == "output" and begun.set()
        with pytest.raises(CancellationError) as caught:
            rlm.completion("c", "q")
    assert "while True" in caught.value.partial_answer


def test_tasks(sidecar):
    async def both():
        rlm = make(sidecar, models)
        first, second = await asyncio.gather(rlm.acompletion("aa", "q"), rlm.acompletion("bbb", "q"))
        blocking = rlm.completion("cccc", "q")  # as in a notebook, whose event loop runs
        return [done.response for done in (first, second, blocking)]

    with ModelServer(repl(answer("len(context)"))) as models:
        assert asyncio.run(both()) == ["2", "3", "4"]


def test_a_task_that_is_cancelled(sidecar):
    async def cancelled():
        await asyncio.wait_for(make(sidecar, models).acompletion("c", "q"), 0.5)

    with ModelServer(never()) as models:
        with pytest.raises(asyncio.TimeoutError):
            asyncio.run(cancelled())
    assert sidecar.sessions == {}


def test_persistent(sidecar):
    script = order(
        repl("kept = len(context_0)\n" + answer("kept")),
        repl(answer("(kept, len(context_1), len(context), type(history).__name__, history[0]['role'])")),
        repl(answer("SHOW_VARS()")),
    )
    with ModelServer(script) as models, make(sidecar, models, persistent=True) as rlm:
        assert rlm.completion("12345", "q").response == "5"
        assert json.loads(rlm.completion("123", "again").response)[:3] == [5, 3, 5]
        assert len(sidecar.sessions) == 1
        assert "context_2" in rlm.completion("x", "q").response
    assert "history_0" in models.requests[1].text


def test_what_is_dropped_leaves_nothing(sidecar):
    with ModelServer(final("ok")) as models:
        rlm = make(sidecar, models, persistent=True)
        rlm.completion("c", "q")
        assert len(sidecar.sessions) == 1
        del rlm
        gc.collect()
    assert sidecar.sessions == {}


def test_compaction(sidecar):
    script = order(
        repl("found = 'blue'\nprint('x' * 10000)"),
        repl("print('x' * 10000)"),
        Reply("SUMMARY: found is blue"),
        repl(answer("found, len(history) > 3, 'x' * 100 in history[3]['content']")),
    )
    with ModelServer(script) as models:
        prices = {"tiny": {"window": 5000}}
        rlm = make(sidecar, models, backend_kwargs={"model_name": "tiny", "prices": prices}, compaction=True)
        assert json.loads(rlm.completion("c", "q").response)[0] == "blue"
    assert "SUMMARY: found is blue" in models.requests[-1].text and "xxxx" not in models.requests[-1].text


def test_sessions_run_out(sidecar):
    sidecar.refuse("POST /session", 503, detail="no room", code="overloaded")
    sidecar.refuse("POST /session", 422, detail="tool_argument is too large", code="invalid_field")
    with ModelServer(final("ok")) as models:
        assert make(sidecar, models).completion("c", "q").response == "ok"


def test_the_sidecar_breaks_off(sidecar):
    sidecar.cut = "trouble"
    with ModelServer(turns(repl("'trouble'"), final("went on"))) as models:
        assert make(sidecar, models).completion("c", "q").response == "went on"
    assert "the connection to the session broke" in models.requests[1].last


def test_the_session_is_gone(sidecar):
    with ModelServer(turns(repl("1"), lambda request: sidecar.sessions.clear() or repl("2"))) as models:
        with pytest.raises(SandboxError) as caught:
            make(sidecar, models).completion("c", "q")
    assert caught.value.reason == "unknown_session"


def test_nobody_there(sidecar):
    with ModelServer(final("x")) as models:
        rlm = RLM(backend_kwargs={"base_url": models.url, "api_key": KEY}, environment_kwargs={"url": "http://127.0.0.1:9"})
        with pytest.raises(SandboxError):
            rlm.completion("c", "q")
        assert models.requests == []


def test_a_file_as_context(sidecar, tmp_path):
    (tmp_path / "big.txt").write_text("line\n" * 200_000 + "ü")
    with ModelServer(repl(answer("(len(context), context[-1])"))) as models:
        assert json.loads(make(sidecar, models).completion(tmp_path / "big.txt", "q").response) == [1_000_001, "ü"]
    assert "1000001" in models.requests[0].text


def test_a_log(sidecar, tmp_path):
    with ModelServer(turns(repl("x = 'y' * 300_000\nprint(1)"), repl(answer("x")))) as models:
        log = RLMLogger(tmp_path / "logs", "trial")
        make(sidecar, models, logger=log).completion("c", "q")
    lines = [json.loads(line) for line in open(log.log_file_path, encoding="utf-8")]
    assert [line["type"] for line in lines] == ["metadata", "iteration", "iteration"]
    for name in "timestamp root_model max_depth max_iterations backend backend_kwargs environment_type environment_kwargs other_backends".split():
        assert name in lines[0]
    assert set(lines[1]) >= set("iteration timestamp prompt response code_blocks final_answer iteration_time".split())
    result = lines[1]["code_blocks"][0]["result"]
    assert set(result) == set("stdout stderr locals execution_time rlm_calls final_answer".split()) and result["stdout"] == "1\n"
    assert lines[2]["final_answer"].startswith("yyy") and 200_000 < len(lines[2]["final_answer"]) < 200_100
    assert KEY not in open(log.log_file_path, encoding="utf-8").read() and os.path.basename(log.log_file_path).startswith("trial_2")
    assert log.iteration_count == 2 and log.get_trajectory()["run_metadata"]["root_model"] == "gpt-5"


def test_the_live_view(sidecar, capsys):
    script = rules((lambda request: request.is_loop, repl("print('\\x1b[2J seen')\n" + answer("llm_query('sub task')"))), ("", "fine"))
    with ModelServer(script) as models:
        make(sidecar, models, verbose=True).completion("c", "what is it?")
    shown = capsys.readouterr().err
    assert all(text in shown for text in ("what is it?", "turn 1/30", "sub task", "answer: fine", "?[2J seen")) and "\x1b" not in shown


def test_colours_of_the_live_view(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def shown(**settings):
        for name in ("TERM", "NO_COLOR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        file = Terminal()
        LiveView(file)({"type": "turn", "node": 0, "iteration": 1})
        return file.getvalue()

    assert shown(TERM="xterm").startswith("\x1b[1;36mturn 1") and shown(TERM="xterm", NO_COLOR="").startswith("\x1b")
    assert shown(TERM="dumb") == shown(TERM="xterm", NO_COLOR="1") == shown() == "turn 1/0\n"


def test_other_backend(sidecar):
    script = by_model({"gpt-5": repl(answer("[llm_query('a'), llm_query('b', model='gpt-5')]")), "helper": "from the helper"})
    script = rules((lambda request: not request.is_loop and request.model == "gpt-5", "from the root"), ("", script))
    with ModelServer(script) as models:
        other = {"model_name": "helper", "base_url": models.url, "api_key": KEY}
        rlm = make(sidecar, models, other_backends=["openai"], other_backend_kwargs=[other])
        assert json.loads(rlm.completion("c", "q").response) == ["from the helper", "from the root"]


def test_anthropic(sidecar):
    script = turns(repl("n = len(context)"), repl(answer("n")))
    with ModelServer(script) as models:
        kwargs = {"model_name": "claude-sonnet-4-5", "base_url": models.root, "api_key": KEY}
        rlm = RLM("anthropic", kwargs, environment_kwargs={"url": sidecar.url}, sampling_args={"temperature": 0.5})
        done = rlm.completion("abc", "q")
    assert done.response == "3" and done.usage_summary.total_cost > 0
    assert models.requests[0].body["temperature"] == 0.5 and models.requests[0].body["max_tokens"] == 32768


def test_depth_is_used_up(sidecar):
    with ModelServer(lambda request: f"read {len(request.last)}") as models:
        assert make(sidecar, models, max_depth=0).completion("c" * 100, "what?").response == "read 107"
        assert make(sidecar, models, depth=2, max_depth=2).complete("what?", "x").startswith("read")
    assert sidecar.seen == []


def test_100_at_once(sidecar):
    code = "import threading\nfound = llm_query_batched([f'n{n}' for n in range(100)])\n" + answer("found == [f'n{n}' for n in range(100)]")
    script = rules((lambda request: request.is_loop, repl(code)), ("", lambda request: Reply(request.last, delay=0.02)))
    with ModelServer(script) as models:
        assert make(sidecar, models).completion("c", "q").response == "true"
    assert 2 <= models.most_in_flight <= 16


def test_rlm_repl(sidecar, monkeypatch):
    monkeypatch.setenv("LLM_API_KEY", KEY)
    with ModelServer(by_model({"gpt-5": repl(answer("llm_query('x')")), "small": "leaf"})) as models:
        monkeypatch.setenv("LLM_BASE_URL", models.url)
        factory = SidecarREPLFactory(SidecarExecutionConfig(wasm_service_url=sidecar.url))
        rlm = RLM_REPL(model="gpt-5", recursive_models=["small"], repl_factory=factory)
        assert rlm.completion(context="c", query="q") == "leaf"
        assert set(rlm.cost_summary()["model_usage_summaries"]) == {"gpt-5", "small"}
        rlm.reset()
        assert rlm.cost_summary() == {"model_usage_summaries": {}}
        assert asyncio.run(rlm.acompletion(["c"], "q")) == "leaf"
    assert models.requests[0].model == "gpt-5" and models.requests[1].model == "small"


CTRL_C = """
import sys
from rlm import RLM, CancellationError
rlm = RLM(backend_kwargs={"base_url": sys.argv[1], "api_key": "%s"}, environment_kwargs={"url": sys.argv[2]})
try:
    rlm.completion("c", "q")
except CancellationError as error:
    print("cancelled", error.partial_answer)
"""


def test_ctrl_c(sidecar):
    with ModelServer(turns(repl("1"), never())) as models:
        program = subprocess.Popen(
            [sys.executable, "-c", CTRL_C % KEY, models.url, sidecar.url], stdout=subprocess.PIPE, text=True
        )
        models.wait(lambda server: len(server.requests) == 2, "the second turn")
        program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=60)
    assert program.returncode == 0 and said.startswith("cancelled ```repl")
