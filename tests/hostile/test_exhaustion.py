# SPDX-License-Identifier: Apache-2.0
"""Code that wants all of the machine: time, memory, stacks, output. Each has its limit, and each limit its answer."""

import pytest

from attack import EXC, HARMLESS, ROLLED, SOFT, Attack, parameters, perform

STAGE = "guest"

#: Output is cut at MAX_OUTPUT (256 KiB) and says so; what a cut adds is short.
CUT = (256 << 10) + 4096

TIME = [
    Attack("power tower", "10 ** 10 ** 8", SOFT | ROLLED | EXC),
    Attack("shift by 2^34", "1 << (1 << 34)", EXC | ROLLED, says="MemoryError|OverflowError"),
    Attack("factorial of ten million", "import math\nmath.factorial(10 ** 7)", SOFT | ROLLED),
    Attack("number of ten million digits", "int('9' * 10 ** 7)", EXC, says="ValueError.*4300"),
    Attack("text of a huge number", "str(1 << 10 ** 6)", EXC, says="ValueError.*4300"),
    Attack("huge number without the guard", "import sys\nsys.set_int_max_str_digits(0)\nlen(str(1 << 10 ** 8))", SOFT | ROLLED | EXC),
    Attack("catastrophic regular expression", "import re\nre.match('(a+)+$', 'a' * 60 + 'b')", SOFT | ROLLED),
    Attack("catastrophic alternatives", "import re\nre.match('(a|aa|a?)+$', 'a' * 10_000 + '!')", SOFT | ROLLED),
    Attack("regular expression of nested counts", "import re\nre.compile('((((x{1,900}){1,900}){1,900}){1,900})*').match('x' * 10 ** 6)", SOFT | ROLLED | EXC | HARMLESS),
    Attack("deaf sleep", "import time\nwhile True:\n    try: time.sleep(10 ** 9)\n    except BaseException: pass", ROLLED | SOFT),
    Attack("sleep of ages", "import time\ntime.sleep(10 ** 9)", SOFT),
    Attack("input that never comes", "input()", EXC, says="EOFError"),
    Attack("wait for a descriptor", "import select\nselect.select([0], [], [], 10 ** 6)", SOFT | EXC | HARMLESS),
    Attack("colliding integers", "m = (1 << 61) - 1\nlen({m * i for i in range(60_000)}) + len({i << 61 for i in range(60_000)})", SOFT | ROLLED | HARMLESS),
    Attack("hash that never agrees", "class K:\n    def __hash__(self): return 7\nlen({K() for _ in range(20_000)})", SOFT | HARMLESS),
    Attack("huge decimal", "import decimal\ndecimal.getcontext().prec = decimal.MAX_PREC\ndecimal.Decimal(1) / 3", EXC | ROLLED | SOFT),
    Attack("decimal exponent", "import decimal\nint(decimal.Decimal('1e1000000000'))", EXC | ROLLED | SOFT),
    Attack("fraction of a huge exponent", "import fractions\nfractions.Fraction('1e100000000')", SOFT | ROLLED | EXC),
    Attack("million compilations", "while True: compile('x = ' + '+'.join('1' * 1000), 'f', 'exec')", SOFT | ROLLED),
    Attack("comprehension over infinity", "import itertools\n[x for x in itertools.count() if x < 0]", SOFT),
    Attack("C loop over infinity", "import itertools, collections\ncollections.deque(itertools.repeat(1), maxlen=0)", ROLLED | SOFT),
    Attack("finaliser that never ends", "class F:\n    def __del__(self):\n        while True: pass\nF() and None", SOFT | ROLLED),
    Attack("thread that never ends", "import threading\ndef run():\n    while True: pass\nt = threading.Thread(target=run); t.start(); t.join()", SOFT | ROLLED),
    Attack("asyncio that swallows its cancellation", """
import asyncio
async def stubborn():
    while True:
        try: await asyncio.sleep(100)
        except BaseException: pass
await stubborn()
""", SOFT | ROLLED, timeout=0.5),
    Attack("exec of itself", "s = 'exec(s)'\nexec(s)", EXC | ROLLED, says="RecursionError"),
]

