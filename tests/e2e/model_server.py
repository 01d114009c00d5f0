# SPDX-License-Identifier: Apache-2.0
"""A model service that answers by script and checks what it is sent: OpenAI's chat completions, Anthropic's messages.

In a test:

    with ModelServer(turns(repl("print(len(context))"), repl(answer("42")))) as models:
        ...                       # base URL for OpenAI's API: models.url, for Anthropic's: models.root
        models.requests[0].last   # everything that came, in the order of its coming
                                  # leaving the block fails when a request was not as a real service wants it

By itself, with a script in JSON or in Python (a file that defines `script`), or the model that greps:

    /usr/bin/python3 tests/e2e/model_server.py --port 0 --script FILE | --grep

A script is one of: a text; a Reply; a function of the request that returns a script; `order(...)`, one after the other;
`turns(...)`, by how often the model has answered in the conversation; `by_model({...})`; `rules((when, script), ...)`, where `when` is a
part of the newest message or a function of the request. In JSON: {"order": [...]}, {"turns": [...]}, {"models": {...}},
{"rules": [[when, script], ...]}, or an object with the members of Reply.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import json
import pathlib
import re
import runpy
import socket
import sys
import threading
import time

KEY = "sk-scripted-8d1f6a3c"
REQUEST_MAX = 256 << 20

#: Members of a request that OpenAI's interface knows, as far as anybody here may send them.
OPENAI_MEMBERS = {
    "model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed", "user",
    "presence_penalty", "frequency_penalty", "reasoning_effort", "response_format", "n", "logit_bias", "metadata", "service_tier",
}  # fmt: skip
ANTHROPIC_MEMBERS = {
    "model", "messages", "system", "max_tokens", "stream", "temperature", "top_p", "top_k", "stop_sequences", "metadata", "thinking",
}  # fmt: skip


# --- replies


@dataclasses.dataclass
class Reply:
    text: str = ""
    delay: float = 0  # seconds before the first byte
    between: float = 0  # seconds between two pieces of a stream
    pieces: int = 4  # of a stream
    status: int = 200
    headers: dict = dataclasses.field(default_factory=dict)
    message: str = "scripted failure"  # of an answer whose status is not 200
    error_code: str | None = None
    usage: tuple | None | str = "counted"  # (tokens in, tokens out), None: nothing is said, "counted": four characters each
    cost: float | None = None  # USD, as some services say in their usage
    finish: str = "stop"
    refusal: str | None = None
    raw: bytes | None = None  # the whole body, in place of all of the above
    cut: int | None = None  # the connection is closed after so many characters of the text
    never: bool = False  # the connection stays open and silent
    gate: str | None = None  # waits for ModelServer.open(gate) before the first byte


def repl(code, before="", after="", **reply):
    """A turn with a block of code."""
    return Reply(f"{before}```repl\n{code}\n```\n{after}", **reply)


def blocks(*codes, **reply):
    return Reply("\n".join(f"```repl\n{code}\n```" for code in codes), **reply)


def answer(expression):
    """Code that ends a run with the value of an expression."""
    return f'answer["content"] = {expression}\nanswer["ready"] = True'


def final(text, **reply):
    """A turn that ends a run in words."""
    return Reply(f"FINAL({text})", **reply)


def final_var(name, **reply):
    return Reply(f"FINAL_VAR({name})", **reply)


def fail(status, message="scripted failure", retry_after=None, code=None, **reply):
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return Reply(status=status, message=message, headers=headers, error_code=code, **reply)


def cut(text, at, **reply):
    """A stream that ends in the middle of the text."""
    return Reply(text, cut=at, **reply)


def raw(body, **reply):
    return Reply(raw=body.encode() if isinstance(body, str) else body, **reply)


def empty(**reply):
    return Reply("", **reply)


def refusal(text, **reply):
    return Reply("", refusal=text, **reply)


def never():
    return Reply(never=True)


# --- scripts


class OutOfScript(Exception):
    """The script has no answer to a request."""


def order(*scripts):
    rest = iter(scripts)

    def next_of(request):
        try:
            return next(rest)
        except StopIteration:
            raise OutOfScript(f"more than {len(scripts)} requests") from None

    return next_of


def turns(*scripts):
    def of_turn(request):
        if request.turn > len(scripts):
            raise OutOfScript(f"turn {request.turn} of a script with {len(scripts)}")
        return scripts[request.turn - 1]

    return of_turn


def always(script):
    return lambda request: script


def by_model(scripts):
    def of_model(request):
        if request.model not in scripts:
            raise OutOfScript(f"no script for the model {request.model!r}")
        return scripts[request.model]

    return of_model


def rules(*pairs):
    def first_of(request):
        for when, script in pairs:
            if when(request) if callable(when) else when in request.last:
                return script
        raise OutOfScript(f"no rule for {request.last[-200:]!r}")

    return first_of


def from_data(value):
    """A script that was written in JSON."""
    if not isinstance(value, dict):
        return value
    for name, make in (("order", order), ("turns", turns)):
        if name in value:
            return make(*map(from_data, value[name]))
    if "models" in value:
        return by_model({name: from_data(script) for name, script in value["models"].items()})
    if "rules" in value:
        return rules(*((when, from_data(script)) for when, script in value["rules"]))
    if "repl" in value:
        return repl(**{"code" if name == "repl" else name: member for name, member in value.items()})
    return Reply(**value)


def resolve(script, request):
    while callable(script):
        script = script(request)
    reply = Reply(script) if isinstance(script, str) else script
    if not isinstance(reply, Reply):
        raise OutOfScript(f"the script's answer is {script!r}")
    return reply


def tokens(text):
    return (len(text) + 3) // 4


# --- requests


class Request:
    """One request as it came, and when."""

    def __init__(self, number, connection, method, path, headers, body):
        self.number, self.connection = number, connection
        self.method, self.path, self.headers, self.raw = method, path, headers, body
        self.body = {}
        self.api = "anthropic" if path == "/v1/messages" else "openai"
        self.began, self.ended = time.monotonic(), None
        self.gone = False  # the client has hung up before it had the answer
        self.in_flight = 0  # requests that were being answered when this one came, with it
        self.reply = None

    @property
    def model(self):
        return self.body.get("model")

    @property
    def messages(self):
        """[(role, text)], with Anthropic's system text as the first."""
        system = self.body.get("system")
        first = [("system", system)] if isinstance(system, str) else []
        return first + [(message["role"], message["content"]) for message in self.body.get("messages", [])]

    @property
    def system(self):
        return "\n".join(text for role, text in self.messages if role == "system")

    @property
    def last(self):
        """The newest message."""
        return self.messages[-1][1] if self.messages else ""

    @property
    def text(self):
        """All that the model is given to read."""
        return "\n".join(text for _, text in self.messages)

    @property
    def turn(self):
        """1 where the model has said nothing yet."""
        return 1 + sum(role == "assistant" for role, _ in self.messages)

    @property
    def stream(self):
        return bool(self.body.get("stream"))

    @property
    def is_loop(self):
        """A turn of a run, rather than a plain question."""
        return any(role == "user" and re.search(r"\bTurn \d+/\d+", text) for role, text in self.messages)

    @property
    def output(self):
        """All that the model was told since it spoke last: what its code printed, and the turn's line."""
        messages = self.messages
        said = [index for index, (role, _) in enumerate(messages) if role == "assistant"]
        return "\n".join(text for _, text in messages[said[-1] + 1 :]) if said else ""

    def __repr__(self):
        return f"<{self.number}: {self.model} turn {self.turn} {self.last[-60:]!r}>"


