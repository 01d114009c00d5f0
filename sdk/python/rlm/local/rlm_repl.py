# SPDX-License-Identifier: Apache-2.0
"""`RLM_REPL`: the same loop by the names of the sidecar guide."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Sequence

from rlm.api import RLM, Prompt
from rlm.remote.sidecar import SidecarREPLFactory


class RLM_REPL:
    """Answers queries about contexts, with code in sessions of a sidecar.

    ``api_key``              of the model service; else LLM_API_KEY, OPENAI_API_KEY
    ``model, base_url``      of the root; else LLM_MODEL (gpt-5) and LLM_BASE_URL (OpenAI)
    ``recursive_models, recursive_base_urls``  of depth 1, 2, ...: the last one repeats. Else LLM_RECURSIVE_MODEL and
                             LLM_RECURSIVE_BASE_URL, else the root's
    ``max_iterations``       turns
    ``max_depth, current_depth``  ``rlm_query`` recurses while current_depth + 1 < max_depth
    ``enable_logging``       shows the run on stderr as it happens
    ``repl_factory``         of rlm.remote; else the sidecar at WASM_MANAGER_SERVICE_URL

    Everything else that a run can have is an argument of `rlm.RLM`.
    """

    def __init__(
        self,
        api_key: Optional[str] = None,
        model: Optional[str] = None,
        base_url: Optional[str] = None,
        recursive_models: Optional[Sequence[str]] = None,
        recursive_base_urls: Optional[Sequence[Optional[str]]] = None,
        max_iterations: int = 20,
        max_depth: int = 1,
        current_depth: int = 0,
        enable_logging: bool = False,
        repl_factory: Optional[SidecarREPLFactory] = None,
    ) -> None:
        env = os.environ.get
        names = _listed(recursive_models) or _listed((env("LLM_RECURSIVE_MODEL") or "").split(","))
        urls = list(recursive_base_urls or []) or [env("LLM_RECURSIVE_BASE_URL")]
        below: List[Dict[str, Any]] = []
        for level in range(max(len(names), 1 if any(urls) else 0)):
            url = urls[min(level, len(urls) - 1)]
            below.append({**({"model_name": names[level]} if names else {}), **({"base_url": url} if url else {})})
        root = {"model_name": model, "base_url": base_url or env("LLM_BASE_URL"), "api_key": api_key or env("LLM_API_KEY")}
        self._rlm = RLM(
            backend_kwargs={name: value for name, value in root.items() if value},
            environment="codemode",
            depth=current_depth,
            max_depth=max_depth,
            max_iterations=max_iterations,
            verbose=enable_logging,
            recursive_models=below or None,
            repl_factory=repl_factory,
        )

    def completion(self, context: Prompt, query: Optional[str] = None) -> str:
        """The answer to `query` about `context`: a text, a list, a dict, or the path of a text file. Raises `rlm.RLMError`."""
        return self._rlm.completion(context, query).response

    async def acompletion(self, context: Prompt, query: Optional[str] = None) -> str:
        """The same for a task."""
        return (await self._rlm.acompletion(context, query)).response

    def cost_summary(self) -> Dict[str, Any]:
        """What completions have used since the last `reset`: ``{"model_usage_summaries": {model: {"total_calls", "total_input_tokens",
        "total_output_tokens", "total_cost"?}}, "total_cost"?}``; costs are US dollars, by list prices or what the service says."""
        return self._rlm.cost_summary()

    def reset(self) -> None:
        """Cancels what runs and forgets what was used."""
        self._rlm.close()
        self._rlm.forget_usage()


def _listed(names: Optional[Sequence[str]]) -> List[str]:
    return [name.strip() for name in names or [] if name.strip()]
