# SPDX-License-Identifier: Apache-2.0
"""The driver's semantics: an execution is a line of an interactive session."""

import json
import re

import pytest

LAST_EXPRESSION = {
    "1 + 1": "2",
    "x = 1": None,
    "None": None,
    "": None,
    "# only a comment": None,
    "'text'": "'text'",
    "a = 1; a + 1": "2",
    "a = 1\na + 1\n\n# after it\n": "2",
    "if True:\n    5": None,
    "for i in range(3): i": None,
    "def f(): return 3\nf()": "3",
    "(1,\n 2)": "(1, 2)",
    "5;": "5",
    "print('x')": None,
    "[i * i for i in range(4)]": "[0, 1, 4, 9]",
    "lambda: 0; 7": "7",
    "y = 3\n(y := y + 1)": "4",
    "'''a\nb'''": "'a\\nb'",
    "pass": None,
    "ö = 2\nö": "2",
    "import math\nround(math.pi, 3)": "3.142",
    "match 3:\n    case 3: 'three'": None,
    "True": "True",
    "...": "Ellipsis",
}


@pytest.mark.parametrize("code", sorted(LAST_EXPRESSION))
def test_last_expression(shared, code):
    assert shared.value(code) == LAST_EXPRESSION[code]


def test_underscore_names_and_private_globals(session):
    reply = session.ok("_hidden = 1\n__dunder = 2\nshown = 3")
    assert reply["locals"] == {"shown": 3}
    assert session.value("_hidden + __dunder") == "3"


def test_windows_line_ends_and_missing_final_newline(shared):
    assert shared.value("a = 1\r\nif a:\r\n    a = 2\r\na") == "2"


def test_streams_are_apart(session):
    reply = session.ok("import sys, warnings\nprint('out')\nprint('err', file=sys.stderr)\nwarnings.warn('careful')")
    assert reply["stdout"] == "out\n"
    assert "err\n" in reply["stderr"] and "careful" in reply["stderr"] and "UserWarning" in reply["stderr"]


@pytest.mark.parametrize(
    "code, expected",
    [
        ("print('no newline', end='')", "no newline"),
        ("import sys; sys.stdout.write('a'); sys.stdout.flush(); sys.stdout.write('b\\n'); None", "ab\n"),
        ("import sys; sys.stdout.buffer.write('ü'.encode()); None", "ü"),
        ("import os; os.write(1, b'direct'); None", "direct"),
        ("print('\\x00\\x1b[0m\\u2028\\U0001f40d')", "\x00\x1b[0m\u2028\U0001f40d\n"),
        ("print(*range(3), sep='\\n')", "0\n1\n2\n"),
    ],
)
def test_stdout(shared, code, expected):
    assert shared.ok(code)["stdout"] == expected


def test_bytes_that_are_no_text_are_still_an_answer(session):
    reply = session.ok("import sys; sys.stdout.buffer.write(b'a\\xff\\xfeb'); sys.stdout.flush(); print('\\ud800')")
    assert reply["stdout"].startswith("a") and "b" in reply["stdout"]
    assert session.value("1") == "1"


def test_broken_streams_do_not_outlive_the_execution(session):
    session.run("import sys; sys.stdout.close()")
    assert session.ok("print('back')")["stdout"] == "back\n"
    session.run("import sys; sys.stdout = None; sys.stderr = None")
    assert session.ok("print('again')")["stdout"] in ("again\n", "")
    session.run("import os; os.close(1); os.close(2)")
    assert session.value("1 + 1") == "2"


@pytest.mark.parametrize(
    "code, expected",
    [
        ("import asyncio\nawait asyncio.sleep(0.01, 'slept')", "'slept'"),
        ("import asyncio\nasync def f(n):\n    await asyncio.sleep(0.01)\n    return n\nawait asyncio.gather(f(1), f(2))", "[1, 2]"),
        ("import asyncio\nasync def main(): return 5\nasyncio.run(main())", "5"),
        ("import asyncio\nasync def main():\n    async with asyncio.timeout(5): return 6\nasyncio.run(main())", "6"),
        ("import asyncio\nasync def g():\n    yield 1\n    yield 2\n[v async for v in g()]", "[1, 2]"),
        ("import asyncio\nasync with asyncio.TaskGroup() as group:\n    t = group.create_task(asyncio.sleep(0, 3))\nt.result()", "3"),
        ("import asyncio\nawait asyncio.to_thread(sum, [1, 2])", "3"),
        ("import asyncio\nq = asyncio.Queue()\nawait q.put(1)\nawait asyncio.wait_for(q.get(), 1)", "1"),
        ("import asyncio\ntry:\n    await asyncio.wait_for(asyncio.sleep(60), 0.05)\nexcept TimeoutError:\n    r = 'late'\nr", "'late'"),
    ],
)
def test_await(session, code, expected):
    assert session.value(code) == expected


