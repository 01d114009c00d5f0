# SPDX-License-Identifier: Apache-2.0
"""The strict check: tables of code with the reason that refuses it, and of code that it has to let through."""

import ast
import builtins
import unittest

from codemode_driver import strict
from support import DriverTest

STRICT = 16


def reason(code, line=';;', known=None):
    """What the check says of code, or None."""
    try:
        strict.check(ast.parse(code), code, strict.rules(line), {'__builtins__': builtins, **(known or {})})
    except strict.SecurityViolation as exc:
        return str(exc).removeprefix('Security violation: ')
    return None


def pattern(*names):
    return f'Blocked pattern(s) detected: {", ".join(names)}'


def imported(*names):
    return f'Blocked import(s) detected: {", ".join(names)}'


def odd(*names):
    return f'Suspicious pattern(s) detected: {", ".join(names)}'


def defs(count):
    return '\n'.join(f'def f{i}(): pass' for i in range(count))


PATTERNS = {
    '__import__("os")': pattern('__import__ (line 1)'),
    'eval("1")': pattern('eval( (line 1)'),
    'exec("x = 1")': pattern('exec( (line 1)'),
    'c = compile("1", "", "eval")': pattern('compile( (line 1)'),
    'with open("f") as f:\n    pass': pattern('open( (line 1)'),
    'file("f")': pattern('file( (line 1)'),
    'x = 1\ny = input("?")': pattern('input( (line 2)'),
    'raw_input()': pattern('raw_input( (line 1)'),
    'execfile("f")': pattern('execfile( (line 1)'),
    'reload(m)': pattern('reload( (line 1)'),
    '__builtins__.eval("1")': pattern('eval( (line 1)', '__builtins__ (line 1)'),
    '__builtins__["eval"]("1")': pattern('__builtins__ (line 1)'),
    'vars()': pattern('vars( (line 1)'),
    'dir(x)': pattern('dir( (line 1)'),
    'globals()["x"]': pattern('globals( (line 1)'),
    'def f():\n    return locals()': pattern('locals( (line 2)'),
    'delattr(x, "y")': pattern('delattr( (line 1)'),
    'setattr(x, "y", 1)': pattern('setattr( (line 1)'),
    'getattr(x, "y")': pattern('getattr( (line 1)'),
    # read, not called, or called through something
    'f = eval\nf("1")': pattern('eval( (line 1)'),
    'list(map(eval, ["1"]))': pattern('eval( (line 1)'),
    '(lambda: exec)()("1")': pattern('exec( (line 1)'),
    '[open][0]("f")': pattern('open( (line 1)'),
    'f"{eval(\'1\')}"': pattern('eval( (line 1)'),
    'def f(e=eval): pass': pattern('eval( (line 1)'),
    '@eval\ndef f(): pass': pattern('eval( (line 1)'),
    'class A(eval("object")): pass': pattern('eval( (line 1)'),
    'x: eval("int") = 1': pattern('eval( (line 1)'),
    'ｅｖａｌ("1")': pattern('eval( (line 1)'),
    'import builtins\nbuiltins.eval("1")': pattern('eval( (line 2)'),
    'import builtins as b\nb.__dict__["eval"]("1")': pattern('eval( (line 2)'),
    'from builtins import eval as e': pattern('eval( (line 1)'),
    'from builtins import *': pattern('__builtins__ (line 1)'),
    'import sys\nsys.modules["builtins"].exec("1")': pattern('exec( (line 2)'),
    'import io\nio.open("f")': pattern('open( (line 2)'),
    'from io import open': pattern('open( (line 1)'),
    'import importlib\nimportlib.reload(m)': pattern('reload( (line 2)'),
    'f.__globals__["x"]': pattern('__globals__ (line 1)'),
    'f.__call__.__builtins__': pattern('__builtins__ (line 1)'),
    'x["__import__"]("os")': pattern('__import__ (line 1)'),
    '().__class__.__bases__[0].__subclasses__()': pattern('__subclasses__ (line 1)'),
    '"".__class__.mro()[1].__subclasses__()': pattern('__subclasses__ (line 1)'),
    'object.__subclasses__()': pattern('__subclasses__ (line 1)'),
    # a name that is the user's somewhere, or sometimes, is not where it is read
    'eval("1")\neval = 5': pattern('eval( (line 1)'),
    'if x:\n    eval = print\neval("1")': pattern('eval( (line 3)'),
    'eval = print\ndel eval\neval("1")': pattern('eval( (line 3)'),
    'for eval in ():\n    pass\neval("1")': pattern('eval( (line 3)'),
    'try:\n    open = x\nexcept NameError:\n    pass\nopen("f")': pattern('open( (line 5)'),
    'def f():\n    eval("1")\nf()\neval = 5': pattern('eval( (line 2)'),
    'class A:\n    eval("1")\n    eval = 5': pattern('eval( (line 2)'),
    'class A:\n    def open(self):\n        return open("f")': pattern('open( (line 3)'),
    '[eval for x in eval("[]") for eval in x]': pattern('eval( (line 1)'),
    # several of them, in the order of their lines, each once
    'x = open("a")\neval("1")\nopen("b")': pattern('open( (line 1)', 'eval( (line 2)'),
    'import subprocess\neval("1")': pattern('eval( (line 2)'),
}

