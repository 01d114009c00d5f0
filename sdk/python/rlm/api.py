# SPDX-License-Identifier: Apache-2.0
"""`RLM`: recursive language model inference (Zhang, Kraska, Khattab: arXiv 2512.24601) as one object."""

from __future__ import annotations

import io
import logging
import os
import pathlib
import threading
import time
import weakref
from typing import Any, BinaryIO, Callable, Dict, List, Mapping, Optional, Sequence, TypeVar, Union

from . import errors
from .backends import make_model, read_prices
from .client import Client, RunOptions
from .engine import Context, Conversation, Event, Node, Plan, Tree
from .live import LiveView
from .logger import RLMLogger
from .models import Model, ModelClient, ModelSettings
from .remote.sidecar import SidecarExecutionConfig, SidecarREPLFactory
from .remote.transport import Transport
from .results import RLMChatCompletion, UsageCounter, UsageSummary
from .running import Running
from .sandbox import Sandbox, Session
from .scope import Scope
from .service import complete_by_service
from .tools import read_tools

_log = logging.getLogger(__name__)
_R = TypeVar("_R", bound="RLM")

Prompt = Union[str, List[Any], Dict[str, Any], "os.PathLike[str]"]

#: Members of environment_kwargs.
_ENVIRONMENT = frozenset("url api_key execution_timeout timeout memory setup_code".split())


