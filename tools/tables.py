#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Keep the README's tables equal to tables/*.def: tables.py --check | --write

A table stands between "<!-- NAME: made by ./dev fmt -->" and "<!-- end -->".
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')


def calls(file, macro):
    """Yield the arguments of each call of the macro; strings lose their quotes."""
    text = re.sub(r"/\*.*?\*/", "", (ROOT / "tables" / file).read_text(), flags=re.S)
    for match in re.finditer(rf"^{macro}\((.*?)\)$", text, flags=re.S | re.M):
        strings = TEXT.findall(match.group(1))
        plain = TEXT.sub(lambda _: "\0", match.group(1))
        yield [strings.pop(0) if part.strip() == "\0" else part.strip() for part in plain.split(",")]


def settings():
    yield "| variable | flag | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for _, _, env, flag, _, _, default, unit, text in calls("config.def", "CM_CONFIG"):
        value = f"`{default}`" + (f" {unit}" if unit == "seconds" else "") if default else "none"
        yield f"| `{env}` | `{flag}` | {value} | {text} |"


def errors():
    yield "| status | `code` | what to do |"
    yield "| --- | --- | --- |"
    rows = [(http, code, text) for _, _, http, code, _, text in calls("errors.def", "CM_ERROR")]
    for http, code, text in sorted(rows):
        yield f"| {http} | `{code}` | {text} |"


def renewed(text):
    for name, rows in (("settings", settings), ("errors", errors)):
        begin, end = f"<!-- {name}: made by ./dev fmt -->\n", "<!-- end -->"
        head, found, rest = text.partition(begin)
        if not found:
            raise SystemExit(f"README.md has no table {name}")
        text = head + begin + "\n".join(rows()) + "\n" + rest[rest.index(end) :]
    return text


def main():
    old = README.read_text()
    new = renewed(old)
    if sys.argv[1:] == ["--write"]:
        README.write_text(new)
    elif new != old:
        print("README.md differs from tables/*.def: run ./dev fmt")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
