# SPDX-License-Identifier: Apache-2.0
"""Frames from a worker that has been taken over: each costs its own session, and nobody else anything."""

import pytest

from attack import HARMLESS, PROTOCOL, ROLLED, SOFT, outcome_of

STAGE = "native"

READY, OUTPUT, RESULT, TRAP, CRASH = 32, 33, 34, 35, 36
#: STREAM 1 and DATA "x"; SUCCESS 1 and LOCALS "{}"; CALL 1, NAME "echo" and ARGUMENTS "{}".
GOOD_OUTPUT = "0a01000000010b0100000078"
GOOD_RESULT = "0c010000000110020000007b7d"
NUMBER_1, NAME = "1f0400000001000000", "20040000006563686f"
GOOD_CALL = f"{NUMBER_1}{NAME}21020000007b7d"

#: What is sent during an execution, before the prober answers it properly.
VIOLATIONS = {
    "type zero": "header 0 0 1 id",
    "type of the gateway": "frame 16 id 0501000000 31",
    "type of the zygote": "frame 2 0 -",
    "spawn request": "frame 1 0 -",
    "spawned with no descriptor": "frame 3 1 030400000001000000",
    "type that nobody knows": "frame 999 id -",
    "type with high bits": "frame 65535 id -",
    "version zero": "header 0 33 0 id",
    "version of the future": "header 0 33 2 id",
    "length just above OUTPUT's": "header 262145 33 1 id",
    "length of 2 GiB": "header 0x7fffffff 33 1 id",
    "length that looks negative": "header 0xffffffff 34 1 id",
    "length above RESULT's": "header 16777217 34 1 id",
    "READY again": "frame 32 0 -",
    "hundred thousand READY": "frame 32 0 - 100000",
    "OUTPUT of another execution": f"frame 33 0xffffffffffffffff {GOOD_OUTPUT}",
    "OUTPUT of execution zero": f"frame 33 0 {GOOD_OUTPUT}",
    "RESULT of another execution": f"frame 34 1000000 {GOOD_RESULT}",
    "RESULT of a neighbour's execution": f"frame 34 1 {GOOD_RESULT}",
    "two RESULTs": f"frame 34 id {GOOD_RESULT} 2\nend",
    "OUTPUT after RESULT": f"frame 34 id {GOOD_RESULT}\nframe 33 id {GOOD_OUTPUT}\nend",
    "OUTPUT without data": "frame 33 id 0a0100000001",
    "OUTPUT without a stream": "frame 33 id 0b0100000078",
    "OUTPUT on stream 9": "frame 33 id 0a01000000090b0100000078",
    "empty OUTPUT": "frame 33 id -",
    "unknown field": "frame 33 id 7f0100000078",
    "field zero": "frame 33 id 000100000078",
    "field of 4 GiB": "frame 33 id 0bffffffff78",
    "field longer than its frame": "frame 33 id 0b0200000078",
    "half a field head": "frame 33 id 0b0100",
    "field twice": "frame 33 id 0a01000000010a01000000010b0100000078",
    "number of the wrong width": "frame 33 id 0a04000000010000000b0100000078",
    "RESULT without locals": "frame 34 id 0c0100000001\nend",
    "RESULT whose locals are no JSON": "frame 34 id 0c010000000110010000007b\nend",
    "RESULT whose locals are an array": "frame 34 id 0c010000000110020000005b5d\nend",
    "RESULT whose locals end early": "frame 34 id 0c010000000110090000007b2261223a312c2278\nend",
    "RESULT with rests": f"frame 34 id {GOOD_RESULT}00\nend",
    "CALL with a number to come": f"frame 37 id 1f0400000002000000{NAME}21020000007b7d",
    "CALL with number zero": f"frame 37 id 1f0400000000000000{NAME}21020000007b7d",
    "CALL with a number that was": f"frame 37 id {GOOD_CALL} 2",
    "CALL of another execution": f"frame 37 1000000 {GOOD_CALL}",
    "CALL after RESULT": f"frame 34 id {GOOD_RESULT}\nframe 37 id {GOOD_CALL}\nend",
    "CALL without a name": f"frame 37 id {NUMBER_1}21020000007b7d",
    "CALL with a NUL in its name": f"frame 37 id {NUMBER_1}2004000000650000006f21020000007b7d",
    "CALL of a name that is no text": f"frame 37 id {NUMBER_1}2001000000ff21020000007b7d",
    "CALL without arguments": f"frame 37 id {NUMBER_1}{NAME}",
    "CALL whose arguments are an array": f"frame 37 id {NUMBER_1}{NAME}21020000005b5d",
    "CALL whose arguments are no JSON": f"frame 37 id {NUMBER_1}{NAME}21020000007b7b",
    "CALL whose context is no JSON": f"frame 37 id {GOOD_CALL}06020000007b7b",
    "length above CALL's": "header 16778241 37 1 id",
    "CALL_CANCEL of no call": f"frame 38 id {NUMBER_1}",
    "CALL_CANCEL without a number": "frame 38 id -",
    "ANSWER from the wrong side": "frame 18 1 0c0100000001",
    "hundred kilobytes of nothing": "raw 00000000000000000000000000000000 6400",
    "hundred kilobytes of ones": "raw ffffffffffffffffffffffffffffffff 6400",
    "HTTP": "raw 474554202f20485454502f312e310d0a0d0a",
    "descriptor of a field in a header": "raw 0a01000000010b0100000078",
}


