# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 over a plain socket: every byte that comes back is accounted for."""

import asyncio
import json
import time

#: Unused connections are not trusted for longer: below the server's IDLE_TIMEOUT.
KEPT_SECONDS = 2.0


class Vanished(Exception):
    """The server closed a connection, or stayed silent, while it owed an answer."""

    def __init__(self, text, closed=False):
        super().__init__(text)
        self.closed = closed


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def code(self):
        return self.json().get("code") if self.status >= 400 else None

    def __repr__(self):
        return f"{self.status} {self.body[:300]!r}"


def encode(method, path, body=None):
    data = b"" if body is None else json.dumps(body).encode()
    kind = "Content-Type: application/json\r\n" if data else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{kind}Content-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


class Connection:
    """One connection with one request at a time. `tally` counts what was sent and what came back."""

    def __init__(self, port, tally):
        self.port, self.tally = port, tally
        self.reader = self.writer = None
        self.used = 0.0

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self, data):
        if self.writer is None:
            await self.open()
        elif self.reader._buffer:  # bytes that answer no request
            raise Vanished(f"{len(self.reader._buffer)} bytes came that nobody had asked for")
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self, deadline, pace=None):
        """The next answer. `pace` = (bytes, seconds) reads it slowly."""
        try:
            return await asyncio.wait_for(self._receive(pace), deadline)
        except asyncio.TimeoutError:
            raise Vanished(f"no answer within {deadline:g} s") from None
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Vanished(f"the connection ended instead of an answer: {error!r}", closed=True) from None

    async def _receive(self, pace):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in head[1:] if line)}
        length, parts = int(headers.get("content-length", 0)), []
        while length:
            piece = await self.reader.readexactly(min(length, pace[0] if pace else 1 << 16))
            length -= len(piece)
            parts.append(piece)
            if pace:
                await asyncio.sleep(pace[1])
        self.tally.received += 1
        answer = Answer(int(head[0].split()[1]), headers, b"".join(parts))
        if headers.get("connection", "").lower() == "close":
            self.abort()
        return answer

    async def request(self, method, path, body=None, deadline=60.0, pace=None):
        """One exchange. A kept connection that the server has closed, or soon may, is opened again first."""
        if self.writer is not None and (self.reader.at_eof() or time.monotonic() - self.used > KEPT_SECONDS):
            self.abort()
        self.tally.sent += 1
        try:
            await self.send(encode(method, path, body))
        except ConnectionError as error:
            raise Vanished(f"the connection ended before the request was sent: {error!r}") from None
        answer = await self.receive(deadline, pace)
        self.used = time.monotonic()
        return answer

    def abort(self):
        """Closes without a farewell: what the server still sends meets a reset."""
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None