def no_twice(pairs):
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError(f"a member occurs twice: {names}")
    return dict(pairs)


def check_messages(messages, roles):
    if not isinstance(messages, list) or not messages:
        yield "messages is no list with members"
        return
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            yield f"message {index} has other members than role and content"
            return
        if message["role"] not in roles:
            yield f"message {index} has the role {message['role']!r}"
        if not isinstance(message["content"], str) or not message["content"]:
            yield f"message {index} has no text"
        elif any("\ud800" <= char <= "\udfff" for char in message["content"]):
            yield f"message {index} has half of a surrogate pair"
    said = [message["role"] for message in messages]
    if "system" in said[len(list(itertools.takewhile(lambda role: role == "system", said))) :]:
        yield f"a system message follows others: {said}"
    if said[-1] != "user":
        yield f"the newest message is of the {said[-1]}"
    if any(one == other != "system" for one, other in zip(said, said[1:])):
        yield f"user and assistant do not take turns, as some models insist: {said}"


def check_openai(body):
    if unknown := set(body) - OPENAI_MEMBERS:
        yield f"unknown members {sorted(unknown)}"
    yield from check_messages(body.get("messages"), {"system", "user", "assistant"})
    if body.get("stream"):
        if (body.get("stream_options") or {}).get("include_usage") is not True:
            yield "a stream without stream_options.include_usage"
    elif "stream_options" in body:
        yield "stream_options without a stream"
    yield from check_common(body)