MEMORY = [
    Attack("list of 10^9", "[0] * 10 ** 9", EXC, says="MemoryError"),
    Attack("text of 10^10", "'x' * 10 ** 10", EXC, says="MemoryError|OverflowError"),
    Attack("doubling list", "a = [0]\nwhile True: a += a", EXC, says="MemoryError", timeout=5),
    Attack("doubling text", "a = 'ab'\nwhile True: a += a", EXC, says="MemoryError", timeout=5),
    Attack("growing bytearray", "b = bytearray()\nwhile True: b.extend(bytes(1 << 20))", EXC, says="MemoryError", timeout=5),
    Attack("flood of keys", "d = {}\nn = 0\nwhile True: d[n] = n; n += 1", EXC | SOFT, says="MemoryError", timeout=10),
    Attack("format with a huge width", "'%*d' % (10 ** 9, 1)", EXC, says="MemoryError|OverflowError"),
    Attack("format spec with a huge width", "f'{1:>{10 ** 9}}'", EXC, says="MemoryError|OverflowError|ValueError"),
    Attack("float with a huge precision", "'%.*f' % (2 ** 31 - 10, 1.5)", EXC, says="MemoryError|OverflowError|ValueError"),
    Attack("caught again and again", """
import time
end, failed = time.monotonic() + 0.5, 0
while time.monotonic() < end:
    try: [0] * 10 ** 9
    except MemoryError: failed += 1
failed > 10
""", HARMLESS, result="True", timeout=3),
    Attack("full to the brim, then failing", """
held = []
size = 1 << 20
while size > 64:
    try: held.append(bytearray(size))
    except MemoryError: size //= 2
import nothing_of_this_name
""", EXC, timeout=10, more="(held := None) is None"),
    Attack("garbage that revives itself", """
class Phoenix:
    def __init__(self): self.me, self.load = self, bytearray(1 << 16)
    def __del__(self): saved.append(Phoenix())
saved = []
while True: Phoenix()
""", EXC | SOFT | ROLLED, timeout=5),
    Attack("permutations of a long list", "import itertools\nlist(itertools.permutations(range(12)))", EXC | ROLLED | SOFT, says="MemoryError", timeout=10),
    Attack("product of a huge repeat", "import itertools\nlist(itertools.product([1], repeat=10 ** 8))", EXC | ROLLED, says="MemoryError|OverflowError"),
    Attack("zlib bomb", "import zlib\nzlib.decompress(zlib.compress(bytes(32 << 20)) * 1) and b''.join(zlib.decompress(zlib.compress(bytes(8 << 20))) for _ in range(100))", EXC | SOFT | ROLLED, says="MemoryError", timeout=5),
    Attack("lzma with a huge dictionary", """
import lzma
filters = [{'id': lzma.FILTER_LZMA2, 'dict_size': 1536 << 20}]
lzma.compress(b'x' * 100, format=lzma.FORMAT_RAW, filters=filters)
""", EXC, says="MemoryError|LZMAError"),
    Attack("bz2 bombs in one another", """
import bz2
data = bytes(1 << 20)
for _ in range(3): data = bz2.compress(data)
for _ in range(3): data = bz2.decompress(data)
while True: data = bz2.decompress(bz2.compress(data + data))
""", EXC | SOFT | ROLLED, timeout=2),
    Attack("zip archive that promises 4 GiB", """
import io, zipfile
buffer = io.BytesIO()
with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('a', bytes(4 << 20))
z = zipfile.ZipFile(buffer)
z.filelist[0].file_size = 1 << 32
b''.join(z.read('a') for _ in range(1000))
""", EXC | SOFT | ROLLED, timeout=5),
    Attack("billion laughs", """
import xml.etree.ElementTree as E
names = [chr(97 + n) * 3 for n in range(12)]
entities = '<!ENTITY aaa "lol">' + ''.join(f'<!ENTITY {b} "' + f'&{a};' * 10 + '">' for a, b in zip(names, names[1:]))
E.fromstring(f'<!DOCTYPE x [{entities}]><x>&{names[-1]};</x>')
""", EXC | SOFT | ROLLED, timeout=4),
    Attack("external entity", """
import xml.etree.ElementTree as E
E.fromstring('<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><x>&f;</x>').text
""", EXC | HARMLESS, result="None"),
    Attack("table of a huge database", """
import sqlite3
db = sqlite3.connect(':memory:')
db.execute('select zeroblob(900000000)').fetchall()
""", EXC, says="MemoryError|DataError|OperationalError"),
    Attack("array of 2^31", "import array\narray.array('q', [0]) * (2 ** 31 - 1)", EXC, says="MemoryError|OverflowError"),
    Attack("huge range in a set", "set(range(10 ** 9))", EXC | SOFT | ROLLED, timeout=10),
    Attack("hundred thousand threads", """
import threading
gate = threading.Event()
try:
    while True: threading.Thread(target=gate.wait, daemon=True).start()
finally: gate.set()
""", EXC, says="RuntimeError", timeout=5),
    Attack("fork bomb", "import os\nwhile True: os.fork()", EXC, says="AttributeError|OSError"),
    Attack("processes of multiprocessing", "import multiprocessing\np = multiprocessing.Process(target=print); p.start()", EXC, says="Error"),
]

