# SPDX-License-Identifier: Apache-2.0
"""The variables of one request, as tools see them: who asks, for which tenant, in which session."""

from __future__ import annotations

import contextlib
import contextvars
from typing import Any, Dict, Iterator, Mapping, Optional


class RuntimeContext(Mapping[str, Any]):
    """Read-only variables of a request; a mapping with attributes for convenience.

    ``RuntimeContext(variables={"client_id": "acme"})["client_id"]`` and ``.get("client_id")`` give ``"acme"``. They
    travel to the executor and back to each tool; the code that runs there sees them as ``context``. Values are JSON
    values: no secrets, for the code can print them.
    """

    __slots__ = ("_variables", "correlation_id")

    def __init__(self, variables: Optional[Mapping[str, Any]] = None, correlation_id: str = "", **more: Any) -> None:
        self._variables: Dict[str, Any] = {**(variables or {}), **more}
        self.correlation_id = correlation_id  #: of the execution, for the tool's own log

    @property
    def variables(self) -> Dict[str, Any]:
        """A copy as a dict."""
        return dict(self._variables)

    def to_dict(self) -> Dict[str, Any]:
        return dict(self._variables)

    def with_variables(self, **variables: Any) -> "RuntimeContext":
        """A new context with some variables added or replaced."""
        return RuntimeContext({**self._variables, **variables}, self.correlation_id)

    def require(self, name: str) -> Any:
        """The variable, or a KeyError that tells the caller to send it."""
        if name not in self._variables:
            raise KeyError(f"the context has no '{name}': send it with Codemode.with_context({name}=...)")
        return self._variables[name]

    def __getitem__(self, name: str) -> Any:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Mapping):
            return self._variables == dict(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RuntimeContext({', '.join(sorted(self._variables))})"  # names only: values may be personal


_current: contextvars.ContextVar[Optional[RuntimeContext]] = contextvars.ContextVar("codemode_context", default=None)


def get_current_context() -> RuntimeContext:
    """The context of the tool call that runs now; an empty one outside of any."""
    return _current.get() or RuntimeContext()


@contextlib.contextmanager
def current_context(context: RuntimeContext) -> Iterator[RuntimeContext]:
    """Makes `context` the one that `get_current_context()` returns."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)


def as_context(value: Any, correlation_id: str = "") -> RuntimeContext:
    """A RuntimeContext of a mapping, of another one, or of None."""
    if isinstance(value, RuntimeContext):
        return value
    return RuntimeContext(value or {}, correlation_id)
