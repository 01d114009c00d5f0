# SPDX-License-Identifier: Apache-2.0
"""Code that wants out of Python. It may take over its own interpreter; there is nothing of the host in there."""

import pytest

from attack import EXC, HARMLESS, ROLLED, SOFT, TRAP, Attack, outcome_of, parameters, perform

STAGE = "guest"

#: Arbitrary reads and writes: an index far outside of a code object's constants finds a pointer to an object that we
#: have written ourselves, a bytearray over all of the address space. Nothing in CPython forbids this.
FORGE = """
import opcode, struct
def forge(start=0, size=0x7fffffff):
    body = struct.pack('<IIiiIIi', 1 << 20, id(bytearray), size, size, start, start, 0)
    where = struct.pack('<I', id(body) + 16)
    def reader(): return None
    consts = reader.__code__.co_consts
    index = (id(where) + 16 - (id(consts) + 12)) // 4 % (1 << 30)
    op = opcode.opmap
    code = bytes([op['RESUME'], 0])
    for shift in (24, 16, 8): code += bytes([op['EXTENDED_ARG'], index >> shift & 255])
    code += bytes([op['LOAD_CONST'], index & 255, op['RETURN_VALUE'], 0])
    reader.__code__ = reader.__code__.replace(co_code=code)
    forged = reader()
    keep.append((body, where, consts, reader, forged))
    return forged
keep = []
mem = forge()
probe = b'a place in memory that we know'
assert bytes(mem[id(probe) + 16:id(probe) + 16 + len(probe)]) == probe
def peek(at): return struct.unpack('<I', mem[at:at + 4])[0]
def poke(at, value): mem[at:at + 4] = struct.pack('<I', value)
import gc, re
top = max(map(id, gc.get_objects()))
class Target: pass
"""

#: Where a type keeps the table index of its repr function.
REPR_SLOT = 44

WALKS = [
    Attack("subclasses to os.system", """
found = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close']
found[0].__init__.__globals__['system']('id')
""", EXC, says="AttributeError|KeyError|OSError"),
    Attack("subclasses to Popen", """
import subprocess
subprocess.Popen(['/bin/sh', '-c', 'id'])
""", EXC, says="OSError|does not support processes"),
    Attack("frames above ours", """
import sys, re
try: 1/0
except ZeroDivisionError as error: frame = error.__traceback__.tb_frame
seen = []
while frame:
    seen += [repr(frame.f_globals), repr(frame.f_locals)]; frame = frame.f_back
len(re.findall('[a-z]+-canar[y]-[0-9a-f]{32}', ''.join(seen)))
""", HARMLESS, result="0"),
    Attack("every object of the collector", """
import gc, re
gc.collect()
text = ''.join(repr(o)[:2000] for o in gc.get_objects() if isinstance(o, (dict, list, tuple)))
len(re.findall('[a-z]+-canar[y]-[0-9a-f]{32}', text)), 'root:' + 'x:' in text
""", HARMLESS, result=r"\(0, False\)", timeout=8),
    Attack("format string walk", """
class User: pass
def f(self): pass
User.f = f
'{0.f.__globals__[__builtins__]}'.format(User())[:200] + '{0.__class__.__init__.__globals__}'.format(User())
""", EXC, says="AttributeError"),
    Attack("format string to environment", """
import os
class User: os = os
'{0.os.environ}'.format(User())
""", HARMLESS, result="\"environ\\(\\{.*\\}\\)\""),
    Attack("loader of a module", "__loader__, __spec__, __import__('os').__loader__.get_data('/etc/passwd')", EXC, says="OSError|Error"),
    Attack("code of the driver", """
import sys
driver = [m for n, m in sys.modules.items() if n.startswith('codemode_driver')]
len(driver) > 0 and all('SECRET_OF_THE' + '_GATEWAY' not in repr(vars(m)) for m in driver)
""", HARMLESS, result="True"),
    Attack("the host through _codemode", """
import _codemode
called = []
for name in dir(_codemode):
    call = getattr(_codemode, name)
    if callable(call) and not name.startswith('_') and name not in ('exit',):
        for args in ((), (0,), (-1,), (2**31 - 1, 2**31 - 1), (b'x' * 100,), (None, None, None)):
            try: called.append(call(*args))
            except BaseException as error: called.append(error)
len(called) > 0
""", HARMLESS | EXC | ROLLED | SOFT),
    Attack("eval of marshalled code", """
import marshal, types
inner = marshal.dumps(compile("__import__('os').listdir('/proc')", 'x', 'eval'))
eval(marshal.loads(inner))
""", EXC, says="FileNotFoundError"),
    Attack("pickle that runs a program", r"""
import pickle
pickle.loads(b"cposix\nsystem\n(S'id'\ntR.")
""", EXC, says="AttributeError|ModuleNotFoundError|Can't get attribute"),
    Attack("pickle of a forged reduction", """
import pickle, os
class Evil:
    def __reduce__(self): return (os.listdir, ('/proc/1',))
pickle.loads(pickle.dumps(Evil()))
""", EXC, says="FileNotFoundError"),
    Attack("shared object of its own", r"""
import importlib.machinery, importlib.util
open('/tmp/evil.so', 'wb').write(b'\x7fELF' + bytes(500))
loader = importlib.machinery.ExtensionFileLoader('evil', '/tmp/evil.so')
importlib.util.module_from_spec(importlib.util.spec_from_file_location('evil', '/tmp/evil.so', loader=loader))
""", EXC, says="AttributeError|ImportError"),
    Attack("web assembly of its own", r"""
open('/tmp/evil.wasm', 'wb').write(b'\0asm\1\0\0\0')
import os
os.execv('/tmp/evil.wasm', ['evil'])
""", EXC, says="AttributeError|OSError|PermissionError"),
]

