# SPDX-License-Identifier: Apache-2.0
"""Requests to language models: chat completions in the manner of OpenAI, and Anthropic's messages.

Whatever a model service sends, the caller gets a `Reply`: a failure is a value in it. Answers are streamed, tried again where that
can help (429, 5xx, no connection, a stream that was cut before its first word), counted and priced.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple
from urllib.parse import urlsplit

from .remote.errors import SidecarUnavailable
from .remote.transport import Call, Stream, Transport, retry_after
from .scope import Place, Scope
from .common import price, shown
from .sse import Event, events

Message = Dict[str, str]

#: Bytes of an error's body that are read, and characters of it that are told.
_ERROR_BYTES, _ERROR_TEXT = 1 << 16, 500
#: Characters of a key that is looked for in what services say; tokens of one reply that are believed.
_KEY_LEAST, _TOKENS_MOST = 6, 1 << 50
_TOO_LONG = (
    "context_length", "context length", "context window", "context size", "context limit", "maximum context", "exceed_context",
    "prompt is too long", "input is too long", "too many tokens", "maximum number of tokens", "reduce the length",
)  # fmt: skip
#: Members of a request that are not for `sampling` to say.
_OURS = frozenset(("model", "messages", "stream", "stream_options", "system", "n"))
#: Statuses that errors in the middle of a stream stand for.
_STATUS = {
    "rate_limit_error": 429, "rate_limit_exceeded": 429, "insufficient_quota": 429, "authentication_error": 401, "permission_error": 403,
    "billing_error": 402, "invalid_request_error": 400, "not_found_error": 404, "request_too_large": 413, "timeout_error": 504,
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """One model at one place. `base_url` is what comes before /chat/completions or /v1/messages; members of `sampling` join
    the request's body. Its repr does not show the key."""

    name: str
    api: str = "openai"  #: "openai" or "anthropic"
    base_url: str = "https://api.openai.com/v1"
    api_key: Optional[str] = field(default=None, repr=False)
    sampling: Dict[str, Any] = field(default_factory=dict)
    headers: Dict[str, str] = field(default_factory=dict, repr=False)
    timeout: Optional[float] = None  #: seconds of one attempt, in place of the client's
    attempts: Optional[int] = None  #: in place of the client's


@dataclass
class Usage:
    """Tokens of one reply. `cost` is in US dollars, None where no price is known."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False  #: the service said nothing: four characters a token
    cost: Optional[float] = None


@dataclass
class Reply:
    """`failure` is "" when all went well. `text` may hold words beside a failure (``cut``, ``refusal``)."""

    failure: str = ""
    text: str = ""
    reason: str = ""  #: for a person
    finish: str = ""  #: "stop", "length", ...
    model: str = ""  #: that has answered
    usage: Usage = field(default_factory=Usage)
    attempts: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class ModelSettings:
    """``timeout`` seconds of one attempt; ``idle_timeout`` seconds without a byte of the answer; ``attempts`` 1 to 10;
    ``backoff`` seconds before the second attempt, doubled for each further one, up to ``backoff_max``. A Retry-After counts
    in its place, unless it is beyond the time that the run has left, or ``timeout`` where the run has no limit: then the attempt was the last one;
    ``reply_max`` characters of a reply; ``concurrent`` requests at once."""

    timeout: float = 300.0
    idle_timeout: float = 120.0
    attempts: int = 4
    backoff: float = 0.5
    backoff_max: float = 30.0
    reply_max: int = 8 << 20
    concurrent: int = 64


class _Failed(Exception):
    """One attempt's end; `again` when another one may help, without what `quirk` names if there is one."""

    def __init__(self, failure: str, reason: str, again: bool = False, pause: Optional[float] = None, quirk: str = "") -> None:
        super().__init__(reason)
        self.failure, self.reason, self.again, self.pause, self.quirk = failure, reason, again, pause, quirk


