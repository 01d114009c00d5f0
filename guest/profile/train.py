# SPDX-License-Identifier: Apache-2.0
"""What the guest's machine code is optimised for: the kinds of work that a model's code does.

Cells are divided by lines that begin with "# ---". Each is executed several times as a cell of its own, so that the
path of an execution - parsing, compiling, running, reporting - is part of the profile. None of it is a program that
the benchmarks measure.
"""
# --- small cells
x = 42
y = [i * x for i in range(10)]
name, total = 'cell', sum(y)
f'{name}: {total:,}'
# --- numbers
def collatz(n):
    steps = 0
    while n != 1:
        n = 3 * n + 1 if n % 2 else n // 2
        steps += 1
    return steps
max(collatz(n) for n in range(1, 2500))
# --- floats
import math
points = [(math.sin(i * 0.37) * 40, math.cos(i * 0.71) * 30) for i in range(220)]
def closest(ps):
    best = 1e18
    for i, (ax, ay) in enumerate(ps):
        for bx, by in ps[i + 1:]:
            d = (ax - bx) ** 2 + (ay - by) ** 2
            if d < best:
                best = d
    return math.sqrt(best)
closest(points), round(sum(math.log1p(abs(a * b)) for a, b in points), 6)
# --- big integers
a, b = 3 ** 900, 7 ** 700
(a * b) % (2 ** 521 - 1), pow(a, b >> 1500, 10 ** 40 + 7), len(str(a * b)), math.gcd(a - 1, b - 1), math.factorial(300) >> 900
# --- classes
class Account:
    fee = 1
    def __init__(self, owner, balance=0):
        self.owner = owner
        self.balance = balance
        self._log = []
    @property
    def wealth(self):
        return self.balance
    def deposit(self, amount):
        if amount <= 0:
            raise ValueError('amount')
        self.balance += amount
        self._log.append(('in', amount))
        return self
    def move(self, other, amount):
        self.balance -= amount + self.fee
        other.deposit(amount)
    def __eq__(self, other):
        return isinstance(other, Account) and self.owner == other.owner
    def __hash__(self):
        return hash(self.owner)
    def __repr__(self):
        return f'<{self.owner} {self.balance}>'
class Savings(Account):
    __slots__ = ('rate',)
    fee = 0
    def __init__(self, *args, rate=0.02, **kw):
        super().__init__(*args, **kw)
        self.rate = rate
    def deposit(self, amount):
        return super().deposit(amount * 2 if self.rate > 0.05 else amount)
people = [Savings(f'p{i}', 1000, rate=i / 100) if i % 3 else Account(f'p{i}', 500) for i in range(40)]
for step in range(2500):
    try:
        people[step % 40].move(people[(step * 7 + 3) % 40], step % 5)
    except ValueError:
        pass
len(set(people)), sum(p.wealth for p in people), str(people[0])
# --- dataclasses, enums, named tuples
from dataclasses import dataclass, field, replace
from collections import namedtuple
from enum import Enum
class Kind(Enum):
    A = 1
    B = 2
@dataclass(order=True)
class Item:
    price: float
    name: str = field(compare=False)
    kind: Kind = field(default=Kind.A, compare=False)
P = namedtuple('P', 'x y')
items = sorted(Item((i * 37) % 101 / 4, f'item{i}', Kind.B if i % 2 else Kind.A) for i in range(600))
groups = {}
for it in items:
    groups.setdefault(it.kind, []).append(replace(it, price=it.price * 1.1))
[P(len(v), round(sum(i.price for i in v), 2)) for v in groups.values()]
# --- containers
from collections import Counter, defaultdict, deque, OrderedDict
import heapq, bisect, itertools, operator, functools
words = ('the quick brown fox jumps over the lazy dog while seven wizards brew strong coffee ' * 60).split()
count = Counter(words)
index = defaultdict(list)
for i, w in enumerate(words):
    index[w[0], len(w)].append(i)
queue = deque(maxlen=50)
heap = []
for i, w in enumerate(words):
    queue.append(w)
    heapq.heappush(heap, (len(w) * 31 % 17, i))
ordered = [heapq.heappop(heap)[1] for _ in range(len(heap))]
marks = []
for v in ordered[:300]:
    bisect.insort(marks, v)
