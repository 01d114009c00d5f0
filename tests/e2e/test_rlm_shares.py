# SPDX-License-Identifier: Apache-2.0
"""What one caller of the RLM service may ask for, and what several leave to one another."""

import contextlib
import resource

import pytest

from model_server import answer, by_model, final, never, repl
from rlm_support import Service, root
from support import eventually

CAPS = {
    "MAX_DEPTH_CAP": "3", "MAX_ITERATIONS_CAP": "30", "RLM_MAX_ERRORS_CAP": "5", "MAX_CONCURRENT_SUBCALLS_CAP": "8",
    "RLM_MAX_TOKENS_CAP": "1000000", "RLM_MAX_BUDGET_CAP": "2.5", "RLM_MAX_TIMEOUT_CAP": "600", "EXECUTION_TIMEOUT_CAP": "50",
}  # fmt: skip


CHAT = {"model": "rlm", "messages": [{"role": "user", "content": "q"}]}


@contextlib.contextmanager
def serving(models, tmp_path, **settings):
    service = Service(models, None, tmp_path, **settings)
    try:
        yield service
    finally:
        status = service.close()
    assert status == 0


@pytest.fixture(scope="module")
def capped(rlm_models, tmp_path_factory):
    with serving(rlm_models, tmp_path_factory.mktemp("trajectories"), **CAPS) as service:
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
    with serving(models, tmp_path, RLM_MAX_TIMEOUT_CAP="0.5", RLM_MAX_TOKENS_CAP="50") as service:
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
    with serving(models, tmp_path) as service:
        assert service.request("POST", "/infer", json={"query": "q", **members}).json()["answer"] == "done"


# --- trajectory files


def test_trajectories_are_their_owners(models, tmp_path):
    """The service makes their folder; neither it nor a file is for others."""
    folder = tmp_path / "trajectories"
    models.script = root(repl(answer("1")))
    with serving(models, folder) as service:
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
    with serving(models, tmp_path) as service:
        runs = [service.start().id for _ in range(8)]
        eventually(lambda: service.metric("rlm_runs_running") == 0, "all runs have ended")
    assert sorted(lines[0]["run_id"] for lines in service.trajectories()) == sorted(runs)
    assert [len(lines) for lines in service.trajectories()] == [3] * len(runs)