def check_anthropic(body):
    if unknown := set(body) - ANTHROPIC_MEMBERS:
        yield f"unknown members {sorted(unknown)}"
    yield from check_messages(body.get("messages"), {"user", "assistant"})
    if body.get("messages", [{}])[0].get("role") != "user":
        yield "the first message is not the user's"
    if "system" in body and not (isinstance(body["system"], str) and body["system"]):
        yield "system is no text"
    if "max_tokens" not in body:
        yield "max_tokens is missing"
    yield from check_common(body)


def check_common(body):
    if not isinstance(body.get("model"), str) or not body["model"]:
        yield "no model"
    if not isinstance(body.get("stream", False), bool):
        yield "stream is no truth value"
    for name in ("max_tokens", "max_completion_tokens"):
        if name in body and not (isinstance(body[name], int) and 0 < body[name] <= 1 << 20):
            yield f"{name} is {body[name]!r}"
    if "temperature" in body and not (isinstance(body["temperature"], (int, float)) and 0 <= body["temperature"] <= 2):
        yield f"temperature is {body['temperature']!r}"


# --- what goes back


def dumps(value):
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def usage_of(reply, request):
    if reply.usage == "counted":
        return sum(tokens(text) for _, text in request.messages), tokens(reply.text)
    return reply.usage


def split(text, pieces):
    size = max(1, -(-len(text) // max(1, pieces)))
    return [text[start : start + size] for start in range(0, len(text), size)]


def openai_usage(reply, request):
    used = usage_of(reply, request)
    if used is None:
        return None
    counted = {"prompt_tokens": used[0], "completion_tokens": used[1], "total_tokens": sum(used[:2])}
    return counted | ({} if reply.cost is None else {"cost": reply.cost})


def openai_plain(reply, request, ident):
    message = {"role": "assistant", "content": reply.text if reply.refusal is None else None, "refusal": reply.refusal}
    body = {
        "id": ident,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish}],
    }
    used = openai_usage(reply, request)
    return body if used is None else body | {"usage": used}


def openai_stream(reply, request, ident):
    """(bytes, characters of the text that are out with them) one after the other."""
    base = {"id": ident, "object": "chat.completion.chunk", "created": int(time.time()), "model": request.model}

    def event(delta, finish=None):
        return b"data: " + dumps(base | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}) + b"\n\n"

    yield event({"role": "assistant", "content": ""}), 0
    for piece in split(reply.text, reply.pieces):
        yield event({"content": piece}), len(piece)
    if reply.refusal is not None:
        yield event({"refusal": reply.refusal}), 0
    yield event({}, reply.finish), 0
    used = openai_usage(reply, request)
    if used is not None and (request.body.get("stream_options") or {}).get("include_usage"):
        yield b"data: " + dumps(base | {"choices": [], "usage": used}) + b"\n\n", 0
    yield b"data: [DONE]\n\n", 0


def anthropic_finish(reply):
    return "refusal" if reply.refusal is not None else {"stop": "end_turn", "length": "max_tokens"}.get(reply.finish, reply.finish)


def anthropic_plain(reply, request, ident):
    used = usage_of(reply, request)
    text = reply.text or reply.refusal or ""
    body = {
        "id": ident,
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [{"type": "text", "text": text}] if text else [],
        "stop_reason": anthropic_finish(reply),
        "stop_sequence": None,
    }
    return body if used is None else body | {"usage": {"input_tokens": used[0], "output_tokens": used[1]}}


