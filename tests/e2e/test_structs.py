# SPDX-License-Identifier: Apache-2.0
"""Structs as wire/structs.c reads and writes them, against Google's own protobuf."""

import json
import math
import random
import string

import pytest
from google.protobuf import json_format, struct_pb2
from http2 import Program


@pytest.fixture(scope="module")
def convert():
    with Program("struct-convert") as program:

        def ask(kind, data):
            program.say(f"{kind} {data.hex()}")
            answer = program.hear()
            return answer if answer.startswith("refused ") else bytes.fromhex(answer)

        yield ask


def random_text(dice):
    letters = string.ascii_letters + string.digits + ' "\\/\b\n\t\0\x1f\x7fäß€日本😀\u2028'
    return "".join(dice.choice(letters) for _ in range(dice.choice((0, 1, 3, 20, 200))))


def random_number(dice):
    return dice.choice(
        [
            dice.randrange(-1000, 1000), dice.uniform(-1, 1), dice.uniform(-1e300, 1e300), dice.randrange(1 << 60),
            dice.randrange(1 << 60) / 7, 10.0 ** dice.randrange(-320, 308), 2**53, -(2**53), 0.1, 1e16, 5e-324, -0.0,
        ]
    )  # fmt: skip


def random_value(dice, depth):
    kind = dice.randrange(7 if depth < 6 else 5)
    if kind == 5:
        return [random_value(dice, depth + 1) for _ in range(dice.randrange(5))]
    if kind == 6:
        return random_object(dice, depth + 1)
    return (None, dice.random() < 0.5, random_number(dice), random_text(dice), dice.randrange(100))[kind]


def random_object(dice, depth=0):
    return {random_text(dice): random_value(dice, depth) for _ in range(dice.randrange(6))}


def same(a, b):
    """Equal as doubles; what comes back as int has to be an integral one."""
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, bool) or a is None or isinstance(a, str):
        return type(a) is type(b) and a == b
    exact = float(a).is_integer() and abs(a) <= 2**53 and math.copysign(1, a) * a >= 0 and str(float(a)) != "-0.0"
    return float(a) == b and isinstance(b, int) == exact and math.copysign(1, float(a)) == math.copysign(1, b)


def test_random_documents(convert):
    dice = random.Random(4)
    for _ in range(500):
        document = random_object(dice)
        text = json.dumps(document, ensure_ascii=dice.random() < 0.5, indent=dice.choice((None, 1)))
        theirs = struct_pb2.Struct()
        json_format.Parse(text, theirs)
        ours = struct_pb2.Struct.FromString(convert("j", text.encode()))
        assert ours == theirs
        assert same(document, json.loads(convert("s", convert("j", text.encode()))))
        assert json.loads(convert("s", theirs.SerializeToString())) == json.loads(json_format.MessageToJson(theirs))


@pytest.mark.parametrize("text", ['{"a":NaN}', '{"a":1e400}', '{"a":"\\ud800"}', "[]", "3", "", '{"a":1,}'])
def test_refused_text(convert, text):
    assert convert("j", text.encode()).startswith("refused ")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_refused_numbers(convert, number):
    made = struct_pb2.Struct()
    made.fields["a"].number_value = number
    assert convert("s", made.SerializeToString()) == "refused Struct: a number is not finite"


def test_value_without_content(convert):
    made = struct_pb2.Struct()
    made.fields["a"].SetInParent()
    made.fields["b"].list_value.values.add()
    assert json.loads(convert("s", made.SerializeToString())) == {"a": None, "b": [None]}


def test_large(convert):
    document = {"rows": [{"id": n, "name": f"row {n}", "tags": ["x"] * 5} for n in range(5000)]}
    made = convert("j", json.dumps(document).encode())
    assert json_format.MessageToDict(struct_pb2.Struct.FromString(made)) == document
    assert json.loads(convert("s", made)) == document
