# SPDX-License-Identifier: Apache-2.0
"""Everything that this package raises on its own account is a `CodemodeError`."""

from __future__ import annotations

from typing import Iterable, Optional


class CodemodeError(Exception):
    """Base of the package's errors. Its text says what to do."""


class ConfigError(CodemodeError, ValueError):
    """A configuration file, dict or variable that cannot be used; the text names each key at fault."""


class ComponentError(CodemodeError):
    """Base of the registry's errors."""


class ComponentAlreadyExistsError(ComponentError, ValueError):
    """The name is taken: choose another one, or register with ``overwrite=True``."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} '{name}' is registered already: choose another name, or pass overwrite=True")
        self.kind, self.name = kind, name


class ComponentNotFoundError(ComponentError, KeyError):
    """No component has that name."""

    def __init__(self, kind: str, name: str, known: Iterable[str] = (), nearest: Optional[str] = None) -> None:
        names = ", ".join(sorted(known)) or "none"
        hint = f" Did you mean '{nearest}'?" if nearest else ""
        self.message = f"{kind} '{name}' is not registered.{hint} Available {kind}s: {names}"
        super().__init__(self.message)
        self.kind, self.name = kind, name

    def __str__(self) -> str:
        return self.message  # KeyError would show the repr


class ValueNotSentError(CodemodeError, ValueError):
    """A value that has no exact form in JSON with doubles, so it is not sent rather than sent changed."""
