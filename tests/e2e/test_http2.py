# SPDX-License-Identifier: Apache-2.0
"""What is not HTTP/2, or not gRPC, against the server of src/grpc: the right code, and no harm to anybody else."""

import os
import struct
import time

import pytest
from http2 import (
    ACK, CALM, COMPRESSION, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW, GOAWAY, HEADERS, NO_ERROR, PADDED,
    PING, PREFACE, PRIORITY, PROTOCOL, PUSH, RST, SETTINGS, SIZE, WINDOW, Raw, block, call_headers, echo, frame, literal,
    message,
)  # fmt: skip
from support import PATIENCE, eventually

LIMITS = {"message_max": 65536, "metadata_max": 8192, "streams_max": 10, "resets_max": 50, "requests_max": 150000}
(OK, CANCELLED, UNKNOWN, INVALID, DEADLINE, _, _, _, EXHAUSTED) = range(9)
UNIMPLEMENTED, INTERNAL, UNAUTHENTICATED = 12, 13, 16
GOOD = block(call_headers())


@pytest.fixture(scope="module")
def server():
    with echo(**LIMITS) as program:
        yield program
        witness = Raw(program.port)
        assert witness.works(1)
        witness.close()


@pytest.fixture
def raw(server):
    connection = Raw(server.port)
    yield connection
    connection.close()


# Calls that are not gRPC, or not as they should be: the connection lives on


