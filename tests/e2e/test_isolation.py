# SPDX-License-Identifier: Apache-2.0
"""What code in a session cannot reach, and that it harms nobody but itself."""

import json
import os

import pytest

from support import SECRET, eventually

NETWORK = [
    "import socket\nsocket.create_connection(('127.0.0.1', PORT), 2)",
    "import socket\nsocket.socket().connect(('127.0.0.1', PORT))",
    "import socket\nsocket.getaddrinfo('example.org', 80)",
    "import socket\nsocket.socket(socket.AF_UNIX)",
    "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:PORT/health', timeout=2)",
    "import http.client\nhttp.client.HTTPConnection('127.0.0.1', PORT, timeout=2).request('GET', '/')",
    "import asyncio\nawait asyncio.open_connection('127.0.0.1', PORT)",
    "import _socket\n_socket.socket()",
]


@pytest.mark.parametrize("code", NETWORK)
def test_no_network(sidecar, session, code):
    reply = session.run(code.replace("PORT", str(sidecar.port)), timeout=10)
    assert reply["success"] is False and reply["error_type"] != "TimeoutError", reply
    assert session.value("1") == "1"


@pytest.mark.parametrize(
    "path", ["/proc/1/environ", "/proc/self/environ", "/proc/self/maps", "/etc/shadow", "/etc/hostname", "/root", "/dev/mem", "/sys/kernel"]
)
def test_no_host_files(session, path):
    reply = session.run(f"import os\nos.listdir({path!r}) if os.path.isdir({path!r}) else open({path!r}).read()")
    assert reply["success"] is False, reply


def test_a_host_file_by_any_name(session, tmp_path):
    mark = tmp_path / "mark.txt"
    mark.write_text("on the host")
    for name in (str(mark), "/../../.." + str(mark), "/tmp/../" + str(mark), "/proc/1/root" + str(mark), "../../../../.." + str(mark)):
        session.fails(f"open({name!r}).read()", "FileNotFoundError")
    session.run(f"import os\nos.makedirs({str(tmp_path)!r}, exist_ok=True)\nopen({str(mark)!r}, 'w').write('changed')")
    session.run(f"import os\nos.symlink({str(tmp_path)!r}, '/tmp/link')\nopen('/tmp/link/mark.txt', 'w').write('changed')")
    session.run(f"import os\nos.remove({str(mark)!r})")
    assert mark.read_text() == "on the host"


def test_no_environment_and_no_arguments(session):
    assert SECRET not in session.value("import os, sys\nstr(dict(os.environ)) + str(sys.argv) + str(sys.orig_argv)")
    text = session.value("os.environ.get('API_TOKEN'), os.environ.get('MAX_SESSIONS'), os.environ.get('PORT')")
    assert text == "(None, None, None)"


@pytest.mark.parametrize("module", ["ctypes", "_ctypes", "_posixsubprocess", "mmap", "fcntl", "_multiprocessing"])
def test_no_way_to_the_machine(session, module):
    reply = session.run(f"import {module}")
    assert reply["success"] is False and reply["error_type"] in ("ImportError", "ModuleNotFoundError"), reply


def test_an_answer_cannot_be_forged(session):
    forged = json.dumps({"success": True, "result": "forged", "stdout": "forged"})
    code = f"""
import os, sys
for fd in range(0, 64):
    try: os.write(fd, {forged!r}.encode() + b'\\n' + bytes(range(256)) * 40)
    except OSError: pass
1/0
"""
    reply = session.run(code)
    assert reply["success"] is False and reply["error_type"] == "ZeroDivisionError" and reply["result"] is None
    assert session.value("'real'") == "'real'"


