# SPDX-License-Identifier: Apache-2.0
"""Descriptors sent to the gateway by a worker without a jail: it must not collect what nobody asked for."""

import pytest

from attack import ROLLED, outcome_of

STAGE = "loose"

PASSES = {
    "channel with READY": "pass 0 32",
    "channel with RESULT": "pass 0 34",
    "channel with OUTPUT": "pass 0 33",
    "channel with a frame of the zygote": "pass 0 3",
    "a hundred": "pass 0 33\n" * 100,
}


@pytest.mark.parametrize("name", list(PASSES))
def test_passing(stage, name):
    """The stage counts the gateway's descriptors afterwards."""
    session = stage.server.create()
    answer = session.post(PASSES[name] + "\nsilence", timeout=1)
    assert outcome_of(answer) == ROLLED, answer.text
    session.delete()


def test_passing_before_good_frames(stage):
    """Descriptors beside frames that are legal: nothing takes them, and none stays open."""
    session = stage.server.create()
    for _ in range(20):
        answer = session.post("pass 0 999")
        assert outcome_of(answer) == ROLLED
        session.delete()
        session = stage.server.create()
    session.delete()  # the stage counts what is left
