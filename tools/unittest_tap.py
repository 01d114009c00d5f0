# SPDX-License-Identifier: Apache-2.0
"""Run a folder of unittest files and write TAP: unittest_tap.py FOLDER OUTPUT.tap [FILTER]

Needs nothing but the standard library and no descriptors, so it also runs inside the sandbox.
"""

import sys
import unittest


class TapResult(unittest.TextTestResult):
    """Also writes one TAP line per test; a test with failing subtests or a failing tear-down is one failure."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tap = []
        self.bad = self.skip = None

    def startTest(self, test):
        super().startTest(test)
        self.bad, self.skip = False, None

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.note_failure(test)

    def addError(self, test, err):
        super().addError(test, err)
        self.note_failure(test)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.note_failure(test)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.note_failure(test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.skip = reason

    def note_failure(self, test):
        if isinstance(test, unittest.TestCase):
            self.bad = True
        else:  # a module or class that could not be set up: no test was started
            self.tap.append(f"not ok {len(self.tap) + 1} - {test}")

    def stopTest(self, test):
        super().stopTest(test)
        word = "not ok" if self.bad else "ok"
        skip = "" if self.skip is None or self.bad else f" # SKIP {self.skip}"
        self.tap.append(f"{word} {len(self.tap) + 1} - {test.id()}{skip}")


def main():
    folder, output, *patterns = sys.argv[1:]
    loader = unittest.TestLoader()
    if patterns:
        loader.testNamePatterns = [f"*{pattern}*" for pattern in patterns]
    suite = loader.discover(folder, top_level_dir=folder)
    planned = suite.countTestCases()
    result = unittest.TextTestRunner(stream=sys.stdout, resultclass=TapResult).run(suite)
    with open(output, "w", encoding="utf-8") as file:
        file.write("\n".join([f"1..{planned}", *result.tap, ""]))
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