BLOCKED = '''subprocess socket urllib urllib2 urllib3 httplib ftplib telnetlib smtplib ssl ctypes multiprocessing threading pty pwd
             grp resource signal'''.split()

IMPORTS = {
    **{f'import {name}': imported(f'{name} (line 1)') for name in [*BLOCKED, 'http.client', 'asyncio.subprocess']},
    **{f'from {name} import x': imported(f'{name} (line 1)') for name in [*BLOCKED, 'http.client', 'asyncio.subprocess']},
    'import json, socket as s': imported('socket (line 1)'),
    'import urllib.request': imported('urllib (line 1)'),
    'from urllib import parse': imported('urllib (line 1)'),
    'from http import client': imported('http.client (line 1)'),
    'import http\nhttp.client.HTTPConnection("h")': imported('http.client (line 2)'),
    'from asyncio import subprocess': imported('asyncio.subprocess (line 1)'),
    'from os import system': imported('os.system (line 1)'),
    'from os import popen as p': imported('os.popen (line 1)'),
    'from os import execv, spawnlp': imported('os.execv (line 1)', 'os.spawnlp (line 1)'),
    'from sys import exit': imported('sys.exit (line 1)'),
    'import sys\nsys.exit(1)': imported('sys.exit (line 2)'),
    'import os\nos.system("ls")': imported('os.system (line 2)'),
    'import os\nf = os.popen': imported('os.popen (line 2)'),
    'import os\nos.execvpe("a", [], {})': imported('os.execvpe (line 2)'),
    'import os as o\no.system("ls")': imported('os.system (line 2)'),
    'import os\no = os\no.system("ls")': imported('os.system (line 3)'),
    'import os.path\nos.system("ls")': imported('os.system (line 2)'),
    'import posix\nposix.system("ls")': imported('os.system (line 2)'),
    'from os import *\nsystem("ls")': imported('os.system (line 2)'),
    'def f():\n    import os as o\n    def g():\n        return o.spawnv(0, "a", [])': imported('os.spawnv (line 4)'),
    'def f():\n    global o\n    import os as o\ndef g():\n    o.system("ls")': imported('os.system (line 5)'),
    'class A:\n    import os\n    os.system("ls")': imported('os.system (line 3)'),
    'try:\n    import subprocess\nexcept ImportError:\n    pass': imported('subprocess (line 2)'),
    'if (o := __name__) and True:\n    import pty': imported('pty (line 2)'),
    'import importlib\nimportlib.import_module("subprocess")': imported('subprocess (line 2)'),
    'import importlib as i\ni.import_module("os").system("ls")': imported('os.system (line 2)'),
    'from importlib import import_module as load\nload("ctypes.util")': imported('ctypes (line 2)'),
    'from importlib import import_module\no = import_module("os")\no.system("ls")': imported('os.system (line 3)'),
    'import pkgutil\npkgutil.resolve_name("os:system")("ls")': imported('os.system (line 2)'),
    'import runpy\nrunpy.run_module("telnetlib")': imported('telnetlib (line 2)'),
    'import sys\nsys.modules["subprocess"]': imported('subprocess (line 2)'),
    'import sys\nsys.modules.get("os").system("ls")': imported('os.system (line 2)'),
    'import os\nos.__dict__["system"]("ls")': imported('os.system (line 2)'),
    'import asyncio\nasyncio.create_subprocess_shell("ls")': imported('asyncio.create_subprocess_shell (line 2)'),
    'import json\nimport codemode_driver': imported('codemode_driver (line 2)'),
    'import _socket': imported('_socket (line 1)'),
}

