# SPDX-License-Identifier: Apache-2.0
"""Values on their way to a session, and calls that fail meanwhile, each in turn: the variable is the new one when the answer
says so, else the old one, and the session goes on."""

import pytest
import requests

from support import eventually

#: call, errno, how many of the first ones are tried.
CASES = [
    ("malloc", "ENOMEM", 60),
    ("calloc", "ENOMEM", 30),
    ("realloc", "ENOMEM", 10),
    ("sendmsg", "EAGAIN", 10),
    ("sendmsg", "EINTR", 10),
    ("sendmsg", "ENOBUFS", 10),
    ("sendmsg", "ECONNRESET", 10),
    ("pread64", "EIO", 6),
    ("memfd_create", "EMFILE", 2),
    ("write", "ENOSPC", 6),
    ("fcntl", "EPERM", 4),
    ("epoll_ctl", "ENOMEM", 6),
]
VALUE = b"0123456789" * 30_000


def put(session, value):
    """The status, or None for a connection that was cut."""
    try:
        answer = requests.put(session.sidecar.url + f"{session.path}/variables/x", data=value, timeout=30,
                              headers={"Content-Type": "text/plain", "Connection": "close"})
    except requests.ConnectionError:
        return None
    body = answer.json()
    assert answer.status_code == 200 or (body["detail"] and body["code"] and body["remediation"]), answer.text
    return answer.status_code


@pytest.mark.parametrize("call, error, most", CASES, ids=[f"{call} {error}" for call, error, _ in CASES])
def test_each_call_of_a_put(own, plan, call, error, most):
    session = own.create()
    assert put(session, b"old") == 200
    failed, new = 0, str(len(VALUE))
    for nth in range(1, most + 1):
        session.rest()
        plan.fail(call, error, nth, 1)
        status = put(session, VALUE)
        seen, hits = plan.clear(call)
        failed += hits
        session.post("1")  # it may be told once that its state has gone back
        value = session.value("x if len(x) == 3 else len(x)")
        # Where memory was short, or the connection went, that may have been the answer's own.
        may_be = {200: (new,), 503: ("'old'", new), None: ("'old'", new)}.get(status, ("'old'",))
        assert value in may_be, f"number {nth} of {seen}: status {status}, x is {value}"
        if value != "'old'":
            assert put(session, b"old") == 200
        if not hits:
            break
    assert failed > 0, f"nothing has called {call}"
    assert own.process.poll() is None, own.log_text()[-3000:]
    eventually(lambda: put(session, VALUE) == 200, "everything works again")
    session.delete()
