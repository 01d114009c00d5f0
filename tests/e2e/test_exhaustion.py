# SPDX-License-Identifier: Apache-2.0
"""Out of memory or out of time: the answer says where and by what, and the session goes on, again and again."""

import re

import pytest

SETTINGS = {"MEMORY_LIMIT": "128Mi"}

#: What a session at its limit must be able to do again when its variables are gone. Not in one piece: what lives on in
#: between splits the free memory.
ROOM = "len([bytes(1 << 20) for _ in range(20)])"

#: name: (code, its line that is named, a variable that must be among the largest, or None where none has it)
EATERS = {
    "tiny objects": ("rows = []\nwhile True:\n    rows.append([])", 3, "rows"),
    "instances": ("class A: pass\nrows = []\nwhile True:\n    a = A(); a.x = 1.5; rows.append(a)", 4, "rows"),
    "one huge list": ("rows = [0] * (10 << 20)\nrows += [1] * (90 << 20)", 2, "rows"),
    "one huge bytes": ("kept = bytes(40 << 20)\nb = bytes(200 << 20)", 2, "kept"),
    "a doubling list": ("rows = [None]\nwhile True:\n    rows += rows", 3, "rows"),
    "a dict": ("cache = {}\nn = 0\nwhile True:\n    cache[n] = str(n)\n    n += 1", 4, "cache"),
    "a set": ("seen = set()\nn = 0\nwhile True:\n    seen.add(n)\n    n += 1", 4, "seen"),
    "strings": ("rows = []\nwhile True:\n    rows.append('x' * 1000 + str(len(rows)))", 3, "rows"),
    "in a function": ("def load():\n    rows = []\n    while True:\n        rows.append(bytes(1000))\nload()", 4, r"rows in load\(\)"),
    "in a deep call": ("def f(n):\n    if n: return f(n - 1)\n    rows = []\n    while True:\n        rows.append(bytes(1000))\nf(500)", 5, r"rows in f\(\)"),
    "in a comprehension": ("kept = bytes(20 << 20)\nx = [bytes(1000) for _ in range(10**9)]", 2, "kept"),
    "in a generator": ("x = list(bytes(1000) for _ in range(10**9))", 1, None),
    "in a class body": ("class A:\n    rows = []\n    while True:\n        rows.append(bytes(1000))", 4, r"rows in A\(\)"),
    "in a task": ("import asyncio\nrows = []\nasync def f():\n    while True:\n        rows.append(bytes(1000))\nawait asyncio.gather(f(), asyncio.sleep(60))", 5, "rows"),
    "in a C function": ("import json\nkept = bytes(20 << 20)\nx = json.loads('[' + '[1.5, {}],' * 2_000_000 + '1]')", 3, "kept"),
    "by sorting": ("rows = list(range(3_000_000))\nwhile True:\n    rows = sorted(rows) + rows", 3, "rows"),
    "by text": ("s = 'ab'\nwhile True:\n    s += s", 3, "s"),
    "by a power": ("n = 7\nwhile True:\n    n = n * n << (8 << 20)", 3, "n"),
    "in an import": ("open('eater.py', 'w').write('rows = []\\nwhile True: rows.append(bytes(1000))')\nimport eater", 2, None),
    "in __del__ and beyond": ("rows = []\nclass A:\n    def __del__(self): rows.append(bytes(1 << 20))\nwhile True:\n    A(); rows.append(bytes(1 << 20))", 5, "rows"),
    "by formatting": ("rows = []\nwhile True:\n    rows.append(f'{len(rows):>10000}')", 3, "rows"),
    "by calls": ("import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1) + 1\nf(0)", 3, None),
    "a deque": ("import collections\nq = collections.deque()\nwhile True:\n    q.append(bytes(100))", 4, "q"),
    "a linked list": ("x = None\nwhile True:\n    x = (x, 'a' * 50)", 3, None),
    "exceptions": ("rows = []\nwhile True:\n    try: 1/0\n    except ZeroDivisionError as e: rows.append(e)", None, "rows"),
    "swallowed errors": ("rows = []\nfor _ in range(300_000):\n    try: rows.append(bytes(1000))\n    except MemoryError: pass\nraise MemoryError", 5, "rows"),
    "by threads' results": ("from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as pool:\n    rows = list(pool.map(lambda n: bytes(1 << 20), range(1000)))", 3, None),
}


@pytest.mark.parametrize("name", sorted(EATERS))
def test_out_of_memory(session, name):
    code, line, variable = EATERS[name]
    session.ok("kept_all_along = 'here'")
    reply = session.fails(code, "MemoryError", timeout=50)
    error = reply["error"]
    where = rf"at line {line} of <cell \d+>" if line else r"at line \d+ of <cell \d+>"
    assert re.match(rf"MemoryError: out of memory {where}: [\d.]+ MiB of 128\.0 MiB in use, [\d.]+ MiB by the interpreter itself; ", error), error
    if variable:
        assert re.search(rf"[:,] {variable} \(\w+, [\d,.]+ MiB\)", error), error
    assert error in reply["traceback"] and reply["state"] == "kept"
    assert session.value("kept_all_along") == "'here'"
    session.ok("for name in [n for n in globals() if not n.startswith('_') and n != 'kept_all_along']: del globals()[name]\nimport sys; sys.modules.pop('eater', None)")
    assert session.value(ROOM) == "20"


