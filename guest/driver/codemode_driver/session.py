# SPDX-License-Identifier: Apache-2.0
"""One interactive session: cells of source code, run one after the other in a `__main__` module.

Interrupts. SIGINT may arrive at any bytecode and again every few milliseconds. The handler raises only
while `_armed` is set, and only _guarded() sets it, around calls that may run the user's code. So the
driver itself is never interrupted, and a late interrupt finds nothing to do.
"""

import __future__
import ast
import asyncio
import builtins
import contextvars
import dis
import functools
import inspect
import json
import keyword
import linecache
import signal
import sys
import traceback
import types
import unicodedata
from asyncio import events

from . import loop, memory, report, streams, strict, tools, values

MODE_ONESHOT, MODE_STRICT = 1, 16  # bits
PUT_TEXT, PUT_JSON, PUT_BYTES = range(3)
CELLS_KEPT = 1000          # sources kept for tracebacks and inspect.getsource
RECURSION_FLOOR = 300      # what the driver needs to answer; a lower limit is raised to this
RECURSION = 1000           # frames of a cell's own, as in a program of its own
DRIVER_FRAMES = 32         # below a cell's first frame; most of them when it awaits
CUT_RESULT, CUT_ERROR, CUT_TRACEBACK, CUT_LOCALS = 1, 2, 4, 8
DETAIL_MAX = 1000          # bytes
CANCEL_SECONDS = 1.0       # for an interrupted cell's coroutine to finish its `finally` blocks
STOPS_IGNORED = 8          # of the event loop, while a cell awaits

try:
    from _codemode import (content as _content, failed_at as _failed_at, release_reserve as _release_reserve,
                           take_deadlock as _take_deadlock)
except ImportError:  # not inside the sandbox
    def _content(is_text):
        return '' if is_text else b''

    def _failed_at():
        return None

    def _release_reserve():
        pass

    def _take_deadlock():
        return False

_ABSENT = object()
_FUTURES = functools.reduce(int.__or__, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names))
_DEADLOCK = 'deadlock: every thread waits for another one, and nothing is left that could wake them'
_PARSER = 'Parser stack overflowed'
_NESTED = ("the source code is nested too deeply for Python's parser (brackets, operators or branches inside one another); "
           "split it into several statements. This is not about the session's memory")
#: CPython's words when calls have filled the memory and not even a MemoryError's traceback found room.
_LOST = ('error return without exception set',)
_armed = False
_stopped = None  # where this cell's first interrupt arrived: its line, or nothing where it waits in the event loop


def _on_interrupt(signum, frame):
    global _stopped
    deadlock = _take_deadlock()
    if _armed:
        if not deadlock and _stopped is None:
            # Calls no function of ours: there may be no frame left for one.
            while frame is not None and not frame.f_code.co_filename.startswith(report.CELL_PREFIX):
                frame = frame.f_back
            _stopped = (frame.f_lineno, frame.f_code.co_filename) if frame else ()
        raise RuntimeError(_DEADLOCK) if deadlock else KeyboardInterrupt


# asyncio.run() takes over the default handler, and no other, to cancel its task before it raises. So ours is the
# default one.
signal.default_int_handler = _on_interrupt


def _take_signals():
    if signal.getsignal(signal.SIGINT) is not _on_interrupt:
        signal.signal(signal.SIGINT, _on_interrupt)


def _guarded(function, *args):
    """Calls what may run the user's code. Interrupts arrive inside the call, never after it."""
    global _armed
    before = _armed
    try:
        _armed = True
        return function(*args)
    finally:
        _armed = before
        if sys.gettrace() or sys.getprofile():  # else the user's function would follow the driver
            sys.settrace(None)
            sys.setprofile(None)
        _take_signals()


_read_line = builtins.input


def _input(prompt='', /):
    """Reads a line from what the user has put in place of sys.stdin. Otherwise there is nothing to read from."""
    if sys.stdin is streams.stdin:
        raise EOFError('input() has no terminal to read from; pass data in by `context` instead')
    return _read_line(prompt)


_input.__name__ = _input.__qualname__ = 'input'


class _Exit:
    def __init__(self, name):
        self._name = name

    def __repr__(self):
        return f'Use {self._name}() to end this execution; the session goes on.'

    def __call__(self, code=None):
        raise SystemExit(code)


