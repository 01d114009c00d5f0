# SPDX-License-Identifier: Apache-2.0
"""Greedy code meets a limit, gets an ordinary error, and the session goes on."""

import pytest

from support import alive, eventually, resident_bytes

MEBI = 1 << 20
SETTINGS = {"MEMORY_LIMIT": "128Mi", "MAX_OUTPUT": "64Ki", "MAX_RESULT": "16Ki", "MAX_LOCALS": "16Ki"}

GREEDY = {
    "one block": "b = bytearray(1 << 30)",
    "4 GiB, larger than the address space": "b = bytearray(4 << 30)",
    "multiplied text": "s = 'x' * (1 << 30)",
    "a list that grows": "l = []\nwhile True: l.append(bytes(1 << 20))",
    "small objects": "l = []\nwhile True: l.append([{}])",
    "a dict that grows": "d = {}\nn = 0\nwhile True:\n    d[n] = str(n) * 9\n    n += 1",
    "a string that doubles": "s = 'ab'\nwhile True: s += s",
    "a file that grows": "f = open('/tmp/big', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "in a thread": "import threading\nout = []\ndef run():\n    l = []\n    try:\n        while True: l.append(bytes(1 << 20))\n    except MemoryError as e: out.append(e)\nt = threading.Thread(target=run); t.start(); t.join(); raise out[0]",
}


@pytest.mark.parametrize("name", sorted(GREEDY))
def test_memory_limit(session, name):
    session.ok("kept = 1")
    pid = session.pid()
    reply = session.run(GREEDY[name], timeout=60)
    assert reply["success"] is False, reply
    allowed = ("MemoryError", "OSError", "OverflowError") if "file" in name or "space" in name else ("MemoryError",)
    assert reply["error_type"] in allowed and reply["state"] == "kept", reply
    assert resident_bytes(pid) < (128 + 96) * MEBI
    assert session.value("kept") == "1"
    session.ok("b = l = s = d = f = out = None\nimport os\nif os.path.exists('/tmp/big'): os.remove('/tmp/big')")
    assert session.value("len(bytes(20 << 20))") == str(20 << 20)


def test_memory_in_use_is_reported(session):
    session.ok("b = bytes(40 << 20)")
    eventually(lambda: session.info()["memory_bytes"] > 40 * MEBI, "the memory shows")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_huge_output_is_cut(sidecar, session, stream):
    before = resident_bytes(sidecar.process.pid)
    code = f"import sys\nprint('begin', file=sys.{stream})\nfor _ in range(256): sys.{stream}.write('y' * (1 << 20))"
    reply = session.run(code, timeout=60)
    assert reply["success"] is True, reply["error"]
    assert reply[stream].startswith("begin\n") and len(reply[stream].encode()) <= 64 * 1024 + 200
    assert resident_bytes(sidecar.process.pid) < before + 64 * MEBI
    assert session.ok("print('next')")["stdout"] == "next\n"


def test_many_small_writes(session):
    reply = session.ok("for n in range(100_000): print(n, flush=n % 1000 == 0)", timeout=60)
    assert reply["stdout"].startswith("0\n1\n2\n")


@pytest.mark.parametrize("code", ["'z' * (30 << 20)", "list(range(1_000_000))", "'\\U0001f40d' * 1_000_000", "raise ValueError('w' * (30 << 20))", "raise ValueError('\\u00e9' * (1 << 20))"])
def test_huge_result_and_error_are_cut(session, code):
    answer = session.post(code, timeout=60)
    assert answer.status_code == 200 and len(answer.content) < 1_000_000
    assert session.value("1") == "1"


def test_huge_locals_are_cut(session):
    reply = session.ok("for n in range(50_000): globals()[f'name_{n}'] = 'v' * 100")
    assert len(str(reply["locals"])) < 200_000
    assert session.value("len(globals()) > 50_000") == "True"


@pytest.mark.parametrize(
    "code, kinds",
    [
        ("def f(): return f()\nf()", ("RecursionError",)),
        ("class A:\n    def __getattr__(self, n): return getattr(self, n + 'x')\nA().x", ("RecursionError", "MemoryError")),
        ("class A:\n    def __repr__(self): return repr(self)\nA()", ("RecursionError",)),
        ("l = []\nfor _ in range(1_000_000): l = [l]\nrepr(l)", ("RecursionError", "MemoryError")),
        ("eval('(' * 100_000 + ')' * 100_000)", ("SyntaxError", "MemoryError", "RecursionError")),
        ("eval('-' * 500_000 + '1')", ("SyntaxError", "MemoryError", "RecursionError")),
        ("import json; json.loads('[' * 1_000_000)", ("RecursionError", "MemoryError")),
        ("import sys; sys.setrecursionlimit(10**9)\ndef f(): return f()\nf()", ("RecursionError", "MemoryError")),
        ("import sys; sys.setrecursionlimit(10**9)\ndef f(n): return sorted([2, 1], key=lambda x: f(n + 1))\nf(0)", ("RecursionError", "MemoryError")),
        ("import re; re.compile('(' * 50_000 + ')' * 50_000)", ("RecursionError", "MemoryError", "PatternError", "error", "OverflowError")),
    ],
)
def test_depth_is_an_error(session, code, kinds):
    reply = session.run(code, timeout=60)
    assert reply["success"] is False and reply["error_type"] in kinds, reply
    assert session.value("1 + 1") == "2"


def test_memory_of_a_deleted_session_comes_back(sidecar):
    """With its process. A spare one may be on its way up or down, so what counts is the server at rest."""
    for _ in range(10):
        session = sidecar.create()
        session.ok("b = bytes(60 << 20)")
        pid = session.pid()
        session.delete()
        eventually(lambda: not alive(pid), "the session's process is gone")
    eventually(lambda: len(sidecar.children()) <= sidecar.base_children, "no other process has taken its place")


def test_deleted_objects_make_room(session):
    """The process does not shrink, but what was freed is used again, also right after the limit was hit."""
    for _ in range(3):
        session.fails("l = []\nwhile True: l.append(bytes(1 << 20))", "MemoryError", timeout=60)
        held = int(session.value("len(l)"))
        assert held > 20
        session.ok("del l")
        assert session.value(f"b = [bytes(1 << 20) for _ in range({held} * 3 // 4)]; len(b) > 10") == "True"
        session.ok("del b")
