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

from support import CODEMODE, PATIENCE, SECRET, alive, eventually, listening_port, running_sidecar


class Line:
    """One connection, opened before the server is told to stop."""

    def __init__(self, server):
        self.http = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20 * PATIENCE)
        self.http.connect()

    def ask(self, method, path, body=None):
        self.http.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
        return self.answer()

    def answer(self):
        answer = self.http.getresponse()
        return answer.status, answer.headers, json.loads(answer.read() or "null")


@pytest.fixture
def slow():
    with running_sidecar(DRAIN_TIMEOUT="8", SPARE_WORKERS="1") as server:
        yield server


def busy(server, seconds=2.0, session=None):
    """A session whose execution takes a while, seen to be running."""
    session = session or server.create()
    work = session.in_background(f"import time; time.sleep({seconds}); 'finished'")
    eventually(lambda: session.info()["state"] == "running", "it runs")
    server.hang_up()
    return session, work


def gone(family):
    eventually(lambda: not any(alive(pid) for pid in family), "no process is left", 10)


def test_open_connections_are_answered_while_it_drains(slow):
    session, work = busy(slow)
    lines = [Line(slow) for _ in range(5)]
    slow.process.send_signal(signal.SIGTERM)
    eventually(lambda: any(line["event"] == "draining" for line in slow.log_lines()), "it drains")
    asked = [
        lines[0].ask("GET", "/ready"),
        lines[1].ask("POST", "/session"),
        lines[2].ask("POST", f"{session.path}/execute", {"code": "1"}),
        lines[3].ask("POST", "/execute", {"code": "1"}),
    ]
    for status, headers, body in asked:
        assert status == 503, body
        assert int(headers["Retry-After"]) > 0 and headers["Connection"] == "close"
    assert [body["code"] for _, _, body in asked[1:]] == ["shutting_down"] * 3
    assert lines[4].ask("GET", "/health")[0] == 200
    answer = work.result(10)
    assert answer.status_code == 200 and answer.json()["result"] == "'finished'" and answer.json()["state"] == "kept"
    assert slow.process.wait(10 * PATIENCE) == 0


def test_connections_that_wait_in_the_queue_are_answered_too(slow):
    """The kernel has connected them, the server has not looked yet, and the first that it sees is the signal."""
    session, work = busy(slow)
    os.kill(slow.process.pid, signal.SIGSTOP)
    lines = [Line(slow) for _ in range(5)]
    slow.process.send_signal(signal.SIGTERM)
    os.kill(slow.process.pid, signal.SIGCONT)
    eventually(lambda: any(line["event"] == "draining" for line in slow.log_lines()), "it drains")
    for line in lines:
        status, _, body = line.ask("POST", "/execute", {"code": "1"})
        assert status == 503 and body["code"] == "shutting_down"
    assert work.result(10).json()["result"] == "'finished'"
    assert slow.process.wait(10 * PATIENCE) == 0


def test_a_queued_execution_finishes_too(slow):
    session, work = busy(slow, 0.8)
    queued = session.in_background("'the second'")
    eventually(lambda: session.info()["queued"] == 1, "it is queued")
    slow.hang_up()
    slow.process.send_signal(signal.SIGTERM)
    assert work.result(10).json()["result"] == "'finished'"
    assert queued.result(10).json()["result"] == "'the second'"
    assert slow.process.wait(10 * PATIENCE) == 0


def test_what_does_not_finish_in_time_is_told_so():
    with running_sidecar(DRAIN_TIMEOUT="0.5") as server:
        family = server.children()
        session, work = busy(server, 60)
        queued = session.in_background("1")
        eventually(lambda: session.info()["queued"] == 1, "it is queued")
        server.hang_up()
        family += server.children()
        server.process.send_signal(signal.SIGTERM)
        for answer in (work.result(10), queued.result(10)):
            assert answer.status_code == 503 and answer.json()["code"] == "shutting_down", answer.text
        assert server.process.wait(10 * PATIENCE) == 0
        gone(family)


def test_a_second_signal_ends_it_at_once(slow):
    session, work = busy(slow, 60)
    family = slow.children()
    slow.process.send_signal(signal.SIGTERM)
    eventually(lambda: any(line["event"] == "draining" for line in slow.log_lines()), "it drains")
    time.sleep(0.7)  # closer together they are one wish
    assert slow.process.poll() is None
    started = time.monotonic()
    slow.process.send_signal(signal.SIGTERM)
    assert slow.process.wait(5 * PATIENCE) == 0
    assert time.monotonic() - started < 3 * PATIENCE
    gone(family)
    with contextlib.suppress(Exception):  # cut off, or told: both are said at once
        assert work.result(5).status_code == 503


def test_two_signals_at_once_are_one_wish(slow):
    """As `timeout`, shells and supervisors send them: to the process and to its group."""
    session, work = busy(slow, 1.0)
    slow.process.send_signal(signal.SIGTERM)
    slow.process.send_signal(signal.SIGINT)
    assert work.result(10).json()["result"] == "'finished'"
    assert slow.process.wait(10 * PATIENCE) == 0


