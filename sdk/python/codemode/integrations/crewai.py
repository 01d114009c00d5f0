# SPDX-License-Identifier: Apache-2.0
"""The executor as a tool of CrewAI's agents. CrewAI itself is optional."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, List, Optional, Type

from codemode.core.executor_client import ExecutionResult, ExecutorClientError

if TYPE_CHECKING:
    from codemode.core.codemode import Codemode

logger = logging.getLogger("codemode.crewai")

_MISSING: Optional[ImportError] = None
try:
    from crewai.tools import BaseTool as _Base
except ImportError as _error:
    _MISSING = _error
    _Base = object

_TELLING = """Runs Python code and returns the value of the variable `result`.
The whole standard library is there; network and files of the machine are not: use the tools below.
A tool is called as tools['name'].run(argument=value) with keyword arguments; one marked async is awaited.
tools['__search__'].run(query='...') finds tools, help(tools['name']) describes one. Do all the work in one piece of code: \
call several tools, loop, filter, and set `result` to what you need to know."""


def describe(codemode: "Codemode") -> str:
    """What an agent is told about the tool: how to write code for it, and which components there are now."""
    lines = [_TELLING]
    for component in codemode.registry.components():
        kind, _, rest = component.name.partition(".")
        name = f"{kind}['{rest}']" if rest and kind in ("agents", "crews", "flows") else f"tools['{component.name}']"
        schema = component.input_schema or {}
        arguments = ", ".join(schema.get("properties", {}))
        mark = " (async)" if component.is_async else ""
        first = component.description.splitlines()[0] if component.description else ""
        lines.append(f"- {name}({arguments}){mark}: {first}".rstrip(": "))
    return "\n".join(lines)


def report(result: ExecutionResult) -> str:
    """An answer for an agent: the result, or what went wrong with all that helps to do better."""
    if result.success:
        if result.result:
            return result.result
        said = f" It printed:\n{result.stdout}" if result.stdout else ""
        return f"The code ran; no result was returned: set the variable `result`.{said}"
    lines = [f"ERROR: {result.error or 'the code failed'}"]
    if result.error_details:
        lines.append(f"Type: {result.error_details.error_type}")
        if result.error_details.traceback:
            lines.append(f"Traceback:\n{result.error_details.traceback}")
    lines.append(f"Stderr: {result.stderr.strip()[-2000:]}" if result.stderr.strip() else "Stderr: (empty)")
    lines.append(f"Correlation ID: {result.correlation_id or '-'}")
    lines.append(f"Duration: {result.duration_ms:.1f} ms")
    return "\n".join(lines)


def _run(codemode: "Codemode", code: str) -> str:
    try:
        return report(codemode.execute_result(strip_fence(code)))
    except ExecutorClientError as error:
        logger.error("%s", error)
        return f"ERROR: {error}\nType: {type(error).__name__}\nCorrelation ID: {error.correlation_id or '-'}"


def strip_fence(code: str) -> str:
    """The code inside a Markdown fence, if that is all there is; models often send one."""
    lines = code.strip().splitlines()
    if len(lines) >= 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        if lines[0][3:].strip().lower() in ("", "python", "py", "python3"):
            return "\n".join(lines[1:-1])
    return code


def _arguments() -> Any:
    """The schema of the tool's one argument, where Pydantic is there; CrewAI brings it."""
    try:
        from pydantic import BaseModel, Field
    except ImportError:
        return None

    class CodemodeInput(BaseModel):  # type: ignore[misc]
        code: str = Field(description="Python source; set `result` to the value to return")

    return CodemodeInput


_INPUT = None if _MISSING else _arguments()


class CodemodeTool(_Base):  # type: ignore[misc]
    """A CrewAI tool named ``codemode`` with one argument, ``code``. Raises ImportError where CrewAI is not installed."""

    name: str = "codemode"
    description: str = _TELLING
    if _INPUT is not None:
        args_schema: Type[Any] = _INPUT
    _codemode: Any = None

    def __init__(self, codemode: "Codemode", description: Optional[str] = None, **more: Any) -> None:
        if _MISSING is not None:
            raise ImportError(
                f"CodemodeTool needs CrewAI ({_MISSING}): pip install 'codemode[crewai]'. "
                "Codemode.as_crewai_tool() works without it"
            ) from _MISSING
        super().__init__(name="codemode", description=description or describe(codemode), **more)
        self._codemode = codemode

    def _run(self, code: str) -> str:
        return _run(self._codemode, code)


class PlainTool:
    """The same for any framework that calls ``tool.run(code)``, also where CrewAI is not installed."""

    name = "codemode"

    def __init__(self, codemode: "Codemode", description: Optional[str] = None) -> None:
        self._codemode = codemode
        self.description = description or describe(codemode)

    def _run(self, code: str) -> str:
        return _run(self._codemode, code)

    def run(self, code: str) -> str:
        return self._run(code)

    async def arun(self, code: str) -> str:
        try:
            return report(await self._codemode.execute_result_async(strip_fence(code)))
        except ExecutorClientError as error:
            return f"ERROR: {error}"

    __call__ = run


def make_tool(codemode: "Codemode", description: Optional[str] = None) -> Any:
    """A CodemodeTool, or a PlainTool where CrewAI is not installed."""
    if _MISSING is None:
        return CodemodeTool(codemode, description)
    logger.info("CrewAI is not installed; the tool has its shape, but no class of it")
    return PlainTool(codemode, description)


__all__: List[str] = ["CodemodeTool", "PlainTool", "describe", "make_tool", "report"]
