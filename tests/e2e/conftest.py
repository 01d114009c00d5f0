# SPDX-License-Identifier: Apache-2.0
"""One sidecar per test module, with the module's SETTINGS; checked for leftovers when the module is done.

Tests of RLM have `rlm`, once as the service and once as the library (rlm_support.py), and `models`, what both of them ask."""

import os

import pytest

from model_server import KEY, ModelServer
from rlm_support import DRIVERS
from support import Sidecar


def pytest_configure(config):
    config.addinivalue_line("markers", "unrestricted(reason): not for the container of tests/restricted")


#: The files that take longest. They begin first: at the end of a suite a long one would run alone.
LONG = ("rlm_hostile", "recursion", "rlm_models", "rlm_limits", "randomness", "rlm_service", "ui", "libcodemode", "rlm_storm")


def pytest_collection_modifyitems(items):
    places = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


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


@pytest.fixture(scope="module")
def rlm_models():
    with ModelServer(None, key=KEY, strict=False) as server:
        yield server


#: Which of them; under sanitizers the library would meet the same sidecar as everybody else.
RLM_DRIVERS = os.environ.get("RLM_DRIVERS", " ".join(DRIVERS)).split()


@pytest.fixture(scope="module", params=RLM_DRIVERS)
def rlm_driver(request, rlm_models, tmp_path_factory):
    """A driver with a sidecar. A module may set OWN_SIDECAR (it kills it, or fills it) and ANTHROPIC."""
    module = request.module
    own = getattr(module, "OWN_SIDECAR", False)
    sidecar = Sidecar({"GRACE": "1", **({"MAX_SESSIONS": "6"} if own else {})})
    driver = None
    try:
        folder = tmp_path_factory.mktemp("trajectories")
        driver = DRIVERS[request.param](rlm_models, sidecar, folder, getattr(module, "ANTHROPIC", False))
        yield driver
        status = driver.close()
        assert status in (None, 0), f"the service ended with {status}"
        driver.sidecar.check_clean()
    finally:
        if driver:
            driver.close()
            sidecar = driver.sidecar  # a test may have killed the first one
        sidecar.stop()


@pytest.fixture
def models(rlm_models):
    rlm_models.reset(None)
    yield rlm_models
    rlm_models.check()


@pytest.fixture
def rlm(rlm_driver, models):
    yield rlm_driver
    rlm_driver.check_after()