def anthropic_stream(reply, request, ident):
    def event(name, **members):
        return f"event: {name}\n".encode() + b"data: " + dumps({"type": name, **members}) + b"\n\n"

    used = usage_of(reply, request)
    start = anthropic_plain(Reply(usage=None), request, ident) | {"stop_reason": None}
    if used is not None:
        start["usage"] = {"input_tokens": used[0], "output_tokens": 1}
    yield event("message_start", message=start), 0
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""}), 0
    yield event("ping"), 0
    for piece in split(reply.text or reply.refusal or "", reply.pieces):
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece}), len(piece)
    yield event("content_block_stop", index=0), 0
    end = {} if used is None else {"usage": {"output_tokens": used[1]}}
    yield event("message_delta", delta={"stop_reason": anthropic_finish(reply), "stop_sequence": None}, **end), 0
    yield event("message_stop"), 0


def error_body(request, status, message, code):
    kinds = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "api_error")
    if request.api == "anthropic":
        return {"type": "error", "error": {"type": kind, "message": message}}
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


# --- the server


class Connection(asyncio.Protocol):
    """HTTP/1.1 by hand: requests with a length, one after the other."""

    numbers = itertools.count(1)

    def __init__(self, server):
        self.server, self.number = server, next(self.numbers)
        self.data, self.task, self.request = bytearray(), None, None
        self.may_write = asyncio.Event()
        self.may_write.set()

    def connection_made(self, transport):
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.connections.add(self)

    def connection_lost(self, error):
        self.server.connections.discard(self)
        self.may_write.set()
        if self.request:
            self.request.gone = True
        if self.task:
            self.task.cancel()

    def pause_writing(self):
        self.may_write.clear()

    def resume_writing(self):
        self.may_write.set()

    def data_received(self, data):
        self.data += data
        self.next_request()

    def next_request(self):
        end = self.data.find(b"\r\n\r\n")
        if self.task or end < 0:
            return
        first, *lines = bytes(self.data[:end]).decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdigit() or int(length) > REQUEST_MAX:
            self.server.violate(f"no usable length: {first} {headers}")
            self.transport.close()
            return
        if headers.pop("expect", None):
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if len(self.data) < end + 4 + int(length):
            return
        body = bytes(self.data[end + 4 : end + 4 + int(length)])
        del self.data[: end + 4 + int(length)]
        method, path, _ = first.split(" ", 2)
        self.request = Request(0, self.number, method, path, headers, body)
        self.task = asyncio.get_running_loop().create_task(self.serve(self.request))

    async def serve(self, request):
        try:
            if request.method == "GET":
                self.server.looks.append(request)
                models = [{"id": name, "object": "model", "owned_by": "script"} for name in self.server.models]
                await self.whole(200, {"object": "list", "data": models} if request.path == "/v1/models" else {"error": {}})
            else:
                await self.complete(request)
        finally:
            if request.number:
                self.server.in_flight -= 1
                request.ended = time.monotonic()
            self.task = self.request = None
        self.next_request()

    async def complete(self, request):
        server = self.server
        refused = server.admit(request)
        if refused:
            status, message, code = refused
            return await self.whole(status, error_body(request, status, message, code))
        try:
            reply = resolve(server.script, request)
        except Exception as error:  # a script that fails must fail the test, not hang it
            server.violate(f"{request}: {type(error).__name__}: {error}")
            return await self.whole(400, error_body(request, 400, f"script: {error}", None))
        request.reply = reply
        if reply.gate:
            await server.gate(reply.gate).wait()
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if reply.never:
            await asyncio.Event().wait()
        if reply.status != 200:
            body = error_body(request, reply.status, reply.message, reply.error_code)
            return await self.whole(reply.status, body, reply.headers)
        ident = f"scripted-{request.number}"
        openai = request.api == "openai"
        if reply.raw is not None:
            kind = "text/event-stream" if request.stream else "application/json"
            return await self.whole(200, reply.raw, reply.headers, kind)
        if request.stream:
            return await self.stream((openai_stream if openai else anthropic_stream)(reply, request, ident), reply)
        body = dumps((openai_plain if openai else anthropic_plain)(reply, request, ident))
        if reply.cut is not None:
            return self.break_off(self.head(200, reply.headers, "application/json", len(body)) + body[: reply.cut])
        return await self.whole(200, body, reply.headers)

    def head(self, status, headers, kind, length=None):
        lines = [f"HTTP/1.1 {status} Scripted", f"Content-Type: {kind}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += ["Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}", "", ""]
        return "\r\n".join(lines).encode("latin-1")

    async def whole(self, status, body, headers=(), kind="application/json"):
        body = body if isinstance(body, bytes) else dumps(body)
        await self.write(self.head(status, dict(headers), kind, len(body)) + body)

    async def stream(self, events, reply):
        out, data = 0, self.head(200, reply.headers, "text/event-stream")
        for event, length in events:
            if reply.cut is not None and length and out + length >= reply.cut:
                return self.break_off(data + b"%x\r\n%b\r\n" % (len(event), event))
            out += length
            data += b"%x\r\n%b\r\n" % (len(event), event)
            if reply.between or len(data) > 1 << 16:
                await self.write(data)
                data = b""
                await asyncio.sleep(reply.between)
        await self.write(data + b"0\r\n\r\n")

    async def write(self, data):
        self.transport.write(data)
        await self.may_write.wait()

    def break_off(self, data):
        self.transport.write(data)
        self.transport.close()


