# SPDX-License-Identifier: Apache-2.0
"""A whole life of a server - start, session, execution, deletion, drain - with one allocation of the program failing:
the first, the second, and so on until a life needs no further one. Each ends in success or in a clear error."""

import signal

import pytest
import requests

from conftest import start
from plan import PROGRAM
from support import eventually
from test_calls import life

#: More than a life needs.
ENOUGH = 400


@pytest.mark.parametrize("call", ["malloc", "calloc", "realloc"])
def test_each_allocation_of_a_running_server(own, plan, call):
    for nth in range(1, ENOUGH):
        plan.fail(call, "ENOMEM", nth, 1)
        life(own, True)
        if plan.clear(call)[1] == 0:
            break
        assert own.process.poll() is None, f"{call} number {nth}: {own.log_text()[-3000:]}"
    else:
        pytest.fail("a life takes more allocations than expected")
    assert nth > 1 or call == "realloc", "nothing was made to fail"
    eventually(lambda: life(own, False), "everything works again", 30)


def test_each_allocation_of_a_start(plan, call="calloc"):
    """The server says why it cannot start, or starts after all and stops when told."""
    for nth in range(1, ENOUGH):
        plan.fail(call, "ENOMEM", nth, 1, PROGRAM)
        try:
            server = start(plan)
        except AssertionError as error:
            assert "the server ended with 3" in str(error) and "memory" in str(error), f"{call} {nth}: {error}"
            assert plan.clear(call)[1] == 1
            continue
        except requests.ConnectionError:  # it has started, and the question whether it is ready was cut off
            assert plan.clear(call)[1] == 1
            continue
        failed = plan.clear(call)[1]
        server.process.send_signal(signal.SIGTERM)
        assert server.stop() == 0
        if not failed:
            break
    else:
        pytest.fail("a start takes more allocations than expected")
    assert nth > 1, "nothing was made to fail"
