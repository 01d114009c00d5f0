# SPDX-License-Identifier: Apache-2.0
"""A run in a thread of its own, for callers that wait with or without an event loop."""

from __future__ import annotations

import asyncio
import atexit
import threading
import weakref
from concurrent.futures import Future
from typing import Callable, Generic, TypeVar

from . import errors
from .scope import Scope

_T = TypeVar("_T")

#: Seconds that a run may take to tidy up after it was cancelled.
TIDY_UP = 30.0


class Running(Generic[_T]):
    """`func(scope)` in a thread. Waiting with Ctrl-C, or in a task that is cancelled, breaks it off."""

    def __init__(self, func: Callable[[Scope], _T], scope: Scope) -> None:
        self.scope = scope
        self._future: "Future[_T]" = Future()
        _all.add(self)  # type: ignore[arg-type]

        def work() -> None:
            try:
                found = func(scope)
            except BaseException as error:
                self._future.set_exception(error)
            else:
                self._future.set_result(found)

        threading.Thread(target=work, name="rlm-run", daemon=True).start()

    def cancel(self) -> None:
        self.scope.cancel(errors.CancellationError())

    def done(self) -> bool:
        return self._future.done()

    def result(self) -> _T:
        """Waits for it, from any thread, also from one that has a running event loop. Ctrl-C cancels the run: CancellationError. A
        second one does not wait for its tidying up."""
        try:
            return self._future.result()
        except KeyboardInterrupt:
            self.cancel()
            return self._future.result(TIDY_UP)

    async def wait(self) -> _T:
        """The same in a task; a task that is cancelled cancels the run, and ends when that has ended."""
        waiting = asyncio.wrap_future(self._future)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            self.cancel()
            await asyncio.wait([waiting], timeout=TIDY_UP)
            if waiting.done() and not waiting.cancelled():
                waiting.exception()  # somebody has looked at it
            raise

    def _finish(self) -> None:
        self.cancel()
        try:
            self._future.exception(5.0)
        except BaseException:
            pass  # the process ends; the sidecar ends idle sessions by itself


_all: "weakref.WeakSet[Running[object]]" = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """A program that ends deletes its sessions."""
    for running in list(_all):
        if not running.done():
            running._finish()
