# SPDX-License-Identifier: Apache-2.0
"""What an application offers to the code that it lets run."""

from __future__ import annotations

import difflib
import threading
from typing import Any, Dict, List, Mapping, Optional

from codemode.core.component import Component, make_tool, make_worker
from codemode.core.context import RuntimeContext, as_context
from codemode.core.errors import ComponentAlreadyExistsError, ComponentNotFoundError
from codemode.core.values import to_json_value

_KINDS = ("tools", "agents", "crews", "flows")
_NAME_MAX = 200


class ComponentRegistry:
    """Tools, agents, crews and flows by name, and the `config` of the code. Safe to use from several threads.

    Code reaches them as ``tools['name']``, ``agents['name']``, ``crews['name']`` and ``flows['name']``. What is registered
    while a tool service runs can be called at once.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._kinds: Dict[str, Dict[str, Component]] = {kind: {} for kind in _KINDS}
        self._config: Dict[str, Any] = {}
        self._context: Optional[RuntimeContext] = None
        # What a configuration said of the tool service, for start_tool_service() where its caller says nothing.
        self.service_defaults: Dict[str, Any] = {}

    # --- registration

    def register_tool(
        self,
        name: str,
        tool: Any = None,
        input_schema: Any = None,
        output_schema: Any = None,
        description: Optional[str] = None,
        overwrite: bool = False,
        *,
        func: Any = None,
    ) -> None:
        """Registers a tool: an object with ``run_async``, ``run_with_context``, ``run`` or ``_run``, or a function.

        `input_schema`, `output_schema`: a Pydantic class, a dataclass or a JSON Schema dict. Without them they are made of
        the signature's annotations and the docstring. The executor checks arguments against the input schema before it
        calls. `description`: 500 characters at most are shown. `func` is another name of `tool`.

        Raises ComponentAlreadyExistsError for a name that is taken (unless `overwrite`), ValueError for a name that
        cannot be one, TypeError for a tool that cannot be called.
        """
        if (tool is None) == (func is None):
            raise TypeError(f"register_tool('{name}'): pass one tool")
        target = func if tool is None else tool
        self._add("tools", name, overwrite, lambda: make_tool(name, target, input_schema, output_schema, description))

    def register_agent(self, name: str, agent: Any, description: Optional[str] = None, overwrite: bool = False) -> None:
        """Registers an agent: an object with ``execute_task(task, context)``. Errors as for tools."""
        self._add("agents", name, overwrite, lambda: make_worker("agents", name, agent, description))

    def register_crew(self, name: str, crew: Any, description: Optional[str] = None, overwrite: bool = False) -> None:
        """Registers a crew: an object with ``kickoff(inputs=None)``. Errors as for tools."""
        self._add("crews", name, overwrite, lambda: make_worker("crews", name, crew, description))

    def register_flow(self, name: str, flow: Any, description: Optional[str] = None, overwrite: bool = False) -> None:
        """Registers a flow: an object with ``kickoff(inputs=None)``. Errors as for tools."""
        self._add("flows", name, overwrite, lambda: make_worker("flows", name, flow, description))

    def _add(self, kind: str, name: str, overwrite: bool, make: Any) -> None:
        _check_name(kind, name)
        component = make()
        with self._lock:
            if name in self._kinds[kind] and not overwrite:
                raise ComponentAlreadyExistsError(kind[:-1], name)
            self._kinds[kind][name] = component

    def unregister(self, kind: str, name: str) -> None:
        """Takes a component away. `kind`: "tool", "agent", "crew" or "flow". ComponentNotFoundError if it is not there."""
        kind = kind if kind in _KINDS else f"{kind}s"
        self._get(kind, name)
        with self._lock:
            self._kinds[kind].pop(name, None)

    # --- look-up

    def get_tool(self, name: str) -> Any:
        """The tool that was registered; ComponentNotFoundError names what there is."""
        return self._get("tools", name).target

    def get_agent(self, name: str) -> Any:
        return self._get("agents", name).target

    def get_crew(self, name: str) -> Any:
        return self._get("crews", name).target

    def get_flow(self, name: str) -> Any:
        return self._get("flows", name).target

    def _get(self, kind: str, name: str) -> Component:
        with self._lock:
            found = self._kinds.get(kind, {}).get(name)
            names = list(self._kinds.get(kind, {}))
        if found is None:
            nearest = difflib.get_close_matches(name, names, 1)
            raise ComponentNotFoundError(kind[:-1], name, names, nearest[0] if nearest else None)
        return found

    def find(self, name: str) -> Component:
        """The component behind a name as the executor calls it: "weather", "agents.analyst"."""
        kind, _, rest = name.partition(".")
        if rest and kind in _KINDS[1:]:
            return self._get(kind, rest)
        return self._get("tools", name)

    def components(self) -> List[Component]:
        """All of them, tools first, in the order of their registration."""
        with self._lock:
            return [component for kind in _KINDS for component in self._kinds[kind].values()]

    def get_component_names(self) -> Dict[str, List[str]]:
        """{"tools": [...], "agents": [...], "crews": [...], "flows": [...]}"""
        with self._lock:
            return {kind: list(self._kinds[kind]) for kind in _KINDS}

    def available_tools(self) -> List[str]:
        """The names that a request allows its code to call: all that is registered."""
        return [component.name for component in self.components()]

    def clear(self) -> None:
        """Takes every component away; `config` and context stay."""
        with self._lock:
            for components in self._kinds.values():
                components.clear()

    def __contains__(self, name: object) -> bool:
        return any(component.name == name for component in self.components())

    def __len__(self) -> int:
        return len(self.components())

    def __repr__(self) -> str:
        return f"ComponentRegistry({', '.join(self.available_tools())})"

    # --- what code sees besides

    @property
    def config(self) -> Dict[str, Any]:
        """A copy of what code sees as `config`."""
        with self._lock:
            return dict(self._config)

    def set_config(self, config: Optional[Mapping[str, Any]] = None, **values: Any) -> None:
        """Replaces `config`. JSON values only (ValueNotSentError), and no secrets: the code can print them."""
        clean = to_json_value({**(config or {}), **values}, "config")
        with self._lock:
            self._config = clean

    def update_config(self, config: Optional[Mapping[str, Any]] = None, **values: Any) -> None:
        """Adds to `config`, or replaces what it has."""
        with self._lock:
            self.set_config({**self._config, **(config or {})}, **values)

    def set_context(self, context: Any) -> None:
        """The context of requests that bring none: a RuntimeContext, a mapping, or None for an empty one."""
        clean = None if context is None else as_context(context)
        with self._lock:
            self._context = clean

    def get_context(self) -> Optional[RuntimeContext]:
        with self._lock:
            return self._context


def _check_name(kind: str, name: str) -> None:
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name.encode()) > _NAME_MAX:
        raise ValueError(f"{name!r} cannot be a name: 1 to {_NAME_MAX} bytes of printable text")
    if name.startswith("__"):
        raise ValueError(f"'{name}' cannot be a name: those that begin with '__' belong to the executor")
    if kind == "tools" and name.partition(".")[0] in _KINDS[1:] and "." in name:
        raise ValueError(f"'{name}' cannot be the name of a tool: register_{name.split('.')[0][:-1]}() makes such names")
