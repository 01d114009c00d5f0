# SPDX-License-Identifier: Apache-2.0
"""src/grpc and other makes of gRPC: grpcio calls our server, our client calls grpcio, h2load counts, and servers that
answer badly meet our client."""

import concurrent.futures
import contextlib
import re
import socket
import struct
import subprocess
import threading
import time

import grpc
import hpack
import pytest
from http2 import (
    ACK, CALM, CANCEL, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, REFUSED, RST, SETTINGS, WINDOW, Program,
    echo, frame, message,
)  # fmt: skip
from support import PATIENCE, eventually

Status = grpc.StatusCode


# grpcio calls our server


@pytest.fixture(scope="module")
def server():
    with echo() as program:
        yield program


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as made:
        yield made


def call(channel, method, payload=b"", timeout=10 * PATIENCE, **options):
    return channel.unary_unary(f"/test.Echo/{method}")(payload, timeout=timeout, **options)


@pytest.mark.parametrize("method", ["Unary", "Later"])
@pytest.mark.parametrize("size", [0, 1, 16379, 16384, 65536, 1 << 20])
def test_sizes(channel, method, size):
    assert call(channel, method, bytes(size)) == bytes(size)


def test_stream(channel):
    """Eight megabytes, twice as much as may wait in the server: it stops and goes on."""
    got = channel.unary_stream("/test.Echo/Stream")(bytes([80]) + bytes(100000), timeout=20 * PATIENCE)
    assert [len(part) for part in got] == [100000] * 80


def test_text_of_a_status(channel):
    for text in ("plain", "schön 100 % \n\t", "日本語" * 100, ""):
        with pytest.raises(grpc.RpcError) as caught:
            call(channel, "Fail", b"\x09" + text.encode())
        assert (caught.value.code(), caught.value.details()) == (Status.FAILED_PRECONDITION, text)


def test_deadline_and_cancel(channel):
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "Never", timeout=0.1)
    assert caught.value.code() == Status.DEADLINE_EXCEEDED
    before = int(call(channel, "Count"))
    running = channel.unary_unary("/test.Echo/Never").future(b"", timeout=10 * PATIENCE)
    call(channel, "Unary")
    running.cancel()
    eventually(lambda: int(call(channel, "Count")) > before, "the server hears of it")


def test_metadata(channel):
    key = ("authorization", "Bearer secret")
    answer, info = channel.unary_unary("/test.Echo/Guarded").with_call(
        b"", metadata=[key, ("x-ask", "what"), ("x-ask", "second"), ("x-bin", b"\0\xff")], timeout=10 * PATIENCE
    )
    assert answer == b"what" and ("x-answer", "what") in info.initial_metadata()
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "Guarded", metadata=[("authorization", "Bearer guess")])
    assert (caught.value.code(), caught.value.details()) == (Status.UNAUTHENTICATED, "no key")


def test_compression_is_refused(channel):
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "Unary", b"x" * 1000, compression=grpc.Compression.Gzip)
    assert caught.value.code() == Status.UNIMPLEMENTED


def test_many_at_once(channel):
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        jobs = [pool.submit(call, channel, "Later", str(n).encode() * 500) for n in range(1000)]
        assert [job.result() for job in jobs] == [str(n).encode() * 500 for n in range(1000)]


def test_drained_server_is_left(server):
    with echo() as other, grpc.insecure_channel(f"127.0.0.1:{other.port}") as channel:
        running = channel.unary_unary("/test.Echo/Stream").future(bytes([1]) + b"x", timeout=10 * PATIENCE)
        assert running.result() == b"x"
        other.say("drain")
        with pytest.raises(grpc.RpcError) as caught:
            for _ in range(1000):
                call(channel, "Unary")
                time.sleep(0.01)
        assert caught.value.code() == Status.UNAVAILABLE


