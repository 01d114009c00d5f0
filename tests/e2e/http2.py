# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 by hand: frames as bytes, good ones and bad ones, and the programs of tests/grpc_peer."""

import contextlib
import os
import select
import socket
import struct
import subprocess

import hpack

from support import BUILD, PATIENCE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, ACK = 1, 4, 8, 1
NO_ERROR, PROTOCOL, INTERNAL, FLOW, SETTINGS_TIMEOUT, CLOSED, SIZE, REFUSED, CANCEL, COMPRESSION = range(10)
CALM = 11


def frame(kind, flags, stream, payload=b"", length=None):
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def number(value, bits, first):
    """An integer of HPACK with a prefix of so many bits."""
    top = (1 << bits) - 1
    if value < top:
        return bytes([first | value])
    out, value = [first | top], value - top
    while value > 127:
        out.append(128 | value & 127)
        value >>= 7
    return bytes(out + [value])


def literal(name, value, first=0x00):
    """A header that names itself: 0x00 is not remembered, 0x40 is."""
    name, value = (x.encode() if isinstance(x, str) else x for x in (name, value))
    return bytes([first]) + number(len(name), 7, 0) + name + number(len(value), 7, 0) + value


def block(headers):
    return b"".join(literal(name, value) for name, value in headers)


def call_headers(method="Unary", **changes):
    """Of a call; name=None leaves one out. An underscore stands for a dash, a leading one for the colon."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/test.Echo/{method}",
        ":authority": "test",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    for name, value in changes.items():
        name = ":" + name[1:] if name.startswith("_") else name.replace("_", "-")
        headers.pop(name, None)
        if value is not None:
            headers[name] = value
    return [(n, v) for n, v in headers.items() if n[0] == ":"] + [(n, v) for n, v in headers.items() if n[0] != ":"]


def message(payload=b"", flag=0, length=None):
    return bytes([flag]) + struct.pack(">I", len(payload) if length is None else length) + payload


class Raw:
    """A connection that sends what it is told to."""

    def __init__(self, port, preface=True, settings=b""):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=5 * PATIENCE)
        self.got = b""
        self.decoder = hpack.Decoder()
        if preface:
            self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def send(self, *parts):
        """What is sent to somebody who has had enough may fail to arrive."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(b"".join(parts))

    def call(self, stream=1, payload=None, method="Unary", end=True, **changes):
        head = block(call_headers(method, **changes))
        self.send(frame(HEADERS, END_HEADERS | (END_STREAM if end and payload is None else 0), stream, head))
        if payload is not None:
            self.send(frame(DATA, END_STREAM if end else 0, stream, payload))

    def frame(self):
        """(kind, flags, stream, payload), or None when the server has closed. Headers come decoded."""
        try:
            while len(self.got) < 9 or len(self.got) < 9 + int.from_bytes(self.got[:3], "big"):
                more = self.sock.recv(65536)
                if not more:
                    return None
                self.got += more
        except ConnectionResetError:
            return None
        end = 9 + int.from_bytes(self.got[:3], "big")
        head, payload, self.got = self.got[:9], self.got[9:end], self.got[end:]
        if head[3] == HEADERS:  # each, for the table's sake
            payload = self.decoder.decode(payload)
        return head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, payload

    def until(self, kind, stream=None, flags=0):
        """Frames up to the first of this kind; its payload."""
        while True:
            found = self.frame()
            assert found, f"the server closed before a frame of type {kind}"
            if found[0] == kind and stream in (None, found[2]) and found[1] & flags == flags:
                return found[3]

    def answer(self, stream=1):
        """(status, text, message, all headers) of a call."""
        body, headers = b"", []
        while True:
            found = self.frame()
            assert found, "the server closed before the answer was complete"
            kind, flags, on, payload = found
            if on != stream or kind == WINDOW:
                continue
            assert kind in (HEADERS, DATA), f"frame {kind} {payload!r} instead of an answer"
            if kind == DATA:
                body += payload
            else:
                headers += payload
            if flags & END_STREAM:
                named = dict(headers)
                return int(named["grpc-status"]), named.get("grpc-message", ""), body[5:], named

    def end(self):
        """Until the server closes."""
        while self.frame():
            pass

    def goaway(self):
        """The code of the GOAWAY behind which the server closes."""
        code = int.from_bytes(self.until(GOAWAY)[4:8], "big")
        self.end()
        return code

    def reset(self, stream=1):
        return int.from_bytes(self.until(RST, stream), "big")

    def works(self, stream):
        """The connection still takes calls."""
        self.call(stream, message(b"still here"))
        return self.answer(stream)[2] == b"still here"

    def close(self):
        self.sock.close()


class Program:
    """A program of tests/grpc_peer. Its end must be a clean one."""

    def __init__(self, name, *args, **options):
        environment = {**os.environ, **{k.upper(): str(v) for k, v in options.items()}}
        self.process = subprocess.Popen(
            [BUILD / "tests/grpc_peer" / name, *args],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
        )  # fmt: skip
        self.heard = b""

    def say(self, *lines):
        self.process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        self.process.stdin.flush()

    def hear(self):
        """The next line."""
        while b"\n" not in self.heard:
            assert select.select([self.process.stdout], [], [], 30 * PATIENCE)[0], f"{self.process.args}: says nothing"
            more = os.read(self.process.stdout.fileno(), 65536)
            assert more, f"{self.process.args} has ended: {self.process.poll()}"
            self.heard += more
        line, self.heard = self.heard.split(b"\n", 1)
        return line.decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        status = self.process.wait(10 * PATIENCE)
        self.process.stdout.close()
        assert status == 0


@contextlib.contextmanager
def echo(**options):
    """The echo server: yields the program, with its port."""
    with Program("grpc-echo", **options) as program:
        program.port = int(program.hear())
        yield program
