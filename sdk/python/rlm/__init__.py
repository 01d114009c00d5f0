# SPDX-License-Identifier: Apache-2.0
"""Recursive language model inference, and sessions of a Codemode sidecar. Nothing but the standard library.

>>> from rlm import RLM
>>> rlm = RLM(backend_kwargs={"model_name": "gpt-5"})                                    # doctest: +SKIP
>>> rlm.completion(open("book.txt").read(), "Who is the murderer?").response            # doctest: +SKIP

``rlm.RLM`` and ``rlm.local.rlm_repl.RLM_REPL`` run the loop in this process, or by the RLM service; ``rlm.Client`` speaks to the service;
``rlm.remote`` runs code in sessions.
"""

from .api import RLM
from .client import Client
from .errors import (
    BudgetExceededError,
    CancellationError,
    ErrorThresholdExceededError,
    ModelError,
    RLMError,
    SandboxError,
    ServiceError,
    TimeoutExceededError,
    TokenLimitExceededError,
)
from .logger import RLMLogger
from .results import ModelUsageSummary, RLMChatCompletion, UsageSummary

__all__ = [
    "BudgetExceededError",
    "CancellationError",
    "Client",
    "ErrorThresholdExceededError",
    "ModelError",
    "ModelUsageSummary",
    "RLM",
    "RLMChatCompletion",
    "RLMError",
    "RLMLogger",
    "SandboxError",
    "ServiceError",
    "TimeoutExceededError",
    "TokenLimitExceededError",
    "UsageSummary",
]
