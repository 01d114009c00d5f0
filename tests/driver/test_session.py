# SPDX-License-Identifier: Apache-2.0
import builtins
import os
import unittest

import codemode_driver
from support import DriverTest


class Values(DriverTest):
    def test_last_expression(self):
        self.assertEqual(self.value('x = 42\nx * 2'), '84')
        self.assertEqual(self.value('x += 10\nx'), '52')
        self.assertEqual(self.value('"a"'), "'a'")

    def test_no_result(self):
        for code in ('', '# nothing', 'None', 'y = 1', '5\ny = 1', 'for i in range(3): i'):
            self.assertIsNone(self.value(code), code)

    def test_underscore(self):
        self.value('6 * 7')
        self.assertEqual(self.value('_ + 1'), '43')
        self.value('None')
        self.assertEqual(self.value('_'), '43')
        self.assertEqual(self.value('_ = 5\n8\nNone'), None)
        self.assertEqual(self.value('_'), '5')

    def test_result_is_cut(self):
        result = self.value('"a" * 100000', result_max=1000)
        self.assertLessEqual(len(result), 1000)
        self.assertRegex(result, r"^'a{900,}\n\[\.\.\. 99,\d\d\d characters left out \.\.\.\]")

    def test_result_counts_bytes(self):
        for text in ('"é" * 600', '"\U0001f600" * 400'):
            self.assertLessEqual(len(self.value(text, result_max=1000).encode()), 1000)
        self.assertEqual(self.value('"é" * 400', result_max=1000), repr('é' * 400))

    def test_no_lone_surrogates(self):
        self.assertEqual(self.value(r'''class S:
    def __repr__(self): return 'a\ud800b'
S()'''), r'a\ud800b')

    def test_repr_of_a_str_subclass(self):
        self.assertEqual(self.value('''
class T(str):
    def encode(self, *a): return b'forged'
    def __len__(self): return 0
    def __getitem__(self, i): return 'forged'
class S:
    def __repr__(self): return T('true')
S()'''), 'true')

    def test_oneshot(self):
        self.assertEqual(self.value('result = "a"', mode=1), 'a')
        self.assertEqual(self.value('result = {"a": 1}\n5', mode=1), "{'a': 1}")
        self.assertEqual(self.value('result = None', mode=1), 'None')
        self.assertEqual(self.value('result = "a"\n5', mode=0), '5')

    def test_oneshot_result_of_an_earlier_cell(self):
        self.value('result = 1', mode=1)
        self.assertEqual(self.value('5', mode=1), '5')
        self.assertEqual(self.value('result = 1', mode=1), '1')
        self.assertEqual(self.value('def f():\n  global result\n  result = 1\nf()', mode=1), '1')

    def test_oneshot_gets_its_context_as_a_whole(self):
        self.assertEqual(self.value('context["a"] + config["b"]', mode=1, context={'a': 1}, config='{"b": 2}'), '3')
        self.assertEqual(self.value('context, config', mode=1), '(None, {})')
        self.assertEqual(self.value('a, print, context["print"]', mode=1, context={'a': 1, 'print': 2}),
                         '(1, <built-in function print>, 2)')
        self.assertEqual(self.value('result + 1', mode=1, context={'result': 1}), '2')

    def test_config_is_there_when_it_was_sent(self):
        self.failure('config', 'NameError')
        self.assertEqual(self.run_cell('context = [context]', mode=1, context={'b': 1}).locals, {'b': 1, 'context': [{'b': 1}]})
        self.assertEqual(self.run_cell('del context, config', config='{"b": 2}', mode=1).locals, {'b': 1})
        self.assertEqual(self.value('config', config='{"b": 2}'), "{'b': 2}")
        self.assertEqual(self.value('config', config=None), "{'b': 2}")  # a variable like others


class State(DriverTest):
    def test_kept_between_cells(self):
        self.value('import math\ndef f(): return math.pi\nclass A: pass\nimport io\nfile = io.StringIO("abc")')
        self.assertEqual(self.value('file.read(1), isinstance(A(), A), round(f())'), "('a', True, 3)")
        self.assertEqual(self.value('file.read()'), "'bc'")

    def test_main_module(self):
        self.assertEqual(self.value('x = 1\nimport sys\nsys.modules["__main__"].x, __name__'), "(1, '__main__')")
        self.assertEqual(self.value('import pickle\nclass A: pass\ntype(pickle.loads(pickle.dumps(A()))) is A'), 'True')

    def test_kept_after_an_error(self):
        self.failure('x = 5\n1 / 0', 'ZeroDivisionError')
        self.assertEqual(self.value('x'), '5')

    def test_future_imports_stay(self):
        self.value('from __future__ import annotations')
        self.assertEqual(self.value('def f(a: nowhere): pass\nf.__annotations__'), "{'a': 'nowhere'}")

    def test_context(self):
        answer = self.run_cell('a + b["c"][0]', context={'a': 1, 'b': {'c': [2]}})
        self.assertEqual(answer.result, '3')
        self.assertEqual(answer.locals, {'a': 1, 'b': {'c': [2]}})
        self.assertEqual(self.value('globals()["not a name"]', context={'not a name': 7}), '7')
        self.assertEqual(self.value('a', context={}), '1')

    def test_bad_context(self):
        self.failure('1', 'TypeError', context='[1]')
        self.failure('1', 'JSONDecodeError', context='{')
        self.assertEqual(self.value('1', context='{}'), '1')

    def test_context_variables(self):
        self.value('import decimal\ndecimal.getcontext().prec = 5')
        self.assertEqual(self.value('decimal.Decimal(1) / 3'), "Decimal('0.33333')")
        self.value('import asyncio\nawait asyncio.sleep(0)\ndecimal.getcontext().prec = 4')
        self.assertEqual(self.value('decimal.Decimal(1) / 3'), "Decimal('0.3333')")
        self.assertEqual(self.value('await asyncio.sleep(0, decimal.Decimal(1) / 3)'), "Decimal('0.3333')")

    def test_recursion_limit_is_no_trap(self):
        self.failure('import sys\nsys.setrecursionlimit(60)\ndef f(): f()\nf()', 'RecursionError')
        self.assertEqual(self.value('1 + 1'), '2')

    def test_trace_function_does_not_stay(self):
        self.value('import sys\nsys.settrace(lambda *a: 1 / 0)')
        self.assertEqual(self.value('sys.gettrace()'), None)