def test_ten_sleeps_overlap(session):
    """All have begun before the first one ends."""
    code = (
        "import asyncio\nbegun, ended = [], []\nasync def f(n):\n    begun.append(n)\n    await asyncio.sleep(0.3)\n    ended.append(len(begun))\n"
        "await asyncio.gather(*map(f, range(10)))\nended"
    )
    assert session.value(code) == str([10] * 10)


def test_functions_defined_with_await_survive(session):
    session.ok("import asyncio\nasync def f(): return await asyncio.sleep(0, 9)")
    assert session.value("await f()") == "9"
    assert session.value("asyncio.run(f())") == "9"


def frames(traceback):
    return re.findall(r'File "([^"]+)", line (\d+), in (\S+)', traceback)


def test_traceback_shows_the_users_frames(session):
    session.ok("def inner(n):\n    return 1 / n\n")
    reply = session.fails("def outer():\n    return inner(0)\n\nouter()", "ZeroDivisionError")
    seen = frames(reply["traceback"])
    assert [(line, name) for _, line, name in seen] == [("4", "<module>"), ("2", "outer"), ("2", "inner")]
    first, second = seen[2][0], seen[0][0]
    assert first == seen[2][0] != second == seen[1][0]
    assert "1" in first and "2" in second and "cell" in first
    for source in ("return 1 / n", "return inner(0)", "outer()"):
        assert source in reply["traceback"]
    assert reply["error"] == "ZeroDivisionError: division by zero"
    assert reply["traceback"].startswith("Traceback (most recent call last):")


def test_traceback_goes_to_stderr(session):
    reply = session.fails("raise ValueError('shown')", "ValueError")
    assert "ValueError: shown" in reply["stderr"] and reply["stdout"] == ""


@pytest.mark.parametrize(
    "code",
    [
        "import asyncio\nasync def f(): raise KeyError('k')\nawait f()",
        "import asyncio\nasync def f(): raise KeyError('k')\nasyncio.run(f())",
        "{}['k']",
        "class A:\n    def __getattr__(self, n): raise KeyError(n)\nA().x",
    ],
)
def test_driver_is_never_in_a_traceback(session, code):
    reply = session.fails(code, "KeyError")
    assert "codemode" not in reply["traceback"] and "driver" not in reply["traceback"]
    files = {name for name, _, _ in frames(reply["traceback"])}
    assert any("cell" in name for name in files)


def test_chained_errors_and_groups(session):
    reply = session.fails("try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise ValueError('second') from e", "ValueError")
    assert "direct cause" in reply["traceback"] and "ZeroDivisionError" in reply["traceback"]
    reply = session.fails("raise ExceptionGroup('many', [ValueError('a'), TypeError('b')])", "ExceptionGroup")
    assert "ValueError: a" in reply["traceback"] and "TypeError: b" in reply["traceback"]


