# SPDX-License-Identifier: Apache-2.0
"""The loop: a tree of nodes, each with a model that writes code and a session that runs it.

The root is node 0. What its code asks by ``rlm_query`` is a node of its own, as far as the depth allows, in a thread and a session of its
own. All of a tree is broken off by its `Scope`. The service has the same loop in C; what both must agree on is in ``rlm``.
"""

from __future__ import annotations

import datetime
import io
import itertools
import json
import logging
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Callable, Dict, List, Optional, Sequence, Tuple, Union

from . import errors
from .common import PROMPTS, fill, filled, prompt, session_source, shown, text, window
from .logger import RunLog
from .models import Message, Model, ModelClient, Reply, estimate
from .reading import OUTPUT_LIMIT, Reading, block_output, outputs_message, read_reply, thoughts
from .results import RLMChatCompletion, UsageCounter
from .sandbox import Sandbox, Session
from .scope import Scope
from .subcalls import NODES_MAX, QUERIES, REPORTS, answer_call, is_inline, is_loose, take_report
from .tools import Tools

_log = logging.getLogger(__name__)

Event = Dict[str, Any]

#: Failures of a model for which it is asked once more: another reply may be better.
_WEAK = frozenset(("", "refusal", "empty", "bad_answer", "cut", "too_large"))
#: Replies of no use, one after the other, that end a run.
_BAD_REPLIES_MAX = 2
#: Characters of an answer.
ANSWER_MAX = 64 << 20
#: Bytes of memory for texts that a block sends in pieces.
PARTS_MAX = 128 << 20
#: What a session says of code that cannot run; the model may write it better.
_FOR_THE_MODEL = frozenset(("too_large", "invalid_field", "bad_request", "invalid_json", "value_too_large"))
#: Short names of a sidecar that has no room at the moment, and how often code is sent again then.
_BUSY, _BUSY_TRIES = frozenset(("overloaded", "queue_full", "not_ready", "low_memory", "out_of_memory")), 10
#: ... and of a session that is gone.
_LOST = frozenset(("unknown_session", "session_lost", "unavailable", "no_answer"))
#: Seconds that our own code in a session may take.
_SETUP_TIMEOUT = 120.0
_MODULE = "__import__('sys').modules['rlm_session']"
_REPORT = f"{_MODULE}.report()"


@dataclass
class Plan:
    """What a run may do. The models are those of depth 0, 1, ...; the last one repeats."""

    models: List[Model]
    other: Optional[Model] = None  #: of llm_query at the root
    max_depth: int = 1
    max_iterations: int = 30
    max_budget: Optional[float] = None
    max_timeout: Optional[float] = None
    max_tokens: Optional[int] = None
    max_errors: Optional[int] = None
    max_concurrent_subcalls: int = 4
    execution_timeout: float = 30.0
    session_memory: Optional[int] = None
    system_prompt: Optional[str] = None
    user_prologue: Optional[str] = None
    orchestrator: bool = True
    compaction: bool = False
    compaction_threshold: float = 0.85
    tools: Tools = field(default_factory=Tools)
    sub_tools: Tools = field(default_factory=Tools)
    prices: Dict[str, Any] = field(default_factory=dict)
    deltas: bool = False  #: events say the words of models as they come
    setup_code: Optional[str] = None

    def model(self, depth: int) -> Model:
        return self.models[min(depth, len(self.models) - 1)]

    def leaf(self, depth: int) -> Model:
        """Whom llm_query asks at a depth."""
        return self.other if self.other is not None else self.model(depth + 1)

    def named(self, name: Optional[str], otherwise: Model) -> Model:
        known = [*self.models, *([self.other] if self.other is not None else [])]
        return next((model for model in known if model.name == name), otherwise)


@dataclass
class Context:
    """What a query is about: a text, a file of text, or any JSON value."""

    value: Any
    kind: str  #: "text" or "json"
    type_name: str = "str"

    @classmethod
    def of(cls, value: Any) -> "Context":
        """TypeError for what has no JSON form."""
        if isinstance(value, str):
            return cls(value, "text")
        return cls(json.dumps(value, allow_nan=False, ensure_ascii=False), "json", "dict" if isinstance(value, dict) else "list")