class ModelClient:
    """Asks models, from any number of threads. Connections are kept for each base URL."""

    def __init__(self, settings: Optional[ModelSettings] = None, prices: Optional[Mapping[str, Any]] = None) -> None:
        """`prices`: rows beside and over those of rlm/models.json."""
        self.settings = settings or ModelSettings()
        self.prices = dict(prices or {})
        self._lock = threading.Lock()
        self._transports: Dict[str, Transport] = {}
        self._places = threading.BoundedSemaphore(self.settings.concurrent)
        self._quirks: Dict[Tuple[str, str], Set[str]] = {}  #: what a model's service does not understand

    def ask(
        self,
        model: Model,
        messages: Sequence[Message],
        scope: Optional[Scope] = None,
        on_delta: Optional[Callable[[str], None]] = None,
    ) -> Reply:
        """One reply. Raises only what `scope` was broken off with. `on_delta` is called with words as they come; an attempt
        that failed after its first word is not repeated."""
        scope = scope or Scope()
        started = time.monotonic()
        reply = Reply(model=model.name)
        attempts = model.attempts or self.settings.attempts
        while True:
            reply.attempts += 1
            try:
                with self._place(scope):
                    self._attempt(model, messages, scope, reply, on_delta)
                break
            except _Failed as failed:
                scope.check()
                reply.failure, reply.reason = failed.failure, failed.reason
                if self._learns(model, failed.quirk):
                    continue
                last = reply.attempts >= (min(attempts, 2) if failed.failure == "empty" else attempts)
                told = on_delta is not None and bool(reply.text)
                if not failed.again or told or last:
                    break
                wait = self._pause(failed, reply.attempts)
                if wait >= _patience(scope, model.timeout or self.settings.timeout):
                    reply.reason += f"; it wants {wait:.0f} s of patience, which is more than is left"
                    break
                scope.sleep(wait)
        reply.seconds = time.monotonic() - started
        if model.api_key and len(model.api_key) >= _KEY_LEAST:  # a service may answer with what it was sent
            reply.reason = reply.reason.replace(model.api_key, "*" * len(model.api_key))
        used = reply.usage
        if used.cost is None:
            used.cost = price(model.name, used.input_tokens, used.output_tokens, used.cached_tokens, self.prices)
        return reply

    def close(self) -> None:
        """Closes kept connections; it may still be used."""
        with self._lock:
            transports, self._transports = list(self._transports.values()), {}
        for transport in transports:
            transport.close()

    def _transport(self, base_url: str) -> Transport:
        with self._lock:
            if base_url not in self._transports:
                self._transports[base_url] = Transport(base_url)
            return self._transports[base_url]

    def _learns(self, model: Model, quirk: str) -> bool:
        """Remembers a quirk; False for none, and for one that was known."""
        with self._lock:
            known = self._quirks.setdefault((model.base_url, model.name), set())
            new = bool(quirk) and quirk not in known
            known.update({quirk} if new else ())
            return new

    def _pause(self, failed: _Failed, attempts: int) -> float:
        if failed.failure == "empty":
            return 0.0
        if failed.pause is not None:
            return failed.pause
        return min(self.settings.backoff * 2.0 ** (attempts - 1), self.settings.backoff_max) * random.uniform(0.8, 1.2)

    def _place(self, scope: Scope) -> Place:
        return Place(self._places, scope)

    def _attempt(
        self, model: Model, messages: Sequence[Message], scope: Scope, reply: Reply, on_delta: Optional[Callable[[str], None]]
    ) -> None:
        reply.failure = reply.reason = reply.text = reply.finish = ""
        host = urlsplit(shown(model.base_url)).netloc
        path, headers, body = _request(model, messages, self._quirks.get((model.base_url, model.name), set()))
        limit = model.timeout or self.settings.timeout
        call = Call()
        with scope.inner() as attempt, attempt.watched(call.abort), attempt.limited(limit, TimeoutError()):
            try:
                payload = json.dumps(body, allow_nan=False).encode()
                timeout = min(self.settings.idle_timeout, limit)
                with self._transport(model.base_url).open("POST", path, payload, timeout=timeout, headers=headers, call=call) as answer:
                    self._read(model, messages, answer, host, reply, on_delta)
            except SidecarUnavailable as error:
                scope.check()
                if attempt.error is not None or error.code == "no_answer":
                    what = f"no answer within {limit:g} s" if attempt.error is not None else f"no word for {timeout:g} s"
                    raise _Failed("timeout", f"{host}: {what}", error.code == "no_answer" and not error.sent) from error
                if reply.text:
                    raise _Failed("cut", f"{host}: the reply ended in its middle: {error.detail}", True) from error
                raise _Failed("unreachable", f"{host}: {error.detail}", True) from error

    def _read(
        self, model: Model, messages: Sequence[Message], answer: Stream, host: str, reply: Reply, on_delta: Optional[Callable[[str], None]]
    ) -> None:
        if answer.status != 200:
            raise _refused(model, answer, host)
        found = _Words(reply, self.settings.reply_max, on_delta, sum(estimate(message["content"]) for message in messages))
        try:
            streamed, pieces = _shape(answer.pieces())
            if not streamed:
                _whole(model, json.loads(_join(pieces, 6 * self.settings.reply_max + _ERROR_BYTES)), found)
            elif model.api == "anthropic":
                _anthropic_events(events(pieces, 16 << 20), found)
            else:
                _openai_events(events(pieces, 16 << 20), found)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise _Failed("bad_answer", f"{host}: not an answer: {error}"[:_ERROR_TEXT]) from error
        finally:
            found.settle()
        answer.finish()
        found.finish(host)


