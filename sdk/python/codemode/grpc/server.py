# SPDX-License-Identifier: Apache-2.0
"""The application's side: serves the components of a registry to the executor.

Each call has a thread of the server. Plain tools run in it; async ones run on an event loop, that of the application
with `start_tool_service_async()`, else one of the service's own, while the thread waits. So calls of both kinds overlap.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import hmac
import inspect
import ipaddress
import json
import logging
import os
import threading
import time
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Union

from codemode.config.loader import service_tls_from_env
from codemode.config.model import TLSConfig
from codemode.core.component import Component
from codemode.core.context import RuntimeContext, current_context
from codemode.core.credentials import as_tls, server_credentials
from codemode.core.errors import CodemodeError, ComponentNotFoundError
from codemode.core.executor_client import MESSAGE_MAX
from codemode.core.needs import need_grpc
from codemode.core.registry import ComponentRegistry
from codemode.core.values import from_struct, to_struct
from codemode.grpc.memory import Call, CallMemory, LateCall

logger = logging.getLogger("codemode.tools")

#: Tool calls that run at once, where nobody says otherwise; further ones wait for a thread.
WORKERS = 256
#: Seconds that an async tool runs on when its executor is gone, for a replaced one to ask for its answer.
REJOIN_SECONDS = 2.0
_WAIT_MAX = 24 * 3600.0


class _ToolLoop:
    """The application's event loop, or one in a thread of its own, started when the first async tool needs it."""

    def __init__(self, loop: Optional[asyncio.AbstractEventLoop]) -> None:
        self._lock = threading.Lock()
        self._loop = loop
        self._thread: Optional[threading.Thread] = None

    def get(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="codemode-async-tools", daemon=True
                )
                self._thread.start()
            return self._loop

    def stop(self) -> None:
        with self._lock:
            loop, thread = self._loop, self._thread
            if loop is None or thread is None:
                return  # there is none, or it is the application's
            self._loop = self._thread = None
        with_tasks = asyncio.run_coroutine_threadsafe(_cancel_all(), loop)
        try:
            with_tasks.result(5)
        except Exception:  # a tool that refuses to end goes with its thread
            logger.warning("async tools are still running")
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        if not thread.is_alive():
            loop.close()


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=4)


