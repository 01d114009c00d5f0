# SPDX-License-Identifier: Apache-2.0
"""JSON over HTTP/1.1 with kept connections.

A kept connection that the server closed meanwhile is noticed before a request is written to it, so no
request has to be repeated blindly: one that may have reached the server is never sent twice from here.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import ssl
import threading
from typing import Any, Dict, List, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

from .errors import SidecarError, SidecarUnavailable

#: Bytes of an answer at the most; a larger one is refused, so that no server can fill the client's memory.
ANSWER_MAX = 256 * 1024 * 1024


class Answer(NamedTuple):
    """Status and JSON object of an HTTP answer; `data` is empty when the body was not a JSON object."""

    status: int
    data: Dict[str, Any]
    retry_after: Optional[float]


class Call:
    """One request that another thread may abort: its connection is cut, which also tells the sidecar."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._aborted = False
        self._sock: Optional[socket.socket] = None

    def attach(self, sock: Optional[socket.socket]) -> None:
        """Names the socket in use; raises SidecarUnavailable when the call was aborted already."""
        with self._lock:
            if self._aborted and sock is not None:
                raise SidecarUnavailable("the request was aborted before it was sent", code="aborted", sent=False)
            self._sock = sock

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            if self._sock is not None:
                try:
                    self._sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it is closed already, which is what was wanted


class Transport:
    """Requests to one base URL; safe to use from several threads at once.

    `idle_max` is the number of connections kept for reuse. Times are seconds without any progress of the
    connection, not of the whole exchange. Raises ValueError for a URL that is not http or https.
    """

    def __init__(self, base_url: str, *, idle_max: int = 64, verify_ssl: bool = True) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http or https URL: {base_url!r}")
        self.base_url = base_url.rstrip("/")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._prefix = parts.path.rstrip("/")
        self._ssl = _ssl_context(verify_ssl) if parts.scheme == "https" else None
        self._idle: List[http.client.HTTPConnection] = []
        self._idle_max = idle_max
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        path: str,
        body: Optional[Dict[str, Any]] = None,
        *,
        timeout: float,
        headers: Optional[Dict[str, str]] = None,
        call: Optional[Call] = None,
    ) -> Answer:
        """One exchange. Raises SidecarUnavailable when there is no whole answer, TypeError or ValueError
        when `body` has no JSON form."""
        payload = None if body is None else json.dumps(body, allow_nan=False).encode("ascii")
        send_headers = {"Accept": "application/json", **(headers or {})}
        if payload is not None:
            send_headers["Content-Type"] = "application/json"
        call = call or Call()
        conn = self._take(timeout)
        keep = False
        try:
            answer, keep = self._exchange(conn, method, self._prefix + path, payload, send_headers, call)
            return answer
        finally:
            call.attach(None)
            self._put(conn, keep)

    def _exchange(
        self,
        conn: http.client.HTTPConnection,
        method: str,
        path: str,
        payload: Optional[bytes],
        headers: Dict[str, str],
        call: Call,
    ) -> Tuple[Answer, bool]:
        """The answer, and whether the connection may be kept."""
        where = f"{method} {self.base_url}{path[len(self._prefix):]}"
        sent = False
        try:
            if conn.sock is None:
                conn.connect()
                _no_delay(conn.sock)
            call.attach(conn.sock)
            sent = True
            conn.request(method, path, payload, headers)
            response = conn.getresponse()
            raw = response.read(ANSWER_MAX + 1)
        except socket.timeout as error:
            raise SidecarUnavailable(f"{where}: no answer in time", code="no_answer", sent=sent) from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise SidecarUnavailable(f"{where}: {reason}", sent=sent) from error
        if len(raw) > ANSWER_MAX:
            raise SidecarUnavailable(f"{where}: the answer is longer than {ANSWER_MAX} bytes", code="answer_too_large")
        return _decode(response, raw), not response.will_close

    def _take(self, timeout: float) -> http.client.HTTPConnection:
        while True:
            with self._lock:
                conn = self._idle.pop() if self._idle else None
            if conn is None:
                return self._connection(timeout)
            if conn.sock is not None and not _readable(conn.sock):
                conn.timeout = timeout
                conn.sock.settimeout(timeout)
                return conn
            conn.close()

    def _put(self, conn: http.client.HTTPConnection, keep: bool) -> None:
        with self._lock:
            if keep and len(self._idle) < self._idle_max:
                self._idle.append(conn)
                return
        conn.close()

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self._ssl is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._ssl)
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout)

    def close(self) -> None:
        """Closes the kept connections. The transport may still be used; it opens new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for conn in idle:
            conn.close()


def refusal(answer: Answer) -> SidecarError:
    """The error that an answer of status 400 or above stands for."""
    text = answer.data.get("detail") or answer.data.get("error") or f"the sidecar answered HTTP {answer.status}"
    return SidecarError(
        text if isinstance(text, str) else json.dumps(text),
        status=answer.status,
        code=str(answer.data.get("code") or f"http_{answer.status}"),
        remediation=answer.data.get("remediation"),
        retry_after=answer.retry_after,
    )


def _decode(response: http.client.HTTPResponse, raw: bytes) -> Answer:
    try:
        data = json.loads(raw) if raw else {}
    except ValueError:
        data = {}
    retry_after = response.getheader("Retry-After", "")
    seconds = float(retry_after) if retry_after.isdigit() else None
    return Answer(response.status, data if isinstance(data, dict) else {}, seconds)


def _readable(sock: socket.socket) -> bool:
    """True when something waits on an idle connection: the server's goodbye, or a stray byte. Either
    way it is of no more use."""
    poller = select.poll() if hasattr(select, "poll") else None
    if poller is None:
        return bool(select.select([sock], [], [], 0)[0])
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def _ssl_context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _no_delay(sock: Optional[socket.socket]) -> None:
    """Head and body of a request go out as two writes; without this the second would wait."""
    if sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
