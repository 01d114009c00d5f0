# SPDX-License-Identifier: Apache-2.0
"""The user's globals as a JSON object, made without running the user's code.

Only exact built-in types are looked into; a subclass could answer anything, or never. Of everything
else the class and the address are shown, by object.__repr__. Every walk is bounded in depth, in items
and in characters, which also ends cyclic structures.
"""

import abc
import collections
import datetime
import decimal
import fractions
import itertools
import json
import math
import pathlib
import types
import uuid
import zoneinfo

DEPTH_MAX = 6
ITEMS_MAX = 100    # visited of one container
TEXT_MAX = 1000    # characters of one string
VALUE_MAX = 4000   # characters of one global, about
_MORE = '…'
_COUNT_ROOM = 64  # bytes kept for the count of the names left out
_INT64 = 1 << 63   # beyond this many JSON readers fail

_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode

# Types whose own repr runs nothing but C or the standard library, with a check of what they hold.
_OWN_REPR = {
    types.FunctionType: None,
    types.BuiltinFunctionType: None,
    type(Ellipsis): None,
    type(NotImplemented): None,
    complex: None,
    range: None,
    decimal.Decimal: None,
    uuid.UUID: lambda value: type(value.int) is int,
    pathlib.PosixPath: None,
    pathlib.PurePosixPath: None,
    pathlib.PureWindowsPath: None,
    datetime.date: None,
    datetime.timedelta: None,
    datetime.datetime: lambda value: _has_plain_zone(value),
    datetime.time: lambda value: _has_plain_zone(value),
    datetime.timezone: lambda value: _is_plain_zone(value),
    zoneinfo.ZoneInfo: lambda value: _is_plain_zone(value),
    fractions.Fraction: lambda value: type(value._numerator) is type(value._denominator) is int,
}
_BRACKETS = {list: '[]', tuple: '()', set: '{}', frozenset: ('frozenset({', '})'), collections.deque: ('deque([', '])')}
_MAPPINGS = {
    dict: ('{', '}'),
    collections.OrderedDict: ('OrderedDict({', '})'),
    collections.Counter: ('Counter({', '})'),
    collections.defaultdict: ('defaultdict({', '})'),
}


def _is_plain_zone(zone):
    if type(zone) is zoneinfo.ZoneInfo:
        return type(zone.key) is str
    if type(zone) is not datetime.timezone:
        return False
    return type(zone.utcoffset(None)) is datetime.timedelta and type(zone.tzname(None)) is str


def _has_plain_zone(value):
    return value.tzinfo is None or _is_plain_zone(value.tzinfo)


def _clean(text):
    """An exact str without lone surrogates, cut to TEXT_MAX characters."""
    dropped = len(text) - TEXT_MAX
    if dropped > 0:
        text = f'{text[:TEXT_MAX]}{_MORE} ({dropped:,} more characters)'
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode('utf-8', 'backslashreplace').decode()
    return text


def _int_text(value):
    try:
        return _clean(repr(value))
    except ValueError:
        return f'<int of {value.bit_length():,} bits>'


def _is_odd(kind):
    """A class of a user's metaclass, which may answer == and hash() of the class itself."""
    return type(kind) is not type and type(kind) is not abc.ABCMeta


def _opaque(value):
    kind = type(value)
    if issubclass(kind, type):
        return _clean(type.__repr__(value))
    if issubclass(kind, types.ModuleType):
        name = types.ModuleType.__getattribute__(value, '__dict__').get('__name__')
        return f"<module {_clean(name)!r}>" if type(name) is str else '<module>'
    return _clean(object.__repr__(value))


