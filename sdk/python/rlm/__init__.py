# SPDX-License-Identifier: Apache-2.0
"""Recursive language model inference, and sessions of a Codemode sidecar. Nothing but the standard library.

>>> from rlm import RLM
>>> rlm = RLM(backend_kwargs={"model_name": "gpt-5"})                                    # doctest: +SKIP
>>> rlm.completion(open("book.txt").read(), "Who is the murderer?").response            # doctest: +SKIP

``rlm.RLM`` and ``rlm.local.rlm_repl.RLM_REPL`` run the loop in this process, or by the RLM service; ``rlm.Client`` speaks to the service;
``rlm.remote`` runs code in sessions.
"""

from . import errors
from .api import RLM
from .client import Client
from .errors import *  # noqa: F403
from .logger import RLMLogger
from .results import ModelUsageSummary, RLMChatCompletion, UsageSummary

__all__ = ["Client", "ModelUsageSummary", "RLM", "RLMChatCompletion", "RLMLogger", "UsageSummary"]
__all__ += errors.__all__
