# SPDX-License-Identifier: Apache-2.0
"""Sub-queries: plain ones and runs inside runs, alone and in batches, their order, their failures, their limits."""

import json

import pytest

from model_server import Reply, answer, by_model, fail, repl, rules
from rlm_support import root
from support import eventually

LEVELS = ["one", "two", "three"]


def test_llm_query_is_one_plain_completion(rlm, models):
    models.script = root(repl("r = llm_query('What is 2 + 2?')\nprint('got', r)"), repl(answer("r")), sub="It is four.")
    outcome = rlm.run()
    assert outcome.answer == "It is four." and "got It is four." in models.requests[2].output
    (asked,) = models.of("sub")
    assert [message for message in asked.messages if message[0] != "system"] == [("user", "What is 2 + 2?")]
    assert not asked.is_loop


def test_llm_query_of_a_named_model(rlm, models):
    """One that the run has; any other name means the usual one, so that code cannot choose what the caller's key pays for."""
    code = "r = [llm_query('x', model=name) for name in ('special', 'root', 'not-one-of-them', None)]"
    models.script = root(repl(code), repl(answer("'|'.join(r)")), special="by the special one", sub="by the usual one")
    models.script = rules((lambda request: not request.is_loop and request.model == "root", "by the root's"), (lambda request: True, models.script))
    outcome = rlm.run(recursive_models=["sub", "special"])
    assert outcome.answer == "by the special one|by the root's|by the usual one|by the usual one"


def test_a_batch_keeps_its_order_whatever_comes_first(rlm, models):
    def late(request):
        number = int(request.last.split()[-1])
        return Reply(f"reply {number}", delay=0.3 - 0.05 * number)

    models.script = root(repl("rs = llm_query_batched([f'question {i}' for i in range(6)])\nprint(rs)"), repl(answer("'|'.join(rs)")), sub=late)
    assert rlm.run().answer == "|".join(f"reply {number}" for number in range(6))


def test_sixteen_of_a_batch_are_asked_at_once(rlm, models):
    models.script = root(repl("rs = llm_query_batched(['q'] * 40)"), repl(answer("str(len(rs))")), sub=Reply("r", gate="all"))
    run = rlm.start()
    models.wait(lambda m: m.in_flight == 16, "sixteen are asked at once")
    models.open("all")
    assert run.result().answer == "40"
    assert models.most_in_flight == 16 and len(models.of("sub")) == 40


def test_one_failure_does_not_fail_a_batch(rlm, models):
    def reply(request):
        return fail(400, "this one is not liked") if request.last == "q3" else f"r{request.last[1:]}"

    models.script = root(repl("rs = llm_query_batched([f'q{i}' for i in range(5)])"), repl(answer("'|'.join(rs)")), sub=reply)
    replies = rlm.run().answer.split("|")
    assert [text for index, text in enumerate(replies) if index != 3] == ["r0", "r1", "r2", "r4"]
    assert replies[3].startswith("Error: ")


@pytest.mark.parametrize("call", ["llm_query('q')", "rlm_query('q')", "llm_query_batched(['q'])[0]", "rlm_query_batched(['q'])[0]"])
def test_a_failure_is_a_text(rlm, models, call):
    models.script = root(repl(f"r = {call}\nprint('got', r)"), repl(answer("r")), sub=fail(401, "no such key"))
    assert rlm.run(max_depth=2).answer.startswith("Error: ")
    assert "got Error: " in models.requests[-1].output


def test_empty_batches(rlm, models):
    models.script = root(repl("rs = llm_query_batched([]) + rlm_query_batched([])"), repl(answer("str(rs)")))
    assert rlm.run().answer == "[]"


def test_a_hundred_questions_side_by_side(rlm, models):
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(100) as pool:\n"
        "    rs = list(pool.map(llm_query, [f'number {i}' for i in range(100)]))\n"
    )
    models.script = root(repl(code), repl(answer("str(sum(map(int, rs)))")), sub=lambda request: Reply(request.last.split()[-1], delay=0.05))
    assert rlm.run().answer == str(sum(range(100)))
    assert len(models.of("sub")) == 100 and models.most_in_flight > 1


