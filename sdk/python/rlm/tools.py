# SPDX-License-Identifier: Apache-2.0
"""Functions and data of the caller's own that code of a run finds in its session."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional

from .common import is_variable

#: Names that a session has already, and those that it does not keep.
_RESERVED = re.compile(
    r"_.*|(llm_query|rlm_query)(_batched)?|SHOW_VARS|FINAL|FINAL_VAR|answer|(context|history)(_[0-9]+)?", re.DOTALL
)


@dataclass
class Tools:
    """What is made of ``custom_tools``: functions that run here, variables, and source that defines its name."""

    functions: Dict[str, Callable[..., Any]] = field(default_factory=dict)
    variables: Dict[str, Any] = field(default_factory=dict)
    sources: Dict[str, str] = field(default_factory=dict)
    about: Dict[str, str] = field(default_factory=dict)  #: a line for the model each

    def wire(self) -> Dict[str, Any]:
        """Variables and sources, as rlm_session.add() takes them."""
        found: Dict[str, Any] = {name: {"tool": value} for name, value in self.variables.items()}
        return {**found, **{name: {"code": source} for name, source in self.sources.items()}}

    def describe(self) -> str:
        return "\n".join(f"- {line}" for line in self.about.values())

    def call(self, name: str, args: List[Any], kwargs: Dict[str, Any]) -> Any:
        """What the function returns, as JSON can say it; anything else by its text. A coroutine is run to its end."""
        found = self.functions[name](*args, **kwargs)
        if inspect.isawaitable(found):
            found = asyncio.run(_awaited(found))
        try:
            json.dumps(found, allow_nan=False)
            return found
        except (TypeError, ValueError):
            return str(found)


async def _awaited(found: Any) -> Any:
    return await found


def read_tools(custom: Optional[Mapping[str, Any]]) -> Tools:
    """``{name: value}`` or ``{name: {"tool": value, "description": text}}``. A value that can be called is a function, any other
    must have a JSON form. ``{name: {"code": text, "description"}}`` is Python that defines the name, for the session itself.
    ValueError for a name that is taken or is none, TypeError for a value without a JSON form."""
    tools = Tools()
    for name, entry in (custom or {}).items():
        if not isinstance(name, str) or not is_variable(name):
            raise ValueError(f"custom tool {name!r}: its name is no identifier")
        if _RESERVED.fullmatch(name):
            raise ValueError(f"custom tool {name!r}: the name is reserved")
        described = isinstance(entry, Mapping) and ("tool" in entry or "code" in entry) and set(entry) <= {"tool", "code", "description"}
        about = str(entry.get("description") or "") if described else ""
        if described and "code" in entry:
            compile(str(entry["code"]), f"<{name}>", "exec")
            tools.sources[name] = str(entry["code"])
            tools.about[name] = _about(f"`{name}(...)`", about)
            continue
        value = entry["tool"] if described else entry
        if callable(value):
            tools.functions[name] = value
            tools.about[name] = _about(f"`{name}{_signature(value)}`", about or _first_line(value))
        else:
            try:
                tools.variables[name] = json.loads(json.dumps(value, allow_nan=False))
            except (TypeError, ValueError) as error:
                raise TypeError(f"custom tool {name!r} can neither be called nor sent as JSON: {error}") from None
            tools.about[name] = _about(f"`{name}` ({type(tools.variables[name]).__name__})", about)
    return tools


def _about(name: str, text: str) -> str:
    return f"{name}: {' '.join(text.split())}" if text else name


def _signature(func: Callable[..., Any]) -> str:
    try:
        names = [
            ("*" if entry.kind is entry.VAR_POSITIONAL else "**" if entry.kind is entry.VAR_KEYWORD else "")
            + name
            + (f"={entry.default!r}" if entry.default is not entry.empty else "")
            for name, entry in inspect.signature(func).parameters.items()
        ]
        return f"({', '.join(names)})"
    except (TypeError, ValueError):
        return "(...)"


def _first_line(func: Callable[..., Any]) -> str:
    return (inspect.getdoc(func) or "").split("\n\n")[0]
