# SPDX-License-Identifier: Apache-2.0
"""The loop: blocks run, their output comes back, turns are counted, and the prompts say what there is."""

import re

import pytest

from model_server import answer, blocks, repl
from rlm_support import Function, root


def test_blocks_run_in_order_and_all_output_comes_in_one_message(rlm, models):
    first = blocks("x = 21\nprint('first', x)", "print('second', x * 2)")
    models.script = root(first, repl(answer("str(x)")))
    assert rlm.run().answer == "21"
    one, two = models.requests
    assert re.search("first 21.*second 42", two.output, re.DOTALL)
    said = [index for index, message in enumerate(two.messages) if message[0] == "assistant"]
    assert len(said) == 1 and two.messages[said[0]] == ("assistant", first.text)
    assert sum("first 21" in text or "second 42" in text for role, text in two.messages if role == "user") == 1
    assert two.messages[0] == one.messages[0] and one.messages[0][0] == "system"


def test_history_grows_and_keeps_what_was_said(rlm, models):
    models.script = root(repl("print('o' + 'ne')"), repl("print('t' + 'wo')"), repl("print('th' + 'ree')"), repl(answer("1")))
    rlm.run(max_iterations=9)
    last = models.requests[-1]
    assert [text for role, text in last.messages if role == "assistant"] == [
        repl("print('o' + 'ne')").text, repl("print('t' + 'wo')").text, repl("print('th' + 'ree')").text,
    ]  # fmt: skip
    for word in ("one", "two", "three"):
        assert word in last.text
    for number, request in enumerate(models.requests, 1):
        assert f"Turn {number}/9" in request.messages[-1][1]


def test_the_query_is_told_and_the_context_described(rlm, models):
    models.script = root(repl(answer("1")))
    rlm.run("Which colour has the fox?", "x" * 12345)
    text = models.requests[0].text
    assert "Which colour has the fox?" in text and "12345" in text.replace(",", "") and "str" in text
    assert "xxxxx" not in text


@pytest.mark.parametrize(
    ("context", "expression", "seen"),
    [
        (["ä", "b", "c"], "type(context).__name__, len(context), context[0]", "('list', 3, 'ä')"),
        ({"k": [1, 2]}, "type(context).__name__, context['k']", "('dict', [1, 2])"),
        ("half 😀\r\n\x00 end", "type(context).__name__, len(context), ascii(context)", r"'half \\U0001f600\\r\\n\\x00 end'"),
        ("", "type(context).__name__, len(context)", "('str', 0)"),
    ],
    ids=["list", "dict", "odd text", "empty"],
)
def test_kinds_of_context(rlm, models, context, expression, seen):
    models.script = root(repl(f"print(({expression}))"), repl(answer("1")))
    rlm.run("q", context)
    assert seen in models.requests[1].output
    if isinstance(context, (list, dict)):
        assert type(context).__name__ in models.requests[0].text


def test_other_fences_are_no_code(rlm, models):
    text = "```python\nprint('wro' + 'ng')\n```\nthen\n```repl\nprint('ri' + 'ght')\n```\n```\nprint('wro' + 'ng')\n```"
    models.script = root(text, repl(answer("1")))
    rlm.run()
    assert "right" in models.requests[1].output and "wrong" not in models.requests[1].output


def test_a_reply_without_code_goes_on(rlm, models):
    models.script = root("I think about it.", repl(answer("'done'")))
    assert rlm.run().answer == "done"
    assert len(models.requests) == 2 and "Turn 2/" in models.requests[1].text


def test_an_error_ends_its_block_only_and_names_are_kept(rlm, models):
    models.script = root(blocks("kept = 7\n1/0\nlost = 1", "print('next', kept)"), repl(answer("str(kept)")))
    assert rlm.run().answer == "7"
    assert "ZeroDivisionError" in models.requests[1].output and "next 7" in models.requests[1].output


def test_no_output_is_said(rlm, models):
    models.script = root(repl("pass"), repl(answer("1")))
    rlm.run()
    assert "No output" in models.requests[1].output


def test_names_of_simple_variables_are_told(rlm, models):
    models.script = root(repl("alpha_count = 3\nimport math\ndef beta_function(): pass\n_hidden = 1"), repl(answer("1")))
    rlm.run()
    output = models.requests[1].output
    assert "alpha_count" in output and "beta_function" not in output and "_hidden" not in output


def test_the_value_of_a_last_expression_is_shown(rlm, models):
    models.script = root(repl("6 * 7"), repl(answer("1")))
    rlm.run()
    assert re.search(r"\b42\b", models.requests[1].output)


