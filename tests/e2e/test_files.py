# SPDX-License-Identifier: Apache-2.0
"""The session's files at their limits: how many, how large, how deep, how many open at once."""

import pytest

SETTINGS = {"FILES_LIMIT": "2000", "FILE_BYTES_LIMIT": "16Mi", "MEMORY_LIMIT": "256Mi"}
MEBI = 1 << 20

HELP = """
import errno, os, shutil, time
def outcome(f, *args, **kwargs):
    try:
        f(*args, **kwargs)
        return 'done'
    except OSError as e:
        return errno.errorcode[e.errno]
def write(name, size, at=0):
    with open(name, 'ab' if not at else 'r+b') as f:
        f.seek(at)
        f.write(bytes(size))
def truncate(name, size):
    with open(name, 'ab') as f: f.truncate(size)
def clear():
    os.chdir('/home/user')
    for folder in ('/tmp', '/home/user'):
        for entry in list(os.scandir(folder)):
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.remove(entry.path)
"""


@pytest.fixture
def files(shared):
    shared.ok(HELP)
    yield shared
    shared.ok("clear()", timeout=30)
    assert shared.value("os.listdir('/tmp') + os.listdir('/home/user')") == "[]"


def test_sparse_petabyte(files):
    before = files.info()["memory_bytes"]
    assert files.value("outcome(truncate, 'huge', 1 << 50)") == "'EFBIG'"
    assert files.value("outcome(truncate, 'huge', (1 << 63) - 1)") in ("'EFBIG'", "'EINVAL'")
    files.ok("open('small', 'wb').close()")
    assert files.value("outcome(write, 'small', 1, 1 << 50)") == "'EFBIG'"
    assert files.value("outcome(os.posix_fallocate, os.open('small', os.O_RDWR), 0, 1 << 50) if hasattr(os, 'posix_fallocate') else 'EFBIG'") == "'EFBIG'"
    assert files.value("os.path.getsize('small')") == "0"
    assert files.info()["memory_bytes"] < before + 8 * MEBI


def test_bytes_of_one_file(files):
    assert files.value("outcome(write, 'a', 16 << 20)") == "'done'"
    assert files.value("outcome(write, 'a', 1)") == "'EFBIG'"
    assert files.value("os.path.getsize('a') >> 20") == "16"
    assert files.value("outcome(write, 'b', 1)") == "'ENOSPC'"
    files.ok("truncate('a', 1 << 20)")
    assert files.value("outcome(write, 'b', 15 << 20)") == "'done'"
    assert files.value("outcome(write, 'b', 1)") == "'ENOSPC'"


def test_bytes_come_back(files):
    for _ in range(3):
        assert files.value("outcome(write, 'a', 15 << 20)") == "'done'"
        assert files.value("outcome(write, 'b', 2 << 20)") == "'ENOSPC'"
        files.ok("os.remove('a')")
    files.ok("f = open('kept open', 'wb'); f.write(bytes(15 << 20)); f.flush(); os.remove('kept open')")
    assert files.value("outcome(write, 'b', 2 << 20)") == "'ENOSPC'", "its bytes are still there"
    files.ok("f.close()")
    assert files.value("outcome(write, 'b', 2 << 20)") == "'done'"


def test_many_empty_files(files):
    code = """
def flood():
    for n in range(1_000_000): open(f'/tmp/{n}', 'w').close()
outcome(flood)
"""
    assert files.value(code, timeout=30) == "'ENOSPC'"
    assert 1990 <= int(files.value("len(os.listdir('/tmp'))")) <= 2000
    for call in ("os.mkdir, 'd'", "os.symlink, '/tmp/1', 'l'", "os.link, '/tmp/1', 'h'", "open, 'f', 'w'"):
        assert files.value(f"outcome({call})") == "'ENOSPC'", call
    assert files.value("outcome(os.rename, '/tmp/1', '/tmp/one')") == "'done'", "a new name for an old file needs no room"
    assert files.value("outcome(write, '/tmp/2', 100)") == "'done'"
    files.ok("os.remove('/tmp/3')")
    assert files.value("outcome(os.mkdir, 'd')") == "'done'"
    assert files.value("import tempfile\noutcome(tempfile.mkstemp, dir='/tmp')") == "'ENOSPC'"


