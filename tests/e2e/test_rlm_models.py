# SPDX-License-Identifier: Apache-2.0
"""Model services that fail: tried again where that can help, told in the run's error where it cannot, and never fatal."""

import email.utils
import json
import time

import pytest

from model_server import Reply, answer, cut, empty, fail, order, raw, refusal, repl, rules
from rlm_support import root
from support import eventually

WORKS = repl(answer("'worked'"))


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(fail(500), id="500"),
        pytest.param(fail(503, retry_after=1), id="503"),
        pytest.param(fail(429), id="429"),
        pytest.param(cut("```repl\nprint(1)\n```", 1), id="cut before the first word"),
        pytest.param(empty(), id="empty"),
    ],
)
def test_tried_again(rlm, models, trouble):
    models.script = order(trouble, WORKS)
    assert rlm.run().answer == "worked"
    assert len(models.requests) == 2


def test_retry_after_is_heeded(rlm, models):
    models.script = order(fail(429, retry_after=2), WORKS)
    assert rlm.run().answer == "worked"
    one, two = models.requests
    assert two.began - one.ended >= 1.9


def test_retry_after_may_be_a_date(rlm, models):
    models.script = lambda request: WORKS if len(models.requests) > 1 else fail(429, retry_after=email.utils.formatdate(time.time() + 3, usegmt=True))
    assert rlm.run().answer == "worked"
    one, two = models.requests
    assert two.began - one.ended >= 1.0


@pytest.mark.parametrize("limits", [{}, {"max_timeout": 1000}], ids=["no limit", "limit"])
def test_retry_after_beyond_what_is_left(rlm, models, limits):
    """Nobody waits for what comes too late."""
    models.script = order(fail(429, retry_after=1010), WORKS)
    outcome = rlm.run(**limits)
    assert (outcome.answer, outcome.code) == (None, "model_failed") and "1010 s of patience" in outcome.error, outcome.error
    assert len(models.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_not_tried_again(rlm, models, status):
    models.script = fail(status, "it says why")
    outcome = rlm.run()
    assert (outcome.answer, outcome.code) == (None, "model_failed")
    assert len(models.requests) == 1
    assert str(status) in outcome.error and "it says why" in outcome.error


def test_a_base_url_that_may_be_wrong_is_asked_for(rlm, models):
    models.script = fail(404, "Not Found")
    assert "base URL" in rlm.run().error
    models.script = fail(404, "The model `root` does not exist", code="model_not_found")
    assert "base URL" not in rlm.run().error


def test_a_prompt_beyond_the_window(rlm, models):
    models.windows = {"root": 20}
    models.script = WORKS
    try:
        outcome = rlm.run()
    finally:
        models.windows = {}
    assert outcome.code == "model_failed" and len(models.requests) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(raw("{"), id="no JSON"),
        pytest.param(raw("data: {\n\ndata: [DONE]\n\n"), id="no JSON in a stream"),
        pytest.param(raw('{"choices": []}'), id="no choices"),
        pytest.param(raw('data: {"choices": 5}\n\ndata: [DONE]\n\n'), id="odd choices"),
        pytest.param(raw('{"choices": [{"message": {"content": [1, {"a": null}]}}]}'), id="odd content"),
        pytest.param(raw("data: " + "[" * 10_000 + "\n\n"), id="deep"),
        pytest.param(raw(b"data: \xff\xfe\n\n"), id="no UTF-8"),
        pytest.param(raw(""), id="nothing"),
        pytest.param(raw("<html>busy</html>"), id="HTML"),
        pytest.param(refusal("I must not."), id="refusal"),
        pytest.param(empty(finish="content_filter"), id="filtered"),
        pytest.param(cut("```repl\nprint('half a reply')\n```\n" * 10, 100), id="cut in the middle"),
    ],
)
def test_odd_answers_never_do_harm(rlm, models, trouble):
    """The run ends with an error of its own or goes on when the service is well again; the next one is as if nothing had been."""
    models.script = order(trouble, *(WORKS,) * 4)
    outcome = rlm.run()
    assert outcome.answer == "worked" or outcome.code == "model_failed", outcome
    models.script = WORKS
    assert rlm.run().answer == "worked"


def chunk(finish=None, usage=None, **delta):
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": usage}).encode() + b"\n\n"


def whole(content, **more):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]} | more).encode()