sets = [set(range(i, 400, i)) for i in range(2, 30)]
common = functools.reduce(operator.and_, sets[:3]) | (sets[4] ^ sets[5]) - sets[6]
pairs = sum(1 for a, b in itertools.combinations(range(80), 2) if (a ^ b) % 3 == 0)
table = {(i, j): i * j for i in range(60) for j in range(20)}
best = sorted(table.items(), key=lambda kv: (-kv[1], kv[0]))[:5]
rows = list(zip(*[iter(range(900))] * 3))
flat = [c for r in rows for c in r if c % 7]
flat[10:200:3], flat[::-1][:5], count.most_common(3), len(common), pairs, best, len(marks), min(index, key=lambda k: len(index[k]))
# --- strings
text = 'Lorem ipsum dolor sit amet, consectetur adipiscing elit; ünïcödé – ✓ 漢字. ' * 80
parts = [p.strip().capitalize() for p in text.split('.') if p.strip()]
out = []
for n, p in enumerate(parts):
    out.append(f'{n:>4}|{p[:24]:<26}|{len(p):#06x}|{n / 7:8.3f}|{p.count("i")}')
joined = '\n'.join(out)
joined.replace('i', 'j').upper().splitlines()[3].partition('|'), text.find('漢'), text.encode()[:80].hex(), text.translate({105: 'I', 44: None})[:60], '%s-%05d-%.2e' % ('a', 42, 1e10), joined.startswith('   0'), [c for c in text[:300] if c.isalpha() and c.islower()][:9]
# --- bytes
import struct, base64, binascii, hashlib, zlib
data = bytes(range(256)) * 20
packed = b''.join(struct.pack('<IHd', i, i % 65536, i / 3) for i in range(500))
base64.b64encode(data)[:40], hashlib.sha256(data).hexdigest(), hashlib.md5(packed).hexdigest(), zlib.crc32(data), len(zlib.decompress(zlib.compress(data + packed))), sum(struct.iter_unpack('<IHd', packed).__next__()), bytearray(data).find(b'\x80\x81'), memoryview(data)[10:20].tobytes()
# --- json
import json
doc = {'users': [{'id': i, 'name': f'näme {i}', 'tags': ['a', 'b', None, True], 'score': i / 3, 'deep': {'k': [1, [2, [3]]]}} for i in range(120)]}
s = json.dumps(doc)
d = json.loads(s)
p = json.dumps(d, indent=2, sort_keys=True, ensure_ascii=False)
assert json.loads(p) == doc
len(s), len(p)
# --- regular expressions
import re
log = '\n'.join(f'2026-{m:02}-{d:02}T10:{d:02}:00 host{d % 5} [{lvl}] user={d * m} ip=10.0.{m}.{d} "GET /a/{d}?q={m}"' for m in range(1, 13) for d in range(1, 29) for lvl in ('INFO',))
pat = re.compile(r'^(?P<date>\d{4}-\d\d-\d\d)T(\S+) (?P<host>\w+) \[(\w+)\] user=(\d+) ip=((?:\d{1,3}\.){3}\d{1,3}) "(GET|POST) ([^"?]*)(?:\?(.*?))?"$', re.M)
hits = [m.groupdict() for m in pat.finditer(log)]
mails = re.findall(r'[\w.+-]+@[\w-]+\.[\w.]+', 'a.b@c.de, x@y.zz; nobody@ ' * 100)
re.sub(r'(\d+)', lambda m: str(int(m[1]) * 2), log)[:60], len(hits), len(mails), re.split(r'[,;\s]+', 'a, b; c  d' * 50)[:3], bool(re.search(r'(a|b)*c\b', 'ab' * 200 + 'c'))
# --- generators, iterators, closures, decorators, exceptions
import contextlib
def memo(f):
    cache = {}
    @functools.wraps(f)
    def inner(*args):
        if args not in cache:
            cache[args] = f(*args)
        return cache[args]
    return inner
@memo
def paths(r, c):
    return 1 if r == 0 or c == 0 else paths(r - 1, c) + paths(r, c - 1)
def numbers(n):
    for i in range(n):
        yield from (i, i + 1)
def tree(depth):
    if depth:
        yield from tree(depth - 1)
        yield depth
        yield from tree(depth - 1)
@contextlib.contextmanager
def quiet(*types):
    try:
        yield
    except types:
        pass
def parse(v):
    try:
        return int(v)
    except ValueError as e:
        return str(e)
    finally:
        pass
for i in range(600):
    with quiet(KeyError, ZeroDivisionError):
        {}[i] if i % 2 else 1 / 0
fib = lambda n: n if n < 2 else fib(n - 1) + fib(n - 2)
paths(12, 12), sum(numbers(900)), sum(tree(11)), [parse(v) for v in ('1', 'x', '22') * 100][:3], fib(17), list(map(str, filter(None, range(300))))[:4], any(i > 990 for i in numbers(1000)), [*itertools.accumulate(range(9))], {k: v for k, v in zip('abc', itertools.count())}
# --- matching and unpacking
def kind(v):
    match v:
        case {'type': 'a', 'v': int(n)}:
            return n
        case [x, *rest] if rest:
            return len(rest)
        case str() | bytes():
            return 'text'
        case None | True | False:
            return 'const'
        case _:
            return 'other'
