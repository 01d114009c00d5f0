# SPDX-License-Identifier: Apache-2.0
"""Registers what modules named in ``framework.discovery`` offer."""

from __future__ import annotations

import fnmatch
import importlib
import inspect
import logging
from typing import Any, Callable, Iterator, Optional, Tuple

from codemode.config.model import DiscoveryConfig
from codemode.core.errors import ConfigError
from codemode.core.registry import ComponentRegistry

logger = logging.getLogger("codemode")


def _offered(module_name: Optional[str], key: str, fits: Callable[[Any], bool]) -> Iterator[Tuple[str, Any]]:
    """(name, object) of a module's public objects that fit."""
    if not module_name:
        return
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"framework.discovery.{key}: {module_name} cannot be imported: {error}") from error
    for name in getattr(module, "__all__", None) or sorted(vars(module)):
        found = getattr(module, name)
        if not name.startswith("_") and not inspect.isclass(found) and not inspect.ismodule(found) and fits(found):
            yield name, found


def _is_tool(found: Any) -> bool:
    return any(callable(getattr(found, method, None)) for method in ("run_async", "run_with_context", "run", "_run"))


def discover(config: DiscoveryConfig, registry: ComponentRegistry) -> None:
    """Registers the objects of the configured modules, under their `name` or that of their variable. What is registered
    already stays. Raises ConfigError for a module that cannot be imported."""
    kinds = (
        ("tools_module", config.tools_module, _is_tool, registry.register_tool),
        ("agents_module", config.agents_module, lambda found: hasattr(found, "execute_task"), registry.register_agent),
        ("crews_module", config.crews_module, lambda found: hasattr(found, "kickoff"), registry.register_crew),
    )
    for key, module_name, fits, register in kinds:
        kind = key.split("_")[0]
        for variable, found in _offered(module_name, key, fits):
            given = getattr(found, "name", None) if kind == "tools" else None
            name = given if isinstance(given, str) and given.isidentifier() else variable
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in config.exclude_patterns):
                continue
            if name not in registry.get_component_names()[kind]:
                register(name, found)  # type: ignore[operator]
                logger.info("found %s '%s' in %s", kind[:-1], name, module_name)
