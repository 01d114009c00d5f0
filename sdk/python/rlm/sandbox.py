# SPDX-License-Identifier: Apache-2.0
"""Sessions of a sidecar as a run uses them: large variables, code whose output and calls come as it runs (docs/streaming.md)."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from concurrent.futures import Future, wait
from typing import Any, BinaryIO, Callable, Dict, List, Optional, Union
from urllib.parse import quote

from . import errors
from .common import file_size
from .remote.errors import SidecarError, SidecarUnavailable
from .remote.transport import Answer, Call, Transport, refusal
from .scope import Scope, alarm
from .sse import events

_log = logging.getLogger(__name__)

#: Seconds that requests other than executions and variables may take without progress.
CONTROL_TIMEOUT = 30.0
#: Seconds that a value may take to find its place in a session.
PUT_TIMEOUT = 300.0
#: Seconds between an interrupt and the answer that it brings; then the session is given up.
INTERRUPT_PATIENCE = 30.0
#: Seconds for which a run that is cancelled waits for a session that is being made.
LATE_SESSION = 3.0
#: Calls that one execution may have open at once.
CALLS_MAX = 256
#: Bytes of one event.
EVENT_MAX = 128 << 20

#: What a session of a run needs beyond the defaults; a sidecar that allows less is taken as it is. Times are cut by the
#: sidecar to its own maximum: a block waits for models longer than it computes.
_LIMITS: Dict[str, Any] = {
    "timeout": 86400,
    "tool_timeout": 86400,
    "tool_calls": 100_000,
    "tool_argument": 16 << 20,
    "tool_result": 16 << 20,
}

OnCall = Callable[[str, Dict[str, Any], Scope], Any]


class Sandbox:
    """One sidecar. Errors are `SandboxError`s; what a scope was broken off with is raised as it is."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def create(self, scope: Scope, memory: Optional[int] = None, patience: float = 60.0) -> "Session":
        """A new session. Waits while the sidecar has no room, for `patience` seconds at the most."""
        limits = {**_LIMITS, **({"memory": memory} if memory else {})}
        end = time.monotonic() + patience
        while True:
            try:
                answer = self._post_session({"limits": limits}, scope)
            except SidecarUnavailable as error:
                raise errors.SandboxError(f"no session: {error.detail}. {error.remediation}", error.code) from error
            ident = answer.data.get("session_id")
            if answer.status == 200 and isinstance(ident, str):
                return Session(self.transport, ident)
            if answer.status == 422 and len(limits) > 2:
                limits = {"timeout": 86400, **({"memory": memory} if memory else {})}
                continue
            refused = refusal(answer)
            if answer.status not in (429, 503) or time.monotonic() >= end:
                raise _failed("no session", refused)
            scope.sleep(min(refused.retry_after or 1.0, max(0.0, end - time.monotonic())))


    def _post_session(self, body: Dict[str, Any], scope: Scope) -> Answer:
        """Not broken off in its middle: a session whose id nobody has learnt would stay. One that comes too late is deleted."""
        scope.check()
        answered: "Future[Answer]" = Future()
        woken = threading.Event()

        def work() -> None:
            try:
                answered.set_result(self.transport.request("POST", "/session", body, timeout=CONTROL_TIMEOUT))
            except BaseException as error:
                answered.set_exception(error)
            woken.set()

        def delete(done: "Future[Answer]") -> None:
            ident = None if done.exception() else done.result().data.get("session_id")
            if isinstance(ident, str):
                Session(self.transport, ident).delete()

        threading.Thread(target=work, name="rlm-session", daemon=True).start()
        with scope.watched(woken.set):
            woken.wait()
        if scope.error is not None:
            wait([answered], timeout=LATE_SESSION)
            answered.add_done_callback(delete)
            scope.check()
        return answered.result()


