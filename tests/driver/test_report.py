# SPDX-License-Identifier: Apache-2.0
import unittest

from codemode_driver import report
from support import DriverTest


class Format(DriverTest):
    def test_frames_and_carets(self):
        self.value('def f(a):\n    return 1 / a')
        answer = self.failure('f(\n  0)', 'ZeroDivisionError')
        self.assertEqual(answer.error, 'ZeroDivisionError: division by zero')
        self.assertEqual(answer.traceback, '''\
Traceback (most recent call last):
  File "<cell 2>", line 1, in <module>
    f(
    ~^
      0)
      ^^
  File "<cell 1>", line 2, in f
    return 1 / a
           ~~^~~
ZeroDivisionError: division by zero
''')
        self.assertEqual(answer.stderr, answer.traceback)
        self.assertEqual(answer.stdout, '')

    def test_syntax_error(self):
        answer = self.failure('x = 1\nx = = 2', 'SyntaxError')
        self.assertEqual(answer.traceback, '''\
  File "<cell 1>", line 2
    x = = 2
        ^
SyntaxError: invalid syntax
''')
        self.assertEqual(answer.error, 'SyntaxError: invalid syntax')

    def test_syntax_error_of_the_compiler(self):
        answer = self.failure('\nreturn 1', 'SyntaxError')
        self.assertIn('line 2\n    return 1\n    ^^^^^^^^\n', answer.traceback)

    def test_indentation_error(self):
        self.failure('if 1:\nx', 'IndentationError')

    def test_nothing_runs_before_a_syntax_error(self):
        self.failure('x = 1\nprint(1)\nreturn', 'SyntaxError')
        self.failure('x', 'NameError')

    def test_chain(self):
        trace = self.failure('try:\n  1 / 0\nexcept Exception as e:\n  raise KeyError("k") from e', 'KeyError').traceback
        self.assertIn('\nThe above exception was the direct cause of the following exception:\n', trace)
        self.assertEqual(trace.count('Traceback (most recent call last)'), 2)
        trace = self.failure('try:\n  1 / 0\nexcept Exception:\n  x', 'NameError').traceback
        self.assertIn('\nDuring handling of the above exception, another exception occurred:\n', trace)
        trace = self.failure('try:\n  1 / 0\nexcept Exception:\n  raise KeyError from None', 'KeyError').traceback
        self.assertNotIn('ZeroDivisionError', trace)

    def test_group(self):
        trace = self.failure('raise ExceptionGroup("g", [ValueError(1), TypeError(2)])', 'ExceptionGroup').traceback
        self.assertIn('  | ExceptionGroup: g (2 sub-exceptions)\n', trace)
        self.assertIn('    | TypeError: 2\n', trace)

    def test_task_group(self):
        trace = self.failure('''
import asyncio
async def f(): 1 / 0
async with asyncio.TaskGroup() as group:
    group.create_task(f())''', 'ExceptionGroup').traceback
        self.assertIn('File "<cell 1>", line 3, in f', trace)
        self.assertNotIn('codemode_driver', trace)
        self.assertNotIn('run_until_complete', trace)

    def test_notes_and_suggestions(self):
        self.assertTrue(self.failure('e = ValueError("v")\ne.add_note("a note")\nraise e', 'ValueError')
                        .traceback.endswith('ValueError: v\na note\n'))
        self.assertIn("Did you mean: 'value'", self.failure('value = 1\nvalu', 'NameError').error)

    def test_class_names(self):
        self.assertTrue(self.failure('import json\njson.loads("{")', 'JSONDecodeError').error
                        .startswith('json.decoder.JSONDecodeError: '))
        self.assertEqual(self.failure('class Mine(Exception): pass\nraise Mine', 'Mine').error, 'Mine')

    def test_only_the_users_frames(self):
        for code in ('1 / 0', 'import asyncio\nasync def f(): 1 / 0\nawait f()', 'await asyncio.gather(f())',
                     'def g(): input()\ng()', 'exec("1 / 0")', 'import nowhere_at_all'):
            trace = self.run_cell(code).traceback
            self.assertRegex(trace, r'^Traceback \(most recent call last\):\n  File "<cell \d>"')
            self.assertNotIn('codemode_driver', trace)
            self.assertNotIn('importlib', trace)
            self.assertNotIn('base_events', trace)

    def test_import_of_a_broken_module(self):
        trace = self.failure('''
import sys, importlib.abc, importlib.util
class Loader(importlib.abc.InspectLoader):
    def get_source(self, name): return '1 / 0'
    def find_spec(self, name, path, target=None):
        if name == 'broken_module': return importlib.util.spec_from_loader(name, self)
sys.meta_path.insert(0, Loader())
try:
    import broken_module
finally:
    del sys.meta_path[0]''', 'ZeroDivisionError').traceback
        self.assertNotIn('importlib._bootstrap', trace)


