# SPDX-License-Identifier: Apache-2.0
"""A fault of the sandbox's own code: a signal from outside stands in for the bug that nobody has found yet."""

import os
import signal
import subprocess

import pytest

from support import BUILD, alive, eventually, running_sidecar


@pytest.fixture
def own():
    with running_sidecar() as server:
        yield server


def crashes(server):
    return [line for line in server.log_lines() if line["event"] == "worker_crashed"]


def works(pid):
    """True when the process has used some tenths of a second: the guest runs, the request is read."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13])) >= 0.2 * os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP"])
def test_a_crash_is_reported(own, name):
    victim, other = own.create(), own.create()
    other.ok("y = 2")
    pid = victim.pid()
    work = victim.in_background("while True: pass", timeout=60)
    eventually(lambda: works(pid), "it runs")
    os.kill(pid, getattr(signal, name))
    work.result()
    eventually(lambda: not alive(pid), "the worker is gone")
    (line,) = eventually(lambda: crashes(own), "the crash is in the log")
    assert line["level"] == "ERROR" and line["pid"] == pid and line["session"] == victim.id
    report = line["report"]
    assert report.startswith(f"signal {getattr(signal, name).value} ({name}), sent by process {os.getpid()}\n")
    for words in ("instruction 0x", "stack pointer 0x", "guest: running", "registers: rax=0x", "callers", "version "):
        assert words in report, report
    assert own.metrics()['codemode_worker_deaths_total{cause="crash"}'] == 1
    assert other.value("y") == "2"


def test_an_idle_worker_reports_too(own):
    session = own.create()
    session.rest()
    os.kill(session.pid(), signal.SIGSEGV)
    (line,) = eventually(lambda: crashes(own), "the crash is in the log")
    assert "guest: not running" in line["report"]
    assert "host code" in line["report"] and line["session"] == session.id


def test_the_instruction_can_be_looked_up(own):
    """The address in the report is one of the executable, as addr2line and nm have it."""
    session = own.create()
    session.rest()
    os.kill(session.pid(), signal.SIGSEGV)
    (line,) = eventually(lambda: crashes(own), "the crash is in the log")
    callers = line["report"].split("callers by frame pointers:")[1].split("\n")[0].split()
    assert callers, line["report"]
    base = 0x400000
    address = hex(base + int(callers[0].removeprefix("executable+"), 16))
    sandbox = os.environ.get("CODEMODE_SANDBOX") or BUILD / "codemode-sandbox"
    found = subprocess.run(["addr2line", "-f", "-e", sandbox, address], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[0] not in ("", "??"), found.stdout


def test_the_zygote_reports_to_stderr(own):
    zygote = own.zygote()
    os.kill(zygote, signal.SIGSEGV)
    eventually(lambda: "codemode-sandbox crashed: signal 11 (SIGSEGV), sent by process" in own.log_text(), "its report")
    eventually(lambda: own.request("POST", "/session").status_code == 200, "new sessions can be created", 30)


def test_a_crash_behind_a_half_sent_frame(own):
    """Output that the gateway has not taken in full when the fault comes."""
    session = own.create()
    pid = session.pid()
    work = session.in_background("while True: print('x' * 5000)", timeout=60)
    eventually(lambda: works(pid), "it runs")
    os.kill(pid, signal.SIGSEGV)
    work.result()
    eventually(lambda: not alive(pid), "the worker is gone")
    assert not [line for line in own.log_lines() if line["event"] == "protocol_violation"]
    assert own.metric("codemode_worker_deaths_total") == 1