class Tree:
    """One run with all that it starts."""

    def __init__(
        self,
        plan: Plan,
        client: ModelClient,
        sandbox: Sandbox,
        usage: UsageCounter,
        scope: Scope,
        listener: Callable[[Event], None],
        log: Optional[RunLog] = None,
    ) -> None:
        self.plan, self.client, self.sandbox, self.usage, self.scope, self.log = plan, client, sandbox, usage, scope, log
        self.started = time.monotonic()
        self._listener = listener
        self._lock = threading.Lock()
        self._calls, self._nodes = itertools.count(1), itertools.count()
        self._begun = 0

    def emit(self, type_: str, node: int, /, **members: Any) -> None:
        event = {"type": type_, "timestamp": timestamp(), "node": node, **members}
        with self._lock:
            self._listener(event)

    def next_call(self) -> int:
        return next(self._calls)

    def next_node(self) -> int:
        return next(self._nodes)

    def room_for_a_node(self) -> bool:
        with self._lock:
            self._begun += 1
            return self._begun < NODES_MAX

    def ask(
        self, model: Model, messages: Sequence[Message], scope: Scope, usage: UsageCounter, on_delta: Optional[Callable[[str], None]] = None
    ) -> Reply:
        """A reply, counted. A limit that it has passed breaks off the whole tree."""
        reply = self.client.ask(model, messages, scope, on_delta)
        used = reply.usage
        usage.add(model.name, used.input_tokens, used.output_tokens, used.cost if used.input_tokens or used.output_tokens else None)
        passed = self._passed()
        if passed is not None:
            self.scope.cancel(passed)
        return reply

    def _passed(self) -> Optional[errors.RLMError]:
        used, plan = self.usage.summary(), self.plan
        tokens = used.total_input_tokens + used.total_output_tokens
        if plan.max_tokens is not None and tokens > plan.max_tokens:
            return errors.TokenLimitExceededError(tokens, plan.max_tokens)
        if plan.max_budget is not None and (used.total_cost or 0.0) > plan.max_budget:
            return errors.BudgetExceededError(used.total_cost or 0.0, plan.max_budget)
        return None


class Conversation:
    """Persistent mode: one session over several runs."""

    def __init__(self) -> None:
        self.session: Optional[Session] = None
        self.contexts = self.histories = 0
        self.history: Optional[str] = None  #: messages of the newest run, as JSON: they go to the session before the next one
        self.busy = threading.Lock()


