# SPDX-License-Identifier: Apache-2.0
"""From files, dicts and the environment to the classes of `codemode.config.model`.

The environment wins over a file, because one file then serves development and deployment; a dict is taken as it is.
``${NAME}`` and ``${NAME:-default}`` in texts are replaced by environment variables.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import re
from typing import Any, Dict, Mapping, Optional, Tuple, Type, TypeVar

from codemode.config.keys import Problems, fill
from codemode.config.model import ClientConfig, CodemodeConfig, TLSConfig
from codemode.core.errors import ConfigError

T = TypeVar("T")

#: Bytes of a configuration file at the most.
FILE_MAX = 1 << 20
_NODES_MAX = 100_000
_DEPTH_MAX = 50

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}")

#: Path in ClientConfig -> variables, the first one that is set and not empty wins.
_CLIENT_VARIABLES: Dict[str, Tuple[str, ...]] = {
    "executor_url": ("CODEMODE_EXECUTOR_URL",),
    "executor_api_key": ("CODEMODE_EXECUTOR_API_KEY", "CODEMODE_API_KEY"),
    "executor_timeout": ("CODEMODE_EXECUTOR_TIMEOUT",),
    "max_code_length": ("CODEMODE_MAX_CODE_LENGTH",),
    "retry.enabled": ("CODEMODE_RETRY_ENABLED",),
    "retry.max_attempts": ("CODEMODE_RETRY_MAX_ATTEMPTS",),
    "retry.backoff_base_ms": ("CODEMODE_RETRY_BACKOFF_BASE_MS",),
    "retry.backoff_max_ms": ("CODEMODE_RETRY_BACKOFF_MAX_MS",),
    "tls.enabled": ("CODEMODE_TLS_ENABLED", "CODEMODE_GRPC_TLS_ENABLED"),
    "tls.mode": ("CODEMODE_TLS_MODE", "CODEMODE_GRPC_TLS_MODE"),
    "tls.ca_file": ("CODEMODE_TLS_CA_FILE", "CODEMODE_GRPC_TLS_CA_FILE"),
    "tls.client_cert_file": ("CODEMODE_TLS_CLIENT_CERT_FILE", "CODEMODE_GRPC_TLS_CLIENT_CERT_FILE"),
    "tls.client_key_file": ("CODEMODE_TLS_CLIENT_KEY_FILE", "CODEMODE_GRPC_TLS_CLIENT_KEY_FILE"),
    "observability.log_level": ("CODEMODE_LOG_LEVEL",),
    "observability.include_correlation_id": ("CODEMODE_INCLUDE_CORRELATION_ID",),
    "observability.correlation_id_prefix": ("CODEMODE_CORRELATION_ID_PREFIX",),
    "observability.traceback_limit": ("CODEMODE_TRACEBACK_LIMIT",),
}

#: The same for codemode.yaml; what it has no key for is taken over from _CLIENT_VARIABLES afterwards.
_UNIFIED_VARIABLES: Dict[str, Tuple[str, ...]] = {
    "executor.url": _CLIENT_VARIABLES["executor_url"],
    "executor.api_key": _CLIENT_VARIABLES["executor_api_key"],
    "executor.timeout": _CLIENT_VARIABLES["executor_timeout"],
    "executor.limits.code_timeout": ("CODEMODE_CODE_TIMEOUT",),
    "executor.limits.max_code_length": _CLIENT_VARIABLES["max_code_length"],
    "logging.level": _CLIENT_VARIABLES["observability.log_level"],
    "grpc.tls.enabled": ("CODEMODE_GRPC_TLS_ENABLED",),
    "grpc.tls.mode": ("CODEMODE_GRPC_TLS_MODE",),
    "grpc.tls.cert_file": ("CODEMODE_GRPC_TLS_CERT_FILE",),
    "grpc.tls.key_file": ("CODEMODE_GRPC_TLS_KEY_FILE",),
    "grpc.tls.ca_file": ("CODEMODE_GRPC_TLS_CA_FILE",),
    "grpc.tls.client_cert_file": ("CODEMODE_GRPC_TLS_CLIENT_CERT_FILE",),
    "grpc.tls.client_key_file": ("CODEMODE_GRPC_TLS_CLIENT_KEY_FILE",),
    "grpc.tls.require_client_auth": ("CODEMODE_GRPC_TLS_REQUIRE_CLIENT_AUTH",),
}

_SERVICE_TLS_VARIABLES: Dict[str, Tuple[str, ...]] = {
    name: (f"CODEMODE_GRPC_TLS_{name.upper()}",)
    for name in ("enabled", "mode", "cert_file", "key_file", "ca_file", "require_client_auth")
}


def substitute(value: Any, problems: Problems, path: str = "", env: Optional[Mapping[str, str]] = None) -> Any:
    """`value` with the variables in its texts replaced. One that is not set and has no default is a problem, and counts
    as empty; a variable that is set to nothing takes its default."""
    if isinstance(value, Mapping):
        return {
            name: substitute(item, problems, f"{path}.{name}" if path else str(name), env)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [substitute(item, problems, f"{path}[{index}]", env) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    known = os.environ if env is None else env
    missing = []

    def replace(match: "re.Match[str]") -> str:
        found = known.get(match.group(1), "")
        if not found and match.group(2) is None and match.group(1) not in known:
            missing.append(match.group(1))
        return found or match.group(3) or ""

    text = _VARIABLE.sub(replace, value)
    if missing:
        names = ", ".join(missing)
        problems.add(path, f"the environment variable {names} is not set (or write ${{{missing[0]}:-default}})")
        return None
    if text == "" and value != "":
        return None  # an empty variable counts as unset: the key's default holds
    return text


def _environment(names: Mapping[str, Tuple[str, ...]], env: Mapping[str, str]) -> Dict[str, Any]:
    """The nested mapping of those variables that are set."""
    made: Dict[str, Any] = {}
    for path, variables in names.items():
        value = next((env[variable] for variable in variables if env.get(variable)), None)
        if value is not None:
            *parents, last = path.split(".")
            inner = made
            for parent in parents:
                inner = inner.setdefault(parent, {})
            inner[last] = value
    return made


def _merge(below: Any, above: Mapping[str, Any]) -> Any:
    """`below` with the members of `above` in it, at any depth."""
    if not isinstance(below, Mapping):
        return copy.deepcopy(dict(above)) if below is None else below  # the latter is a mistake that fill() names
    merged = dict(below)
    for name, value in above.items():
        merged[name] = _merge(merged.get(name), value) if isinstance(value, Mapping) else value
    return merged


def _make(cls: Type[T], values: Any, problems: Problems) -> T:
    made = fill(cls, values, problems)
    problems.check()
    assert made is not None  # else there was a problem
    return made


def _read(path: "str | os.PathLike[str]") -> Tuple[Any, Dict[str, str]]:
    """A YAML file as dicts, and where each key stands in it."""
    try:
        import yaml
    except ImportError:
        raise ConfigError("reading YAML needs PyYAML: pip install pyyaml, or apt install python3-yaml") from None
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_MAX + 1)
    except OSError as error:
        hint = "; `codemode init` writes one" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"{os.fspath(path)} cannot be read: {error.strerror}{hint}") from None
    if len(data) > FILE_MAX:
        raise ConfigError(f"{os.fspath(path)} has more than {FILE_MAX} bytes")
    walk = _Walk(os.fspath(path))
    try:
        loader: Any = yaml.SafeLoader(data)
        try:
            node = loader.get_single_node()
            if node is not None:
                walk.node(node, "", 0)
            values = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{os.fspath(path)} is not valid YAML: {error}") from None
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"{os.fspath(path)} must hold keys and values, not {type(values).__name__}")
    return values, walk.places


class _Walk:
    """Looks at each node of a document once for each way to it: aliases can make more of them than anybody meant."""

    def __init__(self, source: str) -> None:
        self.places: Dict[str, str] = {}
        self._source, self._left = source, _NODES_MAX

    def node(self, node: Any, path: str, depth: int) -> None:
        self._left -= 1
        if self._left < 0 or depth > _DEPTH_MAX:
            raise ConfigError(f"{self._source} has too many values, or too many inside one another")
        if node.id == "sequence":
            for item in node.value:
                self.node(item, f"{path}[]", depth + 1)
        elif node.id == "mapping":
            self._mapping(node, path, depth)

    def _mapping(self, node: Any, path: str, depth: int) -> None:
        here = set()
        for name, value in node.value:
            inner = f"{path}.{name.value}" if path else str(name.value)
            place = f" (line {name.start_mark.line + 1}, column {name.start_mark.column + 1})"
            self.places[inner] = place
            if inner in here:
                raise ConfigError(f"{self._source} cannot be used:\n  {inner}{place}: is there twice")
            here.add(inner)
            self.node(value, inner, depth + 1)


def load_client(path: "str | os.PathLike[str]", env: Optional[Mapping[str, str]] = None) -> ClientConfig:
    """Reads ``codemode-client.yaml``. Raises ConfigError naming each key at fault with its line."""
    return _load(ClientConfig, path, _CLIENT_VARIABLES, env)


def load_unified(path: "str | os.PathLike[str]", env: Optional[Mapping[str, str]] = None) -> CodemodeConfig:
    """Reads ``codemode.yaml``. Raises ConfigError naming each key at fault with its line."""
    return _load(CodemodeConfig, path, _UNIFIED_VARIABLES, env)


def _load(
    cls: Type[T],
    path: "str | os.PathLike[str]",
    variables: Mapping[str, Tuple[str, ...]],
    env: Optional[Mapping[str, str]],
) -> T:
    env = os.environ if env is None else env
    values, places = _read(path)
    problems = Problems(os.fspath(path), places)
    overrides = _environment(variables, env)
    # Replaced last: a key that a variable overrides may name another one that is not set.
    return _make(cls, substitute(_merge(values, overrides), problems, env=env), problems)


def client_from_dict(values: Mapping[str, Any]) -> ClientConfig:
    problems = Problems("the configuration")
    return _make(ClientConfig, substitute(values, problems), problems)


def unified_from_dict(values: Mapping[str, Any]) -> CodemodeConfig:
    problems = Problems("the configuration")
    return _make(CodemodeConfig, substitute(values, problems), problems)


def client_from_env(env: Optional[Mapping[str, str]] = None) -> ClientConfig:
    """Of the environment alone. ``CODEMODE_EXECUTOR_URL`` defaults to http://localhost:8001."""
    env = os.environ if env is None else env
    values = {"executor_url": "http://localhost:8001", **_environment(_CLIENT_VARIABLES, env)}
    if "executor_api_key" not in values:
        raise ConfigError("no API key: set CODEMODE_API_KEY (or CODEMODE_EXECUTOR_API_KEY) to the executor's key")
    return _make(ClientConfig, values, Problems("the environment"))


def with_environment(config: ClientConfig, env: Optional[Mapping[str, str]] = None) -> ClientConfig:
    """The client part of codemode.yaml, with the variables for which that file has no keys."""
    env = os.environ if env is None else env
    names = {path: found for path, found in _CLIENT_VARIABLES.items() if path.startswith(("retry.", "tls.", "observ"))}
    return _make(ClientConfig, _merge(dataclasses.asdict(config), _environment(names, env)), Problems("the environment"))


def service_tls_from_env(env: Optional[Mapping[str, str]] = None) -> Optional[TLSConfig]:
    """TLS of the tool service by ``CODEMODE_GRPC_TLS_*``; None when ``..._ENABLED`` is not set."""
    env = os.environ if env is None else env
    values = _environment(_SERVICE_TLS_VARIABLES, env)
    if "enabled" not in values:
        return None
    return _make(TLSConfig, values, Problems("CODEMODE_GRPC_TLS_*"))
