# SPDX-License-Identifier: Apache-2.0
"""Sidecars whose calls can be made to fail; they must come out of it as they went in."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from plan import CALLS, Plan  # noqa: E402
from support import BUILD, Sidecar, eventually, resident_bytes  # noqa: E402

LIBRARY = BUILD / "tests/fault/libcm_fault.so"

#: Memory that a server may take for good while its calls fail: what the C library's heap keeps for next time.
GROWTH = 8 << 20


@pytest.fixture(scope="module")
def plan():
    assert LIBRARY.exists(), f"{LIBRARY} is missing: these tests are for a build without sanitizers"
    shared = Plan()
    yield shared
    shared.close()


def start(plan, **settings):
    # Without spare workers each session asks for a process.
    return Sidecar({"SPARE_WORKERS": "0", "LOG_LEVEL": "INFO", **settings, **plan.settings(LIBRARY)})


@pytest.fixture(scope="module")
def sidecar(plan):
    server = start(plan)
    try:
        before = resident_bytes(server.process.pid)
        yield server
        server.check_clean()
        # What it needs no longer it gives back a second later.
        eventually(lambda: resident_bytes(server.process.pid) - before < GROWTH, f"the server is smaller than {before + GROWTH} bytes")
    finally:
        status = server.stop()
    assert status == 0, f"the server ended with status {status}"


@pytest.fixture
def own(plan):
    """A sidecar for one test: attempts to start a zygote come slower after each failure."""
    server = start(plan)
    try:
        yield server
        server.check_clean()
    finally:
        for call in CALLS:
            plan.clear(call)
        status = server.stop()
    assert status == 0, f"the server ended with status {status}"
