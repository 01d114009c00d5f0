# SPDX-License-Identifier: Apache-2.0
"""JSON Schemas of tools: taken from what was registered with them, or made of a function's signature and docstring."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import inspect
import json
import re
import typing
import uuid
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from codemode.core.errors import ValueNotSentError
from codemode.core.values import to_json_value

Schema = Dict[str, Any]

#: Characters of a description that are listed; the rest is for people who read the source.
DESCRIPTION_MAX = 500
_DEPTH_MAX = 8

_PLAIN: Dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    None: {"type": "null"},
    bytes: {"type": "string"},
    dict: {"type": "object"},
    list: {"type": "array"},
    tuple: {"type": "array"},
    set: {"type": "array"},
    frozenset: {"type": "array"},
    decimal.Decimal: {"type": ["number", "string"]},
    uuid.UUID: {"type": "string", "format": "uuid"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    datetime.date: {"type": "string", "format": "date"},
    datetime.time: {"type": "string", "format": "time"},
}

_ARRAYS = (list, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Set)
_OBJECTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def schema_of(given: Any) -> Optional[Schema]:
    """The JSON Schema that a caller means: a dict, its JSON text, or a class (Pydantic, dataclass, TypedDict).

    None for None. Raises TypeError for anything else.
    """
    if given is None:
        return None
    if isinstance(given, str):
        given = json.loads(given)
    if isinstance(given, Mapping):
        return dict(to_json_value(given, "schema"))
    for method in ("model_json_schema", "schema"):  # Pydantic 2, Pydantic 1
        if isinstance(given, type) and callable(getattr(given, method, None)):
            return dict(getattr(given, method)())
    made = of_type(given)
    if made.get("type") != "object":
        raise TypeError(f"{given!r} is no schema: pass a Pydantic class, a dataclass or a JSON Schema dict")
    return made


def of_type(annotation: Any, depth: int = 0) -> Schema:
    """The JSON Schema of a type annotation; {} (anything) where there is nothing to say."""
    if depth > _DEPTH_MAX:
        return {}
    plain = annotation.__hash__ is not None and _PLAIN.get(annotation)
    if plain:
        return dict(plain)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is not None:
        return _of_generic(origin, args, depth)
    if isinstance(annotation, type):
        return _of_class(annotation, depth)
    return {}


def _of_generic(origin: Any, args: Tuple[Any, ...], depth: int) -> Schema:
    if origin is typing.Union or getattr(origin, "__name__", "") == "UnionType":
        return {"anyOf": [of_type(arg, depth + 1) for arg in args]}
    if origin is typing.Literal:
        return {"enum": list(args)}
    if hasattr(args[0] if args else None, "__metadata__") or getattr(origin, "__name__", "") == "Annotated":
        return of_type(args[0], depth + 1)
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return {"type": "array", "items": of_type(args[0], depth + 1)}
        return {"type": "array", "prefixItems": [of_type(arg, depth + 1) for arg in args]}
    if origin in _ARRAYS:
        return {"type": "array", "items": of_type(args[0], depth + 1)} if args else {"type": "array"}
    if origin in _OBJECTS:
        return {"type": "object", "additionalProperties": of_type(args[1], depth + 1)} if args else {"type": "object"}
    return {}


def _of_class(cls: type, depth: int) -> Schema:
    if issubclass(cls, enum.Enum):
        return {"enum": [member.value for member in cls]}
    for method in ("model_json_schema", "schema"):
        if callable(getattr(cls, method, None)):
            return dict(getattr(cls, method)())
    if dataclasses.is_dataclass(cls):
        needed = [
            field.name
            for field in dataclasses.fields(cls)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        ]
        return _of_members(_hints(cls), needed, depth)
    if hasattr(cls, "__required_keys__"):  # a TypedDict
        return _of_members(_hints(cls), sorted(cls.__required_keys__), depth)
    for base, schema in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (dict, "object")):
        if issubclass(cls, base):
            return {"type": schema}
    return {}


def _of_members(hints: Mapping[str, Any], needed: List[str], depth: int) -> Schema:
    schema: Schema = {
        "type": "object",
        "properties": {name: of_type(hint, depth + 1) for name, hint in hints.items()},
        "additionalProperties": False,
    }
    return {**schema, "required": needed} if needed else schema


def _hints(target: Any) -> Dict[str, Any]:
    try:
        return typing.get_type_hints(target)
    except Exception:  # an annotation that names something unknown: then there are no types, but still names
        return {}


def of_signature(function: Callable[..., Any], skip: Tuple[str, ...] = ()) -> Optional[Schema]:
    """The schema of a function's keyword arguments but those in `skip`; None when its signature says nothing."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    hints, texts = _hints(function), argument_texts(inspect.getdoc(function) or "")
    properties: Dict[str, Schema] = {}
    needed: List[str] = []
    open_ended = False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        if parameter.name in skip or parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            continue
        schema = of_type(hints[parameter.name]) if parameter.name in hints else {}
        if parameter.name in texts:
            schema["description"] = texts[parameter.name]
        if parameter.default is parameter.empty:
            needed.append(parameter.name)
        else:
            _add_default(schema, parameter.default)
        properties[parameter.name] = schema
    if open_ended and not properties:
        return None
    made: Schema = {"type": "object", "properties": properties}
    if needed:
        made["required"] = needed
    if not open_ended:
        made["additionalProperties"] = False
    return _with_definitions_on_top(made)