MEMORY = [
    Attack("read below the memory", FORGE + "forge(0xfffffff0, 64)[0:64]", ROLLED, cause=TRAP),
    Attack("read above the limit", FORGE + "mem[200 << 20]", ROLLED, cause=TRAP),
    Attack("read to the end of the world", FORGE + "sum(mem)", ROLLED | SOFT, timeout=5),
    Attack("write above the limit", FORGE + "mem[0x7ffffff0] = 1", ROLLED, cause=TRAP),
    Attack("call of a table index that is none", FORGE + f"poke(id(Target) + {REPR_SLOT}, 0xfffffff0)\nrepr(Target())", ROLLED, cause=TRAP),
    Attack("call through index zero", FORGE + f"poke(id(Target) + {REPR_SLOT}, 0x7fffffff)\nrepr(Target())", ROLLED, cause=TRAP),
    Attack("call of a function of another type", FORGE + f"poke(id(Target) + {REPR_SLOT}, peek(id(type(Target)) + 24))\nrepr(Target())", ROLLED, cause=TRAP),
    Attack("every table index as a destructor's type", FORGE + f"""
made = type('Made', (), dict())
for index in range(1, 40):
    poke(id(made) + {REPR_SLOT}, 1 << 20 | index)
    repr(made())
""", ROLLED, cause=TRAP),
    Attack("host call with a wild pointer", FORGE + """
import os
far = forge(0xf0000000, 0x0ffffff0)
os.write(1, far)
""", ROLLED | EXC, timeout=5),
    Attack("random bytes over everything", FORGE + """
import random
for at in range(1 << 20, top, 4096): mem[at:at + 64] = random.randbytes(64)
""", ROLLED | EXC | SOFT, timeout=3),
    Attack("zero over everything", FORGE + "for at in range(8 << 20, top, 4096): mem[at:at + 4096] = bytes(4096)", ROLLED | EXC, timeout=3),
    Attack("type of None", FORGE + "poke(id(None) + 4, 0)\nNone.x", ROLLED | EXC),
    Attack("immortal objects made mortal", FORGE + """
for o in (None, True, False, (), '', b'', 0, 1): poke(id(o), 1)
for _ in range(100): [None] * 10
[None, True, (), '', 0] * 3 and None
""", ROLLED | EXC | HARMLESS | SOFT),
    Attack("list of 2^31 items", FORGE + "victim = [1, 2]\npoke(id(victim) + 8, 0x7fffffff)\nsum(1 for _ in victim)", ROLLED | EXC | SOFT),
    Attack("string whose length lies", FORGE + "victim = 'abc' * 10\npoke(id(victim) + 8, 0x7ffffff0)\nprint(victim)", ROLLED | EXC, timeout=5),
    Attack("bytes whose length is negative", FORGE + "victim = b'abc' * 10\npoke(id(victim) + 8, 0x80000000)\nprint(victim * 2)", ROLLED | EXC | HARMLESS, timeout=5),
    Attack("result with a length that lies", FORGE + """
import sys
class Lie(str): pass
victim = Lie('abc')
class Shows:
    def __repr__(self):
        text = 'x' * 50; poke(id(text) + 8, 0x7fff0000); return text
Shows()
""", ROLLED | EXC | HARMLESS, timeout=5),
]

