# SPDX-License-Identifier: Apache-2.0
"""Parts of the library for themselves: event streams, scopes, models at their places, a client whose connection breaks."""

import contextlib
import http.server
import json
import threading
import time

import pytest

from fake_sidecar import FakeSidecar
from rlm import Client, ServiceError, UsageSummary
from rlm.backends import make_model, read_prices
from rlm.common import fill, price, window
from rlm.errors import CancellationError, SandboxError
from rlm.models import Model, ModelClient, ModelSettings
from rlm.remote.transport import Transport
from rlm.results import UsageCounter
from rlm.sandbox import Sandbox
from rlm.scope import Scope, alarm
from rlm.sse import events
from scripted import KEY, ModelServer, Reply, cut, fail, order, raw

STREAM = b"\xef\xbb\xbf: comment\n\nevent: a\r\ndata: 1\r\ndata:2\r\n\r\nid: 7\ndata: \xc3\xbc\n\n\nevent: lost\n\ndata: x\rdata: y\r\revent: b\ndata\n\ndata: no end"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_in_pieces_of_any_size(size):
    pieces = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert list(events(pieces, 100)) == [("a", "1\n2", ""), ("message", "ü", "7"), ("message", "x\ny", "7"), ("b", "", "7")]


def test_events_beyond_their_bound():
    for stream in ([b"data: " + b"x" * 200], [b"x" * 60] * 3, [b"data: " + b"x" * 60 + b"\n"] * 3):
        with pytest.raises(ValueError):
            list(events(stream, 100))


def test_a_scope_breaks_everything_off_once():
    scope, called = Scope(), []
    with scope.watched(lambda: called.append("a")), scope.inner() as part, part.watched(lambda: called.append("b")):
        assert scope.cancel(CancellationError()) and not scope.cancel(ValueError())
        assert sorted(called) == ["a", "b"] and part.error is scope.error
        with pytest.raises(CancellationError):
            part.sleep(60)
    with scope.watched(lambda: called.append("late")):
        assert called[-1] == "late"
    other = Scope()
    with other.watched(lambda: called.append("never")):
        pass
    other.cancel(ValueError())
    assert "never" not in called


def test_a_part_ends_without_its_whole():
    scope = Scope()
    with scope.inner() as part, part.limited(0.05, TimeoutError("over")):
        with pytest.raises(TimeoutError):
            part.sleep(60)
    scope.check()


def test_alarms_in_order_and_not_after_a_stop():
    quick = False
    while not quick:  # to set them is quick; a machine that keeps us waiting meanwhile says nothing about them
        rang, done, began = [], threading.Event(), time.monotonic()
        stop = alarm(0.02, lambda: rang.append("stopped"))
        alarm(0.06, lambda: (rang.append("second"), done.set()))
        alarm(0.03, lambda: rang.append("first"))
        stop()
        quick = time.monotonic() - began < 0.01
        assert done.wait(30)
    assert rang == ["first", "second"]