def test_h2load(server, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(message(b"x" * 100))
    said = subprocess.run(
        ["h2load", "-n", "20000", "-c", "8", "-m", "32", "-d", body, "-H", "content-type: application/grpc", "-H",
         "te: trailers", f"http://127.0.0.1:{server.port}/test.Echo/Unary"],
        capture_output=True, text=True, timeout=60 * PATIENCE, check=True,
    ).stdout  # fmt: skip
    assert "20000 succeeded, 0 failed, 0 errored" in said and "20000 2xx" in said
    assert int(re.search(r"traffic: .*?\((\d+)\) total", said)[1]) > 20000 * 105


# Our client calls grpcio


class EchoHandler(grpc.GenericRpcHandler):
    def __init__(self):
        self.metadata, self.cancelled = [], threading.Event()

    def service(self, details):
        method = details.method.rsplit("/")[-1]
        self.metadata.append(dict(details.invocation_metadata))
        if method == "Unary":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request)
        if method == "Fail":
            return grpc.unary_unary_rpc_method_handler(self.fail)
        if method == "Never":
            return grpc.unary_unary_rpc_method_handler(self.never)
        if method == "Stream":
            return grpc.unary_stream_rpc_method_handler(lambda request, context: iter([request] * 20))
        if method == "Zip":
            return grpc.unary_unary_rpc_method_handler(self.zip)
        return None

    def fail(self, request, context):
        context.abort(Status.NOT_FOUND, request.decode())

    def never(self, request, context):
        context.add_callback(self.cancelled.set)
        assert self.cancelled.wait(60)
        return b""

    def zip(self, request, context):
        context.set_compression(grpc.Compression.Gzip)
        return request * 1000


@contextlib.contextmanager
def grpcio_server(port=0):
    handler = EchoHandler()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), handlers=[handler], options=[("grpc.so_reuseport", 0)])
    handler.port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield handler
    finally:
        stopped = server.stop(None)
        handler.cancelled.set()
        stopped.wait()


@pytest.fixture(scope="module")
def theirs():
    with grpcio_server() as handler:
        yield handler


@pytest.fixture
def ask(theirs):
    with Program("grpc-ask", f"127.0.0.1:{theirs.port}") as program:
        yield program


def told(program, number):
    """The messages of a call, and (status, text)."""
    messages = []
    while True:
        who, what, rest = (program.hear() + " ").split(" ", 2)
        assert int(who) == number
        if what == "message":
            messages.append(bytes.fromhex(rest))
        else:
            status, text = rest.split(" ", 1)
            return messages, int(status), text.rstrip()


def test_theirs_answers(theirs, ask):
    ask.say("call 1 Unary 10000 fast 6869 authorization=Bearer_x x-correlation-id=cm-1")
    assert told(ask, 1) == ([b"hi"], 0, "")
    seen = theirs.metadata[-1]
    assert seen["authorization"] == "Bearer_x" and seen["x-correlation-id"] == "cm-1"
    assert seen["user-agent"] == "codemode-test"
    ask.say("call 2 Fail 10000 fast " + "grün 5 %".encode().hex())
    assert told(ask, 2) == ([], 5, "grün 5 %")
    ask.say("call 3 Nothing 10000 fast -")
    assert told(ask, 3)[1] == 12
    ask.say("call 4 Stream 10000 fast " + b"abc".hex())
    assert told(ask, 4) == ([b"abc"] * 20, 0, "")
    ask.say("call 5 Unary 10000 fast " + bytes(300000).hex())
    assert told(ask, 5) == ([bytes(300000)], 0, "")
    ask.say("call 6 Unary 10000 fast -")
    assert told(ask, 6) == ([b""], 0, "")
    ask.say("call 7 Unary 10000 fast - Bad=x")
    assert ask.hear() == "7 refused metadata Bad: not printable ASCII"


def test_theirs_must_not_compress(ask):
    """It does when it is told to, whatever we accept: the text says what to change."""
    ask.say("call 1 Zip 10000 fast 61")
    assert told(ask, 1) == ([], 13, "the message is compressed; only the encoding identity is taken")


def test_deadline_and_cancel_reach_theirs(theirs, ask):
    theirs.cancelled.clear()
    ask.say("call 1 Never 100 fast -")
    assert told(ask, 1)[1] == 4
    assert theirs.cancelled.wait(10 * PATIENCE)
    theirs.cancelled.clear()
    seen = len(theirs.metadata)
    ask.say("call 2 Never 20000 fast -")
    eventually(lambda: len(theirs.metadata) > seen, "it has come")
    ask.say("cancel 2", "call 3 Unary 10000 fast 00")
    assert told(ask, 3)[1] == 0
    assert theirs.cancelled.wait(10 * PATIENCE)