def _shape(pieces: Iterator[bytes]) -> Tuple[bool, Iterator[bytes]]:
    """Whether an answer is a stream of events, and the answer. Its first letter says so: content types are wrong too often."""
    begin = b""
    for piece in pieces:
        begin = (begin + piece).lstrip(b"\xef\xbb\xbf \t\r\n")
        if begin:
            break
    return not begin or begin[:1] in b"deir:", itertools.chain([begin], pieces)  # data, event, id, retry, a comment


def _join(pieces: Iterator[bytes], limit: int) -> bytes:
    found: List[bytes] = []
    size = 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size > limit:
            raise _Failed("too_large", f"the answer is longer than {limit} bytes")
    return b"".join(found)


def _patience(scope: Scope, timeout: float) -> float:
    left = scope.left()
    return timeout if left is None else left


class _Words:
    """Gathers what one answer says."""

    def __init__(self, reply: Reply, limit: int, on_delta: Optional[Callable[[str], None]], asked: int) -> None:
        """`asked`: tokens of the request, where the service does not say."""
        self.reply, self._limit, self._on_delta, self._asked = reply, limit, on_delta, asked
        self._pieces: List[str] = []
        self._size = 0
        self.refusal = ""
        self.answered = False  #: the model has been at work: it costs
        self.ended = False  #: the service has said that this is all
        self._used: Tuple[int, int, int] = (0, 0, 0)
        self._cost: Optional[float] = None

    def add(self, text: Any) -> None:
        if isinstance(text, list):  # parts of a content
            text = "".join(part.get("text") or "" for part in text if isinstance(part, dict) and part.get("type") == "text")
        if not text or not isinstance(text, str):
            return
        self._size += len(text)
        if self._size > self._limit:
            raise _Failed("too_large", f"the reply is longer than {self._limit} characters")
        self._pieces.append(text)
        self.reply.text = self.reply.text or text  # a failure from here on is not repeated
        if self._on_delta is not None:
            self._on_delta(text)

    def stop(self, reason: Any) -> None:
        if reason:
            self.reply.finish, self.ended = str(reason), True

    def usage(self, input_tokens: Any, output_tokens: Any, cached: Any = 0, cost: Any = None) -> None:
        """What the service says of this attempt so far; the newest figure counts."""
        found = (_count(input_tokens), _count(output_tokens), _count(cached))
        self._used = (found[0] or self._used[0], found[1] or self._used[1], found[2] or self._used[2])
        if isinstance(cost, (int, float)) and 0 <= cost < 1e6:
            self._cost = float(cost)

    def settle(self) -> None:
        """Counts this attempt, also one that was of no use."""
        self.reply.text = "".join(self._pieces)
        usage = self.reply.usage
        if self.answered and not self._used[0] and not self._used[1]:
            self._used = (self._asked, estimate(self.reply.text), 0)
            usage.estimated = True
        usage.input_tokens += self._used[0]
        usage.output_tokens += self._used[1]
        usage.cached_tokens += self._used[2]
        if self._cost is not None:
            usage.cost = (usage.cost or 0.0) + self._cost

    def finish(self, host: str) -> None:
        if self.refusal or self.reply.finish in ("content_filter", "refusal"):
            self.reply.text = self.reply.text or self.refusal
            raise _Failed("refusal", f"{host}: the model or its filter declined{': ' if self.refusal else ''}{self.refusal[:200]}")
        if not self.ended:
            raise _Failed("cut", f"{host}: the reply ended in its middle", True)
        if not self.reply.text.strip():
            self.reply.text = ""
            raise _Failed("empty", f"{host}: the reply has no text", True)


