# SPDX-License-Identifier: Apache-2.0
"""Answers of tool calls, remembered so that a repeated request does not repeat what its tools did.

An executor names each call with the metadata ``x-codemode-call``: "<request>:<number>", numbers from 1 in the order of the
calls, and tells with ``x-codemode-run`` one run of a request from another. An executor that was replaced in the middle of a
request runs its code again from the start, and the calls of that second run meet the answers of the first:

- The same call of the same run is a repetition: it gets the recorded answer, or the one that the running call will have.
- In another run, calls are matched by tool and arguments, those with the same number first: code whose threads come in
  another order makes the same calls under other numbers. Each call of the former runs answers one call of the new one; what
  the code calls more often than before, runs.
- A call of a run that has been replaced comes too late, and is refused.

Executors that do not tell their runs apart get a simpler rule: same name, tool and arguments, same answer.

Bounds: answers are kept for ten minutes after the newest call of their request, and for as long as there is room. When
bytes run short, the oldest answers are dropped but not the fact that they were given: such a call is answered with an
error, never by a second run. Only when there are too many requests, the oldest are forgotten as a whole.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections import OrderedDict
from typing import Any, Callable, Dict, List, Optional, Tuple

_NAME_MAX = 512
_RUNS_KEPT = 100

Identity = Tuple[str, bytes]


class Call:
    """One call of a tool: whoever made it first runs it, others wait for `answer`."""

    __slots__ = ("identity", "request", "number", "answer", "size", "kept")

    def __init__(self, identity: Identity, request: str = "", number: int = 0) -> None:
        self.identity = identity
        self.request = request  #: the name of its request; empty: it cannot be asked for again
        self.number = number
        self.answer: "concurrent.futures.Future[Any]" = concurrent.futures.Future()
        self.size = 0
        self.kept = True  #: False: it was given, and dropped since


class LateCall(Exception):
    """A call of a run that another run of the same request has replaced; the tool must not run for it."""


_NOTHING: "concurrent.futures.Future[Any]" = concurrent.futures.Future()
_NOTHING.set_result(None)


class _Request:
    __slots__ = ("calls", "unclaimed", "used", "run", "replaced")

    def __init__(self) -> None:
        self.calls: Dict[int, Call] = {}  # of the present run
        self.unclaimed: List[Call] = []  # of former runs, that the present one has not made yet
        self.used = 0.0
        self.run = ""
        self.replaced: List[str] = []  # former runs

    def all(self) -> List[Call]:
        return [*self.calls.values(), *self.unclaimed]


class CallMemory:
    """Calls by their names. Safe to use from several threads."""

    def __init__(
        self,
        keep_seconds: float = 600.0,
        bytes_max: int = 64 << 20,
        calls_max: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keep, self._bytes_max, self._calls_max, self._clock = keep_seconds, bytes_max, calls_max, clock
        self._lock = threading.Lock()
        self._requests: "OrderedDict[str, _Request]" = OrderedDict()  # the least recently used first
        self._answered: "OrderedDict[Call, None]" = OrderedDict()  # those with an answer in memory, oldest first
        self._calls = self._bytes = 0

    def begin(self, name: str, identity: Identity, run: str = "") -> Tuple[Call, bool]:
        """(the call, True when it is new: then the caller runs the tool and hands its answer to `finish`).

        Raises LateCall for a call of a run that was replaced."""
        request_name, _, digits = name.rpartition(":")
        if not request_name or not digits.isdigit() or len(name) > _NAME_MAX:
            return Call(identity), True  # no name of ours
        with self._lock:
            self._forget_old()
            self._requests.setdefault(request_name, _Request())
            request = self._use(request_name)
            self._change_run(request, run)
            return self._take(request, request_name, int(digits), identity)

    def _use(self, name: str) -> _Request:
        request = self._requests[name]
        request.used = self._clock()
        self._requests.move_to_end(name)
        return request

    @staticmethod
    def _change_run(request: _Request, run: str) -> None:
        if run == request.run:
            return
        if run in request.replaced:
            raise LateCall("the server that made this call has been replaced by another one")
        if request.run:
            request.replaced = [*request.replaced[-_RUNS_KEPT:], request.run]
        request.unclaimed = request.all()
        request.calls = {}
        request.run = run

    def _take(self, request: _Request, name: str, number: int, identity: Identity) -> Tuple[Call, bool]:
        known = request.calls.get(number)
        if known is not None and known.identity == identity:
            return known, False
        if known is not None:  # an executor that tells no runs apart
            request.unclaimed.append(known)
        same = [call for call in request.unclaimed if call.identity == identity] if request.run else []
        if not same:
            self._calls += 1
            request.calls[number] = Call(identity, name, number)
            return request.calls[number], True
        call = next((call for call in same if call.number == number), same[0])
        request.unclaimed.remove(call)
        request.calls[number] = call
        return call, False

    def finish(self, call: Call, answer: Any, size: int) -> None:
        """Hands an answer of `size` bytes to all who wait for the call."""
        call.answer.set_result(answer)
        if call.request:
            with self._lock:
                self._use(call.request)  # requests with running calls are there still
                call.size = size
                self._answered[call] = None
                self._bytes += size
                while self._bytes > self._bytes_max:
                    self._drop_answer(next(iter(self._answered)))

    def _drop_answer(self, call: Call) -> None:
        if call in self._answered:
            del self._answered[call]
            self._bytes -= call.size
        call.kept = False  # before the next line: whoever reads them the other way round is never misled
        call.answer = _NOTHING

    def _forget_old(self) -> None:
        """Drops requests that are too old or, oldest first, too many; those with running calls stay."""
        horizon = self._clock() - self._keep
        gone = []
        left = self._calls
        for name, request in self._requests.items():
            if request.used > horizon and left <= self._calls_max:
                break
            if all(call.answer.done() for call in request.all()):
                gone.append(name)
                left -= len(request.all())
        for name in gone:
            for call in self._requests.pop(name).all():
                self._drop_answer(call)
        self._calls = left

    def __len__(self) -> int:
        with self._lock:
            return self._calls