class Bounds(DriverTest):
    def test_recursion_is_folded(self):
        trace = self.failure('def f(): f()\nf()', 'RecursionError').traceback
        self.assertRegex(trace, r'\[Previous line repeated (9|10)\d\d more times\]')
        self.assertLess(len(trace), 1000)

    def test_mutual_recursion_is_cut(self):
        trace = self.failure('def f(): g()\ndef g(): f()\nf()', 'RecursionError', result_max=2000).traceback
        self.assertLessEqual(len(trace.encode()), 2000)
        self.assertIn('in <module>', trace)
        self.assertIn('characters left out', trace)
        self.assertTrue(trace.endswith('RecursionError: maximum recursion depth exceeded\n'))

    def test_very_deep_traceback(self):
        trace = self.failure('''
import sys
sys.setrecursionlimit(20000)
def f(n):
    if n: g(n - 1)
    else: 1 / 0
def g(n): f(n)
f(9000)''', 'ZeroDivisionError').traceback
        self.assertRegex(trace, r'\[1\d,\d\d\d frames are not shown\]')

    def test_long_chain(self):
        answer = self.failure('''
e = None
for i in range(100000):
    n = ValueError(i)
    n.__cause__ = e
    e = n
raise e''', 'ValueError')
        self.assertEqual(answer.error, 'ValueError: 99999')
        self.assertEqual(answer.traceback.count('direct cause'), report.CHAIN_MAX - 1)
        self.assertTrue(answer.traceback.startswith('[earlier exceptions of this chain are not shown]'))

    def test_cyclic_chain(self):
        self.failure('a, b = ValueError(1), ValueError(2)\na.__context__ = b\nb.__cause__ = a\nraise a', 'ValueError')

    def test_deep_and_wide_groups(self):
        self.failure('e = ValueError()\nfor i in range(50000): e = ExceptionGroup("g", [e])\nraise e', 'ExceptionGroup')
        trace = self.failure('raise ExceptionGroup("g", [ValueError(i) for i in range(100000)])', 'ExceptionGroup').traceback
        self.assertIn('and 99985 more exceptions', trace)
        self.failure('''
def tree(n): return ExceptionGroup("g", [tree(n - 1) for i in range(4)]) if n else ValueError(n)
raise tree(6)''', 'ExceptionGroup')

    def test_long_message(self):
        answer = self.failure('raise ValueError("m" * 10**7)', 'ValueError', result_max=5000)
        self.assertTrue(answer.error.startswith('ValueError: mmm'))
        self.assertLessEqual(len(answer.traceback), 5000)


class Hostile(DriverTest):
    def test_str_that_raises(self):
        answer = self.failure('class E(Exception):\n  def __str__(self): raise KeyError\nraise E', 'E')
        self.assertEqual(answer.error, 'E: <exception str() failed>')

    def test_str_that_exits(self):
        for what in ('SystemExit', 'KeyboardInterrupt', 'MemoryError'):
            self.failure(f'class E(Exception):\n  def __str__(self): raise {what}\nraise E', 'E')

    def test_str_that_recurses(self):
        self.failure('class E(Exception):\n  def __str__(self): return str(self)\nraise E', 'E')

    def test_surrogates(self):
        self.assertEqual(self.failure(r'raise ValueError("\ud800")', 'ValueError').error, r'ValueError: \ud800')

    def test_hidden_attributes(self):
        self.failure('''
class E(Exception):
    __traceback__ = __cause__ = __context__ = property(lambda self: 1 / 0)
    __notes__ = 5
    def __getattribute__(self, name): raise RuntimeError(name)
raise E''', 'E')

    def test_metaclass(self):
        answer = self.run_cell('''
class M(type):
    __name__ = property(lambda self: 1 / 0)
    def __getattribute__(self, name): raise RuntimeError(name)
class E(Exception, metaclass=M): pass
raise E''')
        self.assertEqual((answer.success, answer.error_type), (False, 'E'))

    def test_no_memory(self):
        answer = self.failure('def f():\n  x = "m" * 1000\n  raise MemoryError\nf()', 'MemoryError')
        self.assertIn('in f', answer.traceback)
        self.assertEqual(self.value('1'), '1')

    def test_base_exceptions(self):
        self.failure('raise KeyboardInterrupt', 'KeyboardInterrupt')
        self.failure('raise GeneratorExit', 'GeneratorExit')
        self.failure('class B(BaseException): pass\nraise B', 'B')

    def test_replaced_traceback_module(self):
        self.value('import traceback\nsaved = traceback.TracebackException\ntraceback.TracebackException = None')
        try:
            self.assertIn('ZeroDivisionError', self.failure('1 / 0', 'ZeroDivisionError').error)
        finally:
            self.value('traceback.TracebackException = saved')


if __name__ == '__main__':
    unittest.main()
