# SPDX-License-Identifier: Apache-2.0
"""Runs over Anthropic's messages API."""

from model_server import KEY, Reply, answer, cut, fail, order, refusal, repl
from rlm_support import root

ANTHROPIC = True


def test_a_run(rlm, models):
    models.script = root(repl("r = llm_query('q')\nprint('got', r)", usage=(11, 7)), repl(answer("r"), usage=(12, 8)), sub="réply")
    outcome = rlm.run("The query?", "text")
    assert outcome.answer == "réply" and "got réply" in models.requests[2].output
    for request in models.requests:
        assert request.path == "/v1/messages" and request.headers["x-api-key"] == KEY and "authorization" not in request.headers
        assert all(message["role"] != "system" for message in request.body["messages"])
    assert outcome.usage["model_usage_summaries"]["root"]["total_input_tokens"] == 23
    assert outcome.trajectory[0]["backend"] == "anthropic"


def test_failures(rlm, models):
    models.script = order(fail(529, "overloaded"), cut("abc", 1), repl(answer("'worked'")))
    assert rlm.run().answer == "worked"
    models.script = fail(401, "invalid x-api-key")
    assert rlm.run().code == "model_failed"
    models.script = order(refusal("I must not."), *(repl(answer("'worked'")),) * 3)
    outcome = rlm.run()
    assert outcome.answer == "worked" or outcome.code == "model_failed"


def test_missing_usage(rlm, models):
    models.script = Reply("FINAL(42)", usage=None)
    outcome = rlm.run()
    assert outcome.answer == "42" and outcome.usage["model_usage_summaries"]["root"]["total_output_tokens"] > 0