def attack(stage, script, timeout=20.0):
    session = stage.server.create()
    session.ok("load @0")
    answer = session.post(script.replace(" -", " "), timeout=timeout)
    return session, answer


@pytest.mark.parametrize("name", list(VIOLATIONS))
def test_violations(stage, name):
    before = stage.server.metrics()
    session, answer = attack(stage, VIOLATIONS[name])
    first = outcome_of(answer)
    if VIOLATIONS[name].endswith("end") and answer.status_code == 200 and answer.json()["state"] == "kept":
        assert answer.json()["success"] is True  # the first RESULT was a good one; what followed was not
    else:
        assert first == ROLLED, answer.text
    stage.counted(before, {f'codemode_worker_deaths_total{{cause="{PROTOCOL}"}}': 1})
    session.delete()


def put(stage, session, name, value):
    return stage.server.request("PUT", f"{session.path}/variables/{name}", data=value, headers={"Content-Type": "text/plain"})


@pytest.mark.parametrize("name", list(VIOLATIONS))
def test_violations_while_a_variable_comes(stage, name):
    before = stage.server.metrics()
    session = stage.server.create()
    session.ok("load @0")
    answer = put(stage, session, "x", VIOLATIONS[name].replace(" -", " ").encode())
    if not VIOLATIONS[name].endswith("end") or answer.status_code != 200:
        assert answer.status_code == 409 and answer.json()["code"] == "state_rolled_back", answer.text
    stage.counted(before, {f'codemode_worker_deaths_total{{cause="{PROTOCOL}"}}': 1})
    session.post("load @0")  # where the answer was there before its save, this one hears of it
    session.ok("load @0")
    session.delete()


#: A call of a tool, which no variable makes; results that say nothing, or nonsense; ends before the value was read.
LOADS = {
    "a call": ("x", f"frame 37 id {GOOD_CALL}\nsilence", {409}),
    "no name of a type": ("x", "frame 34 id 0c010000000110020000007b7d\nend", {200}),
    "a type that is no text": ("x", "frame 34 id 0c01000000010d04000000fffe203110020000007b7d\nend", {200}),
    "a length that is none": ("x", f"frame 34 id 0c01000000010d19000000{b'str -99999999999999999999x'.hex()[:50]}10020000007b7d\nend", {200}),
    "a failure without a reason": ("x", "frame 34 id 0c010000000010020000007b7d\nend", {422}),
    "silence": ("x", "silence", {504}),
    "death": ("x", "call 231 0", {409}),
    "answered before it was read": ("early", "x" * 3_000_000, {200}),
    "never read": ("stuck", "x" * 3_000_000, {504}),
}


@pytest.mark.parametrize("name", list(LOADS))
def test_a_worker_that_is_given_a_variable(stage, name):
    variable, value, statuses = LOADS[name]
    session = stage.server.create(**({"timeout": 1} if 504 in statuses else {}))
    session.ok("load @0", timeout=20)
    answer = put(stage, session, variable, value.encode())
    assert answer.status_code in statuses, answer.text
    assert len(answer.text) < 2000 and isinstance(answer.json(), dict)
    session.post("load @0", timeout=20)  # where it had to be ended after its answer, this is the one that hears of it
    assert session.ok("load @0", timeout=20)["success"]
    session.delete()


#: Legal frames in illegal measure.
FLOODS = {
    "output": "flood 33 id 200000 2000",
    "small output": "flood 33 id 1 1000000",
    "empty output": "frame 33 id 0a01000000010b00000000 1000000",
    "output for ever": "flood 33 id 250000 1000000000",
    "cancellations": f"frame 37 id {GOOD_CALL}\nframe 38 id {NUMBER_1} 1000000",
}


