# SPDX-License-Identifier: Apache-2.0
"""What a run leaves: figures, trajectories without keys; conversations; compaction."""

import json
import re

import pytest

from model_server import KEY, Reply, answer, blocks, repl, rules
from rlm_support import check_trajectory, root


def test_usage(rlm, models):
    models.script = root(
        repl("r = llm_query_batched(['a', 'b', 'c'])", usage=(100, 10), cost=0.001), repl(answer("r[0]"), usage=(200, 20), cost=0.002),
        sub=Reply("r", usage=(7, 3)),
    )  # fmt: skip
    usage = rlm.run().usage
    assert set(usage) == {"model_usage_summaries", "total_cost"}
    summaries = usage["model_usage_summaries"]
    assert set(summaries) == {"root", "sub"}
    assert summaries["root"] == {"total_calls": 2, "total_input_tokens": 300, "total_output_tokens": 30, "total_cost": pytest.approx(0.003)}
    assert summaries["sub"] == {"total_calls": 3, "total_input_tokens": 21, "total_output_tokens": 9}
    assert usage["total_cost"] == pytest.approx(0.003)


def test_usage_of_children_is_in_their_parents(rlm, models):
    models.script = root(
        repl("r = rlm_query('task')", usage=(10, 1)), repl(answer("r"), usage=(10, 1)),
        sub=lambda request: [repl("print(1)", usage=(5, 1)), repl(answer("'x'"), usage=(5, 1))][request.turn - 1],
    )  # fmt: skip
    summaries = rlm.run(max_depth=2).usage["model_usage_summaries"]
    assert summaries["sub"]["total_input_tokens"] == 10 and summaries["root"]["total_input_tokens"] == 20


def test_usage_that_cannot_be(rlm, models):
    """Less than nothing is nothing, and more than anybody could mean is the most that is counted."""
    models.script = root(repl("print(1)", usage=(-5, 1e300), cost=-1), repl(answer("'x'"), usage=(1e308, 2.0), cost=1e308))
    summary = rlm.run().usage["model_usage_summaries"]["root"]
    assert (summary["total_input_tokens"], summary["total_output_tokens"]) == (1 << 50, (1 << 50) + 2)
    assert summary.get("total_cost") is None or 0 <= summary["total_cost"] < 1e12


def test_missing_usage_is_estimated(rlm, models):
    models.script = root(repl("print(1)", usage=None), repl(answer("'x'"), usage=None))
    summary = rlm.run().usage["model_usage_summaries"]["root"]
    assert summary["total_calls"] == 2 and summary["total_output_tokens"] >= 10 and summary["total_input_tokens"] >= 200


def test_the_trajectory_is_what_a_visualizer_reads(rlm, models):
    models.script = root(
        blocks("x = 1\nprint('out')", "import sys\nprint('err', file=sys.stderr)\nllm_query('p')"), repl(answer("'the end'")), sub="reply"
    )
    outcome = rlm.run("the query", "the context", max_iterations=7)
    check_trajectory(outcome.trajectory)
    first, one, two = outcome.trajectory
    assert (first["root_model"], first["max_iterations"], first["max_depth"], first["backend"]) == ("root", 7, 1, "openai")
    assert [block["code"] for block in one["code_blocks"]] == re.findall("```repl\n(.*?)\n```", models.requests[0].reply.text, re.DOTALL)
    results = [block["result"] for block in one["code_blocks"]]
    assert results[0]["stdout"] == "out\n" and results[1]["stderr"] == "err\n" and results[0]["rlm_calls"] == []
    assert results[1]["rlm_calls"][0]["response"] == "reply"
    assert one["response"] == models.requests[0].reply.text and one["final_answer"] is None
    assert two["final_answer"] == "the end"
    assert [(m["role"], m["content"]) for m in two["prompt"]] == models.of("root")[1].messages


def test_the_file_says_the_same_and_holds_no_key(rlm, models):
    models.script = root(repl("r = rlm_query('t')\nprint('shown')"), repl(answer("r")), sub=repl(answer("'child'")))
    outcome = rlm.run(max_depth=2)
    (path,) = rlm.folder.glob("*.jsonl")
    assert re.fullmatch(r"rlm_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{8}\.jsonl", path.name) and path.stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    check_trajectory(lines)
    assert [line["type"] for line in lines] == ["metadata", "iteration", "iteration"]
    assert lines[1]["code_blocks"] == outcome.turns[0]["code_blocks"]
    assert KEY not in path.read_text(encoding="utf-8")
    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in models.requests)


