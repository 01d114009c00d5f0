# SPDX-License-Identifier: Apache-2.0
"""Runs whose processes are killed, and runs that are cancelled at each of their stages."""

import os
import signal

import pytest

from model_server import Reply, answer, never, repl
from rlm_support import root
from support import Sidecar, alive, eventually

OWN_SIDECAR = True

CANCELLED_AT = {
    "the first turn": (root(never()), lambda m: len(m.requests) == 1),
    "a later turn": (root(repl("x = 1"), never()), lambda m: len(m.requests) == 2),
    "a sub-query": (root(repl("llm_query('q')"), sub=never()), lambda m: len(m.of("sub")) == 1),
    "a batch": (root(repl("llm_query_batched(['q'] * 50)"), sub=never()), lambda m: len(m.of("sub")) == 16),
    "a child": (root(repl("rlm_query('q')"), sub=never()), lambda m: len(m.of("sub")) == 1),
    "children": (root(repl("rlm_query_batched(['q'] * 9)"), sub=never()), lambda m: len(m.of("sub")) == 4),
    "a stream": (root(Reply("x" * 1000, between=0.1, pieces=1000)), lambda m: len(m.requests) == 1),
}


def worker_of(rlm):
    """The process of the only session that there is."""
    (session,) = eventually(rlm.sidecar.sessions, "there is a session")
    return rlm.sidecar.request("GET", f"/session/{session}").json()["pid"]


def computes(pid):
    """It has used a tenth of a second of processor time since now."""

    def used():
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")

    before = used()
    eventually(lambda: used() > before + 0.1, "it computes")


@pytest.mark.parametrize("stage", CANCELLED_AT)
def test_cancelled_while_a_model_is_asked(rlm, models, stage):
    script, reached = CANCELLED_AT[stage]
    models.script = script
    run = rlm.start(max_depth=2)
    models.wait(reached, "the stage")
    run.cancel()
    outcome = run.result()
    assert (outcome.answer, outcome.code) == (None, "cancelled")
    models.wait(lambda m: m.in_flight == 0, "all requests were broken off")


def test_cancelled_while_a_block_runs(rlm, models):
    models.script = root(repl("print(1)", "Words.\n"), repl("while True: pass"))
    run = rlm.start(execution_timeout=300)
    models.wait(lambda m: len(m.requests) == 2, "the second turn")
    computes(worker_of(rlm))
    run.cancel()
    assert run.result().code == "cancelled"


def test_cancelled_while_a_childs_block_runs(rlm, models):
    models.script = root(repl("rlm_query('q')"), sub=repl("while True: pass"))
    run = rlm.start(max_depth=2, execution_timeout=300)
    models.wait(lambda m: len(m.of("sub")) == 1, "the child's turn")
    eventually(lambda: len(rlm.sidecar.sessions()) == 2, "the child's session")
    run.cancel()
    assert run.result().code == "cancelled"


def test_cancelled_twice_and_after_the_end(rlm, models):
    models.script = root(never())
    run = rlm.start()
    models.wait(lambda m: len(m.requests) == 1, "the first turn")
    run.cancel()
    run.cancel()
    assert run.result().code == "cancelled"
    run.cancel()


def test_the_worker_is_killed_while_a_block_runs(rlm, models):
    """Its session goes on from the state before the block, and the model is told."""
    models.script = root(repl("kept = 5"), repl("lost = 1\nprint(llm_query('q'))\nwhile True: pass"), repl(answer("f\"{kept} {'lost' in globals()}\"")), sub="r")
    run = rlm.start(execution_timeout=300)
    models.wait(lambda m: len(m.of("sub")) == 1, "the block runs")
    pid = worker_of(rlm)
    computes(pid)
    os.kill(pid, signal.SIGKILL)
    outcome = run.result()
    assert outcome.answer == "5 False", outcome
    assert "rror" in models.of("root")[2].output


def test_the_worker_is_killed_between_two_blocks(rlm, models):
    models.script = root(repl("kept = 5"), repl("print(kept)", gate="killed"), repl(answer("str(kept)")))
    run = rlm.start()
    models.wait(lambda m: len(m.requests) == 2, "the second turn")
    pid = worker_of(rlm)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(pid), "it is gone")
    models.open("killed")
    outcome = run.result()
    assert outcome.answer == "5" or outcome.code in ("sidecar_unavailable", "session_lost", "state_rolled_back"), outcome


def test_a_block_that_takes_all_memory(rlm, models):
    models.script = root(repl("kept = 5"), repl("data = []\nwhile True: data.append(bytearray(1 << 24))"), repl(answer("str(kept)")))
    assert rlm.run().answer == "5"
    assert "rror" in models.requests[2].output


@pytest.mark.parametrize("moment", ["block", "model", "sub-query"])
def test_the_sidecar_is_killed(rlm, models, moment):
    scripts = {
        "block": root(repl("print(1)"), repl("while True: pass", "Words.\n")),
        "model": root(repl("print(1)"), repl("print(2)", "Words.\n", gate="killed"), repl(answer("'x'"))),
        "sub-query": root(repl("print(1)"), repl("llm_query('q')", "Words.\n"), repl(answer("'x'")), sub=never()),
    }
    models.script = scripts[moment]
    run = rlm.start(execution_timeout=300)
    models.wait(lambda m: len(m.requests) == (3 if moment == "sub-query" else 2), "the moment")
    if moment == "block":
        computes(worker_of(rlm))
    port, settings = rlm.sidecar.port, rlm.sidecar.settings
    rlm.sidecar.process.kill()
    rlm.sidecar.process.wait()
    models.open("killed")
    try:
        outcome = run.result()
    finally:
        rlm.sidecar.stop()
        rlm.sidecar = Sidecar(settings, port=port)
    assert (outcome.answer, outcome.code) == (None, "sidecar_unavailable"), outcome
    assert outcome.partial.startswith("Words.")
    models.wait(lambda m: m.in_flight == 0, "nothing is asked any more")
    models.script = root(repl(answer("'works again'")))
    assert rlm.run().answer == "works again"


def test_no_sidecar_at_all(rlm, models):
    port, settings = rlm.sidecar.port, rlm.sidecar.settings
    rlm.sidecar.stop()
    try:
        models.script = root(repl(answer("'x'")))
        outcome = rlm.run(max_timeout=20)
    finally:
        rlm.sidecar = Sidecar(settings, port=port)
    assert outcome.code in ("sidecar_unavailable", "timeout_exceeded")


def test_runs_wait_for_a_session(rlm, models):
    """The sidecar has room for six; one of those that wait is cancelled, the others are served."""
    held = [rlm.sidecar.create() for _ in range(6)]
    models.script = root(repl(answer("'served'")))
    try:
        runs = [rlm.start() for _ in range(3)]
        runs[1].cancel()
        assert runs[1].result().code == "cancelled"
    finally:
        for session in held:
            session.delete()
    assert [runs[0].result().answer, runs[2].result().answer] == ["served"] * 2
