# SPDX-License-Identifier: Apache-2.0
"""A client of the RLM service (docs/rlm-api.md)."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, Iterator, List, Mapping, Optional, Sequence, Union
from urllib.parse import quote

from . import errors
from .common import file_size
from .remote.errors import SidecarUnavailable
from .remote.transport import Answer, Call, Transport, refusal
from .running import Running
from .scope import Scope
from .sse import events

if TYPE_CHECKING:
    from .engine import Plan

#: Seconds without progress of requests that are answered at once, and of those that wait for models.
CONTROL_TIMEOUT, RUN_TIMEOUT = 60.0, 86400.0
#: Bytes of one event.
EVENT_MAX = 256 << 20


@dataclass(frozen=True)
class RunOptions:
    """Members of a run's request; None leaves it to the service. Their meaning is in docs/rlm-api.md."""

    model: Optional[str] = None
    recursive_models: Optional[Sequence[str]] = None
    max_depth: Optional[int] = None
    max_iterations: Optional[int] = None
    max_timeout: Optional[float] = None
    max_tokens: Optional[int] = None
    max_budget: Optional[float] = None
    max_errors: Optional[int] = None
    max_concurrent_subcalls: Optional[int] = None
    execution_timeout: Optional[float] = None
    system_prompt: Optional[str] = None
    user_prologue: Optional[str] = None
    orchestrator: Optional[bool] = None
    compaction: Optional[bool] = None
    compaction_threshold: Optional[float] = None
    custom_tools: Optional[Mapping[str, Any]] = None
    custom_sub_tools: Optional[Mapping[str, Any]] = None
    sampling: Optional[Mapping[str, Any]] = None
    conversation_id: Optional[str] = None

    def to_dict(self) -> Dict[str, Any]:
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def with_conversation(self, conversation_id: Optional[str]) -> "RunOptions":
        return dataclasses.replace(self, conversation_id=conversation_id)

    @classmethod
    def of_rlm(
        cls,
        plan: "Plan",
        backend_kwargs: Optional[Mapping[str, Any]],
        recursive_models: Optional[Sequence[Union[str, Mapping[str, Any]]]],
        sampling: Optional[Mapping[str, Any]],
        other_backends: Optional[Sequence[str]],
        custom_tools: Optional[Mapping[str, Any]],
        custom_sub_tools: Optional[Mapping[str, Any]],
    ) -> "RunOptions":
        """The options of an `RLM`. ValueError for what only works in this process."""
        given = dict(backend_kwargs or {})
        model = given.pop("model_name", None) or given.pop("model", None)
        if given or other_backends or any(not isinstance(entry, str) for entry in recursive_models or ()):
            raise ValueError("with service_url, models are the service's: only their names can be given here")
        if plan.tools.functions or plan.sub_tools.functions:
            names = ", ".join(sorted({*plan.tools.functions, *plan.sub_tools.functions}))
            raise ValueError(f'with service_url, functions cannot run here ({names}): send their source as {{"code": text}}, or leave service_url out')
        return cls(
            model=model,
            recursive_models=[str(entry) for entry in recursive_models] if recursive_models else None,
            max_depth=plan.max_depth,
            max_iterations=plan.max_iterations,
            max_timeout=plan.max_timeout,
            max_tokens=plan.max_tokens,
            max_budget=plan.max_budget,
            max_errors=plan.max_errors,
            max_concurrent_subcalls=plan.max_concurrent_subcalls,
            execution_timeout=plan.execution_timeout,
            system_prompt=plan.system_prompt,
            user_prologue=plan.user_prologue,
            orchestrator=None if plan.orchestrator else False,
            compaction=plan.compaction or None,
            compaction_threshold=plan.compaction_threshold if plan.compaction else None,
            custom_tools=custom_tools,
            custom_sub_tools=custom_sub_tools,
            sampling=sampling,
        )