class Session:
    """One session; `delete` it when it is done with."""

    def __init__(self, transport: Transport, ident: str) -> None:
        self.id = ident
        self._transport = transport
        self._path = f"/session/{quote(ident, safe='')}"

    def put(self, name: str, value: Union[str, bytes, BinaryIO], kind: str, scope: Scope) -> int:
        """Makes `value` a variable: ``text``, ``json`` (as JSON text) or ``bytes``. A file is sent from its beginning. Returns
        what `len` says of it in the session, -1 for what has no length."""
        types = {"text": "text/plain; charset=utf-8", "json": "application/json", "bytes": "application/octet-stream"}
        body: Union[bytes, BinaryIO]
        if isinstance(value, str):
            body = value.encode("utf-8", "replace")  # half of a surrogate pair is no text outside of Python
        else:
            body = value
        size = len(body) if isinstance(body, bytes) else file_size(body)
        headers = {"Content-Type": types[kind], "Content-Length": str(size), "Accept": "application/json"}
        call = Call()
        with scope.watched(call.abort):
            try:
                path = f"{self._path}/variables/{quote(name, safe='')}"
                with self._transport.open("PUT", path, body, timeout=PUT_TIMEOUT, headers=headers, call=call) as stream:
                    answer = stream.answer()
            except SidecarUnavailable as error:
                scope.check()
                raise _failed(f"the variable {name}", error) from error
        if answer.status != 200:
            raise _failed(f"the variable {name}", refusal(answer))
        length = answer.data.get("length")
        return length if isinstance(length, int) else -1

    def execute(
        self,
        code: str,
        scope: Scope,
        *,
        timeout: float,
        tools: List[str],
        on_call: OnCall,
        on_output: Optional[Callable[[str, str], None]] = None,
        inline: Callable[[str], bool] = lambda name: False,
        loose: Callable[[str], bool] = lambda name: False,
    ) -> Dict[str, Any]:
        """Runs code and returns the sidecar's answer. `timeout` is in seconds without those in which it waits for `on_call`;
        an answer beyond it has ``timed_out`` True.

        `on_call(name, arguments, scope)` answers calls of `tools`, each in a thread of its own, except those that are `inline`. Its
        exceptions are the code's. Threads of calls have ended when this returns, except those that are `loose`."""
        return _Execution(self, scope, timeout, on_call, on_output, inline, loose).run(code, tools)

    def interrupt(self, execution: str) -> None:
        """If that is the running code, it sees KeyboardInterrupt."""
        try:
            self._transport.request("POST", self._path + "/interrupt", {"execution_id": execution}, timeout=CONTROL_TIMEOUT)
        except SidecarError as error:
            _log.warning("session %s was not interrupted: %s", self.id, error)

    def delete(self) -> None:
        """Ends it. Never raises: the sidecar ends an idle session by itself."""
        for last in (False, True):
            try:
                self._transport.request("DELETE", self._path, timeout=5.0)
                return
            except SidecarError as error:
                if last:
                    _log.warning("session %s was not deleted: %s", self.id, error)