SELF_HARM = {
    "builtins emptied": "import builtins\nfor n in list(vars(builtins)): delattr(builtins, n)",
    "builtins replaced": "import builtins\nbuiltins.repr = builtins.str = builtins.print = builtins.len = builtins.compile = builtins.exec = builtins.isinstance = lambda *a, **k: 1/0",
    "own builtins": "__builtins__ = {}",
    "globals emptied": "globals().clear()",
    "modules emptied": "import sys\nsys.modules.clear()",
    "json replaced": "import json, traceback, io, linecache, ast\njson.dumps = traceback.format_exception = io.StringIO = linecache.getline = ast.parse = None",
    "main replaced": "import sys, types\nsys.modules['__main__'] = types.ModuleType('other')",
    "trace function": "import sys\ndef t(*a): raise ValueError('trace')\nsys.settrace(t)",
    "profile function": "import sys\ndef t(*a): raise ValueError('profile')\nsys.setprofile(t)",
    "audit hook": "import sys\ndef h(*a): raise RuntimeError('audit')\nsys.addaudithook(h)",
    "hooks": "import sys\nsys.excepthook = sys.displayhook = sys.unraisablehook = lambda *a: 1/0",
    "recursion limit": "import sys\nsys.setrecursionlimit(60)",
    "finaliser": "class F:\n    def __del__(self): raise SystemExit(9)\nf = F(); del f",
    "descriptors closed": "import os\nfor fd in range(64):\n    try: os.close(fd)\n    except OSError: pass",
    "files removed": "import os\nfor root, _, names in os.walk('/', topdown=False):\n    for n in names:\n        try: os.remove(os.path.join(root, n))\n        except OSError: pass",
    "every object poked": "import gc\nfor o in gc.get_objects():\n    try:\n        if type(o) is dict and o is not globals(): o.pop('nothing', None)\n        elif type(o) is list: o.count(None)\n    except Exception: pass",
    "frames above": "import sys\nf = sys._getframe()\nwhile f:\n    f.f_locals.update(code='1/0', success=True)\n    f = f.f_back",
    "driver overwritten": "import sys\nfor name, module in list(sys.modules.items()):\n    if 'driver' in name:\n        for key in list(vars(module)): setattr(module, key, None)",
    "hash collisions": "class K:\n    def __hash__(self): return 1\n    def __eq__(self, o): return self is o\nd = {K(): n for n in range(500)}",
    "forbidden bytecode": "import types\ndef f(): pass\nf.__code__ = f.__code__.replace(co_code=bytes([255, 255] * 8))\nf()",
    "stack underflow": "import opcode\ndef f(): pass\nf.__code__ = f.__code__.replace(co_code=bytes([opcode.opmap['POP_TOP'], 0] * 400))\nf()",
    "reader replaced": "import sys, io\nsys.stdin = io.StringIO('x'); sys.stdout = io.StringIO(); sys.stderr = object()",
    "signals": "import signal, os\nos.kill(os.getpid(), 9)",
    "abort": "import os\nos.abort()",
    "collector off": "import gc\ngc.disable(); gc.set_threshold(0)",
    "frozen time": "import time\ntime.sleep = time.monotonic = time.time = lambda *a: 0",
}


@pytest.mark.parametrize("name", sorted(SELF_HARM))
def test_self_harm_stays_at_home(sidecar, shared, name):
    """Whatever happens to the session itself: every call answers in time, and nobody else notices."""
    session = sidecar.create()
    for code in (SELF_HARM[name], "1 + 1", "print('x')"):
        answer = session.post(code, timeout=5)
        assert answer.status_code in (200, 410), answer.text
        if answer.status_code == 410:
            assert answer.json()["code"] == "session_lost"
    assert session.delete().status_code == 200
    assert shared.value("6 * 7") == "42"
    assert sidecar.execute("1 + 1")["result"] == "2"


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return dict(line.split(":", 1) for line in file.read().splitlines())


def test_processes_are_confined(sidecar, session):
    """A filter of system calls, no privilege and no right of root, in the zygote as well: its filter has a fork more."""
    status = status_of(sidecar.zygote())
    assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2", status
    assert {int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}, status
    session.ok("1")  # promised is that it holds before the session's first code runs
    status = status_of(session.pid())
    assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2", status
    assert status["Threads"].strip() == "1"
    assert {int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}, status
    assert "0" not in status["Uid"].split() + status["Gid"].split() + status["Groups"].split(), status


def test_worker_holds_one_socket_and_its_own_memory(session):
    pid = session.pid()
    session.ok("open('/tmp/f', 'w').write('x')")
    if os.geteuid() != 0:  # it is not dumpable, so nobody but root may look
        with pytest.raises(PermissionError):
            os.listdir(f"/proc/{pid}/fd")
        return
    held = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert set(held) == {"0", "1", "2"} and held["0"].startswith("socket:"), held
    assert held["1"] == "/memfd:checkpoint (deleted)" and held["2"] == f"/proc/{pid}/pagemap", held
    with open(f"/proc/{pid}/environ", "rb") as file:
        assert file.read().strip(b"\0") == b""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        assert SECRET.encode() not in file.read()


def test_zygote_holds_what_it_needs(sidecar):
    """The image, the gateway's channel, a place for a last word and /proc; no connection, no listener, no secret."""
    pid = sidecar.zygote()
    if os.geteuid() != 0:  # it is not dumpable either
        with pytest.raises(PermissionError):
            os.listdir(f"/proc/{pid}/fd")
        return
    # While it starts a spare worker it holds that one's channel, too.
    eventually(lambda: sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2", "3", "4", "5"], "it holds six descriptors")
    held = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in "012345"}
    assert held["0"] == held["1"] == "/dev/null", held
    assert held["5"] == "/proc"  # a name for it, not its list: a worker opens its own page map there
    assert sum(target.startswith("socket:") for target in held.values()) == 1, held
    with open(f"/proc/{pid}/environ", "rb") as file:
        assert file.read() == b""
