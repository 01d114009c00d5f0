# SPDX-License-Identifier: Apache-2.0
import array
import collections
import inspect
import unittest

from codemode_driver import memory, session
from support import DriverTest


class Sizes(unittest.TestCase):
    def size(self, value):
        return memory._Scale(memory.VISITS_MAX).size(value)

    def about(self, value, expected):
        self.assertGreater(self.size(value), expected * 0.7, type(value))
        self.assertLess(self.size(value), expected * 1.4, type(value))

    def test_leaves(self):
        for value in (bytes(1 << 20), bytearray(1 << 20), 'a' * (1 << 20), array.array('b', bytes(1 << 20)), 1 << (8 << 20)):
            self.about(value, 1 << 20)

    def test_containers(self):
        pieces = [bytes(10_000) for _ in range(1000)]
        for kind in (list, tuple, set, collections.deque):
            self.about(kind(pieces) if kind is not set else {bytes([n % 256, n >> 8]) * 5000 for n in range(1000)}, 10_000_000)
        self.about(dict(enumerate(pieces)), 10_000_000)
        self.about([[piece] for piece in pieces], 10_000_000)

    def test_one_object_many_times(self):
        self.about([bytes(1 << 20)] * 1000, 1 << 20)

    def test_a_cycle(self):
        cycle = [bytes(1 << 20)]
        cycle.append(cycle)
        self.about(cycle, 1 << 20)

    def test_depth(self):
        nested = []
        for _ in range(100_000):
            nested = [nested]
        self.assertGreater(self.size(nested), 0)
        while nested:
            nested = nested.pop()

    def test_instances(self):
        class Plain:
            pass
        plain = Plain()
        plain.data = bytes(1 << 20)
        self.about(plain, 1 << 20)
        plain = [Plain() for _ in range(1000)]
        for one in plain:
            one.data = bytes(1000)
        self.about(plain, 1_000_000)

    def test_no_code_of_the_users_runs(self):
        def refuse(*args):
            raise AssertionError('ran')
        names = ('__iter__', '__len__', '__getitem__', '__sizeof__', '__hash__', '__eq__', '__bool__', '__getattribute__',
                 'items', 'keys', 'values', '__contains__', '__repr__', '__class__', '__index__')
        meta = type('Meta', (type,), dict.fromkeys(('__instancecheck__', '__subclasscheck__', '__hash__', '__eq__'), refuse))
        for base in (object, list, dict, set, str, bytes, collections.OrderedDict, collections.deque):
            evil = meta('Evil', (base,), {name: property(refuse) if name == '__class__' else refuse for name in names})
            self.assertGreater(self.size(evil.__new__(evil)), 0)
            self.assertIn('no variable holds', memory.largest({'evil': evil.__new__(evil), 'kind': evil}))

    def test_huge_containers_take_few_visits(self):
        scale = memory._Scale(memory.VISITS_MAX)
        scale.size([[n] for n in range(200_000)])
        self.assertLess(len(scale.seen), memory.VISITS_MAX)


class Words(DriverTest):
    def test_out_of_memory_names_line_and_variables(self):
        code = 'rows = [bytes(1000) for _ in range(3000)]\ncache = {1: bytes(1 << 20)}\n\nraise MemoryError'
        answer = self.failure(code, 'MemoryError', memory_limit=512 << 20)
        self.assertRegex(answer.error, r'MemoryError: out of memory at line 4 of <cell 1>: [\d.]+ MiB of 512.0 MiB in use, [\d.]+ MiB by the interpreter itself; '
                                       r'largest variables: rows \(list, [23]\.\d MiB\), cache \(dict, 1\.0 MiB\)$')
        self.assertIn(answer.error, answer.traceback)

    def test_variables_of_functions(self):
        answer = self.failure('def load(n):\n    rows = bytes(n)\n    raise MemoryError\nload(1 << 20)', 'MemoryError')
        self.assertIn('at line 3 of <cell 1>', answer.error)
        self.assertIn('rows in load() (bytes, 1.0 MiB)', answer.error)

    def test_nothing_large(self):
        self.assertIn('no variable holds more than 0.1 MiB', self.failure('raise MemoryError', 'MemoryError').error)

    def test_what_the_code_says_itself_stays(self):
        self.assertEqual(self.failure('raise MemoryError("mine")', 'MemoryError').error, 'MemoryError: mine')
        answer = self.failure('class Mine(MemoryError): pass\nraise Mine', 'Mine')
        self.assertEqual(answer.error, 'Mine')

    def test_source_nested_too_deeply(self):
        for code in ('-' * 500_000 + '1', 'eval("-" * 500_000 + "1")'):
            answer = self.failure(code, 'MemoryError')
            self.assertIn('the source code is nested too deeply', answer.error)
            self.assertNotIn('out of memory', answer.error)
        self.assertEqual(self.value('1'), '1')

    def test_frames_are_freed(self):
        self.value('import weakref\nclass Big: pass\nkept = []')
        self.failure('def f():\n    b = Big()\n    kept.append(weakref.ref(b))\n    raise MemoryError\nf()', 'MemoryError')
        self.assertEqual(self.value('kept[0]()'), None)


class Recursion(DriverTest):
    DEPTH = 'def f(n):\n    return n and f(n - 1)\n'

    def test_a_cell_has_a_thousand_frames_of_its_own(self):
        around = len(inspect.stack(0))  # frames of the tests, which a session does not have below it
        for tail in ('f(998)', 'import asyncio\nawait asyncio.sleep(0)\nf(998)'):
            self.assertEqual(self.value(self.DEPTH + tail, recursion=1000 + around), '0')
            self.failure(self.DEPTH + 'f(1100)', 'RecursionError', recursion=1000 + around)

    def test_as_many_as_were_asked_for(self):
        self.assertEqual(self.value(self.DEPTH + 'f(4900)', recursion=5000), '0')
        self.failure('f(4998)', 'RecursionError', recursion=3000)
        self.failure('f(4998)', 'RecursionError')

    def test_a_low_limit_holds_for_one_cell(self):
        around = len(inspect.stack(0))
        self.failure(self.DEPTH + 'f(200)', 'RecursionError', recursion=100 + around)
        self.assertEqual(self.value('f(90)', recursion=100 + around), '0')
        self.failure('f(200)', 'RecursionError', recursion=100 + around)
        self.assertEqual(self.value('f(900)'), '0')

    def test_the_codes_own_limit_stays(self):
        self.value(self.DEPTH + 'import sys\nsys.setrecursionlimit(3000)')
        self.assertEqual(self.value('f(2900)'), '0')
        self.assertEqual(self.value('sys.getrecursionlimit()'), '3000')


class Cuts(DriverTest):
    def test_each_is_told(self):
        self.assertEqual(self.run_cell('1').cut, 0)
        self.assertEqual(self.run_cell('"a" * 5000', result_max=1000).cut, session.CUT_RESULT)
        self.assertEqual(self.run_cell('raise ValueError("a" * 5000)', result_max=1000).cut,
                         session.CUT_ERROR | session.CUT_TRACEBACK)
        self.assertEqual(self.run_cell('for n in range(100): globals()[f"n{n}"] = n', locals_max=500).cut, session.CUT_LOCALS)


if __name__ == '__main__':
    unittest.main()
