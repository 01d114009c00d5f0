#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Run tests/driver inside the sandbox: driver_tests.py CODEMODE OUTPUT.tap [FILTER]

The driver is written for the guest's Python version, which the machine need not have. So the tests travel in as
one piece of code that writes them to the session's own files, runs them there and prints TAP.

test_interrupts.py stays out: here a session runs inside a session, and its interrupts reach both. It needs a
CPython 3.13 of the machine; interrupts of the real thing are tested from outside, in tests/e2e/test_timeouts.py.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = "==== TAP ===="
DEADLINE_S = 120
NOT_NESTED = {"test_interrupts.py"}

SCRIPT = """
import os, sys
os.makedirs("/tmp/driver-tests", exist_ok=True)
for name, text in {files!r}.items():
    with open("/tmp/driver-tests/" + name, "w", encoding="utf-8") as file:
        file.write(text)
os.chdir("/tmp/driver-tests")
sys.argv = ["unittest_tap.py", "/tmp/driver-tests", "/tmp/driver-tests.tap", *{patterns!r}]
import runpy
try:
    runpy.run_path("/tmp/driver-tests/unittest_tap.py", run_name="__main__")
except SystemExit:
    pass
print({mark!r})
print(open("/tmp/driver-tests.tap", encoding="utf-8").read())
"""


def main():
    codemode, output, *patterns = sys.argv[1:]
    paths = [ROOT / "tools/unittest_tap.py", *sorted((ROOT / "tests/driver").glob("*.py"))]
    files = {path.name: path.read_text() for path in paths if path.name not in NOT_NESTED}
    script = SCRIPT.format(files=files, patterns=patterns, mark=MARK)
    command = [codemode, "exec", "--timeout", str(DEADLINE_S - 10), "-"]
    # a sidecar that the caller's environment names is not the one under test
    environment = {k: v for k, v in os.environ.items() if k not in ("CODEMODE_URL", "WASM_MANAGER_SERVICE_URL")}
    try:
        run = subprocess.run(
            command, input=script, stdout=subprocess.PIPE, text=True, timeout=DEADLINE_S, env=environment, check=False
        )
    except subprocess.TimeoutExpired as error:
        print((error.stdout or b"").decode(errors="replace"))
        print(f"the tests did not end within {DEADLINE_S} s")
        return 1
    report, _, tap = run.stdout.partition(MARK)
    print(report)
    Path(output).write_text(tap)
    failed = run.returncode != 0 or not tap.strip() or "\nnot ok" in tap
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