class _Watch:
    """Who waits for a running async call. When nobody does any more, it is cancelled: at once after a deadline, or when
    the call has no name to ask again by, else after REJOIN_SECONDS."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rejoin: float) -> None:
        self._loop, self._rejoin = loop, rejoin
        self._lock = threading.Lock()
        self._watchers = 0
        self.task: Optional["concurrent.futures.Future[Any]"] = None

    def add(self, context: Any) -> None:
        with self._lock:
            self._watchers += 1
        if not context.add_callback(lambda: self._gone(context)):
            self._gone(context)

    def _gone(self, context: Any) -> None:
        with self._lock:
            self._watchers -= 1
            if self._watchers or self.task is None or self.task.done():
                return
        remaining = context.time_remaining()
        wait = 0.0 if remaining is not None and remaining <= 0 else self._rejoin
        try:
            self._loop.call_soon_threadsafe(self._loop.call_later, wait, self._cancel)
        except RuntimeError:
            pass  # the loop is closed, and the call with it

    def _cancel(self) -> None:
        with self._lock:
            task = None if self._watchers else self.task
        if task is not None:
            task.cancel()


class _Servicer:
    """codemode.ToolService for a registry."""

    def __init__(
        self,
        registry: ComponentRegistry,
        keys: Tuple[str, ...],
        open_to_all: bool,
        loop: Callable[[], asyncio.AbstractEventLoop],
        memory: CallMemory,
    ) -> None:
        from codemode.protos import codemode_pb2

        self._grpc = need_grpc()
        self._pb2 = codemode_pb2
        self._registry, self._loop, self._memory = registry, loop, memory
        self._keys = [_digest(key) for key in keys]
        self._open_to_all = open_to_all
        self._lock = threading.Lock()
        self._watches: Dict[Call, _Watch] = {}

    # --- who may call

    def _authorize(self, context: Any) -> Dict[str, str]:
        """The call's metadata; ends calls that show no key with UNAUTHENTICATED."""
        metadata = {str(key): value for key, value in context.invocation_metadata() if isinstance(value, str)}
        if not self._keys:
            if not self._open_to_all and not _is_loopback(context.peer()):
                self._deny(context, "calls from other machines need an API key: set CODEMODE_API_KEY on both sides")
            return metadata
        shown = metadata.get("authorization", "")
        scheme, _, key = shown.partition(" ")
        digest = _digest(key.strip())
        # Every key is looked at, so the time taken says nothing about which one was nearly right.
        fits = [hmac.compare_digest(digest, known) for known in self._keys]
        if scheme.lower() != "bearer" or not any(fits):
            what = "wrong API key" if shown else "no API key"
            self._deny(context, f"{what}: CODEMODE_API_KEY of the executor and of the application must be the same")
        return metadata

    def _deny(self, context: Any, text: str) -> None:
        logger.warning("refused a call from %s: %s", context.peer(), text)
        context.abort(self._grpc.StatusCode.UNAUTHENTICATED, text)

    # --- what there is

    def ListTools(self, request: Any, context: Any) -> Any:
        self._authorize(context)
        return self._pb2.ListToolsResponse(tools=[self._info(component) for component in self._registry.components()])

    def _info(self, component: Component) -> Any:
        info = self._pb2.ToolInfo(
            name=component.name,
            is_async=component.is_async,
            has_context=component.has_context,
            description=component.description,
        )
        self._add_schemas(info, component)
        return info

    def _add_schemas(self, to: Any, component: Component) -> None:
        for name in ("input_schema", "output_schema"):
            schema = getattr(component, name)
            if schema is not None:
                getattr(to, name).json_schema = json.dumps(schema)

    def GetToolSchema(self, request: Any, context: Any) -> Any:
        self._authorize(context)
        try:
            component = self._registry.find(request.tool_name)
        except ComponentNotFoundError as error:
            context.abort(self._grpc.StatusCode.NOT_FOUND, str(error))
            raise  # abort() has raised already
        answer = self._pb2.GetToolSchemaResponse(
            tool_name=component.name,
            description=component.description,
            is_async=component.is_async,
            has_context=component.has_context,
        )
        self._add_schemas(answer, component)
        return answer

    # --- calls

    def CallTool(self, request: Any, context: Any) -> Any:
        metadata = self._authorize(context)
        correlation = metadata.get("x-correlation-id") or request.correlation_id
        name = metadata.get("x-codemode-call", "")
        try:
            component = self._registry.find(request.tool_name)
        except ComponentNotFoundError as error:
            logger.info("%s tool '%s' unknown", correlation or "-", request.tool_name)
            return self._pb2.ToolCallResponse(success=False, error=str(error), correlation_id=correlation)
        identity = (request.tool_name, _fingerprint(request))
        try:
            call, new = self._memory.begin(name, identity, metadata.get("x-codemode-run", ""))
        except LateCall as error:
            return self._pb2.ToolCallResponse(success=False, error=str(error), correlation_id=correlation)
        if new:
            answer = self._run(component, call, name, correlation, request, context)
        else:
            answer = self._join(call, request.tool_name, correlation, context)
        if answer.correlation_id == correlation:
            return answer
        copy = self._pb2.ToolCallResponse()
        copy.CopyFrom(answer)
        copy.correlation_id = correlation
        return copy

    def _run(
        self, component: Component, call: Call, name: str, correlation: str, request: Any, context: Any
    ) -> Any:
        started = time.monotonic()
        outcome = "ok"
        try:
            variables: Mapping[str, Any] = from_struct(request.context)
            if not variables:
                variables = self._registry.get_context() or RuntimeContext()
            told = RuntimeContext(variables, correlation)
            function = component.bind(from_struct(request.arguments), told)
            value = self._value(component, function, told, call, bool(name), context)
            result = value if isinstance(value, Mapping) else {"value": value}
            answer = self._pb2.ToolCallResponse(
                success=True, result=to_struct(result, "its result"), correlation_id=correlation
            )
            if answer.ByteSize() > MESSAGE_MAX - 4096:
                raise CodemodeError(f"its result has {answer.ByteSize()} bytes, {MESSAGE_MAX} are allowed")
        except BaseException as error:  # also SystemExit: a tool does not end the application
            outcome = f"failed ({type(error).__name__})"
            logger.debug("%s tool '%s'", correlation or "-", component.name, exc_info=True)
            answer = self._pb2.ToolCallResponse(success=False, error=_text_of(error), correlation_id=correlation)
        finally:
            with self._lock:
                self._watches.pop(call, None)
        self._memory.finish(call, answer, answer.ByteSize())
        milliseconds = (time.monotonic() - started) * 1000
        logger.info("%s tool '%s' %s in %.1f ms", correlation or "-", component.name, outcome, milliseconds)
        return answer

    def _value(
        self,
        component: Component,
        function: Callable[[], Any],
        told: RuntimeContext,
        call: Call,
        named: bool,
        context: Any,
    ) -> Any:
        if not component.is_async:
            with current_context(told):
                value = function()
            if not inspect.isawaitable(value):
                return value
            pending = value
        else:
            pending = None

        async def work() -> Any:
            with current_context(told):
                return await (function() if pending is None else pending)

        loop = self._loop()
        watch = _Watch(loop, REJOIN_SECONDS if named else 0.0)
        watch.task = asyncio.run_coroutine_threadsafe(work(), loop)
        with self._lock:
            self._watches[call] = watch
        watch.add(context)
        return watch.task.result(_WAIT_MAX)

    def _join(self, call: Call, tool: str, correlation: str, context: Any) -> Any:
        """The answer of a call that another request has made already or is making."""
        answer, kept = call.answer, call.kept
        if not kept:
            logger.warning("%s tool '%s' repeated; its answer is not kept any more", correlation or "-", tool)
            text = "this call has run already and is not repeated; its answer was too large to keep"
            return self._pb2.ToolCallResponse(success=False, error=text, correlation_id=correlation)
        with self._lock:
            watch = self._watches.get(call)
        if watch is not None:
            watch.add(context)
        logger.info("%s tool '%s' repeated; answered from the record", correlation or "-", tool)
        remaining = context.time_remaining()
        try:
            return answer.result(_WAIT_MAX if remaining is None else max(remaining, 0.0))
        except concurrent.futures.TimeoutError:
            context.abort(self._grpc.StatusCode.DEADLINE_EXCEEDED, f"tool '{tool}' is still running")
            raise


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _fingerprint(request: Any) -> bytes:
    """Of arguments and context: the same values give the same bytes."""
    digest = hashlib.sha256()
    for struct in (request.arguments, request.context):
        data = struct.SerializeToString(deterministic=True)
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()


