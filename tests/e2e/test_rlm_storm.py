# SPDX-License-Identifier: Apache-2.0
"""Everything at once: runs of all kinds, clients that hang up and cancel, a model that fails, a private sidecar that is killed again and again.
Whatever becomes of a single run, the service stays, and nothing of the runs stays behind."""

import contextlib
import os
import pathlib
import random
import re
import signal
import threading
import time

import pytest
import requests

from model_server import ModelServer, Reply, answer, cut, fail, raw, repl
from rlm_support import Service
from support import PATIENCE, eventually, process_table

CODE = (
    "x = 1\nprint(x)",
    "print(llm_query('a' * 3000))",
    "print(len(llm_query_batched([str(i) for i in range(30)])))",
    "print(rlm_query_batched([str(i) * 50 for i in range(3)]))",
    "r = rlm_query('y' * 3_000_000)\nprint(r[:10])",
    "import time\ntime.sleep(0.3)",
    "while True: pass",
    "1 / 0",
    "print('x' * 200_000)",
    "import os\nos._exit(3)",
)
CLIENTS, SECONDS, KILLS = 16, 12.0, 4


def moody(chance):
    """A model that mostly writes some code and then answers."""
    faults = (lambda: fail(500), lambda: cut("hello there this is", 5), lambda: fail(429, retry_after=0), lambda: raw("not JSON"), lambda: Reply("slow", delay=0.5))

    def reply(request):
        if chance.random() < 0.08:
            return chance.choice(faults)()
        if not request.is_loop:
            return "a reply"
        return repl(answer("'done'")) if request.turn >= chance.randint(2, 5) else repl(chance.choice(CODE))

    return reply


def children(pid):
    table = process_table()
    found, new = set(), {pid}
    while new:
        new = {child for child, row in table.items() if row[0] in new and row[1] != "Z"} - found
        found |= new
    return found


def names(pids):
    for pid in pids:
        with contextlib.suppress(OSError):
            yield pid, pathlib.Path(f"/proc/{pid}/comm").read_text().strip()


class Client(threading.Thread):
    def __init__(self, service, number, end, counts):
        super().__init__()
        self.url, self.chance, self.end, self.counts = service.url, random.Random(number), end, counts

    def run(self):
        while time.monotonic() < self.end:
            with requests.Session() as http:
                http.trust_env = False
                try:
                    self.counts.append(self.once(http))
                except requests.RequestException as error:
                    self.counts.append(type(error).__name__)

    def once(self, http):
        body = {"query": "q", "context": "c" * self.chance.choice((1, 1000, 3_000_000)), "max_depth": self.chance.choice((1, 2, 3)), "max_timeout": 20}
        kind = self.chance.random()
        if kind < 0.3:
            with contextlib.suppress(requests.ReadTimeout):
                http.post(self.url + "/infer", json=body, timeout=self.chance.uniform(0.01, 1))
            return "hung up"
        if kind < 0.6:
            run = http.post(self.url + "/runs", json=body, timeout=60).json()["run_id"]
            time.sleep(self.chance.uniform(0, 0.8))
            http.post(f"{self.url}/runs/{run}/cancel", timeout=60).raise_for_status()
            return "cancelled"
        told = http.post(self.url + "/infer", json=body, timeout=60 * PATIENCE).json()
        return told.get("code", "answered")


@pytest.fixture
def models():
    with ModelServer(moody(random.Random(7)), models=("root",), strict=False) as server:
        yield server


def test_a_storm(models, tmp_path):
    service = Service(models, None, tmp_path, EXECUTION_TIMEOUT="2", LLM_ATTEMPTS="2", LLM_RECURSIVE_MODEL="root")
    try:
        pid, counts, end = service.process.pid, [], time.monotonic() + SECONDS
        quiet = len(children(pid))
        clients = [Client(service, number, end, counts) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for _ in range(KILLS):
            time.sleep(SECONDS / (KILLS + 1))
            for child, name in names(children(pid)):
                if name == "codemode":
                    os.kill(child, signal.SIGKILL)
        for client in clients:
            client.join()
        assert service.process.poll() is None, service.log_text()[-2000:]
        assert {"hung up", "cancelled", "answered"} <= set(counts) <= {
            "hung up", "cancelled", "answered", "sidecar_unavailable", "model_failed", "timeout_exceeded", "session_lost", "unknown_session", "overloaded",
        }, counts  # fmt: skip

        def running():
            return re.findall(r"^(rlm_(?:runs|model_calls)_running) (\d+)$", service.request("GET", "/metrics").text, re.M)

        assert len(running()) == 2
        eventually(lambda: all(count == "0" for _, count in running()), "all runs have ended", 30)
        models.script = lambda request: repl(answer("'calm'"))
        eventually(lambda: service.request("GET", "/ready").status_code == 200, "there is a sidecar again", 30)
        assert service.request("POST", "/infer", json={"query": "q"}).json()["answer"] == "calm"
        eventually(lambda: len(children(pid)) <= quiet, "their sessions are gone", 30)
    finally:
        status = service.close()
    assert status == 0, service.log_text()[-2000:]
