# SPDX-License-Identifier: Apache-2.0
"""What the library shares with the service: the folder ``shared``, which is ``rlm`` at the root of the repository."""

from __future__ import annotations

import functools
import io
import json
import keyword
import os
import pathlib
import re
from typing import Any, BinaryIO, Dict, Mapping, Optional
from urllib.parse import urlsplit, urlunsplit

_FOLDER = pathlib.Path(__file__).parent / "shared"
PROMPTS = "v1"

#: Tokens of a window that nothing is known of.
WINDOW = 128_000


@functools.lru_cache(maxsize=None)
def session_source() -> str:
    """The file that defines the names of a session."""
    return (_FOLDER / "session.py").read_text(encoding="utf-8")


@functools.lru_cache(maxsize=None)
def prompt(name: str) -> str:
    """A prompt's text without its last line break, its variables in braces."""
    return (_FOLDER / "prompts" / PROMPTS / f"{name}.md").read_text(encoding="utf-8")[:-1]


def fill(template: str, /, **values: Any) -> str:
    """The template with its variables filled in. Doubled braces are braces; so is a single one that belongs to no variable."""

    def one(found: "re.Match[str]") -> str:
        whole = found.group()
        if whole in ("{{", "}}"):
            return whole[0]
        return str(values.get(found.group(1), whole))

    return re.sub(r"\{\{|\}\}|\{(\w+)\}", one, template)


def filled(name: str, /, **values: Any) -> str:
    return fill(prompt(name), **values)


def is_variable(name: str) -> bool:
    """Whether a variable can be called this."""
    return name.isidentifier() and not keyword.iskeyword(name)


def file_size(file: BinaryIO) -> int:
    """Bytes of a file or of a BytesIO, which is then at its beginning."""
    size = os.fstat(file.fileno()).st_size if not isinstance(file, io.BytesIO) else len(file.getbuffer())
    file.seek(0)
    return size


def shown(url: str) -> str:
    """What of a URL may be seen: not who it logs in as, with what password, nor its query, where some services want their key."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@functools.lru_cache(maxsize=None)
def _texts() -> Dict[str, str]:
    return dict(json.loads((_FOLDER / "prompts" / PROMPTS / "texts.json").read_text(encoding="utf-8")))


def text(name: str, /, **values: Any) -> str:
    """One of the short texts."""
    return fill(_texts()[name], **values)


@functools.lru_cache(maxsize=None)
def _models() -> Dict[str, Dict[str, Any]]:
    rows = json.loads((_FOLDER / "models.json").read_text(encoding="utf-8"))["models"]
    return {name.lower(): dict(row) for name, row in rows.items()}


def _row(model: str, more: Optional[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row with the longest name that the model's begins with; else that of what stands behind its last slash."""
    rows: Dict[str, Any] = {**_models(), **{name.lower(): row for name, row in (more or {}).items()}}
    for name in (model.lower(), model.lower().rsplit("/", 1)[-1]):
        found = max((key for key in rows if name.startswith(key)), key=len, default=None)
        if found is not None:
            return dict(rows[found])
    return {}


def window(model: str, more: Optional[Mapping[str, Any]] = None) -> int:
    """Tokens that a model can read and write at once."""
    return int(_row(model, more).get("window") or WINDOW)


def price(
    model: str, input_tokens: int, output_tokens: int, cached_tokens: int = 0, more: Optional[Mapping[str, Any]] = None
) -> Optional[float]:
    """US dollars, by list prices; None for a model without one. `more` has further rows: ``{"name": {"input": USD per million
    tokens, "output", "cached_input", "window"}}``."""
    row = _row(model, more)
    if row.get("input") is None or row.get("output") is None:
        return None
    cached = min(cached_tokens, input_tokens)
    cached_price = row.get("cached_input", row["input"])
    return float((input_tokens - cached) * row["input"] + cached * cached_price + output_tokens * row["output"]) / 1e6