@pytest.mark.parametrize("name", list(FLOODS))
def test_floods(stage, name):
    """Cut at MAX_OUTPUT, and the loop stays everybody's."""
    session, answer = attack(stage, FLOODS[name], timeout=2.5)
    body = answer.json()
    if answer.status_code == 200:
        assert len(body["stdout"].encode()) <= (256 << 10) + 4096
    assert outcome_of(answer) in (HARMLESS, SOFT, ROLLED), answer.text[:300]
    session.delete()


SILENCES = {
    "nothing": "silence",
    "half a header": "raw 0000\nsilence",
    "header without its payload": "header 200000 33 1 id\nsilence",
    "largest header without its payload": "header 16000000 34 1 id\nsilence",
    "half a payload": "header 200000 33 1 id\nraw 0a0100000001\nsilence",
    "endless loop": "spin",
}


@pytest.mark.parametrize("name", list(SILENCES))
def test_silences(stage, name):
    before = stage.server.metrics()
    session, answer = attack(stage, SILENCES[name], timeout=0.4)
    assert outcome_of(answer) == ROLLED, answer.text
    stage.counted(before, {"codemode_worker_deaths_total": 1})
    session.delete()


RESULTS = {
    "success of 200": "0c01000000c810020000007b7d",
    "invalid text": "0c01000000010d04000000fffec08010020000007b7d",
    "zeros": "0c01000000010d040000000000000010020000007b7d",
    "control characters in locals": "0c0100000001100e0000007b2261223a225c7530303030227d",
    "peak memory of 2^64": "0c010000000110020000007b7d11" + "08000000" + "ff" * 8,
    "error and result at once": "0c01000000000d010000007804010000007810020000007b7d",
}


@pytest.mark.parametrize("name", list(RESULTS))
def test_odd_results(stage, name):
    """Well-formed frames with odd contents: an answer that is JSON, or the end of the session."""
    session, answer = attack(stage, f"frame 34 id {RESULTS[name]}\nend")
    assert answer.status_code == 200 or outcome_of(answer) == ROLLED, answer.text
    assert isinstance(answer.json(), dict)
    session.delete()


def test_result_as_large_as_frames_get(stage):
    """Cut at MAX_RESULT, or refused."""
    size = 500_000
    script = f"put 0 00\nframe 34 id 0c01000000010d{size.to_bytes(4, 'little').hex()}{'78' * 100}"
    session, answer = attack(stage, script + "\nsilence", timeout=0.5)
    assert outcome_of(answer) == ROLLED
    session.delete()


def test_death_in_the_middle_of_a_frame(stage):
    session, answer = attack(stage, "header 200000 33 1 id\nraw 0a\ncall 231 0")
    assert outcome_of(answer) == ROLLED, answer.text
    session.delete()


@pytest.mark.parametrize("kind", [TRAP, CRASH])
def test_last_words_without_end(stage, kind):
    """The first are noted; a worker cannot fill the log with the rest."""
    before = len(stage.server.log_text())
    session, answer = attack(stage, f"frame {kind} id 04040000006576696c 100000\nsilence")
    assert outcome_of(answer) == ROLLED, answer.text
    session.delete()
    assert len(stage.server.log_text()) - before < 20_000


@pytest.mark.parametrize("kind, cause", [(TRAP, "trap"), (CRASH, "crash")])
def test_last_words_that_lie(stage, kind, cause):
    """The text of a trap or a crash is a worker's word: printable in the answer, one line of JSON in the log."""
    text = ('evil\r\n\x1b[31m\u202e","level":"forged"}\n{"event":"forged"}\0' * 50).encode().hex()[:6000]
    length = (len(text) // 2).to_bytes(4, "little").hex()
    before = stage.server.metrics()
    session, answer = attack(stage, f"frame {kind} id 04{length}{text}\nsilence")
    assert outcome_of(answer) == ROLLED, answer.text
    assert "\x1b" not in answer.text and "\\u001b" not in answer.text and len(answer.text) < 2000
    stage.counted(before, {f'codemode_worker_deaths_total{{cause="{cause}"}}': 1})
    assert all(line["event"] != "forged" for line in stage.server.log_lines())
    session.delete()


def test_violation_of_a_crowd(stage):
    """Thirty workers at once."""
    sessions = [stage.server.create() for _ in range(30)]
    work = [session.in_background(VIOLATIONS["hundred kilobytes of ones"]) for session in sessions]
    for each in work:
        assert outcome_of(each.result()) == ROLLED
    for session in sessions:
        session.delete()
