# SPDX-License-Identifier: Apache-2.0
"""What runs the user's code inside the sandbox.

The host calls execute() for each cell, reseed() once in every session before its first cell, and
warm() once, when the memory image is built from which all sessions start.
"""

from . import hashes, loop, network, streams, tools
from .session import Session
from .warmth import reseed, warm_up

__all__ = ['execute', 'put', 'reseed', 'warm']

# What is answered when nothing else could be. Made of constants: there may be no memory for more.
_NO_ANSWER = (False, None, 'RuntimeError: the answer could not be made', 'RuntimeError', None, '{}', None, 0)
_NO_MEMORY = (False, None, 'MemoryError: no memory was left to make the answer', 'MemoryError', None, '{}', None, 0)

_session = None


def execute(code, context, mode, locals_max, result_max, recursion=0, memory_limit=0, config=None, tool_list=None,
            tool_calls=0, tool_argument=0):
    """Runs one cell. Never raises.

    code        Python source
    context     text of a JSON object whose members become globals before the run, or None; with mode 1 there is also
                the global `context`, all of it or None, and members that would hide a builtin are in there only
    mode        0: the result is the repr of a last expression; 1: str(result) if the code binds `result`. Bit 16: the
                code is looked at before it runs, and its first line has the rules: lists of names between commas,
                `blocked;allowed;builtins`
    locals_max  bytes of the answer's locals at the most
    result_max  bytes of each of result, error and traceback at the most
    recursion   Python frames that the code may have on one another, 0: as many as in CPython
    memory_limit  bytes that the session may use, only to be named in errors; 0: not known
    config      text of a JSON object that becomes the global `config`, or None
    tool_list   text of a JSON array of [name, flags] of the application's tools; None: there is no tool service
    tool_calls  calls of tools that it may make, with tool_argument bytes of arguments each

    Returns (success, result, error, error_type, traceback, locals, detail, cut): a bool, four str or None, the text of
    a JSON object, and, if the execution was interrupted, one line on where it was and what used its memory. `cut`
    has the bits of what was shortened: 1 result, 2 error, 4 traceback, 8 locals. Every text is UTF-8 without lone
    surrogates.
    """
    try:
        tools.begin(tool_list, tool_calls, tool_argument)
        return _session.execute(code, context, mode, locals_max, result_max, recursion, memory_limit, config)
    except MemoryError:
        return _NO_MEMORY
    except BaseException:
        return _NO_ANSWER


def put(name, kind, result_max, memory_limit):
    """Makes what has come with a LOAD frame a variable of the session. Never raises.

    kind  0: text, 1: JSON, 2: bytes

    Returns the same as execute(): the result is the name of the value's type and, behind a blank, its len() if it has
    one. On failure the error type is MemoryError, KeyboardInterrupt, or ValueError for what cannot be made of it.
    """
    try:
        return _session.put(name, kind, result_max, memory_limit)
    except MemoryError:
        return _NO_MEMORY
    except BaseException:
        return _NO_ANSWER


def start():
    """Begins a session with nothing in it."""
    global _session
    _session = Session()


def warm():
    """Imports and exercises what sessions commonly need, then begins a session with nothing in it.

    Returns the names of modules that could not be imported.
    """
    missing = warm_up(execute, start)
    start()
    return missing


hashes.install()
loop.install()
network.install()
streams.install()
tools.install()
start()