def test_server_goes_and_comes_back():
    with grpcio_server() as first:
        port = first.port
        program = Program("grpc-ask", f"127.0.0.1:{port}")
        program.say("call 1 Unary 10000 fast 31")
        assert told(program, 1)[1] == 0
        program.say("call 2 Never 10000 fast -")
        program.say("state")
        assert program.hear() == "state connected"
    with program:
        assert told(program, 2)[1] in (1, 14)  # cancelled by the server, or cut off
        program.say("call 3 Unary 10000 fast 31")
        _, status, text = told(program, 3)
        assert status == 14 and text.startswith("no connection to 127.0.0.1:")
        begun = time.monotonic()
        program.say("call 4 Unary 10000 fast 31", "call 5 Unary 30000 wait 32")
        assert told(program, 4)[1] == 14  # in the pause: at once
        assert time.monotonic() - begun < 5 * PATIENCE
        with grpcio_server(port):
            assert told(program, 5) == ([b"2"], 0, "")


# Our client and servers that are none, or bad ones


class Bad:
    """Takes connections one after the other, and lets `script` answer on each."""

    def __init__(self, *scripts):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(20 * PATIENCE)
        self.target = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.scripts, self.failure, self.got = scripts, None, []
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        try:
            for script in self.scripts:
                self.sock, _ = self.listener.accept()
                self.sock.settimeout(10 * PATIENCE)
                self.buffer, self.decoder = b"", hpack.Decoder()
                with self.sock:
                    script(self)
        except Exception as failure:  # shown by __exit__
            self.failure = failure

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.thread.join()
        self.listener.close()
        if self.failure:
            raise self.failure

    def read(self, size):
        while len(self.buffer) < size:
            more = self.sock.recv(65536)
            if not more:
                return None
            self.buffer += more
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def begin(self, settings=b""):
        assert self.read(len(PREFACE)) == PREFACE
        self.sock.sendall(frame(SETTINGS, 0, 0, settings))

    def frame(self):
        head = self.read(9)
        if not head:
            return None
        payload = self.read(int.from_bytes(head[:3], "big"))
        if head[3] == HEADERS:
            payload = self.decoder.decode(payload)
        return head[3], head[4], int.from_bytes(head[5:9], "big"), payload

    def request(self):
        """The stream of the next whole request."""
        while True:
            kind, flags, stream, _ = self.frame()
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                return stream

    def until(self, kind):
        while True:
            found = self.frame()
            if not found or found[0] == kind:
                return found

    def send(self, *parts):
        self.sock.sendall(b"".join(parts))

    def end(self):
        with contextlib.suppress(OSError):
            while self.frame():
                pass


def headers(stream, *pairs, end=False):
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, hpack.Encoder().encode(pairs))


GRPC = ((":status", "200"), ("content-type", "application/grpc"))
GOOD = ("grpc-status", "0")


def reset(stream, code):
    return frame(RST, 0, stream, struct.pack(">I", code))


BAD_ANSWERS = {
    "no trailers": (lambda s: headers(s, *GRPC) + frame(DATA, END_STREAM, s, message(b"x")), 2, "without a grpc-status"),
    "headers only": (lambda s: headers(s, *GRPC, end=True), 2, "without a grpc-status"),
    "http 400": (lambda s: headers(s, (":status", "400"), end=True), 13, "HTTP status 400"),
    "http 401": (lambda s: headers(s, (":status", "401"), end=True), 16, "HTTP status 401"),
    "http 403": (lambda s: headers(s, (":status", "403")), 7, "HTTP status 403"),
    "http 404": (lambda s: headers(s, (":status", "404")) + frame(DATA, 0, s, b"<html>"), 12, "HTTP status 404"),
    "http 429": (lambda s: headers(s, (":status", "429"), end=True), 14, "HTTP status 429"),
    "http 503": (lambda s: headers(s, (":status", "503"), end=True), 14, "HTTP status 503"),
    "http 500": (lambda s: headers(s, (":status", "500"), end=True), 2, "HTTP status 500"),
    "http 503 with a status": (lambda s: headers(s, (":status", "503"), ("grpc-status", "9"), end=True), 9, ""),
    "html": (lambda s: headers(s, (":status", "200"), ("content-type", "text/html")), 2, "not application/grpc"),
    "status that is no number": (lambda s: headers(s, *GRPC, ("grpc-status", "fine"), end=True), 2, ""),
    "status 99": (lambda s: headers(s, *GRPC, ("grpc-status", "99"), end=True), 2, ""),
    "half a message": (
        lambda s: headers(s, *GRPC) + frame(DATA, 0, s, message(b"x", length=9)) + headers(s, GOOD, end=True), 13, "within"),
    "compressed": (lambda s: headers(s, *GRPC) + frame(DATA, 0, s, message(b"x", 1)), 13, "compressed"),
    "too long": (lambda s: headers(s, *GRPC) + frame(DATA, 0, s, message(b"", length=100000)), 8, "100000 bytes"),
    "reset, cancel": (lambda s: reset(s, CANCEL), 1, "CANCEL"),
    "reset, calm": (lambda s: reset(s, CALM), 8, "ENHANCE_YOUR_CALM"),
    "reset, internal": (lambda s: reset(s, 2), 13, "INTERNAL_ERROR"),
    "reset, security": (lambda s: reset(s, 12), 7, "INADEQUATE_SECURITY"),
    "reset, closed": (lambda s: reset(s, 5), 2, "STREAM_CLOSED"),
    "reset without error": (lambda s: headers(s, *GRPC) + reset(s, 0), 2, "without a grpc-status"),
    "much metadata": (lambda s: frame(HEADERS, END_HEADERS, s, big_block()), 13, "INTERNAL_ERROR"),
    "odd text": (lambda s: headers(s, *GRPC, ("grpc-status", "3"), ("grpc-message", "a%zz%4%C3%A9%FF"), end=True), 3, "a%zz%4é\ufffd"),
    "informational first": (
        lambda s: headers(s, (":status", "103")) + headers(s, *GRPC, ("grpc-status", "6"), end=True), 6, ""),
}  # fmt: skip