DONE = b"data: [DONE]\n\n"
LAST = b'data: {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}\n\n'
THOUGHT = "FINAL(wrong)\n" + repl(answer("'wrong'")).text
SHAPES = {
    "comments and CRLF": (b": working\n\n" + chunk(content=WORKS.text) + b": working\n\n" + chunk("stop") + DONE).replace(b"\n", b"\r\n"),
    "usage behind all words": chunk(content=WORKS.text) + chunk("stop") + LAST + DONE,
    "usage that grows": chunk(content=WORKS.text, usage={"prompt_tokens": 11, "completion_tokens": 3}) + LAST + DONE,
    "no last word": chunk(content=WORKS.text) + chunk("stop"),
    "no reason to end": chunk(content=WORKS.text) + DONE,
    "an event without choices first": b'data: {"choices": [], "prompt_filter_results": []}\n\n' + chunk(content=WORKS.text) + DONE,
    "thoughts of their own": chunk(content=None, reasoning_content=THOUGHT) + chunk(content="", reasoning=THOUGHT) + chunk("stop", content=WORKS.text),
    "thoughts among the parts": chunk("stop", content=[{"type": "thinking", "text": THOUGHT}, {"type": "text", "text": WORKS.text}]),
    "names and numbers of events": b"retry: 10\nid: 1\nevent: completion\n" + chunk("stop", content=WORKS.text) + DONE,
    "no blank behind the colon": chunk("stop", content=WORKS.text).replace(b": {", b":{", 1) + DONE,
    "a byte order mark": b"\xef\xbb\xbf" + chunk("stop", content=WORKS.text) + DONE,
    "no stream": whole(WORKS.text),
    "no stream, in parts": whole([{"type": "reasoning", "text": THOUGHT}, {"type": "text", "text": WORKS.text}]),
    "a text of the old kind": b"data: " + json.dumps({"choices": [{"text": WORKS.text, "finish_reason": "stop"}]}).encode() + b"\n\n",
    "another choice": b'data: {"choices": [{"index": 1, "delta": {"content": "FINAL(wrong)"}}]}\n\n' + chunk("stop", content=WORKS.text),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_answers_of_many_makes(rlm, models, shape):
    models.script = order(raw(SHAPES[shape]))
    outcome = rlm.run()
    assert outcome.answer == "worked", outcome.error
    used = outcome.usage["model_usage_summaries"]["root"]
    assert LAST not in SHAPES[shape] or (used["total_input_tokens"], used["total_output_tokens"]) == (11, 7)


def test_attempts_of_no_use_are_counted(rlm, models):
    models.script = order(raw(chunk("stop", content="") + LAST + DONE), raw(chunk("stop", content=WORKS.text) + LAST + DONE))
    used = rlm.run().usage["model_usage_summaries"]["root"]
    assert (used["total_calls"], used["total_input_tokens"], used["total_output_tokens"]) == (1, 22, 14)
    models.script = order(cut("half a reply", 4), Reply(WORKS.text, usage=(11, 7)))
    used = rlm.run().usage["model_usage_summaries"]["root"]  # the first one said nothing of its cost
    assert used["total_input_tokens"] > 100 and used["total_output_tokens"] >= 7, used


@pytest.mark.parametrize("trouble", [raw("{"), refusal("I must not."), cut("half a reply, then nothing", 10)], ids=["no JSON", "refusal", "cut"])
def test_odd_answers_to_sub_queries_are_texts(rlm, models, trouble):
    models.script = root(repl("r = llm_query('q')\nprint(type(r).__name__)"), repl(answer("'went on'")), sub=trouble)
    assert rlm.run().answer == "went on"
    assert "str" in models.requests[-1].output


def test_a_reply_beyond_all_bounds(rlm, models):
    models.script = order(Reply("x" * (12 << 20), pieces=200), WORKS)
    outcome = rlm.run()
    assert outcome.answer == "worked" or outcome.code == "model_failed"


def test_a_giant_reply_to_a_sub_query(rlm, models):
    models.script = root(repl("r = llm_query('q')\nprint(len(r), r[:6])"), repl(answer("'went on'")), sub=Reply("x" * (20 << 20), pieces=400))
    assert rlm.run().answer == "went on"


def test_a_slow_stream_is_no_failure(rlm, models):
    models.script = Reply(WORKS.text, between=0.05, pieces=20)
    assert rlm.run().answer == "worked"


def test_a_reply_with_thoughts(rlm, models):
    models.script = root("<think>FINAL(wrong)\n```repl\nprint('wrong')\n```</think>\n```repl\nprint('ri' + 'ght')\n```", WORKS)
    assert rlm.run().answer == "worked"
    assert "right" in models.requests[1].output and "wrong" not in models.requests[1].text


def test_the_service_goes_in_the_middle(rlm, models):
    models.script = order(repl("print('seen')", "Words before the end.\n"), Reply("never sent", gate="never"))
    run = rlm.start(max_timeout=6)
    models.wait(lambda m: len(m.requests) == 2, "the second turn")
    models.vanish()
    try:
        outcome = run.result()
    finally:
        models.listen()
    assert outcome.code in ("model_failed", "timeout_exceeded") and outcome.partial.startswith("Words before the end.")


def test_the_service_comes_back_in_time(rlm, models):
    models.script = order(repl("kept = 3"), Reply("never sent", gate="never"), repl(answer("str(kept)")))
    run = rlm.start()
    models.wait(lambda m: len(m.requests) == 2, "the second turn")
    models.vanish()
    time.sleep(0.3)
    models.listen()
    assert run.result().answer == "3"


def test_the_service_goes_during_a_batch(rlm, models):
    models.script = root(
        repl("rs = llm_query_batched(['q'] * 8)\nprint([r[:6] for r in rs])"), repl(answer("'went on'")), sub=Reply("r", gate="never")
    )
    run = rlm.start()
    models.wait(lambda m: len(m.of("sub")) == 8, "the batch is asked")
    models.script = rules((lambda r: r.model == "root", repl(answer("'went on'"))), (lambda r: True, fail(400)))
    models.vanish()
    models.listen()
    assert run.result().answer == "went on"
    eventually(lambda: models.in_flight == 0, "nothing is asked any more")


def test_connections_are_kept(rlm, models):
    models.script = lambda request: repl("llm_query('q')") if request.is_loop and request.turn < 6 else WORKS if request.is_loop else "r"
    assert rlm.run().answer == "worked"
    assert len(models.requests) == 11 and len({request.connection for request in models.requests}) <= 3
