# SPDX-License-Identifier: Apache-2.0
"""How a model's reply is read, and what it is told of its code. rlm/cases/README.md has the rules; the service has the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, List, NamedTuple, Optional

from .common import is_variable, text

#: Characters of one block's output that a model sees, and how many of them are its beginning where some are dropped.
OUTPUT_LIMIT, OUTPUT_HEAD = 20_000, 16_000

#: Of one reply: blocks that run, fences inside one another that are told apart, lines that may hold an answer.
BLOCKS_MAX, NESTED_MAX, FINALS_MAX = 100, 16, 16

#: Closing fences may have so many blanks more than the opening ones.
_CLOSE_BLANKS = 3

#: Lines that mean something: fences, and answers.
_LINE = re.compile(r"^([ \t]*)(?:(`{3,}|~{3,})([^\n]*)|FINAL(_VAR)?\()", re.MULTILINE)
_THOUGHTS_END = re.compile(r"^[ \t]*(</think>)[ \t]*\r?$", re.MULTILINE)
_LINE_ENDS = re.compile(r"[ \t\r]*(?:\n|\Z)")
_PARENTHESIS = re.compile(r"[()]")
_VARIABLE = re.compile(r"([^)\n]*)\)")


class Final(NamedTuple):
    """An answer in words: one of both is set."""

    text: Optional[str] = None
    variable: Optional[str] = None


@dataclass
class Reading:
    """What a reply holds: code to run, in order; an answer, or None; whether a block of code has no end."""

    blocks: List[str]
    final: Optional[Final]
    unclosed: bool


class _Fence(NamedTuple):
    blanks: int
    sign: str
    length: int
    word: str
    start: int  # of its line
    end: int  # of its line


class _FinalLine(NamedTuple):
    begin: int  # behind the parenthesis
    variable: bool


def _fence(reply: str, found: "re.Match[str]") -> Optional[_Fence]:
    blanks, signs, rest = found.group(1), found.group(2), found.group(3)
    if signs[0] == "`" and "`" in rest:
        return None
    return _Fence(len(blanks), signs[0], len(signs), rest.strip(" \t\r"), found.start(), found.end())


def read_reply(reply: str) -> Reading:
    blocks: List[str] = []
    finals: List[_FinalLine] = []
    fences: List[int] = []  # where those begin that are not inside of others
    stack: List[_Fence] = []
    for found in _LINE.finditer(reply, thoughts(reply)):
        fence = _fence(reply, found) if found.group(2) else None
        if fence is None:
            if not stack and not found.group(2) and len(finals) < FINALS_MAX:
                finals.append(_FinalLine(found.end(), bool(found.group(4))))
        elif not stack or (fence.word == "repl" and _inside(stack[-1], fence)):
            if not stack:
                fences.append(fence.start)
            stack = [fence]
        elif _inside(stack[-1], fence):
            if not fence.word and fence.blanks <= stack[-1].blanks + _CLOSE_BLANKS:
                opened = stack.pop()
                if not stack and opened.word == "repl" and len(blocks) < BLOCKS_MAX:
                    blocks.append(_code(reply[opened.end + 1 : fence.start], opened.blanks))
            elif fence.word and len(stack) < NESTED_MAX:
                stack.append(fence)
    unclosed = bool(stack) and stack[0].word == "repl"
    return Reading(blocks, _final(reply, finals, fences), unclosed)


def thoughts(reply: str) -> int:
    """How much of its beginning is a model's thoughts."""
    if not reply.lstrip(" \t\r\n").startswith("<think>"):
        unopened = _THOUGHTS_END.search(reply)  # services that write the opening tag into the prompt leave it out of the reply
        return unopened.end(1) if unopened and "<think>" not in reply[: unopened.start(1)] else 0
    end = reply.find("</think>")
    return len(reply) if end < 0 else end + len("</think>")


def _inside(opened: _Fence, fence: _Fence) -> bool:
    """Whether a fence means anything inside of another one."""
    return fence.sign == opened.sign and fence.length >= opened.length


def _code(content: str, blanks: int) -> str:
    lines = [line[:-1] if line.endswith("\r") else line for line in content.split("\n")[:-1]]
    return "\n".join(line[min(blanks, len(line) - len(line.lstrip(" \t"))) :] for line in lines)


def _final(reply: str, lines: List[_FinalLine], fences: List[int]) -> Optional[Final]:
    for line in lines:
        if line.variable:
            found = _VARIABLE.match(reply, line.begin)
            name = found.group(1).strip("\"'` \t") if found else ""
            if is_variable(name):
                return Final(variable=name)
    for line in lines:
        if not line.variable:
            end = _final_end(reply, line.begin, min((fence for fence in fences if fence > line.begin), default=len(reply)))
            content = "" if end is None else _unquoted(reply[line.begin : end].strip(" \t\r\n"))
            if content:
                return Final(text=content)
    return None


def _final_end(reply: str, begin: int, next_fence: int) -> Optional[int]:
    count, low = 1, 1
    last: Optional[int] = None
    for found in _PARENTHESIS.finditer(reply, begin):
        if found.group() == "(":
            count += 1
            continue
        count -= 1
        where = found.start()
        if count < low or where < next_fence:
            ends_line = _LINE_ENDS.match(reply, where + 1) is not None
            if count < low and count <= 0 and ends_line:
                return where
            if ends_line and where < next_fence:
                last = where
        low = min(low, count)
    return last if low > 0 else None


def _unquoted(content: str) -> str:
    for quote in ('"""', "'''", '"', "'"):
        if len(content) >= 2 * len(quote) and content.startswith(quote) and content.endswith(quote):
            inner = content[len(quote) : -len(quote)]
            if quote not in inner:
                return inner
    return content


def block_output(
    stdout: str, value: Optional[str], stderr: str, error: Optional[str], variables: List[str], missing: int = 0
) -> str:
    """What the model sees of one block. `missing` characters were dropped from the middle before."""
    parts = [part.rstrip("\r\n") for part in (stdout, value or "", stderr, "" if error and error in stderr else error or "")]
    if variables:
        parts.append(text("variables", names=", ".join(variables)))
    shown = "\n".join(part for part in parts if part) or text("no_output")
    if len(shown) <= OUTPUT_LIMIT:
        return shown
    dropped = text("dropped", dropped=len(shown) - OUTPUT_LIMIT + missing)
    return f"{shown[:OUTPUT_HEAD]}\n{dropped}\n{shown[OUTPUT_HEAD - OUTPUT_LIMIT:]}"


def outputs_message(outputs: List[str], several: bool = False) -> str:
    """The message about the blocks of a turn that have run; of `several`, or of the only one."""
    if len(outputs) == 1 and not several:
        return f"{text('output')}\n{outputs[0]}"
    return "\n\n".join(f"{text('output_of', number=number)}\n{shown}" for number, shown in enumerate(outputs, 1))


def preview(content: Any, limit: int = 80) -> str:
    """The beginning of a text."""
    return str(content)[:limit]


