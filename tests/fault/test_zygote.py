# SPDX-License-Identifier: Apache-2.0
"""The zygote dies and its successor cannot be started for a while: sessions live on, new ones get a clear answer, and
when the failure is over there is a zygote again."""

import os
import signal

import pytest
import requests

from support import alive, eventually

CASES = [
    ("posix_spawn", "EAGAIN"),
    ("posix_spawn", "ENOMEM"),
    ("posix_spawn", "EPERM"),
    ("pidfd_open", "EMFILE"),
    ("pidfd_open", "ENOMEM"),
    ("socketpair", "EMFILE"),
    ("socketpair", "ENFILE"),
    ("fcntl", "ENOMEM"),
    ("calloc", "ENOMEM"),
]



@pytest.mark.parametrize("call, error", CASES)
def test_a_zygote_that_cannot_be_replaced_for_a_while(own, plan, call, error):
    session = own.create()
    session.ok("x = 42")
    old = own.zygote()
    # Its death leaves nothing else to do that needs the call: the first three of them are attempts to start it.
    plan.fail(call, error, 1, 3)
    os.kill(old, signal.SIGKILL)
    eventually(lambda: plan.failed(call) == 3, "three attempts have failed")
    assert not alive(old)
    plan.clear(call)
    assert session.value("x") == "42"
    eventually(lambda: own.zygote() != old, "there is a new zygote")
    eventually(lambda: own.request("GET", "/ready").status_code == 200, "it is ready")
    other = own.create()
    assert other.value("1 + 1") == "2"


def test_a_caller_who_comes_while_there_is_no_zygote(own, plan):
    plan.fail("posix_spawn", "EAGAIN", 1, 1_000_000)
    os.kill(own.zygote(), signal.SIGKILL)
    eventually(lambda: plan.failed("posix_spawn") > 0, "the start has failed")
    assert own.request("GET", "/ready").status_code == 503
    answer = requests.post(own.url + "/session", timeout=60)
    assert answer.status_code == 503 and answer.json()["code"] == "sandbox_unavailable", answer.text
    assert answer.headers["Retry-After"]
    plan.clear("posix_spawn")
    eventually(lambda: own.request("POST", "/session").status_code == 200, "sessions can be created again", 30)