def test_long_questions_and_replies(rlm, models):
    """Three megabytes out, 300,000 characters back."""
    models.script = root(
        repl("q = 'größe ' * 500_000\nr = llm_query(q)\nprint(len(q), len(r), r[-5:])"),
        repl(answer("r[:7]")),
        sub=lambda request: "reply " * 50_000 + str(len(request.last)),
    )
    assert rlm.run().answer == "reply r"
    assert "3000000 300007 00000" in models.requests[2].output
    assert models.of("sub")[0].last == "größe " * 500_000


def test_rlm_query_without_depth_is_a_plain_completion(rlm, models):
    models.script = root(repl("r = rlm_query('deep?') + '/' + rlm_query_batched(['deep?'])[0]"), repl(answer("r")), sub="plain")
    assert rlm.run(max_depth=1).answer == "plain/plain"
    assert [request.is_loop for request in models.of("sub")] == [False, False]


def test_depth_three(rlm, models):
    """Each level has a model, a session and a context of its own: what it was given and nothing else."""
    root_code = "secret = 'of the root'\npart = context[1000:2000]\nr = rlm_query(part)\nprint('back', r)"
    one_code = "print(len(context), context[:6], 'secret' in globals(), 'own' in globals())\nown = 1\nr = rlm_query(context[100:300])"
    two_code = "print(len(context), context[:6], 'secret' in globals(), 'own' in globals())\nr = rlm_query('leaf: ' + context[:10])"
    models.script = by_model(
        {
            "root": lambda request: [repl(root_code), repl(answer("r"))][request.turn - 1],
            "one": lambda request: [repl(one_code), repl(answer("'one(' + r + ')'"))][request.turn - 1],
            "two": lambda request: [repl(two_code), repl(answer("'two(' + r + ')'"))][request.turn - 1],
            "three": Reply("leaf", gate="leaf"),
        }
    )
    context = "".join(f"{number:05d}|" for number in range(500))
    run = rlm.start("q", context, max_depth=3, recursive_models=LEVELS)
    models.wait(lambda m: len(m.of("three")) == 1, "the leaf is asked")
    assert len(rlm.sidecar.sessions()) == 3
    models.open("leaf")
    outcome = run.result()
    assert outcome.answer == "two(leaf)".join(["one(", ")"])
    one, two, three = models.of("one"), models.of("two"), models.of("three")
    assert (len(one), len(two), len(three)) == (2, 2, 1)
    assert f"1000 {context[1000:1006]} False False" in one[1].output and f"200 {context[1100:1106]} False False" in two[1].output
    assert three[0].last == "leaf: " + context[1100:1110] and not three[0].is_loop
    for request in one + two:
        assert request.is_loop and "of the root" not in request.text
    assert "back one(two(leaf))" in models.of("root")[1].output


def test_a_child_gets_its_part_alone(rlm, models):
    """Ten megabytes above; the child's session takes what its slice needs, and no more."""
    models.script = root(
        repl("r = rlm_query(context[:5_000_000])"),
        repl(answer("r")),
        sub=lambda request: [repl("print(len(context))"), repl(answer("str(len(context))"))][request.turn - 1],
    )
    assert rlm.run("q", "y" * 10_000_000, max_depth=2).answer == "5000000"
    assert all(len(request.raw) < 30_000 for request in models.requests)


