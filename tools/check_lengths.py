#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Report the length of C functions and files, and fail above the ceilings.

Functions are found by the house format: the opening and the closing brace stand alone in column one. A function may
be longer when the line above its signature is a comment that begins with "long:" and gives the reason.
"""

import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FUNCTION_CEILING = 80
FILE_CEILING = 700
FOLDERS = ("src", "guest", "tests", "sdk/c")


def signature_start(lines, brace):
    """Index of the first line of the signature above the brace."""
    start = brace
    while start > 0 and lines[start - 1].strip() and not lines[start - 1].rstrip().endswith((";", "}", "*/")):
        start -= 1
    return start


def functions(lines):
    """Yield (name line index, length in lines, waived) for each function body."""
    opened = None
    for index, line in enumerate(lines):
        if line.rstrip() == "{":
            opened = index
        elif line.rstrip() == "}" and opened is not None:
            start = signature_start(lines, opened)
            waived = start > 0 and "long:" in lines[start - 1]
            yield start, index - opened + 1, waived
            opened = None


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main():
    findings, lengths, sizes = [], [], []
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.[ch]"))]
    for path in files:
        lines = path.read_text().splitlines()
        name = path.relative_to(ROOT)
        sizes.append(len(lines))
        if len(lines) > FILE_CEILING:
            findings.append(f"{name}: {len(lines)} lines, the ceiling is {FILE_CEILING}")
        for start, length, waived in functions(lines):
            lengths.append(length)
            if length > FUNCTION_CEILING and not waived:
                findings.append(f"{name}:{start + 1}: function of {length} lines, the ceiling is {FUNCTION_CEILING}")
    print("\n".join(findings), end="\n" if findings else "")
    for what, values in (("functions", lengths), ("files", sizes)):
        if values:
            print(
                f"{what}: {len(values)}, median {statistics.median(values):g} lines,"
                f" 90th percentile {percentile(values, 0.9)}, longest {max(values)}"
            )
    return 1 if findings or not files else 0


if __name__ == "__main__":
    sys.exit(main())
