# SPDX-License-Identifier: Apache-2.0
import _thread
import signal
import threading
import time
import unittest

import codemode_driver
from codemode_driver import session
from support import DriverTest


ENDS_WAITS = hasattr(signal, 'pthread_kill')
ends_waits = unittest.skipUnless(ENDS_WAITS, 'from inside the sandbox a wait cannot be interrupted, only from outside')


def interrupt():
    if ENDS_WAITS:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # ends a wait, too
    else:
        _thread.interrupt_main()


class Storm:
    """Interrupts the main thread again and again, as the host does after a deadline."""

    def __init__(self, first, every=None):
        self.first, self.every = first, every
        self.done = threading.Event()
        self.sent = 0
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        wait = self.first
        while wait is not None and not self.done.wait(wait):
            self.sent += 1
            interrupt()
            wait = self.every

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.done.set()
        self.thread.join()


class Interrupts(DriverTest):
    def interrupted(self, code, every=0.05):
        with Storm(0.05, every):
            start = time.monotonic()
            answer = codemode_driver.execute(code, None, 0, 10000, 10000)
        self.assertLess(time.monotonic() - start, 5)
        return answer

    def assertInterrupted(self, code, **options):
        answer = self.interrupted(code, **options)
        self.assertEqual(answer[:4:3], (False, 'KeyboardInterrupt'), answer)
        self.assertEqual(answer[2], 'KeyboardInterrupt')
        self.assertEqual(self.value('1 + 1'), '2')
        return answer

    def test_busy_loop(self):
        answer = self.assertInterrupted('x = 1\nwhile True: x += 1', every=None)
        self.assertIn('File "<cell 1>", line 2', answer[4])
        self.assertGreater(int(self.value('x')), 1)

    def test_where_it_was(self):
        answer = self.assertInterrupted('x = bytes(1 << 20)\n\nwhile True: x += b""', every=None)
        self.assertRegex(answer[6], r'^at line 3 of <cell 1>; [\d.]+ MiB in use, [\d.]+ MiB by the interpreter itself; largest variables: x \(bytes, 1.0 MiB\)$')
        self.value('def f():\n    y = bytes(1 << 20)\n    while True: sum(range(100))')
        self.assertRegex(self.assertInterrupted('f()')[6], r'^at line 3 of <cell 3>; .*: y in f\(\) \(bytes, 1.0 MiB\), x')
        answer = self.interrupted('try:\n    while True: pass\nexcept KeyboardInterrupt: pass', every=None)
        self.assertTrue(answer[0], answer)
        self.assertRegex(answer[6], '^at line 2 of <cell 6>; ')
        self.assertIsNone(self.run_cell('1').detail)

    def test_repeated(self):
        self.assertInterrupted('while True: pass')
        self.assertInterrupted('while True: pass', every=0.0005)

    @ends_waits
    def test_sleep_and_locks(self):
        self.assertInterrupted('import time, threading\ntime.sleep(60)')
        self.assertInterrupted('threading.Event().wait()')
        self.assertInterrupted('lock = threading.Lock()\nlock.acquire()\nlock.acquire()')

    def test_finally_blocks_run(self):
        self.assertInterrupted('seen = []\ntry:\n  while True: pass\nfinally: seen.append(1)', every=None)
        self.assertEqual(self.value('seen'), '[1]')

    def test_caught_by_the_code(self):
        answer = self.interrupted('try:\n  while True: pass\nexcept KeyboardInterrupt: x = 5\nx', every=None)
        self.assertEqual(answer[:2], (True, '5'))

    def test_stubborn_code(self):
        self.assertInterrupted('for i in range(5):\n  try:\n    while True: pass\n  except KeyboardInterrupt: pass\nwhile True: pass')

    @ends_waits
    def test_await(self):
        answer = self.assertInterrupted('import asyncio\nseen = []\nasync def f():\n  try: await asyncio.sleep(60)\n'
                                        '  finally: seen.append(1)\nawait f()', every=None)
        self.assertIn('in f', answer[4])
        self.assertEqual(self.value('seen'), '[1]')
        self.assertEqual(self.value('await asyncio.sleep(0.001, 7)'), '7')

    @ends_waits
    def test_await_repeated(self):
        for every in (0.05, 0.001, 0.0003):
            self.assertInterrupted('import asyncio\nwhile True: await asyncio.sleep(0)', every=every)
            self.assertInterrupted('await asyncio.gather(*(asyncio.sleep(60) for i in range(50)))', every=every)
            self.assertEqual(self.value('await asyncio.sleep(0.001, 7)'), '7')

    @ends_waits
    def test_asyncio_run(self):
        self.assertInterrupted('import asyncio\nasyncio.run(asyncio.sleep(60))')
        self.assertInterrupted('seen = []\nasync def f():\n  try: await asyncio.sleep(60)\n'
                               '  finally: seen.append(await asyncio.sleep(0.001, 5))\nasyncio.run(f())', every=None)
        self.assertEqual(self.value('seen'), '[5]')
        self.assertEqual(self.value('await asyncio.sleep(0.001, 7)'), '7')

    @ends_waits
    def test_coroutine_that_refuses(self):
        start = time.monotonic()
        self.assertInterrupted('import asyncio\nasync def f():\n  while True:\n    try: await asyncio.sleep(60)\n'
                               '    except asyncio.CancelledError: pass\nawait f()', every=None)
        self.assertLess(time.monotonic() - start, 3)

    def test_hanging_repr(self):
        self.assertInterrupted('class R:\n  def __repr__(self):\n    while True: pass\nR()')

    def test_hanging_str_of_an_exception(self):
        answer = self.interrupted('class E(Exception):\n  def __str__(self):\n    while True: pass\nraise E')
        self.assertEqual(answer[3], 'E')
        self.assertEqual(self.value('1'), '1')

    def test_hanging_exit_code(self):
        self.assertEqual(self.interrupted('class C:\n  def __str__(self):\n    while True: pass\nexit(C())')[3], 'SystemExit')

    def test_hanging_stream(self):
        self.interrupted('import sys\nclass S:\n  def write(self, s): pass\n  def flush(self):\n    while True: pass\nsys.stdout = S()')
        self.interrupted('sys.stdout = sys.__stdout__')
        self.assertEqual(self.run_cell('print(1)').stdout, '1\n')

    def test_late_interrupts_do_nothing(self):
        self.value('1')
        for _ in range(100):
            signal.raise_signal(signal.SIGINT)
        self.assertEqual(self.value('2'), '2')

    def test_storm_over_short_cells(self):
        # An answer comes out wherever the interrupt falls.
        self.value('1')  # puts the handler in its place
        with Storm(0, 0.0002) as storm:
            end = time.monotonic() + 3
            kinds = set()
            while time.monotonic() < end:
                for code in ('x = [i for i in range(300)]\nx', '1 / 0', 'import asyncio\nawait asyncio.sleep(0)', 'raise E'):
                    answer = codemode_driver.execute(code, '{"a": 1}', 0, 10000, 10000)
                    self.assertEqual(len(answer), 8)
                    self.assertNotEqual(answer[3], 'RuntimeError', answer)
                    kinds.add(answer[3])
        self.assertGreater(storm.sent, 100)
        self.assertLessEqual(kinds, {None, 'KeyboardInterrupt', 'ZeroDivisionError', 'NameError'})
        self.assertIn('ZeroDivisionError', kinds)
        self.assertEqual(self.value('await asyncio.sleep(0.001, 7)'), '7')

    def test_the_users_handler_ends_with_the_cell(self):
        self.value('import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)')
        self.assertInterrupted('while True: pass')
        self.assertIs(signal.getsignal(signal.SIGINT), session._on_interrupt)

    def test_left_over_threads_stay(self):
        self.value('import threading, time\nstop = threading.Event()\ncount = 0\ndef run():\n  global count\n'
                   '  while not stop.wait(0.001): count += 1\nthread = threading.Thread(target=run)\nthread.start()')
        self.assertEqual(self.value('time.sleep(0.05)\nstop.set()\nthread.join()\ncount > 3'), 'True')


if __name__ == '__main__':
    unittest.main()
