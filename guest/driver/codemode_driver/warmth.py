# SPDX-License-Identifier: Apache-2.0
"""What is done once in the image rather than in every session, and what must not be shared by sessions."""

import importlib
import io
import random
import sys

from . import memory, streams

# Imported in the image: their memory is shared, so they cost a session nothing. sqlite3 is imported but
# never exercised: its generator of random numbers would be seeded here, once for all sessions.
MODULES = '''
    abc argparse array ast asyncio base64 bisect bz2 calendar cmath collections.abc concurrent.futures
    concurrent.futures.thread contextlib contextvars copy csv dataclasses datetime decimal difflib dis email enum
    fnmatch fractions functools gc glob gzip hashlib heapq hmac html html.parser importlib.resources inspect io
    itertools json keyword linecache locale logging lzma math numbers operator os pathlib pickle platform pprint
    queue random re secrets shlex shutil signal sqlite3 statistics string struct tarfile tempfile textwrap threading time
    timeit token tokenize traceback types typing unicodedata unittest urllib.parse uuid warnings weakref
    xml.etree.ElementTree zipfile zlib zoneinfo
'''.split()

CELLS = (
    'x = 42\nx * 2',
    'import json, re, math\n[json.loads(json.dumps({"a": [1, 2.5, None]})), re.sub("a+", "b", "caat"), math.sqrt(2)]',
    'def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\nprint(f(10), [i ** 2 for i in range(10)], {"a": 1})',
    'class A:\n    def __init__(self):\n        self.x = 1\na = A()\na.y = f"{a.x:>5}"\na',
    'from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    y: int = 2\nP(1)',
    'import asyncio\nasync def g(n):\n    await asyncio.sleep(0)\n    return n\nawait asyncio.gather(g(1), g(2))',
    'asyncio.run(g(3))',
    'import datetime, collections, decimal\nd = datetime.datetime.now()\nc = collections.Counter("abc")\nd.isoformat()',
    'from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(2) as pool:\n    list(pool.map(abs, [1]))',
    '1 / 0',
    'def broken(:\n    pass',
    'undefined_name',
    'raise SystemExit(3)',
)


class _Nowhere(io.RawIOBase):
    def writable(self):
        return True

    def write(self, data):
        return len(data)


def warm_up(execute, start):
    missing = []
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    streams.install(lambda number: _Nowhere())
    start()
    for mode in (0, 1):
        for cell in CELLS:
            execute(cell, '{"given": [1, "a", {"b": null}]}', mode, 1 << 16, 1 << 16)
    streams.install()
    return tuple(missing)


def reseed():
    """Gives this session random numbers of its own: all sessions start from copies of one memory."""
    memory.begin()
    random.seed()
    uuid = sys.modules.get('uuid')
    if uuid:
        uuid._node = uuid._last_timestamp = None
    tempfile = sys.modules.get('tempfile')
    if tempfile:
        tempfile._name_sequence = None
