# SPDX-License-Identifier: Apache-2.0
"""An asyncio event loop for a place without sockets.

The stock loops wake themselves through a socket pair, which WASI does not have. Nothing here can be
polled, so all that a loop ever waits for is its next timer or a call from another thread; both are a
wait on one lock.
"""

import _thread
import asyncio
from asyncio import base_events, events


class Sleeper:
    """Stands where BaseEventLoop expects a selector.

    The lock is held except between a wake() and the select() that notices it, so a wake() that comes
    first is not lost. A lock is one C object: a KeyboardInterrupt cannot leave it half changed, as it
    could a Condition.
    """

    def __init__(self):
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def select(self, timeout):
        if timeout is None:
            self._lock.acquire()
        elif timeout > 0:
            self._lock.acquire(True, min(timeout, _thread.TIMEOUT_MAX))
        else:
            self._lock.acquire(False)
        return ()

    def wake(self):
        try:
            self._lock.release()
        except RuntimeError:
            pass  # somebody woke it already


class Loop(base_events.BaseEventLoop):
    """Timers, tasks, executors and calls from threads; no sockets, pipes or signals."""

    def __init__(self, selector=None):
        super().__init__()
        self._selector = Sleeper()  # whatever is given: there is nothing that a real one could watch

    def _process_events(self, event_list):
        pass

    def _write_to_self(self):
        self._selector.wake()


class Policy(events.BaseDefaultEventLoopPolicy):
    _loop_factory = Loop


def install():
    """Makes Loop what asyncio.run, Runner and new_event_loop use, also after a reset of the policy."""
    asyncio.DefaultEventLoopPolicy = Policy
    asyncio.EventLoop = asyncio.SelectorEventLoop = Loop
    asyncio.set_event_loop_policy(Policy())
