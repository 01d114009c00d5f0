# SPDX-License-Identifier: Apache-2.0
"""The front door of the library: a registry of components and a client of an executor, as one object."""

from __future__ import annotations

import logging
import os
from typing import Any, Dict, Mapping, Optional, Union

from codemode.config import loader
from codemode.config.model import ClientConfig, CodemodeConfig, TLSConfig
from codemode.core.context import RuntimeContext
from codemode.core.discovery import discover
from codemode.core.executor_client import ExecutionResult, ExecutorClient, ExecutorClientError
from codemode.core.registry import ComponentRegistry
from codemode.core.values import to_json_value

logger = logging.getLogger("codemode")

#: What `execute()` returns for code that ran and gave no value.
NO_RESULT = "Execution successful"


class Execution:
    """Ways to run code with certain `context` and `config`; `Codemode` is one, and `with_context()` returns another."""

    def __init__(self, owner: "Codemode", context: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self._owner, self._context, self._config = owner, dict(context), dict(config)

    def with_context(self, context: Optional[Mapping[str, Any]] = None, **variables: Any) -> "Execution":
        """The same with more context: variables that the code sees as `context` and each tool gets. JSON values."""
        more = to_json_value({**(context or {}), **variables}, "context")
        return Execution(self._owner, {**self._context, **more}, self._config)

    def with_config(self, config: Optional[Mapping[str, Any]] = None, **values: Any) -> "Execution":
        """The same with more `config` for the code. JSON values."""
        more = to_json_value({**(config or {}), **values}, "config")
        return Execution(self._owner, self._context, {**self._config, **more})

    def _request(self, execution_timeout: Optional[float]) -> Dict[str, Any]:
        registry = self._owner.registry
        context = {**(registry.get_context() or RuntimeContext()), **self._context}
        config = {**registry.config, **self._config}
        return {
            "available_tools": registry.available_tools(),
            "config": config or None,
            "execution_timeout": self._owner.code_timeout if execution_timeout is None else execution_timeout,
            "context": context or None,
        }

    def execute_result(
        self, code: str, execution_timeout: Optional[float] = None, **more: Any
    ) -> ExecutionResult:
        """Runs code and returns everything that is known of it. `more`: `correlation_id`, `session_id` as for
        `ExecutorClient.execute()`, whose errors are raised."""
        return self._owner.client.execute(code, **self._request(execution_timeout), **more)

    async def execute_result_async(
        self, code: str, execution_timeout: Optional[float] = None, **more: Any
    ) -> ExecutionResult:
        """`execute_result()` for event loops."""
        return await self._owner.client.execute_async(code, **self._request(execution_timeout), **more)

    def execute(self, code: str, execution_timeout: Optional[float] = None, **more: Any) -> str:
        """Runs code and returns its result as text, "Execution successful" when it has none, or "ERROR: ..." for code
        that failed and for an executor that cannot be reached. `execution_timeout` in seconds; None: the configured one.
        """
        try:
            return as_text(self.execute_result(code, execution_timeout, **more))
        except ExecutorClientError as error:
            logger.error("%s", error)
            return f"ERROR: {error}"

    async def execute_async(self, code: str, execution_timeout: Optional[float] = None, **more: Any) -> str:
        """`execute()` for event loops; cancelling it stops the code."""
        try:
            return as_text(await self.execute_result_async(code, execution_timeout, **more))
        except ExecutorClientError as error:
            logger.error("%s", error)
            return f"ERROR: {error}"

    async def with_context_async(self, context: Optional[Mapping[str, Any]] = None, **variables: Any) -> "Execution":
        """`with_context()` to be awaited."""
        return self.with_context(context, **variables)

    async def with_config_async(self, config: Optional[Mapping[str, Any]] = None, **values: Any) -> "Execution":
        """`with_config()` to be awaited."""
        return self.with_config(config, **values)


def as_text(result: ExecutionResult) -> str:
    """The result as `execute()` returns it."""
    if result.success:
        return result.result or NO_RESULT
    kind = result.error_details.error_type if result.error_details else ""
    text = result.error or "the code failed"
    return f"ERROR: {text}" if not kind or kind in text or kind == "Unknown" else f"ERROR: {kind}: {text}"


class Codemode(Execution):
    """Runs code in the executor, with the components of `registry` at its disposal.

        codemode = Codemode.from_config("codemode.yaml")
        codemode.registry.register_tool("weather", WeatherTool())
        with start_tool_service(codemode.registry, port=50051):
            print(codemode.execute("result = tools['weather'].run(location='NYC')"))

    Safe to use from several threads and event loops at once.
    """

    def __init__(
        self,
        registry: Optional[ComponentRegistry] = None,
        executor_client: Optional[ExecutorClient] = None,
        config: Union[ClientConfig, CodemodeConfig, None] = None,
        code_timeout: Optional[float] = None,
    ) -> None:
        """Usually one of the `from_...` methods is what you want. Without a client, one for `config`; without that too,
        one for the environment. `code_timeout`: seconds for executions that name none; None: the executor's default."""
        super().__init__(self, {}, {})
        self.registry = ComponentRegistry() if registry is None else registry
        if config is None and executor_client is None:
            config = loader.client_from_env()
        self.config = config
        self.code_timeout = code_timeout
        self.client = executor_client if executor_client is not None else _client_of(config)

    # --- ways to make one

    @classmethod
    def from_config(
        cls, path: "str | os.PathLike[str]" = "codemode.yaml", registry: Optional[ComponentRegistry] = None
    ) -> "Codemode":
        """Of a ``codemode.yaml``. Environment variables win over the file. Raises ConfigError naming each key at fault."""
        config = loader.load_unified(path)
        return cls._of_unified(config, loader.with_environment(config.client()), registry)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], registry: Optional[ComponentRegistry] = None) -> "Codemode":
        """Of a dict with the keys of ``codemode.yaml`` or of ``codemode-client.yaml``. Raises ConfigError."""
        if "executor_url" in values:
            return cls.from_client_config(values, registry)
        config = loader.unified_from_dict(values)
        return cls._of_unified(config, config.client(), registry)

    @classmethod
    def from_client_config(
        cls,
        config: Union[ClientConfig, Mapping[str, Any], None] = None,
        registry: Optional[ComponentRegistry] = None,
        config_path: "str | os.PathLike[str] | None" = None,
    ) -> "Codemode":
        """Of a ClientConfig, a dict with the keys of ``codemode-client.yaml``, or such a file (by default that name here).

        Environment variables win over a file, not over an object. Raises ConfigError."""
        if config is not None and config_path is not None:
            raise TypeError("from_client_config(): pass config or config_path, not both")
        if config is None:
            config = loader.load_client(config_path or "codemode-client.yaml")
        elif not isinstance(config, ClientConfig):
            config = loader.client_from_dict(config)
        return cls._made(config, config, registry, None, None, None)

    @classmethod
    def from_env(cls, registry: Optional[ComponentRegistry] = None) -> "Codemode":
        """Of ``CODEMODE_EXECUTOR_URL`` (http://localhost:8001), ``CODEMODE_API_KEY`` and the other variables."""
        config = loader.client_from_env()
        return cls._made(config, config, registry, None, None, None)

    @classmethod
    def _of_unified(
        cls, config: CodemodeConfig, client: ClientConfig, registry: Optional[ComponentRegistry]
    ) -> "Codemode":
        tls = config.grpc.tls
        service_tls = tls if tls.enabled else None
        made = cls._made(config, client, registry, config.executor.limits.code_timeout, service_tls, config.config)
        if config.framework.auto_discover:
            discover(config.framework.discovery, made.registry)
        return made

    @classmethod
    def _made(
        cls,
        config: Union[ClientConfig, CodemodeConfig],
        client: ClientConfig,
        registry: Optional[ComponentRegistry],
        code_timeout: Optional[float],
        service_tls: Optional[TLSConfig],
        code_config: Optional[Mapping[str, Any]],
    ) -> "Codemode":
        logging.getLogger("codemode").setLevel(client.observability.log_level)
        made = cls(registry, _client_of(client), config, code_timeout)
        if code_config:
            made.registry.set_config({**code_config, **made.registry.config})
        # The executor shows the application the key that the application shows it.
        made.registry.service_defaults = {"api_key": client.executor_api_key, "tls_config": service_tls}
        return made

    # --- for agents

    def as_crewai_tool(self, description: Optional[str] = None) -> Any:
        """A tool named "codemode" with one argument, `code`, for CrewAI agents. Without CrewAI it is an object of the same
        shape (`name`, `description`, `run(code)`), usable from any framework. `description` replaces what agents are told.
        """
        from codemode.integrations.crewai import make_tool

        return make_tool(self, description)

    # --- health and end

    def health_check(self) -> bool:
        """Does the executor answer? False rather than an exception."""
        return self.client.health_check()

    def ready_check(self) -> bool:
        """Can the executor run code and reach this application's tools?"""
        return self.client.ready_check()

    async def health_check_async(self) -> bool:
        return await self.client.health_check_async()

    async def ready_check_async(self) -> bool:
        return await self.client.ready_check_async()

    @property
    def executor_client(self) -> ExecutorClient:
        """Another name of `client`."""
        return self.client

    def close(self) -> None:
        """Ends the connection to the executor. A tool service goes on until it is stopped."""
        self.client.close()

    async def close_async(self) -> None:
        self.close()

    def __enter__(self) -> "Codemode":
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    async def __aenter__(self) -> "Codemode":
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Codemode({self.client.target}, {self.registry!r})"


def _client_of(config: Union[ClientConfig, CodemodeConfig, None]) -> ExecutorClient:
    if isinstance(config, CodemodeConfig):
        config = config.client()
    assert config is not None
    observed = config.observability
    return ExecutorClient(
        executor_url=config.executor_url,
        api_key=config.executor_api_key,
        timeout=config.executor_timeout,
        tls_config=config.tls.as_tls(),
        retry_enabled=config.retry.enabled,
        retry_max_attempts=config.retry.max_attempts,
        retry_backoff_base_ms=config.retry.backoff_base_ms,
        retry_backoff_max_ms=config.retry.backoff_max_ms,
        include_correlation_id=observed.include_correlation_id,
        correlation_id_prefix=observed.correlation_id_prefix,
        traceback_limit=observed.traceback_limit,
        max_code_length=config.max_code_length,
    )
