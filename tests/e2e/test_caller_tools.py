# SPDX-License-Identifier: Apache-2.0
"""Tools that the client of a stream answers itself, as code sees them; and the names of an RLM run, which are made of them."""

import json
import os
import signal

import pytest

from streams import Stream
from support import ROOT, eventually, running_sidecar

SESSION_SOURCE = (ROOT / "rlm/session.py").read_text()
RLM_TOOLS = [f"rlm.{name}" for name in ("llm_query", "llm_query_batched", "rlm_query", "rlm_query_batched", "part", "tool")]
WIDE = {"tool_argument": 16 << 20, "tool_result": 16 << 20}


def run(session, code, names=None, limits=None, **tools):
    """The answer of a stream whose calls these functions answer."""
    with Stream(session, code, tools=names or list(tools), **({"limits": limits} if limits else {})) as stream:
        return stream.serve(**tools)


def value(session, code, names=None, limits=None, **tools):
    reply = run(session, code, names, limits, **tools)
    assert reply["success"] is True, reply
    return reply["result"]


def error(session, code, names=None, limits=None, **tools):
    reply = run(session, code, names, limits, **tools)
    assert reply["success"] is False, reply
    return reply["error"]


def hold(stream, count):
    """The first calls of a stream, by what they were called with, all of them waiting."""
    return {json.dumps(call["arguments"]): call["call"] for call in (stream.until("call") for _ in range(count))}


# --- as other tools


def test_arguments_and_results(session):
    for given in ({"a": 1, "b": [1.5, None, True]}, {"text": "größer \U0001f600\n\0\"\\"}, {"x": {"y": {}}}):
        assert value(session, f"tools['lookup'].run(**{given!r}) == {given!r}", lookup=lambda **found: found) == "True"
    for result in (None, 0, -1.5, "", "text", [], {"a": [1]}):
        assert value(session, "repr(tools['lookup'].run())", lookup=lambda: result) == repr(repr(result))


@pytest.mark.parametrize("how", ["tools['lookup'].run(key='x')", "tools.lookup.run(key='x')", "lookup(key='x')", "tools['lookup'](key='x')"])
def test_ways_to_call(session, how):
    assert value(session, how, lookup=lambda key: key * 2) == "'xx'"


def test_from_a_module_and_a_thread(session):
    session.ok("open('helper.py', 'w').write('def f(n): return tools[\"a.b\"].run(n=n)')")
    code = ("import helper, threading\nfound = []\n"
            "threads = [threading.Thread(target=lambda n=n: found.append(helper.f(n))) for n in range(5)]\n"
            "for t in threads: t.start()\nfor t in threads: t.join()\nsorted(found)")
    assert value(session, code, **{"a.b": lambda n: n * n}) == "[0, 1, 4, 9, 16]"


def test_errors(session):
    assert error(session, "tools['lookup'].run()", lookup=lambda: 1 / 0) == "ToolError: tools['lookup']: division by zero"
    code = "try: lookup()\nexcept ToolError as e: r = e.text\nr"
    assert value(session, code, lookup=lambda: int("x")).startswith("\"invalid literal")
    assert "did you mean 'lookup'" in error(session, "tools['lookpu']", lookup=lambda: 1)
    assert "ToolArgumentError" not in error(session, "lookup(x={1})", lookup=lambda x: 1)  # what JSON does not know never leaves


def test_they_end_with_their_run(session):
    assert value(session, "keep = tools['lookup']\nkeep.run()", lookup=lambda: 1) == "1"
    session.fails("tools['lookup']", "UnknownTool")
    session.fails("keep.run()", "UnknownTool")
    session.fails("lookup()", "NameError")
    assert value(session, "keep.run(), 'lookup' in tools, 'other' in tools", lookup=lambda: 2) == "(2, True, False)"
    assert value(session, "list(tools)", other=lambda: 1) == "['other']"


def test_what_there_is_to_know(session):
    names = ["rlm.llm_query", "get_weather"]
    code = "l = tools['__list__'].run()\nl['count'], [t['name'] for t in l['tools']]"
    assert value(session, code, names) == "(2, ['rlm.llm_query', 'get_weather'])"
    assert value(session, "tools['__schema__'].run(name='get_weather')['input_schema'] is None", names) == "True"
    assert value(session, "[t['name'] for t in tools['__search__'].run(query='weather')['tools']]", names) == "['get_weather']"
    assert value(session, "repr(tools)", names) == "'<tools: rlm.llm_query, get_weather>'"
    assert "get_weather" in run(session, "help(tools['get_weather'])", names)["stdout"]


# --- many at once

THREADS = ("from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(20) as pool:\n"
           "    found = list(pool.map(lambda n: tools['rlm.llm_query'].run(n=n), range(20)))\nfound")
