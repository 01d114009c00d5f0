# SPDX-License-Identifier: Apache-2.0
"""Sessions begin as copies of one memory image, and share nothing random."""

import collections

SESSIONS = 100
SETTINGS = {"MAX_SESSIONS": str(SESSIONS + 10)}

#: Each of these takes values from one source; none may come twice, in one session or in two.
SOURCES = {
    "random.random": "import random\n[random.random() for _ in range(20)]",
    "random.getrandbits": "[random.getrandbits(64) for _ in range(20)]",
    "random.Random": "[random.Random().getrandbits(64) for _ in range(5)]",
    "random.SystemRandom": "[random.SystemRandom().getrandbits(64) for _ in range(5)]",
    "random.choices": "[''.join(random.choices('abcdefghijklmnop', k=20))]",
    "random's state": "[hash(random.getstate())]",
    "uuid.uuid1": "import uuid\n[uuid.uuid1().hex for _ in range(5)]",
    "uuid.uuid4": "[uuid.uuid4().hex for _ in range(5)]",
    "uuid.getnode": "[uuid.getnode()]",
    "secrets.token_hex": "import secrets\n[secrets.token_hex(16) for _ in range(5)]",
    "secrets.randbits": "[secrets.randbits(64) for _ in range(5)]",
    "os.urandom": "import os\n[os.urandom(16).hex() for _ in range(5)]",
    "os.getrandom": "[os.getrandom(16).hex()] if hasattr(os, 'getrandom') else []",
    "tempfile.mkdtemp": "import tempfile\n[tempfile.mkdtemp() for _ in range(5)]",
    "tempfile.mktemp": "[tempfile.mktemp() for _ in range(5)]",
    "tempfile.NamedTemporaryFile": "[tempfile.NamedTemporaryFile().name for _ in range(5)]",
    "email.utils.make_msgid": "import email.utils\n[email.utils.make_msgid(domain='x').split('@')[0] for _ in range(5)]",
    "a boundary of MIME parts": (
        "from email.mime.multipart import MIMEMultipart\nfrom email.mime.text import MIMEText\n"
        "def boundary():\n    m = MIMEMultipart(); m.attach(MIMEText('a')); m.as_string(); return m.get_boundary()\n"
        "[boundary() for _ in range(3)]"),
    "email.generator": "import email.generator\n[email.generator._make_boundary() for _ in range(3)]",
    "urllib's cnonce": "import urllib.request\n[urllib.request.AbstractDigestAuthHandler().get_cnonce('n') for _ in range(3)]",
    "SQLite's random()": "import sqlite3\n[row[0] for _ in range(3) for row in sqlite3.connect(':memory:').execute('select random()')]",
    "SQLite's randomblob()": "[sqlite3.connect(':memory:').execute('select hex(randomblob(16))').fetchone()[0]]",
    "random in a thread": "import threading\nout = []\nt = threading.Thread(target=lambda: out.extend(random.random() for _ in range(5))); t.start(); t.join()\nout",
    "random.gauss": "[random.gauss() for _ in range(5)]",
    "random.randbytes": "[random.randbytes(16).hex()]",
    "numbers of a shuffled list": "x = list(range(100)); random.shuffle(x)\n[str(x)]",
}


def test_no_value_comes_twice(sidecar):
    seen = {name: collections.Counter() for name in SOURCES}
    sessions = [sidecar.create() for _ in range(SESSIONS)]
    for session in sessions:
        for name, code in SOURCES.items():
            seen[name].update(eval(session.value(code)))
        session.delete()
    for name, counter in seen.items():
        assert name == "os.getrandom" or len(counter) >= SESSIONS, name
        assert not [value for value, times in counter.items() if times > 1], name


def test_one_shots_share_nothing_either(sidecar):
    code = "import random, uuid\nresult = [random.random(), uuid.uuid4().hex, random.getrandbits(64)]"
    answers = [sidecar.execute(code)["result"] for _ in range(30)]
    assert len(set(answers)) == 30


def test_the_first_value_is_not_the_images(sidecar):
    """Also where nothing but the value is asked for, so that no import seeds anew."""
    values = []
    for _ in range(10):
        session = sidecar.create()
        values.append(session.value("__import__('random').random()"))
        session.delete()
    assert len(set(values)) == 10


def test_seeded_streams_are_the_same_everywhere(sidecar):
    values = set()
    for _ in range(3):
        session = sidecar.create()
        values.add(session.value("import random\nrandom.seed(7)\nrandom.random()"))
        session.delete()
    assert values == {"0.32383276483316237"}


def test_hashes_are_the_same_and_say_so(sidecar):
    """PYTHONHASHSEED is 0 for all: sys.flags tells the truth about it."""
    values = set()
    for _ in range(3):
        session = sidecar.create()
        values.add(session.value("import sys\nhash('a'), hash(b'a'), list({'x', 'y', 'z'}), sys.flags.hash_randomization"))
        session.delete()
    assert len(values) == 1 and values.pop().endswith(", 0)")


def test_counters_and_clocks_start_anew(sidecar):
    code = "import asyncio, threading, time, os\n[threading.Thread().name, time.process_time() < 5, os.getpid()]"
    first, second = (sidecar.create() for _ in range(2))
    assert first.value(code) == second.value(code)
    first.ok("import time\nt = time.monotonic(), time.time()")
    assert second.value("'t' in globals()") == "False"
    assert first.value("time.monotonic() >= t[0] and time.time() >= t[1]") == "True"
    first.delete()
    second.delete()


def test_no_file_is_shared(sidecar):
    first, second = (sidecar.create() for _ in range(2))
    first.ok("f = open('/tmp/mine', 'w'); f.write('x'); f.flush()")
    assert second.value("import os\nos.path.exists('/tmp/mine'), os.listdir('/tmp')") == "(False, [])"
    assert second.value("open('/tmp/mine', 'w').fileno()") == first.value("f.fileno()"), "each has descriptors of its own"
    first.delete()
    second.delete()
