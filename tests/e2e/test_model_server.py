# SPDX-License-Identifier: Apache-2.0
"""The scripted model service itself: what the tests of RLM stand on."""

import concurrent.futures
import json
import pathlib
import subprocess
import sys
import time

import pytest
import requests

import model_server
from model_server import KEY, ModelServer, Reply, by_model, cut, fail, grep_model, order, refusal, repl, rules, turns

USER = {"role": "user", "content": "hello"}
OPENAI = {"Authorization": f"Bearer {KEY}"}
ANTHROPIC = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}


def post(models, path="/chat/completions", headers=None, **body):
    body = {"model": "m", "messages": [USER]} | body
    root = models.url if path.startswith("/chat") else models.root
    return requests.post(root + path, json=body, headers=headers or OPENAI, timeout=20)


def events(text):
    found = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(data) for data in found if data != "[DONE]"]


def test_plain_and_streamed_answers_say_the_same():
    with ModelServer(turns(Reply("héllo world", usage=(7, 3)))) as models:
        plain = post(models).json()
        assert plain["choices"][0]["message"]["content"] == "héllo world" and plain["usage"]["total_tokens"] == 10
        streamed = post(models, stream=True, stream_options={"include_usage": True})
        streamed.encoding = "utf-8"
        told = events(streamed.text)
        assert "".join(event["choices"][0]["delta"].get("content", "") for event in told if event["choices"]) == "héllo world"
        assert told[-1]["usage"] == plain["usage"] and streamed.text.endswith("data: [DONE]\n\n")
        message = post(models, "/v1/messages", ANTHROPIC, max_tokens=5).json()
        assert message["content"][0]["text"] == "héllo world" and message["usage"] == {"input_tokens": 7, "output_tokens": 3}
        streamed = post(models, "/v1/messages", ANTHROPIC, max_tokens=5, stream=True)
        streamed.encoding = "utf-8"
        assert "".join(e["delta"]["text"] for e in events(streamed.text) if e["type"] == "content_block_delta") == "héllo world"
        assert requests.get(models.url + "/models", timeout=5).json()["data"][0]["id"] == "scripted"
        assert [request.api for request in models.requests] == ["openai"] * 2 + ["anthropic"] * 2


@pytest.mark.parametrize(
    "body",
    [
        {"messages": []},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [USER, {"role": "system", "content": "late"}, USER]},
        {"messages": [{"role": "assistant", "content": "x"}]},
        {"stream": True},
        {"stream_options": {"include_usage": True}},
        {"model": ""},
        {"invented": 1},
    ],
)
def test_what_no_service_takes_is_a_violation(body):
    with pytest.raises(AssertionError, match="not what a model service takes"), ModelServer(Reply("x")) as models:
        assert post(models, **body).status_code == 400


def test_a_wrong_key_is_a_violation():
    with pytest.raises(AssertionError, match="key"), ModelServer(Reply("x")) as models:
        assert post(models, headers={"Authorization": "Bearer other"}).status_code == 401


def test_a_request_beyond_the_script_is_a_violation():
    with pytest.raises(AssertionError, match="more than 1"), ModelServer(order(Reply("x"))) as models:
        assert post(models).status_code == 200 and post(models).status_code == 400


def test_failures_by_script():
    script = order(fail(429, retry_after=3), fail(500), Reply("abcdefgh", cut=4), refusal("no"), model_server.raw("{"))
    with ModelServer(script) as models:
        limited = post(models)
        assert (limited.status_code, limited.headers["Retry-After"]) == (429, "3")
        assert post(models).status_code == 500
        with pytest.raises((requests.RequestException, ValueError)):
            post(models).json()  # requests takes a body that is too short
        assert post(models).json()["choices"][0]["message"]["refusal"] == "no"
        assert post(models).text == "{"


def test_a_stream_is_cut_where_the_script_says():
    with ModelServer(cut("abcdefgh", 4)) as models:
        with pytest.raises(requests.RequestException), requests.post(
            models.url + "/chat/completions",
            json={"model": "m", "messages": [USER], "stream": True, "stream_options": {"include_usage": True}},
            headers=OPENAI, stream=True, timeout=20,
        ) as answer:  # fmt: skip
            told = b""
            for piece in answer.iter_content(None):
                told += piece
        said = "".join(event["choices"][0]["delta"].get("content", "") for event in events(told.decode()))
        assert said == "abcd"


def test_gates_rules_and_models():
    script = by_model({"a": Reply("waited", gate="g"), "m": rules(("hello", "one"), (lambda request: True, repl("two")))})
    with ModelServer(script) as models, concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(post, models, model="a")
        models.wait(lambda m: m.in_flight == 1, "it came")
        assert "one" in post(models).text and "```repl" in post(models, messages=[{"role": "user", "content": "x"}]).text
        assert not waiting.done()
        models.open("g")
        assert "waited" in waiting.result(20).text
        assert models.most_in_flight == 2


def test_vanishing_and_coming_back():
    with ModelServer(Reply("x")) as models:
        port = models.port
        assert post(models).status_code == 200
        models.vanish()
        with pytest.raises(requests.ConnectionError):
            post(models)
        models.listen()
        assert models.port == port and post(models).status_code == 200


def test_it_is_fast_enough_to_measure_others():
    with ModelServer(Reply("x")) as models, requests.Session() as http:
        http.trust_env = False
        body = json.dumps({"model": "m", "messages": [USER]})
        began = time.process_time()
        for _ in range(300):
            http.post(models.url + "/chat/completions", data=body, headers={**OPENAI, "Content-Type": "application/json"}, timeout=20)
        assert len({request.connection for request in models.requests}) == 1
        assert time.process_time() - began < 3  # both sides together


def test_by_itself(tmp_path):
    script = tmp_path / "script.json"
    script.write_text('{"rules": [["hello", {"text": "found"}]]}')
    program = [sys.executable, str(pathlib.Path(model_server.__file__)), "--script", str(script)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            assert "found" in requests.post(url + "/chat/completions", json={"model": "m", "messages": [USER]}, timeout=20).text
        finally:
            process.terminate()


def test_the_model_that_greps_needs_what_it_is_told():
    system = {"role": "system", "content": "write blocks"}
    asked = {"role": "user", "content": 'What is "the magic number"? Turn 1/9'}
    with ModelServer(grep_model) as models:
        said = []
        for newest in (asked, USER, {"role": "user", "content": "HIT 5 'the magic number is 48213, yes'"}):
            said.append(newest)
            text = post(models, messages=[system, *said]).json()["choices"][0]["message"]["content"]
            said.append({"role": "assistant", "content": text})
        assert "finditer" in said[3]["content"] and "'48213'" in said[5]["content"]
        plain = [{"role": "user", "content": "Which of these is a fruit? Turn 1/9"}, {"role": "assistant", "content": "Looking."}, USER]
        text = post(models, messages=[system, *plain]).json()["choices"][0]["message"]["content"]
        assert "quotation marks" in text and 'answer["ready"] = True' in text
