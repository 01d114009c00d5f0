# SPDX-License-Identifier: Apache-2.0
"""What docs/python.md says about the Python inside the sandbox. Does not apply elsewhere."""

import importlib
import sys
import unittest

from codemode_driver import warmth
from support import DriverTest

MISSING = '''
    _ctypes _curses _dbm _gdbm _multiprocessing _posixshmem _posixsubprocess _ssl _tkinter ctypes curses fcntl grp idlelib
    ensurepip mmap pty pwd pydoc_data readline resource ssl syslog termios tkinter tty turtle turtledemo
'''.split()
HASHES = 'md5 sha1 sha224 sha256 sha384 sha512 sha3_224 sha3_256 sha3_384 sha3_512 shake_128 shake_256 blake2b blake2s'.split()


@unittest.skipUnless(sys.platform == 'wasi', 'describes the sandbox')
class Platform(DriverTest):
    def test_missing_modules(self):
        for name in MISSING:
            with self.assertRaises(ModuleNotFoundError, msg=name):
                importlib.import_module(name)

    def test_modules_in_the_image(self):
        for name in warmth.MODULES:
            importlib.import_module(name)

    def test_everything_else_can_be_imported(self):
        absent = {*MISSING, *'antigravity this nt msvcrt winreg winsound _winapi _overlapped'.split()}
        failed = {}
        for name in sorted(sys.stdlib_module_names - absent):
            if name.startswith('_'):
                continue
            try:
                importlib.import_module(name)
            except ImportError as error:
                failed[name] = str(error)
        self.assertEqual(failed, {})

    def test_hashes(self):
        import hashlib
        for name in HASHES:
            self.assertTrue(hashlib.new(name, b'x'))

    def test_no_sockets(self):
        self.failure('import socket\nsocket.socket()', 'OSError')
        self.failure('socket.create_connection(("localhost", 80))', 'OSError')
        answer = self.failure('import urllib.request\nurllib.request.urlopen("http://localhost/")', 'URLError')
        self.assertIn('no network', answer.error)
        self.failure('import asyncio\nawait asyncio.open_connection("localhost", 80)', 'OSError')

    def test_no_processes(self):
        for code, kind in (('import subprocess\nsubprocess.run(["true"])', 'OSError'),
                           ('import os\nos.fork()', 'AttributeError'), ('os.system("true")', 'AttributeError')):
            self.failure(code, kind)

    def test_sleeps_overlap_in_threads(self):
        self.assertEqual(self.value('''
import concurrent.futures, time
start = time.monotonic()
with concurrent.futures.ThreadPoolExecutor(4) as pool: list(pool.map(time.sleep, [0.2] * 4))
time.monotonic() - start < 0.5'''), 'True')

    def test_deadlock(self):
        answer = self.failure('import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()', 'RuntimeError')
        self.assertIn('deadlock', answer.error)
        self.assertEqual(self.value('1'), '1')

    def test_deadlock_while_a_cell_awaits(self):
        answer = self.failure('import asyncio\nseen = []\nasync def wait():\n  try: await asyncio.Event().wait()\n'
                              '  finally: seen.append(1)\nawait wait()', 'RuntimeError')
        self.assertIn('deadlock', answer.error)
        self.assertIn('File "<cell 1>", line 6', answer.traceback)
        self.assertIn('in wait', answer.traceback)
        self.assertEqual(self.value('seen'), '[1]')  # its task has ended
        self.assertEqual(self.value('await asyncio.sleep(0.001, len(asyncio.all_tasks()))'), '1')
        answer = self.failure('asyncio.run(wait())', 'RuntimeError')
        self.assertIn('deadlock', answer.error)
        self.assertEqual(self.value('len(seen)'), '2')

    def test_deadlock_caught_by_the_code(self):
        self.assertEqual(self.value('import asyncio, threading\nlock = threading.Lock()\nlock.acquire()\ntry: lock.acquire()\n'
                                    'except RuntimeError as error: x = await asyncio.sleep(0.001, str(error)[:8])\nx'), "'deadlock'")


if __name__ == '__main__':
    unittest.main()