def big_block():
    """70 KB of headers in 4 KB: one entry, remembered, and meant twenty times."""
    return hpack.Encoder().encode([*GRPC, ("x-big", "y" * 3500)], huffman=False) + b"\xbe" * 20


def test_bad_answers():
    """All on one connection: none of them costs more than its call."""

    def script(bad):
        bad.begin()
        for answer, _, _ in BAD_ANSWERS.values():
            bad.send(answer(bad.request()))
        stream = bad.request()
        bad.send(headers(stream, *GRPC), frame(DATA, 0, stream, message(b"ok")), headers(stream, GOOD, end=True))
        bad.end()

    with Bad(script) as bad, Program("grpc-ask", bad.target, message_max=50000) as ask:
        for number, (name, (_, status, text)) in enumerate(BAD_ANSWERS.items()):
            ask.say(f"call {number} Unary 10000 fast 78")
            _, got, words = told(ask, number)
            assert got == status and text in words, name
        ask.say("call 999 Unary 10000 fast 78")
        assert told(ask, 999) == ([b"ok"], 0, "")


@pytest.mark.parametrize(
    "opening, text",
    [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "no HTTP/2 server"),
        (b"220 smtp.example ESMTP\r\n", "no HTTP/2 server"),
        (b"", "before HTTP/2 began"),
        (frame(PING, 0, 0, b"12345678"), "no HTTP/2 server"),
    ],
    ids=["http/1.1", "smtp", "nothing", "no settings"],
)
def test_no_http2_server(opening, text):
    def script(bad):
        bad.read(len(PREFACE))
        bad.send(opening)

    with Bad(script) as bad, Program("grpc-ask", bad.target) as ask:
        ask.say("call 1 Unary 10000 fast 78")
        _, status, words = told(ask, 1)
        assert status == 14 and text in words and bad.target in words


def test_goaway_sends_again_what_was_not_processed():
    """Of three calls the first was; the connection goes without its answer."""

    def first(bad):
        bad.begin()
        for _ in range(3):
            bad.request()
        bad.send(frame(GOAWAY, 0, 0, struct.pack(">II", 1, 0)))

    def second(bad):
        bad.begin()
        for _ in range(2):
            stream = bad.request()
            bad.send(headers(stream, *GRPC), frame(DATA, 0, stream, message(b"ok")), headers(stream, GOOD, end=True))
        bad.end()

    with Bad(first, second) as bad, Program("grpc-ask", bad.target) as ask:
        ask.say(*[f"call {number} Unary 10000 fast 78" for number in (1, 2, 3)])
        lines = [ask.hear() for _ in range(5)]
        assert sorted(line for line in lines if " done 0" in line) == ["2 done 0 ", "3 done 0 "]
        assert [line[:9] for line in lines if " done 14" in line] == ["1 done 14"]