class RLM:
    """Answers queries about contexts that may be far larger than a model's window.

    The context becomes a variable in a sandboxed Python session. The root model sees its type and size, writes code that looks
    at it and asks models about parts of it, and says when it has the answer.

    Two ways to run, with the same results:

    - in this process, with the sidecar at WASM_MANAGER_SERVICE_URL (or of `repl_factory`) for the sessions;
    - by an RLM service: `service_url`. Models are then the service's, and custom tools cannot be functions of this process.

    Arguments, all of which may be left out:

    ``backend, backend_kwargs``            the root's model: see `rlm.backends.make_model`; ``{"model_name": "gpt-5"}``
    ``other_backends, other_backend_kwargs``  lists of exactly one further model, which ``llm_query`` asks
    ``recursive_models``                   models of depth 1, 2, ...: names, or backend_kwargs over those of the root; the last one repeats
    ``environment, environment_kwargs``    "codemode" or "local" (the same here): ``url`` and ``api_key`` of the sidecar, ``execution_timeout``
                                           (seconds of one block, without waiting for sub-queries; 30), ``memory`` (bytes), ``setup_code``
    ``depth, max_depth``                   sub-queries recurse while depth + 1 < max_depth; at depth >= max_depth a completion is plain
    ``max_iterations``                     turns; then the model is asked for what it knows
    ``max_budget, max_timeout, max_tokens, max_errors``  US dollars; seconds; tokens in and out; turns with an error after one another.
                                           The first three are of the whole tree of runs
    ``custom_system_prompt``               in place of ours; ``{custom_tools}`` and the other names of rlm/prompts/v1/system.md are filled in
    ``custom_tools, custom_sub_tools``     ``{name: value}`` or ``{name: {"tool": value, "description"}}``: what can be called runs in this process,
                                           in threads; the rest becomes variables. For runs below the root the latter, where given
    ``logger``                             an `RLMLogger`
    ``verbose``                            shows the run on stderr as it happens
    ``persistent``                         one session over several completions: ``context_N``, ``history_N``; call `close`
    ``compaction, compaction_threshold_pct``  a conversation that fills so much of the model's window is replaced by a summary
    ``max_concurrent_subcalls``            runs below each run at once
    ``on_subcall_start(depth, model, prompt_preview)``, ``on_subcall_complete(depth, model, duration, error)``,
    ``on_iteration_start(depth, iteration)``, ``on_iteration_complete(depth, iteration, duration)``  called in threads of the run
    ``sampling_args, sub_sampling_args``   members of requests to the root's model, and to those below it
    ``orchestrator``                       advice on how to direct sub-queries, in the system prompt
    ``user_prologue``                      a further message of the user before the first turn

    Completions raise `RLMError`s (rlm.errors). Several may run at once, from any threads and event loops, except with `persistent`.
    """

    def __init__(
        self,
        backend: str = "openai",
        backend_kwargs: Optional[Mapping[str, Any]] = None,
        environment: str = "local",
        environment_kwargs: Optional[Mapping[str, Any]] = None,
        depth: int = 0,
        max_depth: int = 1,
        max_iterations: int = 30,
        max_budget: Optional[float] = None,
        max_timeout: Optional[float] = None,
        max_tokens: Optional[int] = None,
        max_errors: Optional[int] = None,
        custom_system_prompt: Optional[str] = None,
        other_backends: Optional[Sequence[str]] = None,
        other_backend_kwargs: Optional[Sequence[Mapping[str, Any]]] = None,
        logger: Optional[RLMLogger] = None,
        verbose: bool = False,
        persistent: bool = False,
        custom_tools: Optional[Mapping[str, Any]] = None,
        custom_sub_tools: Optional[Mapping[str, Any]] = None,
        compaction: bool = False,
        compaction_threshold_pct: float = 0.85,
        max_concurrent_subcalls: int = 4,
        on_subcall_start: Optional[Callable[[int, str, str], object]] = None,
        on_subcall_complete: Optional[Callable[[int, str, float, Optional[str]], object]] = None,
        on_iteration_start: Optional[Callable[[int, int], object]] = None,
        on_iteration_complete: Optional[Callable[[int, int, float], object]] = None,
        sampling_args: Optional[Mapping[str, Any]] = None,
        sub_sampling_args: Optional[Mapping[str, Any]] = None,
        orchestrator: bool = True,
        user_prologue: Optional[str] = None,
        *,
        recursive_models: Optional[Sequence[Union[str, Mapping[str, Any]]]] = None,
        repl_factory: Optional[SidecarREPLFactory] = None,
        service_url: Optional[str] = None,
        service_api_key: Optional[str] = None,
    ) -> None:
        _check_environment(environment, environment_kwargs)
        _check_limits(max_depth, max_iterations, max_budget, max_timeout, max_tokens, max_errors, max_concurrent_subcalls)
        if len(other_backends or ()) > 1 or len(other_backend_kwargs or ()) != len(other_backends or ()):
            raise ValueError("other_backends and other_backend_kwargs are lists of exactly one each")
        if not 0 < compaction_threshold_pct <= 1:
            raise ValueError("compaction_threshold_pct must be above 0 and at most 1")
        self.depth, self.max_depth, self.max_iterations = depth, max_depth, max_iterations
        self.logger, self.verbose, self.persistent = logger, verbose, persistent
        given = dict(environment_kwargs or {})
        tools = read_tools(custom_tools)
        self._callbacks = (on_subcall_start, on_subcall_complete, on_iteration_start, on_iteration_complete)
        self._plan = Plan(
            models=_models(backend, backend_kwargs, recursive_models, sampling_args, sub_sampling_args),
            other=make_model(other_backends[0], (other_backend_kwargs or [{}])[0], sub_sampling_args) if other_backends else None,
            max_depth=max_depth,
            max_iterations=max_iterations,
            max_budget=max_budget,
            max_timeout=max_timeout,
            max_tokens=max_tokens,
            max_errors=max_errors,
            max_concurrent_subcalls=max_concurrent_subcalls,
            execution_timeout=float(given.get("execution_timeout") or given.get("timeout") or 30.0),
            session_memory=given.get("memory"),
            setup_code=given.get("setup_code"),
            system_prompt=custom_system_prompt,
            user_prologue=user_prologue,
            orchestrator=orchestrator,
            compaction=compaction,
            compaction_threshold=compaction_threshold_pct,
            tools=tools,
            sub_tools=tools if custom_sub_tools is None else read_tools(custom_sub_tools),
            prices=read_prices((backend_kwargs or {}).get("prices")),
            deltas=verbose,
        )
        self._usage = UsageCounter()
        self._lock = threading.Lock()
        self._running: "weakref.WeakSet[Running[RLMChatCompletion]]" = weakref.WeakSet()
        self._talk = Conversation()
        self._client = ModelClient(ModelSettings(), self._plan.prices)
        self._service: Optional[Client] = None
        self._conversation_id: Optional[str] = None
        if service_url is not None:
            self._service = Client(service_url, service_api_key)
            self._options = RunOptions.of_rlm(self._plan, backend_kwargs, recursive_models, sampling_args, other_backends, custom_tools, custom_sub_tools)
            return
        self._factory, self._own_factory = _factory(repl_factory, given), repl_factory is None
        self._finalizer = weakref.finalize(self, _drop, self._talk, self._factory.config.wasm_service_url, self._factory.config.api_key)

    # --- completions

    def completion(self, prompt: Prompt, root_prompt: Optional[str] = None) -> RLMChatCompletion:
        """Answers `root_prompt` about `prompt`, the context: a text, a list or dict with a JSON form, or the path of a text file, which
        is read as it is sent. Without a `root_prompt` the query is in the context. Blocks; also works where an event loop runs.
        Ctrl-C breaks off the running code and requests: `CancellationError`."""
        return self._start(prompt, root_prompt).result()

    async def acompletion(self, prompt: Prompt, root_prompt: Optional[str] = None) -> RLMChatCompletion:
        """The same for a task; cancelling it cancels the run and waits until its session is deleted."""
        return await self._start(prompt, root_prompt).wait()

    def complete(self, query: str, context: Prompt = "") -> str:
        """The answer to a query about a context."""
        return self.completion(context, query).response

    async def acomplete(self, query: str, context: Prompt = "") -> str:
        """The same for a task."""
        return (await self.acompletion(context, query)).response

    def cancel(self) -> None:
        """Cancels all completions that run; they raise `CancellationError`. From any thread."""
        for running in list(self._running):
            running.cancel()

    def usage_summary(self) -> UsageSummary:
        """What all completions so far have used."""
        return self._usage.summary()

    def cost_summary(self) -> Dict[str, Any]:
        """The same as a dict: ``{"model_usage_summaries": {model: {...}}, "total_cost"?}``, in tokens and US dollars."""
        return self._usage.summary().to_dict()

    def forget_usage(self) -> None:
        """Begins to count anew."""
        self._usage = UsageCounter()

    # --- its end

    def close(self) -> None:
        """Cancels what runs and ends the session of persistent mode. It may be used again."""
        self.cancel()
        for running in list(self._running):
            try:
                running.result()
            except Exception:
                pass  # it is told to whoever waits for the completion
        if self._service is not None:
            if self._conversation_id is not None:
                self._service.end_conversation(self._conversation_id)
                self._conversation_id = None
            self._service.close()
            return
        _drop(self._talk, self._factory.config.wasm_service_url, self._factory.config.api_key)
        self._client.close()
        if self._own_factory:
            self._factory.transport.close()

    def __enter__(self: _R) -> _R:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self: _R) -> _R:
        return self

    async def __aexit__(self, *_: object) -> None:
        import asyncio

        await asyncio.get_running_loop().run_in_executor(None, self.close)

    # --- how a completion runs

    def _start(self, prompt: Prompt, root_prompt: Optional[str]) -> "Running[RLMChatCompletion]":
        if root_prompt is not None and not isinstance(root_prompt, str):
            raise TypeError("root_prompt must be a text")
        if self.persistent and not self._talk.busy.acquire(blocking=False):
            raise RuntimeError("a completion of this persistent RLM is still running")
        try:
            context = _open_context(prompt)
            run = self._by_service if self._service is not None else self._in_process
            running = Running(lambda scope: self._finish(run, prompt, context, root_prompt, scope), Scope())
        except BaseException:
            if self.persistent:
                self._talk.busy.release()
            raise
        self._running.add(running)
        return running

    def _finish(self, run: Any, prompt: Prompt, context: Context, query: Optional[str], scope: Scope) -> RLMChatCompletion:
        try:
            found: RLMChatCompletion = run(prompt, context, query, scope)
            return found
        finally:
            if isinstance(context.value, io.IOBase):
                context.value.close()
            if self.persistent:
                self._talk.busy.release()

    def _in_process(self, prompt: Prompt, context: Context, query: Optional[str], scope: Scope) -> RLMChatCompletion:
        started = time.monotonic()
        log = self.logger.begin() if self.logger is not None else None
        usage = UsageCounter(self._usage)
        root = self._plan.model(self.depth)
        tree = Tree(self._plan, self._client, Sandbox(self._factory.transport), usage, scope, self._listener(), log)
        node: Optional[Node] = None
        timeout = errors.TimeoutExceededError(self._plan.max_timeout or 0.0, self._plan.max_timeout or 0.0)
        try:
            with scope.limited(self._plan.max_timeout, timeout):
                if self.depth >= self.max_depth:
                    answer = _plain(tree, root, context, query)
                else:
                    node = Node(tree, self.depth, query, context, conversation=self._talk if self.persistent else None)
                    answer = node.run()
        except errors.RLMError as error:
            elapsed = time.monotonic() - started
            if error is timeout:
                error = errors.TimeoutExceededError(elapsed, timeout.timeout)
            error.partial_answer = error.partial_answer or (node.partial if node else None)
            raise error from None
        return RLMChatCompletion(
            root.name, prompt, answer, usage.summary(), time.monotonic() - started, log.trajectory() if log else None
        )

    def _by_service(self, prompt: Prompt, context: Context, query: Optional[str], scope: Scope) -> RLMChatCompletion:
        assert self._service is not None
        if self.persistent and self._conversation_id is None:
            self._conversation_id = self._service.begin_conversation()
        log = self.logger.begin() if self.logger is not None else None
        options = self._options.with_conversation(self._conversation_id)
        done = complete_by_service(self._service, prompt, context, query, options, scope, self._listener(), log)
        self._usage.merge(done.usage_summary)
        return done

    def _listener(self) -> Callable[[Event], None]:
        view = LiveView() if self.verbose else None
        start, complete, turn, turned = self._callbacks
        depths: Dict[int, int] = {}
        calls: Dict[int, Event] = {}

        def listen(event: Event) -> None:
            try:
                tell(event)
            except Exception:  # who listens must not end the run
                _log.exception("a callback, or the live view, has failed")

        def tell(event: Event) -> None:
            kind = event["type"]
            if kind == "metadata":
                depths[event["node"]] = event["depth"]
            if view is not None:
                view(event)
            if kind == "subcall_start":
                calls[event["call"]] = event
                if start is not None:
                    start(event["depth"], event["model"], event["prompt_preview"])
            elif kind == "subcall_complete":
                begun = calls.pop(event["call"])
                if complete is not None:
                    complete(begun["depth"], begun["model"], event["duration"], event["error"])
            elif kind == "turn" and turn is not None:
                turn(depths.get(event["node"], 0), event["iteration"])
            elif kind == "iteration" and turned is not None:
                turned(depths.get(event["node"], 0), event["iteration"], event["iteration_time"])

        return listen