@pytest.mark.parametrize(
    "code, kind",
    [
        ("def f(:", "SyntaxError"),
        ("if True:\npass", "IndentationError"),
        ("x = 'open", "SyntaxError"),
        ("return 1", "SyntaxError"),
        ("yield 1", "SyntaxError"),
        ("a\x00b", "SyntaxError"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("from math import no_such_name", "ImportError"),
        ("undefined", "NameError"),
        ("int('x')", "ValueError"),
        ("[][1]", "IndexError"),
        ("None.x", "AttributeError"),
        ("1 + 'a'", "TypeError"),
        ("assert False, 'why'", "AssertionError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise StopIteration", "StopIteration"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("def f(): f()\nf()", "RecursionError"),
        ("class E(Exception):\n    def __str__(self): raise ValueError\nraise E", "E"),
        ("class E(Exception):\n    def __str__(self): return 5\nraise E", "E"),
        ("class E(BaseException): pass\nraise E('own')", "E"),
        ("raise", "RuntimeError"),
    ],
)
def test_errors(session, code, kind):
    session.ok("kept = 1")
    reply = session.run(code)
    assert reply["success"] is False and reply["error_type"] == kind, reply
    assert kind in reply["error"] and reply["result"] is None
    assert session.value("kept") == "1"


def test_syntax_error_points_at_its_place(session):
    reply = session.fails("a = 1\nb = = 2", "SyntaxError")
    assert "b = = 2" in reply["traceback"] and "line 2" in reply["traceback"] and "^" in reply["traceback"]


def test_nothing_of_a_syntax_error_runs(session):
    session.fails("ran = 1\ndef (", "SyntaxError")
    session.fails("ran", "NameError")


@pytest.mark.parametrize("code", ["class R:\n    def __repr__(self): raise ValueError('no repr')\nR()", "class R:\n    def __repr__(self): return 5\nR()"])
def test_repr_that_fails_is_the_users_error(session, code):
    reply = session.run(code)
    assert reply["success"] is False and reply["error_type"] in ("ValueError", "TypeError")
    assert session.value("1") == "1"


def test_input_says_why_it_cannot_work(session):
    reply = session.run("input('name? ')")
    assert reply["success"] is False and "input" in reply["error"], reply
    assert session.value("import sys; sys.stdin.read()") == "''"


@pytest.mark.parametrize("code, success", [("sys.exit()", True), ("sys.exit(0)", True), ("sys.exit(3)", False), ("sys.exit('bye')", False), ("raise SystemExit", True), ("exit()", True), ("quit()", True)])
def test_exit_ends_the_execution_only(session, code, success):
    session.ok("import sys\nx = 1")
    reply = session.run(f"x = 2\n{code}\nx = 3")
    assert reply["success"] is success, reply
    if not success:
        assert reply["error_type"] == "SystemExit"
    assert session.value("x") == "2"


def test_os_exit_takes_only_its_own_session(sidecar):
    session, other = sidecar.create(), sidecar.create()
    answer = session.post("import os; os._exit(7)")
    assert answer.status_code in (200, 410), answer.text
    if answer.status_code == 200:
        assert answer.json()["success"] is False
    assert other.value("1") == "1"
    session.delete()
    other.delete()


# --- locals

HOSTILE = """
import threading, sys, re, collections, decimal
class Evil:
    def __repr__(self): ran.append('repr'); return 'x'
    def __str__(self): ran.append('str'); return 'x'
    def __len__(self): ran.append('len'); return 1
    def __iter__(self): ran.append('iter'); return iter(())
    def __eq__(self, other): ran.append('eq'); return True
    def __hash__(self): return 1
    def __bool__(self): ran.append('bool'); return True
    def __format__(self, spec): ran.append('format'); return 'x'
    @property
    def __class__(self): ran.append('class'); return dict
class EvilDict(dict):
    def items(self): ran.append('items'); return ()
    def __iter__(self): ran.append('dict iter'); return iter(())
    def __repr__(self): ran.append('dict repr'); return '{}'
class EvilStr(str):
    def __repr__(self): ran.append('str repr'); return 'x'
    def __str__(self): ran.append('str str'); return 'x'
    def encode(self, *a): ran.append('encode'); return b''
class EvilInt(int):
    def __repr__(self): ran.append('int repr'); return '1'
    def __index__(self): ran.append('index'); return 1
class Meta(type):
    def __repr__(cls): ran.append('meta repr'); return 'x'
    def __instancecheck__(cls, other): ran.append('check'); return True
class Metaed(metaclass=Meta): pass
ran = []
evil, nested = Evil(), {'a': [Evil(), (Evil(),)], 1: {Evil()}}
d, s, i, m = EvilDict(a=1), EvilStr('s'), EvilInt(3), Metaed
cycle = []; cycle.append(cycle)
ring = {}; ring['self'] = ring
deep = []
for _ in range(100000): deep = [deep]
nan, inf, big = float('nan'), float('-inf'), 10 ** 5000
lone, data, wide = '\\ud800', b'\\x00\\xff', 'y' * 3_000_000
rows = list(range(200_000))
keys = {1: 'int', None: 'none', (1, 2): 'tuple', 'a': 'str', True: 'bool'}
gen, lock, mod, fn, it = (n for n in 'ab'), threading.Lock(), sys, len, iter([1])
globals()['\\ud801'] = 1
globals()[5] = 'a name that is no string'
dec, cnt, pat = decimal.Decimal('1.5'), collections.Counter('aab'), re.compile('a')
"""


def test_locals_never_fail_and_never_run_user_code(session):
    answer = session.post(HOSTILE)
    assert answer.status_code == 200, answer.text
    reply = answer.json()
    assert reply["success"] is True, reply
    assert len(answer.content) < 2_000_000
    found = reply["locals"]
    json.dumps(found, allow_nan=False)
    assert {"evil", "nested", "cycle", "deep", "nan", "fn"} <= set(found)
    assert session.value("ran") == "[]"


def test_locals_keep_plain_values(session):
    code = "i, f, s, t, n, b = 1, 1.5, 'é', (1, 'a'), None, True\nl, d = [1, [2]], {'k': {'j': []}}"
    assert session.ok(code)["locals"] == {
        "i": 1, "f": 1.5, "s": "é", "t": [1, "a"], "n": None, "b": True, "l": [1, [2]], "d": {"k": {"j": []}},
    }  # fmt: skip


def test_locals_by_repr(session):
    found = session.ok("import math\ndef f(): pass\nclass C: pass\nb = b'x'")["locals"]
    assert "math" in found["math"] and "f" in found["f"] and "C" in found["C"] and "x" in found["b"]


def test_deleted_and_shadowed_names(session):
    session.ok("a = 1\nprint = 5")
    assert session.ok("del a")["locals"] == {"print": 5}
    session.ok("del print\nprint('back')")


# --- what survives

def test_definitions_survive(session):
    session.ok("import math as m\nfrom json import dumps\ndef f(n): return n * factor\nclass C:\n    count = 0")
    session.ok("factor = 3\nC.count += 1")
    assert session.value("f(2), C.count, m.floor(2.5), dumps([1])") == "(6, 1, 2, '[1]')"


def test_open_files_survive(session):
    session.ok("import io\nfile = open('/tmp/notes.txt', 'w+')\nfile.write('one\\n')\nbuffer = io.BytesIO(b'abc')")
    session.ok("file.write('two\\n'); file.seek(0); buffer.read(1)")
    assert session.value("file.read(), buffer.read()") == "('one\\ntwo\\n', b'bc')"


def test_generators_and_database_survive(session):
    session.ok("import sqlite3\ndb = sqlite3.connect(':memory:')\ndb.execute('create table t (n)')\ng = iter(range(3))")
    session.ok("db.execute('insert into t values (?)', (next(g),)); next(g)")
    assert session.value("db.execute('select n from t').fetchall(), next(g)") == "([(0,)], 2)"


def test_files_of_a_session(session):
    code = """
import os, pathlib, shutil, tempfile
base = pathlib.Path('/tmp/work')
(base / 'a').mkdir(parents=True)
(base / 'a' / 'f.txt').write_text('hello')
os.rename(base / 'a' / 'f.txt', base / 'g.txt')
with tempfile.TemporaryDirectory() as folder:
    open(os.path.join(folder, 'x'), 'wb').write(b'1')
sizes = {str(p): p.stat().st_size for p in base.rglob('*') if p.is_file()}
shutil.rmtree(base)
"""
    session.ok(code)
    assert session.value("sizes, base.exists(), os.path.exists(folder)") == "({'/tmp/work/g.txt': 5}, False, False)"


def test_modules_written_by_the_user_can_be_imported(session):
    session.ok("open('/tmp/mine.py', 'w').write('def f(): return 11')\nimport sys; sys.path.insert(0, '/tmp')")
    assert session.value("import mine; mine.f()") == "11"


def test_typical_introspection(session):
    session.ok("import dataclasses, inspect, pickle, typing\n@dataclasses.dataclass\nclass P:\n    x: int = 1")
    assert session.value("P(), P.__module__, pickle.loads(pickle.dumps(P(3)))") == "(P(x=1), '__main__', P(x=3))"
    session.ok("def src(a):\n    return a + 1")
    assert "return a + 1" in session.value("inspect.getsource(src)")


def test_many_executions_in_one_session(session):
    for number in range(200):
        assert session.value(f"n = {number}; n") == str(number)