def test_children_of_a_batch_run_side_by_side_within_their_bound(rlm, models):
    models.script = root(
        repl("rs = rlm_query_batched([f'task {i}' for i in range(7)])"),
        repl(answer("'|'.join(rs)")),
        sub=lambda request: [repl("n = context.split()[1]\nprint(n)"), repl(answer("'did ' + n"), gate="second")][request.turn - 1],
    )
    run = rlm.start(max_depth=2, max_concurrent_subcalls=3)
    models.wait(lambda m: m.in_flight == 3, "three children wait")
    assert len(rlm.sidecar.sessions()) == 4
    models.open("second")
    assert run.result().answer == "|".join(f"did {number}" for number in range(7))
    assert models.most_in_flight <= 3


def test_children_of_many_threads_have_the_same_bound(rlm, models):
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(9) as pool:\n"
        "    rs = list(pool.map(rlm_query, [f'task {i}' for i in range(7)]))\n"
    )
    models.script = root(
        repl(code),
        repl(answer("'|'.join(rs)")),
        sub=lambda request: [repl("n = context.split()[1]\nprint(n)"), repl(answer("'did ' + n"), gate="second")][request.turn - 1],
    )
    run = rlm.start(max_depth=2, max_concurrent_subcalls=3)
    models.wait(lambda m: m.in_flight == 3, "three children wait")
    assert len(rlm.sidecar.sessions()) == 4
    models.open("second")
    assert run.result().answer == "|".join(f"did {number}" for number in range(7))
    assert models.most_in_flight <= 3


def test_a_child_that_fails_is_a_text_for_its_parent(rlm, models):
    children = rules((lambda request: request.is_loop and request.turn == 1, repl("1/0")), (lambda request: True, fail(400, "broken")))
    models.script = root(repl("r = rlm_query('task')\nprint('got', r)"), repl(answer("r")), sub=children)
    assert rlm.run(max_depth=2).answer.startswith("Error: ")


def test_children_may_have_other_tools(rlm, models):
    models.script = root(
        repl("r = rlm_query('task')"),
        repl(answer("r")),
        sub=repl("found = [name for name in ('above', 'below') if name in globals()]\n" + answer("str(found)")),
    )
    assert rlm.run(max_depth=2, custom_tools={"above": 1}, custom_sub_tools={"below": 2}).answer == "['below']"
    assert rlm.run(max_depth=2, custom_tools={"above": 1}).answer == "['above']"


def test_sub_queries_are_told(rlm, models):
    models.script = root(repl("r = llm_query('p' * 200)\ns = llm_query('bad')"), repl(answer("r")), sub=rules(("bad", fail(400)), ("p", "reply")))
    told = rlm.subcalls(rlm.run())
    assert [(call["depth"], call["model"]) for call in told] == [(1, "sub"), (1, "sub")]
    assert told[0]["preview"] == "p" * 80 and told[0]["error"] is None and told[0]["duration"] >= 0
    assert told[1]["error"]


def test_calls_of_sub_queries_stand_in_the_trajectory(rlm, models):
    models.script = root(
        repl("r = rlm_query('task')\ns = llm_query('plain')"), repl(answer("r")), sub=lambda r: repl(answer("'child'")) if r.is_loop else "plain reply"
    )
    outcome = rlm.run(max_depth=2)
    child, plain = outcome.turns[0]["code_blocks"][0]["result"]["rlm_calls"]
    assert child["response"] == "child" and child["metadata"]["run_metadata"]["root_model"] == "sub"
    assert child["metadata"]["iterations"][0]["final_answer"] == "child"
    assert plain["response"] == "plain reply" and plain["metadata"] is None
    assert json.dumps(plain["prompt"]).find("plain") >= 0


def test_the_limit_of_sub_queries(rlm, models):
    """A model that starts 100,000 questions is told that it may not, and the run goes on."""
    models.script = root(repl("rs = llm_query_batched(['q'] * 100_000)\nprint(len(rs), rs[-1][:6])"), repl(answer("'alive'")), sub="r")
    assert rlm.run(deadline=120).answer == "alive"
    assert len(models.of("sub")) <= 10_000
    assert "Error:" in models.of("root")[1].output
    eventually(lambda: models.in_flight == 0, "nothing is asked any more")
