# SPDX-License-Identifier: Apache-2.0
"""What ``codemode.yaml`` and ``codemode-client.yaml`` may hold: every key with its default and range.

Times are in seconds unless a name says ms. Keys that only the executor uses are read and checked here as well, so that a
mistake in a shared file shows at the application's start too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional
from urllib.parse import urlsplit

from codemode.config.keys import check_quantity, key, section
from codemode.core.errors import ConfigError

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def check_url(url: str) -> Optional[str]:
    """What is wrong with an executor's URL, or None."""
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https", "grpc", "grpcs") and bool(parts.hostname)
        usable = usable and parts.path in ("", "/") and not parts.query and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    return None if usable else "must be like http://localhost:8001 or https://executor:8001"


def _check_target(target: str) -> Optional[str]:
    host, colon, port = target.rpartition(":")
    usable = colon and host and port.isdigit() and 0 < int(port) < 65536
    return None if usable else "must be host:port"


@dataclass
class TLSConfig:
    """TLS of one side of a channel. `mode` "system": trust the operating system's authorities; "custom": `ca_file`.

    A server needs `cert_file` and `key_file`; one with a `ca_file` too, or with `require_client_auth`, refuses clients
    without a certificate of that authority. A client may show `client_cert_file` with `client_key_file`. All are PEM
    files; a server reads them again when they change.
    """

    enabled: bool = key(False)
    mode: str = key("system", choices=("system", "custom"))
    cert_file: Optional[str] = key(None, 0, 1000)
    key_file: Optional[str] = key(None, 0, 1000)
    ca_file: Optional[str] = key(None, 0, 1000)
    client_cert_file: Optional[str] = key(None, 0, 1000)
    client_key_file: Optional[str] = key(None, 0, 1000)
    require_client_auth: bool = key(False)

    def check_client(self) -> None:
        """Raises ConfigError for a combination that could not be meant."""
        if bool(self.client_cert_file) != bool(self.client_key_file):
            raise ConfigError("tls: client_cert_file and client_key_file belong together; one is missing")
        if self.enabled and self.mode == "custom" and not self.ca_file:
            raise ConfigError("tls: mode 'custom' needs ca_file, the authority of the executor's certificate")

    def check_server(self) -> None:
        """Raises ConfigError for a combination that could not be meant."""
        if bool(self.cert_file) != bool(self.key_file):
            raise ConfigError("tls: cert_file and key_file belong together; one is missing")
        if self.enabled and not self.cert_file:
            raise ConfigError("tls: a server needs cert_file and key_file")
        if self.require_client_auth and not self.ca_file:
            raise ConfigError("tls: require_client_auth needs ca_file, the authority of the clients' certificates")
        if not self.enabled and self.require_client_auth:
            raise ConfigError("tls: require_client_auth needs enabled: true")


@dataclass
class ProjectConfig:
    name: str = key(low=1, high=200)
    version: Optional[str] = key(None, 0, 100)


@dataclass
class DiscoveryConfig:
    """Modules whose tools, agents and crews are registered by themselves; names that match a pattern are left out."""

    tools_module: Optional[str] = key(None, 0, 255)
    agents_module: Optional[str] = key(None, 0, 255)
    crews_module: Optional[str] = key(None, 0, 255)
    exclude_patterns: List[str] = key([])


@dataclass
class FrameworkConfig:
    type: str = key("crewai", 1, 100)
    auto_discover: bool = key(True)
    discovery: DiscoveryConfig = section(DiscoveryConfig)


@dataclass
class LimitsConfig:
    """`code_timeout` in seconds, `max_code_length` in characters, `memory_limit` of one session."""

    code_timeout: float = key(30.0, 1, 300)
    max_code_length: int = key(10000, 100, 100000)
    memory_limit: str = key("512Mi", 1, 40, check=check_quantity)


@dataclass
class MountConfig:
    mount: Optional[str] = key(None, 1, 1000)
    readonly: Optional[bool] = key(None)
    max_size: Optional[str] = key(None, 0, 100)


@dataclass
class FilesystemConfig:
    workspace: MountConfig = section(MountConfig)
    sandbox: MountConfig = section(MountConfig)
    outputs: MountConfig = section(MountConfig)


@dataclass
class NetworkConfig:
    mode: str = key("none", choices=("none", "restricted", "all"))
    allowed_domains: List[str] = key([])
    blocked_domains: List[str] = key([])