def _text_of(error: BaseException) -> str:
    """What the code's author reads. Where the text alone says little, with the type before it."""
    if isinstance(error, (asyncio.CancelledError, concurrent.futures.CancelledError)):
        return "cancelled: nobody waited for it any more"
    try:
        text = str(error)
    except Exception:
        text = ""
    if not text or isinstance(error, (KeyError, IndexError, StopIteration, AssertionError)):
        if isinstance(error, ComponentNotFoundError):
            return text
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text


def _is_loopback(peer: str) -> bool:
    """Of a peer as gRPC names it: "ipv4:127.0.0.1:4711", "ipv6:[::1]:4711" (also with %5B), "unix:"."""
    family, _, rest = peer.partition(":")
    if family == "unix":
        return True
    host = rest.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


class ToolServer:
    """A tool service. `start()` it, or use it in a ``with``; `stop()` ends it. Both may be called from any thread."""

    def __init__(
        self, registry: ComponentRegistry, host: str, port: int, server: Any, loops: _ToolLoop, tls: bool
    ) -> None:
        self.registry = registry
        self.host, self.port = host, port  #: the port that is listened on, also where 0 was asked for
        self._server, self._loops, self._tls = server, loops, tls
        self._lock = threading.Lock()
        self._started = False
        self._stopped = threading.Event()

    @property
    def target(self) -> str:
        """What to give an executor on this machine as CODEMODE_MAIN_APP_TARGET."""
        host = "localhost" if self.host in ("0.0.0.0", "::", "[::]", "") else self.host
        return f"{host}:{self.port}"

    def start(self) -> "ToolServer":
        """Begins to answer; returns at once. Once is enough."""
        with self._lock:
            if self._started:
                return self
            self._started = True
        self._server.start()
        _running.add(self)
        tls = "with TLS" if self._tls else "without TLS"
        logger.info("tool service on %s:%d %s, %d components", self.host, self.port, tls, len(self.registry))
        return self

    def stop(self, grace: Optional[float] = 1.0) -> None:
        """Takes no more calls, gives those that run `grace` seconds, then cuts them off. Returns when that is done. A plain
        tool that still runs then goes on in its thread, without anybody to answer."""
        ended = self._server.stop(grace)
        ended.wait((grace or 0) + 5)
        self._loops.stop()
        _running.discard(self)
        self._stopped.set()

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Waits until it is stopped; False when `timeout` seconds have passed before."""
        return self._stopped.wait(timeout)

    wait_for_termination = wait

    def __enter__(self) -> "ToolServer":
        return self.start()

    def __exit__(self, *exc: Any) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"ToolServer({self.host}:{self.port})"


class AsyncToolServer:
    """A tool service whose async tools run on the event loop that started it."""

    def __init__(self, server: ToolServer) -> None:
        self._server = server

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def target(self) -> str:
        return self._server.target

    async def stop(self, grace: Optional[float] = 1.0) -> None:
        """As `ToolServer.stop()`; the loop goes on meanwhile."""
        await asyncio.get_running_loop().run_in_executor(None, self._server.stop, grace)

    async def wait(self, timeout: Optional[float] = None) -> bool:
        """Waits until it is stopped; False when `timeout` seconds have passed before."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._server.wait(0):
            if end is not None and time.monotonic() >= end:
                return False
            await asyncio.sleep(0.05)
        return True

    wait_for_termination = wait

    async def __aenter__(self) -> "AsyncToolServer":
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self.stop()

    def __repr__(self) -> str:
        return f"AsyncToolServer({self._server.host}:{self._server.port})"