def _with_definitions_on_top(schema: Schema) -> Schema:
    """Pydantic's classes refer to definitions from the top of a schema: those of an argument's class have to go there."""
    found: Schema = {}

    def lift(part: Any) -> Any:
        if isinstance(part, list):
            return [lift(item) for item in part]
        if not isinstance(part, dict):
            return part
        for name in ("$defs", "definitions"):
            if isinstance(part.get(name), dict):
                found.setdefault(name, {}).update(part[name])
        return {name: lift(item) for name, item in part.items() if name not in ("$defs", "definitions")}

    schema["properties"] = {name: lift(part) for name, part in schema["properties"].items()}
    return {**schema, **found}


def _add_default(schema: Schema, default: Any) -> None:
    try:
        schema["default"] = to_json_value(default, "default")
    except ValueNotSentError:
        return  # its default is an object of the application's
    if default is None and "type" in schema and schema["type"] != "null":  # `days: int = None`
        schema["anyOf"] = [{"type": schema.pop("type")}, {"type": "null"}]


def of_result(function: Callable[..., Any]) -> Optional[Schema]:
    """The schema of a function's result where its annotation says which members it has."""
    schema = of_type(_hints(function).get("return", typing.Any))
    return schema if schema.get("properties") else None


_SECTION = re.compile(r"^(args|arguments|parameters|returns?|raises|yields|examples?|notes?)\s*:\s*$", re.IGNORECASE)
_ENTRY = re.compile(r"^\s*(?::param\s+(?:[\w\[\], .]+\s+)?)?\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")


def argument_texts(doc: str) -> Dict[str, str]:
    """What a docstring says of each argument, in an "Args:" section or as ":param name:" lines."""
    texts: Dict[str, str] = {}
    inside, indent, name = False, 0, ""
    for line in doc.splitlines():
        heading = _SECTION.match(line.strip())
        if heading:
            inside, indent, name = heading.group(1).lower()[:3] in ("arg", "par"), 0, ""
            continue
        entry = _ENTRY.match(line)
        width = len(line) - len(line.lstrip())
        if entry and (line.lstrip().startswith(":param") or (inside and (not indent or width <= indent))):
            name, indent = entry.group(1), indent or width
            texts[name] = entry.group(2).strip()
        elif name and line.strip() and width > indent and not line.lstrip().startswith(":"):
            texts[name] = f"{texts[name]} {line.strip()}".strip()
        elif not line.strip() or line.lstrip().startswith(":"):
            name = ""
    return {name: text for name, text in texts.items() if text}


def summary(doc: str) -> str:
    """The description in a docstring: what comes before its sections, at most DESCRIPTION_MAX characters."""
    lines: List[str] = []
    for line in inspect.cleandoc(doc).splitlines():
        if _SECTION.match(line.strip()) or line.lstrip().startswith((":param", ":return", ":raises")):
            break
        lines.append(line)
    return "\n".join(lines).strip()[:DESCRIPTION_MAX]
