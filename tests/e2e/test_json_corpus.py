# SPDX-License-Identifier: Apache-2.0
"""Every text of the fuzzers' JSON corpora as the body of POST /session: 400 exactly when Python's json refuses it."""

import json
import pathlib
import sys

import pytest

CORPUS = pathlib.Path(__file__).resolve().parents[1] / "fuzz/corpus"
FILES = [path for name in ("json", "execute", "locals") for path in sorted((CORPUS / name).iterdir())]
DEPTH_MAX = 200  # CM_JSON_DEPTH_MAX


def refuse(word):
    raise ValueError(f"{word} is no JSON")


def depth(value):
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return 0
    return 1 + max(map(depth, value), default=0)


def python_takes(data):
    """True when the bytes are UTF-8 and one JSON value by RFC 8259, not nested too deeply."""
    try:
        return depth(json.loads(data.decode(), parse_constant=refuse)) <= DEPTH_MAX
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        return False


@pytest.fixture(autouse=True)
def no_limit_of_digits():
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(before)


def test_the_reader_agrees_with_python(sidecar):
    verdicts = {True: 0, False: 0}
    for path in FILES:
        data = path.read_bytes()
        if not data:  # an empty body creates a session
            continue
        answer = sidecar.request("POST", "/session", data=data, headers={"Content-Type": "application/json"})
        taken = python_takes(data)
        verdicts[taken] += 1
        assert answer.status_code in (200, 400, 422, 429), answer.text
        refused = answer.status_code == 400
        # A wanted member that comes twice is our own rule.
        assert refused != taken or "twice" in answer.text, (path, answer.status_code, answer.text)
        if answer.status_code == 200:
            sidecar.request("DELETE", f"/session/{answer.json()['session_id']}")
    assert min(verdicts.values()) > 20, verdicts
