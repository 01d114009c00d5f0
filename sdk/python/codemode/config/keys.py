# SPDX-License-Identifier: Apache-2.0
"""Dataclasses whose fields carry their own rules, and the one function that fills them from a mapping."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Type, TypeVar

from codemode.core.errors import ConfigError

T = TypeVar("T")

#: Where a key stands in its file, for messages: path -> " (line 3, column 5)".
Places = Mapping[str, str]

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
_QUANTITY = re.compile(r"(\d+)\s*([kmg]i?)?b?\Z", re.IGNORECASE)
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def key(
    default: Any = dataclasses.MISSING,
    low: Optional[float] = None,
    high: Optional[float] = None,
    choices: Sequence[str] = (),
    secret: bool = False,
    check: Optional[Callable[[Any], Optional[str]]] = None,
) -> Any:
    """A field. Without a default it is required. `low` and `high`: of a number, or of the length of a text. `check`
    returns what is wrong with a value, or None. The value of a `secret` is in no repr and no message."""
    rules = {"low": low, "high": high, "choices": tuple(choices), "secret": secret, "check": check}
    if isinstance(default, (list, dict)):
        made = default
        return dataclasses.field(default_factory=lambda: made.copy(), metadata=rules, repr=not secret)
    return dataclasses.field(default=default, metadata=rules, repr=not secret)


def section(cls: Type[T]) -> T:
    """A field that is a dataclass of its own, with its defaults."""
    made: Any = dataclasses.field(default_factory=cls)
    return made  # type: ignore[no-any-return]


def quantity_bytes(text: str) -> int:
    """Bytes of "512Mi", "1G" or a plain number; ValueError for anything else."""
    match = _QUANTITY.match(text.strip())
    if not match:
        raise ValueError(text)
    return int(match.group(1)) * _UNITS[(match.group(2) or "").lower()]


def check_quantity(text: str) -> Optional[str]:
    try:
        quantity_bytes(text)
    except ValueError:
        return 'must be a quantity such as "512Mi"'
    return None


class Problems:
    """Collects what is wrong, so that one look shows all of it."""

    def __init__(self, source: str, places: Optional[Places] = None) -> None:
        self._source, self._places, self._texts = source, places or {}, [""][:0]

    def add(self, path: str, text: str) -> None:
        self._texts.append(f"{path}{self._places.get(path, '')}: {text}" if path else text)

    def check(self) -> None:
        """Raises ConfigError when there is any."""
        if self._texts:
            raise ConfigError("\n  ".join([f"{self._source} cannot be used:", *self._texts]))


def fill(cls: Type[T], values: Any, problems: Problems, path: str = "") -> Optional[T]:
    """An instance of `cls` from a mapping, or None; what is wrong goes to `problems`, named by its whole path."""
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        problems.add(path, f"must be a mapping, not {_kind(values)}")
        return None
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for name in values:
        if name not in fields:
            nearest = difflib.get_close_matches(str(name), fields, 1)
            hint = f"; did you mean '{nearest[0]}'?" if nearest else f"; known are {', '.join(fields)}"
            problems.add(_join(path, str(name)), f"is no known key{hint}")
    made: Dict[str, Any] = {}
    complete = True
    for name, field in fields.items():
        given = values.get(name)
        where = _join(path, name)
        if dataclasses.is_dataclass(hints[name]):
            value = fill(hints[name], given, problems, where)
            complete = complete and value is not None
        elif given is None:
            if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING:
                continue
            problems.add(where, "is required")
            complete = False
            continue
        else:
            value, wrong = _convert(hints[name], given, field.metadata)
            if wrong:
                problems.add(where, wrong)
                complete = False
                continue
        made[name] = value
    if not complete:
        return None
    try:
        return cls(**made)
    except ConfigError as error:  # members that contradict each other
        problems.add(path, str(error))
        return None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), f"{value!r}")


def _convert(hint: Any, given: Any, rules: Mapping[str, Any]) -> Tuple[Any, Optional[str]]:
    """(value, None), or (None, what is wrong)."""
    if typing.get_origin(hint) is typing.Union:  # Optional
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    base = typing.get_origin(hint) or hint
    value = _CONVERT[base](given)
    shown = "the value" if rules["secret"] else repr(given)
    if value is None:
        return None, f"must be {_WANTED[base]}, not {_kind(given) if rules['secret'] else shown}"
    if rules["choices"]:
        by_folded = {choice.casefold(): choice for choice in rules["choices"]}
        if value.casefold() not in by_folded:
            return None, f"must be one of {', '.join(rules['choices'])}, not {shown}"
        value = by_folded[value.casefold()]
    return _in_range(value, shown, rules)


def _in_range(value: Any, shown: str, rules: Mapping[str, Any]) -> Tuple[Any, Optional[str]]:
    low, high, check = rules["low"], rules["high"], rules["check"]
    measure = value if isinstance(value, (int, float)) else len(value)
    if (low is not None and measure < low) or (high is not None and measure > high):
        if isinstance(value, (int, float)):
            return None, f"must be from {low:g} to {high:g}, not {shown}"
        if not value:
            return None, "is empty"
        return None, f"must have {low:g} to {high:g} characters, not {measure}"
    wrong = check(value) if check else None
    return (None, f"{wrong}, not {shown}") if wrong else (value, None)


# Numbers and truth values may come as text: from a variable, or from ${NAME} in a file.


def _to_bool(given: Any) -> Optional[bool]:
    return given if isinstance(given, bool) else _WORDS.get(given.strip().lower()) if isinstance(given, str) else None


def _to_int(given: Any) -> Optional[int]:
    if isinstance(given, str) and re.fullmatch(r"\s*[+-]?\d{1,18}\s*", given):
        return int(given)
    if isinstance(given, float) and given.is_integer():
        return int(given)
    return given if isinstance(given, int) and not isinstance(given, bool) else None


def _to_float(given: Any) -> Optional[float]:
    if isinstance(given, str):
        try:
            given = float(given)
        except ValueError:
            return None
    if isinstance(given, bool) or not isinstance(given, (int, float)) or given != given:
        return None
    return float(given)


def _to_str(given: Any) -> Optional[str]:
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return str(given)
    return given if isinstance(given, str) else None


def _to_list(given: Any) -> Optional[List[str]]:
    if isinstance(given, str):
        return [part.strip() for part in given.split(",") if part.strip()]
    return [str(item) for item in given] if isinstance(given, list) else None


def _to_dict(given: Any) -> Optional[Dict[str, Any]]:
    return dict(given) if isinstance(given, Mapping) else None


_CONVERT: Dict[Any, Callable[[Any], Any]] = {
    bool: _to_bool,
    int: _to_int,
    float: _to_float,
    str: _to_str,
    list: _to_list,
    dict: _to_dict,
}
_WANTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a mapping",
}
