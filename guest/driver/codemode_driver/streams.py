# SPDX-License-Identifier: Apache-2.0
"""sys.stdout and sys.stderr over descriptors 1 and 2, and a sys.stdin that is at its end."""

import io
import sys

out = None  # the streams over descriptors 1 and 2, whatever sys.stdout and sys.stderr are now
err = None
_raw = {}


def _descriptor(fd):
    return io.FileIO(fd, 'w', closefd=False)


def _text(number, name, mode='w'):
    raw = _raw.get(number) or _descriptor(number)
    if isinstance(raw, io.FileIO):
        raw.name = name
    buffer = io.BufferedWriter(raw)
    stream = io.TextIOWrapper(buffer, encoding='utf-8', errors='backslashreplace', newline='\n',
                              line_buffering=True)
    stream.mode = mode
    return stream


def _at_end():
    return io.TextIOWrapper(io.BytesIO(), encoding='utf-8', errors='surrogateescape')


def install(raw_out=None, raw_err=None):
    """Opens the streams anew. Raw byte streams may stand in for the descriptors."""
    global out, err
    _raw[1], _raw[2] = raw_out, raw_err
    sys.stdin = sys.__stdin__ = _at_end()
    sys.stdout = sys.__stdout__ = out = _text(1, '<stdout>')
    sys.stderr = sys.__stderr__ = err = _text(2, '<stderr>')


def _usable(stream):
    try:
        return stream is not None and not stream.closed and stream.writable()
    except AttributeError:
        return hasattr(stream, 'write')  # a user's own object: all that print() asks for
    except Exception:
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
    if sys.stdout is not out and not _usable(sys.stdout):
        sys.stdout = out
    if sys.stderr is not err and not _usable(sys.stderr):
        sys.stderr = err
    if sys.stdin is None or getattr(sys.stdin, 'closed', False):
        sys.stdin = sys.__stdin__ = _at_end()


def flush():
    """Flushes what stands in sys; a stream that fails is its owner's affair."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not out and stream is not err:
            try:
                stream.flush()
            except Exception:
                pass


def flush_own():
    for stream in (out, err):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
