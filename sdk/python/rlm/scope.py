# SPDX-License-Identifier: Apache-2.0
"""What one run has under way in any number of threads, and how all of it is broken off at once."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
import time
from typing import Callable, Dict, Iterator, List, Optional, Tuple


class Scope:
    """Work that is broken off together. Work inside of it (`inner`) ends with it, and may be broken off alone.

    `cancel` runs in any thread; functions that it calls must not wait for anything.
    """

    def __init__(self, until: Optional[float] = None) -> None:
        self.until = until  #: when it ends (time.monotonic()); None: nobody has said a time
        self.error: Optional[BaseException] = None  #: why it was broken off
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._watchers: Dict[int, Callable[[], object]] = {}
        self._numbers = itertools.count()

    def cancel(self, error: BaseException) -> bool:
        """Breaks all of it off; False when that has happened before."""
        with self._lock:
            if self.error is not None:
                return False
            self.error = error
            watchers, self._watchers = list(self._watchers.values()), {}
        self._ended.set()
        for watcher in watchers:
            watcher()
        return True

    def check(self) -> None:
        """Raises what it was broken off with."""
        if self.error is not None:
            raise self.error

    def left(self) -> Optional[float]:
        """Seconds until its time is over; None where it has no limit."""
        return None if self.until is None else max(0.0, self.until - time.monotonic())

    def sleep(self, seconds: float) -> None:
        """Waits; raises when it is broken off meanwhile."""
        self._ended.wait(seconds)
        self.check()

    @contextlib.contextmanager
    def watched(self, watcher: Callable[[], object]) -> Iterator[None]:
        """Inside of it, a cancel calls `watcher`, once; at once where it has happened before."""

        number = next(self._numbers)
        with self._lock:
            late = self.error is not None
            if not late:
                self._watchers[number] = watcher
        if late:
            watcher()
        try:
            yield
        finally:
            with self._lock:
                self._watchers.pop(number, None)

    @contextlib.contextmanager
    def inner(self) -> Iterator["Scope"]:
        """A part of this work."""
        part = Scope(self.until)
        with self.watched(lambda: part.cancel(self.error or RuntimeError("broken off"))):
            yield part

    @contextlib.contextmanager
    def limited(self, seconds: Optional[float], error: BaseException) -> Iterator[None]:
        """Inside of it, the scope is broken off with `error` after so many seconds; None: never."""
        if seconds is None:
            yield
            return
        before, until = self.until, time.monotonic() + seconds
        self.until = until if before is None else min(before, until)
        stop = alarm(seconds, lambda: self.cancel(error))
        try:
            yield
        finally:
            stop()
            self.until = before


class _Clock:
    """Calls functions at their time, all in one thread."""

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._due: List[Tuple[float, int, Callable[[], object]]] = []
        self._stopped: Dict[int, bool] = {}
        self._numbers = itertools.count()
        self._thread: Optional[threading.Thread] = None

    def at(self, when: float, func: Callable[[], object]) -> Callable[[], None]:
        number = next(self._numbers)
        with self._wake:
            heapq.heappush(self._due, (when, number, func))
            self._stopped[number] = False
            if self._thread is None or not self._thread.is_alive():  # a process that was forked has no thread of its parent
                self._thread = threading.Thread(target=self._run, name="rlm-clock", daemon=True)
                self._thread.start()
            self._wake.notify()

        def stop() -> None:
            with self._wake:
                if number in self._stopped:
                    self._stopped[number] = True
                while self._due and self._stopped[self._due[0][1]]:
                    self._stopped.pop(heapq.heappop(self._due)[1])

        return stop

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._wake.wait(self._due[0][0] - time.monotonic() if self._due else None)
                _, number, func = heapq.heappop(self._due)
                stopped = self._stopped.pop(number)
            if not stopped:
                func()


_clock = _Clock()


def alarm(seconds: float, func: Callable[[], object]) -> Callable[[], None]:
    """Calls `func` after so many seconds, in a thread that all alarms share; the returned function prevents it."""
    return _clock.at(time.monotonic() + seconds, func)


class Place:
    """One of the places of what runs at once; waiting for it ends with the scope."""

    def __init__(self, places: threading.BoundedSemaphore, scope: Scope) -> None:
        self._places, self._scope = places, scope

    def __enter__(self) -> None:
        while not self._places.acquire(timeout=0.2):
            self._scope.check()

    def __exit__(self, *_: object) -> None:
        self._places.release()