#: Services live until they are stopped, also those whose handle nobody keeps.
_running: "set[ToolServer]" = set()

Keys = Union[str, Iterable[str], None]


def _keys(given: Keys, registry: ComponentRegistry) -> Tuple[str, ...]:
    if given is None:
        given = registry.service_defaults.get("api_key") or os.environ.get("CODEMODE_API_KEY")
    if not given:
        return ()
    return (given,) if isinstance(given, str) else tuple(key for key in given if key)


def _tls(given: Any, registry: ComponentRegistry) -> Optional[TLSConfig]:
    tls = as_tls(given)
    if tls is None:
        tls = service_tls_from_env() or registry.service_defaults.get("tls_config")
    if tls is not None:
        tls.check_server()
    return tls if tls is not None and tls.enabled else None


def create_tool_server(
    registry: ComponentRegistry,
    host: str = "0.0.0.0",
    port: int = 50051,
    api_key: Keys = None,
    enable_concurrency: bool = False,
    max_workers: Optional[int] = None,
    tls_config: Union[TLSConfig, Mapping[str, Any], None] = None,
    loop: Optional[asyncio.AbstractEventLoop] = None,
) -> ToolServer:
    """A tool service that listens, and answers once it is started.

    `port`: 0 takes a free one. `api_key`: what the executor must show, or several while keys are rotated; by default the
    one of the registry's `Codemode`, or CODEMODE_API_KEY. Without any, only callers on this machine are served; "" says
    that this is meant. `max_workers`: tool calls that run at once (256); calls overlap in any case, `enable_concurrency` is
    accepted because older code passes it. `tls_config`: a TLSConfig or a dict with its keys; by default what
    CODEMODE_GRPC_TLS_* or the configuration's `grpc.tls` say. `loop`: runs the async tools; by default one of its own.

    Raises CodemodeError when the port is taken, ConfigError for TLS files that cannot be used.
    """
    grpc = need_grpc()
    from codemode.protos import codemode_pb2_grpc

    workers = WORKERS if max_workers is None else max_workers
    if workers < 1:
        raise ValueError(f"max_workers must be 1 or more, not {max_workers!r}")
    keys, tls = _keys(api_key, registry), _tls(tls_config, registry)
    credentials = server_credentials(tls) if tls else None
    loops = _ToolLoop(loop)
    open_to_all = tls is not None and bool(tls.ca_file)  # a client's certificate is as good as a key
    servicer = _Servicer(registry, keys, open_to_all, loops.get, CallMemory())
    pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="codemode-tool")
    options = [
        ("grpc.max_send_message_length", MESSAGE_MAX),
        ("grpc.max_receive_message_length", MESSAGE_MAX),
        ("grpc.so_reuseport", 0),  # a second service on the port is a mistake to be told of
        ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    ]
    server = grpc.server(pool, options=options, maximum_concurrent_rpcs=workers + 4096)
    codemode_pb2_grpc.add_ToolServiceServicer_to_server(servicer, server)  # type: ignore[arg-type]
    bound = _bind(server, host, port, credentials)
    if not keys and not open_to_all and not _is_local(host):
        logger.warning("the tool service has no API key, so it serves callers on this machine only")
    return ToolServer(registry, host, bound, server, loops, tls is not None)


