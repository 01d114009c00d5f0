# SPDX-License-Identifier: Apache-2.0
"""Depth of every kind ends in an error of Python's at a useful depth, never in the end of the session."""

import textwrap

import pytest

#: What may be said about something that is too deep.
TOO_DEEP = ("RecursionError", "MemoryError", "ValueError", "OperationalError", "IndentationError", "SyntaxError")

#: name: (how to make a thing of depth n in `x`, what to do with it, depth that must work on the main thread, and on others)
DEEP = {
    "python functions": ("def f(n): return n and f(n - 1)", "f(n - 2)", 1000, 950),
    "methods": ("class A:\n    def f(self, n): return n and self.f(n - 1)\nx = A()", "x.f(n - 2)", 1000, 950),
    "generators": ("def g(n):\n    yield n\n    if n: yield from g(n - 1)", "sum(g(n))", 900, 300),
    "json.loads": ("import json\nx = '[' * n + ']' * n", "json.loads(x)", 2000, 1000),
    "json.loads of objects": ("import json\nx = '{\"a\":' * n + '1' + '}' * n", "json.loads(x)", 2000, 1000),
    "json.dumps": ("import json\nx = []\nfor _ in range(n): x = [x]", "json.dumps(x)", 2000, 1000),
    "json.dumps with indent": ("import json\nx = []\nfor _ in range(n): x = [x]", "json.dumps(x, indent=1)", 300, 300),
    "repr": ("x = []\nfor _ in range(n): x = [x]", "repr(x)", 2000, 1000),
    "pickle": ("import pickle\nx = []\nfor _ in range(n): x = [x]", "pickle.loads(pickle.dumps(x))", 1000, 500),
    "copy.deepcopy": ("import copy\nx = []\nfor _ in range(n): x = [x]", "copy.deepcopy(x)", 450, 450),
    "comparison": ("x = []; y = []\nfor _ in range(n): x = [x]; y = [y]", "x == y", 3000, 1000),
    "hash": ("x = ()\nfor _ in range(n): x = (x,)", "hash(x)", 3000, 1000),
    "re.compile": ("import re", "re.compile('(' * n + 'a' + ')' * n).match('a')", 300, 300),
    "a regular expression's repetition": ("import re", "re.match('(?:(a)|b)*c?', 'ab' * n).end()", 20_000, 20_000),
    "parentheses": ("", "eval('(' * n + '1' + ')' * n)", 100, 50),
    "ast.literal_eval": ("import ast", "ast.literal_eval('[' * n + ']' * n)", 100, 50),
    "signs": ("import ast", "ast.parse('-' * n + '1')", 1000, 200),
    "operators": ("", "compile('+'.join('1' * n), 'x', 'eval')", 2000, 300),
    "attributes": ("", "compile('a' + '.b' * n, 'x', 'eval')", 2000, 300),
    "calls in source": ("", "compile('f' + '(1)' * n, 'x', 'eval')", 2000, 200),
    "elif": ("", "compile('if x: pass\\n' + 'elif y: pass\\n' * n, 'x', 'exec')", 1000, 100),
    "lambda": ("", "compile('lambda: ' * n + '1', 'x', 'eval')", 100, 50),
    "syntax trees": (
        "import ast\nx = ast.Constant(1, lineno=1, col_offset=0, end_lineno=1, end_col_offset=0)\n"
        "for _ in range(n): x = ast.UnaryOp(ast.USub(), x, lineno=1, col_offset=0, end_lineno=1, end_col_offset=0)",
        "compile(ast.Expression(x), 'x', 'eval')", 1000, 200),
    "ast.unparse": ("import ast\nx = ast.parse('-' * min(n, 600) + '1')", "ast.unparse(x) and n > 600 and f()", 100, 100),
    "classes": ("C = object\nfor _ in range(min(n, 1000)): C = type('C', (C,), {})", "C() and n > 1000 and f()", 1000, 1000),
    "sorted with a key that sorts": (
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return n and sorted([n - 1], key=f)[0]", "f(n)", 700, 200),
    "map": ("x = iter([1])\nfor _ in range(n): x = map(abs, x)", "next(x)", 3000, 1000),
    "filter": ("x = iter([1])\nfor _ in range(n): x = filter(None, x)", "next(x)", 3000, 1000),
    "zip": ("x = iter([1])\nfor _ in range(n): x = zip(x)", "next(x)", 3000, 1000),
    "enumerate": ("x = iter([1])\nfor _ in range(n): x = enumerate(x)", "next(x)", 3000, 1000),
    "itertools.chain": ("import itertools\nx = iter([1])\nfor _ in range(n): x = itertools.chain(x)", "next(x)", 3000, 1000),
    "itertools.islice": ("import itertools\nx = iter([1])\nfor _ in range(n): x = itertools.islice(x, 9)", "next(x)", 3000, 1000),
    "itertools.takewhile": ("import itertools\nx = iter([1])\nfor _ in range(n): x = itertools.takewhile(bool, x)", "next(x)", 3000, 1000),
    "itertools.accumulate": ("import itertools\nx = iter([1])\nfor _ in range(n): x = itertools.accumulate(x)", "next(x)", 2000, 1000),
    "itertools.pairwise": ("import itertools\nx = iter(range(9**9))\nfor _ in range(min(n, 20)): x = itertools.pairwise(x)\nfor _ in range(n - 20): x = itertools.cycle(x)", "next(x)", 2000, 1000),
    "itertools.zip_longest": ("import itertools\nx = iter([1])\nfor _ in range(n): x = itertools.zip_longest(x)", "next(x)", 2000, 1000),
    "itertools.groupby": ("import itertools\nx = iter([1])\nfor _ in range(n): x = itertools.groupby(x)", "next(x)", 1000, 500),
    "generators in generators": ("def g(it): yield from it\nx = iter([1])\nfor _ in range(n): x = g(x)", "next(x)", 900, 300),
    "loops over generators": ("def g(it):\n    for y in it: yield y\nx = iter([1])\nfor _ in range(n): x = g(x)", "next(x)", 900, 300),
    "suspended generators": (
        "import sys\nsys.setrecursionlimit(10**6)\ndef g(it): yield from it\nx = iter([1, 2])\nfor _ in range(n): x = g(x)\n"
        "try: next(x)\nexcept RecursionError: pass", "x.close()", 1000, 300),
    "throwing into generators": (
        "import sys\nsys.setrecursionlimit(10**6)\ndef g(it): yield from it\nx = iter([1, 2])\nfor _ in range(n): x = g(x)\n"
        "try: next(x)\nexcept RecursionError: pass", "try: x.throw(KeyError)\nexcept KeyError: pass", 1000, 300),
    "isinstance of nested tuples": ("x = ()\nfor _ in range(n): x = (x,)", "isinstance(1, x)", 2000, 1000),
    "functools.partial": ("import functools\nx = abs\nfor _ in range(n): x = functools.partial(functools.partial(x), -1) if _ == 0 else functools.partial(x)", "x()", 1000, 1000),
    "XML": ("import xml.etree.ElementTree as E\nx = '<a>' * n + '</a>' * n", "E.fromstring(x)", 10_000, 10_000),
    "SQL": ("import sqlite3\nx = sqlite3.connect(':memory:')", "x.execute('select ' + '-'.join('1' * n)).fetchall()", 900, 500),
    "SQL that calls Python that calls SQL": (
        "import sqlite3\nc = sqlite3.connect(':memory:')\n"
        "def f(n): return n and c.execute('select f(?)', (n - 1,)).fetchone()[0]\nc.create_function('f', 1, f)",
        "assert f(n) == 0", 100, 50),
}

#: Depths that are tried beyond the ones that must work.
BEYOND = (10_000, 100_000)

PROGRAM = """
import sys
def make(n):
    names = {{'n': n}}
    exec({make!r}, names)
    return names
results = []
def attempt(n):
    try:
        names = make(n)
        exec({use!r}, names)
        results.append((n, 'done'))
    except Exception as e:
        results.append((n, type(e).__name__))
    names = None  # which takes it apart
before = sys.getrecursionlimit()
for n in {depths!r}:
    attempt(n)
    sys.setrecursionlimit(before)
"""

IN_THREAD = "import threading\nthread = threading.Thread(target=lambda: exec({code!r}, globals()))\nthread.start()\nthread.join()"


@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize("name", sorted(DEEP))
def test_depth(session, name, where):
    make, use, on_main, on_thread = DEEP[name]
    works = on_main if where == "main" else on_thread
    code = PROGRAM.format(make=make, use=use, depths=(works, *(n for n in BEYOND if n > works)))
    session.ok(IN_THREAD.format(code=code) if where == "thread" else code, timeout=60)
    results = dict(eval(session.value("results")))
    assert results.pop(works) == "done", results
    assert results and set(results.values()) <= {"done", *TOO_DEEP, "NameError"}, results
    assert session.value("1 + 1") == "2"


#: Calls without end, by everything that calls Python code from C, with no limit but the C stack's.
ENDLESS = {
    "__getattr__": "class A:\n    def __getattr__(self, n): return getattr(self, n + 'x')\nA().x",
    "__call__": "class A:\n    def __call__(self): return self()\nA()()",
    "__init__": "class A:\n    def __init__(self): A()\nA()",
    "__add__": "class A:\n    def __add__(self, o): return self + o\nA() + A()",
    "__repr__": "class A:\n    def __repr__(self): return repr([self])\nrepr(A())",
    "__eq__": "class A:\n    def __eq__(self, o): return [self] == [o]\n[A()] == [A()]",
    "__hash__": "class A:\n    def __hash__(self): return hash((self,))\nhash(A())",
    "__iter__": "class A:\n    def __iter__(self): return iter(self)\nlist(A())",
    "__next__": "class A:\n    def __iter__(self): return self\n    def __next__(self): return next(zip(self))\nnext(A())",
    "__len__": "class A:\n    def __len__(self): return len(self)\nlen(A())",
    "__format__": "class A:\n    def __format__(self, f): return f'{self}'\nf'{A()}'",
    "__index__": "class A:\n    def __index__(self): return [1][self]\n[1][A()]",
    "__bool__": "class A:\n    def __bool__(self): return not self\nnot A()",
    "__instancecheck__": "class M(type):\n    def __instancecheck__(c, o): return isinstance(o, c)\nclass A(metaclass=M): pass\nisinstance(1, A)",
    "__set_name__": "def f():\n    class A:\n        class D:\n            def __set_name__(self, o, n): f()\n        d = D()\nf()",
    "__reduce__": "import pickle\nclass A:\n    def __reduce__(self): return (A, (A(),))\npickle.dumps(A())",
    "eval": "s = 'eval(s)'\neval(s)",
    "exec": "s = 'exec(s)'\nexec(s)",
    "import": "open('endless.py', 'w').write('import sys\\nsys.modules.pop(\"endless\")\\nimport endless')\nimport endless",
    "sorted": "def f(n): return sorted([2, 1], key=lambda x: f(n + 1))\nf(0)",
    "map": "def f(x): return list(map(f, [x]))\nf(1)",
    "re.sub": "import re\ndef f(m): return re.sub('a', f, 'a')\nf(None)",
    "functools.reduce": "import functools\ndef f(a, b): return functools.reduce(f, [1, 2])\nf(1, 2)",
    "json default": "import json\nclass A: pass\ndef f(o): return json.dumps(o, default=f)\nf(A())",
    "descriptors": "class D:\n    def __get__(self, o, t): return o.d\nclass A: d = D()\nA().d",
}


@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize("name", sorted(ENDLESS))
def test_endless_recursion(session, name, where):
    code = "import sys\nsys.setrecursionlimit(10**9)\ntry:\n" + textwrap.indent(ENDLESS[name], "    ") + "\n    outcome = 'no error'"
    code += "\nexcept (RecursionError, MemoryError) as e:\n    outcome = type(e).__name__\nsys.setrecursionlimit(1000)"
    reply = session.ok(IN_THREAD.format(code=code) if where == "thread" else code, timeout=60)
    assert session.value("outcome") in ("'RecursionError'", "'MemoryError'"), reply["stderr"][-500:]
    assert session.value("1 + 1") == "2"


CHAINS = {
    "lists": "x = [x]",
    "tuples": "x = (x,)",
    "dicts": "x = {1: x}",
    "instances": "a = A(); a.x = x; x = a; del a",
    "instances with __del__": "a = D(); a.x = x; x = a; del a",
    "instances with slots and __del__": "a = S(); a.x = x; x = a; del a",
    "closures": "x = (lambda y: lambda: y)(x)",
    "generators": "x = g(x)",
    "running generators": "x = g(x); next(x)",
    "coroutines": "x = c(x)",
    "list iterators": "x = iter([x])",
    "map": "x = map(abs, [x])",
    "enumerate": "x = enumerate([x])",
    "islice": "x = itertools.islice([x], 1)",
    "partial": "x = functools.partial(print, x)",
    "methods": "x = types.MethodType(print, [x])",
    "slices": "x = slice(x)",
    "exceptions": "x = ValueError(x)",
    "causes": "e = ValueError(); e.__cause__ = x; x = e; del e",
    "mapping proxies": "x = types.MappingProxyType({1: x})",
    "properties": "x = property(x)",
    "class methods": "x = classmethod(x)",
    "cells": "x = types.CellType(x)",
    "generic aliases": "x = list[x]",
    "deques": "x = collections.deque([x])",
    "ordered dicts": "x = collections.OrderedDict(a=x)",
    "elements": "e = ET.Element('a'); e.append(x) if isinstance(x, ET.Element) else None; x = e; del e",
    "context tokens": "v = contextvars.ContextVar('v'); v.set(x); x = contextvars.copy_context(); v.set(None)",
    "futures": "f = concurrent.futures.Future(); f.set_result(x); x = f; del f",
    "syntax trees": "x = ast.Expr(x)",
    "memory views": "x = [memoryview(b'x'), x]",
    "super objects": "x = [super(A, A()), x]",
}


@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize("name", sorted(CHAINS))
def test_a_long_chain_is_freed(session, name, where):
    code = f"""
import ast, collections, concurrent.futures, contextvars, functools, itertools, types, xml.etree.ElementTree as ET
class A: pass
class D:
    def __del__(self): pass
class S:
    __slots__ = 'x'
    def __del__(self): pass
def g(x):
    yield x
    yield x
async def c(x): return x
import warnings; warnings.simplefilter('ignore')
x = None
for _ in range({20_000 if name in ('context tokens', 'futures') else 200_000}):
    {CHAINS[name]}
del x
import gc; gc.collect()
freed = True
"""
    session.ok(IN_THREAD.format(code=code) if where == "thread" else code, timeout=60)
    assert session.value("freed") == "True"


LONG = {
    "a traceback of 100,000 frames": "import sys\nsys.setrecursionlimit(10**6)\ndef f(n):\n    if n: return f(n - 1)\n    1/0\ntry: f(100_000)\nfinally: sys.setrecursionlimit(1000)",
    "100,000 causes": "e = None\nfor _ in range(100_000):\n    n = ZeroDivisionError('x'); n.__cause__ = e; e = n\nraise e",
    "100,000 contexts": "def f():\n    e = None\n    for i in range(100_000):\n        try:\n            raise ZeroDivisionError(i) from e\n        except ZeroDivisionError as x: e = x\n    raise e\nf()",
}


@pytest.mark.parametrize("name", sorted(LONG))
def test_long_errors(session, name):
    reply = session.fails(LONG[name], "ZeroDivisionError", timeout=60)
    assert len(reply["traceback"]) < 100_000
    assert session.value("1 + 1") == "2"


def test_a_thousand_frames_are_a_cells_own(session):
    session.ok("def f(n): return n and f(n - 1)")
    assert session.value("f(998)") == "0"
    assert session.value("import asyncio\nawait asyncio.sleep(0)\nf(998)") == "0"
    session.fails("f(1100)", "RecursionError")
    session.ok("import sys\nsys.setrecursionlimit(50_000)")
    assert session.value("f(49_000)") == "0", "the code's own limit stays"


@pytest.mark.parametrize("code", ["(" * 500 + ")" * 500, "x = " + "-" * 100_000 + "1", "[" * 150 + "f" * 1 + "(" * 3000])
def test_source_that_is_nested_too_deeply(session, code):
    reply = session.run(code)
    assert reply["success"] is False
    if reply["error_type"] == "MemoryError":
        assert "nested too deeply" in reply["error"] and "out of memory" not in reply["error"], reply["error"]
    else:
        assert reply["error_type"] == "SyntaxError" and "too many nested" in reply["error"], reply["error"]
