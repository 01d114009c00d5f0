# SPDX-License-Identifier: Apache-2.0
"""Source text that is an attack by itself: a reader has to survive it before anything runs."""

import pytest

from attack import EXC, HARMLESS, REFUSED, ROLLED, SOFT, Attack, parameters, perform

STAGE = "guest"
WRONG = "SyntaxError|ValueError|MemoryError|UnicodeDecodeError"

SOURCES = [
    Attack("zero", "x = 1\0\nprint('hidden')", EXC, says=WRONG),
    Attack("zero in a comment", "# \0\nprint('hidden')\n1/0", EXC, says=WRONG + "|ZeroDivisionError"),
    Attack("half a surrogate", "x = '\ud800'", REFUSED | EXC),
    Attack("UTF-7 cookie", "# coding: utf-7\n+AHAAcgBpAG4AdA-(1)", EXC | HARMLESS, says=WRONG + "|NameError"),
    Attack("cookie of no coding", "# -*- coding: rot_42 -*-\n1", HARMLESS | EXC, says=WRONG),
    Attack("cookie with a lie", "# coding: latin-1\n'ü'", HARMLESS | EXC),
    Attack("cookie and string escape", "# coding: unicode_escape\n#\\x0aprint('hidden')", HARMLESS | EXC),
    Attack("byte order mark", "\ufeffx = 1\nx", HARMLESS | EXC),
    Attack("two byte order marks", "\ufeff\ufeffx = 1", EXC, says=WRONG),
    Attack("bidirectional text", "access = 'user\u202e \u2066# admin\u2069 \u2066'\naccess", HARMLESS),
    Attack("every kind of line end", "x = 1\rx += 1\r\nx += 1\x0bx\x0c\u2028\u2029\x85", EXC | HARMLESS, says=WRONG),
    Attack("line of ten megabytes", "x = '" + "a" * (10 << 20) + "'", HARMLESS | EXC | ROLLED | SOFT, timeout=10),
    Attack("sum of a million terms", "x = " + "1+" * 10 ** 6 + "1", EXC | ROLLED | SOFT, says=WRONG + "|RecursionError", timeout=10),
    Attack("hundred thousand functions", "\n".join(f"def f{n}(): pass" for n in range(100_000)), EXC | HARMLESS | SOFT | ROLLED, timeout=10),
    Attack("hundred thousand parentheses", "(" * 100_000 + ")" * 100_000, EXC, says=WRONG),
    Attack("parentheses that never close", "([{" * 50_000, EXC, says=WRONG),
    Attack("decorators", "@a\n" * 100_000 + "def f(): pass", EXC | ROLLED, says=WRONG + "|RecursionError|NameError", timeout=10),
    Attack("indentation", "\n".join(" " * n + "if 1:" for n in range(300)) + "\n" + " " * 301 + "pass", EXC, says="IndentationError|SyntaxError"),
    Attack("dedent to nowhere", "if 1:\n        a\n    b", EXC, says="IndentationError"),
    Attack("else without end", "if 0: pass\n" + "elif 0: pass\n" * 30_000, EXC | ROLLED | HARMLESS, says=WRONG + "|RecursionError", timeout=8),
    Attack("comparison chain", "1" + "<2" * 200_000, EXC | HARMLESS | ROLLED | SOFT, timeout=8),
    Attack("f-string that breaks the grammar", "f'{1!x:{2!r:{3}}}{'", EXC, says=WRONG),
    Attack("star pattern", "match 1:\n    case " + "[" * 3000 + "]" * 3000 + ": pass", EXC, says=WRONG + "|RecursionError"),
    Attack("number of ten million digits", "x = " + "9" * (10 << 20), EXC, says=WRONG, timeout=8),
    Attack("names that normalise", "ﬁ = 1\nfi += 1\n𝓯𝓲", HARMLESS, result="2"),
    Attack("nothing", "\n" * 10 ** 6, HARMLESS, timeout=5),
    Attack("longer than the limit", "#" * ((12 << 20) + 1), REFUSED),
    Attack("magic names", "__builtins__ = __name__ = __file__ = __spec__ = __loader__ = None\nimport json", HARMLESS | EXC, self_harm=True),
    Attack("context that overwrites everything", "kept[0]", HARMLESS | EXC, context={"__builtins__": {}, "__name__": 5, "print": None, "__import__": 1, "": 0, "a\u0000b": 1}, self_harm=True),
    Attack("context of a hundred thousand names", "len(globals()) > 100_000", HARMLESS, result="True", context={f"n{n}": n for n in range(100_000)}, timeout=10),
    Attack("context as deep as JSON allows", "type(deep)", REFUSED | EXC | HARMLESS, context={"deep": __import__("functools").reduce(lambda inner, _: [inner], range(300), 1)}),
]


@pytest.mark.parametrize(**parameters(SOURCES))
def test_sources(stage, attack):
    perform(stage, attack)