def test_the_size_is_about_right(session):
    reply = session.fails("rows = []\nwhile True: rows.append(bytes(1000))", "MemoryError")
    size = float(re.search(r"rows \(list, ([\d.]+) MiB\)", reply["error"])[1])
    assert 50 < size < 90, reply["error"]


def test_again_and_again_at_the_limit(session):
    """Nothing is freed between: each time the session answers, in full."""
    session.fails("rows = []\nwhile True: rows.append([])", "MemoryError")
    for n in range(30):
        reply = session.fails("while True: rows.append([])", "MemoryError")
        assert "rows (list" in reply["error"] or "not enough memory" in reply["error"] or "no memory" in reply["error"], reply["error"]
    session.ok("rows.clear()")
    assert session.value(ROOM) == "20"


def test_small_steps_at_the_limit(session):
    """Once full, single steps of a session fail or succeed, but every one is answered, until room is made."""
    session.fails("rows = []\nwhile True: rows.append(bytes(64))", "MemoryError")
    for code in ("print('x' * 1000)", "x = 1", "1 / 0", "import colorsys", "def f(): pass", "'a' * 100_000", "[n for n in range(1000)]",
                 "import threading\nt = threading.Thread(target=print); t.start(); t.join()", "await __import__('asyncio').sleep(0)",
                 "raise ValueError('x' * 100_000)", "class A: pass", "open('/tmp/f', 'w').write('x' * 10_000)", "undefined", "(", "rows[0]"):
        reply = session.run(code)
        assert reply["state"] == "kept"
        assert reply["success"] or reply["error_type"] in ("MemoryError", "ZeroDivisionError", "ValueError", "NameError", "SyntaxError", "OSError", "RuntimeError"), reply
    session.ok("rows = None")
    assert session.value("1 + 1") == "2"


@pytest.mark.parametrize(
    "code",
    [
        "rows = []\ndef run():\n    while True: rows.append(bytes(1000))\nimport threading\nt = threading.Thread(target=run); t.start(); t.join()",
        "rows = []\nclass A:\n    def __del__(self): self.x = [bytes(1000) for _ in range(1000)]\ntry:\n    while True: rows.append(bytes(1000))\nexcept MemoryError: pass\nfor _ in range(200): A()",
        "rows = []\ntry:\n    while True: rows.append(bytes(1000))\nexcept MemoryError: pass\nfor n in range(200):\n    try: print('line', n)\n    except MemoryError: pass",
        "rows = []\ndef f():\n    try:\n        while True: rows.append(bytes(1000))\n    finally:\n        rows.append(f'{len(rows)}')\ntry: f()\nexcept MemoryError: pass",
        "rows = []\nimport gc\ntry:\n    while True:\n        a = []; a.append(a); rows.append(a)\nexcept MemoryError: pass\ngc.collect()",
    ],
)
def test_the_session_survives(session, code):
    """Whatever the outcome of code that goes on at the limit, the session is there."""
    reply = session.run(code, timeout=30)
    assert reply["state"] == "kept", reply
    session.ok("rows.clear()")
    session.ok("import gc; gc.collect()")
    assert session.value(ROOM) == "20"


def test_an_endless_loop_over_memory_errors_times_out(session):
    code = "rows = []\nwhile True:\n    try:\n        while True: rows.append(bytes(1000))\n    except MemoryError: pass"
    reply = session.run(code, timeout=2)
    assert reply["success"] is False and "timed out" in reply["error"] and reply["state"] == "kept", reply
    assert re.search(r"at line [2-5] of <cell 1>; .*largest variables: rows \(list, ", reply["error"]), reply["error"]
    session.ok("rows.clear()")


def test_a_timeout_says_where(session):
    reply = session.run("rows = [bytes(1000) for _ in range(10_000)]\n\ndef spin():\n    while True: pass\nspin()", timeout=2)
    assert re.match(
        r"TimeoutError: Execution timed out \(timeout of 2 s\), at line 4 of <cell 1>; [\d.]+ MiB of 128\.0 MiB in use, [\d.]+ MiB by the interpreter itself; "
        r"largest variables: rows \(list, \d+\.\d MiB\)$", reply["error"]), reply["error"]
    reply = session.run("import time\ntime.sleep(60)", timeout=0.5)
    assert "at line 2 of <cell 2>" in reply["error"], reply["error"]
    reply = session.run("import asyncio\nasync def f():\n    await asyncio.sleep(60)\nawait f()", timeout=0.5)
    assert "at line 3 of <cell 3>" in reply["error"], reply["error"]
    assert session.value("len(rows)") == "10000"


def test_variables_are_weighed_without_the_users_code(session):
    session.ok(
        "class Evil(list):\n    def __len__(self): raise SystemExit\n    __iter__ = __sizeof__ = __getitem__ = __hash__ = __eq__ = __len__\n"
        "    __class__ = property(__len__)\nevil = Evil()\nlist.extend(evil, [bytes(1000) for _ in range(10_000)])"
    )
    reply = session.fails("while True: list.append(evil, bytes(1000))", "MemoryError")
    assert re.search(r"evil \(Evil, [\d.]+ MiB\)", reply["error"]), reply["error"]
