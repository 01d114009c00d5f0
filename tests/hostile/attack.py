# SPDX-License-Identifier: Apache-2.0
"""An attack: what a session is told to run, and what was promised about it."""

import dataclasses
import enum
import re

#: What becomes of a session whose process dies while it runs code. This is the one place that says it: True, it goes
#: on with the state from before that execution; False, it is lost and says so.
ROLLS_BACK = True


class Outcome(enum.Flag):
    """How an execution may end. A union means: each of these keeps the promise, and timing decides which it is."""

    HARMLESS = enum.auto()  # it ran, and had nothing of what it was after
    EXC = enum.auto()  # a Python exception; the session goes on with its variables
    SOFT = enum.auto()  # interrupted at its limit; the session goes on with its variables
    ROLLED = enum.auto()  # its process died; see ROLLS_BACK
    REFUSED = enum.auto()  # a 4xx before anything ran; the session goes on with its variables


HARMLESS, EXC, SOFT, ROLLED, REFUSED = Outcome
#: A worker that dies leaves a reason; these are the metric's.
EXIT, SIGNAL, TRAP, CRASH, PROTOCOL, TIMEOUT = ("exit", "signal", "trap", "crash", "protocol", "timeout")

#: MAX_TIMEOUT of the stages.
LONGEST = 30.0

KEPT = "[1, 'two', 3.0]"


@dataclasses.dataclass(frozen=True)
class Attack:
    name: str
    code: str
    outcome: Outcome
    result: str | None = None  # of an attack that ended HARMLESS: a pattern for the whole of it
    says: str | None = None  # of EXC: a pattern somewhere in the error
    cause: str | None = None  # of ROLLED: the one cause of death that is counted
    setup: str | None = None  # run before it, in an execution of its own, and must succeed
    context: dict | None = None
    timeout: float = 1.0  # at least; more for code that ends by itself, see limit()
    stdout_max: int | None = None  # bytes of output that may come back
    self_harm: bool = False  # it breaks its own session's driver: the session still has to answer, with whatever
    more: str | None = None  # an expression that must be true afterwards, where the session lives

    def limit(self):
        """Its time, in seconds. Code that is promised to end before its time is up gets all that there is: how long it takes depends on the machine."""
        return self.timeout if SOFT in self.outcome else LONGEST


def parameters(attacks):
    """For pytest.mark.parametrize: names must be unique, since people look for them."""
    names = [attack.name for attack in attacks]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return {"argnames": "attack", "argvalues": attacks, "ids": names}


def outcome_of(answer):
    """Which outcome an HTTP answer tells of; None for one that was promised nowhere."""
    body = answer.json()
    if answer.status_code == 410:
        return ROLLED if body["code"] == "session_lost" and body["detail"] else None
    if answer.status_code in (400, 413, 422):
        return REFUSED if body["code"] and body["remediation"] else None
    if answer.status_code != 200:
        return None
    if body["state"] != "kept":
        return ROLLED if body["success"] is False and body["error"] else None
    if body["success"]:
        return HARMLESS
    return SOFT if body["error_type"] == "Timeout" else EXC if body["error_type"] else None


def check_answer(attack, outcome, answer):
    body = answer.json()
    if outcome == HARMLESS and attack.result is not None:
        assert re.fullmatch(attack.result, body["result"] or "", re.S), body["result"]
    if outcome == EXC:
        assert re.search(attack.says or ".", f"{body['error_type']}: {body['error']}", re.S), body["error"]
        assert len(body["error"]) <= 300_000 and len(body["traceback"] or "") <= 300_000
    if attack.stdout_max is not None and "stdout" in body:
        assert len(body["stdout"].encode()) <= attack.stdout_max, len(body["stdout"])


def check_session_afterwards(session, attack, outcome):
    """State as promised."""
    if outcome == ROLLED and not ROLLS_BACK:
        answer = session.post("kept")
        assert answer.status_code == 410 and answer.json()["code"] == "session_lost", answer.text
        return
    if attack.self_harm and outcome != ROLLED:
        assert session.post("kept").status_code in (200, 410)
        return
    assert session.value("kept") == KEPT
    if attack.more and outcome != ROLLED:
        assert session.value(attack.more) == "True"


def counters_that_move(attack, outcome):
    """{metric: by how much}; a name without braces stands for the sum over its labels."""
    moves = {
        HARMLESS: {'codemode_executions_total{outcome="error"}': 0},
        EXC: {'codemode_executions_total{outcome="error"}': 1},
        SOFT: {'codemode_executions_total{outcome="timeout"}': 1},
        ROLLED: {"codemode_worker_deaths_total": 1},
        REFUSED: {'codemode_executions_total{outcome="error"}': 0},
    }[outcome]
    if outcome == ROLLED and attack.cause:
        moves = {**moves, f'codemode_worker_deaths_total{{cause="{attack.cause}"}}': 1}
    return moves


def perform(stage, attack):
    """Runs an attack in a fresh session and checks what was promised. The stage checks everybody else."""
    session = stage.server.create()
    session.ok(f"kept = {KEPT}")
    if attack.setup:
        session.ok(stage.fill_in(attack.setup), timeout=LONGEST)
    before = stage.server.metrics()
    more = {} if attack.context is None else {"context": attack.context}
    answer = session.post(stage.fill_in(attack.code), timeout=attack.limit(), **more)
    outcome = outcome_of(answer)
    assert outcome is not None and outcome in attack.outcome, f"{outcome} instead of {attack.outcome}: {answer.text[:2000]}"
    check_answer(attack, outcome, answer)
    stage.counted(before, counters_that_move(attack, outcome))
    check_session_afterwards(session, attack, outcome)
    assert session.delete().status_code == 200
