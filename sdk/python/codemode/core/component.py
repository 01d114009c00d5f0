# SPDX-License-Identifier: Apache-2.0
"""One thing that code can call: a tool, or an agent, crew or flow in the shape of one.

How a tool is called follows from what it has, the first of: ``run_async``, ``run_with_context(context, ...)``, ``run``
(with ``context=`` if its signature has that), ``_run``, being callable itself. That is looked at once, on registration.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from codemode.core.context import RuntimeContext
from codemode.tools import schema as schemas

_METHODS = ("run_async", "run_with_context", "run", "_run")
_DOCSTRING_OF_NOTHING = (object, type, functools.partial)


@dataclass(frozen=True)
class Component:
    """A registered component, ready to be called."""

    name: str  #: as code writes it: "weather", "agents.analyst"
    target: Any  #: the object that was registered
    function: Callable[..., Any]
    is_async: bool
    has_context: bool  #: it is told the request's context
    context_first: bool  #: as the first positional argument, not as `context=`
    description: str
    input_schema: Optional[schemas.Schema]
    output_schema: Optional[schemas.Schema]

    def bind(self, arguments: Mapping[str, Any], context: RuntimeContext) -> Callable[[], Any]:
        """The call itself, without arguments; for an async component it returns a coroutine."""
        if self.context_first:
            return functools.partial(self.function, context, **arguments)
        if self.has_context:
            if "context" in arguments:
                raise TypeError("the argument 'context' is filled in by the request; use run_with_context() to name one")
            return functools.partial(self.function, context=context, **arguments)
        return functools.partial(self.function, **arguments)


def is_async_callable(function: Any) -> bool:
    """True for coroutine functions, also behind functools.partial or as the `__call__` of an object."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    return not inspect.isroutine(function) and inspect.iscoroutinefunction(getattr(type(function), "__call__", None))


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # some functions written in C
        return {}


def _choose(name: str, tool: Any) -> Tuple[Callable[..., Any], str]:
    if inspect.isclass(tool) and any(hasattr(tool, method) for method in _METHODS):
        raise TypeError(f"tool '{name}' is the class {tool.__name__}: register an instance, {tool.__name__}()")
    for method in _METHODS:
        found = getattr(tool, method, None)
        if callable(found):
            return found, method
    if callable(tool):
        return tool, "__call__"
    raise TypeError(
        f"tool '{name}' is a {type(tool).__name__} that cannot be called: it needs one of "
        f"{', '.join(_METHODS)}, or to be a function"
    )


def _described(function: Callable[..., Any]) -> Callable[..., Any]:
    """What of `function` to read the signature and the docstring of."""
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    if inspect.isroutine(inner) or inspect.isclass(inner):
        return function
    call: Callable[..., Any] = inner.__call__
    return call


def _signature_source(tool: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """The method whose signature says most: a framework's `run(*args, **kwargs)` hides the one of `_run`."""
    kinds = {parameter.kind for parameter in _parameters(function).values()}
    hidden: Any = getattr(tool, "_run", None)
    if callable(hidden) and kinds <= {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        function = hidden
    return function


def _description(tool: Any, function: Callable[..., Any]) -> str:
    own = getattr(tool, "description", None)
    if isinstance(own, str) and own.strip():
        return own.strip()[: schemas.DESCRIPTION_MAX]
    candidates = [function, tool] if inspect.isroutine(tool) else [type(tool), function, tool]
    for candidate in candidates:
        doc = getattr(candidate, "__doc__", None)
        if doc and candidate not in _DOCSTRING_OF_NOTHING and not isinstance(candidate, _DOCSTRING_OF_NOTHING[2]):
            return schemas.summary(doc)
    return ""


def make_tool(name: str, tool: Any, input_schema: Any, output_schema: Any, description: Optional[str]) -> Component:
    """A component of a tool. Raises TypeError for what cannot be called, or a schema that is none."""
    function, method = _choose(name, tool)
    context_first = method == "run_with_context"
    has_context = context_first or "context" in _parameters(function)
    source = _signature_source(tool, _described(function))
    skip: Tuple[str, ...] = ("context",)
    if context_first:
        skip += tuple(_parameters(function))[:1]
    given = input_schema if input_schema is not None else getattr(tool, "args_schema", None)
    try:
        schema = schemas.schema_of(given) if given is not None else schemas.of_signature(source, skip)
        result = schemas.schema_of(output_schema) if output_schema is not None else schemas.of_result(source)
    except (TypeError, ValueError) as error:
        raise TypeError(f"tool '{name}': {error}") from error
    text = description.strip() if description else _description(tool, source)
    return Component(
        name=name,
        target=tool,
        function=function,
        is_async=is_async_callable(function),
        has_context=has_context,
        context_first=context_first,
        description=text[: schemas.DESCRIPTION_MAX],
        input_schema=schema,
        output_schema=result,
    )


_WORK: Dict[str, Tuple[str, schemas.Schema]] = {
    "agents": (
        "execute_task",
        {
            "type": "object",
            "properties": {"task": {"description": "what to do"}, "context": {"description": "what to know for it"}},
            "required": ["task"],
        },
    ),
    "crews": ("kickoff", {"type": "object", "properties": {"inputs": {"type": ["object", "null"]}}}),
    "flows": ("kickoff", {"type": "object", "properties": {"inputs": {"type": ["object", "null"]}}}),
}


def _as_task(agent: Any, task: Any) -> Any:
    """CrewAI's agents want a Task where code passes a text."""
    if not isinstance(task, str) or not type(agent).__module__.startswith("crewai."):
        return task
    from crewai import Task

    return Task(description=task, expected_output="the result of the task", agent=agent)


def make_worker(kind: str, name: str, target: Any, description: Optional[str]) -> Component:
    """A component of an agent, crew or flow. `kind`: "agents", "crews" or "flows"."""
    method, schema = _WORK[kind]
    function: Any = getattr(target, method, None) or (None if inspect.isclass(target) else target)
    if not callable(function):
        raise TypeError(f"{kind}: '{name}' is a {type(target).__name__} without {method}()")
    work: Callable[..., Any] = function
    if kind == "agents":

        def work(task: Any, context: Any = None) -> Any:
            task = _as_task(target, task)
            return function(task) if context is None else function(task, context)

    texts = [description] + [getattr(target, member, None) for member in ("description", "goal", "role")]
    text = next((text for text in texts if isinstance(text, str) and text.strip()), "") or type(target).__name__
    return Component(
        name=f"{kind}.{name}",
        target=target,
        function=work,
        is_async=is_async_callable(function),
        has_context=False,
        context_first=False,
        description=text[: schemas.DESCRIPTION_MAX],
        input_schema=schema,
        output_schema=None,
    )
