# SPDX-License-Identifier: Apache-2.0
"""What code in a session asks of us: models, runs of its own, functions of the caller. rlm/session.py is the other side."""

from __future__ import annotations

import itertools
import json
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, TypeVar

from . import errors
from .common import text
from .reading import preview, thoughts
from .results import RLMChatCompletion, UsageCounter
from .scope import Place, Scope

if TYPE_CHECKING:
    from .engine import _Block

_log = logging.getLogger(__name__)

#: Names that the model's code calls as tools of the caller, and those that our own code does.
QUERIES = [f"rlm.{name}" for name in "llm_query llm_query_batched rlm_query rlm_query_batched part tool".split()]
REPORTS = ["rlm.part"]
#: Plain completions of one batch that run at once.
LEAVES_AT_ONCE = 16
#: Sub-queries of one block, runs of one tree.
SUBCALLS_MAX, NODES_MAX = 10_000, 1000
#: Characters of a prompt of a plain sub-query.
PROMPT_MAX = 32 << 20
#: Bytes of JSON that answer one call of code.
RESULT_MAX = 3 << 20

_T = TypeVar("_T")
_S = TypeVar("_S")


def is_inline(name: str) -> bool:
    """Calls that are answered at once, in the order of their coming."""
    return name == "rlm.part"


def is_loose(name: str) -> bool:
    """Calls whose end cannot be hastened: functions of the caller's."""
    return name == "rlm.tool"


def answer_call(block: "_Block", name: str, arguments: Dict[str, Any], scope: Scope) -> Any:
    """Answers one call of a block. What it raises is the code's exception."""
    short = name[len("rlm.") :]
    if short == "part":
        return _part(block, str(arguments.get("key")), str(arguments.get("text")))
    if short == "tool":
        called, args, kwargs = arguments.get("name"), arguments.get("args") or [], arguments.get("kwargs") or {}
        if called not in block.node.tools.functions or not isinstance(args, list) or not isinstance(kwargs, dict):
            raise ValueError(text("bad_call"))
        try:
            return block.node.tools.call(str(called), args, kwargs)
        except Exception as error:
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
    model = arguments.get("model")
    model = model if isinstance(model, str) else None
    if short.endswith("_batched"):
        if not isinstance(arguments.get("prompts"), list):
            raise ValueError(text("bad_call"))
        prompts = [_text(block, entry) for entry in arguments["prompts"]]
        return _batch(block, short == "rlm_query_batched", prompts, model, scope)
    with block.lock:
        block.calls += 1
        if block.calls > SUBCALLS_MAX:
            raise ValueError(text("too_many_subcalls", limit=SUBCALLS_MAX))
    return _fitting([_query(block, short == "rlm_query", _text(block, arguments.get("prompt")), model, scope)])[0]


def _part(block: "_Block", key: str, piece: str) -> None:
    with block.lock:
        block.part_room -= sys.getsizeof(piece)
        if block.part_room < 0:
            raise ValueError(text("too_many_texts"))
        block.parts.setdefault(key, []).append(piece)


