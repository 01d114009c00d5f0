# SPDX-License-Identifier: Apache-2.0
"""One sidecar per test module, with the module's SETTINGS; checked for leftovers when the module is done."""

import pytest

from support import Sidecar


def pytest_configure(config):
    config.addinivalue_line("markers", "unrestricted(reason): not for the container of tests/restricted")


@pytest.fixture(scope="module")
def sidecar(request):
    server = Sidecar(getattr(request.module, "SETTINGS", {}))
    try:
        yield server
        server.check_clean()
    finally:
        status = server.stop()
    assert status == 0, f"the server ended with status {status}"


@pytest.fixture
def session(sidecar):
    """A fresh session, deleted afterwards."""
    made = sidecar.create()
    yield made
    made.delete()


@pytest.fixture(scope="module")
def shared(sidecar):
    """One session for all tests of a module that only look at values."""
    return sidecar.create()
