# SPDX-License-Identifier: Apache-2.0
"""A driver session whose stdout and stderr go to memory. Uses nothing that the sandbox lacks."""

import asyncio
import builtins
import collections
import io
import json
import os
import signal
import sys
import unittest

try:
    import codemode_driver
except ImportError:
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', '..', 'guest', 'driver'))
    import codemode_driver
from codemode_driver import session, streams

Answer = collections.namedtuple('Answer', 'success result error error_type traceback locals detail cut stdout stderr')


class Capture(io.RawIOBase):
    """A descriptor that keeps what is written in a bytearray of the test's."""

    def __init__(self, data):
        self.data = data

    def writable(self):
        return True

    def write(self, data):
        self.data += data
        return len(data)


class DriverTest(unittest.TestCase):
    def setUp(self):
        saved = (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__)
        self.addCleanup(self._restore, saved, sys.modules['__main__'], vars(builtins).copy(), sys.getrecursionlimit(),
                        signal.getsignal(signal.SIGINT), codemode_driver._session)
        # Inside the sandbox a cell runs these tests. Interrupts must not reach that one.
        self.addCleanup(setattr, session, '_armed', session._armed)
        session._armed = False
        self.written = {1: bytearray(), 2: bytearray()}
        streams.install(lambda number: Capture(self.written[number]))
        codemode_driver.start()

    def _restore(self, saved, main, names, recursion, handler, outer):
        codemode_driver._session = outer
        signal.signal(signal.SIGINT, handler)
        sys.setrecursionlimit(recursion)
        builtins.__dict__.update(names)
        sys.modules['__main__'] = main
        streams.install()
        (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__) = saved
        asyncio.set_event_loop(None)

    def take(self, number):
        text = self.written[number].decode()
        self.written[number].clear()
        return text

    def run_cell(self, code, context=None, mode=0, locals_max=65536, result_max=65536, **limits):
        if context is not None and not isinstance(context, str):
            context = json.dumps(context)
        answer = codemode_driver.execute(code, context, mode, locals_max, result_max, **limits)
        self.assertIsInstance(answer, tuple)
        success, *texts, cut = answer
        self.assertIs(type(success), bool)
        self.assertIs(type(cut), int)
        self.assertEqual(len(texts), 6)
        for text in texts:
            if text is not None:
                self.assertIs(type(text), str)
                text.encode()
                self.assertLessEqual(len(text.encode()), max(result_max, locals_max))
        self.assertLessEqual(len(answer[5].encode()), max(locals_max, 2))
        return Answer(*answer[:5], json.loads(answer[5]), *answer[6:], self.take(1), self.take(2))

    def value(self, code, **options):
        """The result of a cell that must succeed."""
        answer = self.run_cell(code, **options)
        self.assertTrue(answer.success, answer.traceback or answer.error)
        return answer.result

    def failure(self, code, error_type, **options):
        answer = self.run_cell(code, **options)
        self.assertFalse(answer.success, answer)
        self.assertEqual(answer.error_type, error_type, answer)
        self.assertIsNone(answer.result)
        return answer
