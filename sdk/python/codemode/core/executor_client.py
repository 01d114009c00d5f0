# SPDX-License-Identifier: Apache-2.0
"""Calls an executor over gRPC.

A request keeps its correlation id over all its attempts. By it the executor knows a request that it has seen before and
answers from its record, so an attempt whose answer was lost does not run the code, or its tools, a second time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, Optional, Sequence, Tuple, Union
from urllib.parse import urlsplit

from codemode.config.model import TLSConfig, check_url
from codemode.core.correlation import check_correlation_id, generate_correlation_id
from codemode.core.credentials import as_tls, channel_credentials
from codemode.core.errors import CodemodeError
from codemode.core.needs import need_grpc
from codemode.core.values import to_struct

logger = logging.getLogger("codemode.executor")

#: Bytes of one message in either direction.
MESSAGE_MAX = 64 << 20
#: Seconds that a call may take beyond the code's own limit, so that the executor's answer arrives first.
_MARGIN = 5.0
_RETRIED = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")


class ExecutorClientError(CodemodeError):
    """The executor gave no answer. `status` is the gRPC code's name ("UNAVAILABLE"), `correlation_id` the request's."""

    def __init__(self, message: str, status: str = "", correlation_id: str = "") -> None:
        super().__init__(message)
        self.status, self.correlation_id = status, correlation_id


class ExecutorConnectionError(ExecutorClientError, ConnectionError):
    """It cannot be reached, or refuses the API key (UNAVAILABLE, UNAUTHENTICATED)."""


class ExecutorTimeoutError(ExecutorClientError, TimeoutError):
    """It did not answer in time (DEADLINE_EXCEEDED). Whether the code has run is not known: asking again with the same
    correlation id gets the answer without running it twice."""


@dataclass(frozen=True)
class ErrorDetails:
    """What went wrong in the code."""

    error_type: str  #: "ZeroDivisionError", "Timeout", "SecurityViolation", ...
    message: str
    traceback: str  #: its last frames; empty where there is none


@dataclass(frozen=True)
class ExecutionResult:
    """What an execution answered. Code that raises is a result with `success` False, not an exception here."""

    success: bool
    result: str = ""  #: str(result) if the code binds `result`, else the repr of its last expression; "" for neither
    stdout: str = ""
    stderr: str = ""
    error: Optional[str] = None
    error_details: Optional[ErrorDetails] = None
    correlation_id: str = ""
    duration_ms: float = 0.0


def limit_traceback(text: str, frames: int) -> str:
    """A traceback with its last `frames` frames; "" where the text has none."""
    start = text.rfind("Traceback (most recent call last):")
    if start < 0:
        return ""
    lines = text[start:].rstrip().splitlines()
    heads = [index for index, line in enumerate(lines) if line.startswith('  File "')]
    if len(heads) <= frames:
        return "\n".join(lines)
    ends = [index for index, line in enumerate(lines) if index > heads[-1] and not line.startswith(" ")]
    first = heads[-frames] if frames else (ends[0] if ends else len(lines))
    return "\n".join([lines[0], f"  ... {len(heads) - frames} frames left out", *lines[first:]])


@dataclass
class _Attempts:
    """One request over its attempts."""

    what: str
    metadata: List[Tuple[str, str]]
    correlation_id: str
    deadline: float  #: seconds of one attempt
    count: int = 0
    started: float = field(default_factory=time.monotonic)


class ExecutorClient:
    """One executor, one connection, kept; for any number of threads and event loops. It connects with its first call."""

    def __init__(
        self,
        executor_url: str = "http://localhost:8001",
        api_key: Optional[str] = None,
        timeout: float = 35,
        tls_config: Union[TLSConfig, Mapping[str, Any], None] = None,
        retry_enabled: bool = True,
        retry_max_attempts: int = 3,
        retry_backoff_base_ms: float = 100,
        retry_backoff_max_ms: float = 5000,
        retry_status_codes: Optional[Iterable[Any]] = None,
        include_correlation_id: bool = True,
        correlation_id_prefix: str = "cm",
        traceback_limit: int = 5,
        max_code_length: Optional[int] = None,
    ) -> None:
        """`executor_url`: "http://host:port", "https://..." for TLS, or "host:port". `timeout`: seconds of one attempt,
        longer where the code's own limit is. `retry_status_codes`: of gRPC, as names or grpc.StatusCode; by default
        UNAVAILABLE, DEADLINE_EXCEEDED and RESOURCE_EXHAUSTED. `include_correlation_id` False sends an id only where
        retries need it. `traceback_limit`: frames. `max_code_length`: characters; longer code is not sent.

        Raises ConfigError (a ValueError) for what cannot be meant.
        """
        self._grpc = need_grpc()
        wrong = check_url(executor_url)
        if wrong:
            raise ValueError(f"executor_url {wrong}, not {executor_url!r}")
        parts = urlsplit(executor_url if "://" in executor_url else f"http://{executor_url}")
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        tls = as_tls(tls_config)
        secure = parts.scheme in ("https", "grpcs")
        self.target = f"{host}:{parts.port or (443 if secure else 8001)}"  #: "host:port"
        self._tls = tls if tls and tls.enabled else TLSConfig(enabled=True) if secure and not tls else None
        if secure and tls and not tls.enabled:  # https says so, whatever the section's default
            self._tls = dataclasses.replace(tls, enabled=True)
        if self._tls:
            self._tls.check_client()
        if not 0 < timeout <= 86400:
            raise ValueError(f"timeout must be from 0 to 86400 seconds, not {timeout!r}")
        if retry_max_attempts < 1:
            raise ValueError("retry_max_attempts counts the first attempt too: 1 at the least")
        self.timeout = float(timeout)
        self.max_attempts = retry_max_attempts if retry_enabled else 1
        self._backoff = (retry_backoff_base_ms / 1000, retry_backoff_max_ms / 1000)
        self._retried = self._codes(retry_status_codes)
        self._include_id = include_correlation_id
        self._prefix = correlation_id_prefix
        self._traceback_limit = traceback_limit
        self._max_code_length = max_code_length
        self._key = _check_key(api_key)
        self._lock = threading.Lock()
        self._channel: Any = None
        self._stub: Any = None
        self._closed = threading.Event()

    def __repr__(self) -> str:
        return f"ExecutorClient({self.target}, tls={self._tls is not None})"

    def _codes(self, given: Optional[Iterable[Any]]) -> FrozenSet[Any]:
        made = set()
        for code in _RETRIED if given is None else given:
            name = getattr(code, "name", str(code)).upper()
            if not hasattr(self._grpc.StatusCode, name):
                raise ValueError(f"retry_status_codes: gRPC has no code {name}")
            made.add(getattr(self._grpc.StatusCode, name))
        return frozenset(made)

    # --- the connection

    def _connected(self) -> Any:
        """The stub. The connection itself comes with the first call, and again after it broke."""
        with self._lock:
            if self._closed.is_set():
                raise ExecutorClientError("this client is closed: make a new one")
            if self._stub is None:
                from codemode.protos import codemode_pb2_grpc

                options = [
                    ("grpc.max_send_message_length", MESSAGE_MAX),
                    ("grpc.max_receive_message_length", MESSAGE_MAX),
                    # Our own attempts decide when to try again: an executor that was restarted is found at once.
                    ("grpc.initial_reconnect_backoff_ms", 100),
                    ("grpc.max_reconnect_backoff_ms", 2000),
                    ("grpc.enable_retries", 0),
                    ("grpc.enable_http_proxy", 0),  # a sidecar stands beside its application
                    ("grpc.keepalive_time_ms", 60000),
                    ("grpc.keepalive_timeout_ms", 20000),
                ]
                if self._tls:
                    self._channel = self._grpc.secure_channel(self.target, channel_credentials(self._tls), options)
                else:
                    self._channel = self._grpc.insecure_channel(self.target, options)
                self._stub = codemode_pb2_grpc.ExecutorServiceStub(self._channel)
            return self._stub

    def close(self) -> None:
        """Ends the connection; calls that run fail. May be called twice."""
        with self._lock:
            self._closed.set()
            if self._channel is not None:
                self._channel.close()
            self._channel = self._stub = None

    def __enter__(self) -> "ExecutorClient":
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    async def __aenter__(self) -> "ExecutorClient":
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self.close()

    # --- executions

    def execute(
        self,
        code: str,
        available_tools: Optional[Sequence[str]] = None,
        config: Optional[Mapping[str, Any]] = None,
        execution_timeout: Optional[float] = 30,
        context: Optional[Mapping[str, Any]] = None,
        correlation_id: Optional[str] = None,
        session_id: Optional[str] = None,
    ) -> ExecutionResult:
        """Runs `code` and waits for its answer.

        `available_tools`: what the code may call; none: all that the application's tool service lists. `config`,
        `context`: JSON values that the code sees under these names; tools are given `context` too. `execution_timeout`:
        seconds, rounded up; None or 0: the executor's default; the executor cuts it to its own limit. `correlation_id`:
        1 to 128 printable characters; the same id with the same code within ten minutes gets the first run's answer.
        `session_id`: runs in that session and keeps its variables; else nothing is kept.

        Raises ExecutorConnectionError, ExecutorTimeoutError or ExecutorClientError when there is no answer, and
        ValueNotSentError for values that cannot travel.
        """
        refused = self._refuse(code, correlation_id)
        if refused is not None:
            return refused
        request, attempts = self._prepare(
            code, available_tools, config, execution_timeout, context, correlation_id, session_id
        )
        while True:
            attempts.count += 1
            try:
                stub = self._connected()
                return self._result(
                    stub.Execute(request, timeout=attempts.deadline, metadata=attempts.metadata), attempts
                )
            except self._grpc.RpcError as error:
                wait = self._after_failure(error, attempts)
            except ValueError as error:  # the channel was closed meanwhile
                raise self._closed_error(error, attempts) from error
            self._closed.wait(wait)

    async def execute_async(
        self,
        code: str,
        available_tools: Optional[Sequence[str]] = None,
        config: Optional[Mapping[str, Any]] = None,
        execution_timeout: Optional[float] = 30,
        context: Optional[Mapping[str, Any]] = None,
        correlation_id: Optional[str] = None,
        session_id: Optional[str] = None,
    ) -> ExecutionResult:
        """`execute()` for event loops. Cancelling it withdraws the request, which stops the code."""
        refused = self._refuse(code, correlation_id)
        if refused is not None:
            return refused
        request, attempts = self._prepare(
            code, available_tools, config, execution_timeout, context, correlation_id, session_id
        )
        while True:
            attempts.count += 1
            try:
                stub = self._connected()
                call = stub.Execute.future(request, timeout=attempts.deadline, metadata=attempts.metadata)
                return self._result(await _awaited(call), attempts)
            except self._grpc.RpcError as error:
                wait = self._after_failure(error, attempts)
            except ValueError as error:
                raise self._closed_error(error, attempts) from error
            await asyncio.sleep(wait)

    def _refuse(self, code: str, correlation_id: Optional[str]) -> Optional[ExecutionResult]:
        if not isinstance(code, str):
            raise TypeError(f"code must be a str, not {type(code).__name__}")
        limit = self._max_code_length
        if limit is None or len(code) <= limit:
            return None
        text = f"Security violation: Code exceeds maximum length of {limit} characters"
        details = ErrorDetails("SecurityViolation", text, "")
        return ExecutionResult(False, error=text, error_details=details, correlation_id=correlation_id or "")

    def _prepare(
        self,
        code: str,
        available_tools: Optional[Sequence[str]],
        config: Optional[Mapping[str, Any]],
        execution_timeout: Optional[float],
        context: Optional[Mapping[str, Any]],
        correlation_id: Optional[str],
        session_id: Optional[str],
    ) -> Tuple[Any, _Attempts]:
        from codemode.protos import codemode_pb2

        limit = execution_timeout or 0
        if not 0 <= limit <= 86400:
            raise ValueError(f"execution_timeout must be from 0 to 86400 seconds, not {execution_timeout!r}")
        chosen = check_correlation_id(correlation_id) if correlation_id else ""
        if not chosen and (self._include_id or self.max_attempts > 1):
            chosen = generate_correlation_id(self._prefix)
        request = codemode_pb2.ExecutionRequest(
            code=code, available_tools=available_tools or (), timeout=math.ceil(limit), correlation_id=chosen
        )
        if config is not None:
            request.config.CopyFrom(to_struct(config, "config"))
        if context is not None:
            request.context.CopyFrom(to_struct(context, "context"))
        metadata = self._metadata()
        if chosen:
            metadata.append(("x-correlation-id", chosen))
        if session_id is not None:
            metadata.append(("x-session-id", session_id))
        return request, _Attempts("Execute", metadata, chosen, max(self.timeout, limit + _MARGIN if limit else 0))

    def _metadata(self) -> List[Tuple[str, str]]:
        return [("authorization", f"Bearer {self._key}")] if self._key else []

    def _result(self, response: Any, attempts: _Attempts) -> ExecutionResult:
        details = None
        if not response.success:
            details = ErrorDetails(
                response.error_type or "Unknown",
                response.error,
                limit_traceback(response.stderr or response.error, self._traceback_limit),
            )
        result = ExecutionResult(
            success=response.success,
            result=response.result,
            stdout=response.stdout,
            stderr=response.stderr,
            error=None if response.success else response.error,
            error_details=details,
            correlation_id=response.correlation_id or attempts.correlation_id,
            duration_ms=response.duration_ms,
        )
        outcome = "ok" if details is None else details.error_type
        logger.info("%s execution %s in %.1f ms", result.correlation_id or "-", outcome, result.duration_ms)
        return result

    # --- failures

    def _after_failure(self, error: Any, attempts: _Attempts) -> float:
        """Seconds to wait before the next attempt; raises when there is none."""
        code = error.code()
        if code not in self._retried or attempts.count >= self.max_attempts or self._closed.is_set():
            raise self._as_error(error, attempts) from None
        base, most = self._backoff
        wait: float = min(base * 2 ** (attempts.count - 1) * random.uniform(0.8, 1.2), most)
        logger.warning(
            "%s attempt %d of %d: %s (%s); again in %.2f s",
            attempts.correlation_id or "-",
            attempts.count,
            self.max_attempts,
            code.name,
            error.details(),
            wait,
        )
        return wait

    def _as_error(self, error: Any, attempts: _Attempts) -> ExecutorClientError:
        code, said = error.code(), error.details() or ""
        name, codes = code.name, self._grpc.StatusCode
        tries = f" ({attempts.count} attempts in {time.monotonic() - attempts.started:.1f} s)" if attempts.count > 1 else ""
        kind = ExecutorClientError
        if self._closed.is_set():
            text = "this client was closed while the call ran"
        elif code == codes.UNAVAILABLE:
            kind = ExecutorConnectionError
            tls = "with TLS" if self._tls else "without TLS"
            text = (
                f"no executor can be reached at {self.target} {tls}{tries}: {said}. Is it running (`codemode docker "
                "status`), is its address right (CODEMODE_EXECUTOR_URL), and do both sides use TLS or neither?"
            )
        elif code == codes.UNAUTHENTICATED:
            kind = ExecutorConnectionError
            shown = "the API key" if self._key else "a call without an API key"
            text = f"the executor at {self.target} refuses {shown}: {said}. CODEMODE_API_KEY must be the same on both sides"
        elif code == codes.DEADLINE_EXCEEDED:
            kind = ExecutorTimeoutError
            text = (
                f"the executor at {self.target} did not answer within {attempts.deadline:g} s{tries}; the code may have run. "
                f"Ask again with correlation_id='{attempts.correlation_id}' for its answer, or allow more time"
            )
        elif code == codes.UNIMPLEMENTED:
            text = f"what listens at {self.target} is no codemode.ExecutorService: {said}"
        elif code == codes.RESOURCE_EXHAUSTED:
            text = f"the executor at {self.target} has no room now{tries}: {said}"
        else:
            text = f"the executor at {self.target} answers {name}: {said}"
        return kind(text, name, attempts.correlation_id)

    def _closed_error(self, error: ValueError, attempts: _Attempts) -> Exception:
        if not self._closed.is_set():
            return error
        return ExecutorClientError("this client was closed while the call ran", "CANCELLED", attempts.correlation_id)

    # --- health

    def health(self, timeout: float = 5.0) -> Dict[str, str]:
        """{"status", "version", "main_app_target"} of the executor; raises as execute() does. No key is needed."""
        return self._ask("Health", timeout)

    def ready(self, timeout: float = 5.0) -> Dict[str, str]:
        """The same; status "ready", or "unreachable" while the executor does not reach the application's tools."""
        return self._ask("Ready", timeout)

    def _ask(self, method: str, timeout: float) -> Dict[str, str]:
        from google.protobuf import empty_pb2

        attempts = _Attempts(method, self._metadata(), "", timeout, count=1)
        try:
            answer = getattr(self._connected(), method)(empty_pb2.Empty(), timeout=timeout, metadata=attempts.metadata)
        except self._grpc.RpcError as error:
            raise self._as_error(error, attempts) from None
        return {name: getattr(answer, name) for name in ("status", "version", "main_app_target")}

    def health_check(self, timeout: float = 5.0) -> bool:
        """Does the executor answer? Never raises for an executor that does not."""
        return self._is("healthy", self.health, timeout)

    def ready_check(self, timeout: float = 5.0) -> bool:
        """Could it run code now that calls this application's tools?"""
        return self._is("ready", self.ready, timeout)

    def _is(self, wanted: str, ask: Any, timeout: float) -> bool:
        try:
            status: str = ask(timeout)["status"]
        except ExecutorClientError as error:
            logger.warning("%s", error)
            return False
        if status != wanted:
            logger.warning("the executor at %s is %s", self.target, status)
        return status == wanted

    async def health_check_async(self, timeout: float = 5.0) -> bool:
        return await asyncio.get_running_loop().run_in_executor(None, self.health_check, timeout)

    async def ready_check_async(self, timeout: float = 5.0) -> bool:
        return await asyncio.get_running_loop().run_in_executor(None, self.ready_check, timeout)


def _check_key(key: Optional[str]) -> str:
    if not key:
        return ""
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise ValueError("the API key must be printable ASCII without spaces at its ends")
    return key


async def _awaited(call: Any) -> Any:
    """The answer of a call that a thread of grpc completes. Cancelling the wait cancels the call."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def settle() -> None:
        if not done.done():
            done.set_result(None)

    def on_done(_: Any) -> None:
        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:
            pass  # the loop is closed: nobody waits

    call.add_done_callback(on_done)
    try:
        await done
    except asyncio.CancelledError:
        call.cancel()
        raise
    try:
        return call.result()
    except need_grpc().FutureCancelledError:  # the channel was closed
        raise ValueError("closed") from None