class ModelServer:
    """`with ModelServer(script) as models:` serves from a thread of its own."""

    def __init__(self, script, port=0, key=KEY, models=("scripted",), windows=None, strict=True):
        """`key`: what requests must carry; None: none may come; "*": any. `windows`: {model: tokens} beyond which a prompt is refused.
        `strict`: leaving the block fails when there were violations."""
        self.script, self.port, self.key, self.models, self.windows = script, port, key, list(models), windows or {}
        self.strict = strict
        self.requests, self.looks, self.violations = [], [], []
        self.connections, self.in_flight, self.most_in_flight = set(), 0, 0
        self._gates, self._changed = {}, threading.Condition()
        self._loop, self._listener = asyncio.new_event_loop(), None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def root(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self):
        return self.root + "/v1"

    # --- its life

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def __enter__(self):
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, kind, error, trace):
        self.vanish()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()
        if kind is None and self.strict:
            self.check()

    def listen(self):
        async def begin():
            self._listener = await self._loop.create_server(lambda: Connection(self), "127.0.0.1", self.port, backlog=1024)
            self.port = self._listener.sockets[0].getsockname()[1]

        self._call(begin())

    def vanish(self):
        """Breaks off all connections and takes no more; listen() begins again at the same port."""

        async def end():
            if self._listener:
                self._listener.close()
                self._listener = None
            for connection in list(self.connections):
                connection.transport.abort()
            await asyncio.sleep(0)

        self._call(end())

    def reset(self, script):
        """For the next test: another script, nothing has come."""
        self.vanish()
        self.requests, self.looks, self.violations = [], [], []
        self.in_flight = self.most_in_flight = 0
        self.script, self._gates = script, {}
        self.listen()

    def check(self):
        assert not self.violations, "what came is not what a model service takes:\n  " + "\n  ".join(self.violations[:10])

    # --- waiting and gates

    def gate(self, name):
        return self._gates.setdefault(name, asyncio.Event())

    def open(self, name):
        """Lets the replies go that wait at this gate, and all later ones."""
        self._loop.call_soon_threadsafe(lambda: self.gate(name).set())

    def wait(self, check, what, deadline=60.0):
        """Until `check(self)` is true; looked at with every request."""
        end = time.monotonic() + deadline
        while not check(self):
            assert time.monotonic() < end, f"{what}: not within {deadline:g} s; {len(self.requests)} requests came"
            with self._changed:
                self._changed.wait(0.02)

    # --- what came

    def violate(self, text):
        self.violations.append(text)

    def admit(self, request):
        """Notes the request; (status, message, code) where a real service would refuse it."""
        self.requests.append(request)
        request.number = len(self.requests)
        self.in_flight += 1
        request.in_flight = self.in_flight
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        wrong = list(self._wrong(request))
        self.violations += [f"{request.path} {request.number}: {text}" for text in wrong]
        with self._changed:
            self._changed.notify_all()
        if any(text.startswith("key") for text in wrong):
            return 401, "Incorrect API key provided", "invalid_api_key"
        if wrong:
            return 400, wrong[0], None
        if sum(tokens(text) for _, text in request.messages) > self.windows.get(request.model, 1 << 40):
            code = "context_length_exceeded"
            return 400, f"This model's maximum context length is {self.windows[request.model]} tokens: prompt is too long", code
        return None

    def _wrong(self, request):
        headers, openai = request.headers, request.path == "/v1/chat/completions"
        if request.method != "POST" or not openai and request.path != "/v1/messages":
            yield f"{request.method} {request.path}"
            return
        if headers.get("content-type", "").split(";")[0].strip() != "application/json":
            yield f"content type {headers.get('content-type')!r}"
        sent = headers.get("authorization") if openai else headers.get("x-api-key")
        due = self.key and (f"Bearer {self.key}" if openai else self.key)
        if sent != due and self.key != "*":
            yield f"key: {sent!r}"
        if not openai and not re.fullmatch(r"\d{4}-\d\d-\d\d", headers.get("anthropic-version", "")):
            yield "no anthropic-version"
        try:
            body = json.loads(request.raw.decode("utf-8"), object_pairs_hook=no_twice)
        except ValueError as error:
            yield f"the body is no JSON: {error}"
            return
        if not isinstance(body, dict):
            yield "the body is no object"
            return
        found = list((check_openai if openai else check_anthropic)(body))
        if not any(text.startswith(("message", "no model")) for text in found):
            request.body = body
        yield from found

    def of(self, model):
        return [request for request in self.requests if request.model == model]


