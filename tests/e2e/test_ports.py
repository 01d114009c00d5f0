# SPDX-License-Identifier: Apache-2.0
"""Where the sidecar listens, and what it makes of the first bytes of a connection."""

import socket
import time

import pytest

from grpc_support import Rpc
from support import PATIENCE, eventually, running_sidecar

SETTINGS = {"PORT": "0"}
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def ports_of(server):
    (line,) = [line for line in server.log_lines() if line["event"] == "serving"]
    return [int(port) for port in line["ports"].split(",")]


def dial(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10 * PATIENCE)


def test_one_port_speaks_both(sidecar):
    with Rpc(sidecar.port) as rpc:
        assert rpc.probe("Health").status == "healthy"
    assert sidecar.request("GET", "/health").status_code == 200


@pytest.mark.parametrize("pause", (0, 0.002), ids=("at once", "byte by byte"))
@pytest.mark.parametrize("kind", ("http1", "post", "http2"))
def test_first_bytes_in_pieces(sidecar, kind, pause):
    """POST and PRI begin alike."""
    body = b'{"code": "1"}'
    post = b"POST /execute HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    sent, begins = {
        "http1": (REQUEST, b"HTTP/1.1 200"),
        "post": (post + body, b"HTTP/1.1 200"),
        "http2": (PREFACE + EMPTY_SETTINGS, b"\x00\x00"),
    }[kind]
    with dial(sidecar.port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(0, len(sent), 1 if pause else len(sent)):
            sock.sendall(sent[i : i + (1 if pause else len(sent))])
            time.sleep(pause)
        answer = sock.recv(4096)
        assert answer.startswith(begins), answer
        if kind == "http2":
            assert answer[3] == 4  # SETTINGS


@pytest.fixture(scope="module")
def hasty():
    with running_sidecar(PORT="0", HEAD_TIMEOUT="1") as server:
        yield server


@pytest.mark.parametrize("said", (b"", b"P", b"PRI * HTTP/2.0\r\n"))
def test_who_says_too_little_is_sent_away(hasty, said):
    """HEAD_TIMEOUT is one second here."""
    started = time.monotonic()
    assert hasty.raw(said, deadline=30) == b""
    assert 0.9 < time.monotonic() - started < 25 * PATIENCE


def test_who_says_too_little_and_hangs_up(hasty):
    started = time.monotonic()
    assert hasty.raw(b"PRI * HT", deadline=30, shut=True)[:12] in (b"", b"HTTP/1.1 400")
    assert time.monotonic() - started < 25 * PATIENCE


def test_connections_count_together():
    """Those that say nothing, HTTP/1.1 and HTTP/2: four at once, and the fifth gets its turn when one has left."""
    with running_sidecar(MAX_CONNECTIONS="4", HEAD_TIMEOUT="600", IDLE_TIMEOUT="600") as server:
        server.hang_up()
        eventually(lambda: server.raw(REQUEST, deadline=5), "the connection of the start has gone")
        held = [dial(server.port) for _ in range(4)]
        held[1].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert held[1].recv(4096).startswith(b"HTTP/1.1 200")
        for sock in held[2:]:
            sock.sendall(PREFACE + EMPTY_SETTINGS)
            assert sock.recv(9)[3] == 4
        with dial(server.port) as fifth:
            fifth.sendall(REQUEST)
            fifth.settimeout(0.3)
            with pytest.raises(TimeoutError):
                fifth.recv(4096)
            held.pop().close()
            fifth.settimeout(10 * PATIENCE)
            assert fifth.recv(4096).startswith(b"HTTP/1.1 200")
        for sock in held:
            sock.close()
        assert server.raw(REQUEST).startswith(b"HTTP/1.1 200")


def test_several_ports():
    """The flag replaces the list; a port that is named twice is one."""
    with running_sidecar() as server:
        assert ports_of(server) == [server.port]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        other = probe.getsockname()[1]
    with running_sidecar(launcher=("/bin/sh", "-c", f'exec "$0" serve --port 0,{other},0,{other}')) as server:
        first, second = ports_of(server)
        assert second == other and first not in (0, other)
        for port in (first, second):
            with dial(port) as sock:
                sock.sendall(REQUEST)
                assert sock.recv(4096).startswith(b"HTTP/1.1 200")
