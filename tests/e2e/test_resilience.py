# SPDX-License-Identifier: Apache-2.0
"""Processes that die, and a server that is told to stop. Every test has a sidecar of its own."""

import contextlib
import os
import signal
import socket
import time

import pytest
import requests

from streams import Held
from support import PATIENCE, alive, eventually, running_sidecar


@pytest.fixture
def own():
    with running_sidecar() as server:
        yield server


def test_a_worker_that_dies_takes_nothing_along(own):
    victim, other = own.create(), own.create()
    victim.ok("x = 1")
    other.ok("y = 2")
    deaths = own.metric("codemode_worker_deaths_total")
    pid = victim.pid()
    victim.rest()  # between an answer and the state that it leaves there is a moment
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: own.metric("codemode_worker_deaths_total") == deaths + 1, "the death is counted")
    assert victim.value("x") == "1" and victim.pid() != pid
    assert victim.info()["restores"] == 1
    assert other.value("y") == "2" and other.info()["restores"] == 0


def test_a_worker_that_dies_while_it_runs(own):
    victim, other = own.create(), own.create()
    victim.ok("x = 1")
    victim.rest()  # as above
    pid = victim.pid()
    work = victim.in_background("x = 2\nwhile True: pass")
    eventually(lambda: victim.info()["state"] == "running", "it runs")
    queued = victim.in_background("x")
    eventually(lambda: victim.info()["queued"] == 1, "the second one is queued")
    os.kill(pid, signal.SIGKILL)
    reply = work.result().json()
    assert reply["state"] == "rolled_back" and "SIGKILL" in reply["error"], reply
    assert queued.result().json()["result"] == "1"
    assert other.value("1") == "1"


def test_a_stopped_worker_is_killed_at_its_limit(own):
    session = own.create()
    session.ok("x = 1")
    pid = session.pid()
    session.rest()  # who is stopped before its state is saved goes back further, and says so with 409
    os.kill(pid, signal.SIGSTOP)
    reply = session.run("x = 2", timeout=0.5)
    assert reply["state"] == "rolled_back" and reply["timed_out"], reply
    eventually(lambda: not alive(pid), "the worker was ended")
    assert session.value("x") == "1"


def test_a_zygote_that_dies_is_replaced(own):
    session = own.create()
    session.ok("x = 42")
    restarts = own.metric("codemode_zygote_restarts_total")
    zygote = own.zygote()
    os.kill(zygote, signal.SIGKILL)
    assert session.value("x") == "42"
    eventually(lambda: own.metric("codemode_zygote_restarts_total") == restarts + 1, "the zygote was replaced")

    def works():
        answer = own.request("POST", "/session")
        return answer.status_code == 200

    eventually(works, "new sessions can be created", 30)
    assert own.create().value("2") == "2"
    assert session.value("x") == "42" and not alive(zygote)
    eventually(lambda: own.request("GET", "/ready").status_code == 200, "it is ready again")


def test_a_zygote_that_dies_again_and_again(own):
    session = own.create()
    session.ok("x = 1")
    for _ in range(3):
        zygote = own.zygote()
        os.kill(zygote, signal.SIGKILL)
        eventually(lambda: own.zygote() != zygote, "the zygote was replaced")
        eventually(lambda: own.request("POST", "/session").status_code == 200, "new sessions can be created", 30)
    assert session.value("x") == "1"


def test_sigterm_lets_running_executions_finish():
    with running_sidecar(DRAIN_TIMEOUT="300") as server:
        session = server.create()
        family = server.children()
        work = Held(session)
        server.process.send_signal(signal.SIGTERM)

        def refusing():
            with contextlib.suppress(requests.RequestException):
                with requests.Session() as http:
                    return http.get(server.url + "/ready", timeout=20).status_code == 503
            return True  # no new connections is a refusal too

        eventually(refusing, "it is not ready any more")
        assert server.process.poll() is None
        assert work.result()["result"] == "'finished'"
        assert server.process.wait(30 * PATIENCE) == 0
        eventually(lambda: not any(alive(pid) for pid in family), "no process is left")


def test_drain_has_an_end():
    with running_sidecar(DRAIN_TIMEOUT="1") as server:
        session = server.create()
        session.in_background("while True: pass", timeout=300)
        eventually(lambda: session.info()["state"] == "running", "it runs")
        family = server.children()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30 * PATIENCE) == 0
        eventually(lambda: not any(alive(pid) for pid in family), "no process is left")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_idle_server_stops_at_once(name):
    """Long before DRAIN_TIMEOUT."""
    with running_sidecar(DRAIN_TIMEOUT="300") as server:
        server.create().ok("1")
        family = server.children()
        server.process.send_signal(getattr(signal, name))
        assert server.process.wait(30 * PATIENCE) == 0
        eventually(lambda: not any(alive(pid) for pid in family), "no process is left")


def test_workers_do_not_outlive_a_killed_server():
    with running_sidecar() as server:
        session = server.create()
        session.in_background("while True: pass", timeout=100)
        eventually(lambda: session.info()["state"] == "running", "it runs")
        family = server.children()
        server.process.kill()
        server.process.wait()
        eventually(lambda: not any(alive(pid) for pid in family), "no process is left")


def test_port_in_use_is_a_clear_error(own):
    import subprocess

    from support import CODEMODE

    done = subprocess.run(
        [CODEMODE, "serve", "--port", str(own.port)], env={"HOST": "127.0.0.1"}, capture_output=True, text=True, timeout=60 * PATIENCE
    )
    assert done.returncode not in (0, None) and done.returncode > 0
    assert str(own.port) in done.stdout + done.stderr
    assert own.execute("1")["result"] == "1"


def test_more_connections_than_allowed():
    with running_sidecar(MAX_CONNECTIONS="20") as server:
        session = server.create()
        server.hang_up()
        crowd = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(60)]
        eventually(lambda: len(server.descriptors()) >= server.base_descriptors + 15, "it has taken some")
        time.sleep(0.3)
        assert len(server.descriptors()) < server.base_descriptors + 40
        for sock in crowd:
            sock.close()
        server.hang_up()

        def works():
            with contextlib.suppress(requests.ConnectionError):
                return session.value("1") == "1"

        eventually(works, "it answers again")


def test_hundred_sessions_at_work():
    with running_sidecar(MAX_SESSIONS="150") as server:
        made = [server.create() for _ in range(100)]
        works = [session.in_background(f"n = {number}\nsum(range(n))") for number, session in enumerate(made)]
        for number, work in enumerate(works):
            assert work.result(60).json()["result"] == str(sum(range(number)))
        for _ in range(3):
            for number, session in enumerate(made):
                assert session.value("n") == str(number)
        assert server.metric("wasm_sessions_active") == 100
        for session in made:
            session.delete()
        server.check_clean()


def test_restart_is_clean():
    for _ in range(3):
        with running_sidecar() as server:
            assert server.sessions() == []
            assert server.create().value("1 + 1") == "2"