class Node:
    """One loop: a query, a context, a session."""

    def __init__(
        self,
        tree: Tree,
        depth: int,
        query: Optional[str],
        context: Optional[Context],
        *,
        scope: Optional[Scope] = None,
        parent: Optional["Node"] = None,
        call: Optional[int] = None,
        model: Optional[Model] = None,
        conversation: Optional[Conversation] = None,
    ) -> None:
        self.tree, self.plan, self.depth, self.query, self.context = tree, tree.plan, depth, query, context
        self.scope = scope or tree.scope
        self.number = tree.next_node()
        self.parent, self.call = parent, call
        self.model = model or tree.plan.model(depth)
        self.tools = tree.plan.tools if depth == 0 else tree.plan.sub_tools
        self.usage: UsageCounter = UsageCounter(parent.usage if parent else tree.usage)
        self.conversation = conversation or Conversation()
        self.persistent = conversation is not None
        self.messages: List[Message] = []
        self.partial: Optional[str] = None  #: the newest words of the model
        self.iteration: int = 0
        self.iterations: List[Event] = []
        self.run_metadata: Event = {}
        self.context_type, self.context_length = "str", 0
        self.children = threading.BoundedSemaphore(tree.plan.max_concurrent_subcalls)  #: that run, of all calls of code
        self._old: List[Message] = []  #: what compaction has taken away
        self._preface = ""  #: the first message of the user without its turn
        self._pending = ""  #: the next one without its turn
        self._shown = 0  #: messages that events have told of
        self._tokens = 0  #: of the newest request and its reply; 0 where only estimated
        self._compacted = 0  #: the turn of the newest compaction
        self._errors = self._bad_replies = 0
        self._session: Optional[Session] = None
        self._ready = self._lost = False  #: the session has all that it needs; it is gone

    # --- from its beginning to its end

    def run(self) -> str:
        """The answer. Raises RLMError."""
        started = time.monotonic()
        answer: Optional[str] = None
        error: Optional[BaseException] = None
        try:
            self._open()
            answer = self._loop()
            self.scope.check()
            return answer
        except BaseException as caught:
            error = caught
            raise
        finally:
            self._close()
            self.tree.emit(
                "result",
                self.number,
                answer=answer,
                error=None if error is None else {"code": getattr(error, "code", "rlm_error"), "detail": str(error)},
                partial_answer=self.partial if answer is None else None,
                usage_summary=self.usage.summary().to_dict(),
                execution_time=time.monotonic() - started,
            )

    def _open(self) -> None:
        """A session with all that code finds in it."""
        talk, context = self.conversation, self.context
        if talk.session is None:
            talk.session = self.tree.sandbox.create(self.scope, self.plan.session_memory)
        session = self._session = talk.session
        if talk.history is not None:
            session.put(f"history_{talk.histories}", talk.history, "json", self.scope)
            talk.histories, talk.history = talk.histories + 1, None
        if context is not None or talk.contexts == 0:
            session.put(f"context_{talk.contexts}", context.value if context else "", context.kind if context else "text", self.scope)
            talk.contexts += 1
        tools = self.tools.wire()
        if tools:
            session.put("_rlm_tools", json.dumps(tools, ensure_ascii=False), "json", self.scope)
        told = self._ours(
            f"{_MODULE} = __import__('types').ModuleType('rlm_session')\n"
            f"exec(compile({session_source()!r}, 'rlm_session.py', 'exec'), {_MODULE}.__dict__)\n"
            f"{_MODULE}.install(globals(), contexts={talk.contexts}, histories={talk.histories}, custom={sorted(self.tools.functions)!r})\n"
            + (f"{_MODULE}.add(_rlm_tools)\ndel _rlm_tools\n" if tools else "")
            + f"{_MODULE}.about('context_{talk.contexts - 1}')"
        )
        found = re.fullmatch(r"\('(\w{1,31})', (\d+)\)", told.get("result") or "")
        if found:
            self.context_type, self.context_length = found.group(1), int(found.group(2))
        if self.plan.setup_code:
            self._ours(self.plan.setup_code)
        self._ready = True
        self._metadata()

    def _ours(self, code: str) -> Dict[str, Any]:
        """Runs code of our own in the session."""
        result = self._execute(code, _SETUP_TIMEOUT)
        if not result.get("success"):
            raise errors.SandboxError(f"the session could not be prepared: {result.get('error')}", "setup_failed")
        return result

    def _close(self) -> None:
        """The session goes, unless it is a conversation's that can go on."""
        talk = self.conversation
        if talk.session is None:
            return
        if self.persistent and self._ready and not self._lost:
            talk.history = json.dumps(self._whole(), ensure_ascii=False)
            return
        talk.session.delete()
        talk.session, talk.contexts, talk.histories, talk.history = None, 0, 0, None

    def _metadata(self) -> None:
        model = self.model
        self.run_metadata = {
            "root_model": model.name,
            "max_depth": self.plan.max_depth,
            "max_iterations": self.plan.max_iterations,
            "backend": model.api,
            "backend_kwargs": {"model_name": model.name, "base_url": shown(model.base_url)},
            "environment_type": "codemode",
            "environment_kwargs": {},
            "other_backends": [self.plan.other.api] if self.plan.other else None,
        }
        told = {
            "parent": self.parent.number if self.parent else None,
            "call": self.call,
            "depth": self.depth,
            **self.run_metadata,
            "query": self.query,
            "context_type": self.context_type,
            "context_length": self.context_length,
            "prompts": PROMPTS,
        }
        if self.tree.log is not None and self.parent is None:
            self.tree.log.metadata({"timestamp": timestamp(), **told})
        self.tree.emit("metadata", self.number, **told)

    # --- what the model is told

    def _system(self) -> str:
        plan = self.plan
        custom = filled("custom_tools", tools=self.tools.describe()) if self.tools.about else ""
        values = {
            "output_limit": OUTPUT_LIMIT,
            "recursion": prompt("recursion" if self.depth + 1 < plan.max_depth else "no_recursion"),
            "custom_tools": custom,
            "custom_tools_section": custom,
        }
        if plan.system_prompt:
            return fill(plan.system_prompt, **values)
        return filled("system", **values) + (f"\n\n{prompt('orchestrator')}" if plan.orchestrator else "")

    def _first(self) -> str:
        """The first message of the user: what is asked, about what."""
        talk = self.conversation
        values: Dict[str, Any] = {
            "contexts": talk.contexts,
            "newest": talk.contexts - 1,
            "context_type": self.context_type,
            "context_length": self.context_length,
            "capacity": self._capacity(),
        }
        none = self.context is None
        if none and talk.contexts > (0 if talk.histories else 1):
            about = "old_contexts"
        elif none or (talk.contexts == 1 and self.context_type == "str" and self.context_length == 0):
            about = "no_context"
        else:
            about = "contexts" if talk.contexts > 1 else "context"
        parts = [filled("query", query=self.query) if self.query else prompt("no_query"), filled(about, **values)]
        if talk.histories:
            parts.append(filled("histories", histories=talk.histories, newest=talk.histories - 1))
        if self.plan.user_prologue and self.parent is None:
            parts.append(self.plan.user_prologue)
        return "\n\n".join(parts)

    def _capacity(self) -> int:
        """Characters that a sub-query can read, with room for its reply."""
        return window(self.plan.leaf(self.depth).name, self.plan.prices) * 3

    def _say(self, name: str) -> None:
        """The user's next message: what is pending, and a prompt."""
        told = filled(name, turn=self.iteration, max_turns=self.plan.max_iterations)
        self.messages.append(_message("user", f"{self._pending}\n\n{told}"))

    def _whole(self) -> List[Message]:
        """All messages but the system's, with those that compaction has taken away."""
        return self._old + self.messages[2:] if self._old else self.messages[1:]

    # --- the turns

    def _loop(self) -> str:
        self._preface = self._pending = self._first()
        self.messages.append(_message("system", self._system()))
        last = self.plan.max_iterations
        for self.iteration in range(1, last + 1):
            if self.plan.compaction:
                self._compact()
            self._say("first_turn" if self.iteration == 1 else "last_turn" if self.iteration == last else "turn")
            answer = self._turn(last=False)
            if answer is not None:
                return answer
        self._say("final")
        self.iteration = last + 1
        answer = self._turn(last=True)
        assert answer is not None
        return answer

    def _turn(self, last: bool) -> Optional[str]:
        """Asks the model and runs what its reply holds. The answer, if there is one; else what the model is told is pending."""
        started = time.monotonic()
        self._pending = ""
        sent = list(self.messages)
        self.tree.emit("turn", self.number, iteration=self.iteration)
        reply, words, reading = self._reply(last)
        self.messages.append(_message("assistant", words))
        blocks: List[_Block] = []
        answer: Optional[str] = None
        for number, code in enumerate([] if last else reading.blocks):
            self.scope.check()
            blocks.append(self._run_block(number, code))
            answer = blocks[-1].final
            if answer is not None:
                break
        self._pending = outputs_message([block.output for block in blocks], len(reading.blocks) > 1) if blocks else ""
        if answer is None and reading.final is not None:
            answer = reading.final.text if reading.final.text is not None else self._look_up(str(reading.final.variable))
        if answer is None and last:
            answer = words
        if answer is not None and len(answer) > ANSWER_MAX:
            answer = answer[:ANSWER_MAX] + text("answer_cut", limit=ANSWER_MAX)
        self._record(sent, reply, blocks, answer, started)
        self.scope.check()
        if answer is None:
            self._count_errors([block.error for block in blocks if block.error])
            if reading.unclosed or not self._pending:
                nothing = prompt("unclosed" if reading.unclosed else "no_code")
                self._pending = f"{self._pending}\n\n{nothing}" if self._pending else nothing
        return answer

    def _count_errors(self, found: List[str]) -> None:
        self._errors = self._errors + 1 if found else 0
        if self.plan.max_errors is not None and self._errors >= self.plan.max_errors:
            raise errors.ErrorThresholdExceededError(self._errors, self.plan.max_errors, found[-1])

    def _reply(self, last: bool) -> Tuple[Reply, str, Reading]:
        """A reply that is good for something, what it says behind its thoughts, and what is in it."""
        while True:
            reply = self._ask(self.messages)
            reading = read_reply(reply.text)
            words = reply.text[thoughts(reply.text) :]
            whole = bool(reading.blocks or reading.final)
            if words.strip() and (reply.failure in ("", "refusal") or (reply.failure in ("cut", "too_large") and whole and not last)):
                self._bad_replies = 0
                return reply, words, reading
            self._bad_replies += 1
            if reply.failure not in _WEAK or self._bad_replies >= _BAD_REPLIES_MAX:
                what = ": ".join(part for part in (reply.failure or "empty", reply.reason) if part)
                raise errors.ModelError(f"the model `{self.model.name[:100]}` gave no reply of use: {what}", reply.failure or "empty")

    def _ask(self, messages: List[Message], aloud: bool = True) -> Reply:
        iteration = self.iteration

        def delta(words: str) -> None:
            self.tree.emit("delta", self.number, iteration=iteration, text=words)

        reply = self.tree.ask(self.model, messages, self.scope, self.usage, delta if aloud and self.plan.deltas else None)
        used = reply.usage
        self._tokens = 0 if used.estimated else used.input_tokens + used.output_tokens
        words = reply.text[thoughts(reply.text) :]
        if aloud and words.strip():
            self.partial = words
        self.scope.check()
        return reply

    def _look_up(self, name: str) -> Optional[str]:
        """FINAL_VAR in words."""
        block = _Block(self)
        result = self._report(block, f"{_MODULE}.FINAL_VAR({name!r})")
        if block.final is None:
            told = str(result.get("stdout") or "").strip()
            self._pending = "\n\n".join(part for part in (self._pending, told) if part)
        return block.final

    def _compact(self) -> None:
        """Replaces the conversation by a summary when it fills the model's window."""
        estimated = self._tokens or sum(estimate(message["content"]) for message in self.messages)
        before = estimated + estimate(self._pending)
        if before < self.plan.compaction_threshold * window(self.model.name, self.plan.prices):
            return
        if self.iteration <= max(self._compacted + 1, 1):
            return
        self._compacted = self.iteration - 1
        self._say("compaction")
        reply = self._ask(self.messages, aloud=False)
        words = reply.text[thoughts(reply.text) :]
        if reply.failure or not words.strip():
            self.messages.pop()  # the turn begins without it
            return
        self._old.extend(self.messages[2 if self._old else 1 :])
        self.messages = [self.messages[0], _message("user", self._preface), _message("assistant", words)]
        self._pending = prompt("continue")
        self._tokens, self._shown = 0, len(self.messages)
        after = sum(estimate(message["content"]) for message in self.messages) + estimate(self._pending)
        self.tree.emit("compaction", self.number, iteration=self.iteration, tokens_before=before, tokens_after=after)
        assert self._session
        self._session.put("history", json.dumps(self._whole(), ensure_ascii=False), "json", self.scope)
        self._ours(f"{_MODULE}.keep('history')")

    def _record(self, sent: List[Message], reply: Reply, blocks: List["_Block"], answer: Optional[str], started: float) -> None:
        used = reply.usage
        record: Event = {
            "iteration": self.iteration,
            "prompt": sent,
            "response": reply.text,
            "code_blocks": [block.record() for block in blocks],
            "final_answer": answer,
            "iteration_time": time.monotonic() - started,
            "model_time": reply.seconds,
            "usage": {
                "input_tokens": used.input_tokens,
                "output_tokens": used.output_tokens,
                "cost": used.cost,
                "estimated": used.estimated,
            },
        }
        if self.tree.log is not None:
            self.iterations.append({"type": "iteration", "timestamp": timestamp(), **record})
            if self.parent is None:
                self.tree.log.iteration(self.iterations[-1])
        self.tree.emit("iteration", self.number, **{**record, "prompt": sent[self._shown :]})
        self._shown = len(sent) + 1  # with the reply

    # --- code

    def _execute(self, code: str, timeout: float, block: Optional["_Block"] = None, number: Optional[int] = None) -> Dict[str, Any]:
        assert self._session
        shown = block or _Block(self)
        iteration = self.iteration

        def output(stream: str, words: str) -> None:
            if number is not None:
                shown.streamed += len(words)
                self.tree.emit("output", self.number, iteration=iteration, block=number, stream=stream, text=words)

        for tries in range(_BUSY_TRIES, 0, -1):
            try:
                return self._session.execute(
                    code,
                    self.scope,
                    timeout=timeout,
                    tools=QUERIES if number is not None else REPORTS,
                    on_call=lambda name, arguments, scope: answer_call(shown, name, arguments, scope),
                    on_output=output,
                    inline=is_inline,
                    loose=is_loose,
                )
            except errors.SandboxError as error:
                self._lost = self._lost or error.reason in _LOST
                if error.reason not in _BUSY or tries == 1:
                    raise
                self.scope.sleep(1.0)
        raise AssertionError("the last try returns or raises")

    def _report(self, block: "_Block", code: str = "") -> Dict[str, Any]:
        """Asks the session for the answer and the names of variables."""
        block.forget_parts()
        result = self._execute(f"{code}\n{_REPORT}" if code else _REPORT, max(self.plan.execution_timeout, 1.0), block)
        take_report(block, result.get("result"))
        if not result.get("success") and not block.error:
            block.error = text("error", reason=result.get("error"))
        return result

    def _run_block(self, number: int, code: str) -> "_Block":
        self.tree.emit("code", self.number, iteration=self.iteration, block=number, code=code)
        block = _Block(self, code)
        try:
            try:
                block.result = self._execute(code, self.plan.execution_timeout, block, number)
            except errors.SandboxError as error:
                if error.reason != "state_rolled_back":
                    raise
                # The report of the block before was lost, which is no harm.
                block.result = self._execute(code, self.plan.execution_timeout, block, number)
        except errors.SandboxError as error:
            if error.reason not in ("broken", *_FOR_THE_MODEL):
                raise
            block.result = {"success": False, "state": "broken" if error.reason == "broken" else "error", "error": str(error)}
        result = block.result
        if result.get("state") == "lost":
            self._lost = True
            raise errors.SandboxError(f"the session was lost: {result.get('error')}", "session_lost")
        if result.get("state") in ("rolled_back", "broken", "error"):
            block.error = text(str(result["state"]), reason=result.get("error"))
        elif result.get("timed_out"):
            block.error = text("timeout", seconds=f"{self.plan.execution_timeout:g}")
        elif not result.get("success"):
            block.error = str(result.get("error"))
        try:
            self._report(block)
        except errors.SandboxError as error:
            if error.reason != "state_rolled_back":
                raise
            block.error = text("rolled_back", reason=error)
            self._report(block)
        stdout, stderr = result.get("stdout") or "", result.get("stderr") or ""
        missing = max(0, block.streamed - len(stdout) - len(stderr))
        block.output = block_output(stdout, result.get("result"), stderr, block.error, list(block.variables), missing)
        return block