@dataclass
class DirectExecutionConfig:
    allow_direct_execution: bool = key(False)
    allowed_commands: List[str] = key([])


@dataclass
class ExecutorConfig:
    """How to reach the executor. `timeout` is for a whole call; above `code_timeout`, so that the executor's own answer
    arrives first."""

    url: str = key(low=1, high=1000, check=check_url)
    api_key: str = key(low=1, high=1000, secret=True)
    timeout: float = key(35.0, 1, 600)
    limits: LimitsConfig = section(LimitsConfig)
    filesystem: FilesystemConfig = section(FilesystemConfig)
    network: NetworkConfig = section(NetworkConfig)
    execution: DirectExecutionConfig = section(DirectExecutionConfig)


@dataclass
class GrpcConfig:
    """`tool_service_url` is where the executor finds the application's tools; `tls` is of both channels."""

    tool_service_url: str = key("localhost:50051", 3, 255, check=_check_target)
    tls: TLSConfig = section(TLSConfig)


@dataclass
class LoggingConfig:
    level: str = key("INFO", choices=_LEVELS)
    format: str = key("json", choices=("json", "text"))
    output: str = key("stdout", 1, 100)


@dataclass
class SecurityConfig:
    policy: str = key("isolate", choices=("isolate", "strict"))
    allowed_imports: List[str] = key([])
    blocked_imports: List[str] = key([])
    safe_builtins: List[str] = key([])


@dataclass
class RetryConfig:
    """`max_attempts` in all; waits of min(base * 2**n * 0.8..1.2, max) milliseconds between them."""

    enabled: bool = key(True)
    max_attempts: int = key(3, 1, 10)
    backoff_base_ms: int = key(100, 10, 10000)
    backoff_max_ms: int = key(5000, 100, 60000)


@dataclass
class ObservabilityConfig:
    log_level: str = key("INFO", choices=_LEVELS)
    include_correlation_id: bool = key(True)
    correlation_id_prefix: str = key("cm", 1, 8)
    traceback_limit: int = key(5, 0, 50)


@dataclass
class ClientTLSConfig:
    enabled: bool = key(False)
    mode: str = key("system", choices=("system", "custom"))
    ca_file: Optional[str] = key(None, 0, 1000)
    client_cert_file: Optional[str] = key(None, 0, 1000)
    client_key_file: Optional[str] = key(None, 0, 1000)

    def as_tls(self) -> TLSConfig:
        return TLSConfig(**vars(self))


@dataclass
class ClientConfig:
    """``codemode-client.yaml``, or what else says how to call an executor."""

    executor_url: str = key(low=1, high=1000, check=check_url)
    executor_api_key: str = key(low=1, high=1000, secret=True)
    executor_timeout: float = key(35.0, 1, 600)
    max_code_length: int = key(10000, 100, 100000)
    retry: RetryConfig = section(RetryConfig)
    tls: ClientTLSConfig = section(ClientTLSConfig)
    observability: ObservabilityConfig = section(ObservabilityConfig)

    def __post_init__(self) -> None:
        self.tls.as_tls().check_client()


@dataclass
class CodemodeConfig:
    """``codemode.yaml``: one file for the application and its executor."""

    project: ProjectConfig
    executor: ExecutorConfig
    framework: FrameworkConfig = section(FrameworkConfig)
    grpc: GrpcConfig = section(GrpcConfig)
    config: Dict[str, Any] = key({})
    logging: LoggingConfig = section(LoggingConfig)
    security: SecurityConfig = section(SecurityConfig)
    components: Dict[str, Any] = key({})
    mcp: Dict[str, Any] = key({})
    settings: Dict[str, Any] = key({})

    def client(self) -> ClientConfig:
        """The part that says how to call the executor."""
        tls = self.grpc.tls
        return ClientConfig(
            executor_url=self.executor.url,
            executor_api_key=self.executor.api_key,
            executor_timeout=self.executor.timeout,
            max_code_length=self.executor.limits.max_code_length,
            tls=ClientTLSConfig(
                enabled=tls.enabled,
                mode=tls.mode,
                ca_file=tls.ca_file,
                client_cert_file=tls.client_cert_file,
                client_key_file=tls.client_key_file,
            ),
            observability=ObservabilityConfig(log_level=self.logging.level),
        )