BAD_CALLS = {
    "unknown method": (dict(method="Nothing"), message(), UNIMPLEMENTED, "unknown method"),
    "path of another service": (dict(_path="/test.Ech/Unary"), message(), UNIMPLEMENTED, "unknown method"),
    "GET": (dict(_method="GET"), message(), INTERNAL, "POST"),
    "no content-type": (dict(content_type=None), message(), INTERNAL, "content-type"),
    "JSON": (dict(content_type="application/json"), message(), INTERNAL, "content-type"),
    "gRPC-Web": (dict(content_type="application/grpc-web+proto"), message(), INTERNAL, "content-type"),
    "gRPC with JSON": (dict(content_type="application/grpc+json"), message(), INTERNAL, "content-type"),
    "gzip": (dict(grpc_encoding="gzip"), message(), UNIMPLEMENTED, "grpc-encoding"),
    "compressed flag": ({}, message(b"abc", flag=1), INTERNAL, "compressed"),
    "compressed flag, identity": (dict(grpc_encoding="identity"), message(b"abc", flag=1), INTERNAL, "compressed"),
    "unknown flags": ({}, message(b"abc", flag=2), INTERNAL, "flags"),
    "message too long": ({}, message(b"x" * 70000, length=70000)[:16384], EXHAUSTED, "70000 bytes"),
    "length of 4 GiB": ({}, message(b"x", length=0xFFFFFFFF), EXHAUSTED, "4294967295 bytes"),
    "no message": ({}, b"", UNIMPLEMENTED, "no message"),
    "half a prefix": ({}, b"\0\0\0", INTERNAL, "within its message"),
    "half a message": ({}, message(b"abc", length=9), INTERNAL, "within its message"),
    "two messages": ({}, message(b"a") + message(b"b"), UNIMPLEMENTED, "more than one"),
    "a message and a byte": ({}, message(b"a") + b"\0", UNIMPLEMENTED, "more than one"),
    "timeout without unit": (dict(grpc_timeout="100"), message(), INTERNAL, "grpc-timeout"),
    "timeout of nine digits": (dict(grpc_timeout="123456789n"), message(), INTERNAL, "grpc-timeout"),
    "timeout of minus one": (dict(grpc_timeout="-1S"), message(), INTERNAL, "grpc-timeout"),
    "empty timeout": (dict(grpc_timeout=""), message(), INTERNAL, "grpc-timeout"),
    "timeout zero": (dict(grpc_timeout="0n"), message(), DEADLINE, "deadline"),
    "no key": (dict(method="Guarded"), message(), UNAUTHENTICATED, "no key"),
    "much metadata": (dict(x_much="y" * 9000), message(), EXHAUSTED, "metadata"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_call(raw, name):
    changes, payload, status, text = BAD_CALLS[name]
    raw.call(1, payload, **changes)
    got, words, body, headers = raw.answer(1)
    assert (got, body) == (status, b"") and text in words
    assert headers[":status"] == {"POST": "405", "content-type": "415"}.get(text, "200")
    assert headers["grpc-accept-encoding"] == "identity"
    assert raw.works(3)


def test_headers_that_end_the_stream(raw):
    raw.call(1, None)
    assert raw.answer(1)[:2] == (UNIMPLEMENTED, "no message in the request")
    assert raw.works(3)


@pytest.mark.parametrize("value", ["1H", "99999999H", "5000000u", "60S", "10M", "30000m"])
def test_timeouts(raw, value):
    raw.call(1, message(b"x"), grpc_timeout=value)
    assert raw.answer(1)[0] == OK


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;x=y", "application/grpc"])
def test_content_types(raw, kind):
    raw.call(1, message(b"x"), content_type=kind)
    assert raw.answer(1)[0] == OK


def test_message_in_many_pieces(raw):
    raw.send(frame(HEADERS, END_HEADERS, 1, GOOD))
    for byte in message(b"hello"):
        raw.send(frame(DATA, PADDED, 1, bytes([3, byte]) + b"\0\0\0"))
    raw.send(frame(DATA, END_STREAM, 1))
    assert raw.answer(1)[2] == b"hello"


def test_answer_before_the_request_is_complete(raw):
    """The client is told to stop, and its other calls go on."""
    raw.call(1, message(b"", length=70000), end=False)
    assert raw.answer(1)[0] == EXHAUSTED
    assert raw.reset(1) == NO_ERROR
    raw.send(frame(DATA, 0, 1, b"x" * 1000))  # was on its way
    assert raw.works(3)


def test_requests_on_their_way_are_bounded(raw):
    """Of all connections together."""
    for stream in (1, 3, 5):
        raw.send(frame(HEADERS, END_HEADERS, stream, GOOD))
        raw.send(frame(DATA, 0, stream, message(b"x" * 16000, length=60000)), *[frame(DATA, 0, stream, b"x" * 16000)] * 2)
    raw.send(frame(DATA, 0, 5, b"x" * 10000))
    assert raw.answer(5)[:2] == (EXHAUSTED, "too many bytes of requests are on their way; try again")
    raw.send(*[frame(RST, 0, stream, struct.pack(">I", 8)) for stream in (1, 3)])
    raw.call(7, message(b"y" * 16000))
    assert raw.answer(7)[0] == OK


def test_cancelled_by_the_client(server, raw):
    raw.call(1, message(), method="Count")
    before = int(raw.answer(1)[2])
    raw.call(3, message(), method="Never")
    raw.send(frame(RST, 0, 3, struct.pack(">I", 8)))
    raw.call(5, message(), method="Count")
    assert int(raw.answer(5)[2]) == before + 1
    other = Raw(server.port)
    other.call(1, message(), method="Never")
    other.send(frame(PING, 0, 0, b"12345678"))
    other.until(PING, flags=ACK)
    other.close()

    streams = iter(range(7, 1000, 2))

    def both():
        stream = next(streams)
        raw.call(stream, message(), method="Count")
        return int(raw.answer(stream)[2]) == before + 2

    eventually(both, "the call of a connection that closed is cancelled")


def test_deadline_of_the_server(raw):
    raw.call(1, message(), method="Never", grpc_timeout="50m")
    assert raw.answer(1)[:2] == (DEADLINE, "the deadline has passed")
    assert raw.works(3)


# One stream goes, the connection stays


BAD_STREAMS = {
    "no path": (frame(HEADERS, END_HEADERS | END_STREAM, 1, block(call_headers(_path=None))), PROTOCOL),
    "two paths": (frame(HEADERS, END_HEADERS | END_STREAM, 1, literal(":path", "/") + GOOD), PROTOCOL),
    "unknown pseudo-header": (frame(HEADERS, END_HEADERS | END_STREAM, 1, literal(":what", "x") + GOOD), PROTOCOL),
    "pseudo-header behind the others": (frame(HEADERS, END_HEADERS | END_STREAM, 1, GOOD + literal(":path", "/")), PROTOCOL),
    "upper case": (frame(HEADERS, END_HEADERS | END_STREAM, 1, GOOD + literal("X-Big", "x")), PROTOCOL),
    "connection header": (frame(HEADERS, END_HEADERS | END_STREAM, 1, GOOD + literal("connection", "close")), PROTOCOL),
    "te of another kind": (frame(HEADERS, END_HEADERS | END_STREAM, 1, block(call_headers(te="gzip"))), PROTOCOL),
    "content-length that lies": (
        frame(HEADERS, END_HEADERS, 1, GOOD + literal("content-length", "99"))
        + frame(DATA, END_STREAM, 1, message(b"x")), PROTOCOL),
    "stream window beyond 2^31": (
        frame(HEADERS, END_HEADERS, 1, GOOD) + frame(WINDOW, 0, 1, struct.pack(">I", 0x7FFFFFFF)), FLOW),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_STREAMS)
def test_bad_stream(raw, name):
    data, code = BAD_STREAMS[name]
    raw.send(data)
    assert raw.reset(1) == code
    assert raw.works(3)


def test_stream_of_the_past(raw):
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 9, GOOD), frame(HEADERS, END_HEADERS, 5, GOOD))
    assert raw.answer(9)[0] == UNIMPLEMENTED
    assert raw.works(11)