class Client:
    """One RLM service: by default RLM_SERVICE_URL, else http://localhost:8000; its key by argument, or RLM_API_KEY. Safe to share
    between threads. Methods raise `ServiceError`. `RLM(service_url=...)` is the same service with the face of a local run."""

    def __init__(self, url: Optional[str] = None, api_key: Optional[str] = None) -> None:
        self.url = url or os.environ.get("RLM_SERVICE_URL") or "http://localhost:8000"
        self._transport = Transport(self.url, api_key=api_key or os.environ.get("RLM_API_KEY"))

    # --- runs

    def infer(self, query: str, context: Any = None, **options: Any) -> Dict[str, Any]:
        """A run to its end: ``{"success", "answer", "model", "max_depth", "run_id", "iterations", "execution_time", "usage"}``. Options are those of
        `RunOptions`. Ctrl-C ends the run."""
        return self._infer(query, context, options).result()

    async def ainfer(self, query: str, context: Any = None, **options: Any) -> Dict[str, Any]:
        """The same for a task; cancelling it ends the run."""
        return await self._infer(query, context, options).wait()

    def start(self, query: str, context: Any = None, *, context_id: Optional[str] = None, **options: Any) -> str:
        """Begins a run; its id."""
        body = _body(query, context, context_id, options)
        return str(self._json("POST", "/runs", body)["run_id"])

    def run(self, run_id: str) -> Dict[str, Any]:
        """Where a run stands: ``status`` is running, succeeded, failed or cancelled."""
        return self._json("GET", f"/runs/{quote(run_id, safe='')}")

    def runs(self) -> List[Dict[str, Any]]:
        """The runs that are known, the newest first."""
        return list(self._json("GET", "/runs")["runs"])

    def cancel(self, run_id: str) -> None:
        self._json("POST", f"/runs/{quote(run_id, safe='')}/cancel")

    def events(self, run_id: str, scope: Optional[Scope] = None) -> Iterator[Dict[str, Any]]:
        """What a run does, from its beginning and as it happens, to the result of its root. A connection that breaks is made again."""
        seen, faults = "", 0
        while True:
            headers = {"Accept": "text/event-stream", **({"Last-Event-ID": seen} if seen else {})}
            call = Call()
            try:
                with (scope or Scope()).watched(call.abort):
                    path = f"/runs/{quote(run_id, safe='')}/events"
                    with self._transport.open("GET", path, timeout=RUN_TIMEOUT, headers=headers, call=call) as stream:
                        if stream.status != 200:
                            raise _refused(stream.answer())
                        for event in events(stream.pieces(), EVENT_MAX):
                            seen, faults = event.id or seen, 0
                            data = json.loads(event.data)
                            yield data
                            if data.get("type") == "result" and data.get("node") == 0:
                                return
            except SidecarUnavailable as error:
                if scope is not None:
                    scope.check()
                faults += 1
                if faults > 3:
                    raise errors.ServiceError(str(error), code=error.code) from error
            else:
                return
            (scope or Scope()).sleep(0.2 * 2**faults)

    def trajectory(self, run_id: str) -> List[Dict[str, Any]]:
        """The objects of its trajectory file: one with ``type`` metadata, then iterations."""
        path = f"/runs/{quote(run_id, safe='')}/trajectory"
        with _asking(None) as call, self._transport.open("GET", path, timeout=CONTROL_TIMEOUT, call=call) as stream:
            if stream.status != 200:
                raise _refused(stream.answer())
            return [json.loads(line) for line in stream.read().decode("utf-8", "replace").splitlines() if line.strip()]

    # --- contexts and conversations

    def upload(self, context: Union[str, bytes, BinaryIO], kind: str = "text", scope: Optional[Scope] = None) -> str:
        """Sends a context of any size: ``text``, or ``json`` (its JSON text). A file is sent from its beginning. The id is used up by the
        run that it is given to."""
        body = context.encode("utf-8", "replace") if isinstance(context, str) else context
        size = len(body) if isinstance(body, bytes) else file_size(body)
        content_type = "application/json" if kind == "json" else "text/plain; charset=utf-8"
        headers = {"Content-Type": content_type, "Content-Length": str(size), "Accept": "application/json"}
        with _asking(scope) as call:
            with self._transport.open("POST", "/contexts", body, timeout=CONTROL_TIMEOUT, headers=headers, call=call) as stream:
                answer = stream.answer()
        if answer.status >= 400:
            raise _refused(answer)
        return str(answer.data["context_id"])

    def delete_context(self, context_id: str) -> None:
        self._json("DELETE", f"/contexts/{quote(context_id, safe='')}")

    def begin_conversation(self) -> str:
        """Persistent mode: runs with this ``conversation_id`` share a session. Its id."""
        return str(self._json("POST", "/conversations", {})["conversation_id"])

    def end_conversation(self, conversation_id: str) -> None:
        self._json("DELETE", f"/conversations/{quote(conversation_id, safe='')}")

    # --- the service

    def health_check(self) -> bool:
        return self._probe("/health")

    def readiness_check(self) -> bool:
        """True when the service and its sidecar take work."""
        return self._probe("/ready")

    def models(self) -> List[str]:
        """Names under which the service's RLM can be asked as a model."""
        return [str(entry["id"]) for entry in self._json("GET", "/v1/models")["data"]]

    def close(self) -> None:
        """Closes kept connections; it may still be used."""
        self._transport.close()

    def _infer(self, query: str, context: Any, options: Mapping[str, Any]) -> "Running[Dict[str, Any]]":
        body = _body(query, context, None, options)
        return Running(functools.partial(self._infer_now, body), Scope())

    def _infer_now(self, body: Dict[str, Any], scope: Scope) -> Dict[str, Any]:
        return self._json("POST", "/infer", body, RUN_TIMEOUT, scope)

    def _json(
        self, method: str, path: str, body: Optional[Dict[str, Any]] = None, timeout: float = CONTROL_TIMEOUT, scope: Optional[Scope] = None
    ) -> Dict[str, Any]:
        with _asking(scope) as call:
            answer = self._transport.request(method, path, body, timeout=timeout, call=call)
        if answer.status >= 400:
            raise _refused(answer)
        return answer.data

    def _probe(self, path: str) -> bool:
        try:
            return self._transport.request("GET", path, timeout=5.0).status == 200
        except SidecarUnavailable:
            return False


@contextlib.contextmanager
def _asking(scope: Optional[Scope]) -> Iterator[Call]:
    """A request that ends with the scope. Where there is no answer it is a `ServiceError`, or what the scope was broken off with."""
    call = Call()
    try:
        with (scope or Scope()).watched(call.abort):
            yield call
    except SidecarUnavailable as error:
        if scope is not None:
            scope.check()
        raise errors.ServiceError(str(error), code=error.code) from error


def _body(query: str, context: Any, context_id: Optional[str], options: Mapping[str, Any]) -> Dict[str, Any]:
    body = {"query": query, **RunOptions(**options).to_dict()}
    if context is not None:
        body["context"] = context
    if context_id is not None:
        body["context_id"] = context_id
    return body


def _refused(answer: Answer) -> errors.ServiceError:
    error = refusal(answer)
    partial = answer.data.get("partial_answer")
    return errors.ServiceError(error.detail, error.status, error.code, partial if isinstance(partial, str) else None)
