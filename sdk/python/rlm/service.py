# SPDX-License-Identifier: Apache-2.0
"""A completion that the service runs, told as one of this process."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from . import errors
from .client import Client, RunOptions
from .common import prompt as shared_prompt
from .logger import RunLog
from .results import RLMChatCompletion, UsageSummary
from .scope import Scope

if TYPE_CHECKING:
    from .engine import Context

_log = logging.getLogger(__name__)

#: Characters of a context that goes with the request; a longer one is sent before it, as it is.
INLINE = 1 << 18


def complete_by_service(
    client: Client,
    prompt: Any,
    context: "Context",
    query: Optional[str],
    options: RunOptions,
    scope: Scope,
    listener: Callable[[Dict[str, Any]], None],
    log: Optional[RunLog],
) -> RLMChatCompletion:
    """Begins a run, follows its events, and returns or raises what a run here would. A scope that is broken off cancels it."""
    scope.check()
    asked = query or shared_prompt("no_query")
    more: Dict[str, Any] = {}
    value = context.value
    if isinstance(value, io.IOBase) and value.seek(0, io.SEEK_END) == 0:
        value = ""  # nothing is no body of its own
    if isinstance(value, io.IOBase) or len(value) > INLINE:
        more["context_id"] = client.upload(value, context.kind, scope)
    elif context.kind == "text":
        more["context"] = value.encode("utf-8", "replace").decode()  # as it comes to a session of our own
    else:
        more["context"] = json.loads(value)
    run_id = client.start(asked, **more, **options.to_dict())
    model = options.model or ""
    try:
        for event in client.events(run_id, scope):
            listener(event)
            if event.get("type") == "metadata" and event.get("node") == 0:
                model = str(event.get("root_model") or model)
            if event.get("type") == "result" and event.get("node") == 0:
                return _result(client, run_id, prompt, model, event, options, log)
    except BaseException:
        if scope.error is not None:
            _cancel(client, run_id)
        raise
    raise errors.ServiceError("the events of the run have no result", code="bad_answer")


def _cancel(client: Client, run_id: str) -> None:
    try:
        client.cancel(run_id)
    except errors.ServiceError as error:
        _log.warning("the run %s was not cancelled: %s", run_id, error)


def _result(
    client: Client, run_id: str, prompt: Any, model: str, event: Dict[str, Any], options: RunOptions, log: Optional[RunLog]
) -> RLMChatCompletion:
    if log is not None:
        for entry in client.trajectory(run_id):
            (log.metadata if entry.pop("type", "") == "metadata" else log.iteration)(entry)
    usage = UsageSummary.from_dict(event.get("usage_summary") or {})
    seconds = float(event.get("execution_time") or 0.0)
    if event.get("error"):
        raise _error(event, usage, seconds, options)
    return RLMChatCompletion(model, prompt, str(event.get("answer") or ""), usage, seconds, log.trajectory() if log else None)


def _error(event: Dict[str, Any], usage: UsageSummary, seconds: float, options: RunOptions) -> errors.RLMError:
    code, detail = str(event["error"].get("code")), str(event["error"].get("detail"))
    partial = event.get("partial_answer") or None
    if code == "timeout_exceeded":
        return errors.TimeoutExceededError(seconds, options.max_timeout or 0.0, partial, detail)
    if code == "token_limit_exceeded":
        used = usage.total_input_tokens + usage.total_output_tokens
        return errors.TokenLimitExceededError(used, options.max_tokens or 0, partial, detail)
    if code == "budget_exceeded":
        return errors.BudgetExceededError(usage.total_cost or 0.0, options.max_budget or 0.0, partial, detail)
    if code == "error_threshold_exceeded":
        return errors.ErrorThresholdExceededError(options.max_errors or 0, options.max_errors or 0, detail, partial, detail)
    if code == "cancelled":
        return errors.CancellationError(partial, detail)
    if code == "model_failed":
        return errors.ModelError(detail, partial_answer=partial)
    if code == "sidecar_unavailable":
        return errors.SandboxError(detail, code, partial)
    return errors.ServiceError(detail, 500, code, partial)