def _open_context(prompt: Prompt) -> Context:
    if isinstance(prompt, os.PathLike):
        file: BinaryIO = open(pathlib.Path(prompt), "rb")
        return Context(file, "text", "str")
    if not isinstance(prompt, (str, list, dict, tuple)):
        raise TypeError(f"the prompt is a {type(prompt).__name__}; it must be a text, a list, a dict or a path")
    return Context.of(prompt)


def _plain(tree: Tree, model: Model, context: Context, query: Optional[str]) -> str:
    """A completion without a session."""
    content = context.value.read().decode("utf-8", "replace") if isinstance(context.value, io.IOBase) else str(context.value)
    told = "\n\n".join(part for part in (content, query) if part)
    reply = tree.ask(model, [{"role": "user", "content": told or " "}], tree.scope, tree.usage)
    if reply.failure:
        raise errors.ModelError(reply.reason, reply.failure, reply.text or None)
    return reply.text


def _models(
    backend: str,
    kwargs: Optional[Mapping[str, Any]],
    recursive: Optional[Sequence[Union[str, Mapping[str, Any]]]],
    sampling: Optional[Mapping[str, Any]],
    sub_sampling: Optional[Mapping[str, Any]],
) -> List[Model]:
    root = make_model(backend, kwargs, sampling)
    below = [{"model_name": entry} if isinstance(entry, str) else dict(entry) for entry in recursive or []] or [{}]
    return [root, *(make_model(backend, {**(kwargs or {}), **entry}, sub_sampling) for entry in below)]