# --- a model that greps


def grep_model(request):
    """Looks at the context, searches it for what stands in quotation marks in the question, and answers with the number that
    it finds there. A question that is no turn of a run is answered with the number in it."""
    if not request.is_loop:
        found = re.findall(r"\d{3,}", request.last)
        return found[-1] if found else "nothing"
    asked = re.findall(r'"([^"\n]{3,80})"', "\n".join(text for role, text in request.messages if role == "user"))
    if request.turn > 1 and not asked:
        return repl(answer("'nothing stands in quotation marks in the query'"))
    if request.turn == 1:
        return repl('print(type(context).__name__, len(context))\nprint(context[:200] if isinstance(context, str) else "")', "Looking first.\n")
    if request.turn == 2:
        code = (
            "import re\n"
            "text = context if isinstance(context, str) else '\\n'.join(map(str, context))\n"
            f"for hit in re.finditer({re.escape(asked[0])!r}, text, re.IGNORECASE):\n"
            "    print('HIT', hit.start(), repr(text[max(0, hit.start() - 80):hit.end() + 80]))"
        )
        return repl(code)
    hit = re.search(re.escape(asked[0]) + r"\D{0,20}(\d{3,})", request.output, re.IGNORECASE)
    return repl(answer(repr(hit.group(1) if hit else "not found")))


# --- by itself


def load(path):
    if path.suffix == ".py":
        sys.modules["model_server"] = sys.modules[__name__]  # what the script imports is what runs here
        return runpy.run_path(str(path))["script"]
    return from_data(json.loads(path.read_text(encoding="utf-8")))


def main():
    parser = argparse.ArgumentParser(description="A model service that answers by script.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", type=pathlib.Path, help="JSON, or a Python file that defines `script`")
    parser.add_argument("--grep", action="store_true", help="the model that greps")
    parser.add_argument("--key", default="*", help="the key that requests must carry; any without it")
    args = parser.parse_args()
    if bool(args.script) == args.grep:
        parser.error("one of --script and --grep")
    script = grep_model if args.grep else load(args.script)
    with ModelServer(script, port=args.port, key=args.key, strict=False) as models:
        print(models.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    for text in models.violations:
        print(text)


if __name__ == "__main__":
    main()
