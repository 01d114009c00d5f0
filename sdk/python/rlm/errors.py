# SPDX-License-Identifier: Apache-2.0
"""How a run can end without an answer.

What is refused before a run begins is a `ValueError` or `TypeError`. A sub-query that fails is no exception anywhere: the
code that has asked sees a text that begins with ``Error:``.
"""

from __future__ import annotations

from typing import Optional

__all__ = [
    "BudgetExceededError",
    "CancellationError",
    "ErrorThresholdExceededError",
    "ModelError",
    "RLMError",
    "SandboxError",
    "ServiceError",
    "TimeoutExceededError",
    "TokenLimitExceededError",
]


class RLMError(Exception):
    """A run has ended without an answer. `partial_answer` holds the newest words of its model, or None."""

    code = "rlm_error"  #: a short name that stays

    def __init__(self, message: str, partial_answer: Optional[str] = None) -> None:
        super().__init__(message)
        self.partial_answer = partial_answer


class ModelError(RLMError):
    """The model service could not be used. `failure` is one of ``unreachable``, ``timeout``, ``rate_limited``, ``refused``
    (the key), ``bad_request``, ``too_long`` (the prompt is beyond the model's window), ``too_large`` (the reply)."""

    code = "model_failed"

    def __init__(self, message: str, failure: str = "unreachable", partial_answer: Optional[str] = None) -> None:
        super().__init__(message, partial_answer)
        self.failure = failure


class SandboxError(RLMError):
    """The sidecar could not be used, or the session was lost. `reason` is its short name of the reason."""

    code = "sidecar_unavailable"

    def __init__(self, message: str, reason: str = "unavailable", partial_answer: Optional[str] = None) -> None:
        super().__init__(message, partial_answer)
        self.reason = reason


class ServiceError(RLMError):
    """The RLM service has refused a request or could not be reached. `status` is of HTTP, 0 where there was no answer;
    `code` its short name of the reason."""

    def __init__(
        self, message: str, status: int = 0, code: str = "unavailable", partial_answer: Optional[str] = None
    ) -> None:
        super().__init__(message, partial_answer)
        self.status, self.code = status, code


class TimeoutExceededError(RLMError):
    """`max_timeout` is over. `elapsed` and `timeout` are seconds."""

    code = "timeout_exceeded"

    def __init__(
        self, elapsed: float, timeout: float, partial_answer: Optional[str] = None, message: Optional[str] = None
    ) -> None:
        super().__init__(message or f"the run has reached its limit of {timeout:g} seconds (max_timeout)", partial_answer)
        self.elapsed, self.timeout = elapsed, timeout


class TokenLimitExceededError(RLMError):
    """`max_tokens`, in and out together, are used up."""

    code = "token_limit_exceeded"

    def __init__(
        self, tokens_used: int, token_limit: int, partial_answer: Optional[str] = None, message: Optional[str] = None
    ) -> None:
        super().__init__(message or f"the run has used {tokens_used} of {token_limit} tokens (max_tokens)", partial_answer)
        self.tokens_used, self.token_limit = tokens_used, token_limit


class BudgetExceededError(RLMError):
    """`max_budget` is spent. Both figures are US dollars."""

    code = "budget_exceeded"

    def __init__(
        self, spent: float, budget: float, partial_answer: Optional[str] = None, message: Optional[str] = None
    ) -> None:
        super().__init__(message or f"the run has spent {spent:.6g} of {budget:.6g} USD (max_budget)", partial_answer)
        self.spent, self.budget = spent, budget


class ErrorThresholdExceededError(RLMError):
    """`max_errors` turns after one another had an error in their code; `last_error` is the newest one's text."""

    code = "error_threshold_exceeded"

    def __init__(
        self,
        error_count: int,
        threshold: int,
        last_error: Optional[str] = None,
        partial_answer: Optional[str] = None,
        message: Optional[str] = None,
    ) -> None:
        text = f"{error_count} turns in a row had errors in their code (max_errors), the last one: {last_error or ''}"
        super().__init__(message or text, partial_answer)
        self.error_count, self.threshold, self.last_error = error_count, threshold, last_error


class CancellationError(RLMError):
    """The run was cancelled, by Ctrl-C or by `RLM.cancel()`."""

    code = "cancelled"

    def __init__(self, partial_answer: Optional[str] = None, message: Optional[str] = None) -> None:
        super().__init__(message or "the run was cancelled", partial_answer)
