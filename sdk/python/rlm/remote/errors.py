# SPDX-License-Identifier: Apache-2.0
"""What can go wrong between the client and the sidecar. User code that fails is a result, not an error."""

from __future__ import annotations

from typing import Optional


class SidecarError(Exception):
    """The sidecar refused a request.

    ``status`` is the HTTP status (0 when there was no answer), ``code`` the short stable name of the
    reason, such as ``unknown_session`` or ``too_many_sessions``, and ``remediation`` what to do about it.
    ``retry_after`` is in seconds, where the sidecar named a time.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int = 0,
        code: str = "sidecar_error",
        remediation: Optional[str] = None,
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.code = code
        self.remediation = remediation
        self.retry_after = retry_after


class SidecarUnavailable(SidecarError):
    """There was no usable answer: refused, reset, timed out, or not HTTP."""

    def __init__(self, detail: str, *, code: str = "unavailable", sent: bool = True) -> None:
        super().__init__(
            detail,
            code=code,
            remediation="Check that the sidecar runs and that WASM_MANAGER_SERVICE_URL names it.",
        )
        #: False when nothing of the request can have reached the sidecar, so that repeating it is safe.
        self.sent = sent