def test_more_streams_than_allowed(raw):
    raw.until(SETTINGS)
    raw.send(frame(SETTINGS, ACK, 0))
    for stream in range(1, 2 * 11, 2):
        raw.call(stream, message(), method="Never")
    # Once the client has acknowledged the limit, one more is an offence of the whole connection.
    assert raw.goaway() == PROTOCOL


# The connection goes


BAD_CONNECTIONS = {
    "frame too long": (frame(DATA, 0, 1, b"x" * 16385), SIZE),
    "data without a stream": (frame(DATA, 0, 0, b"x"), PROTOCOL),
    "data on an idle stream": (frame(DATA, 0, 7, b"x"), PROTOCOL),
    "headers without a stream": (frame(HEADERS, END_HEADERS, 0, GOOD), PROTOCOL),
    "an even stream": (frame(HEADERS, END_HEADERS, 2, GOOD), PROTOCOL),
    "padding longer than the frame": (frame(DATA, PADDED, 1, b"\xff"), PROTOCOL),
    "ping of seven bytes": (frame(PING, 0, 0, b"1234567"), SIZE),
    "ping on a stream": (frame(PING, 0, 1, b"12345678"), PROTOCOL),
    "settings of five bytes": (frame(SETTINGS, 0, 0, b"12345"), SIZE),
    "settings on a stream": (frame(SETTINGS, 0, 1), PROTOCOL),
    "settings acknowledged with content": (frame(SETTINGS, ACK, 0, b"\0\x03\0\0\0\x01"), SIZE),
    "settings that nobody waits for": (frame(SETTINGS, ACK, 0) * 2, PROTOCOL),
    "push wanted twice": (frame(SETTINGS, 0, 0, b"\0\x02\0\0\0\x02"), PROTOCOL),
    "a window of 4 GiB": (frame(SETTINGS, 0, 0, b"\0\x04\xff\xff\xff\xff"), FLOW),
    "frames of 16 bytes": (frame(SETTINGS, 0, 0, b"\0\x05\0\0\0\x10"), PROTOCOL),
    "stream window of zero more": (
        frame(HEADERS, END_HEADERS, 1, GOOD) + frame(WINDOW, 0, 1, struct.pack(">I", 0)), PROTOCOL),
    "window of zero more": (frame(WINDOW, 0, 0, struct.pack(">I", 0)), PROTOCOL),
    "window beyond 2^31": (frame(WINDOW, 0, 0, struct.pack(">I", 0x7FFFFFFF)), FLOW),
    "window of three bytes": (frame(WINDOW, 0, 0, b"123"), SIZE),
    "reset of an idle stream": (frame(RST, 0, 5, struct.pack(">I", 8)), PROTOCOL),
    "reset of three bytes": (frame(RST, 0, 1, b"123"), SIZE),
    "push promise of a client": (frame(PUSH, END_HEADERS, 1, struct.pack(">I", 2)), PROTOCOL),
    "continuation of nothing": (frame(CONTINUATION, END_HEADERS, 1, b""), PROTOCOL),
    "headers cut by another frame": (frame(HEADERS, 0, 1, GOOD) + frame(PING, 0, 0, b"12345678"), PROTOCOL),
    "headers cut by another stream": (frame(HEADERS, 0, 1, GOOD) + frame(HEADERS, END_HEADERS, 3, GOOD), PROTOCOL),
    "an index that is not there": (frame(HEADERS, END_HEADERS, 1, GOOD + b"\xff\xff\x01"), COMPRESSION),
    "index zero": (frame(HEADERS, END_HEADERS, 1, b"\x80"), COMPRESSION),
    "an endless integer": (frame(HEADERS, END_HEADERS, 1, b"\xff" + b"\xff" * 20), COMPRESSION),
    "a table larger than ours": (frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\x03" + GOOD), COMPRESSION),
    "bad Huffman padding": (frame(HEADERS, END_HEADERS, 1, GOOD + b"\0\x01x\x81\0"), COMPRESSION),
    "a header cut short": (frame(HEADERS, END_HEADERS, 1, GOOD + b"\0\x05ab"), (COMPRESSION, PROTOCOL)),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CONNECTIONS)
def test_bad_connection(raw, name):
    data, codes = BAD_CONNECTIONS[name]
    raw.send(data)
    assert raw.goaway() in (codes if isinstance(codes, tuple) else (codes,))


def test_no_preface(server):
    for opening in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(64), PREFACE[:20] + b"xxxx", b"\x16\x03\x01" * 20):
        raw = Raw(server.port, preface=False)
        raw.send(opening)
        raw.end()
        raw.close()