def test_error_says_what_it_is(files):
    reply = files.fails("write('a', 20 << 20)", "OSError")
    assert "File too large" in reply["error"]


def test_descriptors(files):
    code = """
held = []
def flood():
    while True: held.append(open('/tmp/one', 'a'))
outcome(flood)
"""
    assert files.value(code) == "'EMFILE'"
    assert 1000 <= int(files.value("len(held)")) <= 1024
    assert files.value("print('still here')\nsum(1 for f in held if f.closed)") == "0"
    files.ok("for f in held: f.close()\nheld.clear()")
    assert files.value("outcome(open, '/tmp/one')") == "'done'"


def test_names_and_paths(files):
    assert files.value("outcome(open, 'n' * 255, 'w')") == "'done'"
    assert files.value("outcome(open, 'n' * 256, 'w')") == "'ENAMETOOLONG'"
    assert files.value("outcome(open, '/tmp/' + 'd/' * 2500, 'w')") == "'ENAMETOOLONG'"
    assert files.value("outcome(os.symlink, 't' * 5000, 'l')") == "'ENAMETOOLONG'"
    files.ok("os.symlink('loop', 'loop')")
    assert files.value("outcome(open, 'loop')") == "'ELOOP'"
    files.ok("for n in range(100): os.symlink(f'c{n + 1}', f'c{n}')")
    assert files.value("outcome(open, 'c0')") == "'ELOOP'"


def test_deep_folders(files):
    files.ok("path = '/tmp' + '/d' * 1000\nos.makedirs(path)\nopen(path + '/f', 'w').write('deep')")
    assert files.value("open(path + '/f').read()") == "'deep'"
    assert files.value("sum(len(f) for _, _, f in os.walk('/tmp'))", timeout=30) == "1"
    assert files.value("os.chdir(path)\nos.getcwd() == path, open('f').read()") == "(True, 'deep')"
    assert files.value("outcome(os.rename, '/tmp/d', '/tmp/d/d/d/d')") == "'EINVAL'"
    files.ok("shutil.rmtree('/tmp/d')", timeout=30)
    assert files.value("outcome(open, 'f')") == "'ENOENT'"


def test_large_listings(files):
    files.ok("for n in range(1900): open(f'/tmp/{n}', 'w').close()")
    assert files.value("len(os.listdir('/tmp')), len(set(e.name for e in os.scandir('/tmp')))") == "(1900, 1900)"
    assert files.value("import glob\nlen(glob.glob('/tmp/*9'))") == "190"
    files.ok("for e in os.scandir('/tmp'): os.remove(e.path)")
    assert files.value("os.listdir('/tmp')") == "[]"


def test_limits_of_one_execution(sidecar):
    session = sidecar.create()
    session.ok(HELP)
    flood = "n = 0\ntry:\n    while True:\n        open(f'/tmp/{n}', 'w').close()\n        n += 1\nexcept OSError as e: text = e.strerror\nn, text"
    assert session.value(flood, limits={"files": 10}) == "(10, 'No space left on device')"
    assert session.value("outcome(open, 'more', 'w')") == "'done'", "the server's own limit holds again"
    assert session.value("outcome(write, 'more', 5000)", limits={"file_bytes": 4096}) == "'EFBIG'"
    assert session.value("outcome(open, 'yet more', 'w')", limits={"files": 5}) == "'ENOSPC'"
    assert session.value("len(os.listdir('/tmp'))", limits={"files": 5}) == "10", "what is there stays"
    session.delete()


def test_the_archive_takes_nothing(files):
    for call in ("open, '/usr/x', 'w'", "os.remove, os.__file__", "os.mkdir, '/usr/lib/x'", "os.link, os.__file__, 'x'", "truncate, os.__file__, 0"):
        assert files.value(f"outcome({call})") == "'EROFS'", call


def test_random_device(files):
    for name in ("/dev/urandom", "/dev/random"):
        assert files.value(f"f = open({name!r}, 'rb')\na, b = f.read(16), f.read(16)\nlen(a), len(b), a != b") == "(16, 16, True)"
        assert files.value(f"open({name!r}, 'rb').read(100_000) != open({name!r}, 'rb').read(100_000)") == "True"
    assert files.value("open('/dev/null').read(), open('/dev/null', 'w').write('x')") == "('', 1)"
