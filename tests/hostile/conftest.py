# SPDX-License-Identifier: Apache-2.0
"""One server per module's STAGE; the invariants are checked after every attack, whatever its test forgot."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import stages  # noqa: E402


@pytest.fixture(scope="session")
def all_stages():
    opened = {}
    yield opened
    failures = []
    for stage in opened.values():
        try:
            stage.end()
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, failures


@pytest.fixture
def stage(request, all_stages):
    kind = request.module.STAGE
    if kind not in all_stages:
        all_stages[kind] = stages.KINDS[kind]()
    return all_stages[kind]


@pytest.fixture(autouse=True)
def invariants(stage):
    yield
    stage.check()
