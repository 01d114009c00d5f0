# SPDX-License-Identifier: Apache-2.0
"""Large contexts: they reach the session, not the model, and nothing keeps them."""

import random

from model_server import answer, grep_model, repl
from rlm_support import root
from support import eventually, resident_bytes

MB = 1 << 20
LINE = "0123456789 abcdefghij klmnopqrst uvwxyz 0123456789 abcdef ghij\n"


def peak_bytes(pid):
    """The most memory that a process had at once."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def test_a_marker_in_ten_megabytes_is_seen_when_it_is_printed(rlm, models):
    marker = "NEEDLE-" + "7731"
    filler = LINE * (10 * MB // len(LINE))
    context = marker + filler[: len(filler) // 2] + marker + filler[len(filler) // 2 :] + marker
    find = 'at = context.find("NEEDLE" + "-77", 1000)\n'
    models.script = root(
        repl("print(len(context))\nprint(context[100:200])"),
        repl(find + "print(at)"),
        repl("print(context[at:at + 11])"),
        repl(answer("context[at:at + 11]")),
    )
    assert rlm.run("Where is it?", context).answer == marker
    for request in models.requests[:3]:
        assert marker.encode() not in request.raw and len(request.raw) < 30_000
    assert marker.encode() in models.requests[3].raw and len(models.requests[3].raw) < 30_000
    assert str(len(context)) in models.requests[1].output


def test_a_needle_in_a_million_lines(rlm, models):
    models.script = grep_model
    words = ["blah", "random", "text", "data", "content", "information", "sample"]
    chance = random.Random(5)
    pieces = [" ".join(chance.choices(words, k=chance.randint(3, 8))) for _ in range(1000)]
    lines = pieces * 1000
    number = str(chance.randint(1_000_000, 9_999_999))
    lines[437_211] = f"The magic number is {number}"
    context = "\n".join(lines)
    assert len(lines) == 1_000_000
    assert rlm.run('What is "the magic number"?', context).answer == number
    assert all(len(request.raw) < 30_000 for request in models.requests)


def test_what_forty_megabytes_cost(rlm, models):
    """The session at most three times the size, the service nothing that stays."""
    models.script = root(repl("print(len(context))"), repl(answer("len(context)"), gate="end"))
    rlm.warm()
    before = rlm.rss()
    context = "x" * (40 * MB)
    run = rlm.start("How long is it?", context)
    models.wait(lambda m: len(m.requests) == 2, "the second turn", 60)
    worker = max(map(peak_bytes, rlm.sidecar.children()))
    gateway = resident_bytes(rlm.sidecar.process.pid)
    models.open("end")
    assert run.result().answer == str(40 * MB)
    assert worker <= 3 * 40 * MB, f"{worker / MB:.0f} MB"
    assert gateway <= 64 * MB, f"{gateway / MB:.0f} MB"
    if rlm.kind == "service":
        eventually(lambda: rlm.rss() <= before + 16 * MB, "the service has given the context back")


def test_structures_of_ten_megabytes(rlm, models):
    records = [{"id": index, "text": LINE} for index in range(100_000)]
    models.script = root(repl("print(type(context).__name__, len(context), context[99_999]['id'])"), repl(answer("'1'")))
    rlm.run("q", records)
    assert "list 100000 99999" in models.requests[1].output