def test_the_key_is_in_no_session(rlm, models):
    """Code looks for it wherever it can."""
    code = (
        "import gc, glob, os, re, sys\n"
        "texts = [str(dict(os.environ)), repr(globals()), repr(list(sys.modules.values()))]\n"
        "texts += [o if isinstance(o, str) else repr(o)[:100_000] for o in gc.get_objects() if isinstance(o, (str, dict, list, tuple))]\n"
        "for path in ['/proc/self/environ', '/proc/1/environ'] + glob.glob('/*') + glob.glob('/tmp/*'):\n"
        "    try:\n"
        "        texts.append(open(path, errors='replace').read())\n"
        "    except OSError:\n"
        "        pass\n"
        "print('looked at', len(texts) > 3, 'hits', [t[:200] for t in texts if re.search('sk-scripted' + '-[0-9a-f]{8}', t)])"
    )
    models.script = root(repl(code), repl(answer("'1'")))
    rlm.run()
    assert "looked at True hits []" in models.requests[1].output


def test_a_failed_run_has_its_trajectory_too(rlm, models):
    models.script = root(repl("print(1)", usage=(10, 1)), repl("print('sec' + 'ond')", usage=(10, 1)), repl("print(3)", usage=(1000, 1)))
    outcome = rlm.run(max_tokens=500)
    assert outcome.code == "token_limit_exceeded"
    check_trajectory(outcome.trajectory)
    assert outcome.turns[1]["code_blocks"][0]["result"]["stdout"] == "second\n"


def test_a_conversation(rlm, models):
    look = "print(sorted(n for n in globals() if n.startswith(('context', 'history'))), context[:5], context == context_0)"
    with rlm.conversation() as complete:
        models.script = root(repl("mine = [1]"), repl(answer("'first answer'")))
        assert complete("first?", "alpha text").answer == "first answer"
        models.script = root(repl(look + "\nprint(context_1, mine, answer)"), repl("mine.append(2)\n" + answer("'second answer'")))
        assert complete("second?", "beta text").answer == "second answer"
        models.script = root(repl(look + "\nprint(context_2, mine)\nprint([m['role'] for m in history_1], history == history_0)"), repl(answer("'3'")))
        outcome = complete("third?", "gamma text")
    assert outcome.answer == "3"
    second, third = models.requests[3].output, models.requests[5].output
    assert "['context', 'context_0', 'context_1', 'history', 'history_0'] alpha True" in second
    assert "beta text [1] {'content': '', 'ready': False}" in second
    assert "'context_2', 'history', 'history_0', 'history_1'] alpha True" in third and "gamma text [1, 2]" in third
    assert "'assistant'" in third and third.rstrip().count("True") >= 2
    opening = models.requests[4].text
    assert "context_2" in opening and "history_1" in opening and "third?" in opening
    assert "first?" not in opening and "second?" not in opening


def test_a_conversation_survives_a_run_that_fails(rlm, models):
    with rlm.conversation(max_tokens=1000) as complete:
        models.script = root(repl("mine = 5", usage=(10, 1)), repl("print(2)", usage=(2000, 0)))
        assert complete("first?", "alpha").code == "token_limit_exceeded"
        models.script = root(repl(answer("str(mine)")))
        assert complete("second?", "beta").answer == "5"


def test_compaction(rlm, models):
    """At a tenth of the window of 128,000 tokens; every turn prints some five thousand."""
    summary = "So far: the first parts hold nothing."

    def script(request):
        if "Turn" not in request.messages[-1][1]:
            return summary
        made = len(models.requests)
        if made < 6:
            return repl(f"mine = {made}\nprint('{chr(96 + made)}' * 19_000)")
        return repl(answer("f'{mine} ' + str(len([m for m in history if m[\"role\"] == \"assistant\"]) >= 3)"))

    models.script = rules((lambda request: True, script))
    outcome = rlm.run("What is in it?", "text", compaction=True, compaction_threshold=0.1, max_iterations=20)
    assert outcome.answer is not None and outcome.answer.endswith(" True"), outcome
    asked = [request for request in models.requests if "Turn" not in request.messages[-1][1]]
    assert asked, "nobody was asked for a summary"
    after = models.requests[asked[0].number]
    assert summary in after.text and "What is in it?" in after.text and after.messages[0] == asked[0].messages[0]
    assert "aaaaaaaa" in asked[0].text and "aaaaaaaa" not in after.text and len(after.raw) < len(asked[0].raw) / 2


def test_without_compaction_the_history_stays(rlm, models):
    models.script = lambda request: repl("print('a' * 19_000)") if request.turn < 5 else repl(answer("'x'"))
    assert rlm.run(max_iterations=9, compaction_threshold=0.1).answer == "x"
    assert len(models.requests) == 5 and models.requests[4].text.count("a" * 15_000) == 4
