# SPDX-License-Identifier: Apache-2.0
"""The setting is what run.py says it is: else the tests beside this one prove nothing."""

import ctypes
import errno
import os

import pytest

CLONE_NEWUSER = 0x10000000


def status():
    with open("/proc/self/status", encoding="ascii") as file:
        return dict(line.split(":", 1) for line in file.read().splitlines())


def test_nobody_without_rights():
    lines = status()
    assert set(lines["Uid"].split() + lines["Gid"].split()) == {"65534"}
    assert all(int(lines[key], 16) == 0 for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    assert lines["NoNewPrivs"].strip() == "1"


def test_no_user_namespace_to_be_had():
    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()
    if pid == 0:
        os._exit(ctypes.get_errno() if libc.unshare(CLONE_NEWUSER) else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (errno.ENOSPC, errno.EPERM)


@pytest.mark.parametrize("folder", ["/", "/usr", "/etc", "/codemode", "/codemode/build"])
def test_nothing_can_be_written(folder):
    with pytest.raises(OSError) as caught:
        open(os.path.join(folder, "mark"), "w")
    assert caught.value.errno in (errno.EROFS, errno.EACCES)


def test_no_tmp():
    assert not os.path.exists("/tmp")


def test_no_network_but_the_loopback():
    with open("/proc/net/dev", encoding="ascii") as file:
        assert [line.split(":")[0].strip() for line in file.readlines()[2:]] == ["lo"]