def test_frames_of_unknown_kinds_are_passed_over(raw):
    raw.send(frame(0x42, 0xFF, 0, b"whatever"), frame(PRIORITY, 0, 5, b"\0\0\0\x03\x10"))
    assert raw.works(1)


# Floods


def test_rapid_reset(raw):
    """Streams that are opened only to be reset: fifty in ten seconds, then it is enough."""
    for stream in range(1, 401, 2):
        raw.send(frame(HEADERS, END_HEADERS, stream, GOOD), frame(RST, 0, stream, struct.pack(">I", 8)))
    assert raw.goaway() == CALM


def test_streams_that_we_are_made_to_reset(raw):
    """The same with the server doing the resets."""

    def overflow(stream):
        return frame(WINDOW, 0, stream, struct.pack(">I", 0x7FFFFFFF))

    for stream in range(1, 401, 2):
        raw.send(frame(HEADERS, END_HEADERS, stream, GOOD), overflow(stream))
    assert raw.goaway() == CALM


@pytest.mark.parametrize(
    "flood",
    {
        "pings": frame(PING, 0, 0, b"12345678"),
        "settings": frame(SETTINGS, 0, 0, b"\0\x03\0\0\0\x64"),
        "priorities": frame(PRIORITY, 0, 5, b"\0\0\0\x03\x10"),
    }.items(),
    ids=lambda flood: flood[0],
)
def test_flood(raw, flood):
    for _ in range(60):
        raw.send(flood[1] * 200)
    assert raw.goaway() == CALM


def test_empty_data(raw):
    raw.send(frame(HEADERS, END_HEADERS, 1, GOOD))
    for _ in range(60):
        raw.send(frame(DATA, 0, 1) * 200)
    assert raw.goaway() == CALM


