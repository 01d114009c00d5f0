# SPDX-License-Identifier: Apache-2.0
"""What one caller of the RLM service may ask for, and what several leave to one another."""

import contextlib
import http.client
import json
import resource

import pytest

from model_server import answer, by_model, final, never, repl
from rlm_support import Service, own_service, root
from support import eventually

CAPS = {
    "MAX_DEPTH_CAP": "3", "MAX_ITERATIONS_CAP": "30", "RLM_MAX_ERRORS_CAP": "5", "MAX_CONCURRENT_SUBCALLS_CAP": "8",
    "RLM_MAX_TOKENS_CAP": "1000000", "RLM_MAX_BUDGET_CAP": "2.5", "RLM_MAX_TIMEOUT_CAP": "600", "EXECUTION_TIMEOUT_CAP": "50",
}  # fmt: skip


CHAT = {"model": "rlm", "messages": [{"role": "user", "content": "q"}]}


@pytest.fixture(scope="module")
def capped(rlm_models, tmp_path_factory):
    with own_service(rlm_models, tmp_path_factory.mktemp("trajectories"), **CAPS) as service:
        yield service


@pytest.mark.parametrize(("member", "cap", "setting"), [
    ("max_depth", 3, "MAX_DEPTH_CAP"), ("max_iterations", 30, "MAX_ITERATIONS_CAP"), ("max_errors", 5, "RLM_MAX_ERRORS_CAP"), ("max_budget", 2.5, "RLM_MAX_BUDGET_CAP"),
    ("max_concurrent_subcalls", 8, "MAX_CONCURRENT_SUBCALLS_CAP"), ("max_tokens", 1000000, "RLM_MAX_TOKENS_CAP"),
])  # fmt: skip
def test_limits_have_caps(capped, models, member, cap, setting):
    """One more than the cap is refused, by every route, and the words say what to do; the cap itself is taken."""
    models.script = by_model({"root": final("done")})
    for path, body in (("/infer", {"query": "q"}), ("/runs", {"query": "q"}), ("/v1/chat/completions", CHAT)):
        if path.startswith("/v1") and member == "max_tokens":  # there it is about the answer
            continue
        models.requests.clear()
        told = capped.request("POST", path, json=body | {member: cap + 1})
        assert told.status_code == 422 and not models.requests, told.text
        words = f"{member}: {cap + 1} is above the server's cap of {cap}; ask for less, or start the server with a higher {setting}"
        assert words in told.text, told.text
        assert capped.request("POST", path, json=body | {member: cap}).status_code in (200, 202), path
    eventually(lambda: capped.metric("rlm_runs_running") == 0, "all runs have ended")


def test_times_are_cut_and_caps_hold_where_nobody_asks(models, tmp_path):
    with own_service(models, tmp_path, RLM_MAX_TIMEOUT_CAP="0.5", RLM_MAX_TOKENS_CAP="50") as service:
        models.script = root(never())
        for members in ({}, {"max_timeout": 600}, {"max_timeout": 0}):
            told = service.request("POST", "/infer", json={"query": "q", **members}).json()
            assert told["code"] == "timeout_exceeded" and "0.5 seconds" in told["error"], told
        models.script = root("word " * 1000)
        told = service.request("POST", "/infer", json={"query": "q"}).json()
        assert told["code"] == "token_limit_exceeded" and "50" in told["error"], told


def test_no_cap_where_none_is_set(models, tmp_path):
    models.script = root(final("done"))
    members = {"max_budget": 0, "max_tokens": 10**12, "max_iterations": 1000, "max_errors": 0, "max_depth": 16, "max_timeout": 604800}
    with own_service(models, tmp_path) as service:
        assert service.request("POST", "/infer", json={"query": "q", **members}).json()["answer"] == "done"


# --- trajectory files


def test_trajectories_are_their_owners(models, tmp_path):
    """The service makes their folder; neither it nor a file is for others."""
    folder = tmp_path / "trajectories"
    models.script = root(repl(answer("1")))
    with own_service(models, folder) as service:
        run = service.request("POST", "/infer", json={"query": "q"}).json()["run_id"]
        assert len(service.file_of(run)) == 2
        (file,) = folder.iterdir()
        assert folder.stat().st_mode & 0o7777 == 0o700 and file.stat().st_mode & 0o7777 == 0o600