def _is_local(host: str) -> bool:
    return host == "localhost" or _is_loopback(f"ipv4:{host}:0")


def _bind(server: Any, host: str, port: int, credentials: Any) -> int:
    address = f"[{host}]:{port}" if ":" in host and not host.startswith(("[", "unix:")) else f"{host}:{port}"
    try:
        if credentials is None:
            bound: int = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, credentials)
    except RuntimeError:  # newer releases raise, older ones return 0
        bound = 0
    if bound == 0:
        raise CodemodeError(
            f"the tool service cannot listen on {address}: is the port taken, perhaps by another worker of this "
            "application? One process serves the tools; start_tool_service(port=...) takes another port"
        )
    return bound


def start_tool_service(
    registry: ComponentRegistry,
    host: str = "0.0.0.0",
    port: int = 50051,
    api_key: Keys = None,
    enable_concurrency: bool = False,
    max_workers: Optional[int] = None,
    tls_config: Union[TLSConfig, Mapping[str, Any], None] = None,
    block: bool = False,
) -> ToolServer:
    """Serves the registry's components to the executor and returns at once; the service lives until it is stopped or the
    application ends. Arguments and errors are those of `create_tool_server()`. `block`: returns when it is stopped."""
    server = create_tool_server(registry, host, port, api_key, enable_concurrency, max_workers, tls_config).start()
    if block:
        server.wait()
    return server


async def start_tool_service_async(
    registry: ComponentRegistry,
    host: str = "0.0.0.0",
    port: int = 50051,
    api_key: Keys = None,
    enable_concurrency: bool = False,
    max_workers: Optional[int] = None,
    tls_config: Union[TLSConfig, Mapping[str, Any], None] = None,
) -> AsyncToolServer:
    """`start_tool_service()` for applications with an event loop: their async tools run on it, and may use what belongs to
    it (pools, sessions of an HTTP client). ``await server.stop(0)`` ends it."""
    loop = asyncio.get_running_loop()
    made = create_tool_server(
        registry, host, port, api_key, enable_concurrency, max_workers, tls_config, loop=loop
    )
    return AsyncToolServer(made.start())


__all__: List[str] = [
    "AsyncToolServer",
    "ToolServer",
    "create_tool_server",
    "start_tool_service",
    "start_tool_service_async",
]
