# SPDX-License-Identifier: Apache-2.0
"""An asyncio event loop for a place without sockets.

The stock loops wake themselves through a socket pair, which WASI does not have. Nothing here can be
polled, so all that a loop ever waits for is its next timer or a call from another thread; both are a
wait on one lock.
"""

import _thread
import asyncio
import collections
from asyncio import base_events, events

CALLS_MAX = 256  # of tools that one loop has running at once; the others wait for their turn


class PlainSleeper:
    """Stands where BaseEventLoop expects a selector.

    The lock is held except between a wake() and the select() that notices it, so a wake() that comes
    first is not lost. A lock is one C object: a KeyboardInterrupt cannot leave it half changed, as it
    could a Condition.
    """

    def __init__(self):
        self._lock = _thread.allocate_lock()
        self._lock.acquire()
        self._answers = collections.deque()

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

    def put(self, answer):
        """For tests: what the sandbox's own Sleeper gets from the gateway."""
        self._answers.append(answer)
        self.wake()

    def answer(self):
        return self._answers.popleft() if self._answers else None


try:
    from _codemode import Sleeper  # which answers of tools wake as well
except ImportError:  # not inside the sandbox
    Sleeper = PlainSleeper


class Loop(base_events.BaseEventLoop):
    """Timers, tasks, executors and calls from threads; no sockets, pipes or signals."""

    def __init__(self, selector=None):
        super().__init__()
        self._selector = Sleeper()  # whatever is given: there is nothing that a real one could watch
        self._calls = {}  # handles of tools' calls and the futures that wait for them
        self._turns = collections.deque()  # futures of those that wait to make one

    def _process_events(self, event_list):
        while (answer := self._selector.answer()) is not None:
            future = self._calls.pop(answer[0], None)
            if future is not None and not future.done():
                future.set_result(answer[1:])

    async def call_tool(self, send, cancel):
        """Makes a call by send(sleeper) and returns its (failure, text). If the task is cancelled, the call is as well."""
        while len(self._calls) >= CALLS_MAX or not (handle := send(self._selector)):
            if self._calls:
                await self._wait_for_turn()
            else:
                await asyncio.sleep(0.005)  # other threads have all places
        future = self._calls[handle] = self.create_future()
        try:
            return await future
        finally:
            if self._calls.pop(handle, None) is not None:
                cancel(handle)
            self._next_turn()

    async def _wait_for_turn(self):
        turn = self.create_future()
        self._turns.append(turn)
        try:
            await turn
        except BaseException:
            self._next_turn()  # it may have been ours
            raise

    def _next_turn(self):
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                break

    def _write_to_self(self):
        self._selector.wake()


class Policy(events.BaseDefaultEventLoopPolicy):
    _loop_factory = Loop


def install():
    """Makes Loop what asyncio.run, Runner and new_event_loop use, also after a reset of the policy."""
    asyncio.DefaultEventLoopPolicy = Policy
    asyncio.EventLoop = asyncio.SelectorEventLoop = Loop
    asyncio.set_event_loop_policy(Policy())
