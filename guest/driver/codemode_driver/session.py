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
import linecache
import signal
import sys
import traceback
import types
from asyncio import events

from . import loop, report, streams, values

MODE_ONESHOT = 1
CELLS_KEPT = 1000          # sources kept for tracebacks and inspect.getsource
RECURSION_FLOOR = 300      # what the driver needs to answer; a lower limit is raised to this
CANCEL_SECONDS = 1.0       # for an interrupted cell's coroutine to finish its `finally` blocks
STOPS_IGNORED = 8          # of the event loop, while a cell awaits

try:
    from _codemode import release_reserve as _release_reserve, take_deadlock as _take_deadlock
except ImportError:  # not inside the sandbox
    def _release_reserve():
        pass

    def _take_deadlock():
        return False

_ABSENT = object()
_FUTURES = functools.reduce(int.__or__, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names))
_DEADLOCK = 'deadlock: every thread waits for another one, and nothing is left that could wake them'
_armed = False


def _on_interrupt(signum, frame):
    deadlock = _take_deadlock()
    if _armed:
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
        self._loop = None
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

    def execute(self, source, context, mode, locals_max, result_max):
        self._prepare()
        result = error = kind = trace = None
        success = True
        try:
            if context:
                self._bind(context)
            result = _guarded(self._run, source, mode)
        except SystemExit as exc:
            success, error, kind = self._exited(exc, result_max)
        except BaseException as exc:
            success = False
            error, kind, trace = self._failed(exc, result_max)
        if result is not None:
            result = report.cut(result, result_max)
        self._finish(trace)
        return success, result, error, kind, trace, self._locals(locals_max)

    def _prepare(self):
        self.cell += 1
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

    def _bind(self, context):
        members = json.loads(context)
        if type(members) is not dict:
            raise TypeError(f'context must be a JSON object, not {type(members).__name__}')
        self.globals.update(members)

    def _run(self, source, mode):
        """Runs one cell and returns the text of its value, or None."""
        statements, expression = self._compile(source)
        before = self.globals.get('result', _ABSENT)
        value = self._evaluate([code for code in (statements, expression) if code])
        if mode == MODE_ONESHOT and 'result' in self.globals:
            answer = self.globals['result']
            if answer is not before or (statements and _stores(statements, 'result')):
                return str(answer)
        if value is None:
            return None
        builtins._ = value
        return repr(value)

    def _compile(self, source):
        name = f'{report.CELL_PREFIX}{self.cell}>'
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        linecache.cache.pop(f'{report.CELL_PREFIX}{self.cell - CELLS_KEPT}>', None)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        tree = compile(source, name, 'exec', flags | ast.PyCF_ONLY_AST | self._futures, dont_inherit=True)
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

    def _exited(self, exc, result_max):
        code = exc.code
        if code is None or type(code) in (int, bool) and code == 0:
            return True, None, None
        try:
            text = _guarded(str, code)
        except BaseException:
            text = '<its text could not be made>'
        return False, report.cut(f'SystemExit: {text}', result_max), 'SystemExit'

    def _failed(self, exc, result_max):
        if issubclass(type(exc), MemoryError):
            _release_reserve()
            traceback.clear_frames(report.traceback_of(exc))
        if type(exc) is KeyboardInterrupt and _take_deadlock():
            exc = RuntimeError(_DEADLOCK).with_traceback(exc.__traceback__)
        if sys.getrecursionlimit() < RECURSION_FLOOR:
            sys.setrecursionlimit(RECURSION_FLOOR)
        try:
            error, trace = _guarded(report.describe, exc)
        except BaseException:
            error, trace = report.describe_plainly(exc)
        # Of a long traceback its end says the most: the innermost frames and the error.
        tail = result_max * 3 // 4
        return report.cut(error, result_max), report.class_name(exc), report.cut(trace, result_max, tail)

    def _finish(self, trace):
        self._quietly(streams.flush)
        streams.own()
        if trace:
            try:
                streams.err.write(trace)
            except (OSError, ValueError):
                pass
        streams.flush_own()

    def _quietly(self, function, *args):
        try:
            _guarded(function, *args)
        except BaseException:
            pass

    def _locals(self, limit):
        # The walk runs no code of the user's that we know of. Should there be some and it hang, then the
        # interrupt ends it and only classes are shown.
        try:
            return _guarded(values.describe, self.globals, limit)
        except BaseException:
            return values.describe(self.globals, limit, False)
