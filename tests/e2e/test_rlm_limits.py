# SPDX-License-Identifier: Apache-2.0
"""Limits of a run: what they count, what they interrupt, and what is left when one is reached."""

import pytest

from model_server import Reply, always, answer, blocks, never, repl, rules
from rlm_support import root

WORDS = "What I know so far.\n"


def test_tokens(rlm, models):
    models.script = root(repl("print(1)", WORDS, usage=(600, 100)), repl("print(2)", "More.\n", usage=(250, 60)), repl("print(3)"))
    outcome = rlm.run(max_tokens=1000)
    assert (outcome.answer, outcome.code) == (None, "token_limit_exceeded")
    assert outcome.partial.startswith("More.") and len(models.requests) == 2
    assert "1010" in outcome.error and "1000" in outcome.error


def test_tokens_of_sub_queries_count(rlm, models):
    models.script = root(repl("llm_query('x')", usage=(10, 10)), repl("print(2)", usage=(10, 10)), sub=Reply("r", usage=(900, 100)))
    outcome = rlm.run(max_tokens=1000)
    assert outcome.code == "token_limit_exceeded" and len(models.of("root")) == 1


def test_budget_by_the_services_own_figures(rlm, models):
    models.script = root(*(repl("print(1)", WORDS, cost=0.02),) * 5)
    outcome = rlm.run(max_budget=0.03)
    assert (outcome.answer, outcome.code) == (None, "budget_exceeded")
    assert len(models.requests) == 2 and "0.04" in outcome.error


def test_budget_by_the_table_of_prices(rlm, models):
    """gpt-5-mini: $0.25 for a million tokens in, $2 for a million out."""
    from model_server import by_model

    models.script = by_model({"gpt-5-mini": always(repl("print(1)", WORDS, usage=(100_000, 10_000)))})
    outcome = rlm.run(model="gpt-5-mini", max_budget=0.10)
    assert outcome.code == "budget_exceeded" and len(models.requests) == 3
    assert outcome.usage["total_cost"] == pytest.approx(0.135)


def test_time_interrupts_a_running_block(rlm, models):
    models.script = root(repl("print(1)", WORDS), repl("while True: pass", "Now I compute.\n"))
    outcome = rlm.run(max_timeout=4, execution_timeout=300)
    assert (outcome.answer, outcome.code) == (None, "timeout_exceeded")
    assert outcome.partial.startswith("Now I compute.")


def test_time_interrupts_a_block_that_sleeps(rlm, models):
    models.script = root(repl("import time\ntime.sleep(3000)", WORDS))
    outcome = rlm.run(max_timeout=3, execution_timeout=3600)
    assert outcome.code == "timeout_exceeded" and outcome.partial.startswith(WORDS.strip())


def test_time_interrupts_a_model_that_does_not_answer(rlm, models):
    models.script = root(repl("print(1)", WORDS), never())
    outcome = rlm.run(max_timeout=4)
    assert outcome.code == "timeout_exceeded" and outcome.partial.startswith(WORDS.strip())
    models.wait(lambda m: m.requests[-1].gone, "the request was broken off")


def test_time_interrupts_sub_queries(rlm, models):
    models.script = root(repl("llm_query_batched(['q'] * 20)", WORDS), sub=never())
    outcome = rlm.run(max_timeout=4)
    assert outcome.code == "timeout_exceeded"
    models.wait(lambda m: m.in_flight == 0, "all requests were broken off")
    assert len(models.of("sub")) <= 16


def test_time_interrupts_children(rlm, models):
    models.script = root(repl("r = rlm_query('task')", WORDS), sub=rules((lambda r: r.turn == 1, repl("while True: pass"))))
    outcome = rlm.run(max_timeout=4, max_depth=2, execution_timeout=300)
    assert outcome.code == "timeout_exceeded" and outcome.partial.startswith(WORDS.strip())


def test_consecutive_errors(rlm, models):
    models.script = root(repl("1/0"), repl("print('fine')"), repl("{}['a']"), repl("nothing_there", "Last words.\n"), repl("print(1)"))
    outcome = rlm.run(max_errors=2)
    assert (outcome.answer, outcome.code) == (None, "error_threshold_exceeded")
    assert len(models.requests) == 4 and "NameError" in outcome.error and outcome.partial.startswith("Last words.")


def test_one_error_in_several_blocks_is_a_turn_with_an_error(rlm, models):
    models.script = root(blocks("print(1)", "1/0"), repl("print('fine')"), blocks("1/0", "print(2)"), repl(answer("'done'")))
    assert rlm.run(max_errors=2).answer == "done"


def test_a_block_that_runs_too_long_is_interrupted_and_the_run_goes_on(rlm, models):
    models.script = root(repl("kept = 5\nwhile True: pass"), repl(answer("str(kept)")))
    assert rlm.run(execution_timeout=1).answer == "5"
    assert "rror" in models.requests[1].output


def test_waiting_for_sub_queries_is_not_the_blocks_time(rlm, models):
    models.script = root(repl("r = llm_query('q')\ns = llm_query_batched(['a', 'b'])"), repl(answer("r + s[0] + s[1]")), sub=Reply("slow.", delay=1.2))
    assert rlm.run(execution_timeout=1).answer == "slow.slow.slow."


def test_waiting_for_children_is_not_the_blocks_time(rlm, models):
    models.script = root(repl("r = rlm_query('q')"), repl(answer("r")), sub=repl(answer("'child'"), delay=1.5))
    assert rlm.run(execution_timeout=1, max_depth=2).answer == "child"


def test_children_get_the_remaining_budget(rlm, models):
    """Six cents are spent above; a child with four left may ask once, at six cents, and is then out of money."""
    models.script = root(
        repl("r = rlm_query('task')\nprint('got', r)", WORDS, cost=0.06), repl(answer("'unreached'"), cost=0.06),
        sub=lambda request: repl(f"print({request.turn})", cost=0.06),
    )  # fmt: skip
    outcome = rlm.run(max_budget=0.10, max_depth=2)
    assert outcome.code == "budget_exceeded"
    assert (len(models.of("root")), len(models.of("sub"))) == (1, 1)


def test_a_child_that_reaches_its_own_limit_is_a_text(rlm, models):
    """Errors are counted by each run for itself: the child ends, its parent goes on."""
    models.script = root(repl("r = rlm_query('task')"), repl(answer("r")), sub=repl("1/0"))
    outcome = rlm.run(max_errors=2, max_depth=2)
    assert outcome.answer.startswith("Error: ") and len(models.of("sub")) == 2


def test_children_have_the_turns_of_their_parent(rlm, models):
    models.script = root(
        repl("r = rlm_query('task')"), repl(answer("r")), sub=lambda r: repl("print(1)") if "Turn" in r.messages[-1][1] else "out of turns"
    )
    assert rlm.run(max_iterations=3, max_depth=2).answer == "out of turns"
    assert len(models.of("sub")) == 4


def test_limits_that_cannot_be_are_refused(rlm):
    for members in ({"max_depth": -1}, {"max_iterations": 0}, {"max_budget": -1}, {"max_timeout": -1}, {"max_tokens": -5}):
        (name,) = members
        assert name in rlm.refuses(**members)