def _request(model: Model, messages: Sequence[Message], quirks: Set[str]) -> Tuple[str, Dict[str, str], Dict[str, Any]]:
    """Path, headers and body."""
    sampling = {name: value for name, value in model.sampling.items() if name not in _OURS}
    messages = [{"role": m["role"], "content": m["content"].encode("utf-8", "replace").decode()} for m in messages]
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json", **model.headers}
    if model.api == "anthropic":
        if model.api_key:
            headers["x-api-key"] = model.api_key
        headers["anthropic-version"] = "2023-06-01"
        system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
        spoken = [message for message in messages if message["role"] != "system"]
        body = {"model": model.name, "max_tokens": 32768, "messages": spoken, "stream": True, **sampling}
        if system:
            body["system"] = system
        path = "/messages" if model.base_url.rstrip("/").endswith("/v1") else "/v1/messages"
        return path, headers, body
    if model.api_key:
        headers["Authorization"] = f"Bearer {model.api_key}"
    body = {"model": model.name, "messages": messages, **sampling}
    if "stream" not in quirks:
        body["stream"] = True
        if "stream_options" not in quirks:
            body["stream_options"] = {"include_usage": True}
    if "max_tokens" in quirks and "max_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")
    if (urlsplit(model.base_url).hostname or "").endswith("openrouter.ai"):
        body.setdefault("usage", {"include": True})
    return "/chat/completions", headers, body


def _openai_events(stream: Iterator[Event], found: _Words) -> None:
    for event in stream:
        if event.data.strip() == "[DONE]":
            found.ended = True
            return
        data = json.loads(event.data)
        if data.get("error"):
            raise _said(data["error"])
        _openai_words(data, found)


def _openai_words(data: Any, found: _Words) -> None:
    """Of one event, or of an answer that is not a stream."""
    found.reply.model = str(data.get("model") or found.reply.model)
    for choice in (one for one in data.get("choices") or [] if not one.get("index")):
        message = choice.get("delta") or choice.get("message") or {}
        found.answered = True
        found.add(message.get("content"))
        found.add(choice.get("text"))
        found.refusal += message.get("refusal") or ""
        found.stop(choice.get("finish_reason"))
    _openai_usage(data.get("usage"), found)


def _openai_usage(usage: Any, found: _Words) -> None:
    if isinstance(usage, dict):
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else usage.get("prompt_cache_hit_tokens")
        found.usage(usage.get("prompt_tokens"), usage.get("completion_tokens"), cached, usage.get("cost"))


def _anthropic_events(stream: Iterator[Event], found: _Words) -> None:
    for event in stream:
        data = json.loads(event.data)
        kind = data.get("type")
        if kind == "error":
            raise _said(data.get("error"))
        if kind == "message_start":
            message = data.get("message") or {}
            found.answered = True
            found.reply.model = str(message.get("model") or found.reply.model)
            _anthropic_usage(message.get("usage") or {}, found)
        elif kind == "content_block_delta":
            found.add((data.get("delta") or {}).get("text"))
        elif kind == "message_delta":
            found.stop((data.get("delta") or {}).get("stop_reason"))
            _anthropic_usage(data.get("usage") or {}, found)
        elif kind == "message_stop":
            found.ended = True
            return