BYTECODE = [
    Attack("jump out of the code", """
import opcode
def f(): pass
f.__code__ = f.__code__.replace(co_code=bytes([opcode.opmap['RESUME'], 0, opcode.opmap['EXTENDED_ARG'], 255, opcode.opmap['JUMP_FORWARD'], 255]))
f()
""", ROLLED | EXC | SOFT),
    Attack("jump far before the code", """
import opcode
def f(): pass
f.__code__ = f.__code__.replace(co_code=bytes([opcode.opmap['RESUME'], 0, opcode.opmap['EXTENDED_ARG'], 9, opcode.opmap['JUMP_BACKWARD_NO_INTERRUPT'], 255]))
f()
""", ROLLED | EXC | SOFT),
    Attack("local that is not there", """
import opcode
def f(): pass
f.__code__ = f.__code__.replace(co_code=bytes([opcode.opmap['RESUME'], 0, opcode.opmap['EXTENDED_ARG'], 255, opcode.opmap['EXTENDED_ARG'], 255, opcode.opmap['LOAD_FAST'], 255, opcode.opmap['RETURN_VALUE'], 0]))
f()
""", ROLLED | EXC),
    Attack("stack that grows for ever", """
import opcode
def f(): pass
code = bytes([opcode.opmap['RESUME'], 0]) + bytes([opcode.opmap['PUSH_NULL'], 0]) * 200_000 + bytes([opcode.opmap['LOAD_FAST'], 0])
f.__code__ = f.__code__.replace(co_code=code)
f()
""", ROLLED | EXC | SOFT),
    Attack("forged code object", """
import types
code = types.CodeType(0, 0, 0, 0, 0, 0, bytes(range(256)) * 4, (), (), (), 'f', 'f', 'f', 1, b'', b'', (), ())
types.FunctionType(code, {})()
""", ROLLED | EXC | SOFT),
    Attack("exception table that lies", r"""
def f():
    try: raise ValueError
    except ValueError: return 1
f.__code__ = f.__code__.replace(co_exceptiontable=bytes([0x80 | 1, 63, 63, 63]) * 20)
f()
""", ROLLED | EXC | HARMLESS | SOFT),
    Attack("generator resumed in itself", """
def g():
    try: yield next(me)
    finally: me.close()
me = g()
next(me)
""", EXC, says="ValueError"),
    Attack("random bytecode", """
import random, types
rng = random.Random(7)
def f(a=1, b=2): c = a; return c
for _ in range(300):
    body = bytes(rng.randrange(256) for _ in range(40))
    try: types.FunctionType(f.__code__.replace(co_code=body), {})()
    except BaseException: pass
""", ROLLED | EXC | SOFT | HARMLESS, timeout=3),
]

