# SPDX-License-Identifier: Apache-2.0
"""Sessions of a sidecar: a factory that speaks to it, and environments that own one session each.

Every operation exists once as a blocking method; the async methods run it in a small thread pool. When
an awaiting task is cancelled, its connection is cut and the sidecar interrupts the execution.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Callable, Dict, Optional, Type, TypeVar
from urllib.parse import quote

from .errors import SidecarError, SidecarUnavailable
from .result import ExecutionResult
from .transport import Answer, Call, Transport, refusal

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_E = TypeVar("_E", bound="SidecarREPLEnv")

#: Seconds that requests other than executions may take.
CONTROL_TIMEOUT = 30.0


def _default_url() -> str:
    return os.environ.get("WASM_MANAGER_SERVICE_URL") or "http://localhost:8080"


@dataclass(frozen=True)
class SidecarExecutionConfig:
    """How to reach a sidecar.

    ``wasm_service_url``  base URL; by default WASM_MANAGER_SERVICE_URL, else http://localhost:8080
    ``timeout``           seconds that one execution may run; the sidecar may cut it to its own maximum
    ``session_ttl``       seconds without use after which the caller expects a session to be gone. For
                          the caller's own planning: what counts is the sidecar's SESSION_TTL
    ``queue_timeout``     seconds to wait beyond ``timeout`` for an answer: time in the session's queue
                          and on the wire
    ``max_connections``   async requests in flight at once, and connections kept for reuse
    ``api_key``           that the sidecar wants; by default CODEMODE_API_KEY, None where that is not set
    """

    wasm_service_url: str = field(default_factory=_default_url)
    timeout: float = 30
    session_ttl: float = 3600
    queue_timeout: float = 60
    max_connections: int = 64
    api_key: Optional[str] = field(default_factory=lambda: os.environ.get("CODEMODE_API_KEY") or None, repr=False)

    def __post_init__(self) -> None:
        if self.timeout <= 0 or self.queue_timeout < 0:
            raise ValueError("timeout must be above 0 and queue_timeout at least 0 seconds")
        if self.max_connections < 1:
            raise ValueError("max_connections must be at least 1")


def create_sidecar_repl_factory(config: Optional[SidecarExecutionConfig] = None) -> "SidecarREPLFactory":
    """A factory for the sidecar that the configuration or WASM_MANAGER_SERVICE_URL names. Opens no
    connection yet."""
    return SidecarREPLFactory(config)


class SidecarREPLFactory:
    """Creates, uses and deletes sessions of one sidecar. Safe to share between threads and event loops.

    Executions never raise for what happens on the way: they answer an `ExecutionResult` with
    ``success`` False. Creating and deleting sessions raises `SidecarError`.
    """

    def __init__(self, config: Optional[SidecarExecutionConfig] = None, *, verify_ssl: bool = True) -> None:
        self.config = config or SidecarExecutionConfig()
        self._transport = Transport(
            self.config.wasm_service_url,
            idle_max=self.config.max_connections,
            verify_ssl=verify_ssl,
            api_key=self.config.api_key,
        )
        self._threads = ThreadPoolExecutor(self.config.max_connections, thread_name_prefix="rlm-remote")
        self._finalizer = weakref.finalize(self, _close, self._transport, self._threads)

    @property
    def transport(self) -> Transport:
        """Its connections to the sidecar."""
        return self._transport

    def create_repl_env(self) -> "SidecarREPLEnv":
        """An environment with a session of its own, created at its first use."""
        return SidecarREPLEnv(factory=self)

    async def create_session(self) -> str:
        """A new session's id. Raises SidecarError, with code ``too_many_sessions`` when the sidecar is full."""
        return await self._in_thread(self.create_session_sync)

    async def execute_in_session(
        self,
        session_id: str,
        code: str,
        context: Optional[Dict[str, Any]] = None,
        timeout: Optional[float] = None,
    ) -> ExecutionResult:
        """Runs `code` in a session, after earlier executions of it. The members of `context` (JSON
        values) become variables first. `timeout` in seconds replaces the configured one. Raises only
        for a context without a JSON form (TypeError, ValueError)."""
        return await self._in_thread(self.execute_in_session_sync, session_id, code, context, timeout)

    async def delete_session(self, session_id: str) -> None:
        """Ends a session; an unknown one is no error. Raises SidecarUnavailable without an answer."""
        await self._in_thread(self.delete_session_sync, session_id)

    async def destroy_session(self, session_id: str) -> None:
        """The same as `delete_session`."""
        await self.delete_session(session_id)

    def create_session_sync(self, *, call: Optional[Call] = None) -> str:
        answer = self._request("POST", "/session", {}, timeout=CONTROL_TIMEOUT, call=call)
        session_id = answer.data.get("session_id")
        if answer.status >= 400:
            raise refusal(answer)
        if not isinstance(session_id, str):
            raise SidecarUnavailable(f"POST /session: no session_id in the answer (HTTP {answer.status})", code="bad_answer")
        return session_id

    def execute_in_session_sync(
        self,
        session_id: str,
        code: str,
        context: Optional[Dict[str, Any]] = None,
        timeout: Optional[float] = None,
        *,
        call: Optional[Call] = None,
    ) -> ExecutionResult:
        limit = self.config.timeout if timeout is None else timeout
        body: Dict[str, Any] = {"code": code, "timeout": limit}
        if context:
            body["context"] = context
        path = f"/session/{quote(session_id, safe='')}/execute"
        started = time.monotonic()
        try:
            answer = self._request("POST", path, body, timeout=limit + self.config.queue_timeout, call=call)
            return _execution(answer)
        except SidecarError as error:
            return ExecutionResult.from_error(error, time.monotonic() - started)

    def delete_session_sync(self, session_id: str, *, call: Optional[Call] = None) -> None:
        path = f"/session/{quote(session_id, safe='')}"
        answer = self._request("DELETE", path, None, timeout=CONTROL_TIMEOUT, call=call)
        if answer.status >= 400 and answer.status != 404:
            raise refusal(answer)

    def health_check(self) -> bool:
        """True when the sidecar answers GET /health with 200."""
        return self._probe("/health")

    def readiness_check(self) -> bool:
        """True when the sidecar takes work: GET /ready answers 200."""
        return self._probe("/ready")

    def close(self) -> None:
        """Closes connections and threads; sessions stay. Called by the garbage collector otherwise."""
        self._finalizer()

    def _probe(self, path: str) -> bool:
        try:
            return self._transport.request("GET", path, timeout=5.0).status == 200
        except SidecarError:
            return False

    def _request(
        self, method: str, path: str, body: Optional[Dict[str, Any]], *, timeout: float, call: Optional[Call]
    ) -> Answer:
        """The one way to the sidecar; subclasses add repetition here."""
        return self._transport.request(method, path, body, timeout=timeout, call=call)

    async def _in_thread(self, func: Callable[..., _T], *args: Any) -> _T:
        call = Call()
        job = functools.partial(func, *args, call=call)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, job)
        except asyncio.CancelledError:
            call.abort()
            raise