class _Execution:
    """One execution: this thread reads its events, others answer its calls."""

    def __init__(
        self,
        session: Session,
        scope: Scope,
        timeout: float,
        on_call: OnCall,
        on_output: Optional[Callable[[str, str], None]],
        inline: Callable[[str], bool],
        loose: Callable[[str], bool],
    ) -> None:
        self._session, self._scope = session, scope
        self._on_call, self._on_output, self._inline, self._loose = on_call, on_output, inline, loose
        self._id = ""
        self._known = threading.Event()
        self._call = Call()  # the connection on which its events come
        self._lock = threading.Lock()
        self._open: Dict[int, Scope] = {}
        self._threads: List[threading.Thread] = []
        self._budget = _Budget(timeout, self._over)
        self._given_up = False

    def run(self, code: str, tools: List[str]) -> Dict[str, Any]:
        limits = {"timeout": 86400, "locals": 2}  # nobody here looks at the variables of an answer
        body = json.dumps({"code": code, "limits": limits, "caller_tools": tools}).encode()
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        with self._scope.inner() as part, part.watched(self._call.abort):
            try:
                path = self._session._path + "/execute"
                with self._session._transport.open("POST", path, body, timeout=86400, headers=headers, call=self._call) as stream:
                    if stream.status != 200:
                        raise _failed("the code did not run", refusal(stream.answer(1 << 20)))
                    self._budget.start()
                    return self._read(events(stream.pieces(), EVENT_MAX), part)
            except (SidecarUnavailable, ValueError) as error:
                self._scope.check()
                if self._given_up:
                    raise errors.SandboxError("the code did not stop when it was interrupted", "stuck") from error
                raise errors.SandboxError(str(error), "broken" if self._id else getattr(error, "code", "unavailable")) from error
            finally:
                self._budget.stop()
                part.cancel(_Over("the code does not wait for it any more"))
                for thread in self._threads:
                    thread.join(INTERRUPT_PATIENCE)

    def _read(self, stream: Any, part: Scope) -> Dict[str, Any]:
        answer: Optional[Dict[str, Any]] = None
        for event in stream:
            data = json.loads(event.data)
            if event.name == "output" and self._on_output is not None:
                self._on_output(str(data["stream"]), str(data["text"]))
            elif event.name == "call":
                self._begin(int(data["call"]), str(data["name"]), data.get("arguments") or {}, part)
            elif event.name == "call_gone":
                with self._lock:
                    gone = self._open.get(int(data["call"]))
                if gone is not None:
                    gone.cancel(_Over("the code does not wait for it any more"))
            elif event.name == "start":
                self._id = str(data["execution_id"])
                self._known.set()
            elif event.name == "result":
                answer = data
            elif event.name == "error":
                raise errors.SandboxError(f"the code did not run: {data.get('detail')}", str(data.get("code")))
        if answer is None:
            raise errors.SandboxError("the stream has no result", "broken")
        if self._budget.over:
            answer["timed_out"] = True
        return answer

    def _begin(self, number: int, name: str, arguments: Dict[str, Any], part: Scope) -> None:
        if self._inline(name):
            self._answer(number, name, arguments, part)
            return
        self._budget.wait()
        with self._lock:
            many = len(self._open) >= CALLS_MAX
            self._open[number] = Scope(part.until)
        if many:
            self._end(number)
            self._post(number, {"error": f"more than {CALLS_MAX} calls at once"})
            return

        def work() -> None:
            scope = self._open[number]
            with part.watched(lambda: scope.cancel(part.error or _Over("it is over"))):
                self._answer(number, name, arguments, scope)
            self._end(number)

        thread = threading.Thread(target=work, name="rlm-call", daemon=True)
        thread.start()
        if not self._loose(name):
            self._threads = [other for other in self._threads if other.is_alive()] + [thread]

    def _end(self, number: int) -> None:
        with self._lock:
            self._open.pop(number, None)
        self._budget.go_on()

    def _answer(self, number: int, name: str, arguments: Dict[str, Any], scope: Scope) -> None:
        try:
            answer = {"result": self._on_call(name, arguments, scope)}
            json.dumps(answer, allow_nan=False)
        except BaseException as error:  # whatever it is, the code waits for an answer
            answer = {"error": str(error) or type(error).__name__}
        if scope.error is None:
            self._post(number, answer)

    def _post(self, number: int, answer: Dict[str, Any]) -> None:
        path = f"{self._session._path}/executions/{quote(self._id, safe='')}/calls/{number}"
        try:
            found = self._session._transport.request("POST", path, answer, timeout=CONTROL_TIMEOUT)
            if found.status == 413:
                self._session._transport.request("POST", path, {"error": "the answer is too large"}, timeout=CONTROL_TIMEOUT)
        except SidecarError as error:
            _log.debug("call %d of %s was not answered: %s", number, self._id, error)

    def _over(self) -> None:
        """Runs in the thread of alarms, which must not wait."""

        def work() -> None:
            if self._known.wait(INTERRUPT_PATIENCE):
                self._session.interrupt(self._id)
            self._budget.after(INTERRUPT_PATIENCE, self._give_up)

        threading.Thread(target=work, name="rlm-interrupt", daemon=True).start()

    def _give_up(self) -> None:
        self._given_up = True
        self._call.abort()


class _Budget:
    """Seconds of an execution, which stand still while it waits for calls."""

    def __init__(self, seconds: float, on_over: Callable[[], None]) -> None:
        self._left, self._on_over = seconds, on_over
        self._lock = threading.Lock()
        self._waits = 0
        self._since: Optional[float] = None
        self._stop: Callable[[], None] = lambda: None
        self._stopped = False
        self.over = False

    def start(self) -> None:
        with self._lock:
            self._run()

    def wait(self) -> None:
        with self._lock:
            self._waits += 1
            if self._since is not None:
                self._left -= time.monotonic() - self._since
                self._since = None
                self._stop()

    def go_on(self) -> None:
        with self._lock:
            self._waits -= 1
            if self._waits == 0 and not self._stopped:
                self._run()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            self._stop()

    def after(self, seconds: float, func: Callable[[], None]) -> None:
        with self._lock:
            if not self._stopped:
                self._stop = alarm(seconds, func)

    def _run(self) -> None:
        if not self.over and math.isfinite(self._left):
            self._since = time.monotonic()
            self._stop = alarm(max(self._left, 0.0), self._end)

    def _end(self) -> None:
        with self._lock:
            if self._stopped or self._waits or self.over:
                return
            self.over = True
        self._on_over()


class _Over(Exception):
    """Work for which nobody waits any more."""


def _failed(what: str, error: SidecarError) -> errors.SandboxError:
    return errors.SandboxError(f"{what}: {error.detail}", error.code)
