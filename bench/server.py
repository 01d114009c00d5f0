# SPDX-License-Identifier: Apache-2.0
"""A sidecar to be measured, and a plain client for what needs no load."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time


class Failure(Exception):
    """Something answered wrongly; figures of such a run mean nothing."""


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Server:
    """`codemode serve` on a free port of the loopback; `start_seconds` from its start to the first 200 of /ready."""

    program = "codemode"

    def __init__(self, build, log, **settings):
        self.port = free_port()
        environment = {name: os.environ[name] for name in ("PATH", "CODEMODE_SANDBOX", "CODEMODE_IMAGE") if name in os.environ}
        environment.update({"HOST": "127.0.0.1", "PORT": str(self.port), "LOG_LEVEL": "WARNING"}, **settings)
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            [str(build / self.program), "serve"], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            self._wait(begun + 30)
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.perf_counter() - begun
        self._http = http.client.HTTPConnection("127.0.0.1", self.port, timeout=150)

    def _wait(self, deadline):
        """Asks over plain sockets, every half millisecond, so that the client's own work hardly counts."""
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as sock:
                sock.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if sock.recv(4096).startswith(b"HTTP/1.1 200"):
                    return
            if self.process.poll() is not None or time.perf_counter() > deadline:
                raise Failure("the server did not become ready; see its log")
            time.sleep(0.0005)

    def another(self):
        """A client of the same server for another thread."""
        other = object.__new__(type(self))
        other._http = http.client.HTTPConnection("127.0.0.1", self.port, timeout=150)
        return other

    def call(self, method, path, body=None):
        text = None if body is None else json.dumps(body)
        self._http.request(method, path, text, {"Content-Type": "application/json"} if text else {})
        answer = self._http.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise Failure(f"{method} {path}: {answer.status} {data[:300]!r}")
        return json.loads(data)

    def send(self, path, data, content_type):
        self._http.request("POST", path, data, {"Content-Type": content_type})
        answer = self._http.getresponse()
        text = answer.read()
        if answer.status not in (200, 201):
            raise Failure(f"POST {path}: {answer.status} {text[:300]!r}")
        return json.loads(text)

    def create(self):
        return self.call("POST", "/session")["session_id"]

    def execute(self, session, code, timeout=120):
        reply = self.call("POST", f"/session/{session}/execute", {"code": code, "timeout": timeout})
        if not reply["success"]:
            raise Failure(f"{reply['error']}\n{reply.get('traceback')}")
        return reply["result"]

    def pid(self, session):
        return self.call("GET", f"/session/{session}")["pid"]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.stop()


class RlmServer(Server):
    """`rlm serve`, with a sidecar of its own."""

    program = "rlm"


def private_bytes(pid):
    """Memory that only this process has: dirty private pages and its page tables. Needs the right to trace it."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        pages = int(re.search(r"Private_Dirty:\s+(\d+) kB", file.read()).group(1))
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        tables = int(re.search(r"VmPTE:\s+(\d+) kB", file.read()).group(1))
    return pages * 1024, tables * 1024


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
