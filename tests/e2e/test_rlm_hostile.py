# SPDX-License-Identifier: Apache-2.0
"""Models that mean harm: replies that break parsers, code that breaks what it finds in its session, floods."""

import pytest

from model_server import Reply, answer, repl
from rlm_support import root
from support import eventually, resident_bytes

MB = 1 << 20

REPLIES = {
    "fences without end": "```repl\n" * 50_000,
    "fences in fences": "".join("`" * n + "repl\n" for n in range(3, 600)),
    "a fence of a million": "`" * 1_000_000 + "repl\nprint(1)\n",
    "parentheses": "FINAL(" + "(" * 1_000_000,
    "closing parentheses": "FINAL(" + ")" * 1_000_000 + "x",
    "FINAL lines": "FINAL(x\n" * 100_000,
    "FINAL_VAR lines": "FINAL_VAR(\n" * 100_000,
    "FINAL_VAR of code": "FINAL_VAR(__import__('os').system('true'))",
    "FINAL_VAR of a private name": "FINAL_VAR(__builtins__)",
    "thoughts without end": "<think>" * 100_000,
    "lines without end": "\n" * 3_000_000,
    "carriage returns": "```repl\r\r\r\n\rprint(1)\r```\r",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x85\u2028\ufeff```repl\nprint(1)\n```",
    "NUL in code": "```repl\nprint('a\x00b')\n```",
    "code that is no Python": "```repl\n)]}'\n\n\t  if:\n```",
    "code that nests too deeply": "```repl\n" + "(" * 100_000 + "\n```",
    "a thousand blocks": "```repl\nx = 1\n```\n" * 1000,
    "a variable for an escape": "{context} {0} {{}} %s %n FINAL_VAR({x})",
}

HARM = {
    "answer is odd": "class A(dict):\n    def get(self, *a): raise SystemExit\nanswer = A(ready=True, content='x')",
    "answer has odd content": "class C:\n    def __str__(self): raise KeyboardInterrupt\n    __repr__ = __str__\nanswer = {'content': C(), 'ready': 5}",
    "answer is in itself": "answer['content'] = answer",
    "ready that cannot be told": "class R:\n    def __bool__(self): raise ValueError\nanswer['ready'] = R()",
    "content of half a surrogate pair": "answer['content'] = '\\ud800'",
    "all names gone": "for name in list(globals()): del globals()[name]",
    "all names something else": "for name in list(globals()): globals()[name] = 0",
    "builtins gone": "import builtins\nfor name in dir(builtins):\n    if name not in ('__import__', '__build_class__'): delattr(builtins, name)",
    "the module gone": "import sys\nfor name in list(sys.modules):\n    if 'rlm' in name: del sys.modules[name]",
    "the module ruined": "import sys\nm = sys.modules.get('rlm_session')\nif m:\n    for name in list(vars(m)): vars(m)[name] = None",
    "an endless report": "import sys\nm = sys.modules.get('rlm_session')\nif m:\n    def report():\n        while True: pass\n    m.report = report",
    "an endless property": "class V(int):\n    @property\n    def __class__(self):\n        while True: pass\nvariable = V()",
    "exit": "raise SystemExit(3)",
    "the process ends": "import os\nos._exit(1)",
    "recursion": "def f(): return f()\nf()",
    "forged reports": "for value in ({'final': 5, 'variables': 5}, {'final': {'key': 'x'}, 'variables': []}, {'final': None, 'variables': {'a': {}}}, {}):\n    try: tools['rlm.report'].run(**value)\n    except Exception as error: print(error)",
    "calls of the wrong shape": "for name in ('llm_query', 'rlm_query', 'llm_query_batched', 'rlm_query_batched', 'part', 'tool', 'report', 'nothing'):\n    for value in ({}, {'prompt': 5, 'model': 6}, {'prompt': {'key': 'none'}}, {'prompts': 'x'}, {'prompts': [{'key': []}]}, {'key': 'k'}, {'name': 5}, {'name': 'nothing', 'args': 1, 'kwargs': 2}):\n        try: print(name, tools['rlm.' + name].run(**value))\n        except Exception as error: print(name, error)",
    "a model with an odd name": "for name in ('', '\\x00', 'x' * 100_000, '../..', 5, [], {}):\n    print(str(llm_query('q', model=name))[:50])",
    "prompts that are none": "print(llm_query(None), llm_query(b'x'), llm_query(object()), llm_query(''), llm_query_batched('abc'), rlm_query({'a': set()}))",
    "threads that stay": "import threading, time\ndef ask():\n    while True:\n        llm_query('again')\n        time.sleep(0.05)\nfor _ in range(5): threading.Thread(target=ask, daemon=True).start()",
    "a tracer": "import sys\nsys.settrace(lambda *a: None)\nsys.setrecursionlimit(50)",
}


