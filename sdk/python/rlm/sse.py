# SPDX-License-Identifier: Apache-2.0
"""Server-sent events, out of the pieces in which they arrive."""

from __future__ import annotations

import re
from typing import Iterable, Iterator, List, NamedTuple

_LINE_END = re.compile(rb"\r\n|\n|\r")


class Event(NamedTuple):
    """`name` is "message" where the server names none; `id` the newest that it has said."""

    name: str
    data: str
    id: str


def lines(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """The lines of a stream, without their ends; what follows the last one is none. ValueError for one beyond `limit` bytes."""
    kept: List[bytes] = []
    size = 0
    for piece in pieces:
        kept.append(piece)
        size += len(piece)
        if b"\n" in piece or b"\r" in piece:
            whole = b"".join(kept)
            # A \r at the very end may be half of a \r\n.
            tail = whole[-1:] if whole.endswith(b"\r") else b""
            *found, rest = _LINE_END.split(whole[:-1] if tail else whole)
            yield from found
            kept, size = [rest + tail], len(rest)
        if size > limit:
            raise ValueError(f"a line is longer than {limit} bytes")


def events(pieces: Iterable[bytes], limit: int) -> Iterator[Event]:
    """The events of a stream, as they are complete. ValueError for one beyond `limit` bytes."""
    name, ident, data, size = "", "", [], 0  # type: str, str, List[str], int
    for line in lines(pieces, limit):
        if not line:
            if data:
                yield Event(name or "message", "\n".join(data), ident)
            name, data, size = "", [], 0
            continue
        field, _, value = line.partition(b":")
        text = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            data.append(text.decode("utf-8", "replace"))
            size += len(text)
        elif field == b"event":
            name = text.decode("utf-8", "replace")
        elif field == b"id":
            ident = text.decode("utf-8", "replace")
        if size > limit:
            raise ValueError(f"an event is longer than {limit} bytes")
