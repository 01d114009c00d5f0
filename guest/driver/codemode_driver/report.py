# SPDX-License-Identifier: Apache-2.0
"""Exceptions as text, in CPython's format, with the user's frames only and bounded in every direction."""

import collections
import linecache
import traceback

CHAIN_MAX = 30     # exceptions shown of one chain or group tree
GROUP_DEPTH = 10   # nesting of exception groups shown, as in CPython
GROUP_WIDTH = 15   # members shown of one group, as in CPython
FRAMES_MAX = 1200  # a longer traceback is shown as its first and last frames
FRAMES_HEAD = 20
FRAMES_TAIL = 500

CELL_PREFIX = '<cell '
_IMPORT_PREFIX = '<frozen importlib'
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: the class was made by a class statement
_MARKER_ROOM = 64  # bytes of the sentence that says what was cut


def _folder():
    return _folder.__code__.co_filename.rpartition('/')[0] + '/'


_DRIVER_PREFIX = _folder()


def cut(text, limit, tail=0):
    """Cuts text to `limit` bytes of UTF-8, keeping up to `tail` of them from its end, and says what is gone.

    Returns the text and whether it was cut. It is an exact str without lone surrogates. Only characters that can reach the answer are
    encoded: the text may be a gigabyte. (Methods are called on `str`: the text may be of a user's subclass.)
    """
    length = str.__len__(text)
    if length <= limit:
        data = str.encode(text, 'utf-8', 'backslashreplace')
        if len(data) <= limit:
            return data.decode(), False
    room = max(limit - _MARKER_ROOM, 0)
    tail = min(tail, room // 2)
    start = str.encode(str.__getitem__(text, slice(0, room)), 'utf-8', 'backslashreplace')
    start = start[:room - tail].decode('utf-8', 'ignore')
    end = ''
    if tail:
        end = str.encode(str.__getitem__(text, slice(-tail, None)), 'utf-8', 'backslashreplace')
        end = end[-tail:].decode('utf-8', 'ignore')
    marker = f'\n[... {length - len(start) - len(end):,} characters left out ...]\n'
    return (start + marker + end).encode()[:limit].decode('utf-8', 'ignore'), True


def _shown(code):
    return not code.co_filename.startswith((_DRIVER_PREFIX, _IMPORT_PREFIX))


def place(line, filename):
    return f'line {line} of {filename}'


def place_in(at):
    """The same of (cell, line), or None."""
    return place(at[1], f'{CELL_PREFIX}{at[0]}>') if at else None


def same_failure(exc):
    """An exception and those that were in its place before, because there was no memory for one more line of its traceback."""
    found = [exc]
    context = _attribute(exc, '__context__')
    while type(context) is type(exc) is MemoryError and len(found) < CHAIN_MAX:
        found.append(context)
        context = _attribute(context, '__context__')
    return found


def place_of(exc):
    """The line of a cell that an exception came through first, or None."""
    found, tb = None, traceback_of(exc)
    while tb is not None:
        if tb.tb_frame.f_code.co_filename.startswith(CELL_PREFIX):
            found = place(tb.tb_lineno, tb.tb_frame.f_code.co_filename)
        tb = tb.tb_next
    return found


def frames_of(exc, limit):
    """The user's frames of an exception, innermost first: the last `limit`."""
    frames, tb = collections.deque(maxlen=limit), traceback_of(exc)
    while tb is not None:
        if _shown(tb.tb_frame.f_code):
            frames.appendleft(tb.tb_frame)
        tb = tb.tb_next
    return frames


class _Mark:
    """Stands in a stack for frames that are not shown."""

    filename = lineno = name = None

    def __init__(self, count):
        self.count = count


class _Stack(traceback.StackSummary):
    def format_frame_summary(self, frame, **kwargs):
        if isinstance(frame, _Mark):
            return f'  [{frame.count:,} frames are not shown]\n'
        if frame.filename.startswith((_DRIVER_PREFIX, _IMPORT_PREFIX)):
            return None
        return super().format_frame_summary(frame, **kwargs)


def _filename(tb):
    return tb.tb_frame.f_code.co_filename


def _strip(tb):
    """Drops what led from the driver to the user's first frame: the driver itself and the event loop."""
    if tb is None or not _filename(tb).startswith(_DRIVER_PREFIX):
        return tb
    while tb is not None and not _filename(tb).startswith(CELL_PREFIX):
        tb = tb.tb_next
    return tb


def _stack(tb):
    length, walk = 0, tb
    while walk is not None:
        length, walk = length + 1, walk.tb_next
    if length <= FRAMES_MAX:
        return _Stack(traceback.extract_tb(tb, length))
    walk = tb
    for _ in range(length - FRAMES_TAIL):
        walk = walk.tb_next
    mark = _Mark(length - FRAMES_HEAD - FRAMES_TAIL)
    return _Stack([*traceback.extract_tb(tb, FRAMES_HEAD), mark, *traceback.extract_tb(walk, FRAMES_TAIL)])


def _attribute(exc, name):
    # A subclass may hide these behind properties of its own.
    return vars(BaseException)[name].__get__(exc)


def traceback_of(exc):
    return _attribute(exc, '__traceback__')


class _Tree:
    """Builds one TracebackException per exception, without recursion and at most CHAIN_MAX of them.

    The stock constructor would follow a chain to its end and every member of a group.
    """

    def __init__(self, root):
        self.cut_short = False
        self._left = CHAIN_MAX
        self._seen = set()
        self.root = self._node(root)
        queue = [(self.root, root, 0)]
        for node, exc, depth in queue:  # grows while it is walked
            queue.extend(self._expand(node, exc, depth))

    def _node(self, exc):
        tb = _strip(traceback_of(exc))
        # A `_seen` makes the constructor stay with this one exception.
        node = traceback.TracebackException(type(exc), exc, tb, limit=0, compact=True, _seen=set())
        node.stack = _stack(tb)
        node.__cause__ = node.__context__ = node.exceptions = None
        self._left -= 1
        self._seen.add(id(exc))
        _find_source_line(node)
        return node

    def _linked(self, exc):
        if exc is None or id(exc) in self._seen:
            return None
        if self._left <= 0:
            self.cut_short = True
            return None
        return self._node(exc)

    def _expand(self, node, exc, depth):
        found = []
        cause = _attribute(exc, '__cause__')
        node.__cause__ = self._linked(cause)
        if node.__cause__:
            found.append((node.__cause__, cause, depth))
        elif not _attribute(exc, '__suppress_context__'):
            context = _attribute(exc, '__context__')
            node.__context__ = self._linked(context)
            if node.__context__:
                found.append((node.__context__, context, depth))
        if issubclass(type(exc), BaseExceptionGroup):
            found.extend(self._members(node, exc, depth))
        return found

    def _members(self, node, exc, depth):
        members = BaseExceptionGroup.exceptions.__get__(exc)
        node.exceptions = []
        if depth >= GROUP_DEPTH:
            return []
        shown = members[:min(GROUP_WIDTH, max(self._left, 1))]
        node.max_group_width = len(shown)
        node.exceptions = [self._node(member) for member in shown]
        found = [(child, member, depth + 1) for child, member in zip(node.exceptions, shown)]
        # The formatter takes the number of members from the length of this list.
        node.exceptions += [None] * (len(members) - len(shown))
        return found


def _find_source_line(node):
    """Errors of the compiler proper (as against the parser) come without the line they speak of."""
    if node._is_syntax_error and node.text is None and node.lineno and str(node.filename).startswith(CELL_PREFIX):
        node.text = linecache.getline(node.filename, int(node.lineno)) or None


def describe(exc):
    """(last line, traceback) of an exception. Runs the user's __str__ and may raise what that raises."""
    tree = _Tree(exc)
    node = tree.root
    lines = list(node.format())
    if tree.cut_short:
        lines.insert(0, '[earlier exceptions of this chain are not shown]\n\n')
    if node._is_syntax_error:
        message = node.msg
    else:
        message = node._str
    name = node.exc_type_str
    return (f'{name}: {message}' if message else name), ''.join(lines)


def describe_plainly(exc):
    """The same where describe() failed or was interrupted: runs nothing of the user's."""
    name = class_name(exc)
    lines = []
    tb = _strip(traceback_of(exc))
    for frame in _stack(tb) if tb else ():
        if not isinstance(frame, _Mark) and not frame.filename.startswith((_DRIVER_PREFIX, _IMPORT_PREFIX)):
            lines.append(f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}\n')
    header = 'Traceback (most recent call last):\n' if lines else ''
    message = _plain_message(exc)
    error = f'{name}: {message}' if message else name
    return error, f'{header}{"".join(lines)}{error}\n'


def _plain_message(exc):
    args = vars(BaseException)['args'].__get__(exc)
    is_builtin = not type.__dict__['__flags__'].__get__(type(exc)) & _HEAP_TYPE
    if is_builtin and all(type(arg) is str or type(arg) is int for arg in args):
        return str(exc)
    return '<its text could not be made>'


def class_name(exc):
    return type.__dict__['__name__'].__get__(type(exc))
