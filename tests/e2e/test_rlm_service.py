# SPDX-License-Identifier: Apache-2.0
"""The program rlm: its HTTP interface with a private sidecar, and `rlm complete`."""

import contextlib
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time
import urllib.parse

import pytest
import requests

from model_server import KEY, ModelServer, Reply, answer, by_model, fail, final, never, repl, turns
from rlm_support import RLM, Service, own_service, root
from support import BUILD, PATIENCE, Background, alive, eventually, free_port, process_table


@pytest.fixture(scope="module")
def server():
    with ModelServer(None, key=KEY, strict=False) as models:
        yield models


@pytest.fixture
def models(server):
    server.reset(None)
    yield server
    server.check()


@pytest.fixture(scope="module")
def shared_service(server, tmp_path_factory):
    service = Service(server, None, tmp_path_factory.mktemp("trajectories"))
    yield service
    assert service.close() == 0


@pytest.fixture
def service(shared_service, models):
    yield shared_service
    assert KEY not in shared_service.log_text()


def children(pid):
    return [child for child, (parent, state, _) in process_table().items() if parent == pid and state != "Z"]


def infer(service, **body):
    return service.request("POST", "/infer", json=body)


# --- the contract, by curl


def curl(service, *arguments):
    done = subprocess.run(
        ["curl", "-s", "--noproxy", "*", "-w", "\n%{http_code}", *arguments[1:], service.url + arguments[0]], capture_output=True, text=True, timeout=60 * PATIENCE
    )
    body, status = done.stdout.rsplit("\n", 1)
    return int(status), json.loads(body)


def test_the_contract(service, models):
    models.script = root(repl(answer("context + '!'")))
    assert curl(service, "/health") == (200, {"status": "healthy"})
    assert curl(service, "/ready") == (200, {"status": "ready"})
    status, told = curl(service, "/infer", "-d", '{"query": "What is it?", "context": "ham"}')
    assert (status, told["success"], told["answer"], told["model"], told["max_depth"]) == (200, True, "ham!", "root", 1), told
    for body in ('{"query": ""}', "{}", '{"context": "x"}', '{"query": null}'):
        status, told = curl(service, "/infer", "-d", body)
        assert status == 400 and told["error"] == "Query is required", told
    for body in ("{", "[1]", '{"query": "a",}', "\xff"):
        status, told = curl(service, "/infer", "-d", body)
        assert status == 400 and told["error"] == "Invalid JSON", told
    status, told = curl(service, "/no/such/path")
    assert status == 404 and told["error"] == "Not found", told
    models.script = fail(400, "that cannot be")
    status, told = curl(service, "/infer", "-d", '{"query": "What is it?"}')
    assert status == 500 and "that cannot be" in told["error"] and told["code"] == "model_failed", told


def test_a_failed_run_is_not_to_be_repeated(service, models):
    models.script = root(Reply("I think about it."), fail(401))
    told = infer(service, query="q", context="c")
    assert told.status_code == 500 and told.headers["x-should-retry"] == "false", told.text
    assert told.json()["partial_answer"] == "I think about it.", told.text


@pytest.mark.parametrize(
    "member, value",
    [
        ("max_depth", 0), ("max_depth", 1.5), ("max_depth", "2"), ("max_iterations", 0), ("max_timeout", -1), ("max_budget", "much"), ("max_tokens", 0.5),
        ("model", ""), ("model", 5), ("recursive_models", ["a"] * 8), ("recursive_models", [1]), ("compaction", "yes"), ("compaction_threshold", 2),
        ("custom_tools", []), ("sampling", "hot"), ("query", "a\0b"), ("system_prompt", 1), ("execution_timeout", 0), ("context_id", ""),
    ],
)  # fmt: skip
def test_what_a_run_cannot_be(service, member, value):
    told = infer(service, **{"query": "q", member: value})
    assert told.status_code == 422 and member in told.json()["error"], told.text


def test_unknown_things(service):
    for method, path, code in (
        ("GET", "/runs/run-0123456789abcdef", "unknown_run"),
        ("GET", "/runs/run-0123456789abcdef/events", "unknown_run"),
        ("POST", "/runs/run-0123456789abcdef/cancel", "unknown_run"),
    ):
        told = service.request(method, path)
        assert told.status_code == 404 and told.json()["code"] == code, told.text
    assert infer(service, query="q", context_id="context-0").json()["code"] == "unknown_context"
    assert infer(service, query="q", conversation_id="conversation-0").json()["code"] == "unknown_conversation"
    assert infer(service, query="q", context="c", context_id="x").status_code == 422


def test_any_json_is_a_context(service, models):
    models.script = root(repl(answer("repr(context)")))
    for value in ("text \u2028 \U0001f600 \0 end", ["a", 1, None], {"a": [True, 1.5]}, [], "x" * 300_000, [["y" * 100_000]] * 4):
        told = infer(service, query="q", context=value).json()
        assert told.get("answer") == repr(value), str(told)[:300]


def test_a_large_body_does_not_hold_up_others(service, models):
    """While 60 MB are read, small requests are answered: what is large is read in a thread."""
    models.script = root(repl(answer("len(context)")))
    body = json.dumps({"query": "q", "context": "\\\"" * 15_000_000}).encode()
    assert 59_000_000 < len(body) < 64 << 20
    large = Background(lambda: requests.post(service.url + "/infer", data=body, timeout=120 * PATIENCE, proxies={"http": ""}).json())
    while not large.done():
        assert service.request("GET", "/health").status_code == 200
    assert large.result()["answer"] == "30000000", str(large.result())[:300]


# --- clients that leave