class _Block:
    """One block of code while it runs, and what came of it."""

    def __init__(self, node: Node, code: str = "") -> None:
        self.node, self.code = node, code
        self.result: Dict[str, Any] = {}
        self.error: Optional[str] = None
        self.output = ""
        self.final: Optional[str] = None
        self.variables: Dict[str, str] = {}
        self.parts: Dict[str, List[str]] = {}  #: of long texts that come in pieces
        self.part_room = PARTS_MAX
        self.streamed = 0  #: characters of output
        self.calls = 0  #: sub-queries
        self.subcalls: Dict[int, RLMChatCompletion] = {}
        self.lock = threading.Lock()

    def forget_parts(self) -> None:
        with self.lock:
            self.parts.clear()
            self.part_room = PARTS_MAX

    def record(self) -> Event:
        result = self.result
        more = {"value": result.get("result"), "error": self.error}
        return {
            "code": self.code,
            "result": {
                "stdout": result.get("stdout") or "",
                "stderr": result.get("stderr") or (self.error or ""),
                "locals": self.variables,
                "execution_time": result.get("execution_time") or 0.0,
                "rlm_calls": [self.subcalls[number].to_dict() for number in sorted(self.subcalls)],
                "final_answer": self.final,
                **{name: told for name, told in more.items() if told is not None},
            },
        }


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def timestamp() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
