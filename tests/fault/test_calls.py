# SPDX-License-Identifier: Apache-2.0
"""System calls and allocations of the real server fail, one kind at a time, while real clients ask for things.

Each request gets a clear answer, the server lives, and when the failure is over everything works as before.
"""

import contextlib

import pytest
import requests

from plan import HTTP_LIBRARY, PROGRAM
from support import eventually

#: What a client may be told while the server lacks something.
STATUSES = {200, 404, 410, 429, 500, 503}

# call, errno, whose call, may the client's connection be cut: (the answer itself needs the call)
CASES = [
    ("socketpair", "EMFILE", PROGRAM, False),
    ("socketpair", "ENFILE", PROGRAM, False),
    ("socketpair", "ENOMEM", PROGRAM, False),
    ("socketpair", "EPERM", PROGRAM, False),
    ("fcntl", "EINVAL", PROGRAM, False),
    ("fcntl", "ENOMEM", PROGRAM, False),
    ("sendmsg", "EAGAIN", PROGRAM, False),
    ("sendmsg", "EINTR", PROGRAM, False),
    ("sendmsg", "ENOBUFS", PROGRAM, False),
    ("sendmsg", "ETOOMANYREFS", PROGRAM, False),
    ("sendmsg", "ENOMEM", PROGRAM, False),
    ("recvmsg", "EAGAIN", PROGRAM, False),
    ("recvmsg", "EINTR", PROGRAM, False),
    ("recvmsg", "ENOMEM", PROGRAM, False),
    ("recvmsg", "ECONNRESET", PROGRAM, False),
    ("waitid", "EINTR", PROGRAM, False),
    ("waitid", "ECHILD", PROGRAM, False),
    ("pidfd_send_signal", "EPERM", PROGRAM, False),
    ("getrandom", "EINTR", PROGRAM, False),
    ("getrandom", "ENOSYS", PROGRAM, False),
    ("epoll_ctl", "ENOMEM", PROGRAM, True),
    ("epoll_ctl", "ENOSPC", PROGRAM, True),
    ("malloc", "ENOMEM", PROGRAM, True),
    ("calloc", "ENOMEM", PROGRAM, True),
    ("accept4", "EMFILE", PROGRAM, False),
    ("accept4", "ENFILE", PROGRAM, False),
    ("accept4", "ENOMEM", PROGRAM, False),
    ("accept4", "ENOBUFS", PROGRAM, False),
    ("accept4", "ECONNABORTED", PROGRAM, False),
    ("accept4", "EINTR", PROGRAM, False),
    ("epoll_ctl", "ENOMEM", HTTP_LIBRARY, True),
    ("recv", "EINTR", HTTP_LIBRARY, True),
    ("recv", "ECONNRESET", HTTP_LIBRARY, True),
    ("recv", "ENOMEM", HTTP_LIBRARY, True),
    ("sendmsg", "EINTR", HTTP_LIBRARY, True),
    ("sendmsg", "ECONNRESET", HTTP_LIBRARY, True),
    ("sendmsg", "ENOMEM", HTTP_LIBRARY, True),
    ("malloc", "ENOMEM", HTTP_LIBRARY, True),
    ("calloc", "ENOMEM", HTTP_LIBRARY, True),
]

#: Which calls of the kind: the first, the second, the third, and eight in a row.
PLACES = [(1, 1), (2, 1), (3, 1), (1, 8)]


def ask(sidecar, may_cut, method, path, **kwargs):
    """One exchange on a connection of its own: its JSON or None. Whatever it says must be said clearly."""
    try:
        answer = requests.request(method, sidecar.url + path, timeout=60, headers={"Connection": "close"}, **kwargs)
    except requests.ConnectionError:
        assert may_cut, f"{method} {path}: the connection was cut"
        return None
    assert answer.status_code in STATUSES, answer.text
    body = answer.json()
    if answer.status_code == 200:
        return body
    assert body["detail"] and body["code"] and body["remediation"], body
    assert answer.status_code != 503 or answer.headers["Retry-After"]
    return None


def life(sidecar, may_cut):
    """A session from its creation to its end, and one execution without a session. True when all of it worked."""
    made = ask(sidecar, may_cut, "POST", "/session")
    ran = ended = None
    if made:
        path = f"/session/{made['session_id']}"
        ran = ask(sidecar, may_cut, "POST", path + "/execute", json={"code": "print('a'); 6 * 7"})
        if ran and ran["success"]:  # output without memory to keep it is lost, and the answer says so
            assert ran["result"] == "42" and (ran["stdout"] == "a\n" or ran["stdout_truncated"]), ran
        ended = ask(sidecar, may_cut, "DELETE", path)
    once = ask(sidecar, may_cut, "POST", "/execute", json={"code": "1 + 1"})
    assert not once or not once["success"] or once["result"] == "2", once
    return bool(made and ran and ran["success"] and ran["stdout"] == "a\n" and ended and once and once["success"])


@pytest.mark.parametrize("call, error, caller, may_cut", CASES)
def test_a_call_that_fails(sidecar, plan, call, error, caller, may_cut):
    failed = 0
    for first, count in PLACES:
        plan.fail(call, error, first, count, caller)
        with contextlib.ExitStack() as stack:
            stack.callback(plan.clear, call)
            life(sidecar, may_cut)
            failed += plan.failed(call)
    assert failed > 0, f"nothing has called {call}: the case tests nothing"
    assert sidecar.process.poll() is None, sidecar.log_text()[-3000:]
    eventually(lambda: life(sidecar, False), "everything works again", 30)
    sidecar.check_clean()