def _factory(given: Optional[SidecarREPLFactory], environment: Mapping[str, Any]) -> SidecarREPLFactory:
    if given is not None:
        if not isinstance(given, SidecarREPLFactory):
            raise TypeError("repl_factory must be a SidecarREPLFactory (rlm.remote): code of a run needs its sessions")
        return given
    url, key = environment.get("url"), environment.get("api_key")
    return SidecarREPLFactory(
        SidecarExecutionConfig(**{**({"wasm_service_url": url} if url else {}), **({"api_key": key} if key else {})})
    )


def _drop(talk: Conversation, url: str, api_key: Optional[str]) -> None:
    """Ends the session of persistent mode. Over a connection of its own: it may be the garbage collector that calls."""
    session, talk.session = talk.session, None
    talk.contexts = talk.histories = 0
    if session is not None:
        Session(Transport(url, api_key=api_key), session.id).delete()


def _check_environment(environment: str, kwargs: Optional[Mapping[str, Any]]) -> None:
    if environment not in ("codemode", "local"):
        raise ValueError(
            f"environment {environment!r} is not supported: code always runs in sessions of a Codemode sidecar (\"codemode\"; \"local\" means the same)"
        )
    unknown = sorted(set(kwargs or {}) - _ENVIRONMENT)
    if unknown:
        raise TypeError(f"environment_kwargs has {', '.join(map(repr, unknown))}; known are {', '.join(sorted(_ENVIRONMENT))}")


def _check_limits(
    max_depth: int,
    max_iterations: int,
    max_budget: Optional[float],
    max_timeout: Optional[float],
    max_tokens: Optional[int],
    max_errors: Optional[int],
    max_concurrent_subcalls: int,
) -> None:
    for name, count in (("max_iterations", max_iterations), ("max_concurrent_subcalls", max_concurrent_subcalls)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1")
    if max_depth < 0:
        raise ValueError("max_depth must be at least 0")
    limits = (("max_budget", max_budget), ("max_timeout", max_timeout), ("max_tokens", max_tokens), ("max_errors", max_errors))
    for name, limit in limits:
        if limit is not None and limit <= 0:
            raise ValueError(f"{name} must be above 0, or None for no limit")
