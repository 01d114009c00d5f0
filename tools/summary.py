#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Add up the results of all suites: summary.py [--filtered] RESULTS_DIR SUITE...

Reads what each suite left in RESULTS_DIR: SUITE.json (meson's testlog, with cmocka's TAP inside), SUITE.xml
(JUnit) or SUITE.tap; the file "failed" names the suites whose command failed. A suite without a single result, and
a suite that failed without naming a failed test, count as one failed test: silence is no success. Under CI=true
a skipped unit or end-to-end test counts as failed; conformance keeps its own list of reasons for skips.

The last line is "N passed, N failed", with ", N skipped" when there are any.
"""

import json
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

TAP_RESULT = re.compile(r"^(not )?ok (\d+)\b(.*)$")
TAP_PLAN = re.compile(r"^1\.\.(\d+)")
MAY_SKIP = {"conformance", "torture"}


class Count(NamedTuple):
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other):
        return Count(*(a + b for a, b in zip(self, other)))


def count_tap(text):
    """Count TAP lines; results that a plan promised and that never came are one failure."""
    passed = failed = skipped = planned = 0
    for line in text.splitlines():
        if plan := TAP_PLAN.match(line):
            planned += int(plan.group(1))
        elif result := TAP_RESULT.match(line):
            if "# skip" in result.group(3).lower():
                skipped += 1
            elif result.group(1):
                failed += 1
            else:
                passed += 1
    if planned > passed + failed + skipped:
        failed += 1
    return Count(passed, failed, skipped)


def count_meson(path):
    """One object per test program; programs without TAP in their output count as one test."""
    total = Count()
    for line in path.read_text().splitlines():
        test = json.loads(line)
        count = count_tap(test.get("stdout") or "")
        good, skipped = test["result"] in ("OK", "EXPECTEDFAIL"), test["result"] == "SKIP"
        if sum(count) == 0:
            count = Count(int(good), int(not good and not skipped), int(skipped))
        elif not good and not skipped and count.failed == 0:
            count += Count(failed=1)
        total += count
    return total


def count_junit(path):
    total = Count()
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            total += Count(failed=1)
        elif case.find("skipped") is not None:
            total += Count(skipped=1)
        else:
            total += Count(passed=1)
    return total


def count_suite(results, name):
    readers = {".json": count_meson, ".xml": count_junit, ".tap": lambda path: count_tap(path.read_text())}
    for suffix, reader in readers.items():
        path = results / (name + suffix)
        if path.exists():
            try:
                return reader(path)
            except (ValueError, KeyError, ElementTree.ParseError) as error:
                print(f"{name}: {path.name} cannot be read: {error}")
    return Count()


def judge(count, name, command_failed, filtered):
    """Turn silence and unexplained failures into a failed test."""
    notes = []
    if os.environ.get("CI") == "true" and name not in MAY_SKIP and count.skipped:
        notes.append(f"{count.skipped} skipped, which CI does not accept")
        count = Count(count.passed, count.failed + count.skipped, 0)
    if sum(count) == 0 and not filtered:
        notes.append("no test ran")
        count = Count(failed=1)
    elif command_failed and count.failed == 0:
        notes.append("the suite ended with an error")
        count += Count(failed=1)
    return count, "; ".join(notes)


def main():
    arguments = sys.argv[1:]
    filtered = arguments[:1] == ["--filtered"]
    results, *suites = arguments[filtered:]
    results = Path(results)
    failed_file = results / "failed"
    failed_suites = set(failed_file.read_text().split()) if failed_file.exists() else set()
    total = Count()
    print()
    for name in suites:
        count, note = judge(count_suite(results, name), name, name in failed_suites, filtered)
        print(f"{name:12} {count.passed:6} passed {count.failed:4} failed {count.skipped:4} skipped  {note}".rstrip())
        total += count
    if sum(total) == 0:
        print("no test has this name" if filtered else "no test ran")
        total = Count(failed=1)
    skipped = f", {total.skipped} skipped" if total.skipped else ""
    print(f"{total.passed} passed, {total.failed} failed{skipped}")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