STACKS = [
    Attack("recursion with a raised limit", "import sys\nsys.setrecursionlimit(2 ** 31 - 1)\ndef f(n): return f(n + 1) + 1\nf(0)", EXC | ROLLED, says="RecursionError|MemoryError", timeout=5),
    Attack("repr of each other", "class A:\n    def __repr__(self): return repr(b)\nclass B:\n    def __repr__(self): return repr(a)\na, b = A(), B()\na", EXC | HARMLESS, says="RecursionError"),
    Attack("parentheses without end", "eval('(' * 100_000 + ')' * 100_000)", EXC, says="MemoryError|SyntaxError|RecursionError"),
    Attack("minus signs without end", "eval('-' * 200_000 + '1')", EXC, says="MemoryError|SyntaxError|RecursionError"),
    Attack("attributes without end", "eval('a' + '.b' * 100_000)", EXC | ROLLED, says="RecursionError|MemoryError|SyntaxError"),
    Attack("blocks without end", "exec(''.join(' ' * n + 'if 1:\\n' for n in range(2000)) + ' ' * 2000 + 'pass')", EXC, says="IndentationError|SyntaxError|MemoryError"),
    Attack("lambdas without end", "eval('lambda: ' * 50_000 + '1')", EXC | ROLLED, says="RecursionError|MemoryError|SyntaxError"),
    Attack("f-strings in f-strings", "eval(\"f'{\" * 200 + '1' + \"}'\" * 200)", EXC, says="SyntaxError|MemoryError|RecursionError"),
    Attack("syntax tree without end", "import ast\nn = ast.Constant(1)\nfor _ in range(100_000): n = ast.UnaryOp(ast.USub(), n)\neval(compile(ast.fix_missing_locations(ast.Expression(n)), 'x', 'eval'))", EXC | ROLLED, says="RecursionError|MemoryError", timeout=8),
    Attack("deep json", "import json\njson.loads('[' * 10 ** 6)", EXC | ROLLED, says="RecursionError"),
    Attack("deep pickle", "import pickle\nl = []\nfor _ in range(100_000): l = [l]\npickle.dumps(l)", EXC | ROLLED, says="RecursionError"),
    Attack("deep copy", "import copy\nl = []\nfor _ in range(100_000): l = [l]\ncopy.deepcopy(l)", EXC | ROLLED | SOFT, says="RecursionError|MemoryError"),
    Attack("chain of maps", "x = [1]\nfor _ in range(10 ** 6): x = map(int, x)\nlist(x)", EXC | ROLLED | SOFT, timeout=5),
    Attack("chain of exceptions", """
e = None
for _ in range(100_000):
    new = ValueError('x'); new.__cause__ = e; e = new
raise e
""", EXC | ROLLED, timeout=8),
    Attack("exception that is its own cause", "a, b = ValueError('a'), ValueError('b')\na.__cause__, b.__cause__ = b, a\nraise a", EXC, says="ValueError"),
    Attack("groups of exceptions without end", "e = ValueError('x')\nfor _ in range(50_000): e = ExceptionGroup('g', [e])\nraise e", EXC | ROLLED, timeout=8),
    Attack("isinstance through tuples without end", "t = int\nfor _ in range(100_000): t = (t, str)\nisinstance(1.0, t)", EXC | ROLLED | HARMLESS, says="RecursionError"),
    Attack("patterns without end", "import re\nre.compile('(?:' * 5000 + 'x' + ')' * 5000)", EXC | ROLLED, says="RecursionError|MemoryError|error", timeout=5),
]