def test_a_code_that_does_not_react_cannot_hold_it():
    with running_sidecar(DRAIN_TIMEOUT="0.5", GRACE="0.5") as server:
        session = server.create()
        work = session.in_background("3 ** (10 ** 9)", timeout=60)
        eventually(lambda: session.info()["state"] == "running", "it runs")
        server.hang_up()
        family = server.children()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10 * PATIENCE) == 0
        assert work.result(5).status_code == 503
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
        assert server.process.wait(15 * PATIENCE) == 0
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
            thread.join(20 * PATIENCE)
            assert not thread.is_alive()


@pytest.mark.parametrize("name, status", [("SIGTERM", 0), ("SIGINT", 0), ("SIGKILL", -signal.SIGKILL)])
def test_no_process_outlives_it_under_load(name, status):
    with running_sidecar(DRAIN_TIMEOUT="3", MAX_SESSIONS="40", SPARE_WORKERS="8") as server:
        load = Load(server)
        eventually(lambda: load.served >= 20, "the load runs", 20)
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
        with running_sidecar(SPARE_WORKERS="1", MAX_SESSIONS="60") as server:
            before = processes_of_sandboxes()
            for _ in range(20):
                line = Line(server)
                line.http.request("POST", "/session")
            time.sleep(pause)
            server.process.kill()
            server.process.wait()
            eventually(lambda: not processes_of_sandboxes() - before - known_zombies(), "no process is left", 10)
            gone(before & set(server.children()))


def processes_of_sandboxes():
    """Process ids of everything that runs a sandbox executable and has lost its server, or never had one."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{entry}/comm", encoding="ascii") as file:
                    comm = file.read()
                with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as file:
                    parent = int(file.read().rsplit(")", 1)[1].split()[1])
                if comm.startswith("codemode-sandbo") and not is_server(parent):
                    found.add(int(entry))
    return found


def is_server(pid):
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/comm", encoding="ascii") as file:
            return file.read().strip() == "codemode"
    return False


def known_zombies():
    return {pid for pid in processes_of_sandboxes() if not alive(pid)}


def test_hang_up_does_no_harm(slow):
    """A terminal that closes, or a supervisor that means "read your settings again"."""
    session, work = busy(slow, 0.5)
    session_two = slow.create()
    session_two.ok("x = 1")
    for _ in range(3):
        slow.process.send_signal(signal.SIGHUP)
        time.sleep(0.05)
    assert work.result(10).json()["result"] == "'finished'"
    assert session_two.value("x") == "1" and slow.process.poll() is None
    assert slow.request("GET", "/ready").status_code == 200
    slow.check_clean()


def test_signals_that_come_before_it_serves(tmp_path):
    """SIGTERM at any moment of the start: an orderly end, and nothing left."""
    for pause in (0.0, 0.002, 0.005, 0.01, 0.02, 0.05):
        process = subprocess.Popen([CODEMODE, "serve", "--port", "0"], env={"HOST": "127.0.0.1", "API_TOKEN": SECRET},
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        time.sleep(pause)
        process.terminate()
        assert process.wait(15 * PATIENCE) in (0, -signal.SIGTERM)
        eventually(lambda: not any(child for child in children_of(process.pid)), "no process is left", 10)


def children_of(pid):
    from support import process_table

    return [child for child, (parent, state, _) in process_table().items() if parent == pid and state != "Z"]


# --- a log that nobody reads, and descriptors that run out


def test_a_full_log_does_not_stop_the_service():
    """Standard output is a pipe whose reader sleeps: lines are dropped and counted, requests are served."""
    reader, writer = os.pipe()
    process = subprocess.Popen([CODEMODE, "serve", "--port", "0"], stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.DEVNULL,
                               env={"HOST": "127.0.0.1", "LOG_LEVEL": "DEBUG", "SPARE_WORKERS": "1"})  # fmt: skip
    os.close(writer)
    try:
        port = eventually(lambda: listening_port(process.pid), "it listens", 20)
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=10 * PATIENCE)

        def ask(method, path, body=None):
            line.request(method, path, body, {"Content-Type": "application/json"})
            answer = line.getresponse()
            return answer.status, answer.read()

        eventually(lambda: ask("GET", "/ready")[0] == 200, "it is ready", 20)
        for _ in range(1500):  # some hundred bytes of log each, and a pipe holds 64 KiB
            assert ask("GET", "/health")[0] == 200
        assert json.loads(ask("POST", "/execute", json.dumps({"code": "6 * 7"}))[1])["result"] == "42"

        def dropped():
            text = ask("GET", "/metrics")[1].decode()
            return float(text.split("\ncodemode_log_lines_dropped_total ")[1].split()[0])

        eventually(lambda: dropped() > 0, "lost lines are counted", 5)
        os.set_blocking(reader, False)
        assert len(os.read(reader, 1 << 20)) > 0
        process.terminate()
        assert process.wait(15 * PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reader)