TASKS = "import asyncio\nawait asyncio.gather(*[asyncio.to_thread(tools['rlm.llm_query'].run, n=n) for n in range(20)])"


@pytest.mark.parametrize("code", [THREADS, TASKS], ids=["threads", "tasks"])
def test_calls_overlap(session, code):
    """All of them wait before the first is answered, the last one first."""
    with Stream(session, code, tools=["rlm.llm_query"]) as stream:
        calls = hold(stream, 20)
        for n in reversed(range(20)):
            assert stream.reply(calls[json.dumps({"n": n})], result=n * n).status_code == 200
        assert stream.result()["result"] == repr([n * n for n in range(20)])


def test_a_hundred_long_prompts(session):
    """Each of 100 KB, in one call, with an answer as long."""
    code = "texts = [chr(65 + n % 26) * 100_000 for n in range(100)]\ntools['ask'].run(texts=texts) == [t.lower() for t in texts]"
    assert value(session, code, limits=WIDE, ask=lambda texts: [t.lower() for t in texts]) == "True"
    code = "texts = ['ä' * 50_000 for n in range(100)]\ntools['ask'].run(texts=texts)"
    assert value(session, code, limits=WIDE, ask=lambda texts: sum(map(len, texts))) == "5000000"


# --- limits and ends


def test_limits(session):
    code = "for n in range(3): lookup(n=n)"
    assert "limits.tool_calls" in error(session, code, limits={"tool_calls": 2}, lookup=lambda n: n)
    assert "limits.tool_argument" in error(session, "lookup(x='y' * 2000)", limits={"tool_argument": 1000}, lookup=lambda x: 1)
    assert "limits.tool_result" in error(session, "lookup()", limits={"tool_result": 1000}, lookup=lambda: "y" * 2000)
    assert "ToolLimitError" in error(session, "lookup()", limits={"tool_calls": 0}, lookup=lambda: 1)


@pytest.mark.parametrize("limits, code", [
    ({"tool_timeout": 0.2}, "lookup()"),
    ({}, "lookup.with_timeout(0.2).run()"),
], ids=["limit", "code"])
def test_a_call_has_its_time(session, limits, code):
    with Stream(session, f"try: {code}\nexcept ToolTimeout as e: r = str(e)\nr", tools=["lookup"], limits=limits) as stream:
        call = stream.until("call")["call"]
        assert stream.until("call_gone") == {"call": call}
        assert "no answer within 0.2 s" in stream.result()["result"]


def test_waiting_counts_for_the_time_of_the_run(session):
    with Stream(session, "lookup()", tools=["lookup"], timeout=0.3) as stream:
        stream.until("call")
        reply = stream.result()
        assert reply["timed_out"] is True and ("call_gone", {"call": 1}) in stream.seen


def test_interrupted_while_it_waits(session):
    with Stream(session, "x = 1\ntry: lookup()\nexcept KeyboardInterrupt: x = 2\nx", tools=["lookup"]) as stream:
        stream.until("call")
        session.sidecar.request("POST", f"{session.path}/interrupt")
        stream.until("call_gone")
        assert stream.result()["result"] == "2"


def test_the_client_leaves_while_it_waits(session):
    with Stream(session, "x = 'begun'\nlookup()\nx = 'done'", tools=["lookup"]) as stream:
        stream.until("call")
    eventually(lambda: session.info()["state"] == "idle", "its run is over")
    assert session.value("x") == "'begun'"


def test_the_process_dies_while_it_waits(session):
    session.ok("x = 'before'")
    session.rest()
    with Stream(session, "x = 'begun'\nlookup()", tools=["lookup"]) as stream:
        stream.until("call")
        os.kill(session.pid(), signal.SIGKILL)
        stream.until("call_gone")
        assert stream.result()["state"] == "rolled_back"
    assert session.value("x") == "'before'"


# --- the names of an RLM run


@pytest.fixture
def rlm(session):
    """A session as a run begins it, with its context."""
    answer = session.sidecar.request("PUT", f"{session.path}/variables/context_0", data=("line\n" * 100_000).encode(),
                                     headers={"Content-Type": "text/plain"})
    assert answer.status_code == 200, answer.text
    session.ok("import sys, types\nrlm_session = types.ModuleType('rlm_session')\nexec(source, vars(rlm_session))\n"
               "sys.modules['rlm_session'] = rlm_session\ndel source", context={"source": SESSION_SOURCE})
    session.ok("rlm_session.install(globals(), custom=['add'])")
    return session


