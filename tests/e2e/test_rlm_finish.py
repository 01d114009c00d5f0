# SPDX-License-Identifier: Apache-2.0
"""How a run ends: `answer`, FINAL and FINAL_VAR in code and in words, with the traps."""

import pytest

from model_server import Reply, answer, final, final_var, repl
from rlm_support import root

BLOCK = "```repl\n{}\n```\n"

ENDS = {
    # in code
    "answer": (repl(answer("'forty-two'")), "forty-two"),
    "answer in one piece": (repl("answer = {'content': 'whole', 'ready': True}"), "whole"),
    "answer of a number": (repl(answer("42")), "42"),
    "answer that is empty": (repl(answer("''")), ""),
    "ready without content": (repl("answer['ready'] = True"), ""),
    "answer of a list": (repl(answer("[1, 2]")), "[1, 2]"),
    "answer with lines": (repl(answer("'a\\nb\\n'")), "a\nb\n"),
    "answer beyond ASCII": (repl(answer("'Zürich 😀'")), "Zürich 😀"),
    "FINAL called": (repl("FINAL('by call')"), "by call"),
    "FINAL_VAR called with a name": (repl("found = 'by name'\nFINAL_VAR('found')"), "by name"),
    "FINAL_VAR called with a value": (repl("found = ['by', 'value']\nFINAL_VAR(found)"), '["by", "value"]'),
    "answer before an error": (repl(answer("'kept'") + "\n1/0"), "kept"),
    # in words
    "FINAL": (final("42"), "42"),
    "FINAL behind words": (Reply("I know it now.\nFINAL(yes)"), "yes"),
    "FINAL with parentheses": (final("f(x) = g(h(1), (2)) holds"), "f(x) = g(h(1), (2)) holds"),
    "FINAL over lines": (final("first line\nsecond (line)\nthird"), "first line\nsecond (line)\nthird"),
    "FINAL with something behind": (Reply("FINAL(a (b) c)\nThat is all."), "a (b) c"),
    "FINAL with a tuple": (final("1, 2"), "1, 2"),
    "FINAL indented": (Reply("  FINAL(here)"), "here"),
    "FINAL_VAR of this reply's block": (Reply(BLOCK.format("total = 6 * 7") + "FINAL_VAR(total)"), "42"),
    "FINAL_VAR in double quotes": (Reply(BLOCK.format("total = 6 * 7") + 'FINAL_VAR("total")'), "42"),
    "FINAL_VAR in quotes": (Reply(BLOCK.format("total = 6 * 7") + "FINAL_VAR('total')"), "42"),
    "FINAL_VAR of another alphabet": (Reply(BLOCK.format("größe = 42") + "FINAL_VAR(größe)"), "42"),
    "FINAL_VAR of text": (Reply(BLOCK.format("text = 'a) b'") + "FINAL_VAR(text)"), "a) b"),
}

GOES_ON = {
    "FINAL in another fence": Reply("```python\nFINAL(wrong)\n```"),
    "FINAL in a fence of four": Reply("````\nFINAL(wrong)\n````"),
    "FINAL within a line": Reply("I will say FINAL(wrong) later."),
    "FINAL in a text of the code": repl("text = '''\nFINAL(wrong)\n'''"),
    "FINAL_VAR of nothing": final_var("never_bound"),
    "FINAL_VAR of a keyword": final_var("None"),
    "FINAL_VAR of no letter": final_var("\u2026"),
    "FINAL_VAR in quotes of print": final_var("\u201cnever_bound\u201d"),
    "FINAL_VAR called with no variable": repl("FINAL_VAR('never_bound')"),
    "answer not ready": repl("answer['content'] = 'wrong'"),
    "answer that is no dict": repl("answer = ('wrong', True)"),
    "ready that is not true": repl("answer['content'] = 'wrong'\nanswer['ready'] = 0"),
    "a block that never ends": Reply("```repl\nFINAL('wrong')\n"),
}


@pytest.mark.parametrize("case", ENDS)
def test_ends(rlm, models, case):
    reply, expected = ENDS[case]
    models.script = root(repl("print(1)"), reply)
    outcome = rlm.run()
    assert outcome.answer == expected and len(models.requests) == 2
    assert outcome.trajectory[-1]["final_answer"] == expected


@pytest.mark.parametrize("case", GOES_ON)
def test_goes_on(rlm, models, case):
    models.script = root(GOES_ON[case], repl(answer("'right'")))
    assert rlm.run().answer == "right"
    assert len(models.requests) == 2


def test_a_variable_that_is_missing_is_said(rlm, models):
    models.script = root(final_var("never_bound"), repl(answer("'right'")))
    rlm.run()
    assert "never_bound" in models.requests[1].output


def test_blocks_behind_the_answer_do_not_run(rlm, models):
    models.script = root(Reply(BLOCK.format(answer("'first'")) + BLOCK.format("print(llm_query('too late'))")), sub="x")
    assert rlm.run().answer == "first"
    assert [request.model for request in models.requests] == ["root"]


def test_the_answer_of_an_earlier_turn_is_not_kept_when_it_was_not_ready(rlm, models):
    models.script = root(repl("answer['content'] = 'draft'"), repl("answer['content'] += ' improved'\nanswer['ready'] = True"))
    assert rlm.run().answer == "draft improved"


def test_a_long_answer_comes_whole(rlm, models):
    models.script = root(repl(answer("'0123456789' * 400_000")))
    answered = rlm.run().answer
    assert len(answered) == 4_000_000 and answered[-10:] == "0123456789"