@pytest.mark.parametrize("reply", REPLIES)
def test_replies(rlm, models, reply):
    models.script = lambda request: REPLIES[reply] if request.number == 1 else repl(answer("'alive'"))
    outcome = rlm.run(execution_timeout=5)
    assert outcome.answer == "alive" or len(models.requests) == 1 and outcome.answer is not None, outcome


@pytest.mark.parametrize("harm", HARM)
def test_harm_hurts_its_own_run_only(rlm, models, harm):
    """It ends with an answer or an error of its own, in time; the next run is as if nothing had been."""

    def rest(request):
        return repl(answer("'alive'")) if request.turn == 2 else "FINAL(given up)"

    models.script = root(repl(HARM[harm]), *(rest,) * 8, sub="r")
    outcome = rlm.run(execution_timeout=2, max_iterations=4, max_depth=2, max_timeout=30)
    assert outcome.code in (None, "sidecar_unavailable", "session_lost"), outcome
    models.script = root(repl("print(context, answer)"), repl(answer("context")))
    assert rlm.run("q", "fresh").answer == "fresh"
    assert "fresh {'content': '', 'ready': False}" in models.requests[-1].output


def test_a_hundred_megabytes_of_output(rlm, models):
    models.script = root(repl("for _ in range(100): print('x' * 1_048_575)\nprint('the ' + 'end')"), repl(answer("'alive'")))
    rlm.warm()
    before = rlm.rss()
    assert rlm.run(execution_timeout=60, deadline=120).answer == "alive"
    assert len(models.requests[1].raw) < 40_000
    eventually(lambda: rlm.rss() <= before + 64 * MB and resident_bytes(rlm.sidecar.process.pid) < 128 * MB, "memory is back")


def test_pieces_that_nobody_uses(rlm, models):
    code = "for i in range(400):\n    try: tools['rlm.part'].run(key=f'k{i}', text='x' * 1_048_576)\n    except Exception as error: print(error); break"
    models.script = root(repl(code), repl(answer("'alive'")))
    rlm.warm()
    before = rlm.rss()
    run = rlm.start(execution_timeout=60)
    most = before
    while not models.of("root")[1:] and not run.done():
        most = max(most, rlm.rss())
    assert run.result(120).answer == "alive"
    assert most <= before + 200 * MB, f"{(most - before) / MB:.0f} MB"


def test_an_answer_beyond_all_bounds(rlm, models):
    models.script = root(repl(answer("'x' * 300_000_000")), repl(answer("'smaller'")))
    rlm.warm()
    before = rlm.rss()
    outcome = rlm.run(execution_timeout=60, deadline=120)
    assert outcome.answer is None or len(outcome.answer) <= 300_000_000
    del outcome
    eventually(lambda: rlm.rss() <= before + 400 * MB, "the service has given back what the answer took")


def test_questions_from_two_thousand_threads(rlm, models):
    code = (
        "import threading\n"
        "def ask():\n"
        "    for _ in range(50): llm_query('q')\n"
        "threads = [threading.Thread(target=ask) for _ in range(2000)]\n"
        "try:\n"
        "    for thread in threads: thread.start()\n"
        "    for thread in threads: thread.join()\n"
        "except RuntimeError as error: print(error)"
    )
    models.script = root(repl(code), repl(answer("'alive'")), sub=Reply("r", delay=0.01))
    outcome = rlm.run(execution_timeout=3, max_timeout=20, deadline=120)
    assert outcome.answer == "alive" or outcome.code == "timeout_exceeded"
    eventually(lambda: models.in_flight == 0, "nothing is asked any more")
    models.script = root(repl(answer("'alive'")))
    assert rlm.run().answer == "alive"


def test_runs_in_runs_without_end(rlm, models):
    """Each child starts ten more; depth and the number of runs are bounded."""
    code = "rs = rlm_query_batched(['again'] * 10)\n" + answer("str(len(rs))")
    models.script = lambda request: repl(code) if request.is_loop else Reply("leaf")
    outcome = rlm.run(max_depth=3, max_concurrent_subcalls=2, max_timeout=20)
    assert outcome.answer == "10" or outcome.code == "timeout_exceeded"
    models.wait(lambda m: m.in_flight == 0, "nothing is asked any more")
