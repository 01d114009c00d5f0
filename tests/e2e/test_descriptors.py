# SPDX-License-Identifier: Apache-2.0
"""A server whose descriptors run out: it says so, does not spin, and recovers."""

import contextlib
import os
import resource
import socket
import time

import pytest

from support import PATIENCE, eventually, running_sidecar

ROOM = 40


@pytest.fixture
def tight():
    """A server that may open a few more descriptors than it needs to begin with."""
    with running_sidecar(MAX_SESSIONS="100", MAX_CONNECTIONS="200") as server:
        limit(server, ROOM)
        yield server
        limit(server, 1000)
        server.check_clean()


def limit(server, room):
    """Leaves `room` free numbers above the highest descriptor that is open."""
    hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[1]
    highest = max(map(int, server.descriptors()))
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (min(highest + 1 + room, hard), hard))


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fill_with_sessions(server):
    """Creates until it is refused; what is refused has a reason and a time to come back."""
    made = []
    while len(made) < 100:
        answer = server.request("POST", "/session", timeout=60 * PATIENCE)
        if answer.status_code != 200:
            assert answer.status_code == 503, answer.text
            assert answer.json()["code"] in ("sandbox_unavailable", "overloaded"), answer.text
            assert int(answer.headers["Retry-After"]) > 0 and answer.json()["detail"]
            return made
        made.append(answer.json()["session_id"])
    raise AssertionError("a hundred sessions with forty descriptors")


def test_sessions_that_find_no_descriptor_are_refused(tight):
    first = tight.create()
    first.ok("x = 1")
    made = fill_with_sessions(tight)
    assert made and first.value("x") == "1"
    assert tight.request("GET", "/health").status_code == 200
    started, used = time.monotonic(), processor_seconds(tight.process.pid)
    time.sleep(1.5)
    share = (processor_seconds(tight.process.pid) - used) / (time.monotonic() - started)
    assert share < 0.5, f"{share:.0%} of a processor while there is nothing to do"
    for session_id in made:
        assert tight.request("DELETE", f"/session/{session_id}").status_code == 200
    eventually(lambda: tight.request("POST", "/session").status_code == 200, "sessions can be created again", 30)
    assert first.value("x") == "1"


def test_connections_that_find_no_descriptor_wait_without_a_spin(tight):
    session = tight.create()
    session.ok("x = 1")
    with contextlib.ExitStack() as stack:
        for _ in range(ROOM + 60):
            stack.enter_context(socket.create_connection(("127.0.0.1", tight.port), timeout=10))
        time.sleep(0.3)
        used, started = processor_seconds(tight.process.pid), time.monotonic()
        assert session.value("x") == "1"  # over the connection that was there before
        time.sleep(2)
        share = (processor_seconds(tight.process.pid) - used) / (time.monotonic() - started)
    assert share < 0.5, f"{share:.0%} of a processor while connections wait"
    tight.hang_up()

    def served():
        with contextlib.suppress(OSError):
            return tight.request("GET", "/health", timeout=5).status_code == 200

    eventually(served, "new connections are served again", 30)
    assert session.value("x") == "1"


def test_the_zygote_dies_while_descriptors_are_short(tight):
    session = tight.create()
    session.ok("x = 1")
    limit(tight, 0)
    os.kill(tight.zygote(), 9)
    time.sleep(1)
    assert session.value("x") == "1"
    limit(tight, ROOM)
    eventually(lambda: tight.request("POST", "/session").status_code == 200, "new sessions can be created", 30)