LONG = 'x' * 1001
ODD = {
    'while True:\n    pass': odd('while True: (line 1)'),
    'while 1:\n    x = 1': odd('while True: (line 1)'),
    'while True:\n    for a in b:\n        break': odd('while True: (line 1)'),
    'while True:\n    def f():\n        return 1': odd('while True: (line 1)'),
    'while True:\n    while True:\n        break': odd('while True: (line 1)'),
    'x = 1\nwhile True:\n    while x:\n        x += 1\nelse:\n    raise x': odd('while True: (line 2)'),
    defs(11): odd('more than 10 def (line 11)'),
    'class A:\n' + defs(12).replace('def', '    def'): odd('more than 10 def (line 12)'),
    'x = "\\x65val"': odd('\\x escape (line 1)'),
    'x = 1\ny = "\\u0065\\x76al"': odd('\\u escape (line 2)', '\\x escape (line 2)'),
    'f"{x}\\x41"': odd('\\x escape (line 1)'),
    'x = """\n\\U00000041"""': odd('\\U escape (line 1)'),
    'x = "\\\\\\x41"': odd('\\x escape (line 1)'),
    f'x = "{LONG}"': odd('string literal over 1000 characters (line 1)'),
    f'f(b"{LONG}")': odd('string literal over 1000 characters (line 1)'),
    f'f"{LONG}{{x}}"': odd('string literal over 1000 characters (line 1)'),
}

ALLOWED = [
    '',
    '1 + 1',
    # what a search through the text would take for something else
    'import re\nre.compile("a")',
    'import ast\nast.literal_eval("[1]")',
    'import os\nos.listdir(".")',
    'import os\nos.getcwd(), os.environ.get("A"), os.path.join("a", "b")',
    'reopen("f")',
    'df.eval("a + b")',
    'page.input("name")',
    'pathlib.Path("f").open()',
    'obj.compile(), obj.exec(), obj.vars(), obj.dir(), obj.globals(), obj.system("x")',
    '# eval("1"), import subprocess, while True:\nx = 1',
    'print("eval(1); import subprocess; while True: __import__ __builtins__")',
    '"""import socket\nopen(\'x\')"""',
    'x = {"eval": 1, "open": 2}["open"]',
    'f(input=1, open=2, file=3)',
    'class A:\n    def input(self): return 1\n    def open(self): return 2\nA().input(), A().open()',
    'class A:\n    compile = 1\nA.compile',
    # a user's own names
    'for file in files:\n    print(file)',
    'for dir in ("a", "b"):\n    print(dir)',
    'with a as file:\n    file.read()',
    'with a as input:\n    input.read()',
    'def f(input, *, file=None):\n    return [input, file]',
    'lambda input: input + 1',
    '[input for input in (1, 2)]',
    '{dir: vars for dir, vars in x}',
    'def f():\n    input = 1\n    return lambda: input',
    'def f():\n    for dir in x:\n        yield dir',
    'input = [1, 2]\nprint(input[0])\nif input:\n    print(input)',
    'input: list = []\ninput.append(1)',
    'input, dir = 1, 2\ninput + dir',
    'def compile(x):\n    return compile(x - 1) if x else 0\ncompile(3)',
    'class open:\n    pass\nopen()',
    'from mylib import open\nopen()',
    'import mylib as input\ninput.x',
    'try:\n    f()\nexcept E as input:\n    print(input)',
    'match x:\n    case [input, *dir]:\n        print(input, dir)',
    'file = 1\nif x:\n    file = 2\nprint(file)',
    'os.system("x")',  # not imported: whatever it is, it is the user's
    'def f(os):\n    os.system("x")\nimport os',
    'import numpy as os\nos.system',
    'def f():\n    import mine as os\n    os.system("x")\nimport os',
    # modules
    'import asyncio, json, datetime, re, math, itertools, http, os, sys, importlib',
    'import asyncio\nasyncio.run(f()), asyncio.gather(a, b)',
    'from concurrent.futures import ThreadPoolExecutor',
    'import importlib\nimportlib.import_module("json")',
    'import importlib\nimportlib.import_module(name)',
    'import signals, mysocket, subprocesses',
    'from scipy import signal\nsignal.x',
    'import scipy.signal',
    'from .socket import x',
    'import sys\nsys.modules["json"], sys.argv',
    'resource = f()\nresource.x; signal = 1; socket = 2; threading = 3',
    'from os import *\nlistdir(".")',
    'Base.__subclasses__()',
    'type(self).__mro__, A.__bases__',
    # loops, functions, literals
    'while True:\n    if x:\n        break',
    'while True:\n    try:\n        f()\n    except E:\n        break',
    'def f():\n    while True:\n        return 1',
    'def f():\n    while True:\n        yield 1',
    'async def f():\n    while True:\n        await g()',
    'while True:\n    await f()',
    'while True:\n    raise x',
    'while True:\n    quit()',
    'while True:\n    for x in y:\n        pass\n    else:\n        break',
    'while x:\n    pass',
    'while False:\n    pass',
    defs(10),
    '# def ' * 20,
    'x = "caf\\u00e9 \\x1b[0m \\x00 \\n"',
    'x = r"\\x41\\u0041"',
    'x = "\\\\x41"',
    'x = "C:\\\\users\\\\x64"',
    '# \\x41 \\u0041',
    'b"\\x50\\x4b"',
    'rf"{x}\\x41"',
    'x = "it\'s" + \'"\'',
    f'def f():\n    """{LONG}"""',
    f'"""{LONG}"""',
    'x = "' + 'x' * 1000 + '"',
    'x = """' + '\n'.join(['a'] * 500) + '"""',
]