class _Copier:
    """Copies one value; `room` is what is left of VALUE_MAX."""

    def __init__(self):
        self.room = VALUE_MAX

    def _spend(self, text):
        self.room -= len(text) + 2
        return text

    def _items(self, container):
        """The first items while there is room, then how many were left out."""
        seen = 0
        for item in itertools.islice(container, ITEMS_MAX):
            if self.room <= 0:
                break
            seen += 1
            yield item, 0
        if len(container) > seen:
            yield None, len(container) - seen

    def json(self, value, depth=0):
        kind = type(value)
        if _is_odd(kind):
            return self._spend(_opaque(value))
        if value is None or kind is bool:
            self.room -= 6
            return value
        if kind is str:
            return self._spend(_clean(value))
        if kind is int and -_INT64 <= value < _INT64 or kind is float and math.isfinite(value):
            self.room -= 12
            return value
        if kind in (list, tuple, set, frozenset):
            return self._array(value, depth)
        if kind is dict:
            return self._object(value, depth)
        return self._spend(self.text(value, depth))

    def _array(self, value, depth):
        self.room -= 2
        if depth >= DEPTH_MAX and value:
            return [_MORE]
        return [f'{_MORE} {more:,} more' if more else self.json(item, depth + 1) for item, more in self._items(value)]

    def _object(self, value, depth):
        self.room -= 2
        if depth >= DEPTH_MAX and value:
            return {_MORE: f'{len(value):,} more'}
        copy = {}
        for item, more in self._items(value.items()):
            if more:
                copy[_MORE] = f'{more:,} more'
                break
            key, member = item
            name = _clean(key) if type(key) is str else self.text(key, depth + 1)
            if name in copy:  # 1 and '1' are two keys
                name = repr(name)
            copy[self._spend(name)] = self.json(member, depth + 1)
        return copy

    def text(self, value, depth):
        """A repr, of plain values only."""
        kind = type(value)
        if _is_odd(kind):
            return _opaque(value)
        if kind is str:
            return repr(_clean(value))
        if kind is int:
            return _int_text(value)
        if value is None or kind in (bool, float):
            return repr(value)
        if kind in (bytes, bytearray):
            more = len(value) - TEXT_MAX
            return repr(value[:TEXT_MAX]) + (f'{_MORE} ({more:,} more bytes)' if more > 0 else '')
        if kind in _OWN_REPR:
            holds_plain = _OWN_REPR[kind]
            return _clean(repr(value)) if holds_plain is None or holds_plain(value) else _opaque(value)
        if kind in _BRACKETS or kind in _MAPPINGS:
            return self._container_text(value, kind, depth)
        return _opaque(value)

    def _container_text(self, value, kind, depth):
        first, last = _BRACKETS.get(kind) or _MAPPINGS[kind]
        if not value and kind is set:
            return 'set()'
        if depth >= DEPTH_MAX and value:
            return first + _MORE + last
        parts = []
        for item, more in self._items(value.items() if kind in _MAPPINGS else value):
            if more:
                parts.append(f'{_MORE} {more:,} more')
            elif kind in _MAPPINGS:
                parts.append(f'{self._part(item[0], depth)}: {self._part(item[1], depth)}')
            else:
                parts.append(self._part(item, depth))
        comma = ',' if kind is tuple and len(parts) == 1 else ''
        return first + ', '.join(parts) + comma + last

    def _part(self, value, depth):
        return self._spend(self.text(value, depth + 1))


def _member(name, value):
    try:
        copy = _Copier().json(value)
    except Exception:  # a number too long for repr, a container that changed under the walk
        copy = _opaque(value)
    return f'{_encode(_clean(name))}: {_encode(copy)}'


def describe(namespace, limit, look_inside=True):
    """The JSON text of the names that do not start with '_', within `limit` bytes of UTF-8, and how many are missing.

    What does not fit is counted under the key "…". Without `look_inside`, only classes are shown.
    """
    names = [name for name in namespace if type(name) is str and not name.startswith('_')]
    parts, room = [], limit - 2 - _COUNT_ROOM
    for name in names:
        if name not in namespace:
            continue  # a thread of the user's has deleted it meanwhile
        value = namespace[name]
        part = _member(name, value) if look_inside else f'{_encode(_clean(name))}: {_encode(_opaque(value))}'
        room -= len(part.encode()) + 2
        if room < 0:
            break
        parts.append(part)
    missing = len(names) - len(parts)
    if missing and limit > _COUNT_ROOM:
        parts.append(f'"{_MORE}": "{missing:,} more names"')
    return '{' + ', '.join(parts) + '}', missing
