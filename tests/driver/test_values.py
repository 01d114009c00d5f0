# SPDX-License-Identifier: Apache-2.0
import json
import time
import unittest

from support import DriverTest


class Locals(DriverTest):
    def see(self, code, **options):
        self.value(code, **options)
        answer = self.run_cell('', **options)
        return answer.locals

    def test_which_names(self):
        self.assertEqual(self.see('a = 1\n_b = 2\n__c = 3'), {'a': 1})
        self.assertEqual(self.see('del a'), {})

    def test_plain_values(self):
        seen = self.see('''
a, b, c, d, e, f = None, True, 42, 2.5, 'text', b'bytes'
g, h, i, j = [1, [2]], (1, 2), {3}, frozenset({4})
k = {'a': {'b': [1]}, 1: 2, (1, 'x'): 3, None: 4}
l, m, n = float('nan'), float('inf'), -float('inf')''')
        self.assertEqual(seen, {
            'a': None, 'b': True, 'c': 42, 'd': 2.5, 'e': 'text', 'f': "b'bytes'", 'g': [1, [2]], 'h': [1, 2], 'i': [3],
            'j': [4], 'k': {'a': {'b': [1]}, '1': 2, "(1, 'x')": 3, 'None': 4}, 'l': 'nan', 'm': 'inf', 'n': '-inf'})

    def test_known_types(self):
        seen = self.see('''
import datetime as D, decimal as M, fractions as F, pathlib as P, uuid as U, collections as C
a = D.datetime(2024, 1, 2, tzinfo=D.timezone.utc)
b, c, d = M.Decimal('1.5'), F.Fraction(1, 3), P.PurePosixPath('/a')
e, f, g = U.UUID(int=1), range(3), 1 + 2j
h, i = C.deque([1, 'a']), C.OrderedDict(x=1)
j, k = C.Counter('aab'), C.defaultdict(list, x=[1])
l, m = D.date(2024, 1, 2), D.timedelta(1)''')
        wanted = {
            'a': 'datetime.datetime(2024, 1, 2, 0, 0, tzinfo=datetime.timezone.utc)', 'b': "Decimal('1.5')",
            'c': 'Fraction(1, 3)', 'd': "PurePosixPath('/a')", 'e': "UUID('00000000-0000-0000-0000-000000000001')",
            'f': 'range(0, 3)', 'g': '(1+2j)', 'h': "deque([1, 'a'])", 'i': "OrderedDict({'x': 1})",
            'j': "Counter({'a': 2, 'b': 1})", 'k': "defaultdict({'x': [1]})", 'l': 'datetime.date(2024, 1, 2)',
            'm': 'datetime.timedelta(days=1)'}
        self.assertEqual({name: seen[name] for name in wanted}, wanted)

    def test_everything_else_is_a_repr(self):
        seen = self.see('import math\ndef f(): pass\nclass A: pass\na = A()\ng = (i for i in [])\nl = len\nm = a.__str__')
        self.assertEqual(seen['math'], "<module 'math'>")
        self.assertRegex(seen['f'], r'^<function f at 0x')
        self.assertEqual(seen['A'], "<class '__main__.A'>")
        self.assertRegex(seen['a'], r'^<__main__\.A object at 0x')
        self.assertRegex(seen['g'], r'^<generator object at 0x')
        self.assertEqual(seen['l'], '<built-in function len>')

    def test_no_user_code_runs(self):
        seen = self.see('''
import datetime, fractions
def no(*a): print('ran'); raise SystemExit
hooks = ('__repr__ __str__ __len__ __iter__ __getitem__ __getattribute__ __getattr__ __hash__ __eq__ __bool__ __format__ '
         '__index__ __int__ __float__ __instancecheck__ __subclasscheck__ __dir__ __iter__ __next__ __contains__').split()
armed = []
class Meta(type): pass
def make(base, *args):
    cls = Meta('Odd', (base,), {})
    one = cls(*args)
    armed.append(cls)
    return one
a, b, c, d, e = make(object), make(list, [1]), make(dict), make(str, 'x'), make(int, 5)
class Zone(datetime.tzinfo):
    def utcoffset(self, when): return datetime.timedelta(0)
f = datetime.datetime(2024, 1, 1, tzinfo=Zone())
g = {1: a, 'k': [b, c]}
h = fractions.Fraction(1, 2)
h._numerator = e
i = datetime.timezone(make(datetime.timedelta, 0))
Module = Meta('Odd', (type(datetime),), {})
j = Module('j')
for cls in [*armed, Module, Meta, Zone]:
    for hook in hooks:
        setattr(cls, hook, no) if cls is not Meta or hook != '__getattribute__' else None
Meta.__getattribute__ = no
''')
        self.assertEqual(self.run_cell('').stdout, '')
        self.assertRegex(seen['a'], r'^<__main__\.Odd object at 0x')
        self.assertRegex(seen['f'], r'^<datetime\.datetime object at 0x')
        self.assertRegex(seen['h'], r'^<fractions\.Fraction object at 0x')
        self.assertRegex(seen['g']['k'][0], r'^<__main__\.Odd object at 0x')

    def test_odd_keys(self):
        seen = self.see('class K:\n  def __hash__(self): return 1\nd = {K(): 1, 1: 2, "1": 3, "\\ud800": 4}')['d']
        self.assertEqual(seen['1'], 2)
        self.assertEqual(seen["'1'"], 3)
        self.assertEqual(seen['\\ud800'], 4)
        self.assertEqual(len(seen), 4)

    def test_numbers(self):
        seen = self.see('a, b, c = 2**63 - 1, 2**63, -2**63\nd = 10**5000\ne = [10**5000, d]')
        self.assertEqual((seen['a'], seen['b'], seen['c']), (2**63 - 1, str(2**63), -2**63))
        self.assertEqual(seen['d'], '<int of 16,610 bits>')
        self.assertEqual(seen['e'][0], '<int of 16,610 bits>')

    def test_cycles_and_depth(self):
        seen = self.see('a = []\na.append(a)\nb = {}\nb["b"] = b\nc = [[[[[[[[[1]]]]]]]]]\nimport collections\n'
                        'd = collections.deque()\nd.append(d)\nf = [a] * 90\nf.extend([f] * 10)')
        self.assertEqual(seen['a'], [[[[[[['…']]]]]]])
        self.assertEqual(seen['c'], [[[[[[['…']]]]]]])
        self.assertIn('…', seen['d'])
        self.assertLess(len(json.dumps(seen)), 20000)

    def test_long_values(self):
        self.value('s = "a" * 10**7\nb = bytes(10**7)\nl = list(range(10**6))\nd = dict.fromkeys(range(10**6))\nt = {*l}')
        start = time.perf_counter()
        seen = self.run_cell('').locals
        self.assertLess(time.perf_counter() - start, 1)
        self.assertEqual(seen['s'], 'a' * 1000 + '… (9,999,000 more characters)')
        self.assertEqual(seen['l'], [*range(100), '… 999,900 more'])
        self.assertEqual(seen['d']['…'], '999,900 more')
        self.assertTrue(seen['b'].endswith('(9,999,000 more bytes)'))

    def test_one_value_is_bounded(self):
        seen = self.see('l = ["x" * 900] * 50\nd = {str(i): "y" * 900 for i in range(50)}')
        self.assertLess(len(json.dumps(seen)), 15000)
        self.assertRegex(seen['l'][-1], r'^… \d+ more$')

    def test_total_is_bounded(self):
        self.value('for i in range(10000): globals()[f"name{i}"] = "é" * 50')
        for limit in (1000, 5000, 64, 10, 2, 0):
            seen = self.run_cell('', locals_max=limit).locals  # run_cell checks the length
            if limit >= 1000:
                self.assertEqual(int(seen['…'].split()[0].replace(',', '')) + len(seen) - 1, 10001)

    def test_text(self):
        seen = self.see(r'a, b = "\ud800x", "\0"')
        self.assertEqual(seen, {'a': r'\ud800x', 'b': '\0'})

    def test_strange_names(self):
        seen = self.see('globals().update({1: 2, "a b": 3, "\\ud800": 4})')
        self.assertEqual(seen, {'a b': 3, '\\ud800': 4})


if __name__ == '__main__':
    unittest.main()