def _text(block: "_Block", value: Any) -> str:
    """A text, or the pieces that were sent before under a key."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("key"), str):
        raise ValueError(text("bad_call"))
    with block.lock:
        pieces = block.parts.pop(value["key"], None)
        if pieces is None:
            raise ValueError(text("unknown_text"))
        block.part_room += sum(map(sys.getsizeof, pieces))
    return "".join(pieces)


def take_report(block: "_Block", result: Any) -> None:
    """What `report()` in a session has said. What is nonsense says nothing."""
    try:
        report = json.loads(result)
        if "key" in report:
            report = json.loads(_text(block, report))
        final, variables = report.get("final"), report.get("variables")
        block.variables = {str(name)[:100]: str(kind)[:100] for name, kind in itertools.islice(variables.items(), 100)}
        block.final = None if final is None else _text(block, final)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        _log.debug("a report that is none: %s", error)


def _batch(block: "_Block", recursive: bool, prompts: List[str], model: Optional[str], scope: Scope) -> List[str]:
    width = block.node.plan.max_concurrent_subcalls if recursive else LEAVES_AT_ONCE
    with block.lock:
        block.calls += len(prompts)
        if block.calls > SUBCALLS_MAX:
            raise ValueError(text("too_many_subcalls", limit=SUBCALLS_MAX))
    return _fitting(side_by_side(lambda prompt: _query(block, recursive, prompt, model, scope), prompts, width))


def _fitting(replies: List[str]) -> List[str]:
    """The replies, cut where they are longer than one answer to the code may be."""
    room, found = RESULT_MAX, []
    for reply in replies:
        size = len(json.dumps(reply))
        if size > room:
            keep = max(0, int(len(reply) * room / size) - 100)
            reply = reply[:keep] + text("reply_cut", dropped=len(reply) - keep)
            size = len(json.dumps(reply))
        room -= size
        found.append(reply)
    return found


def side_by_side(func: Callable[[_S], _T], items: List[_S], width: int) -> List[_T]:
    """func(item) for all of them, `width` at once, in their order. Raises what one of them has raised, after all have ended."""
    found: Dict[int, _T] = {}
    failures: List[BaseException] = []
    rest = iter(range(len(items)))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                index = next(rest, None)
            if index is None or failures:
                return
            try:
                found[index] = func(items[index])
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work, name="rlm-batch", daemon=True) for _ in range(min(width, len(items)) - 1)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [found[index] for index in range(len(items))]


def _query(block: "_Block", recursive: bool, prompt: str, name: Optional[str], scope: Scope) -> str:
    """One sub-query. A failure is a text that begins with "Error:"; it raises only when nobody waits any more."""
    node = block.node
    scope.check()
    deep = recursive and node.depth + 1 < node.plan.max_depth
    refused = _refusal(block, deep, prompt)
    if refused:
        return text("error", reason=refused)
    default = node.plan.model(node.depth + 1) if deep else node.plan.leaf(node.depth)
    model = node.plan.named(name, default)
    call = node.tree.next_call()
    node.tree.emit(
        "subcall_start",
        node.number,
        iteration=node.iteration,
        call=call,
        kind="rlm" if deep else "llm",
        depth=node.depth + 1,
        model=model.name,
        prompt_preview=preview(prompt),
        prompt_length=len(prompt),
    )
    started = time.monotonic()
    done = RLMChatCompletion(model.name, prompt, "", UsageCounter().summary(), 0.0, None, "broken off")
    try:
        if deep:  # code may call from many threads
            with Place(node.children, scope):
                _run(block, done, call, model, scope)
        else:
            _ask(block, done, call, model, scope)
    finally:
        done.execution_time = time.monotonic() - started
        used = done.usage_summary
        node.tree.emit(
            "subcall_complete",
            node.number,
            iteration=node.iteration,
            call=call,
            duration=done.execution_time,
            error=done.error,
            input_tokens=used.total_input_tokens,
            output_tokens=used.total_output_tokens,
            cost=used.total_cost,
            response_preview=preview(done.response, 200),
        )
        if node.tree.log is not None:
            with block.lock:
                block.subcalls[call] = done
    return done.response


def _refusal(block: "_Block", deep: bool, prompt: str) -> str:
    """Why a sub-query is not begun; "" when it is."""
    if deep and not block.node.tree.room_for_a_node():
        return text("too_many_runs", limit=NODES_MAX)
    if not deep and len(prompt) > PROMPT_MAX:
        return text("prompt_too_long", length=len(prompt), limit=PROMPT_MAX)
    return ""


def _ask(block: "_Block", done: RLMChatCompletion, call: int, model: Any, scope: Scope) -> None:
    """A plain completion."""
    usage = UsageCounter(block.node.usage)
    try:
        reply = block.node.tree.ask(model, [{"role": "user", "content": str(done.prompt) or " "}], scope, usage)
    finally:
        done.usage_summary = usage.summary()
    words = reply.text[thoughts(reply.text) :].lstrip("\r\n")
    if words and reply.failure in ("", "refusal"):
        done.response, done.error = words, None
        return
    done.error = ": ".join(part for part in (reply.failure or "empty", reply.reason) if part)
    done.response = text("error", reason=done.error)


def _run(block: "_Block", done: RLMChatCompletion, call: int, model: Any, scope: Scope) -> None:
    """A run of its own, whose context is the prompt."""
    from .engine import Context, Node

    node = block.node
    child = Node(
        node.tree, node.depth + 1, None, Context.of(done.prompt), scope=scope, parent=node, call=call, model=model
    )
    try:
        done.response = child.run()
        done.error = None
    except errors.RLMError as error:
        scope.check()
        done.error = str(error)
        done.response = text("error", reason=error)
    finally:
        done.usage_summary = child.usage.summary()
        if node.tree.log is not None:
            done.metadata = {"run_metadata": child.run_metadata, "iterations": child.iterations}