CRASHERS = [
    Attack("deallocation of a long chain", """
class Node: pass
head = None
for _ in range(300_000):
    node = Node(); node.next = head; head = node
del head, node
'gone'
""", HARMLESS | ROLLED, timeout=8),
    Attack("tuples around tuples", """
t = ()
for _ in range(300_000): t = (t,)
hash(t)
""", EXC | ROLLED, timeout=5),
    Attack("dict changed by a key's comparison", """
class K:
    def __init__(self, n): self.n = n
    def __hash__(self): return 1
    def __eq__(self, other): d.clear(); d.update({i: i for i in range(50)}); return False
d = {}
for n in range(20): d[K(n)] = n
d.get(K(99))
""", HARMLESS | EXC),
    Attack("list emptied while it is sorted", """
class K:
    def __lt__(self, other): items.append(1); return True
items = [K() for _ in range(100)]
items.sort()
""", EXC, says="ValueError"),
    Attack("buffer that shrinks under its reader", """
b = bytearray(1 << 16)
class I:
    def __index__(self): b.clear(); return 5
b[I()] = 1
""", EXC, says="IndexError|BufferError"),
    Attack("compare that mutates a memoryview", """
import array
a = array.array('i', [1] * 100)
class E:
    def __eq__(self, other):
        try: a.pop()
        except BufferError: pass
        return False
a.index(E()) if E() in a else None
""", HARMLESS | EXC),
    Attack("metaclass whose mro lies", """
class M(type):
    def mro(cls): return [cls, int, str, dict]
class C(metaclass=M): pass
C().x
""", EXC),
    Attack("bases exchanged during a call", """
class A: pass
class B(A): pass
class M:
    def __get__(self, obj, cls): B.__bases__ = (object,); return 1
A.x = M()
B().x
""", EXC | HARMLESS),
    Attack("weak reference revived", """
import weakref, gc
class C:
    def __del__(self): saved.append(self)
saved = []
for _ in range(1000):
    c = C(); c.me = c; w = weakref.ref(c, lambda r: saved.append(r)); del c
gc.collect(); gc.collect()
len(saved) >= 1000
""", HARMLESS, result="True", timeout=5),
    Attack("code replaced while it runs", """
def f():
    f.__code__ = g.__code__
    return f() if depth.append(1) or len(depth) < 50 else 'end'
def g(): return f.__code__.co_name
depth = []
f()
""", HARMLESS),
    Attack("iterator of a freed container", """
class L(list):
    def __iter__(self): return it
l = L([1, 2, 3])
it = list.__iter__(l)
it.__setstate__(-5); it.__reduce__(); next(it); l.clear(); list(it)
""", HARMLESS | EXC),
    Attack("regular expression of a forged program", """
import _sre
_sre.compile('x', 0, [20, 0xffffffff, 17, 4, 0xfffffff0, 9, 9, 1], 100, {}, tuple(range(100)))
""", EXC, says="RuntimeError"),
    Attack("marshal of nested nothing", "import marshal\nmarshal.loads(b'(\\1\\0\\0\\0' * 100_000)", EXC, says="ValueError|EOFError|RecursionError"),
    Attack("marshal that promises 2 GiB", "import marshal\nmarshal.loads(b'[\\xff\\xff\\xff\\x7f')", EXC, says="MemoryError|ValueError|EOFError"),
    Attack("marshal with a reference to itself", "import marshal\nmarshal.loads(b'\\xdb\\1\\0\\0\\0r\\0\\0\\0\\0')", EXC | HARMLESS | ROLLED),
    Attack("pickle that promises 2 GiB", "import pickle\npickle.loads(b'\\x80\\x04\\x8e' + (1 << 40).to_bytes(8, 'little') + b'x')", EXC),
    Attack("pickle with a memo at 2^31", "import pickle\npickle.loads(b'\\x80\\x04Nr\\xf0\\xff\\xff\\x7f.')", EXC | ROLLED, says="MemoryError|UnpicklingError"),
    Attack("struct with a count of 2^40", "import struct\nstruct.unpack(f'{1 << 40}s', b'')", EXC, says="struct.error|error"),
    Attack("sqlite that loads an extension", """
import sqlite3
db = sqlite3.connect(':memory:')
db.enable_load_extension(True)
db.load_extension('/lib/x86_64-linux-gnu/libc.so.6')
""", EXC, says="AttributeError|Error"),
    Attack("sqlite that attaches a host file", """
import sqlite3
db = sqlite3.connect(':memory:')
db.execute("attach 'HOST_FILE' as h")
db.execute('select * from h.sqlite_master').fetchall()
""", EXC, says="OperationalError|DatabaseError"),
    Attack("sqlite that counts for ever", """
import sqlite3
sqlite3.connect(':memory:').execute('with recursive c(x) as (select 1 union all select x+1 from c) select count(*) from c').fetchall()
""", SOFT | ROLLED),
]