def test_a_full_disk(sidecar, models, tmp_path):
    """Runs go on, what is lost is counted and told of once, what is in a file are whole lines; and with room again, files are whole again."""
    models.script = lambda request: final("done") if request.turn == 2 else repl("print('x' * 150_000)")
    service = Service(models, sidecar, tmp_path)
    try:
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        for _ in range(3):
            told = service.request("POST", "/infer", json={"query": "q"}).json()
            assert told["answer"] == "done", told
        service.written()
        assert service.metric("rlm_trajectory_lines_lost_total") == 3
        (line,) = service.logged("trajectory_not_written")
        assert line["step"] == "write" and line["reason"] == "File too large", line
        assert sorted(len(lines) for lines in service.trajectories()) == [2, 2, 2]  # the first line and the last turn
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        run = service.request("POST", "/infer", json={"query": "q"}).json()["run_id"]
        assert len(service.file_of(run)) == 3
    finally:
        status = service.close()
    assert status == 0


def test_trajectories_are_whole_at_the_end(models, tmp_path):
    """SIGTERM behind the last answer: what was said is written before the service ends."""
    models.script = root(repl("print('x' * 100_000)"), repl(answer("1")))
    with own_service(models, tmp_path) as service:
        runs = [service.start().id for _ in range(8)]
        eventually(lambda: service.metric("rlm_runs_running") == 0, "all runs have ended")
    assert sorted(lines[0]["run_id"] for lines in service.trajectories()) == sorted(runs)
    assert [len(lines) for lines in service.trajectories()] == [3] * len(runs)


# --- keys that share


def headers(name, kind="text/plain"):
    return {"Authorization": f"Bearer key-of-{name}-1234", "Content-Type": kind}


@contextlib.contextmanager
def keyed(models, tmp_path, *names, **settings):
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{name} key-of-{name}-1234\n" for name in names))
    keys.chmod(0o600)
    with own_service(models, tmp_path / "trajectories", RLM_KEYS_FILE=str(keys), **settings) as service:
        yield service


def refused(answer, *words):
    """By its share, and says what is full and what to do."""
    assert answer.status_code == 429 and answer.headers["Retry-After"], answer.text
    told = answer.json()
    assert told["code"] == "key_share_full" and all(word in told["detail"] for word in words) and told["remediation"], told


def test_keys_share_the_room_of_contexts(models, tmp_path):
    """Half of 4 MiB, half of the rest, and then again when a context has gone."""
    with keyed(models, tmp_path, "ann", "bob", TOTAL_CONTEXTS="4Mi", MAX_CONTEXT="4Mi") as service:

        def send(name, kib):
            return service.request("POST", "/contexts", data=b"x" * (kib << 10), headers=headers(name))

        first = send("ann", 1024).json()["context_id"]
        assert send("ann", 1024).status_code == 200
        refused(send("ann", 1), "bytes of contexts", "2097152 of 4194304", "TOTAL_CONTEXTS", "delete")
        refused(send("bob", 1025), "this key has 0")
        assert send("bob", 1024).status_code == 200
        assert service.request("DELETE", f"/contexts/{first}", headers=headers("bob")).status_code == 200  # not his: nothing happens
        refused(send("ann", 1), "TOTAL_CONTEXTS")
        assert service.request("DELETE", f"/contexts/{first}", headers=headers("ann")).status_code == 200
        assert send("ann", 512).status_code == 200
        models.script = root(repl(answer("len(context)")))
        ident = send("bob", 1).json()["context_id"]
        done = service.request("POST", "/infer", json={"query": "q", "context_id": ident}, headers=headers("bob", "application/json"))
        assert done.json()["answer"] == "1024", done.text