def block(session, code, **tools):
    """One block and its report, as the engine runs them: (stdout, final, variables)."""
    reply = run(session, code, RLM_TOOLS, WIDE, **{f"rlm.{name}": function for name, function in tools.items()})
    parts = {}

    def part(key, text):
        parts[key] = parts.get(key, "") + text

    reported = run(session, "rlm_session.report()", ["rlm.part"], WIDE, **{"rlm.part": part})
    assert len(reported["result"].encode()) <= 1000, "the least that a server's RESULT_LIMIT can be has to be enough"
    told = json.loads(reported["result"])
    told = json.loads(parts.pop(told["key"])) if "key" in told else told
    final = parts.pop(told["final"]["key"]) if isinstance(told["final"], dict) else told["final"]
    assert not parts
    return reply["stdout"], final, told["variables"]


def test_queries(rlm):
    out, final, variables = block(rlm, "a = llm_query('one', model='m')\nprint(a, rlm_query('two'))",
                                  llm_query=lambda prompt, model: f"{prompt} {model}", rlm_query=lambda prompt, model: f"<{prompt}>")
    assert (out, final, variables) == ("one m <two>\n", None, {"a": "str"})


def test_batches(rlm):
    out, _, _ = block(rlm, "print(llm_query_batched([f'p{n}' for n in range(3)]), llm_query_batched([]))",
                      llm_query_batched=lambda prompts, model: [p.upper() for p in prompts])
    assert out == "['P0', 'P1', 'P2'] []\n"


def test_a_large_batch_goes_in_pieces(rlm):
    """More than fits into one call: what is over comes by `rlm.part`."""
    parts, sizes = {}, []

    def part(key, text):
        parts[key] = parts.get(key, "") + text

    def batched(prompts, model):
        sizes.extend(len(p) if isinstance(p, str) else len(parts.pop(p["key"])) for p in prompts)
        return ["ok"] * len(prompts)

    out, _, _ = block(rlm, "print(len(llm_query_batched([context] * 9 + ['é' * 3_000_000])))", llm_query_batched=batched, part=part)
    assert out == "10\n" and sizes == [500_000] * 9 + [3_000_000] and not parts


def test_failures_are_texts(rlm):
    out, _, _ = block(rlm, "print(llm_query('x')); print(rlm_query_batched(['x', 'y']))",
                      llm_query=lambda prompt, model: 1 / 0, rlm_query_batched=lambda prompts, model: 1 / 0)
    assert out.count("Error: ") == 3 and "division by zero" in out


def test_tools_of_the_caller(rlm):
    out, _, _ = block(rlm, "print(add(1, b=2))", tool=lambda name, args, kwargs: [name, args, kwargs])
    assert out == "['add', [1], {'b': 2}]\n"


@pytest.mark.parametrize("code, final", [
    ("answer['content'] = 'yes'; answer['ready'] = True", "yes"),
    ("FINAL('yes')", "yes"),
    ("x = [1, 'ä']; FINAL_VAR('x')", '[1, "ä"]'),
    ("FINAL_VAR('context')", "line\n" * 100_000),
    ("answer['content'] = 'not yet'", None),
    ("pass", None),
])
def test_final_answers(rlm, code, final):
    assert block(rlm, code)[1] == final
    assert block(rlm, "pass")[1] is None  # once


def test_names_come_back(rlm):
    block(rlm, "context = llm_query = FINAL = None; del SHOW_VARS; answer = 5")
    out, _, _ = block(rlm, "print(len(context), llm_query('x'), answer)", llm_query=lambda prompt, model: prompt)
    assert out == "500000 x {'content': '', 'ready': False}\n"
    block(rlm, "tools = 5")  # hides a name, and takes nothing away
    assert block(rlm, "print(llm_query('x'))", llm_query=lambda prompt, model: prompt)[0] == "x\n"


@pytest.mark.parametrize("count, name", [(3, "name"), (99, "name"), (200, "name" * 50), (30, "größe")])
def test_reports_of_variables(rlm, count, name):
    """A short report is the result of its execution, a long one comes in pieces."""
    found = block(rlm, "".join(f"{name}{number} = {number}\n" for number in range(count)))[2]
    assert list(found.items()) == [(f"{name}{number}"[:100], "int") for number in range(count)][:1 if len(name) > 100 else 100]


def test_a_report_leaves_the_last_value_alone(rlm):
    block(rlm, "import builtins; builtins._ = 5")
    assert block(rlm, "print(_); 'last'")[0] == "5\n"
    assert block(rlm, "print(_)")[0] == "last\n"
    block(rlm, "del builtins._")
    assert block(rlm, "print(hasattr(builtins, '_'))")[0] == "False\n"


def test_beside_an_application_s_own():
    """Where there is a tool service that cannot be reached, the caller's tools wait for nothing."""
    with running_sidecar(CODEMODE_MAIN_APP_TARGET="127.0.0.1:1") as sidecar:
        session = sidecar.create()
        assert value(session, "lookup(), tools['rlm.part'].run()", lookup=lambda: 1, **{"rlm.part": lambda: 2}) == "(1, 2)"