FORGERY = [
    Attack("result hook replaced", """
import sys, builtins
sys.displayhook = print
builtins.repr = lambda o: 'forged'
40 + 2
""", HARMLESS | EXC, self_harm=True),
    Attack("answer written to every descriptor", r"""
import os, struct
frame = struct.pack('<IHHQ', 4, 34, 1, 1) + b'fake'
for fd in range(0, 70):
    for piece in (frame, b'{"success":true,"result":"forged"}\n', b'data: {"success": true}\n\n', bytes(4096)):
        try: os.write(fd, piece)
        except OSError: pass
'true result'
""", HARMLESS, result="'true result'", stdout_max=300_000),
    Attack("server-sent events in the output", r"print('data: {\"success\": false}\n\nevent: result\nid: 9\n\n: end\r\n\r\nHTTP/1.1 200 OK\r\n\r\n')", HARMLESS),
    Attack("trace function that lies", """
import sys
def lie(frame, event, arg):
    frame.f_locals['success'], frame.f_locals['result'] = True, 'forged'; return lie
sys.settrace(lie); sys.setprofile(lie)
def f(): return 'true'
f()
""", HARMLESS, result="'true'"),
    Attack("driver's answer replaced", """
import sys
for name, module in list(sys.modules.items()):
    if name.startswith('codemode_driver'):
        for key, value in list(vars(module).items()):
            if callable(value) and not key.startswith('__'):
                setattr(module, key, lambda *a, **k: b'\\xff' * 1000)
'true'
""", HARMLESS | EXC | ROLLED | SOFT, self_harm=True),
    Attack("exit in every way", """
import atexit, threading, sys
def leave(): raise SystemExit(3)
atexit.register(leave)
t = threading.Thread(target=leave); t.start(); t.join()
class D:
    def __del__(self): raise SystemExit(4)
D()
raise SystemExit(5)
""", EXC, says="SystemExit"),
    Attack("os._exit", "import os\nos._exit(0)", ROLLED, cause=TRAP),
    Attack("os._exit with a large status", "import os\nos._exit(2**31 - 1)", ROLLED, cause=TRAP),
    Attack("os.abort", "import os\nos.abort()", ROLLED),
    Attack("faulthandler's crashes", "import faulthandler\nfaulthandler._sigsegv()", ROLLED | EXC),
    Attack("signal handlers for everything", """
import signal
for number in range(1, 65):
    try: signal.signal(number, lambda *a: None)
    except (OSError, ValueError, RuntimeError): pass
while True: pass
""", SOFT | ROLLED),
    Attack("kill of the parent and of everybody", """
import os, signal
for pid in (0, 1, -1, os.getppid() if hasattr(os, 'getppid') else 1, os.getpid() + 1):
    try: os.kill(pid, 9)
    except (OSError, AttributeError) as error: last = error
raise last
""", EXC | ROLLED),
    Attack("catches everything for ever", """
while True:
    try:
        while True: pass
    except BaseException: continue
""", ROLLED | SOFT),
    Attack("audit hook that refuses", """
import sys
def hook(event, args):
    if event != 'sys.addaudithook' : raise RuntimeError('no')
sys.addaudithook(hook)
compile('1', 'x', 'eval')
""", EXC | ROLLED | SOFT, says="RuntimeError", self_harm=True),
]


@pytest.mark.parametrize(**parameters(WALKS))
def test_walks(stage, attack):
    perform(stage, attack)


SEARCH = """
found = [re.findall(secret, memoryview(mem)[LOW:HIGH]) for secret in (rb'-canar[y]-[0-9a-f]{32}', rb'root:[x]:0:0', rb'not-for-session[s]-')]
sum(found, [])
"""


def dump(stage, low, high):
    """Looks for secrets in linear memory; the addresses of pages that nobody can read, guards below stacks."""
    session = stage.server.create()
    answer = session.post(FORGE + SEARCH.replace("LOW", str(low)).replace("HIGH", str(high)), timeout=10)
    session.delete()
    if answer.status_code == 200 and answer.json()["success"]:
        assert answer.json()["result"] == "[]", answer.text
        return []
    assert outcome_of(answer) == ROLLED, answer.text
    if high - low <= 4096:
        return [low]
    middle = (low + high) // 2 // 4096 * 4096
    return dump(stage, low, middle) + dump(stage, middle, high)


def test_dump_of_all_memory(stage):
    session = stage.server.create()
    top = int(session.value(FORGE + "top")) // 4096 * 4096
    session.delete()
    assert top > 32 << 20
    guards = dump(stage, 4096, top)
    assert len(guards) <= 8, [hex(guard) for guard in guards]


@pytest.mark.parametrize(**parameters(MEMORY))
def test_forged_memory(stage, attack):
    perform(stage, attack)


@pytest.mark.parametrize(**parameters(BYTECODE))
def test_bytecode(stage, attack):
    perform(stage, attack)


@pytest.mark.parametrize(**parameters(CRASHERS))
def test_crashers(stage, attack):
    perform(stage, attack)


@pytest.mark.parametrize(**parameters(FORGERY))
def test_forgery(stage, attack):
    perform(stage, attack)