class Tables(unittest.TestCase):
    def table(self, cases):
        for code, expected in cases.items():
            with self.subTest(code):
                self.assertEqual(reason(code), expected)

    def test_patterns(self):
        self.table(PATTERNS)

    def test_imports(self):
        self.table(IMPORTS)

    def test_suspicious(self):
        self.table(ODD)

    def test_allowed(self):
        self.table(dict.fromkeys(ALLOWED))

    def test_many(self):
        found = reason('\n'.join(f'import {name}' for name in BLOCKED))
        self.assertEqual(found.count(' (line '), 10)
        self.assertTrue(found.endswith(f'(line 10), and {len(BLOCKED) - 10} more'), found)


class Lists(unittest.TestCase):
    def test_further_imports(self):
        for code, expected in {
            'import pandas.io': imported('pandas (line 1)'),
            'from pandas import DataFrame': imported('pandas (line 1)'),
            'import numpy\nnumpy.linalg.inv(x)': imported('numpy.linalg (line 2)'),
            'import numpy\nnumpy.array(x)': None,
            'import pandasql': None,
            'import socket': imported('socket (line 1)'),
        }.items():
            self.assertEqual(reason(code, 'pandas,numpy.linalg;;'), expected, code)

    def test_exceptions(self):
        for code, expected in {
            'import threading\nthreading.Lock()': None,
            'import urllib.parse\nurllib.parse.quote("a")': None,
            'from urllib.parse import quote': None,
            'from urllib import parse': None,
            'import urllib.request': imported('urllib (line 1)'),
            'import urllib.parse\nurllib.request.urlopen("a")': imported('urllib (line 2)'),
            'import os\nos.execv("a", [])': None,
            'import os\nos.system("a")': imported('os.system (line 2)'),
        }.items():
            self.assertEqual(reason(code, ';threading,urllib.parse,os.exec;'), expected, code)

    def test_a_permission_wins(self):
        self.assertIsNone(reason('import pandas', 'pandas;pandas;'))
        self.assertIsNone(reason('import pandas.io', 'pandas;pandas.io;'))
        self.assertEqual(reason('import pandas.io', 'pandas.io;pandas;'), imported('pandas.io (line 1)'))

    def test_safe_builtins(self):
        line = ';;open,getattr,__globals__'
        self.assertIsNone(reason('open("f"); getattr(x, "y"); f.__globals__', line))
        self.assertEqual(reason('eval("1")', line), pattern('eval( (line 1)'))
        for code, expected in {
            'import os\ngetattr(os, "system")("ls")': imported('os.system (line 2)'),
            'import os\ngetattr(getattr(os, "path"), "join")': None,
            'import builtins\ngetattr(builtins, "eval")': pattern('eval( (line 2)'),
            'getattr(x, "__builtins__")': pattern('__builtins__ (line 1)'),
            'getattr(object, "__subclasses__")()': pattern('__subclasses__ (line 1)'),
        }.items():
            self.assertEqual(reason(code, line), expected, code)