OUTPUT = [
    Attack("gigabyte of output", "while True: print('x' * 100_000)", SOFT, stdout_max=CUT),
    Attack("line of a hundred megabytes", "import sys\nfor _ in range(100): sys.stdout.write('x' * (1 << 20))", HARMLESS | SOFT | EXC, stdout_max=CUT, timeout=10),
    Attack("million flushes", "for n in range(10 ** 6): print(end='.', flush=True)", HARMLESS | SOFT, stdout_max=CUT, timeout=5),
    Attack("errors without end", "import sys\nwhile True: sys.stderr.write('e' * 65536)", SOFT, stdout_max=0),
    Attack("zeros and invalid text", "import os\nfor fd in (1, 2): os.write(fd, bytes(range(256)) * 400)", HARMLESS, stdout_max=CUT * 3),
    Attack("half a character at the cut", "import os\nos.write(1, 'ü'.encode() * 200_000 + b'\\xc3')", HARMLESS, stdout_max=CUT),
    Attack("terminal sequences and bidirectional text", "print('\\x1b[2J\\x1b]0;owned\\x07\\u202e\\u2066\\ufeff\\x00\\x7f\\x9b')", HARMLESS),
    Attack("surrogates", "print('\\ud800' * 10, '\\udfff')", HARMLESS | EXC, says="UnicodeEncodeError"),
    Attack("result of a hundred megabytes", "class R:\n    def __repr__(self): return 'x' * (20 << 20)\nR()", HARMLESS | EXC, timeout=5),
    Attack("result of 10^7 items", "range(10 ** 7) and [0] * 2_000_000", HARMLESS | EXC | SOFT | ROLLED, timeout=8),
    Attack("result that holds itself", "l = []\nl.append(l)\nd = {'l': l}\nd['d'] = d\nd", HARMLESS, result=r".*\.\.\..*"),
    Attack("repr that never ends", "class R:\n    def __repr__(self):\n        while True: pass\nR()", SOFT | ROLLED),
    Attack("repr that raises", "class R:\n    def __repr__(self): raise SystemExit(repr)\nR()", EXC | HARMLESS),
    Attack("repr that prints", "class R:\n    def __repr__(self):\n        print('p' * 10 ** 6); return 'r'\nR()", HARMLESS, stdout_max=CUT),
    Attack("repr that is no text", "class R:\n    def __repr__(self): return 5\nR()", EXC | HARMLESS, says="TypeError"),
    Attack("variables that lie", "class R:\n    __class__ = property(lambda s: 1/0)\n    def __repr__(self): raise KeyboardInterrupt\n    def __len__(self): return -1\nr = [R() for _ in range(1000)]", HARMLESS | EXC),
    Attack("variable of a million names", "for n in range(100_000): globals()[f'v{n}'] = n", HARMLESS | EXC | SOFT, timeout=8),
    Attack("names that break JSON", "globals().update({'\"}, \"success\": true, \"': 1, '\\ud800': 2, '': 3, 5: 4, 'x\\n': 5})", HARMLESS | EXC),
    Attack("exception of 20 MiB", "raise ValueError('x' * (20 << 20))", EXC, timeout=5),
    Attack("exception whose text raises", "class E(Exception):\n    def __str__(self): raise E\nraise E", EXC),
    Attack("exception whose class has an odd name", "E = type('E\\n\\0\"{\\u202e' * 1000, (Exception,), {})\nraise E('x')", EXC),
    Attack("exception with a million notes", "e = ValueError('x')\nfor n in range(10 ** 5): e.add_note('n' * 100)\nraise e", EXC | ROLLED, timeout=8),
    Attack("traceback of many frames", "import sys\nsys.setrecursionlimit(5000)\ndef f(n): return f(n - 1) if n else 1 / 0\nf(1000)", EXC, says="ZeroDivisionError|RecursionError", timeout=4),
    Attack("file names in a traceback", "exec(compile('\\n' * 10 ** 6 + '1/0', 'x' * 10 ** 6 + '\\n\\0', 'exec'))", EXC, says="ValueError|ZeroDivisionError"),
]


@pytest.mark.parametrize(**parameters(TIME))
def test_time(stage, attack):
    perform(stage, attack)


@pytest.mark.parametrize(**parameters(MEMORY))
def test_memory(stage, attack):
    perform(stage, attack)


@pytest.mark.parametrize(**parameters(STACKS))
def test_stacks(stage, attack):
    perform(stage, attack)


@pytest.mark.parametrize(**parameters(OUTPUT))
def test_output(stage, attack):
    perform(stage, attack)
