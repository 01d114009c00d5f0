# SPDX-License-Identifier: Apache-2.0
"""Base class of tools that want the request's variables."""

from __future__ import annotations

import abc
import inspect
from typing import Any

from codemode.core.context import RuntimeContext, get_current_context


class ContextAwareTool(abc.ABC):
    """A tool that is told for whom it works.

    Subclasses write ``run_with_context(self, context, **arguments)``, as a plain or an ``async`` method; `context` is a
    `RuntimeContext` with what `Codemode.with_context()` was given. Anything that is not such a class is a tool as well if
    it has ``run_async``, ``run`` or ``_run``, or can be called.

        class Orders(ContextAwareTool):
            def run_with_context(self, context, status: str = "open"):
                return query(client=context["client_id"], status=status)
    """

    @abc.abstractmethod
    def run_with_context(self, context: RuntimeContext, **arguments: Any) -> Any:
        """Does the work; returns JSON values."""

    def run(self, **arguments: Any) -> Any:
        """The same in the context of the call that runs now, or in an empty one. A coroutine where the work is one."""
        return self.run_with_context(get_current_context(), **arguments)

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.run_with_context)