def test_nothing_is_sent_a_third_time():
    def refuse(bad):
        bad.begin()
        bad.send(reset(bad.request(), REFUSED))
        bad.send(reset(bad.request(), REFUSED))
        bad.got.append("twice")
        assert bad.until(HEADERS) is None

    with Bad(refuse) as bad, Program("grpc-ask", bad.target) as ask:
        ask.say("call 1 Unary 10000 fast 78")
        assert told(ask, 1)[1] == 14
    assert bad.got == ["twice"]


def test_lost_connection_repeats_nothing():
    def script(bad):
        bad.begin()
        bad.request()

    with Bad(script) as bad, Program("grpc-ask", bad.target) as ask:
        ask.say("call 1 Unary 10000 wait 78")
        _, status, text = told(ask, 1)
        assert status == 14 and "closed the connection" in text


def test_as_many_streams_as_the_server_wants():
    def script(bad):
        bad.begin(b"\0\x03\0\0\0\x02")
        streams = [bad.request(), bad.request()]
        bad.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            bad.request()
        bad.sock.settimeout(10 * PATIENCE)
        for _ in range(3):
            bad.send(headers(streams.pop(0), *GRPC, ("grpc-status", "5"), end=True))
            streams.append(bad.request())
        bad.send(*[headers(stream, *GRPC, ("grpc-status", "5"), end=True) for stream in streams])
        bad.end()

    with Bad(script) as bad, Program("grpc-ask", bad.target) as ask:
        ask.say(*[f"call {number} Unary 10000 fast 78" for number in range(5)])
        assert sorted(ask.hear() for _ in range(5)) == [f"{number} done 5 " for number in range(5)]


def test_keep_alive_finds_a_dead_server():
    def script(bad):
        bad.begin()
        bad.request()
        assert bad.until(PING)
        bad.send(frame(PING, ACK, 0, bytes(8)))
        assert bad.until(PING)
        assert bad.until(PING) is None  # it gave up

    with Bad(script) as bad, Program("grpc-ask", bad.target, keepalive_ms=50, keepalive_timeout_ms=200) as ask:
        ask.say("call 1 Unary 20000 fast 78")
        _, status, text = told(ask, 1)
        assert status == 14 and "PING" in text


def test_idle_connection_is_closed():
    def script(bad):
        bad.begin()
        bad.send(headers(bad.request(), *GRPC, ("grpc-status", "5"), end=True))
        assert bad.until(GOAWAY)
        assert bad.frame() is None

    with Bad(script, script) as bad, Program("grpc-ask", bad.target, idle_ms=100) as ask:
        for number in (1, 2):
            ask.say(f"call {number} Unary 20000 fast 78")
            assert told(ask, number)[1] == 5
            eventually(lambda: ask.say("state") or ask.hear() == "state not", "it closes")


def test_requests_that_the_server_does_not_read_are_bounded():
    def script(bad):
        bad.begin(b"\0\x04" + struct.pack(">I", 0))
        assert bad.until(HEADERS)
        bad.end()

    with Bad(script) as bad, Program("grpc-ask", bad.target, queue_max=100000) as ask:
        ask.say("call 1 Unary 500 fast " + bytes(60000).hex(), "call 2 Unary 500 fast " + bytes(60000).hex())
        assert "2 refused 1200" in ask.hear()
        assert told(ask, 1)[1] == 4
        ask.say("call 3 Unary 500 fast " + bytes(60000).hex())
        assert told(ask, 3)[1] == 4


def test_answers_are_flow_controlled():
    """A server that does not wait for our window is cut off."""

    def script(bad):
        bad.begin()
        stream = bad.request()
        bad.send(headers(stream, *GRPC))
        with contextlib.suppress(OSError):
            for _ in range(600):  # 9.6 MB without looking at WINDOW_UPDATE is fine only as far as it comes
                bad.send(frame(DATA, 0, stream, message(b"y" * 16000)))
            bad.send(headers(stream, GOOD, end=True))
        bad.end()

    with Bad(script) as bad, Program("grpc-ask", bad.target) as ask:
        ask.say("call 1 Unary 10000 fast 78")
        messages, status, _ = told(ask, 1)
        assert (status, len(messages)) == (0, 600) or status in (13, 14)


@pytest.mark.parametrize("target", ["localhost", "localhost:", ":1", "localhost:0", "localhost:70000", "::1:80", "a b:1"])
def test_bad_target(target):
    program = Program("grpc-ask", target)
    assert program.hear() == f'refused "{target}" is not host:port'
    assert program.process.wait(10) == 1
    program.process.stdin.close()
    program.process.stdout.close()