def test_output_is_cut_at_twenty_thousand_characters(rlm, models):
    models.script = root(repl("print('A' * 25_000)\nprint('B' * 25_000)"), repl(answer("1")))
    rlm.run()
    output = models.requests[1].output
    shown = sum(map(len, re.findall("A{10,}|B{10,}", output)))
    assert 19_000 < shown <= 20_000 and len(output) < 21_000
    dropped = [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]{3,}", output)]
    assert any(abs(shown + number - 50_000) < 300 for number in dropped), (shown, dropped)


def test_the_cut_holds_for_each_block(rlm, models):
    models.script = root(blocks("print('A' * 30_000)", "print('B' * 10_000)"), repl(answer("1")))
    rlm.run()
    output = models.requests[1].output
    assert output.count("A" * 1000) <= 20 and "B" * 10_000 in output


def test_out_of_turns_the_model_is_asked_once_more_for_words(rlm, models):
    models.script = root(repl("print(1)"), repl("print('last ' + 'words')"), "The answer is twelve.")
    outcome = rlm.run(max_iterations=2)
    assert outcome.answer == "The answer is twelve." and outcome.code is None
    assert len(models.requests) == 3 and "last words" in models.requests[2].text
    assert models.requests[2].messages[-1][1] != models.requests[1].messages[-1][1]


def test_the_first_turn_is_told_to_look_first(rlm, models):
    models.script = root(repl("1"), repl(answer("1")))
    rlm.run()
    assert "look" in models.requests[0].messages[-1][1].lower() and "Turn 1/" in models.requests[0].messages[-1][1]


def test_another_system_prompt_and_a_prologue(rlm, models):
    models.script = root(repl(answer("1")))
    rlm.run(system_prompt="Only this, {{in braces}}.", user_prologue="Before anything else: hello.")
    assert models.requests[0].system == "Only this, {in braces}."
    assert any("Before anything else: hello." in text for role, text in models.requests[0].messages if role == "user")


def test_an_empty_system_prompt_is_none(rlm, models):
    """Model services refuse a message without text."""
    models.script = root(repl(answer("1")))
    assert rlm.run(system_prompt="").answer == "1"
    assert "`repl`" in models.requests[0].system or "```repl" in models.requests[0].system


def test_the_orchestrators_words_can_be_left_out(rlm, models):
    models.script = root(repl(answer("1")))
    rlm.run()
    rlm.run(orchestrator=False)
    long, short = (request.system for request in models.requests)
    assert len(short) < len(long) and long.startswith(short[:200])


def test_sampling_joins_the_request(rlm, models):
    models.script = root(repl(answer("1")))
    rlm.run(sampling={"temperature": 0.25, "top_p": 0.5})
    assert (models.requests[0].body["temperature"], models.requests[0].body["top_p"]) == (0.25, 0.5)


def test_custom_tools(rlm, models):
    tools = {"rate": 7, "table": {"a": [1, 2]}, "twice": Function("twice", "def twice(x, times=2):\n    return x * times\n")}
    models.script = root(repl("print(twice(rate), twice(rate, times=3), table)"), repl(answer("str(twice(21))")))
    assert rlm.run(custom_tools=tools).answer == "42"
    assert "14 21 {'a': [1, 2]}" in models.requests[1].output
    for name in tools:
        assert name in models.requests[0].system


@pytest.mark.parametrize("name", ["llm_query", "rlm_query_batched", "SHOW_VARS", "answer", "context", "history", "context_0", "class"])
def test_reserved_names_cannot_be_tools(rlm, name):
    assert name in rlm.refuses(custom_tools={name: 1})


def test_show_vars(rlm, models):
    models.script = root(repl("count = 3\nprint(SHOW_VARS())"), repl(answer("1")))
    rlm.run()
    output = models.requests[1].output
    assert re.search(r"count\W+int", output) and re.search(r"context\w*\W+str", output)


def test_reserved_names_come_back_after_each_block(rlm, models):
    names = "llm_query, llm_query_batched, rlm_query, rlm_query_batched, SHOW_VARS, context, context_0"
    ruin = "\n".join(f"{name} = None" for name in names.split(", ")) + "\nanswer = 5"
    gone = f"del {names}, answer"
    look = f"print('here', all([callable(SHOW_VARS), llm_query('x') == 'reply', context == 'the text', answer == {{'content': '', 'ready': False}}]), {names.split(', ')[0]} is not None)"
    models.script = root(repl(ruin), repl(look), repl(gone), repl(look), repl(answer("context")), sub="reply")
    assert rlm.run("q", "the text").answer == "the text"
    turns = [request for request in models.requests if request.model == "root"]
    assert "here True True" in turns[2].output and "here True True" in turns[4].output