def _members(name, text):
    members = json.loads(text)
    if type(members) is not dict:
        raise TypeError(f'{name} must be a JSON object, not {type(members).__name__}')
    return members


def _stores(code, name):
    """Whether a code object, or one inside it, binds the global `name`."""
    for step in dis.get_instructions(code):
        if step.opname in ('STORE_NAME', 'STORE_GLOBAL') and step.argval == name:
            return True
    return any(isinstance(inner, types.CodeType) and _stores(inner, name) for inner in code.co_consts)


class Session:
    def __init__(self):
        self.cell = 0
        self._futures = 0  # the `from __future__` imports of earlier cells
        self._recursion = sys.getrecursionlimit()  # as we have set it; another one is the user's
        self._memory_limit = 0
        self._loop = None
        self._given = {}  # what this cell was given besides variables
        self._context = contextvars.copy_context()
        self.main = types.ModuleType('__main__')
        self.globals = vars(self.main)
        self.globals['__builtins__'] = builtins
        sys.modules['__main__'] = self.main
        builtins.__dict__.pop('_', None)
        if '' not in sys.path:
            sys.path.insert(0, '')  # modules that the user writes to the working directory
        for name in [name for name in linecache.cache if name.startswith(report.CELL_PREFIX)]:
            del linecache.cache[name]
        builtins.input = _input
        builtins.exit, builtins.quit = _Exit('exit'), _Exit('quit')

    def execute(self, source, context, mode, locals_max, result_max, recursion, memory_limit, config):
        self._memory_limit = memory_limit
        self._prepare(recursion)
        result = error = kind = trace = detail = None
        success = True
        cut = 0
        try:
            members = self._bindings(context, config, mode)
            tree = None
            if mode & MODE_STRICT:
                line, _, source = source.partition('\n')
                tree = _guarded(self._inspect, source, line, members)
            self.globals.update(members)
            self._given = {name: members[name] for name in ('context', 'config') if name in members}
            result = _guarded(self._run, source, mode, tree)
        except strict.SecurityViolation as exc:
            success, error, kind = False, str(exc), 'SecurityViolation'
        except SystemExit as exc:
            success, error, kind = self._exited(exc)
        except BaseException as exc:
            success = False
            detail = self._detail(exc)
            error, kind, trace = self._failed(exc)
        else:
            detail = self._detail(None)
        if result is not None:
            result, is_cut = report.cut(result, result_max)
            cut |= is_cut and CUT_RESULT
        if error is not None:
            error, is_cut = report.cut(error, result_max)
            cut |= is_cut and CUT_ERROR
        if trace is not None:
            # Of a long traceback its end says the most: the innermost frames and the error.
            trace, is_cut = report.cut(trace, result_max, result_max * 3 // 4)
            cut |= is_cut and CUT_TRACEBACK
        self._finish(trace)
        local_names, missing = self._locals(locals_max)
        cut |= missing and CUT_LOCALS
        return success, result, error, kind, trace, local_names, detail, cut

    def put(self, name, kind, result_max, memory_limit):
        """Makes a variable of a value that has come beside the frame. On failure everything stays as it is."""
        global _stopped
        _stopped = None
        _take_signals()
        _take_deadlock()
        self._memory_limit = memory_limit
        if not name.isascii():
            name = unicodedata.normalize('NFKC', name)  # as the parser does
        if not name.isidentifier() or keyword.iskeyword(name):
            return self._not_put('ValueError', f'{name!r} is no name of a variable', result_max)
        try:
            value = _guarded(self._value, kind)
            size = f' {len(value)}' if isinstance(value, (str, bytes, list, dict)) else ''
            self.globals[name] = value
            return True, f'{type(value).__name__}{size}', None, None, None, '{}', None, 0
        except MemoryError:
            _release_reserve()
            return self._not_put('MemoryError', f"the session's memory has no room for it: {memory.in_use(memory_limit)}", result_max)
        except KeyboardInterrupt:
            return self._not_put('KeyboardInterrupt', 'interrupted', result_max)
        except Exception as exc:
            return self._not_put('ValueError', str(exc), result_max)

    @staticmethod
    def _value(kind):
        value = _content(kind != PUT_BYTES)
        if kind != PUT_JSON:
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as exc:
            raise ValueError(f'not JSON: {exc}') from None

    @staticmethod
    def _not_put(kind, text, result_max):
        return False, None, report.cut(f'{kind}: {text}', result_max)[0], kind, None, '{}', None, 0

    def _limit_recursion(self, wanted):
        """The cell's own frames come on top of ours. A limit that the user's code has set stays."""
        if sys.getrecursionlimit() == self._recursion:
            self._recursion = (wanted or RECURSION) + DRIVER_FRAMES
            sys.setrecursionlimit(self._recursion)

    def _prepare(self, recursion):
        global _stopped
        _stopped = None
        self.cell += 1
        self._given = {}
        self._limit_recursion(recursion)
        streams.own()
        _take_signals()
        _take_deadlock()  # one that another handler has seen is over
        self._quietly(streams.repair)
        # Cells share line numbers: the registry would take a warning of this cell for one already shown.
        self.globals.pop('__warningregistry__', None)
        self._ready_loop()

    def _ready_loop(self):
        if self._loop is None or self._loop.is_closed():
            self._loop = loop.Loop()
        self._mend_loop()
        asyncio.set_event_loop(self._loop)

    def _mend_loop(self):
        """Finishes the clean-up of a loop that an interrupt has torn out of it."""
        if self._loop.is_running() or events._get_running_loop() is not None:
            events._set_running_loop(None)
            self._loop._run_forever_cleanup()

    @staticmethod
    def _bindings(context, config, mode):
        """The globals that an execution brings along."""
        members = _members('context', context) if context else None
        names = dict(members or {})
        if mode & MODE_ONESHOT:
            # A context of many variables is not looked over for names: none of them hides a tool or a builtin.
            names = {name: value for name, value in names.items() if not hasattr(builtins, name)}
            names['context'], names['config'] = members, {}
        if config:
            names['config'] = _members('config', config)
        return names

    def _inspect(self, source, line, members):
        """The syntax tree of a cell that passes the strict check."""
        tree = self._parse(source)
        strict.check(tree, source, strict.rules(line), {**self.globals, **members})
        return tree

    def _run(self, source, mode, tree=None):
        """Runs one cell and returns the text of its value, or None."""
        statements, expression = self._compile(tree or self._parse(source))
        before = self.globals.get('result', _ABSENT)
        value = self._evaluate([code for code in (statements, expression) if code])
        if mode & MODE_ONESHOT and 'result' in self.globals:
            answer = self.globals['result']
            if answer is not before or (statements and _stores(statements, 'result')):
                return str(answer)
        if value is None:
            return None
        builtins._ = value
        return repr(value)

    def _name(self):
        return f'{report.CELL_PREFIX}{self.cell}>'

    def _parse(self, source):
        name = self._name()
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        linecache.cache.pop(f'{report.CELL_PREFIX}{self.cell - CELLS_KEPT}>', None)
        return compile(source, name, 'exec', ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST | self._futures, dont_inherit=True)

    def _compile(self, tree):
        name = self._name()
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        last = tree.body.pop() if tree.body and type(tree.body[-1]) is ast.Expr else None
        statements = expression = None
        futures = self._futures
        if tree.body:
            statements = compile(tree, name, 'exec', flags | futures, dont_inherit=True)
            futures |= statements.co_flags & _FUTURES
        if last:
            expression = compile(ast.Expression(last.value), name, 'eval', flags | futures, dont_inherit=True)
        self._futures = futures
        return statements, expression

    def _evaluate(self, codes):
        """Runs code objects one after the other; the value of the last one."""
        if any(code.co_flags & inspect.CO_COROUTINE for code in codes):
            return self._complete(self._evaluate_in_loop(codes))
        value = None
        for code in codes:
            value = self._context.run(eval, code, self.globals)
        return value

    async def _evaluate_in_loop(self, codes):
        # With one `await` in it, all of a cell runs inside the loop: create_task() needs that.
        value = None
        for code in codes:
            value = eval(code, self.globals)
            if code.co_flags & inspect.CO_COROUTINE:
                value = await value
        return value

    def _complete(self, coroutine):
        task = self._loop.create_task(coroutine, context=self._context)
        try:
            return self._drive(task)
        except (KeyboardInterrupt, RuntimeError) as stop:
            if not task.done():  # then it is an interrupt or a deadlock, of which the loop knows no more than where it is
                stop.__traceback__ = self._cancel(task)
            raise stop

    def _drive(self, task):
        """Runs the loop until the task is done, also over a stop() that an interrupted run left behind in it."""
        for _ in range(STOPS_IGNORED):
            self._mend_loop()
            try:
                return self._loop.run_until_complete(task)
            except RuntimeError as error:
                if task.done() or error.args == (_DEADLOCK,):
                    raise
        raise RuntimeError('the event loop was stopped again and again before the cell was done')

    def _cancel(self, task):
        """Ends an interrupted cell's coroutine. Returns the traceback of where it waited."""
        try:
            task.cancel()
            self._drive(self._loop.create_task(asyncio.wait([task], timeout=CANCEL_SECONDS)))
            if task.done():
                task.result()
        except BaseException as exc:
            return exc.__traceback__
        return None

    def _exited(self, exc):
        code = exc.code
        if code is None or type(code) in (int, bool) and code == 0:
            return True, None, None
        try:
            text = _guarded(str, code)
        except BaseException:
            text = '<its text could not be made>'
        return False, f'SystemExit: {text}', 'SystemExit'

    def _detail(self, exc):
        """Where an interrupted cell was, and what used its memory; None for one that was not interrupted."""
        global _stopped
        stopped, _stopped = _stopped, None
        if stopped is None:
            return None
        _release_reserve()  # the code may have been at its limit
        try:
            place = report.place(*stopped) if stopped else exc and report.place_of(exc)
            return report.cut(f"{f'at {place}; ' if place else ''}{self._memory(exc)}", DETAIL_MAX)[0]
        except Exception:
            return None

    def _memory(self, exc):
        frames = [frame for one in report.same_failure(exc) for frame in report.frames_of(one, memory.FRAMES_MAX)] if exc else ()
        return f'{memory.in_use(self._memory_limit)}; {memory.largest(self.globals, frames)}'

    def _short_of_memory(self, exc):
        """Frees what the failed code held, and says what it was. Walks only over the interpreter's own types."""
        _release_reserve()
        args = exc.args if type(exc) is MemoryError else None
        try:
            if args and type(args[0]) is str and args[0].startswith(_PARSER):
                exc.args = (_NESTED,)
            elif args == ():
                places = [report.place_of(one) for one in report.same_failure(exc)]
                place = next(filter(None, reversed(places)), None) or report.place_in(_failed_at())
                exc.args = (f"out of memory{f' at {place}' if place else ''}: {self._memory(exc)}",)
        except Exception:
            pass  # then without
        for one in report.same_failure(exc):
            traceback.clear_frames(report.traceback_of(one))

    def _raise_recursion(self):
        """To what the driver needs, where the limit is lower: ours until the next cell, the user's from now on."""
        limit = sys.getrecursionlimit()
        if limit < RECURSION_FLOOR:
            sys.setrecursionlimit(RECURSION_FLOOR)
            if limit == self._recursion:
                self._recursion = RECURSION_FLOOR

    def _failed(self, exc):
        if type(exc) is SystemError and exc.args == _LOST and memory.is_full(self._memory_limit):
            exc = MemoryError().with_traceback(report.traceback_of(exc))
        if issubclass(type(exc), MemoryError):
            self._short_of_memory(exc)
        if type(exc) is KeyboardInterrupt and _take_deadlock():
            exc = RuntimeError(_DEADLOCK).with_traceback(exc.__traceback__)
        self._raise_recursion()
        tools.hint(exc)
        try:
            error, trace = _guarded(report.describe, exc)
        except BaseException:
            error, trace = report.describe_plainly(exc)
        return error, report.class_name(exc), trace

    def _finish(self, trace):
        self._quietly(streams.flush)
        streams.own()
        if trace:
            try:
                streams.err.write(trace)
            except (OSError, ValueError, MemoryError):
                pass
        streams.flush_own()

    def _quietly(self, function, *args):
        try:
            _guarded(function, *args)
        except BaseException:
            pass

    def _variables(self):
        """The globals but for what the execution was given and has left as it was."""
        given = {name for name, value in self._given.items() if self.globals.get(name, _ABSENT) is value}
        return {name: value for name, value in self.globals.items() if name not in given} if given else self.globals

    def _locals(self, limit):
        # The walk runs no code of the user's that we know of. Should there be some and it hang, then the
        # interrupt ends it and only classes are shown.
        try:
            return _guarded(values.describe, self._variables(), limit)
        except BaseException:
            return values.describe(self._variables(), limit, False)