def begin_upload(service, name, length=None):
    """A POST /contexts whose body is still to come."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    connection.putrequest("POST", "/contexts")
    for header, value in (headers(name) | ({"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)})).items():
        connection.putheader(header, value)
    connection.endheaders()
    return connection


def context_bytes(service):
    told = service.request("GET", "/metrics", headers=headers("ann")).text
    return int(next(line for line in told.splitlines() if line.startswith("rlm_contexts_bytes ")).split()[1])


def test_a_context_has_its_room_before_it_comes(models, tmp_path):
    """What is announced counts at once: no second one is read that could not stay. A client that leaves gives it back."""
    with keyed(models, tmp_path, "ann", "bob", TOTAL_CONTEXTS="4Mi", MAX_CONTEXT="4Mi") as service:
        first = begin_upload(service, "ann", 2 << 20)
        eventually(lambda: context_bytes(service) == 2 << 20, "its room is taken")
        assert begin_and_send(service, "ann", 1).status == 429
        assert begin_and_send(service, "bob", 1 << 20).status == 200
        first.close()
        eventually(lambda: context_bytes(service) == 1 << 20, "its room is given back")
        assert begin_and_send(service, "ann", 1 << 20).status == 200


def begin_and_send(service, name, length):
    connection = begin_upload(service, name, length)
    connection.send(b"x" * length)
    return connection.getresponse()


def test_a_context_of_unknown_length_grows(models, tmp_path):
    with keyed(models, tmp_path, "ann", "bob", TOTAL_CONTEXTS="4Mi", MAX_CONTEXT="4Mi") as service:
        connection = begin_upload(service, "ann")

        def chunk(size):
            connection.send(f"{size:x}\r\n".encode() + b"x" * size + b"\r\n")

        chunk(1 << 20)
        eventually(lambda: context_bytes(service) == 1 << 20, "what has come counts")
        chunk(1 << 20)
        eventually(lambda: context_bytes(service) == 2 << 20, "what has come counts")
        chunk(1 << 10)
        connection.send(b"0\r\n\r\n")
        answer = connection.getresponse()
        assert answer.status == 429 and b"TOTAL_CONTEXTS" in answer.read()
        eventually(lambda: context_bytes(service) == 0, "its room is given back")
        connection.close()


def test_keys_share_conversations_and_runs(models, tmp_path):
    models.script = root(never())
    with keyed(models, tmp_path, "ann", "bob", MAX_CONVERSATIONS="4", MAX_RUNS="4", DRAIN_TIMEOUT="0.2") as service:

        def talk(name):
            return service.request("POST", "/conversations", headers=headers(name, "application/json"))

        def start(name):
            return service.request("POST", "/runs", json={"query": "q"}, headers=headers(name, "application/json"))

        for make, what in ((talk, "MAX_CONVERSATIONS"), (start, "MAX_RUNS")):
            assert [make("ann").status_code // 100 for _ in range(2)] == [2, 2]
            refused(make("ann"), "this key has 2 of 4", what)
            assert make("bob").status_code // 100 == 2
            refused(make("bob"), "this key has 1 of 4", what)
        runs = service.request("GET", "/runs", headers=headers("ann")).json()["runs"]
        service.request("DELETE", f"/runs/{runs[0]['run_id']}", headers=headers("ann"))
        eventually(lambda: start("ann").status_code == 202, "there is room again")


def test_keys_share_the_runs_that_are_kept(models, tmp_path):
    models.script = by_model({"root": final("done")})
    with keyed(models, tmp_path, "ann", "bob", KEPT_RUNS="4") as service:

        def infer(name):
            return service.request("POST", "/infer", json={"query": "q"}, headers=headers(name, "application/json")).json()["run_id"]

        def kept(name):
            return [run["run_id"] for run in service.request("GET", "/runs", headers=headers(name)).json()["runs"]]

        mine = [infer("bob"), infer("bob")]
        others = [infer("ann") for _ in range(6)]
        assert sorted(kept("bob")) == sorted(mine) and sorted(kept("ann")) == sorted(others[-2:])


def test_keys_share_the_room_of_bodies(models, tmp_path):
    """Bodies that come slowly: one key may hold half of what all may have, four times MAX_BODY."""
    with keyed(models, tmp_path, "ann", "bob", MAX_BODY="64Ki") as service:

        def body(name, length, whole):
            connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
            connection.putrequest("POST", "/infer")
            for header, value in (headers(name, "application/json") | {"Content-Length": str(length)}).items():
                connection.putheader(header, value)
            connection.endheaders()
            connection.send(whole)
            return connection

        models.script = root(final("done"))
        text = json.dumps({"query": "q", "context": "x" * 60_000}).encode()
        slow = [body("ann", len(text), text[:-1]) for _ in range(2)]
        eventually(lambda: body_is_refused(body("ann", len(text), text)), "their bodies have come")
        done = body("bob", len(text), text).getresponse()
        assert done.status == 200 and json.loads(done.read())["answer"] == "done"
        for connection in slow:
            connection.send(text[-1:])
            assert connection.getresponse().status == 200
            connection.close()


def body_is_refused(connection):
    answer = connection.getresponse()
    told = json.loads(answer.read())
    assert answer.status == 200 or (answer.status, told["code"]) == (429, "key_share_full"), told
    return answer.status == 429


def test_a_key_alone_has_all_of_it(models, tmp_path):
    with keyed(models, tmp_path, "ann", TOTAL_CONTEXTS="4Mi", MAX_CONTEXT="4Mi", MAX_CONVERSATIONS="2") as service:
        assert begin_and_send(service, "ann", 4 << 20).status == 200
        answer = begin_and_send(service, "ann", 1)
        assert answer.status == 503 and b"TOTAL_CONTEXTS" in answer.read()
        for status in (200, 200, 503):
            assert service.request("POST", "/conversations", headers=headers("ann", "application/json")).status_code == status