class Files(DriverTest):
    def test_a_module_of_the_users_own(self):
        self.assertEqual(self.value("""
import os, tempfile
folder = tempfile.mkdtemp()
os.chdir(folder)
with open('written_here.py', 'w') as file: print('answer = 42', file=file)
import written_here
written_here.answer"""), '42')
        os.chdir('/')


class Sources(DriverTest):
    def test_getsource(self):
        self.value('def f():\n    return 1')
        self.value('x = 1')
        self.assertEqual(self.value('import inspect\ninspect.getsource(f)'), repr('def f():\n    return 1'))

    def test_kept_for_a_thousand_cells(self):
        import linecache
        self.value('def f():\n    return 1 / 0')
        self.assertIn('<cell 1>', linecache.cache)
        for _ in range(1000):
            self.value('x = 1')
        self.assertNotIn('<cell 1>', linecache.cache)
        self.assertIn('<cell 2>', linecache.cache)
        self.assertEqual(sum(name.startswith('<cell ') for name in linecache.cache), 1000)

    def test_warnings(self):
        code = 'import warnings\nwarnings.warn("careful")'
        for number in (1, 2):  # the same line of another cell warns again
            answer = self.run_cell(code)
            self.assertEqual(answer.stderr, f'<cell {number}>:2: UserWarning: careful\n  warnings.warn("careful")\n')
        self.assertIn('<cell 3>:1: SyntaxWarning', self.run_cell('x = 1 is 1').stderr)


class Ends(DriverTest):
    def test_exit(self):
        for code in ('exit()', 'quit()', 'import sys\nsys.exit()', 'sys.exit(0)', 'raise SystemExit', 'exit(False)'):
            answer = self.run_cell(code)
            self.assertEqual((answer.success, answer.result, answer.error), (True, None, None), code)

    def test_exit_with_a_code(self):
        for code, text in (('exit(3)', '3'), ('quit("why")', 'why'), ('import sys; sys.exit(-1)', '-1')):
            answer = self.failure(code, 'SystemExit')
            self.assertEqual(answer.error, f'SystemExit: {text}')
            self.assertIsNone(answer.traceback)
        self.assertEqual(self.value('1'), '1')

    def test_exit_with_a_bad_code(self):
        self.failure('class C:\n  def __str__(self): 1 / 0\nexit(C())', 'SystemExit')
        self.failure('class C:\n  def __eq__(self, o): return True\nexit(C())', 'SystemExit')

    def test_exit_in_a_coroutine(self):
        self.failure('import asyncio\nasync def f(): exit(4)\nawait f()', 'SystemExit')
        self.failure('asyncio.run(f())', 'SystemExit')
        self.assertEqual(self.value('await asyncio.sleep(0, 1)'), '1')

    def test_input(self):
        answer = self.failure('input("name? ")', 'EOFError')
        self.assertIn('no terminal', answer.error)
        self.assertIn('context', answer.error)
        self.assertEqual(self.value('import io, sys\nsys.stdin = io.StringIO("line\\n")\ninput()'), "'line'")

    def test_bad_source(self):
        self.failure('a\0b', 'SyntaxError')
        self.failure('"\ud800"', 'UnicodeEncodeError')
        self.assertFalse(self.run_cell('(' * 300 + ')' * 300).success)
        self.assertFalse(self.run_cell('-' * 200000 + '1').success)
        self.assertEqual(self.value('1'), '1')

    def test_ruined_builtins(self):
        names = builtins.__dict__
        saved = dict(names)
        code = 'import builtins\nfor n in list(vars(builtins)): setattr(builtins, n, None)'
        try:
            codemode_driver.execute(code, None, 0, 1000, 1000)
            answer = codemode_driver.execute('1', None, 0, 1000, 1000)
        finally:
            names.update(saved)
        self.assertIs(answer[0], False)
        self.assertEqual(len(answer), 8)


if __name__ == '__main__':
    unittest.main()
