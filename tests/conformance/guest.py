# SPDX-License-Identifier: Apache-2.0
"""Runs one module of CPython's regression tests. Sent as code into a fresh session.

Globals given by context: `archive` (base64 of a zip with the package `test`) and `module` (its name within
the package). Leaves a JSON text in `result`; run.py reads it.
"""

import base64
import importlib
import io
import json
import os
import sys
import time
import unittest
import zipfile

# Test modules that want sockets for no more than the event loop, which does without them here.
LOOP_ONLY = ('test_asyncgen', 'test_contextlib_async', 'test_asyncio.')
FOLDER = '/tmp/conformance'
DETAIL_MAX = 3000       # characters kept of each failure's traceback
DETAILS_MAX = 200_000   # and of all
RECORD = '\x1e'         # starts a line that says which test begins: the last one names a crash


def adapt():
    """What CPython's tests are told about this platform. Nothing else is changed in them.

    `sys.platform` is "wasi", from which test.support concludes that no thread can start. Here threads do
    start, so the tests that need them shall run. Likewise it skips what uses asyncio, for want of sockets.
    `use_resources` is what regrtest sets: without it, tests
    that need a network, a display or gigabytes would count as wanted.
    """
    from test import support
    from test.support import threading_helper
    threading_helper.can_start_thread = True
    support.has_socket_support = module.startswith(LOOP_ONLY)
    support.use_resources = []


class Result(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.passed = 0
        self.failed = {}   # id -> [kind, traceback]
        self.skips = {}    # reason -> count
        self.room = DETAILS_MAX
        self.start = sys.__stdout__

    def startTest(self, test):
        super().startTest(test)
        self.start.write(f'{RECORD}{test.id()}\n')

    def addSuccess(self, test):
        self.passed += test.id() not in self.failed

    def _bad(self, test, kind, detail):
        detail = detail[-min(DETAIL_MAX, max(self.room, 0)):] if self.room > 0 else ''
        self.room -= len(detail)
        self.failed.setdefault(test.id(), [kind, detail])

    def addFailure(self, test, err):
        self._bad(test, 'failure', self._exc_info_to_string(err, test))

    def addError(self, test, err):
        self._bad(test, 'error', self._exc_info_to_string(err, test))

    def addSubTest(self, test, subtest, err):
        if err is not None:
            kind = 'failure' if issubclass(err[0], test.failureException) else 'error'
            self._bad(test, kind, self._exc_info_to_string(err, test))

    def addUnexpectedSuccess(self, test):
        self._bad(test, 'unexpected success', '')

    def addExpectedFailure(self, test, err):
        self.passed += 1

    def addSkip(self, test, reason):
        self.skips[reason] = self.skips.get(reason, 0) + 1


def unpack():
    os.makedirs(FOLDER + '/work', exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(archive))) as file:
        file.extractall(FOLDER)
    sys.path.insert(0, FOLDER)
    os.chdir(FOLDER + '/work')


def run():
    began = time.monotonic()
    outcome = Result()
    answer = {'module': module, 'skipped_module': None}
    try:
        loaded = importlib.import_module('test.' + module)
    except unittest.SkipTest as reason:
        answer['skipped_module'] = str(reason)
    else:
        loader = unittest.TestLoader()
        suite = loader.loadTestsFromModule(loaded)
        for error in loader.errors:
            outcome.failed.setdefault('load', ['error', error[-DETAIL_MAX:]])
        suite.run(outcome)
    answer.update(ran=outcome.testsRun, passed=outcome.passed, failed=outcome.failed, skips=outcome.skips,
                  seconds=round(time.monotonic() - began, 2))
    return json.dumps(answer)


unpack()
adapt()
result = run()