[kind(v) for v in ({'type': 'a', 'v': 3}, [1, 2, 3], 'x', None, 4.5, (1,)) * 150][:6]
# --- time, decimals, fractions, statistics, random
import datetime, decimal, fractions, statistics, random
start = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
days = [(start + datetime.timedelta(hours=7 * i)).isoformat() for i in range(300)]
back = [datetime.datetime.fromisoformat(d).strftime('%Y-%m-%d %H:%M') for d in days]
money = sum((decimal.Decimal(i) / 7 for i in range(1, 300)), decimal.Decimal(0)).quantize(decimal.Decimal('0.01'))
random.seed(7)
sample = [random.gauss(0, 1) for _ in range(900)]
random.shuffle(sample)
decimal.getcontext().prec = 60
(back[-1], money, decimal.Decimal(2).sqrt(), sum(fractions.Fraction(1, n) for n in range(1, 60)), statistics.fmean(sample), statistics.stdev(sample), random.choices('abc', k=5), random.randint(1, 9))
# --- data: csv, sqlite, files, xml
import csv, io, sqlite3, os, pathlib, tempfile, xml.etree.ElementTree as ET
buf = io.StringIO()
w = csv.writer(buf)
w.writerows([i, f'name "{i}"', i / 3] for i in range(400))
rows = list(csv.reader(io.StringIO(buf.getvalue())))
db = sqlite3.connect(':memory:')
db.execute('create table t(id integer primary key, name text, v real)')
db.executemany('insert into t values(?,?,?)', ((int(a), b, float(c)) for a, b, c in rows))
top = db.execute('select count(*), sum(v), max(name) from t where id % 3 = 1 group by id % 7 order by 2 desc').fetchall()
db.close()
path = pathlib.Path(tempfile.mkdtemp()) / 'notes.txt'
path.write_text('\n'.join(map(str, rows)))
lines = [line.rstrip() for line in path.open()]
path.unlink()
root = ET.fromstring('<r>' + ''.join(f'<i n="{i}">t{i}</i>' for i in range(200)) + '</r>')
len(lines), top[0], sum(int(e.get('n')) for e in root.iter('i')), os.listdir('/tmp')[:1]
# --- asyncio and threads
import asyncio, threading, queue, concurrent.futures
async def work(i):
    await asyncio.sleep(0)
    return i * 2
async def many():
    async with asyncio.TaskGroup() as g:
        ts = [g.create_task(work(i)) for i in range(80)]
    return sum(t.result() for t in ts) + sum(await asyncio.gather(*(work(i) for i in range(80))))
q = queue.Queue()
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    got = list(pool.map(lambda i: q.put(i) or i, range(60)))
asyncio.run(many()), len(got), q.qsize()
# --- compiling and reporting
import ast, inspect, traceback, textwrap, pprint, typing, copy, pickle
source = inspect.getsource(textwrap) + inspect.getsource(pprint)
tree = ast.parse(source)
names = sorted({n.id for n in ast.walk(tree) if isinstance(n, ast.Name)})
code = compile(source, 'again', 'exec')
try:
    [int(v) for v in ['1', 'two']]
except ValueError:
    report = traceback.format_exc()
clone = pickle.loads(pickle.dumps(copy.deepcopy({'a': [1, (2, 3)], 'b': {'c': names}})))
pprint.pformat(clone)[:40], len(report), textwrap.fill(source[:800], 60)[:30], typing.get_type_hints(lambda a: a)
# --- errors that reach the answer
def outer(v):
    return inner(v) + 1
def inner(v):
    return v['missing']
outer({'present': 1})
# --- output
for i in range(400):
    print(i, 'line', i * 3, sep=' | ')
# --- matrices and sieves
def multiply(a, b):
    columns = list(zip(*b))
    return [[sum(x * y for x, y in zip(r, c)) for c in columns] for r in a]
m = [[(i * j) % 10 + 0.5 for j in range(34)] for i in range(34)]
mm = multiply(m, m)
sieve = bytearray([1]) * 20000
for i in range(2, 142):
    if sieve[i]:
        sieve[i * i::i] = bytes(len(range(i * i, 20000, i)))
grid = [[0] * 60 for _ in range(60)]
for r in range(60):
    for c in range(60):
        grid[r][c] = (grid[r - 1][c] + grid[r][c - 1] + r * c) & 1023
mm[3][4], sum(sieve), grid[59][59]
# --- text distance
def distance(a, b):
    prev = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(prev[j] + 1, row[-1] + 1, prev[j - 1] + (x != y)))
        prev = row
    return prev[-1]
distance('kitten sitting on the mitten' * 4, 'sitting kitten in the kitchen' * 4)
