# SPDX-License-Identifier: Apache-2.0
"""A server that is told to stop: what it still does, what it refuses, and that nothing outlives it."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import threading
import time

import pytest

from streams import Held
from support import CODEMODE, PATIENCE, SECRET, adopting, alive, eventually, listening_port, running_sidecar


class Line:
    """One connection, opened before the server is told to stop."""

    def __init__(self, server):
        self.http = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60 * PATIENCE)
        self.http.connect()

    def ask(self, method, path, body=None):
        self.http.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
        return self.answer()

    def answer(self):
        answer = self.http.getresponse()
        return answer.status, answer.headers, json.loads(answer.read() or "null")


@pytest.fixture
def slow():
    with running_sidecar(DRAIN_TIMEOUT="300", SPARE_WORKERS="1") as server:
        yield server


class Busy:
    """A session whose execution lasts until it is let go, and one in the queue behind it, without a stream."""

    def __init__(self, server):
        self.session = server.create()
        self.held = Held(self.session)
        self.queued = self.session.in_background("'the second'")
        eventually(lambda: self.session.info()["queued"] == 1, "it is queued")
        server.hang_up()

    def finish(self):
        """Both come to their end."""
        reply = self.held.result()
        assert (reply["result"], reply["state"]) == ("'finished'", "kept"), reply
        answer = self.queued.result()
        assert answer.status_code == 200 and (answer.json()["result"], answer.json()["state"]) == ("'the second'", "kept"), answer.text


def drains(server):
    eventually(lambda: any(line["event"] == "draining" for line in server.log_lines()), "it drains")


def gone(family):
    eventually(lambda: not any(alive(pid) for pid in family), "no process is left")


def test_open_connections_are_answered_while_it_drains(slow):
    work = Busy(slow)
    lines = [Line(slow) for _ in range(5)]
    slow.process.send_signal(signal.SIGTERM)
    drains(slow)
    asked = [
        lines[0].ask("GET", "/ready"),
        lines[1].ask("POST", "/session"),
        lines[2].ask("POST", f"{work.session.path}/execute", {"code": "1"}),
        lines[3].ask("POST", "/execute", {"code": "1"}),
    ]
    for status, headers, body in asked:
        assert status == 503, body
        assert int(headers["Retry-After"]) > 0 and headers["Connection"] == "close"
    assert [body["code"] for _, _, body in asked[1:]] == ["shutting_down"] * 3
    assert lines[4].ask("GET", "/health")[0] == 200
    work.finish()
    assert slow.process.wait(30 * PATIENCE) == 0


def test_connections_that_wait_in_the_queue_are_answered_too(slow):
    """The kernel has connected them, the server has not looked yet, and the first that it sees is the signal."""
    work = Busy(slow)
    os.kill(slow.process.pid, signal.SIGSTOP)
    lines = [Line(slow) for _ in range(5)]
    slow.process.send_signal(signal.SIGTERM)
    os.kill(slow.process.pid, signal.SIGCONT)
    drains(slow)
    for line in lines:
        status, _, body = line.ask("POST", "/execute", {"code": "1"})
        assert status == 503 and body["code"] == "shutting_down"
    work.finish()
    assert slow.process.wait(30 * PATIENCE) == 0


def test_what_does_not_finish_in_time_is_told_so():
    with running_sidecar(DRAIN_TIMEOUT="0.5") as server:
        family = server.children()
        session = server.create()
        work = session.in_background("import time; time.sleep(100)", timeout=200)
        eventually(lambda: session.info()["state"] == "running", "it runs")
        queued = session.in_background("1")
        eventually(lambda: session.info()["queued"] == 1, "it is queued")
        server.hang_up()
        family += server.children()
        server.process.send_signal(signal.SIGTERM)
        for answer in (work.result(), queued.result()):
            assert answer.status_code == 503 and answer.json()["code"] == "shutting_down", answer.text
        assert server.process.wait(30 * PATIENCE) == 0
        gone(family)


def test_a_second_signal_ends_it_at_once(slow):
    """Long before DRAIN_TIMEOUT, while an execution waits that nobody lets go."""
    work = Busy(slow)
    family = slow.children()
    slow.process.send_signal(signal.SIGTERM)
    drains(slow)
    time.sleep(0.7)  # closer together they are one wish
    assert slow.process.poll() is None
    slow.process.send_signal(signal.SIGTERM)
    assert slow.process.wait(30 * PATIENCE) == 0
    gone(family)
    with contextlib.suppress(OSError):  # cut off, or told: both are said at once
        assert work.queued.result().status_code == 503
    work.held.stream.close()


def test_two_signals_at_once_are_one_wish(slow):
    """As `timeout`, shells and supervisors send them: to the process and to its group."""
    work = Busy(slow)
    os.kill(slow.process.pid, signal.SIGSTOP)  # so that it finds both, however late the second one is sent
    slow.process.send_signal(signal.SIGTERM)
    slow.process.send_signal(signal.SIGINT)
    os.kill(slow.process.pid, signal.SIGCONT)
    drains(slow)
    work.finish()
    assert slow.process.wait(30 * PATIENCE) == 0


def test_a_code_that_does_not_react_cannot_hold_it():
    with running_sidecar(DRAIN_TIMEOUT="0.5", GRACE="0.5") as server:
        session = server.create()
        work = session.in_background("3 ** (10 ** 9)", timeout=60)
        eventually(lambda: session.info()["state"] == "running", "it runs")
        server.hang_up()
        family = server.children()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30 * PATIENCE) == 0
        assert work.result().status_code == 503
        gone(family)


def test_a_stopped_worker_and_a_stopped_zygote_cannot_hold_it():
    with running_sidecar(DRAIN_TIMEOUT="0.5") as server:
        session = server.create()
        zygote = server.zygote()
        os.kill(session.pid(), signal.SIGSTOP)
        session.in_background("1")
        os.kill(zygote, signal.SIGSTOP)
        server.hang_up()
        family = server.children()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30 * PATIENCE) == 0
        gone(family)


class Load:
    """Threads that create sessions and execute until the server is gone."""

    CODES = ["1 + 1", "import time; time.sleep(0.05)", "while True: pass", "print('x' * 100000)", "b = bytearray(1 << 25)"]

    def __init__(self, server, threads=6):
        self.server, self.odd, self.served = server, [], 0
        self.threads = [threading.Thread(target=self.run, args=(n,), daemon=True) for n in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        with contextlib.suppress(OSError, http.client.HTTPException):  # it is gone
            line = Line(self.server)
            while True:
                status, headers, body = line.ask("POST", "/session")
                if status == 200:
                    path = f"/session/{body['session_id']}"
                    status, headers, body = line.ask("POST", path + "/execute", {"code": self.CODES[number % 5], "timeout": 0.5})
                self.served += status == 200
                if status not in (200, 429, 503):
                    self.odd.append((status, body))
                if headers.get("Connection") == "close":
                    line = Line(self.server)

    def join(self):
        for thread in self.threads:
            thread.join(60 * PATIENCE)
            assert not thread.is_alive()


@pytest.mark.parametrize("name, status", [("SIGTERM", 0), ("SIGINT", 0), ("SIGKILL", -signal.SIGKILL)])
def test_no_process_outlives_it_under_load(name, status):
    with running_sidecar(DRAIN_TIMEOUT="3", MAX_SESSIONS="40", SPARE_WORKERS="8") as server:
        load = Load(server)
        eventually(lambda: load.served >= 20, "the load runs", 60)
        family = set(server.children())
        zygote = server.zygote()
        server.process.send_signal(getattr(signal, name))
        while server.process.poll() is None:  # those that are born meanwhile count as well
            family |= set(server.children())
            time.sleep(0.005)
        assert server.process.wait() == status
        gone(family | {zygote})
        load.join()
        assert not load.odd


def test_no_worker_outlives_a_killed_server_while_the_zygote_forks():
    """The server dies at every moment of a burst of creations."""
    for pause in (0.0, 0.002, 0.005, 0.01, 0.02, 0.04):
        with running_sidecar(SPARE_WORKERS="1", MAX_SESSIONS="60") as server, adopting() as orphans:
            family = server.children()
            lines = [Line(server) for _ in range(20)]
            for line in lines:
                line.http.request("POST", "/session")
            time.sleep(pause)
            server.process.kill()
            server.process.wait()
            gone(family)
            eventually(lambda: not orphans(), "no process is left")


def test_hang_up_does_no_harm(slow):
    """A terminal that closes, or a supervisor that means "read your settings again"."""
    work = Busy(slow)
    session_two = slow.create()
    session_two.ok("x = 1")
    for _ in range(3):
        slow.process.send_signal(signal.SIGHUP)
        time.sleep(0.05)
    work.finish()
    assert session_two.value("x") == "1" and slow.process.poll() is None
    assert slow.request("GET", "/ready").status_code == 200
    slow.check_clean()


def test_signals_that_come_before_it_serves(tmp_path):
    """SIGTERM at any moment of the start: an orderly end, and nothing left."""
    for pause in (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.2):
        with adopting() as orphans:
            process = subprocess.Popen([CODEMODE, "serve", "--port", "0"], env={"HOST": "127.0.0.1", "API_TOKEN": SECRET},
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
            time.sleep(pause)
            process.terminate()
            assert process.wait(30 * PATIENCE) in (0, -signal.SIGTERM)
            eventually(lambda: not orphans(), "no process is left")


# --- a log that nobody reads, and descriptors that run out


def test_a_full_log_does_not_stop_the_service():
    """Standard output is a pipe whose reader sleeps: lines are dropped and counted, requests are served."""
    reader, writer = os.pipe()
    process = subprocess.Popen([CODEMODE, "serve", "--port", "0"], stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.DEVNULL,
                               env={"HOST": "127.0.0.1", "LOG_LEVEL": "DEBUG", "SPARE_WORKERS": "1"})  # fmt: skip
    os.close(writer)
    try:
        port = eventually(lambda: listening_port(process.pid), "it listens", 60)
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=60 * PATIENCE)

        def ask(method, path, body=None):
            line.request(method, path, body, {"Content-Type": "application/json"})
            answer = line.getresponse()
            return answer.status, answer.read()

        eventually(lambda: ask("GET", "/ready")[0] == 200, "it is ready", 60)
        for _ in range(1500):  # some hundred bytes of log each, and a pipe holds 64 KiB
            assert ask("GET", "/health")[0] == 200
        assert json.loads(ask("POST", "/execute", json.dumps({"code": "6 * 7"}))[1])["result"] == "42"

        def dropped():
            text = ask("GET", "/metrics")[1].decode()
            return float(text.split("\ncodemode_log_lines_dropped_total ")[1].split()[0])

        eventually(lambda: dropped() > 0, "lost lines are counted")
        os.set_blocking(reader, False)
        assert len(os.read(reader, 1 << 20)) > 0
        process.terminate()
        assert process.wait(30 * PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reader)
