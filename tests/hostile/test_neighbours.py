# SPDX-License-Identifier: Apache-2.0
"""What sessions could learn of one another, and what one could leave for the next."""

import re
import time

import pytest

from support import PATIENCE, eventually
from test_python import FORGE

STAGE = "guest"

#: Values that must differ between sessions: all were forked from one image.
STREAMS = {
    "os.urandom": "import os; os.urandom(16).hex()",
    "random": "import random; random.random(), random.getrandbits(64)",
    "secrets": "import secrets; secrets.token_hex(16)",
    "uuid4": "import uuid; str(uuid.uuid4())",
    "tempfile": "import tempfile; tempfile.mktemp()",
    "random of its own": "import random; random.Random().random()",
    "system random": "import random; random.SystemRandom().random()",
    "sqlite": "import sqlite3; sqlite3.connect(':memory:').execute('select hex(randomblob(16))').fetchone()",
    "shuffle": "import random; l = list(range(30)); random.shuffle(l); l",
    "forged state": "import random; random.getstate()[1][:4]",
}


@pytest.mark.parametrize("name", list(STREAMS))
def test_streams_differ(stage, name):
    seen = []
    for _ in range(30):
        session = stage.server.create()
        seen.append(session.value(STREAMS[name]))
        session.delete()
    assert len(set(seen)) == len(seen), f"{len(seen) - len(set(seen))} of {len(seen)} came twice"


LEFTOVERS = {
    "builtins": ("import builtins; builtins.left = 'trace'", "hasattr(__import__('builtins'), 'left')"),
    "module": ("import sys, types; sys.modules['left'] = types.ModuleType('left')", "'left' in __import__('sys').modules"),
    "patched library": ("import json; json.dumps = None", "__import__('json').dumps is None"),
    "file": ("open('/tmp/left', 'w').write('trace')", "__import__('os').path.exists('/tmp/left')"),
    "environment": ("import os; os.environ['LEFT'] = '1'", "'LEFT' in __import__('os').environ"),
    "working folder": ("import os; os.mkdir('/tmp/d'); os.chdir('/tmp/d')", "__import__('os').getcwd() == '/tmp/d'"),
    "thread": ("import threading, time; threading.Thread(target=lambda: time.sleep(100), daemon=True, name='left').start()", "any(t.name == 'left' for t in __import__('threading').enumerate())"),
    "import path": ("import sys; sys.path.insert(0, '/tmp/left')", "'/tmp/left' in __import__('sys').path"),
    "audit hook": ("import sys; sys.addaudithook(lambda *a: None); left = 1", "'left' in globals()"),
    "recursion limit": ("import sys; sys.setrecursionlimit(77777)", "__import__('sys').getrecursionlimit() == 77777"),
    "signal handler": ("import signal; signal.signal(signal.SIGTERM, print)", "__import__('signal').getsignal(__import__('signal').SIGTERM) is print"),
    "codec": ("import codecs; codecs.register(lambda n: print('x') if n == 'left' else None)", "__import__('codecs').lookup('ascii').name == 'left'"),
}


@pytest.mark.parametrize("name", list(LEFTOVERS))
def test_leftovers(stage, name):
    """The next sessions, among them those whose processes were ready before, find nothing of it."""
    leave, look = LEFTOVERS[name]
    first = stage.server.create()
    first.ok(leave)
    first.delete()
    for _ in range(4):
        session = stage.server.create()
        assert session.value(look) == "False"
        session.delete()


def test_canary_in_memory_of_the_next(stage):
    """A session fills its memory with a word and ends; the next one finds none of it in pages it has not written."""
    first = stage.server.create()
    first.run("mark = 'left-in-' + 'memory'\nheld = [mark * 1000 for _ in range(1000)]")
    first.delete()
    for _ in range(3):
        session = stage.server.create()
        found = session.value(FORGE + "fresh = bytearray(8 << 20)\nlen(re.findall(rb'left-in-memor[y]', memoryview(mem)[id(fresh):id(fresh) + 64])), re.search(rb'left-in-memor[y]', memoryview(mem)[8 << 10:4 << 20])")
        assert found == "(0, None)", found
        session.delete()


def test_neighbours_from_inside(stage):
    """No list, no count, no id of other sessions is in reach."""
    session = stage.server.create()
    other = stage.server.create()
    answer = session.run("import os, sys, gc\nrepr(os.environ) + repr(sys.argv) + repr(sorted(globals())) + ''.join(repr(o)[:300] for o in gc.get_objects() if isinstance(o, dict))", timeout=5)
    text = str(answer)
    assert other.id not in text and stage.heart.session.id not in text
    assert str(stage.pid) not in re.findall(r"\b\d{4,7}\b", answer["result"] or "")
    session.delete()
    other.delete()


def test_time_to_refuse_tells_nothing(stage):
    """A session that is not there and an id that is none take the same time, near enough, and look the same."""
    real = stage.server.create()
    real.delete()
    never = "session-" + "0" * 32

    def spent(name):
        started = time.perf_counter()
        answer = stage.server.request("POST", f"/session/{name}/execute", json={"code": "1"})
        return time.perf_counter() - started, answer

    pairs = [(spent(real.id), spent(never)) for _ in range(100)]  # in turns: whatever else the machine does meets both
    (_, gone), (_, none) = pairs[-1]
    assert gone.status_code == none.status_code == 404
    assert gone.text.replace(real.id, "") == none.text.replace(never, "")
    # The fastest ones: what came in between can only have made others slower.
    assert abs(min(gone for (gone, _), _ in pairs) - min(none for _, (none, _) in pairs)) < 0.005 * PATIENCE


def test_greed_of_many(stage):
    """Sessions at their memory limit at the same time, and one that never ends: the neighbour's heart is watched."""
    sessions = [stage.server.create() for _ in range(6)]
    work = [s.in_background("held = []\nwhile True: held.append(bytearray(1 << 20))", timeout=6) for s in sessions[:5]]
    work.append(sessions[5].in_background("while True: pass", timeout=2))
    for each in work:
        body = each.result().json()
        assert body["success"] is False and body["error_type"] in ("MemoryError", "Timeout"), body
    for session in sessions:
        session.delete()


def test_storm_of_pages(stage):
    """Memory touched and given back, again and again, by four at once."""
    sessions = [stage.server.create() for _ in range(4)]
    work = [s.in_background("while True:\n    b = bytearray(20 << 20)\n    del b", timeout=1.5) for s in sessions]
    for each in work:
        assert each.result().json()["error_type"] == "Timeout"
    for session in sessions:
        session.delete()


def test_ids_are_random(stage):
    """128 bits each, none twice, every bit used about half of the time."""
    ids = []
    for _ in range(150):
        session = stage.server.create()
        ids.append(session.id)
        session.delete()
    assert len(set(ids)) == 150 and all(re.fullmatch(r"session-[0-9a-f]{32}", name) for name in ids)
    values = [int(name[8:], 16) for name in ids]
    for bit in range(128):
        ones = sum(value >> bit & 1 for value in values)
        assert 30 < ones < 120, f"bit {bit} is set {ones} times in 150"
    eventually(lambda: stage.server.metric("wasm_sessions_active") == 1, "all of them have ended")