@pytest.mark.parametrize(
    ("backend", "kwargs", "env", "expected"),
    [
        ("openai", {}, {"OPENAI_API_KEY": "k"}, ("gpt-5", "openai", "https://api.openai.com/v1", "k")),
        ("openai", {"model": "m"}, {"LLM_BASE_URL": "http://l/v1/", "LLM_API_KEY": "k"}, ("m", "openai", "http://l/v1", "k")),
        ("openai", {"base_url": "https://openrouter.ai/api/v1"}, {"OPENAI_API_KEY": "no", "OPENROUTER_API_KEY": "k"}, ("gpt-5", "openai", "https://openrouter.ai/api/v1", "k")),
        ("vllm", {"base_url": "http://l:8001/v1", "model_name": "m"}, {}, ("m", "openai", "http://l:8001/v1", None)),
        ("anthropic", {"model_name": "c"}, {"ANTHROPIC_API_KEY": "k"}, ("c", "anthropic", "https://api.anthropic.com", "k")),
        ("litellm", {"model_name": "anthropic/c"}, {"ANTHROPIC_API_KEY": "k"}, ("c", "anthropic", "https://api.anthropic.com", "k")),
        ("litellm", {"model_name": "hosted_vllm/q/w", "base_url": "http://l/v1"}, {}, ("q/w", "openai", "http://l/v1", None)),
        ("gemini", {"model_name": "g", "api_key": "mine"}, {"GEMINI_API_KEY": "no"}, ("g", "openai", "https://generativelanguage.googleapis.com/v1beta/openai", "mine")),
    ],
)  # fmt: skip
def test_models_at_their_places(monkeypatch, backend, kwargs, env, expected):
    for name in ("LLM_BASE_URL", "LLM_API_KEY", "LLM_MODEL", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    model = make_model(backend, kwargs)
    assert (model.name, model.api, model.base_url, model.api_key) == expected
    assert (model.api_key or "none") not in repr(model).replace(model.base_url, "")


def test_prices(monkeypatch, tmp_path):
    assert price("gpt-5-mini-2025", 1_000_000, 1_000_000) == 2.25
    assert price("openai/gpt-5-mini", 1_000_000, 0, 1_000_000) == 0.025
    assert price("nobody-knows", 1, 1) is None and window("nobody-knows") == 128_000
    (tmp_path / "prices.json").write_text('{"models": {"nobody": {"window": 9, "input": 1, "output": 2}}}')
    monkeypatch.setenv("RLM_PRICES", str(tmp_path / "prices.json"))
    rows = read_prices({"mine": {"input": 3, "output": 0}})
    assert price("nobody-knows", 1_000_000, 1_000_000, more=rows) == 3 and price("Mine", 1_000_000, 5, more=rows) == 3
    assert window("nobody-knows", rows) == 9


def test_templates():
    assert fill("{a} {{a}} {b} {} { {{}} {a}{a}", a="{b}", c=1) == "{b} {a} {b} {} { {} {b}{b}"


def test_usage_is_added_up():
    whole = UsageCounter()
    part = UsageCounter(whole)
    part.add("m", 1, 2, None)
    part.add("m", 3, 4, 0.5)
    whole.add("n", 5, 6, None)
    assert part.summary().to_dict() == {
        "model_usage_summaries": {"m": {"total_calls": 2, "total_input_tokens": 4, "total_output_tokens": 6, "total_cost": 0.5}},
        "total_cost": 0.5,
    }
    summary = whole.summary()
    assert (summary.total_calls, summary.total_input_tokens, summary.total_output_tokens) == (3, 9, 12)
    assert UsageSummary.from_dict(json.loads(json.dumps(summary.to_dict()))) == summary


def ask(models, **more):
    settings = ModelSettings(backoff=0.01, timeout=more.pop("timeout", 20), idle_timeout=more.pop("idle_timeout", 20))
    return ModelClient(settings).ask(Model("gpt-5", base_url=models.url, api_key=KEY, **more), [{"role": "user", "content": "q\ud800"}])


ANSWER = '{"model": "m2", "choices": [{"message": {"content": "words"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}'
CHUNKS = "".join(
    f"data: {json.dumps(chunk)}\n\n"
    for chunk in (
        {"choices": [{"delta": {"content": "wo"}}], "usage": {"prompt_tokens": 5, "completion_tokens": 1}},
        {"choices": [{"delta": {"content": [{"type": "text", "text": "rds"}]}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
    )
)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(CHUNKS + "data: [DONE]\n\n", id="stream"),
        pytest.param(CHUNKS, id="stream without its last word"),
        pytest.param(CHUNKS.replace("\n", "\r\n"), id="CRLF"),
        pytest.param("\ufeff" + CHUNKS, id="byte order mark"),
        pytest.param(ANSWER, id="one piece that is said to be a stream"),
        pytest.param(" \n" + ANSWER.replace('"words"', '[{"type": "reasoning", "text": "no"}, {"type": "text", "text": "words"}]'), id="parts"),
        pytest.param(ANSWER.replace('"message": {"content": "words"}', '"text": "words"'), id="a text of the old kind"),
        pytest.param(ANSWER.replace('"choices": [', '"choices": [{"index": 1, "message": {"content": "no"}}, '), id="another choice first"),
    ],
)
def test_answers_of_several_makes(body):
    with ModelServer(raw(body)) as models:
        reply = ask(models)
    assert (reply.failure, reply.text, reply.finish) == ("", "words", "stop")
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.estimated) == (5, 2, False)


def test_an_answer_in_one_piece():
    class Whole(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(ANSWER.encode())

        def log_message(self, *args):
            pass

    with serving(Whole) as url:
        reply = ModelClient().ask(Model("gpt-5", base_url=url), [{"role": "user", "content": "q"}])
    assert (reply.failure, reply.text, reply.model, reply.usage.input_tokens) == ("", "words", "m2", 5)
    assert reply.usage.cost == pytest.approx((5 * 1.25 + 2 * 10) / 1e6)


@pytest.mark.parametrize(
    ("script", "failure", "attempts"),
    [
        (fail(500), "unreachable", 4),
        (fail(504), "timeout", 4),
        (fail(429, code="insufficient_quota"), "rate_limited", 1),
        (fail(402), "refused", 1),
        (fail(413), "too_long", 1),
        (fail(400, "Please reduce the length of the messages"), "too_long", 1),
        (fail(400, "content policy", code="content_filter"), "refusal", 1),
        (fail(422), "bad_request", 1),
        (cut("words", 1), "cut", 4),
        (Reply("", finish="length"), "empty", 2),
        (raw('data: {"error": {"message": "busy", "type": "server_error"}}\n\n'), "unreachable", 4),
        (raw('data: {"error": {"message": "no", "type": "authentication_error"}}\n\n'), "refused", 1),
        (raw('data: {"error": {"message": "slow down", "code": 429}}\n\n'), "rate_limited", 4),
    ],
    ids=lambda value: "" if not isinstance(value, str) else value,
)
def test_failures_and_attempts(script, failure, attempts):
    with ModelServer(lambda request: script) as models:
        reply = ask(models)
    assert (reply.failure, reply.attempts, len(models.requests)) == (failure, attempts, attempts) and reply.reason


def test_time_of_an_attempt():
    with ModelServer(Reply("x" * 100, between=0.05, pieces=100)) as models:
        reply = ask(models, timeout=0.4)
    assert reply.failure == "timeout" and reply.seconds < 5
    with ModelServer(Reply("x", delay=5)) as models:
        assert ask(models, idle_timeout=0.2).failure == "timeout"


def test_usage_of_all_attempts():
    with ModelServer(order(cut("x" * 8, 7, usage=(10, 1)), Reply("fine", usage=(20, 2)))) as models:
        reply = ask(models)
    assert reply.text == "fine" and reply.attempts == 2 and len(models.requests) == 2
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.estimated) == (1 + 20, 2 + 2, True)  # the first one said nothing


def test_usage_of_attempts_without_words():
    with ModelServer(order(Reply("", usage=(10, 3)), Reply("fine", usage=(20, 2)))) as models:
        reply = ask(models)
    assert (reply.text, reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.estimated) == ("fine", 30, 5, False)


def test_a_session_that_comes_too_late_is_deleted():
    with FakeSidecar() as sidecar:
        sidecar.slow = threading.Event()
        scope = Scope()
        threading.Timer(0.1, lambda: scope.cancel(CancellationError())).start()
        threading.Timer(0.3, sidecar.slow.set).start()
        with pytest.raises(CancellationError):
            Sandbox(Transport(sidecar.url)).create(scope)
        end = time.monotonic() + 60
        while not any(method == "DELETE" for method, _, _ in sidecar.seen):
            assert time.monotonic() < end
            time.sleep(0.01)
        assert sidecar.sessions == {}


def test_a_sidecar_without_room_in_time():
    with FakeSidecar(limit=0) as sidecar, pytest.raises(SandboxError) as full:
        Sandbox(Transport(sidecar.url)).create(Scope(), patience=0.2)
    assert full.value.reason == "too_many_sessions"


@contextlib.contextmanager
def serving(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_events_of_a_run_go_on_where_the_connection_broke():
    asked = []

    class Service(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen = self.headers.get("Last-Event-ID")
            asked.append(seen)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            kind = "result" if seen == "2" else "turn"
            piece = f'id: {int(seen or 0) + 1}\ndata: {{"type": "{kind}", "node": 0}}\n\n'.encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))  # and no end

        def log_message(self, *args):
            pass

    with serving(Service) as url:
        assert [event["type"] for event in Client(url).events("run-1")] == ["turn", "turn", "result"]
    assert asked == [None, "1", "2"]
    with pytest.raises(ServiceError):
        list(Client(url).events("run-1"))
