# SPDX-License-Identifier: Apache-2.0
"""The same sessions on a service elsewhere, where answers such as 503 are worth another try."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Dict, Optional

from .errors import SidecarError, SidecarUnavailable
from .sidecar import SidecarExecutionConfig, SidecarREPLEnv, SidecarREPLFactory, _default_url
from .transport import Answer, Call, refusal

RETRY_STATUS = frozenset((429, 500, 502, 503, 504))

#: Seconds between two tries at the most, whatever the service or the backoff asks for.
RETRY_PAUSE_MAX = 30.0


@dataclass(frozen=True)
class RemoteExecutionConfig:
    """How to reach a service over a network.

    ``timeout``        seconds that one execution may run
    ``max_retries``    further tries after the first, for 429, 500, 502, 503, 504 and refused connections
    ``retry_backoff``  seconds before the first repetition, doubled for each further one; a Retry-After
                       header counts instead when it asks for more
    ``verify_ssl``     False accepts any certificate
    """

    wasm_service_url: str = field(default_factory=_default_url)
    timeout: float = 35
    max_retries: int = 3
    retry_backoff: float = 0.5
    verify_ssl: bool = True


class RemoteREPLEnv(SidecarREPLEnv):
    """A session on a remote service; `max_depth` and `current_depth` say where in a recursion it stands."""

    def __init__(self, factory: SidecarREPLFactory, max_depth: int, current_depth: int) -> None:
        super().__init__(factory=factory)
        self.max_depth = max_depth
        self.current_depth = current_depth


class RemoteREPLFactory(SidecarREPLFactory):
    """A factory that repeats requests which a service could not take.

    Each request carries one Idempotency-Key through all its tries. One that was sent but got no answer
    is not repeated, nor is an answer that already holds an execution's result, whatever its status.
    """

    def __init__(
        self, wasm_service_url: Optional[str] = None, config: Optional[RemoteExecutionConfig] = None
    ) -> None:
        remote = config or RemoteExecutionConfig()
        url = wasm_service_url or remote.wasm_service_url
        super().__init__(
            SidecarExecutionConfig(wasm_service_url=url, timeout=remote.timeout), verify_ssl=remote.verify_ssl
        )
        self.remote_config = remote

    def create(self, max_depth: int = 1, current_depth: int = 0, **kwargs: Any) -> RemoteREPLEnv:
        """An environment. ``context_json`` and ``context_str`` set its context; other keyword arguments
        are taken for the sake of callers that pass one set to every kind of factory, and do nothing."""
        env = RemoteREPLEnv(self, max_depth, current_depth)
        env.set_context(kwargs.get("context_json"), kwargs.get("context_str"))
        return env

    def create_repl_env(self) -> RemoteREPLEnv:
        return self.create()

    def _request(
        self, method: str, path: str, body: Optional[Dict[str, Any]], *, timeout: float, call: Optional[Call]
    ) -> Answer:
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        pause = self.remote_config.retry_backoff
        for left in range(self.remote_config.max_retries, -1, -1):
            try:
                answer = self._transport.request(method, path, body, timeout=timeout, headers=headers, call=call)
                if left == 0 or answer.status not in RETRY_STATUS or "success" in answer.data:
                    return answer
                fault: SidecarError = refusal(answer)
            except SidecarUnavailable as error:
                if left == 0 or error.sent or error.code == "aborted":
                    raise
                fault = error
            time.sleep(min(max(pause, fault.retry_after or 0.0), RETRY_PAUSE_MAX))
            pause *= 2
        raise AssertionError("the last try returns or raises")
