# SPDX-License-Identifier: Apache-2.0
"""Many runs of one service with a private sidecar, and what stays of them."""

import concurrent.futures
import os

import pytest
import requests

from model_server import KEY, ModelServer, Reply, answer, repl
from rlm_support import Service, root
from support import alive, eventually, process_table, resident_bytes

MB = 1 << 20


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """A service with a sidecar of its own, and few memories of runs."""
    with ModelServer(root(), strict=False) as models:
        service = Service(models, None, tmp_path_factory.mktemp("trajectories"), KEPT_RUNS="5", SPARE_WORKERS="1")
        try:
            yield service
        finally:
            family = descendants(service.process.pid)
            assert service.close() == 0
            eventually(lambda: not any(map(alive, family)), "its processes end with it")


@pytest.fixture
def service(private):
    private.models.reset(root(repl(answer("'done'"))))
    yield private
    private.models.check()


def descendants(pid):
    table = process_table()
    found = [pid]
    for parent in found:
        found += [child for child, row in table.items() if row[0] == parent]
    return found[1:]


def sidecar_of(service):
    """The process of the private sidecar."""
    return service.logged("sidecar_started")[-1]["pid"]


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"json": {}}, 400, "Query is required"),
        ({"json": {"query": ""}}, 400, "Query is required"),
        ({"json": {"query": None}}, 400, "Query is required"),
        ({"data": "{", "headers": {"Content-Type": "application/json"}}, 400, "Invalid JSON"),
        ({"data": "", "headers": {"Content-Type": "application/json"}}, 400, None),
        ({"json": {"query": 5}}, None, None),
        ({"json": {"query": "q", "max_depth": "deep"}}, None, None),
        ({"json": {"query": "q", "max_iterations": 0}}, None, None),
        ({"json": {"query": "q", "context_id": "context-0"}}, 404, None),
        ({"json": {"query": "q", "conversation_id": "conversation-0"}}, 404, None),
    ],
)
def test_what_infer_refuses(service, body, status, error):
    told = service.request("POST", "/infer", **body)
    assert told.status_code == (status or told.status_code) and 400 <= told.status_code < 500
    assert told.json()["error"] == (error or told.json()["error"]) and told.json()["code"]
    assert service.models.requests == []


def test_events_can_be_read_again_from_any_point(service):
    run = service.start()
    run.result()
    again = service.request("GET", f"/runs/{run.id}/events")
    idents = [line[3:].strip() for line in again.text.splitlines() if line.startswith("id:")]
    assert len(idents) == len(run.events) > 3
    rest = service.request("GET", f"/runs/{run.id}/events", headers={"Last-Event-ID": idents[1]})
    assert [line[3:].strip() for line in rest.text.splitlines() if line.startswith("id:")] == idents[2:]


def test_a_conversation_has_one_run_at_a_time(service):
    ident = service.request("POST", "/conversations").json()["conversation_id"]
    service.models.script = root(Reply("FINAL(1)", gate="first"))
    run = service.start(conversation_id=ident)
    service.models.wait(lambda m: len(m.requests) == 1, "the first turn")
    told = service.request("POST", "/runs", json={"query": "q", "conversation_id": ident})
    assert told.status_code == 409
    service.models.open("first")
    assert run.result().answer == "1"
    assert service.request("DELETE", f"/conversations/{ident}").status_code == 200
    assert service.request("POST", "/runs", json={"query": "q", "conversation_id": ident}).status_code == 404


def test_the_private_sidecar_wants_its_key(service):
    url = service.logged("sidecar_started")[-1]["url"]
    assert requests.post(url + "/session", timeout=20).status_code == 401
    assert requests.get(url + "/sessions", timeout=20).status_code == 401


def test_a_service_that_is_killed_leaves_no_process_behind(tmp_path):
    with ModelServer(root(repl(answer("'done'")))) as models:
        service = Service(models, None, tmp_path)
        assert service.run().answer == "done"
        family = descendants(service.process.pid)
        service.process.kill()
        service.process.wait()
        assert family
        eventually(lambda: not any(map(alive, family)), "its processes have ended")


def test_fifty_runs_at_once(service):
    service.models.script = root(repl("print(len(context))"), repl(answer("context"), gate="all"))
    with concurrent.futures.ThreadPoolExecutor(50) as pool:

        def infer(number):
            told = requests.post(service.url + "/infer", json={"query": "q", "context": f"mine {number}"}, timeout=300)
            return told.json().get("answer")

        answers = [pool.submit(infer, number) for number in range(50)]
        service.models.wait(lambda m: m.in_flight == 50, "all fifty have run a block", 60)
        service.models.open("all")
        assert [told.result(300) for told in answers] == [f"mine {number}" for number in range(50)]


def test_what_stays_of_two_hundred_runs(service):
    """Memory, descriptors and processes after 40 and after 240."""
    service.models.script = lambda request: [repl("r = llm_query('q' * 1000)\nprint(r)"), repl(answer("r"))][request.turn - 1] if request.is_loop else Reply("r" * 1000)

    def many(count):
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            def infer(number):
                body = {"query": "q", "context": "x" * 100_000}
                return requests.post(service.url + "/infer", json=body, timeout=300).json().get("answer")

            assert set(pool.map(infer, range(count))) == {"r" * 1000}
        service.models.requests.clear()
        eventually(lambda: len(descendants(service.process.pid)) <= resting, "no session's process is left", 20)

    resting = len(descendants(service.process.pid)) + 1
    def held():
        return service.rss(), resident_bytes(sidecar_of(service)), len(os.listdir(f"/proc/{service.process.pid}/fd"))

    def grown():
        """By how much, where it is too much. Both give memory back a second after they had use for it."""
        growth = [now - then for now, then in zip(held(), before)]
        return growth if any(more > most for more, most in zip(growth, (8 * MB, 8 * MB, 8))) else None

    many(40)
    before = held()
    many(200)
    eventually(lambda: not grown(), "memory and descriptors are as they were", 20)
    assert KEY not in service.log_text()