class Bounds(unittest.TestCase):
    """No source makes the check loop, recurse without end or take more than a few times what reading it takes."""

    def test_names_that_stand_for_themselves(self):
        self.assertIsNone(reason('a = b\nb = a\na.x\na.y()'))
        self.assertIsNone(reason('a = a.b.c\na = a\na.x'))
        self.assertIsNone(reason('\n'.join(f'a{i} = a{i + 1}; a{i} = a{i + 2}' for i in range(200)) + '\na0.x'))

    def test_depth(self):
        for code in ('x' + '.a' * 500, 'x' + '()' * 90, 'if x:\n  pass\n' + 'elif x:\n  pass\n' * 300, 'x' + '[0]' * 90):
            reason(code)
        nested = '\n'.join(f'{" " * i}while True:' for i in range(20)) + f'\n{" " * 20}pass'
        self.assertEqual(reason(nested), odd('while True: (line 1)'))


class Sessions(DriverTest):
    def refused(self, code, expected, rules=';;', mode=STRICT, **options):
        answer = self.failure(f'{rules}\n{code}', 'SecurityViolation', mode=mode, **options)
        self.assertEqual(answer.error, f'Security violation: {expected}')
        self.assertIsNone(answer.traceback)
        self.assertEqual((answer.stdout, answer.stderr, answer.detail, answer.cut), ('', '', None, 0))
        return answer

    def strict(self, code, rules=';;', **options):
        return self.value(f'{rules}\n{code}', mode=STRICT, **options)

    def test_nothing_runs_and_the_state_stays(self):
        self.strict('x = 42')
        answer = self.refused('print("here")\nx = 1\neval("1")', pattern('eval( (line 3)'), context={'x': 7, 'y': 1})
        self.assertEqual(answer.locals, {'x': 42})
        self.assertEqual(self.strict('x'), '42')
        self.failure(';;\ny', 'NameError', mode=STRICT)

    def test_only_where_it_is_asked_for(self):
        self.assertEqual(self.value('eval("1 + 1")'), '2')
        self.refused('eval("1 + 1")', pattern('eval( (line 1)'))
        self.assertEqual(self.value('eval("1 + 1")'), '2')

    def test_with_the_other_mode(self):
        self.refused('result = eval("1")', pattern('eval( (line 1)'), mode=STRICT | 1)
        self.assertEqual(self.value(';;\nresult = 2\n3', mode=STRICT | 1), '2')

    def test_a_line_of_rules(self):
        self.refused('import json', imported('json (line 1)'), rules='json;;')
        self.assertEqual(self.strict('import threading\nopen', rules=';threading;open')[:10], '<built-in ')

    def test_lines_are_the_users(self):
        answer = self.failure(';;\nx = 1\n1 / 0', 'ZeroDivisionError', mode=STRICT)
        self.assertIn('line 2, in <module>\n    1 / 0\n', answer.traceback)
        self.assertIn('line 1\n    x = = 2\n', self.failure(';;\nx = = 2', 'SyntaxError', mode=STRICT).traceback)

    def test_empty(self):
        self.assertIsNone(self.strict(''))

    def test_await(self):
        self.assertIsNone(self.strict('import asyncio\nwhile True:\n    await asyncio.sleep(0)\n    break'))

    def test_modules_of_earlier_cells(self):
        self.strict('import os as o')
        self.refused('o.system("ls")', imported('os.system (line 1)'))
        self.refused('def f():\n    return o.popen', imported('os.popen (line 2)'))

    def test_names_of_earlier_cells_and_of_the_context(self):
        self.strict('def input(x): return x + 1')
        self.assertEqual(self.strict('input(2)'), '3')
        self.assertEqual(self.strict('dir.upper()', context={'dir': 'a'}), "'A'")
        self.strict('del input')
        self.refused('input(2)', pattern('input( (line 1)'))

    def test_a_builtin_under_its_own_name(self):
        self.value('open = open')
        self.refused('open("f")', pattern('open( (line 1)'))

    def test_a_name_of_the_users_that_looks_like_a_module(self):
        self.strict('class os:\n    system = print')
        self.assertIsNone(self.strict('os.system("hello")'))

    def test_a_module_without_an_honest_name(self):
        self.strict('import types\nm = types.ModuleType("m")\nm.__name__ = 5')
        self.assertEqual(self.strict('m.__name__'), '5')


if __name__ == '__main__':
    unittest.main()
