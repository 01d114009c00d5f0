# SPDX-License-Identifier: Apache-2.0
"""Python values <-> google.protobuf.Struct.

Struct is JSON with doubles for numbers. On the way out, what has an obvious JSON form gets it, and what would arrive
changed (NaN, integers that no double holds) is refused with the place named. On the way in, integral doubles become int.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import os
import uuid
from dataclasses import asdict, is_dataclass
from collections.abc import KeysView, ValuesView
from typing import Any, Dict, List, Mapping

from .errors import ValueNotSentError

#: Levels of lists and dicts inside one another. Messages nest up to 100 deep on the wire, and a dict takes three of them.
DEPTH_MAX = 30
_EXACT = 2**53
_LISTS = (list, tuple, set, frozenset, KeysView, ValuesView)


def _number(value: Any, where: str) -> Any:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueNotSentError(f"{where} is {value!r}, which JSON cannot express: use None or a string")
        return float(value)
    try:
        exact = int(float(value)) == value
    except OverflowError:
        exact = False
    if not exact:
        raise ValueNotSentError(f"{where} is {int(value)}, too large to arrive unchanged (beyond 2**53): use a string")
    return int(value)


def _plain(value: Any, where: str) -> Any:
    """The JSON form of what is neither JSON nor a container; refuses what has none."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID, os.PathLike)):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    for name in ("model_dump", "tolist", "to_dict"):  # Pydantic 2; NumPy's arrays and scalars; pandas and friends
        method = getattr(value, name, None)
        if callable(method) and not isinstance(value, type):
            return method()
    if callable(getattr(value, "dict", None)) and hasattr(value, "__fields__"):  # Pydantic 1
        return value.dict()
    if isinstance(getattr(value, "raw", None), str):  # what crews answer
        return value.raw
    kind = type(value).__name__
    raise ValueNotSentError(f"{where} is of type {kind}, which cannot be sent: make it a dict, list, string or number")


def to_json_value(value: Any, where: str = "value", depth: int = DEPTH_MAX) -> Any:
    """`value` as dicts with string keys, lists, str, int, float, bool and None.

    Tuples, sets and iterators of views become lists; dates, paths, UUIDs and decimals become text; dataclasses, Pydantic
    models, enums and NumPy values what they hold. Raises ValueNotSentError naming the place.
    """
    if value is None or isinstance(value, bool) or type(value) is str:
        return value
    if depth < 0:
        raise ValueNotSentError(f"{where} is nested more than {DEPTH_MAX} levels deep")
    if isinstance(value, (int, float)) and not isinstance(value, enum.Enum):
        return _number(value, where)
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return str(value)
    if isinstance(value, Mapping):
        return {_key(key, where): to_json_value(item, f"{where}[{key!r}]", depth - 1) for key, item in value.items()}
    if isinstance(value, _LISTS):
        return [to_json_value(item, f"{where}[{index}]", depth - 1) for index, item in enumerate(value)]
    return to_json_value(_plain(value, where), where, depth - 1)


def _key(key: Any, where: str) -> str:
    if isinstance(key, enum.Enum):
        key = key.value
    if isinstance(key, (str, int, float, bool)) or key is None:
        return key if type(key) is str else str(key)
    raise ValueNotSentError(f"{where} has a key of type {type(key).__name__}: keys must be strings")


def to_struct(values: Mapping[str, Any], where: str) -> Any:
    """A google.protobuf.Struct of a mapping. Raises ValueNotSentError, or TypeError where it is no mapping."""
    from google.protobuf import struct_pb2

    if not isinstance(values, Mapping):
        raise TypeError(f"{where} must be a mapping, not {type(values).__name__}")
    struct = struct_pb2.Struct()
    clean = to_json_value(values, where)
    try:
        for name, value in clean.items():
            _fill(struct.fields[name], value)
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise ValueNotSentError(f"{where} has text that is not valid Unicode: {error.reason}") from None
    return struct


def _fill(target: Any, value: Any) -> None:
    if value is None:
        target.null_value = 0
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, (int, float)):
        target.number_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, dict):
        fields = target.struct_value
        fields.SetInParent()
        for name, item in value.items():
            _fill(fields.fields[name], item)
    else:
        items = target.list_value
        items.SetInParent()
        for item in value:
            _fill(items.values.add(), item)


def from_struct(struct: Any) -> Dict[str, Any]:
    """A dict of a google.protobuf.Struct."""
    return {name: _value(value) for name, value in struct.fields.items()}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= _EXACT else number
    if kind == "struct_value":
        return from_struct(value.struct_value)
    if kind == "list_value":
        items: List[Any] = [_value(item) for item in value.list_value.values]
        return items
    return getattr(value, kind) if kind and kind != "null_value" else None
