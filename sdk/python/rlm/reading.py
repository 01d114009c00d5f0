# SPDX-License-Identifier: Apache-2.0
"""How a model's reply is read, and what it is told of its code. rlm/cases/README.md has the rules; the service has the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

from .common import text

#: Characters of one block's output that a model sees, and how many of them are its beginning where some are dropped.
OUTPUT_LIMIT, OUTPUT_HEAD = 20_000, 16_000

_LINE = re.compile(r"([^\n]*?)(\r?\n|\r?\Z)")
_FENCE = re.compile(r"( *)(?:(`{3,})[ \t]*([^\s`]*)|(~{3,})[ \t]*(\S*))[ \t]*\Z")
_FINAL = re.compile(r"[ \t]*FINAL\(")
_FINAL_VAR = re.compile(r"[ \t]*FINAL_VAR\(([^)\n]*)\)")


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


class _Line(NamedTuple):
    start: int
    text: str
    fence: Optional[Tuple[int, str, int, str]]  # blanks before it, sign, length, word


def _lines(reply: str, start: int) -> Iterator[_Line]:
    while start < len(reply):
        found = _LINE.match(reply, start)
        assert found
        line = found.group(1)
        fence = _FENCE.match(line)
        if fence:
            signs = fence.group(2) or fence.group(4)
            yield _Line(start, line, (len(fence.group(1)), signs[0], len(signs), fence.group(3) or fence.group(5) or ""))
        else:
            yield _Line(start, line, None)
        start = found.end()


class _Open(NamedTuple):
    """A fence that waits for its end."""

    blanks: int
    sign: str
    length: int
    word: str
    line: int

    def closed_by(self, line: _Line) -> bool:
        if line.fence is None:
            return False
        blanks, sign, length, word = line.fence
        return not word and sign == self.sign and length >= self.length and blanks <= self.blanks + 3

    def holds(self, line: _Line) -> bool:
        """Whether the line opens a fence that counts inside of this one."""
        return line.fence is not None and line.fence[3] != "" and line.fence[1] == self.sign and line.fence[2] >= self.length


def read_reply(reply: str) -> Reading:
    start = _behind_thoughts(reply)
    if start is None:
        return Reading([], None, False)
    lines = list(_lines(reply, start))
    blocks: List[str] = []
    outside: List[int] = []
    fences: List[int] = []  # where one begins
    stack: List[_Open] = []
    for number, line in enumerate(lines):
        if not stack:
            if line.fence:
                stack.append(_Open(*line.fence, number))
                fences.append(line.start)
            else:
                outside.append(number)
        elif stack[-1].closed_by(line):
            done = stack.pop()
            if not stack and done.word == "repl":
                blocks.append("\n".join(_without_blanks(inner.text, done.blanks) for inner in lines[done.line + 1 : number]))
        elif stack[-1].holds(line):
            assert line.fence
            if line.fence[3] == "repl":
                stack.clear()
                fences.append(line.start)
            stack.append(_Open(*line.fence, number))
    unclosed = bool(stack) and stack[0].word == "repl"
    return Reading(blocks, _final(reply, [lines[number] for number in outside], fences), unclosed)


def _behind_thoughts(reply: str) -> Optional[int]:
    """Where the reading begins; None where there is nothing but thoughts."""
    if not reply.lstrip().startswith("<think>"):
        return 0
    end = reply.find("</think>")
    return None if end < 0 else end + len("</think>")


def _without_blanks(line: str, count: int) -> str:
    return line[min(count, len(line) - len(line.lstrip(" "))) :]


def _final(reply: str, outside: List[_Line], fences: List[int]) -> Optional[Final]:
    for line in outside:
        found = _FINAL_VAR.match(line.text)
        if found:
            name = found.group(1).strip("'\"` \t")
            if name.isidentifier():
                return Final(variable=name)
    for line in outside:
        found = _FINAL.match(line.text)
        if found:
            begin = line.start + found.end()
            end = _final_end(reply, begin, min((fence for fence in fences if fence > begin), default=len(reply)))
            content = _unquoted(reply[begin:end].strip()) if end is not None else ""
            if content:
                return Final(text=content)
    return None


def _final_end(reply: str, begin: int, next_fence: int) -> Optional[int]:
    count, low = 1, 1
    last: Optional[int] = None
    for found in re.finditer(r"[()]", reply[begin:]):
        where = begin + found.start()
        count += 1 if found.group() == "(" else -1
        if found.group() == "(":
            continue
        ends_line = not reply[where + 1 : _line_end(reply, where)].strip()
        if count <= 0 and count < low:
            low = count
            if ends_line:
                return where
        if ends_line and where < next_fence:
            last = where
    return last if low > 0 else None


def _line_end(reply: str, where: int) -> int:
    end = reply.find("\n", where)
    return len(reply) if end < 0 else end


def _unquoted(content: str) -> str:
    for quote in ('"""', "'''", '"', "'"):
        if len(content) >= 2 * len(quote) and content.startswith(quote) and content.endswith(quote):
            inner = content[len(quote) : -len(quote)]
            return content if quote in inner else inner
    return content


def shorten(content: str, limit: int, head: int, note: str) -> str:
    """The beginning and the end of what is longer than `limit` characters, with a line about the rest between them."""
    if len(content) <= limit:
        return content
    dropped = text(note, dropped=len(content) - limit)
    return f"{content[:head]}\n{dropped}\n{content[len(content) - (limit - head):]}"


def block_output(stdout: str, value: Optional[str], stderr: str, error: Optional[str], variables: List[str]) -> str:
    """What the model sees of one block."""
    parts = [stdout.rstrip("\n"), value or "", stderr.rstrip("\n")]
    if error and error not in stderr:
        parts.append(error)
    if variables:
        parts.append(text("variables", names=", ".join(variables)))
    shown = "\n".join(part for part in parts if part) or text("no_output")
    return shorten(shown, OUTPUT_LIMIT, OUTPUT_HEAD, "dropped")


def outputs_message(outputs: List[str]) -> str:
    """The message about all blocks of a turn."""
    if len(outputs) == 1:
        return f"{text('output')}\n{outputs[0]}"
    return "\n\n".join(f"{text('output_of', number=number)}\n{shown}" for number, shown in enumerate(outputs, 1))


def preview(content: Any, limit: int = 80) -> str:
    """The beginning of a text in one line."""
    return " ".join(str(content)[: 4 * limit].split())[:limit]


