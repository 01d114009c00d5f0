# SPDX-License-Identifier: Apache-2.0
"""Calls of tools: arguments out as JSON, results and failures back. The tools' faces are in tools.py."""

import asyncio
import functools
import json
import math

from . import errors, loop
from .errors import shown

DEPTH_MAX = 64        # arrays and objects inside one another
EXACT_MAX = 1 << 53   # larger integers lose digits where numbers are doubles
FRAME_MAX = 16 << 20  # bytes of arguments, whatever the limits say
_FULL, _TOO_MANY, _TOO_LARGE = 0, -1, -2  # instead of a handle
_NO_FAILURE, _NO_MEMORY, _OVER = -1, -2, -3

#: By the number of the failure: enum cm_call_failure in the gateway.
_KINDS = (errors.ToolError, errors.UnknownTool, errors.ToolArgumentError, errors.ToolLimitError, errors.ToolTimeout,
          errors.ToolUnavailable, errors.ToolError)

try:
    import _codemode as bridge
except ImportError:  # not inside the sandbox: tests put theirs here
    bridge = None

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(',', ':'), check_circular=False)
_HINTS = {
    'bytes': 'pass base64.b64encode(x).decode()',
    'bytearray': 'pass base64.b64encode(x).decode()',
    'set': 'pass list(x)',
    'frozenset': 'pass list(x)',
    'datetime': 'pass x.isoformat()',
    'date': 'pass x.isoformat()',
    'time': 'pass x.isoformat()',
    'Decimal': 'pass float(x) or str(x)',
    'Fraction': 'pass float(x) or str(x)',
    'UUID': 'pass str(x)',
    'PosixPath': 'pass str(x)',
    'coroutine': 'await it first',
    'generator': 'pass list(x)',
}

calls_max = argument_max = 0  # of the running execution
no_service = None  # why it has no tools at all
last_sync = None  # (tool, class of its result): for the error of one who awaits it


def begin(calls, argument, why_none):
    global calls_max, argument_max, no_service, last_sync
    calls_max, argument_max, no_service, last_sync = calls, argument, why_none, None


# ---- arguments


class _Path:
    """Names the argument that a complaint is about: tools['x']: argument rows[3]['t']"""

    def __init__(self, tool, what):
        self._start = f'{shown(tool)}: {what}'

    def text(self, steps):
        path = ''.join(f'[{step!r}]' for step in steps[1:])
        return f'{self._start} {steps[0]}{path}' if steps else self._start


def _check(value, path, steps):
    kind = type(value)
    if value is None or kind is bool:
        return
    if isinstance(value, str):
        if value.isascii():
            return
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f'{path.text(steps)} has half of a surrogate pair, which is no text') from None
    elif isinstance(value, int):
        if not -EXACT_MAX <= value <= EXACT_MAX:
            raise ValueError(f'{path.text(steps)} is an integer beyond 2**53, which would lose digits on its way; pass str(x)')
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f'{path.text(steps)} is {value!r}, which JSON does not know; pass None or a string')
    elif isinstance(value, (dict, list, tuple)):
        if len(steps) > DEPTH_MAX:
            raise ValueError(f'{path.text(steps[:1])} is nested more than {DEPTH_MAX} deep, or lies inside itself')
        _check_members(value, path, steps)
    else:
        hint = _HINTS.get(kind.__name__, 'pass numbers, strings, lists and dicts')
        raise TypeError(f'{path.text(steps)} is of type {kind.__name__}, which JSON does not know; {hint}')


def _check_members(value, path, steps):
    if not isinstance(value, dict):
        for index, member in enumerate(value):
            _check(member, path, (*steps, index))
        return
    for key, member in value.items():
        if not isinstance(key, str):
            raise TypeError(f'{path.text(steps)} has the key {key!r}; JSON knows only strings there: pass str(key)')
        _check(key, path, (*steps, key))
        _check(member, path, (*steps, key))


def encode(tool, members, what='argument'):
    """The JSON text of a dict; TypeError or ValueError that names what JSON cannot hold."""
    _check(members, _Path(tool, what), ())
    return _encoder.encode(members)


# ---- results


def _refused(tool, handle):
    if handle == _TOO_MANY:
        text = (f'this execution has made its {calls_max:,} calls (limits.tool_calls); ask for more at once, '
                'or go on in another execution' if calls_max else 'this execution may not call tools (limits.tool_calls is 0)')
    elif handle == _TOO_LARGE:
        text = (f'the arguments have more than {min(argument_max, FRAME_MAX):,} bytes of JSON (limits.tool_argument); '
                'pass less, or pass it in parts')
    else:
        text = 'too many calls at once; wait for some of them first'
    return errors.ToolLimitError(tool, text)


def _outcome(tool, failure, text):
    if failure == _NO_FAILURE:
        return json.loads(text)
    if failure == _NO_MEMORY:
        raise MemoryError(f"{shown(tool)}: there is no memory left for the result")
    if failure == _OVER:
        raise errors.ToolError(tool, 'its execution has ended')
    raise _KINDS[failure if failure < len(_KINDS) else 0](tool, text)


class Request:
    """One call, its arguments encoded already: what the code changes afterwards does not change it."""

    def __init__(self, tool, arguments, context=None, timeout=None):
        self.tool = tool
        self._parts = (tool, arguments, context, max(1, math.ceil(timeout * 1000)) if timeout else 0)

    def send(self, sleeper=None):
        """A handle, or 0: there are too many calls at once."""
        if no_service or bridge is None:
            raise errors.UnknownTool(self.tool, no_service or 'not inside the sandbox')
        handle = bridge.call(*self._parts, sleeper)
        if handle < 0:
            raise _refused(self.tool, handle)
        return handle

    def block(self):
        """The result. Other threads run meanwhile."""
        global last_sync
        handle = self.send()
        if not handle:
            raise _refused(self.tool, handle)
        try:
            _, failure, text = bridge.wait_call(handle)
        except BaseException:
            bridge.cancel_call(handle)
            raise
        result = _outcome(self.tool, failure, text)
        last_sync = self.tool, type(result)
        return result

    async def finish(self):
        """The result. Other tasks run meanwhile."""
        here = asyncio.get_running_loop()
        if isinstance(here, loop.Loop):
            failure, text = await here.call_tool(self.send, bridge.cancel_call if bridge else None)
            return _outcome(self.tool, failure, text)
        return await here.run_in_executor(None, functools.partial(Request.block, self))