def test_pings_of_somebody_who_does_not_read(server):
    """The answers pile up: then there is an end to it."""
    raw = Raw(server.port)
    raw.sock.settimeout(1)
    with pytest.raises((TimeoutError, ConnectionError)):
        end = time.monotonic() + 10 * PATIENCE
        while time.monotonic() < end:
            raw.sock.sendall(frame(PING, 0, 0, b"12345678") * 1000)
    raw.close()


def test_continuations_without_end(raw):
    raw.send(frame(HEADERS, 0, 1, GOOD), *[frame(CONTINUATION, 0, 1, literal("x", "y" * 10))] * 5000)
    assert raw.goaway() == CALM


def test_hpack_bomb(server, raw):
    """One entry of four kilobytes, and a byte for each time that it is meant: 60 MB of headers in 16 KB."""
    big = literal("x-bomb", "y" * 3900, 0x40)
    raw.send(frame(HEADERS, END_HEADERS, 1, GOOD + big + b"\xbe" * 12000), frame(DATA, END_STREAM, 1, message()))
    assert raw.reset(1) != NO_ERROR
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        peak = next(line for line in status if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 100 * 1024 * PATIENCE


# Reading slowly, or not at all


def test_window_of_the_client_is_kept(server):
    raw = Raw(server.port, settings=b"\0\x04" + struct.pack(">I", 1000))
    raw.call(1, message(b"50000"), method="Big")
    got = 0
    while got < 50005:
        kind, _, stream, payload = raw.frame()
        if kind == DATA:
            got += len(payload)
            assert len(payload) <= 1000
            raw.send(frame(WINDOW, 0, 1, struct.pack(">I", len(payload))))
    raw.until(HEADERS, 1, END_STREAM)
    raw.close()


def test_answers_that_nobody_takes_are_bounded(server):
    raw = Raw(server.port, settings=b"\0\x04" + struct.pack(">I", 0))
    raw.call(1, message(b"3000000"), method="Big")
    raw.call(3, message(b"3000000"), method="Big")
    status, text, _, _ = raw.answer(3)
    assert status == EXHAUSTED and "wait" in text
    raw.close()


# Ends


def test_drain(server):
    with echo(**LIMITS) as other:
        idle, busy = Raw(other.port), Raw(other.port)
        busy.call(1, message(), method="Never", grpc_timeout="400m")
        busy.send(frame(PING, 0, 0, b"12345678"))
        busy.until(PING, flags=ACK)
        other.say("drain")
        for raw in (idle, busy):
            last = raw.until(GOAWAY)
            assert last == struct.pack(">II", 0x7FFFFFFF, NO_ERROR)
        busy.call(3, message(b"was on its way"))
        assert busy.answer(3)[0] == OK
        busy.send(frame(PING, ACK, 0, bytes(8)))
        assert busy.until(GOAWAY)[:8] == struct.pack(">II", 3, NO_ERROR)
        assert busy.answer(1)[0] == DEADLINE
        busy.end()
        assert idle.goaway() == NO_ERROR  # has not answered the PING: after a second


def test_connections_are_counted_and_idle_ones_go():
    with echo(**LIMITS, connections_max=2, idle_ms=300) as other:
        first, second = Raw(other.port), Raw(other.port)
        assert first.works(1) and second.works(1)
        third = Raw(other.port)
        assert third.frame() is None
        slow = Raw(other.port, preface=False)
        assert slow.frame() is None
        assert first.goaway() == NO_ERROR and second.goaway() == NO_ERROR
        again = Raw(other.port)
        again.send(frame(HEADERS, END_HEADERS, 1, GOOD), frame(DATA, 0, 1, b"\0"))
        begun = time.monotonic()
        assert again.answer(1)[0] == DEADLINE  # a request must come to its end
        assert time.monotonic() - begun >= 0.2
        mute = Raw(other.port, preface=False)
        mute.end()
