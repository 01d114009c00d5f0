# SPDX-License-Identifier: Apache-2.0
"""TLS material for both directions."""

from __future__ import annotations

import os
import ssl
import threading
from typing import Any, Mapping, Optional, Tuple, Union

from codemode.config.keys import Problems, fill
from codemode.config.model import TLSConfig
from codemode.core.errors import ConfigError
from codemode.core.needs import need_grpc

_FILE_MAX = 4 << 20
_SYSTEM_STORES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/cert.pem",  # macOS, BSD
)


def as_tls(given: Union[TLSConfig, Mapping[str, Any], None]) -> Optional[TLSConfig]:
    """A TLSConfig of one or of a mapping with its keys (`enabled` is true there unless it says otherwise)."""
    if given is None or isinstance(given, TLSConfig):
        return given
    if isinstance(given, Mapping):
        problems = Problems("tls_config")
        made = fill(TLSConfig, {"enabled": True, **given}, problems)
        problems.check()
        return made
    if hasattr(given, "as_tls"):
        made = given.as_tls()
        return made
    raise TypeError(f"tls_config must be a TLSConfig or a dict, not {type(given).__name__}")


def read_pem(path: str, what: str) -> bytes:
    """The file's bytes; ConfigError where it cannot be read or is no PEM."""
    try:
        with open(path, "rb") as file:
            data = file.read(_FILE_MAX + 1)
    except OSError as error:
        raise ConfigError(f"tls: {what} {path} cannot be read: {error.strerror}") from None
    if b"-----BEGIN " not in data or len(data) > _FILE_MAX:
        raise ConfigError(f"tls: {what} {path} is no PEM file")
    return data


def system_authorities() -> Optional[bytes]:
    """The operating system's trusted authorities, or None: then grpc takes those that it brings along."""
    if os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
        return None
    paths = ssl.get_default_verify_paths()
    for path in (os.environ.get("SSL_CERT_FILE"), paths.cafile, *_SYSTEM_STORES):
        if path and os.path.isfile(path):
            return read_pem(path, "the system's authorities")
    return None


def channel_credentials(tls: TLSConfig) -> Any:
    """Credentials of a client. Raises ConfigError for files that are missing or do not fit."""
    grpc = need_grpc()
    tls.check_client()
    if tls.ca_file:
        authorities: Optional[bytes] = read_pem(tls.ca_file, "ca_file")
    else:
        authorities = system_authorities()
    key = chain = None
    if tls.client_cert_file and tls.client_key_file:
        check_pair(tls.client_cert_file, tls.client_key_file)
        key, chain = read_pem(tls.client_key_file, "client_key_file"), read_pem(tls.client_cert_file, "client_cert_file")
    return grpc.ssl_channel_credentials(authorities, key, chain)


def check_pair(cert_file: str, key_file: str) -> None:
    """Raises ConfigError unless the key is that of the certificate: grpc itself would say nothing until a handshake."""
    read_pem(cert_file, "certificate")
    read_pem(key_file, "key")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"tls: certificate {cert_file} and key {key_file} do not fit: {error}") from None


class _Files:
    """The server's files, read again when one of them has changed; what cannot be used leaves the former in place."""

    def __init__(self, tls: TLSConfig) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self._stamp = self._stamps()
        self.configuration = self._load()

    def _paths(self) -> Tuple[str, ...]:
        return tuple(path for path in (self._tls.cert_file, self._tls.key_file, self._tls.ca_file) if path)

    def _stamps(self) -> Tuple[Any, ...]:
        stamps = []
        for path in self._paths():
            try:
                state = os.stat(path)
                stamps.append((state.st_mtime_ns, state.st_size, state.st_ino))
            except OSError:
                stamps.append((0, 0, 0))
        return tuple(stamps)

    def _load(self) -> Any:
        tls = self._tls
        assert tls.cert_file and tls.key_file
        check_pair(tls.cert_file, tls.key_file)
        pair = (read_pem(tls.key_file, "key_file"), read_pem(tls.cert_file, "cert_file"))
        authorities = read_pem(tls.ca_file, "ca_file") if tls.ca_file else None
        return need_grpc().ssl_server_certificate_configuration([pair], authorities)

    def changed(self) -> Any:
        """The new configuration, or None when there is none that can be used."""
        with self._lock:
            stamp = self._stamps()
            if stamp == self._stamp:
                return None
            self._stamp = stamp
            try:
                self.configuration = self._load()
            except ConfigError:
                return None  # caught between two files of a renewal; their next change brings us here again
            return self.configuration


def server_credentials(tls: TLSConfig) -> Any:
    """Credentials of a server; a `ca_file` makes client certificates a must. ConfigError as above."""
    grpc = need_grpc()
    tls.check_server()
    files = _Files(tls)
    return grpc.dynamic_ssl_server_credentials(files.configuration, files.changed, bool(tls.ca_file))