def test_a_client_that_hangs_up_cancels(service, models):
    models.script = root(never())
    with socket.create_connection(("127.0.0.1", service.port)) as sock:
        body = b'{"query": "the one that hangs up"}'
        sock.sendall(b"POST /infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        eventually(lambda: models.requests, "the model is asked")
    def ended():
        run = service.request("GET", "/runs").json()["runs"][0]
        return run["query"] == "the one that hangs up" and run["status"] == "cancelled"
    eventually(ended, "the run is cancelled")
    eventually(lambda: service.metric("rlm_runs_running") == 0, "no run is left")


# --- runs


def events_of(service, run, **headers):
    """(id, type, data) of each event, to the end of the stream."""
    found, ident, kind = [], None, None
    with service.request("GET", f"/runs/{run}/events", stream=True, headers=headers) as told:
        assert told.status_code == 200 and told.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        for line in told.iter_lines(decode_unicode=True):
            if line.startswith("id: "):
                ident = int(line[4:])
            elif line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                found.append((ident, kind, json.loads(line[6:])))
    return found


def test_the_life_of_a_run(service, models):
    models.script = by_model({"root": turns(repl("print(llm_query('hm?'))"), repl(answer("'done'"))), "sub": Reply("hm", gate="sub")})
    told = service.request("POST", "/runs", json={"query": "how?", "context": "c"})
    assert told.status_code == 202 and told.json()["status"] == "running"
    run = told.json()["run_id"]
    live = Background(lambda: events_of(service, run))
    assert service.request("GET", f"/runs/{run}").json()["status"] == "running"
    assert service.request("GET", "/runs").json()["runs"][0]["run_id"] == run
    eventually(lambda: len(models.requests) >= 2, "the sub-query is asked")
    models.open("sub")
    seen = live.result()
    assert [ident for ident, _, _ in seen] == list(range(1, len(seen) + 1))
    assert all(kind == data["type"] for _, kind, data in seen)
    assert {"metadata", "turn", "delta", "code", "output", "subcall_start", "subcall_complete", "iteration", "result"} == {kind for _, kind, _ in seen}
    told = service.request("GET", f"/runs/{run}").json()
    assert (told["status"], told["answer"], told["query"], told["iterations"], told["error"]) == ("succeeded", "done", "how?", 2, None), told
    assert events_of(service, run) == seen, "a later reader gets the same"
    assert events_of(service, run, **{"Last-Event-ID": "5"}) == seen[5:]
    assert events_of(service, run, **{"Last-Event-ID": str(len(seen))}) == []
    lines = service.request("GET", f"/runs/{run}/trajectory").text.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["metadata", "iteration", "iteration"]
    prompts = [json.loads(line)["prompt"] for line in lines[1:]]
    assert prompts[1][: len(prompts[0])] == prompts[0] and len(prompts[1]) > len(prompts[0])
    sent = [request.messages for request in models.requests if request.model == "root"]
    assert [[message["content"] for message in prompt] for prompt in prompts] == [[content for _, content in messages] for messages in sent]


def test_cancel(service, models):
    models.script = root(repl("while True: pass"))
    for method, path in (("POST", "/cancel"), ("DELETE", "")):
        run = service.request("POST", "/runs", json={"query": "q"}).json()["run_id"]
        eventually(lambda run=run: service.request("GET", f"/runs/{run}").json()["status"] == "running", "it runs")
        assert service.request(method, f"/runs/{run}{path}").json() == {"status": "ok"}
        told = eventually(lambda run=run: [r for r in [service.request("GET", f"/runs/{run}").json()] if r["status"] == "cancelled"], "it is cancelled")
        assert told[0]["error"]["code"] == "cancelled"
        assert service.request(method, f"/runs/{run}{path}").status_code == 200, "once more is no error"


def test_old_runs_are_forgotten(models, tmp_path):
    models.script = root(final("1"))
    with own_service(models, tmp_path, KEPT_RUNS="3") as service:
        runs = [infer(service, query="q").json()["run_id"] for _ in range(6)]
        assert [run["run_id"] for run in service.request("GET", "/runs").json()["runs"]] == runs[:2:-1]
        assert service.request("GET", f"/runs/{runs[0]}").status_code == 404


def test_events_are_bounded(models, tmp_path):
    """The oldest go first, but those that a trajectory is made of."""
    models.script = root(repl('for i in range(3000): print("x" * 1000, flush=True)'), final("end"))
    with own_service(models, tmp_path, RUN_EVENTS="1Mi") as service:
        run = infer(service, query="q").json()["run_id"]
        seen = events_of(service, run)
        assert sum(len(json.dumps(data)) for _, _, data in seen) < 2 << 20
        assert seen[-1][1] == "result" and [kind for _, kind, _ in seen].count("iteration") == 2
        assert seen[-1][0] > len(seen), "some are missing"
        assert len(service.request("GET", f"/runs/{run}/trajectory").text.splitlines()) == 3


def test_too_many_runs(models, tmp_path):
    models.script = root(never())
    with own_service(models, tmp_path, MAX_RUNS="2", DRAIN_TIMEOUT="0") as service:
        for _ in range(2):
            assert service.request("POST", "/runs", json={"query": "q"}).status_code == 202
        told = service.request("POST", "/runs", json={"query": "q"})
        assert told.status_code == 503 and told.json()["code"] == "overloaded" and told.headers["Retry-After"], told.text


# --- contexts and conversations


def test_a_context_is_used_up(service, models):
    models.script = root(repl(answer("f'{len(context)} {context[-3:]}'")))
    told = service.request("POST", "/contexts", data="é".encode() * 3_000_000, headers={"Content-Type": "text/plain"}).json()
    assert (told["bytes"], told["length"]) == (6_000_000, 3_000_000)
    assert service.metric("rlm_contexts_bytes") == 6_000_000
    assert infer(service, query="q", context_id=told["context_id"]).json()["answer"] == "3000000 ééé"
    assert service.metric("rlm_contexts_bytes") == 0
    assert infer(service, query="q", context_id=told["context_id"]).json()["code"] == "unknown_context"


def test_contexts_that_are_wrong(service, models):
    models.script = root(repl(answer("context['a'][0]")))
    send = lambda data, kind: service.request("POST", "/contexts", data=data, headers={"Content-Type": kind})  # noqa: E731
    assert send(b"\xff", "text/plain").status_code == 422
    assert send(b"{", "application/json").status_code == 400
    assert send(b"x", "application/octet-stream").status_code == 415
    assert send(b"", "text/plain").status_code == 400
    told = send(b'{"a": [7]}', "application/json").json()
    assert told["length"] == 1
    assert infer(service, query="q", context_id=told["context_id"]).json()["answer"] == "7"
    told = send(b"x", "text/plain").json()
    assert service.request("DELETE", f"/contexts/{told['context_id']}").json() == {"status": "ok"}
    assert infer(service, query="q", context_id=told["context_id"]).status_code == 404


def test_contexts_and_conversations_expire(models, tmp_path):
    models.script = root(final("1"))
    with own_service(models, tmp_path, CONTEXT_TTL="1", CONVERSATION_TTL="1") as service:
        ident = service.request("POST", "/contexts", data=b"x", headers={"Content-Type": "text/plain"}).json()["context_id"]
        talk = service.request("POST", "/conversations").json()["conversation_id"]
        eventually(lambda: service.metric("rlm_contexts_bytes") == 0, "the context is dropped")
        assert infer(service, query="q", context_id=ident).status_code == 404
        eventually(lambda: infer(service, query="q", conversation_id=talk).status_code == 404, "the conversation ends", 60, 1.5)


def test_small_contexts_have_a_bound_too(models, tmp_path):
    """Each is a byte and a descriptor: by their bytes alone there could be as many as there are descriptors."""
    send = lambda service: service.request("POST", "/contexts", data=b"x", headers={"Content-Type": "text/plain"})  # noqa: E731
    with own_service(models, tmp_path) as service:
        told = [send(service) for _ in range(1024)]
        assert {answer.status_code for answer in told} == {200}
        refused = send(service)
        assert refused.status_code == 503 and refused.json()["code"] == "overloaded"
        assert service.request("DELETE", f"/contexts/{told[0].json()['context_id']}").status_code == 200
        assert send(service).status_code == 200


def test_a_conversation_keeps_its_session(service, models):
    talk = service.request("POST", "/conversations").json()["conversation_id"]
    models.script = root(repl("kept = 41\n" + answer("'first'")))
    assert infer(service, query="q", context="one", conversation_id=talk).json()["answer"] == "first"
    models.script = root(repl(answer("f'{kept} {context_0} {context_1}'")))
    assert infer(service, query="q", context="two", conversation_id=talk).json()["answer"] == "41 one two"
    assert service.request("DELETE", f"/conversations/{talk}").json() == {"status": "ok"}
    assert infer(service, query="q", conversation_id=talk).status_code == 404


# --- clients of OpenAI


def chat(service, **body):
    return service.request("POST", "/v1/chat/completions", json={"model": "rlm", **body})


def test_chat(service, models):
    models.script = root(repl(answer("f'{len(context)} {context[1][\"content\"]}'")))
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What now?"}]
    told = chat(service, messages=messages, temperature=0.5, user="somebody").json()
    assert told["object"] == "chat.completion" and told["model"] == "rlm" and told["id"].startswith("chatcmpl-")
    assert told["choices"][0]["message"] == {"role": "assistant", "content": "2 What now?", "refusal": None}
    assert told["choices"][0]["finish_reason"] == "stop"
    assert told["usage"]["total_tokens"] == told["usage"]["prompt_tokens"] + told["usage"]["completion_tokens"] > 0
    assert "What now?" in models.requests[0].text and models.requests[0].body["temperature"] == 0.5
    told = chat(service, model="rlm/root", messages=messages, max_tokens=1).json()
    assert told["model"] == "rlm/root" and told["choices"][0]["message"]["content"] == "2 Wh"
    assert told["choices"][0]["finish_reason"] == "length"
    parts = [{"role": "user", "content": [{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]}]
    models.script = root(repl(answer("len(context)")))
    assert chat(service, messages=parts).json()["choices"][0]["message"]["content"] == "1"
    assert "in parts" in models.requests[-1].text


def test_a_long_message_is_context_only(service, models):
    models.script = root(repl(answer("len(context[0]['content'])")))
    assert chat(service, messages=[{"role": "user", "content": "needle " * 1000}]).json()["choices"][0]["message"]["content"] == "7000"
    assert not any("needle" in request.text for request in models.requests)


def chunks_of(told):
    lines = [line for line in told.iter_lines(decode_unicode=True) if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


def test_a_stream_of_chat(service, models):
    text = "wörds " * 8000
    models.script = root(repl(answer("'wörds ' * 8000")))
    with service.request("POST", "/v1/chat/completions", stream=True, json={
        "model": "rlm", "stream": True, "stream_options": {"include_usage": True}, "messages": [{"role": "user", "content": "Go."}],
    }) as told:  # fmt: skip
        assert told.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        chunks = chunks_of(told)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]) == text
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop" and chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] > 0
    assert len({chunk["id"] for chunk in chunks}) == 1 and len(chunks) > 4


def test_errors_of_chat_have_openais_shape(service, models):
    message = [{"role": "user", "content": "Go."}]
    for status, code, body in (
        (404, "not_found", {"model": "gpt-9", "messages": message}),
        (422, "invalid_field", {"messages": message, "n": 2}),
        (422, "invalid_field", {"messages": message, "tools": [{"type": "function"}]}),
        (422, "invalid_field", {"messages": []}),
        (422, "invalid_field", {"messages": [{"content": "x"}]}),
        (422, "invalid_field", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
    ):
        told = chat(service, **body)
        assert told.status_code == status, told.text
        assert set(told.json()) == {"error"} and set(told.json()["error"]) == {"message", "type", "param", "code"} and told.json()["error"]["code"] == code
    told = service.request("POST", "/v1/chat/completions", data=b"{")
    assert told.status_code == 400 and told.json()["error"]["type"] == "invalid_request_error"
    models.script = fail(401)
    told = chat(service, messages=message)
    assert told.status_code == 500 and told.headers["x-should-retry"] == "false" and told.json()["error"]["code"] == "model_failed"
    with service.request("POST", "/v1/chat/completions", stream=True, json={"model": "rlm", "stream": True, "messages": message}) as told:
        last = [line for line in told.iter_lines(decode_unicode=True) if line.startswith("data: ")][-1]
    assert json.loads(last[6:])["error"]["code"] == "model_failed"


def test_models_are_listed(service):
    told = service.request("GET", "/v1/models").json()
    assert told["object"] == "list" and [model["id"] for model in told["data"]] == ["rlm", "rlm/root"]
    for model in told["data"]:
        assert service.request("GET", "/v1/models/" + urllib.parse.quote(model["id"], safe="")).json() == model
    for unknown in ("gpt-5", "rlm%2F", "rlmx"):
        answer = service.request("GET", "/v1/models/" + unknown)
        assert answer.status_code == 404 and "there is no model" in answer.json()["error"]["message"], answer.text


@pytest.mark.parametrize("code, reason", [("def f(:", "SyntaxError"), ("1 / 0", "ZeroDivisionError"), ("g = 1", "does not define it")])
def test_tools_that_the_session_cannot_make(service, models, code, reason):
    told = service.request("POST", "/infer", json={"query": "q", "custom_tools": {"rate": 1, "f": {"code": code}}})
    assert told.status_code == 422 and told.json()["code"] == "invalid_field", told.text
    assert "custom_tools" in told.json()["detail"] and "`f`" in told.json()["detail"] and reason in told.json()["detail"], told.text
    assert models.requests == []


def test_a_page_of_its_own_may_call_with_a_key(models, tmp_path):
    head = {"Host": "rlm.example:8443", "Origin": "https://rlm.example:8443", "Content-Type": "application/json"}
    key = {"Authorization": "Bearer key-of-the-page"}
    models.script = root(final("1"))
    folder = tmp_path / "trajectories"
    with own_service(models, folder, RLM_API_KEY="key-of-the-page", HOST="0.0.0.0") as service:
        assert service.request("POST", "/infer", json={"query": "q"}, headers=head | key).status_code == 200
        assert service.request("POST", "/infer", json={"query": "q"}, headers=head).status_code == 401
        for origin in ("https://rlm.example", "https://other.example:8443", "null"):
            assert service.request("POST", "/infer", json={"query": "q"}, headers=head | key | {"Origin": origin}).status_code == 403
    with own_service(models, folder, ALLOW_KEYLESS="true", HOST="0.0.0.0") as service:  # a rebound name looks the same
        assert service.request("POST", "/infer", json={"query": "q"}, headers=head).status_code == 403


OPENAI = "openai@6.49.0"

CLIENT = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none" });
const ask = (more) => client.chat.completions.create({ model: "rlm", messages: [{ role: "user", content: "Go." }], ...more });
const told = {};
if (process.argv[3] === "fails") {
  for (const model of ["rlm", "gpt-9"]) await ask({ model }).catch((error) => { told[model] = [error.status, error.code]; });
} else {
  const plain = await ask({});
  told.plain = [plain.choices[0].message.content, plain.usage.total_tokens > 0];
  told.streamed = "";
  for await (const chunk of await ask({ stream: true })) told.streamed += chunk.choices[0]?.delta?.content ?? "";
  told.models = [];
  for await (const model of await client.models.list()) told.models.push(model.id);
}
console.log(JSON.stringify(told));
"""


@pytest.fixture(scope="module")
def openai_client():
    """A folder with OpenAI's own client for node; fetched once."""
    if not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    cache = pathlib.Path(os.environ.get("CODEMODE_CACHE") or pathlib.Path.home() / ".cache/codemode") / "openai-npm"
    cache.mkdir(parents=True, exist_ok=True)
    wanted = cache / "node_modules/openai/package.json"
    if not wanted.exists() or json.loads(wanted.read_text())["version"] != OPENAI.split("@")[1]:
        command = ["npm", "install", "--prefix", str(cache), "--no-audit", "--no-fund", "--loglevel", "error", OPENAI]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        if done.returncode:
            pytest.skip(f"npm install {OPENAI} failed: {done.stderr.strip()[:200]}")
    (cache / "client.mjs").write_text(CLIENT)
    return lambda service, *more: json.loads(
        subprocess.run(["node", str(cache / "client.mjs"), service.url + "/v1", *more], capture_output=True, text=True, check=True, timeout=60 * PATIENCE).stdout
    )


@pytest.mark.unrestricted("that client is fetched from the network")
def test_openais_own_client(service, models, openai_client):
    models.script = root(repl(answer("'from code: é'")))
    assert openai_client(service) == {"plain": ["from code: é", True], "streamed": "from code: é", "models": ["rlm", "rlm/root"]}
    models.script = fail(401)
    before = service.metric("rlm_inference_requests_total")
    assert openai_client(service, "fails") == {"rlm": [500, "model_failed"], "gpt-9": [404, "not_found"]}
    assert service.metric("rlm_inference_requests_total") == before + 1, "a failed run is not repeated"


# --- the private sidecar


def sidecar_of(service):
    found = [pid for pid in children(service.process.pid) if b"serve" in open(f"/proc/{pid}/cmdline", "rb").read()]  # noqa: SIM115
    assert len(found) == 1
    return found[0]


def test_a_killed_sidecar_comes_back(models, tmp_path):
    with own_service(models, tmp_path) as service:
        first = sidecar_of(service)
        os.kill(first, signal.SIGKILL)
        eventually(lambda: not alive(first), "it has ended")
        second = eventually(lambda: [pid for pid in children(service.process.pid) if pid != first], "another one is started", 30)[0]
        service.wait_ready()
        models.script = root(repl(answer("len(context)")))
        assert infer(service, query="q", context="abc").json()["answer"] == "3"
        assert service.metric("rlm_sidecar_restarts_total") >= 1
        # One in the middle of a run: the run fails, or goes on with its session; the service lives.
        models.script = by_model({"root": turns(repl("llm_query('hm?')"), final("went on")), "sub": Reply("hm", gate="kill")})
        models.requests.clear()
        running = Background(lambda: infer(service, query="q"))
        eventually(lambda: [request for request in models.requests if request.model == "sub"], "code waits for a sub-query")
        os.kill(second, signal.SIGKILL)
        models.open("kill")
        told = running.result()
        assert told.status_code == 500 and told.json()["code"] == "sidecar_unavailable" or told.json()["answer"] == "went on", told.text
        service.wait_ready()
        assert infer(service, query="q").status_code in (200, 500)


@pytest.mark.unrestricted("nobody can look into the sidecar's environment there; tests/restricted has a test of that")
def test_the_sidecar_knows_no_key_of_models(models, tmp_path):
    with own_service(models, tmp_path, OPENAI_API_KEY="sk-other-1234", ANTHROPIC_API_KEY="sk-ant-1234") as service:
        with open(f"/proc/{sidecar_of(service)}/environ", "rb") as file:
            environment = file.read().decode()
        assert "sk-" not in environment and "LLM_" not in environment and "CODEMODE_API_KEY=" in environment


def test_it_ends_with_the_service(models, tmp_path):
    service = Service(models, None, tmp_path)
    sidecar = sidecar_of(service)
    family = [sidecar, *children(sidecar)]
    service.process.kill()
    service.process.wait()
    eventually(lambda: not any(alive(pid) for pid in family), "the sidecar and its processes end")


def test_not_ready_says_why(models, tmp_path):
    environment = {"HOST": "127.0.0.1", "MODEL_PATH": "", "PATH": os.environ["PATH"], "WASM_MANAGER_SERVICE_URL": f"http://127.0.0.1:{free_port()}"}
    with contextlib.ExitStack() as stack:
        port = free_port()
        process = stack.enter_context(subprocess.Popen([str(RLM), "serve", "--port", str(port)], env=environment, stdout=subprocess.DEVNULL))
        stack.callback(process.terminate)
        ask = lambda: requests.get(f"http://127.0.0.1:{port}/ready", timeout=10, proxies={"http": ""})  # noqa: E731

        def answered():
            with contextlib.suppress(requests.ConnectionError):
                return [ask()]
            return None

        (told,) = eventually(answered, "it listens", 10)
        assert told.status_code == 503
        assert told.json()["status"] == "not_ready" and "sidecar" in told.json()["reason"], told.text


# --- a model of our own

LLAMA_SERVER = """#!/usr/bin/python3
import http.server, os, sys, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.say(200 if not os.path.exists(os.environ['LOADING']) else 503, 'application/json', b'{}')
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        asked = urllib.request.Request(os.environ['ASK'] + self.path, body, {'Content-Type': 'application/json'})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked) as answer:
            self.say(200, answer.headers['Content-Type'], answer.read())
    def say(self, status, kind, body):
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[sys.argv.index('--port') + 1])), Handler).serve_forever()
"""


@pytest.fixture
def local_model(tmp_path):
    """The settings for it. What stands in for llama-server asks the scripted models, and loads as long as there is the file `loading`."""
    (tmp_path / "llama-server").write_text(LLAMA_SERVER)
    (tmp_path / "llama-server").chmod(0o755)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "Tiny-1B.Q4.gguf").write_bytes(b"GGUF")
    return {
        "MODEL_PATH": str(tmp_path / "models"), "PATH": f"{tmp_path}:{os.environ['PATH']}", "LOADING": str(tmp_path / "loading"),
        "LLM_BASE_URL": None, "LLM_API": None, "LLM_API_KEY": None, "LLM_MODEL": None, "LLM_RECURSIVE_MODEL": None,
    }  # fmt: skip


def refused(service):
    """What both /infer and /ready say while there is no model."""
    answer = infer(service, query="q")
    assert answer.status_code == 503 and answer.json()["code"] == "not_ready", answer.text
    same = answer.json()["detail"] == service.request("GET", "/ready").json()["reason"]
    return answer.json()["detail"] if same else ""


def test_a_model_file(tmp_path, local_model):
    with ModelServer(turns(Reply("FINAL(mine)")), key=None) as models:
        with own_service(models, tmp_path, **local_model, ASK=models.root) as service:
            told = infer(service, query="q").json()
            assert told["answer"] == "mine" and told["model"] == "Tiny-1B.Q4", told
            usage = told["usage"]
            assert list(usage["model_usage_summaries"]) == ["Tiny-1B.Q4"] and usage.get("total_cost") is None, usage
            assert infer(service, query="q", model="other").json()["model"] == "other"
            listed = [model["id"] for model in service.request("GET", "/v1/models").json()["data"]]
            assert listed == ["rlm", "rlm/Tiny-1B.Q4"]
            told = service.request("POST", "/v1/chat/completions", json={"model": listed[1], "messages": [{"role": "user", "content": "q"}]})
            assert told.json()["choices"][0]["message"]["content"] == "mine"
        assert [request.model for request in models.requests] == ["Tiny-1B.Q4", "other", "Tiny-1B.Q4"]


def test_a_model_file_has_the_name_that_is_said(tmp_path, local_model):
    with ModelServer(turns(Reply("FINAL(mine)")), key=None) as models:
        with own_service(models, tmp_path, **local_model | {"LLM_MODEL": "gpt-5"}, ASK=models.root) as service:
            assert infer(service, query="q").json()["model"] == "gpt-5"
            assert service.request("GET", "/v1/models").json()["data"][1]["id"] == "rlm/gpt-5"


def test_a_model_file_that_still_loads(models, tmp_path, local_model):
    """Nothing is sent to a place that nobody has named meanwhile."""
    (tmp_path / "loading").touch()
    with own_service(models, tmp_path, ready=False, **local_model, ASK=models.root) as service:
        eventually(lambda: refused(service) == "llama-server is starting", "the sidecar is ready")
        assert service.request("GET", "/v1/models").json()["data"][1]["id"] == "rlm/Tiny-1B.Q4"
        (tmp_path / "loading").unlink()
        service.wait_ready()


@pytest.mark.parametrize(("change", "words"), [
    ({"PATH": "/nowhere"}, ("llama-server is not on the PATH", "LLM_BASE_URL")),
    ({"MODEL_PATH": "/no/such/file.gguf"}, ("LLM_API_KEY", "LLM_BASE_URL", "MODEL_PATH", "/no/such/file.gguf: No such file")),
    ({"MODEL_PATH": "/etc/hostname"}, ("/etc/hostname is no GGUF file",)),
    ({"MODEL_PATH": ""}, ("LLM_API_KEY", "LLM_BASE_URL", "MODEL_PATH")),
])  # fmt: skip
def test_no_model(models, tmp_path, local_model, change, words):
    def says(text):
        return all(word in text for word in words)

    settings = local_model | change
    with own_service(models, tmp_path, ready=False, **settings) as service:
        eventually(lambda: says(refused(service)), "it says what is missing")
    environment = {name: value for name, value in settings.items() if value is not None}
    done = subprocess.run([str(RLM), "complete", "--query", "q"], env=environment, capture_output=True, timeout=50 * PATIENCE)
    assert done.returncode == 2 and says(done.stderr.decode()), done.stderr


def test_sigterm_lets_runs_end(models, tmp_path):
    models.script = root(Reply("FINAL(in time)", gate="term"))
    service = Service(models, None, tmp_path)
    sidecar = sidecar_of(service)
    running = Background(lambda: infer(service, query="q"))
    eventually(lambda: models.requests, "the model is asked")
    service.process.send_signal(signal.SIGTERM)
    eventually(lambda: '"event":"stopping"' in service.log_text(), "it begins to stop")
    models.open("term")
    assert running.result().json()["answer"] == "in time"
    assert service.process.wait(30 * PATIENCE) == 0
    assert not alive(sidecar)


def test_sigterm_cancels_what_does_not_end(models, tmp_path):
    models.script = root(never())
    service = Service(models, None, tmp_path, DRAIN_TIMEOUT="0.2")
    running = Background(lambda: infer(service, query="q"))
    eventually(lambda: models.requests, "the model is asked")
    service.process.send_signal(signal.SIGTERM)
    told = running.result()
    assert told.status_code == 500 and told.json()["code"] == "cancelled", told.text
    assert service.process.wait(30 * PATIENCE) == 0


# --- keys, settings, the page


def test_beyond_loopback_a_key_is_needed(models):
    done = subprocess.run(
        [str(RLM), "serve", "--host", "0.0.0.0", "--port", "0"], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=30 * PATIENCE
    )
    assert done.returncode == 2 and "RLM_API_KEY" in done.stderr, done.stderr


def test_runs_belong_to_their_key(models, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("ann key-of-ann-1234\nbob key-of-bob-1234\n")
    keys.chmod(0o600)
    models.script = root(final("1"))
    ann, bob = ({"Authorization": f"Bearer key-of-{name}-1234"} for name in ("ann", "bob"))
    folder = tmp_path / "trajectories"
    folder.mkdir()
    with own_service(models, folder, RLM_KEYS_FILE=str(keys)) as service:
        assert service.request("POST", "/infer", json={"query": "q"}).status_code == 401
        told = service.request("GET", "/v1/models")
        assert told.status_code == 401 and told.json()["error"]["type"] == "authentication_error"
        run = service.request("POST", "/infer", json={"query": "q"}, headers=ann).json()["run_id"]
        assert service.request("GET", f"/runs/{run}", headers=ann).status_code == 200
        assert service.request("GET", f"/runs/{run}", headers=bob).status_code == 404
        assert service.request("GET", "/runs", headers=bob).json() == {"runs": []}
        ident = service.request("POST", "/contexts", data=b"x", headers=ann | {"Content-Type": "text/plain"}).json()["context_id"]
        assert service.request("POST", "/infer", json={"query": "q", "context_id": ident}, headers=bob).status_code == 404
        assert service.request("GET", "/health").status_code == 200 and service.request("GET", "/ui").status_code == 200


def test_sighup_takes_over_what_it_can(models, tmp_path):
    file = tmp_path / "rlm.yaml"
    file.write_text("settings: {max_iterations: 7}\n")
    models.script = root(repl(answer("1")))
    folder = tmp_path / "trajectories"
    folder.mkdir()
    with own_service(models, folder, RLM_CONFIG=str(file)) as service:
        limit = lambda: events_of(service, infer(service, query="q").json()["run_id"])[0][2]["max_iterations"]  # noqa: E731
        assert limit() == 7
        file.write_text("settings: {max_iterations: 8}\n")
        service.process.send_signal(signal.SIGHUP)
        eventually(lambda: '"settings_reloaded"' in service.log_text(), "the settings are read again")
        assert limit() == 8


def test_the_page_is_there(service):
    told = service.request("GET", "/ui")
    assert told.status_code == 200 and told.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in told.headers["Content-Security-Policy"]
    for name in re.findall(r'(?:src|href)="(/ui/[^"]+)"', told.text):
        part = service.request("GET", name)
        assert part.status_code == 200 and part.headers["ETag"], name
        again = service.request("GET", name, headers={"If-None-Match": part.headers["ETag"]})
        assert again.status_code == 304 and again.content == b""
    assert service.request("GET", "/ui/nothing.js").status_code == 404


def test_metrics_count(service, models):
    before = service.metric("rlm_inference_requests_total"), service.metric("rlm_code_generated_total")
    models.script = root(repl("print(1)"), repl(answer("1")))
    infer(service, query="q")
    assert service.metric("rlm_inference_requests_total") == before[0] + 1
    assert service.metric("rlm_code_generated_total") == before[1] + 2
    text = service.request("GET", "/metrics").text
    assert "rlm_inference_duration_seconds_bucket" in text and "wasm_sessions" not in text


# --- rlm complete


def complete(models, *arguments, stdin=None, **settings):
    environment = {"PATH": os.environ["PATH"], "LLM_BASE_URL": models.url, "LLM_API_KEY": KEY, "LLM_MODEL": "root", "LLM_RECURSIVE_MODEL": "sub", **settings}
    return subprocess.run([str(RLM), "complete", *arguments], env=environment, input=stdin, capture_output=True, timeout=60 * PATIENCE)


def test_complete(models, tmp_path):
    context = tmp_path / "context.txt"
    context.write_text("hay " * 1000 + "needle")
    trajectory = tmp_path / "run.jsonl"
    models.script = root(repl("print(len(context))"), repl(answer("context[-6:]")))
    done = complete(models, "--query", "Where?", "--context", str(context), "--trajectory", str(trajectory))
    assert (done.returncode, done.stdout) == (0, b"needle\n"), done.stderr
    assert b"4006" in done.stderr and b"turn 2" in done.stderr and b"\033" not in done.stderr and b"\r" not in done.stderr
    assert [json.loads(line)["type"] for line in trajectory.read_text().splitlines()] == ["metadata", "iteration", "iteration"]
    done = complete(models, "-q", "Where?", "--context", "-", "--json", "--quiet", stdin=b"straw needle")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and done.stderr == b"" and told["success"] and told["answer"] == "needle" and told["iterations"] == 2


def test_output_in_pieces_is_shown_by_lines(models):
    """What a block prints comes as it happens: neither half lines nor all of a long output fill the screen."""
    code = "import time\nfor i in range(40):\n    print('line', end=' ', flush=True)\n    print(i, flush=True)\n    time.sleep(0.002)\nprint('end', end='')"
    models.script = root(repl(code), repl(answer("'x'")))
    shown = complete(models, "--query", "q").stderr.decode()
    lines = [line for line in shown.splitlines() if "→" in line]
    assert lines == [f"  → line {i}" for i in range(6)] + ["  → … 35 more lines"], shown


def test_complete_takes_json(models, tmp_path):
    context = tmp_path / "context.json"
    context.write_text('{"a": [1, 2, 3]}')
    models.script = root(repl(answer("sum(context['a'])")))
    assert complete(models, "--query", "Sum?", "--context", str(context), "--quiet").stdout == b"6\n"
    models.script = root(repl(answer("len(context)")))
    assert complete(models, "--query", "Sum?", "--context", str(context), "--type=text", "--quiet").stdout == b"16\n"


def test_a_trajectory_of_complete_has_children_inside(models, tmp_path):
    sub = lambda request: repl(answer("'from below'")) if request.is_loop else "plain"  # noqa: E731
    models.script = root(repl("r = rlm_query('deep')\ns = llm_query('plain')"), repl(answer("r")), sub=sub)
    path = tmp_path / "run.jsonl"
    done = complete(models, "--query", "q", "--max-depth", "2", "--trajectory", str(path))
    assert done.stdout == b"from below\n", done.stderr
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    child, plain = lines[1]["code_blocks"][0]["result"]["rlm_calls"]
    assert child["metadata"]["run_metadata"]["root_model"] == "sub" and plain["metadata"] is None
    assert [turn["final_answer"] for turn in child["metadata"]["iterations"]] == ["from below"] and "node" not in child


def test_complete_that_fails(models, tmp_path):
    models.script = root(Reply("Half of it."), fail(401))
    done = complete(models, "--query", "q")
    assert done.returncode == 1 and done.stdout == b"Half of it.\n" and b"401" in done.stderr, done.stderr
    for arguments in ([], ["--query"], ["--query", "q", "--context", "/no/such/file"], ["--query", "q", "--max-detph", "2"], ["--query", "q", "--type", "xml"]):
        assert complete(models, *arguments).returncode == 2, arguments
    done = complete(models, "--query", "q", LLM_BASE_URL="", LLM_API_KEY="", MODEL_PATH="")
    assert done.returncode == 2 and b"LLM_API_KEY" in done.stderr, done.stderr
    models.script = root(never())
    assert complete(models, "--query", "q", "--max-timeout", "0.5").returncode == 124


def test_complete_by_a_service(service, models, tmp_path):
    context = tmp_path / "context.txt"
    context.write_text("straw " * 100_000)
    models.script = root(repl("print(llm_query('hm?'))"), repl(answer("f'{len(context)} é'")), sub="hm")
    done = complete(models, "--query", "q", "--context", str(context), "--url", service.url + "/", "--max-iterations", "3", "--trajectory", str(tmp_path / "t"))
    assert (done.returncode, done.stdout.decode()) == (0, "600000 é\n"), done.stderr
    assert b"llm_query" in done.stderr and len((tmp_path / "t").read_text().splitlines()) == 3
    models.script = root(Reply("Half."), fail(400, "no more"))
    done = complete(models, "--query", "q", "--url", service.url, "--json", "--quiet")
    told = json.loads(done.stdout)
    assert done.returncode == 1 and told["code"] == "model_failed" and told["partial_answer"] == "Half.", told
    done = complete(models, "--query", "q", "--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 3 and b"cannot be reached" in done.stderr, done.stderr


class Terminal:
    """`rlm complete` on a terminal of its own."""

    def __init__(self, models, *arguments, columns=80, **settings):
        environment = {"PATH": os.environ["PATH"], "TERM": "xterm", "LLM_BASE_URL": models.url, "LLM_API_KEY": KEY, "LLM_MODEL": "root", "LLM_RECURSIVE_MODEL": "sub"}
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            os.execve(str(RLM), [str(RLM), "complete", *arguments], environment | settings)
        self.seen = ""

    def read(self):
        with contextlib.suppress(OSError):
            while select.select([self.fd], [], [], 0.05)[0]:
                piece = os.read(self.fd, 65536)
                if not piece:
                    break
                self.seen += piece.decode(errors="replace")
        return self.seen

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)


def exit_code(terminal):
    end = time.monotonic() + 30 * PATIENCE
    while time.monotonic() < end:
        terminal.read()
        pid, status = os.waitpid(terminal.pid, os.WNOHANG)
        if pid:
            terminal.read()
            return os.waitstatus_to_exitcode(status)
    raise AssertionError(f"it does not end: {terminal.seen[-2000:]!r}")


def test_complete_on_a_terminal(models):
    code = "print('\\x1b]0;owned\\x07plain')\nprint(llm_query('look at this'))"
    models.script = root(repl(code), repl(answer("'\\x1b]0;owned\\x07well\\n\\x9b1mdone'")), sub=Reply("looked", gate="look"))
    terminal = Terminal(models, "--query", "q")
    try:
        eventually(lambda: "1 sub-query" in terminal.read(), "the line at the bottom counts the sub-query")
        models.open("look")
        assert exit_code(terminal) == 0, terminal.seen
        assert "llm_query 1" in terminal.seen and "look at this" in terminal.seen and "looked" in terminal.seen
        assert "plain" in terminal.seen and "\033]0" not in terminal.seen and "\x07" not in terminal.seen
        assert "\r\033[K" in terminal.seen and terminal.seen.rstrip().endswith("]0;ownedwell\r\n1mdone")
    finally:
        terminal.close()


def seen_on_a_terminal(models, *arguments, wait="", **settings):
    """All that `rlm complete` has written there while two models worked; `wait`: until the last turn has written so."""
    sub = lambda request: repl(answer("'from below'")) if request.is_loop else "plain"  # noqa: E731
    models.requests.clear()
    models.script = root(repl("print(rlm_query('deep'), llm_query('plain'))"), Reply(repl(answer("'the end'")).text, gate="end"), sub=sub)
    terminal = Terminal(models, "--query", "q", "--max-depth", "2", *arguments, **settings)
    try:
        eventually(lambda: terminal.read() and [one for one in models.of("root") if one.turn == 2], "the last turn is asked", 20)
        before = len(terminal.read())
        eventually(lambda: wait in terminal.read()[before:], f"{wait!r} is written")
        models.open("end")
        assert exit_code(terminal) == 0, terminal.seen
        return terminal.seen
    finally:
        terminal.close()


def test_the_line_at_the_bottom_says_what_is_used(models):
    """A run inside says each of its turns, and its parent the sum of them: that is one use, not two."""
    seen = seen_on_a_terminal(models, "--json")
    used = json.loads(seen[seen.rindex('{"success"') :])["usage"]["model_usage_summaries"].values()
    last = re.findall(r"(\d+) \+ (\d+) tokens  ", seen)[-1]
    assert last == (str(sum(one["total_input_tokens"] for one in used)), str(sum(one["total_output_tokens"] for one in used)))


def test_a_narrow_terminal(models):
    """A line that is written again and again must not go on in the next row: what stands there would stay."""
    seen = seen_on_a_terminal(models, columns=30, wait="\x1b[K")
    lines = re.findall(r"\x1b\[2m( +\d+\.\d s[^\x1b]*)\x1b\[0m", seen)
    assert lines and max(map(len, lines)) == 29, lines[-3:]


def test_terminals_without_colours(models):
    seen = seen_on_a_terminal(models, NO_COLOR="1", wait="\x1b[K")
    assert set(re.findall(r"\x1b\[[^A-Za-z]*[A-Za-z]", seen)) == {"\x1b[K"}
    seen = seen_on_a_terminal(models, TERM="dumb")
    assert "\x1b" not in seen and "\r" not in seen.replace("\r\n", "") and "the end" in seen


def test_a_service_that_was_started_again_knows_no_run(models, tmp_path):
    models.script = never()
    with own_service(models, tmp_path) as service:
        running = Background(lambda: complete(models, "--query", "q", "--url", service.url))
        eventually(lambda: models.requests, "the model is asked")
        service.process.kill()
        service.process.wait()
        arguments = [str(RLM), "serve", "--port", str(service.port)]
        service.process = subprocess.Popen(arguments, env={"PATH": os.environ["PATH"]} | service.settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        done = running.result()
        assert done.returncode == 3 and b"does not know the run any more" in done.stderr, done.stderr


def test_ctrl_c_prints_what_there_is(models):
    models.script = root(Reply("So far so good."), never())
    terminal = Terminal(models, "--query", "q")
    try:
        eventually(lambda: terminal.read() and len(models.requests) >= 2, "the second turn is asked")
        os.write(terminal.fd, b"\x03")
        assert exit_code(terminal) == 130, terminal.seen
        assert terminal.seen.rstrip().endswith("So far so good."), terminal.seen
    finally:
        terminal.close()


# --- the rest of the command line


def test_config_and_version(tmp_path):
    run = lambda *arguments, **settings: subprocess.run(  # noqa: E731
        [str(RLM), *arguments], env={"PATH": os.environ["PATH"], **settings}, capture_output=True, text=True, timeout=30 * PATIENCE, cwd=tmp_path
    )
    told = run("config", "--max-depth", "2", LLM_API_KEY="sk-hidden", OPENAI_API_KEY="sk-other")
    assert told.returncode == 0 and "max_depth: 2  # flag --max-depth" in told.stdout and "sk-" not in told.stdout
    assert 'llm_api_key: "***"  # variable LLM_API_KEY' in told.stdout
    assert run("version").stdout.startswith("rlm version ") and run("--version").stdout == run("version").stdout
    assert run("serv").returncode == 2 and "did you mean serve?" in run("serv").stderr
    assert run("--help").stdout.startswith("usage: rlm VERB") and "RLM_API_KEY" in run("serve", "--help").stdout
    assert "--trajectory FILE" in run("complete", "--help").stdout
    script = run("completion", "bash").stdout
    shown = subprocess.run(["bash", "-c", script + 'COMP_WORDS=(rlm comple); COMP_CWORD=1; _rlm; echo "${COMPREPLY[*]}"'], capture_output=True, text=True, timeout=30)
    assert shown.stdout.split() == ["complete", "completion"] or shown.stdout.split() == ["complete"], shown


def test_sockets_of_a_supervisor(tmp_path):
    """codemode serve listens where it was told by LISTEN_FDS."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        program = f"import os; os.dup2({sock.fileno()}, 3); os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execv({str(BUILD / 'codemode')!r}, ['codemode', 'serve'])"
        environment = {"PATH": os.environ["PATH"], "CODEMODE_MAIN_APP_TARGET": "none", "SPARE_WORKERS": "1"}
        process = subprocess.Popen(["/usr/bin/python3", "-c", program], pass_fds=[sock.fileno(), 3] if sock.fileno() != 3 else [3], env=environment, stdout=subprocess.DEVNULL)
    try:
        assert requests.get(f"http://127.0.0.1:{port}/health", timeout=30 * PATIENCE, proxies={"http": ""}).json() == {"status": "healthy"}
    finally:
        process.terminate()
        assert process.wait(30 * PATIENCE) == 0
