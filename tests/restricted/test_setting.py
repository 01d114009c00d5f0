# SPDX-License-Identifier: Apache-2.0
"""The setting is what run.py says it is: else the tests beside this one prove nothing."""

import ctypes
import errno
import json
import os
import subprocess
import urllib.request

import pytest
from support import BUILD, CODEMODE

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


def cannot_be_read(pid):
    for name in ("environ", "mem", "maps"):
        with pytest.raises(PermissionError):
            open(f"/proc/{pid}/{name}", "rb").read(1)


def test_the_keys_of_a_server_are_not_seen_by_its_neighbours():
    """Processes of one user in one container, as of one pod that shares its processes."""
    key = "a-key-of-the-tests-1"
    server = subprocess.Popen([CODEMODE, "serve", "--port", "0"], env={"CODEMODE_API_KEY": key, "SPARE_WORKERS": "1"},
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        port = next(event["port"] for event in map(json.loads, server.stdout) if event["event"] == "serving")
        request = urllib.request.Request(f"http://127.0.0.1:{port}/execute", b'{"code": "6 * 7"}', {"x-api-key": key})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert json.load(answer)["result"] == "42"
        cannot_be_read(server.pid)
    finally:
        server.terminate()
        server.communicate(timeout=20)
    assert server.returncode == 0


def test_the_keys_of_models_are_not_seen_either():
    """Neither with the RLM service nor with its private sidecar, which has them not, but a key of its own."""
    settings = {"LLM_API_KEY": "a-key-of-the-tests-2", "LLM_BASE_URL": "http://127.0.0.1:9/v1", "PATH": os.environ["PATH"]}
    service = subprocess.Popen([BUILD / "rlm", "serve", "--port", "0"], env=settings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        events = map(json.loads, service.stdout)
        sidecar = None
        for event in events:
            sidecar = event["pid"] if event["event"] == "sidecar_started" else sidecar
            if event["event"] == "sidecar_ready":
                break
        cannot_be_read(service.pid)
        cannot_be_read(sidecar)
    finally:
        service.terminate()
        service.communicate(timeout=20)
    assert service.returncode == 0
