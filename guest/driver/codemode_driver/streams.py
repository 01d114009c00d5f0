# SPDX-License-Identifier: Apache-2.0
"""sys.stdout and sys.stderr over descriptors 1 and 2, and a sys.stdin that is at its end."""

import io
import sys

out = None  # the streams over descriptors 1 and 2, whatever sys.stdout and sys.stderr are now
err = None
stdin = None


def _descriptor(number):
    return io.FileIO(number, 'w', closefd=False)


_open_raw = _descriptor


def _text(number, name):
    raw = _open_raw(number)
    raw.name = name
    stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding='utf-8', errors='backslashreplace', newline='\n',
                              line_buffering=True)
    stream.mode = 'w'
    return stream


class _Empty(io.BytesIO):
    name = '<stdin>'


def _open_stdin():
    global stdin
    stdin = io.TextIOWrapper(_Empty(), encoding='utf-8', errors='surrogateescape')
    sys.stdin = sys.__stdin__ = stdin


def install(open_raw=_descriptor):
    """Opens the streams anew. `open_raw(1 or 2)` gives the raw byte stream below each."""
    global out, err, _open_raw
    _open_raw = open_raw
    _open_stdin()
    sys.stdout = sys.__stdout__ = out = _text(1, '<stdout>')
    sys.stderr = sys.__stderr__ = err = _text(2, '<stderr>')


def _usable(stream):
    try:
        return stream is not None and not stream.closed and stream.writable()
    except AttributeError:
        return hasattr(stream, 'write')  # a user's own object: all that print() asks for
    except BaseException:
        return False  # detached, or broken in its own way


def own():
    """Opens our own streams again where the user has closed or detached them."""
    global out, err
    if not _usable(out):
        out = sys.__stdout__ = _text(1, '<stdout>')
    if not _usable(err):
        err = sys.__stderr__ = _text(2, '<stderr>')


def repair():
    """Keeps what the user put in place of a standard stream, unless it is closed or broken.

    May run the user's code, through properties of such an object.
    """
    for name, stream in (('stdout', out), ('stderr', err)):
        current = getattr(sys, name, None)
        if current is not stream and not _usable(current):
            setattr(sys, name, stream)
    current = getattr(sys, 'stdin', None)
    if current is None or getattr(current, 'closed', False):
        _open_stdin()


def flush():
    """Flushes what the user has put in place of a standard stream; one that fails is its owner's affair."""
    for stream in (getattr(sys, 'stdout', None), getattr(sys, 'stderr', None)):
        if stream is not out and stream is not err:
            try:
                stream.flush()
            except Exception:
                pass


def flush_own():
    for stream in (out, err):
        try:
            stream.flush()
        except (OSError, ValueError, MemoryError):
            pass