class SidecarREPLEnv:
    """One session and what belongs to it.

    The session is created at the first use, or by `initialize`. Works as ``with`` and as ``async with``;
    both end the session.
    """

    def __init__(
        self, config: Optional[SidecarExecutionConfig] = None, *, factory: Optional[SidecarREPLFactory] = None
    ) -> None:
        self._factory = factory or SidecarREPLFactory(config)
        self._pending: Dict[str, Any] = {}
        self._creating = threading.Lock()
        self.session_id: Optional[str] = None

    async def initialize(self) -> None:
        """Creates the session now, if there is none. Raises SidecarError."""
        await self._factory._in_thread(self._ensure_session)

    def set_context(self, context_json: Any = None, context_str: Optional[str] = None) -> None:
        """Sets the variable ``context`` before the next execution: to a JSON value or to a text; the
        text wins when both are given."""
        if context_json is not None:
            self._pending["context"] = context_json
        if context_str is not None:
            self._pending["context"] = context_str

    async def execute_code(self, code: str, context: Optional[Dict[str, Any]] = None) -> ExecutionResult:
        """Runs `code`; members of `context` become variables first. Never raises for a fault on the way."""
        return await self._factory._in_thread(self._execute, code, context)

    def code_execution(self, code: str, context: Optional[Dict[str, Any]] = None) -> ExecutionResult:
        """The blocking form of `execute_code`."""
        return self._execute(code, context)

    async def cleanup(self) -> None:
        """Ends the session. Never raises: the sidecar ends an idle session by itself."""
        await self._factory._in_thread(self._close)

    def close(self) -> None:
        """The blocking form of `cleanup`."""
        self._close()

    def _ensure_session(self, *, call: Optional[Call] = None) -> str:
        with self._creating:
            if self.session_id is None:
                self.session_id = self._factory.create_session_sync(call=call)
            return self.session_id

    def _execute(
        self, code: str, context: Optional[Dict[str, Any]] = None, *, call: Optional[Call] = None
    ) -> ExecutionResult:
        started = time.monotonic()
        try:
            session_id = self._ensure_session(call=call)
        except SidecarError as error:
            return ExecutionResult.from_error(error, time.monotonic() - started)
        pending = self._pending
        variables = {**pending, **(context or {})}
        result = self._factory.execute_in_session_sync(session_id, code, variables, call=call)
        if "status" not in result and self._pending is pending:
            self._pending = {}
        return result

    def _close(self, *, call: Optional[Call] = None) -> None:
        session_id, self.session_id = self.session_id, None
        if session_id is None:
            return
        try:
            self._factory.delete_session_sync(session_id, call=call)
        except SidecarError as error:
            _log.warning("session %s was not deleted: %s", session_id, error)

    def __enter__(self: _E) -> _E:
        self._ensure_session()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    async def __aenter__(self: _E) -> _E:
        await self.initialize()
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.cleanup()


def _execution(answer: Answer) -> ExecutionResult:
    """Services of this family may answer 500 for code that raised: what counts is the body."""
    if isinstance(answer.data.get("success"), bool):
        return ExecutionResult(answer.data)
    if answer.status >= 400:
        raise refusal(answer)
    raise SidecarUnavailable(f"not an execution's answer (HTTP {answer.status})", code="bad_answer")


def _close(transport: Transport, threads: ThreadPoolExecutor) -> None:
    transport.close()
    threads.shutdown(wait=False)
