# SPDX-License-Identifier: Apache-2.0
"""What code catches when a call of a tool fails. The names are builtins: code writes `except ToolError` as they show."""

import builtins


class ToolError(RuntimeError):
    """A call of a tool has failed. `tool` is the tool's name, `text` what it, or whoever refused the call, has said."""

    def __init__(self, tool, text):
        super().__init__(tool, text)
        self.tool = tool
        self.text = text

    def __str__(self):
        return f'{shown(self.tool)}: {self.text}'


class ToolTimeout(ToolError, TimeoutError):
    """No answer in time."""


class ToolArgumentError(ToolError, ValueError, TypeError):
    """The arguments do not fit the tool's schema; the tool was not called."""


class ToolUnavailable(ToolError):
    """The tool service cannot be reached, or refuses the server."""


class ToolLimitError(ToolError):
    """Too many calls, or too many bytes of arguments or result."""


class UnknownTool(ToolError, KeyError):
    """No such tool, or not one that this execution may call."""


_GROUPS = ('agents.', 'crews.', 'flows.')


def shown(name):
    """A tool as the code writes it: tools['x'], agents['y']."""
    for prefix in _GROUPS:
        if name.startswith(prefix):
            return f'{prefix[:-1]}[{name[len(prefix):]!r}]'
    return f'tools[{name!r}]'


def install():
    for kind in (ToolError, ToolTimeout, ToolArgumentError, ToolUnavailable, ToolLimitError, UnknownTool):
        kind.__module__ = 'builtins'
        setattr(builtins, kind.__name__, kind)