def _anthropic_usage(usage: Dict[str, Any], found: _Words) -> None:
    cached = _count(usage.get("cache_read_input_tokens"))
    made = _count(usage.get("cache_creation_input_tokens"))
    found.usage(_count(usage.get("input_tokens")) + cached + made, usage.get("output_tokens"), cached)


def _whole(model: Model, data: Any, found: _Words) -> None:
    """An answer that is not a stream."""
    if data.get("error"):
        raise _said(data["error"])
    if model.api == "anthropic":
        found.reply.model = str(data.get("model") or found.reply.model)
        found.answered = True
        found.add(data["content"])
        found.stop(data.get("stop_reason"))
        _anthropic_usage(data.get("usage") or {}, found)
    else:
        _openai_words(data, found)
        if not found.answered:
            raise ValueError("it has no choices")
    found.ended = True


def _said(error: Any) -> _Failed:
    """An error that came in place of words, or in their middle."""
    named = [error.get("code"), error.get("type")] if isinstance(error, dict) else []
    text = str(error.get("message") or error) if isinstance(error, dict) else str(error)
    numbers = [code for code in named if isinstance(code, int) and 400 <= code < 600]
    status = (numbers + [_STATUS[name] for name in named if name in _STATUS] + [500])[0]
    return _judged(status, str(named[0]) if named else "", text, f"the service reports: {text}"[:_ERROR_TEXT], None)


def _refused(model: Model, answer: Stream, host: str) -> _Failed:
    raw = b""
    try:
        for piece in answer.pieces():
            raw += piece
            if len(raw) > _ERROR_BYTES:
                break
    except SidecarUnavailable:
        pass  # the status says enough
    text = raw.decode("utf-8", "replace")
    try:
        error = json.loads(text)["error"]
        text = str(error.get("message") or error) if isinstance(error, dict) else str(error)
        code = str(error.get("code")) if isinstance(error, dict) else ""
    except (ValueError, KeyError, TypeError):
        code = ""
    if answer.status == 404 and model.api == "openai" and "model" not in text.lower():  # too short, or too long
        host += " (is the base URL what stands before /chat/completions?)"
    reason = f"HTTP {answer.status} from {host}: {' '.join(text.split())[:_ERROR_TEXT]}"
    return _judged(answer.status, code, text, reason, retry_after(answer.header("Retry-After")))


def _judged(status: int, code: str, text: str, reason: str, pause: Optional[float]) -> _Failed:
    """What an error has come to, and whether another attempt may help."""
    lower = text.lower()
    if status in (401, 402, 403):
        return _Failed("refused", reason)
    if status == 429:  # which also says that there is no money left
        return _Failed("rate_limited", reason, code != "insufficient_quota", pause)
    if status == 413 or code == "context_length_exceeded" or any(words in lower for words in _TOO_LONG):
        return _Failed("too_long", reason)
    if code in ("content_filter", "content_policy_violation"):
        return _Failed("refusal", reason)
    if status == 408 or status >= 500:
        quirk = _quirk(lower) if status == 501 else ""
        return _Failed("timeout" if status in (408, 504) else "unreachable", reason, True, pause, quirk)
    return _Failed("bad_request", reason, quirk=_quirk(lower))


def _quirk(lower: str) -> str:
    """What a service says that it does not understand."""
    unsupported = "unsupported" in lower or "not support" in lower
    if "stream_options" in lower or "include_usage" in lower:
        return "stream_options"
    if unsupported and "max_completion_tokens" in lower:
        return "max_tokens"
    return "stream" if "to stream this model" in lower or (unsupported and "stream" in lower) else ""


def estimate(text: str) -> int:
    """Tokens of a text: four characters each, rounded up."""
    return (len(text) + 3) // 4


def _count(value: Any) -> int:
    """As the service has it: no number is none, a fraction is left out, and more than anybody could mean is the most."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        return 0
    return int(min(value, _TOKENS_MOST))
