# SPDX-License-Identifier: Apache-2.0
"""The answer to one execution."""

from __future__ import annotations

from typing import Any, Dict, Optional

from .errors import SidecarError


class ExecutionResult(Dict[str, Any]):
    """The sidecar's answer as a dict that prints like a line of an interactive session.

    Keys that are always there:

    ``success``         bool; False when the code raised, ran out of time, or never reached the sidecar
    ``stdout, stderr``  str; what the code printed, bounded by the sidecar's output limit
    ``result``          str or None; repr of the last expression
    ``error``           str or None; the exception's type and text
    ``error_type``      str or None; name of the exception's class
    ``traceback``       str or None; the user's own frames
    ``locals``          dict; the session's variables as JSON values, by repr where JSON has no such value
    ``execution_time``  float; seconds that the code ran

    A request that the sidecar refused, or that got no answer, also has ``code`` (short name of the reason),
    ``status`` (HTTP status or 0) and ``remediation``.

    ``str()`` gives ``result``; without one, what was printed to stdout without its final newline.
    """

    def __init__(self, answer: Dict[str, Any]) -> None:
        super().__init__(_EMPTY)
        self["locals"] = {}
        self.update(answer)

    @classmethod
    def from_error(cls, error: SidecarError, elapsed: float) -> "ExecutionResult":
        """A failed execution without an answer; `elapsed` is in seconds."""
        return cls(
            {
                "success": False,
                "error": f"{type(error).__name__}: {error.detail}",
                "error_type": type(error).__name__,
                "execution_time": elapsed,
                "code": error.code,
                "status": error.status,
                "remediation": error.remediation,
            }
        )

    @property
    def success(self) -> bool:
        return bool(self["success"])

    @property
    def result(self) -> Optional[str]:
        return None if self["result"] is None else str(self["result"])

    @property
    def stdout(self) -> str:
        return str(self["stdout"])

    @property
    def stderr(self) -> str:
        return str(self["stderr"])

    @property
    def error(self) -> Optional[str]:
        return None if self["error"] is None else str(self["error"])

    def __str__(self) -> str:
        result = self.result
        if result is not None:
            return result
        text = self.stdout
        return text[:-1] if text.endswith("\n") else text

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


_EMPTY: Dict[str, Any] = {
    "success": False,
    "stdout": "",
    "stderr": "",
    "result": None,
    "error": None,
    "error_type": None,
    "traceback": None,
    "execution_time": 0.0,
}
