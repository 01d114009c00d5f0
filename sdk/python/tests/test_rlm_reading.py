# SPDX-License-Identifier: Apache-2.0
"""How replies are read and outputs are told, by the cases that the service's tests read as well."""

import json
import keyword
import pathlib

import pytest

from rlm import common
from rlm.reading import block_output, outputs_message, read_reply
from rlm.tools import read_tools

SHARED = pathlib.Path(__file__).resolve().parents[3] / "rlm"
REPLIES = json.loads((SHARED / "cases/replies.json").read_text(encoding="utf-8"))
OUTPUTS = json.loads((SHARED / "cases/outputs.json").read_text(encoding="utf-8"))
NAMES = json.loads((SHARED / "cases/names.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", REPLIES, ids=lambda case: case["name"])
def test_a_reply(case):
    found = read_reply(case["reply"])
    final = None if found.final is None else {key: value for key, value in found.final._asdict().items() if value is not None}
    assert found.blocks == case["blocks"]
    assert final == case["final"]
    assert found.unclosed is case.get("unclosed", False)


def joined(value):
    if isinstance(value, list):
        return "".join(map(joined, value))
    return value["repeat"] * value["times"] if isinstance(value, dict) else value


@pytest.mark.parametrize("case", OUTPUTS, ids=lambda case: case["name"])
def test_an_output(case):
    outputs = [
        block_output(
            joined(block.get("stdout", "")),
            joined(block.get("value")),
            joined(block.get("stderr", "")),
            joined(block.get("error")),
            block.get("variables", []),
        )
        for block in case["blocks"]
    ]
    assert outputs_message(outputs) == joined(case["message"])


def test_names_of_tools():
    assert list(read_tools(dict.fromkeys(NAMES["good"], 1)).variables) == NAMES["good"]
    for name in NAMES["taken"] + NAMES["bad"]:
        with pytest.raises(ValueError):
            read_tools({name: 1})
    assert set(keyword.kwlist) <= set(NAMES["bad"])
