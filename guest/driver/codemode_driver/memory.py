# SPDX-License-Identifier: Apache-2.0
"""What uses a session's memory, told when it is short: so in little memory itself, and without running the user's code.

Sizes are estimates: of a large container a few items stand for all. Objects of the image cost a session nothing and
count for nothing.
"""

import array
import collections
import gc
import io
import itertools
import sys
import types

SHOWN = 3              # variables named
SHOWN_MIN = 100 << 10  # bytes; smaller ones explain nothing
FRAMES_MAX = 30        # innermost ones whose variables are looked at
VISITS_MAX = 3000      # objects looked at for one variable
VISITS_ALL = 30000     # and for all of them
SAMPLE = 48            # items of one container
DEPTH_MAX = 8
_GC_HEAD = 8
_IMMORTAL = 1 << 28    # reference counts beyond are those of immortal objects
_POINTER = 4

_SEQUENCES = (list, tuple, collections.deque, set, frozenset)
_LEAVES = (str, bytes, bytearray, int, float, complex, array.array, io.BytesIO, io.StringIO)
_SIZERS = {kind: kind.__sizeof__ for kind in (dict, *_SEQUENCES, *_LEAVES)}
_KINDS = {id(kind): kind for kind in _SIZERS}  # by address: a class may have a hash of its metaclass's own
_mro_of = type.__dict__['__mro__'].__get__

try:
    from _codemode import memory as used
except ImportError:  # not inside the sandbox
    def used():
        return 0


def mebi(size):
    return f'{size / (1 << 20):,.1f} MiB'


def _base(kind):
    """The built-in type that an object's class is or is derived from; None for all others."""
    for base in _mro_of(kind):
        if id(base) in _KINDS:
            return base
    return None


def _sample(value, base):
    """Up to SAMPLE items from all over a container, with methods that a subclass cannot replace."""
    if base is dict:
        items = itertools.islice(dict.items(value), SAMPLE)
        return [part for item in items for part in item]
    length = base.__len__(value)
    if base in (list, tuple) and length > SAMPLE:
        step = length // SAMPLE
        return [base.__getitem__(value, index * step) for index in range(SAMPLE)]
    return list(itertools.islice(base.__iter__(value), SAMPLE))


class _Scale:
    def __init__(self, visits):
        self.left = visits
        self.seen = set()

    def size(self, value, depth=0):
        """Bytes of an object and of what it refers to and this scale has not seen yet, about."""
        if self.left <= 0 or sys.getrefcount(value) > _IMMORTAL or id(value) in self.seen:
            return 0
        self.left -= 1
        self.seen.add(id(value))
        kind = type(value)
        if issubclass(kind, (type, types.ModuleType, types.FunctionType, types.CodeType, types.FrameType)):
            return 0  # through these one reaches everything
        base = _base(kind)
        if base is None:
            return self._opaque(value, depth)
        own = _SIZERS[base](value) + _GC_HEAD
        if base in _LEAVES:
            return own
        total = own
        if depth < DEPTH_MAX:
            total += self._items(value, base, depth)
        return total

    def _items(self, value, base, depth):
        sample = _sample(value, base)
        length = base.__len__(value) * (2 if base is dict else 1)
        distinct = {id(item): item for item in sample}
        looked = sum(self.size(item, depth + 1) for item in distinct.values())
        # The same few objects again and again are there once.
        share = length / len(sample) if len(distinct) * 2 > len(sample) else 1
        return int(looked * max(share, 1))

    def _opaque(self, value, depth):
        own = object.__sizeof__(value) + _GC_HEAD
        if depth >= DEPTH_MAX:
            return own
        parts = gc.get_referents(value)  # asks the object's C type only
        return own + len(parts) * _POINTER + sum(self.size(part, depth + 1) for part in parts[:SAMPLE])


def _named(namespace, frames):
    """(label, object) of the variables that an answer could name, innermost first."""
    for frame in frames:
        names = frame.f_locals
        if names is namespace or frame.f_globals is names:
            continue
        for name in list(names):
            try:
                yield f'{name} in {frame.f_code.co_name}()', names[name]
            except KeyError:
                pass  # bound no longer
    for name in list(namespace):
        if type(name) is str and name != '__builtins__' and name in namespace:
            yield name, namespace[name]


def largest(namespace, frames=()):
    """The text of the largest variables of a namespace and of frames, or of there being no large ones."""
    found, visits, scale_seen = [], VISITS_ALL, set()
    value = None
    for label, value in _named(namespace, frames):
        if id(value) in scale_seen or visits <= 0:
            continue
        scale_seen.add(id(value))
        scale = _Scale(min(VISITS_MAX, visits))
        size = scale.size(value)
        visits -= len(scale.seen)
        if size >= SHOWN_MIN:
            found.append((size, label, type.__dict__['__name__'].__get__(type(value))))
    del value
    found.sort(reverse=True)
    if not found:
        return f'no variable holds more than {mebi(SHOWN_MIN)}'
    return 'largest variables: ' + ', '.join(f'{label[:80]} ({kind[:40]}, {mebi(size)})' for size, label, kind in found[:SHOWN])


own = 0  # bytes in use when the session began: the interpreter with its image


def begin():
    global own
    own = used()


def is_full(limit):
    """Whether a request of a mebibyte would fail."""
    return bool(limit) and used() + (1 << 20) > limit


def in_use(limit):
    """How much of the memory is taken; it does not shrink, so this is the peak, too."""
    of = f' of {mebi(limit)}' if limit else ''
    return f'{mebi(used())}{of} in use, {mebi(own)} by the interpreter itself'
