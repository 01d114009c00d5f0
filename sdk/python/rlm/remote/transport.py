# SPDX-License-Identifier: Apache-2.0
"""JSON over HTTP/1.1 with kept connections.

A kept connection that the server closed meanwhile is noticed before a request is written to it, so no
request has to be repeated blindly: one that may have reached the server is never sent twice from here.
"""

from __future__ import annotations

import datetime
import email.utils
import http.client
import json
import select
import socket
import ssl
import threading
import time
from typing import Any, BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Union
from urllib.parse import urlsplit

from .errors import SidecarError, SidecarUnavailable

#: Bytes of an answer at the most; a larger one is refused, so that no server can fill the client's memory.
ANSWER_MAX = 256 * 1024 * 1024

#: Seconds that a connection may take to come about.
CONNECT_TIMEOUT = 10.0

#: Bytes that are read at a time of a body that is sent from a file, or comes as a stream.
BLOCK = 1 << 18


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

    @property
    def aborted(self) -> bool:
        return self._aborted

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

    `idle_max` is the number of connections kept for reuse, `api_key` goes with every request where there is one. Times are
    seconds without any progress of the connection, not of the whole exchange. Raises ValueError for a URL that is not
    http or https.
    """

    def __init__(
        self, base_url: str, *, idle_max: int = 64, verify_ssl: bool = True, api_key: Optional[str] = None
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http or https URL: {base_url!r}")
        self.base_url = base_url.rstrip("/")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
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
        with self.open(method, path, payload, timeout=timeout, headers=send_headers, call=call) as stream:
            return stream.answer()

    def open(
        self,
        method: str,
        path: str,
        body: Union[bytes, BinaryIO, None] = None,
        *,
        timeout: float,
        headers: Optional[Dict[str, str]] = None,
        call: Optional[Call] = None,
    ) -> "Stream":
        """Sends a request; its answer is then read as it comes. A file as the body is sent from where it stands, and needs a
        Content-Length among the headers. Raises SidecarUnavailable when no answer begins."""
        call = call or Call()
        where = f"{method} {self.base_url}{path}"
        conn = self._take(timeout)
        sent = False
        try:
            if conn.sock is None:
                conn.connect()
                _prepare(conn.sock, timeout)
            call.attach(conn.sock)
            sent = True
            response = _response(conn, method, self._prefix + path, body, {**self._headers, **(headers or {})})
            return Stream(self, conn, response, call, where)
        except BaseException as error:
            call.attach(None)
            conn.close()
            if isinstance(error, (OSError, http.client.HTTPException)) or (call.aborted and isinstance(error, Exception)):
                raise _unavailable(where, error, sent) from error
            raise

    def _take(self, timeout: float) -> http.client.HTTPConnection:
        while True:
            with self._lock:
                conn = self._idle.pop() if self._idle else None
            if conn is None:
                return self._connection(min(timeout, CONNECT_TIMEOUT))
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
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout, blocksize=BLOCK, context=self._ssl
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout, blocksize=BLOCK)

    def close(self) -> None:
        """Closes the kept connections. The transport may still be used; it opens new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for conn in idle:
            conn.close()


class Stream:
    """An answer whose head has come. What was read to its end leaves a connection to be used again; closed before, it
    is cut, which the server notices."""

    def __init__(
        self, transport: Transport, conn: http.client.HTTPConnection, response: http.client.HTTPResponse, call: Call, where: str
    ) -> None:
        self._transport, self._conn, self._response, self._call, self._where = transport, conn, response, call, where
        self._whole = self._closed = False
        self.status = response.status

    def header(self, name: str) -> str:
        return self._response.getheader(name, "")

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes. Raises SidecarUnavailable when it ends too early, or pauses for too long."""
        left = None if self._response.chunked else self._response.length  # read1() does not count it in every Python
        try:
            while left != 0:
                piece = self._response.read1(BLOCK if left is None else min(BLOCK, left))
                if not piece:
                    break
                left = None if left is None else left - len(piece)
                yield piece
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:  # the latter of one cut by abort()
            raise _unavailable(self._where, error, True) from error
        if left:
            raise SidecarUnavailable(f"{self._where}: the answer ended in its middle")
        self._whole = True

    def read(self, limit: int = ANSWER_MAX) -> bytes:
        """All of the body. Raises SidecarUnavailable also when it is longer than `limit` bytes."""
        found: List[bytes] = []
        size = 0
        for piece in self.pieces():
            found.append(piece)
            size += len(piece)
            if size > limit:
                raise SidecarUnavailable(f"{self._where}: the answer is longer than {limit} bytes", code="answer_too_large")
        return b"".join(found)

    def answer(self, limit: int = ANSWER_MAX) -> Answer:
        """The rest of the body as JSON."""
        return _decode(self._response, self.read(limit))

    def finish(self, patience: float = 1.0) -> None:
        """Reads what little is left behind the last word that matters, so that the connection can be used again."""
        left = 1 << 16
        try:
            if self._conn.sock is not None:
                self._conn.sock.settimeout(patience)
            for piece in self.pieces():
                left -= len(piece)
                if left < 0:
                    return
        except SidecarUnavailable:
            pass  # then it is not used again

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._call.attach(None)
            keep = self._whole and not self._response.will_close
            self._response.close()
            self._transport._put(self._conn, keep)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
    return Answer(response.status, data if isinstance(data, dict) else {}, retry_after(response.getheader("Retry-After", "")))


def retry_after(value: str) -> Optional[float]:
    """The seconds that a Retry-After says, as a number or a date; None where it says nothing."""
    try:
        if value[:1].isdigit():
            return float(value)
        when = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return max(0.0, when.replace(tzinfo=when.tzinfo or datetime.timezone.utc).timestamp() - time.time())


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


def _response(
    conn: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Union[bytes, BinaryIO, None],
    headers: Dict[str, str],
) -> http.client.HTTPResponse:
    """A server that refuses a long body answers before it has all of it: what it says is worth more than "broken pipe"."""
    try:
        conn.request(method, path, body, headers)
    except (BrokenPipeError, ConnectionResetError):
        try:
            response = conn.getresponse()
        except (OSError, http.client.HTTPException):
            response = None
        if response is None:
            raise
        response.will_close = True
        return response
    return conn.getresponse()


def _unavailable(where: str, error: Exception, sent: bool) -> SidecarUnavailable:
    if isinstance(error, socket.timeout):
        return SidecarUnavailable(f"{where}: no answer in time", code="no_answer", sent=sent)
    return SidecarUnavailable(f"{where}: {str(error) or type(error).__name__}", sent=sent)


def _prepare(sock: Optional[socket.socket], timeout: float) -> None:
    """Head and body of a request go out as two writes; without NODELAY the second would wait."""
    if sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(timeout)
