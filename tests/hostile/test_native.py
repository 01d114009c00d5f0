# SPDX-License-Identifier: Apache-2.0
"""Native code in a worker: what a flaw in the compiled guest would give an attacker, behind the real jail.

The scripts are for src/roles/prober.c. A system call outside of tables/syscalls.def, or with arguments other than
the table's, ends the process; nothing else happens.
"""

import concurrent.futures
import os
import platform
import re
import signal

import pytest

from attack import CRASH, ROLLED, SIGNAL, outcome_of
from support import ROOT, eventually

STAGE = "native"

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter and these numbers are for x86-64")

KILLED = "killed"
X32 = 0x40000000


def numbers():
    """{name: number} of x86-64's system calls, from the kernel's own header."""
    for path in ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"):
        if os.path.exists(path):
            with open(path, encoding="ascii") as file:
                return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", file.read())}
    raise AssertionError("the kernel's headers are missing: linux-libc-dev")


NR = numbers()
#: (name, pins) of the worker's rows.
ROWS = re.findall(r"^CM_SYSCALL\(WORKER, (\w+), (.*?), \"", (ROOT / "tables/syscalls.def").read_text(), re.M)
ALLOWED = {NR[name] for name, _ in ROWS}
#: A worker's descriptors by their names in the table.
DESCRIPTORS = {"CM_JAIL_CHANNEL": 0, "CM_JAIL_CHECKPOINT": 1, "CM_JAIL_PAGEMAP": 2}


def takes(call, fd):
    """True when a row allows this call on this descriptor."""
    pinned = [re.match(r"IS\(0, (\w+)\)", pins) for name, pins in ROWS if name == call]
    assert all(pinned), f"a row of {call} allows every descriptor"
    return fd in [DESCRIPTORS[pin.group(1)] for pin in pinned]


#: uretprobe and uprobe: Linux lets them past every filter, and ends or refuses whoever was not put there by a probe.
PAST_FILTERS = [335, 336]


def probe(stage, script, timeout=20, any_signal=False):
    """KILLED, or the words that the prober answers."""
    answer = stage.server.request("POST", "/execute", json={"code": script.replace("parent", str(stage.pid)), "timeout": timeout})
    if outcome_of(answer) == ROLLED:
        assert any_signal or "SIGSYS" in answer.text, answer.text
        return KILLED
    assert answer.status_code == 200 and answer.json()["success"], answer.text
    return answer.json()["result"]


def probe_all(stage, scripts, **how):
    """The outcomes of many scripts, each in a fresh worker."""

    def one(script):
        return probe(stage, script, **how)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(one, scripts))
        for _ in range(8):
            pool.submit(stage.server.hang_up)
    return dict(zip(scripts, outcomes))


def must_die(stage, script):
    """One attack: the worker dies of it, is counted, and takes its session with it."""
    before = stage.server.metrics()
    assert probe(stage, script) == KILLED
    stage.counted(before, {"codemode_worker_deaths_total": 1, f'codemode_worker_deaths_total{{cause="{SIGNAL}"}}': 1})


def test_every_system_call(stage):
    """Numbers 0 to 1023 with nothing but zeros as arguments, each in a worker of its own."""
    tried = [number for number in range(1024) if number not in ALLOWED and number not in PAST_FILTERS]
    before = stage.server.metric("codemode_worker_deaths_total")
    outcomes = probe_all(stage, [f"call {number}" for number in tried])
    assert [script for script, outcome in outcomes.items() if outcome != KILLED] == []
    refused = probe_all(stage, [f"call {number}" for number in PAST_FILTERS], any_signal=True)
    assert set(refused.values()) <= {KILLED, str(-6)}, refused
    died = len(tried) + list(refused.values()).count(KILLED)
    assert died >= 1000
    eventually(lambda: stage.server.metric("codemode_worker_deaths_total") - before == died, "each death is counted")


def test_the_list_is_short():
    assert len(ALLOWED) <= 16, "a system call more is a decision: this number makes it one"


def test_every_descriptor(stage):
    """Reading, writing and sending on any descriptor but the channel."""
    fds = list(range(1, 1024)) + [-1, 1 << 31, 1 << 32, (1 << 32) + 1, (1 << 63) - 1, -(1 << 32)]
    calls = ("read", "write", "writev", "sendto")
    tried = [(calls[n % len(calls)], fd) for n, fd in enumerate(fds)] + [(call, fd) for call in calls for fd in (1, 2, 3)]
    scripts = [f"call {NR[call]} {fd} @ 1" for call, fd in tried if not takes(call, fd)]
    assert len(scripts) > 1000
    outcomes = probe_all(stage, scripts)
    assert [script for script, outcome in outcomes.items() if outcome != KILLED] == []


ESCAPES = {
    "open": f"call {NR['open']} @ 0",
    "openat of the root": f"put 0 2f\ncall {NR['openat']} -100 @ 0",
    "openat2": f"put 0 2f\ncall {NR['openat2']} -100 @ @100 24",
    "open_by_handle_at": f"call {NR['open_by_handle_at']} -100 @ 0",
    "execve of a shell": f"put 0 2f62696e2f7368\ncall {NR['execve']} @ 0 0",
    "execveat of a memfd": f"call {NR['memfd_create']} @ 0\ncall {NR['execveat']} 1 @ 0 0 0x1000",
    "socket": f"call {NR['socket']} 2 1 0",
    "unix socket": f"call {NR['socket']} 1 1 0",
    "vsock": f"call {NR['socket']} 40 1 0",
    "netlink": f"call {NR['socket']} 16 3 0",
    "connect": f"call {NR['connect']} 0 @ 16",
    "sendto with an address": f"call {NR['sendto']} 1 @ 1 0 @100 16",
    "sendmsg with a descriptor": f"call {NR['sendmsg']} 0 @ 0",
    "recvmsg for a descriptor": f"call {NR['recvmsg']} 0 @ 0",
    "sendfile": f"call {NR['sendfile']} 0 0 0 1",
    "splice": f"call {NR['splice']} 0 0 0 0 1 0",
    "ptrace of the gateway": f"call {NR['ptrace']} 16 parent 0 0",
    "memory of the gateway": f"call {NR['process_vm_readv']} parent @ 1 @100 1 0",
    "writing into the gateway": f"call {NR['process_vm_writev']} parent @ 1 @100 1 0",
    "descriptor of the gateway": f"call {NR['pidfd_open']} parent 0\ncall {NR['pidfd_getfd']} 1 3 0",
    "kcmp": f"call {NR['kcmp']} parent parent 0 0 0",
    "kill of the gateway": f"call {NR['kill']} parent 9",
    "kill of everybody": f"call {NR['kill']} -1 9",
    "tgkill of the gateway": f"call {NR['tgkill']} parent parent 9",
    "signal through a pidfd": f"call {NR['pidfd_send_signal']} 0 9 0 0",
    "queued signal": f"call {NR['rt_sigqueueinfo']} parent 9 @",
    "stop of itself": f"call {NR['kill']} 0 19",
    "limits of the gateway": f"call {NR['prlimit64']} parent 7 @ 0",
    "clone": f"call {NR['clone']} 17 0 0 0 0",
    "clone with a user namespace": f"call {NR['clone']} 0x10000011 0 0 0 0",
    "clone3": f"call {NR['clone3']} @ 88",
    "vfork": f"call {NR['vfork']}",
    "fork": f"call {NR['fork']}",
    "unshare": f"call {NR['unshare']} 0x10000000",
    "setns": f"call {NR['setns']} 0 0",
    "mount": f"call {NR['mount']} @ @ @ 0 0",
    "chroot": f"call {NR['chroot']} @",
    "io_uring": f"call {NR['io_uring_setup']} 8 @",
    "io_uring that was never set up": f"call {NR['io_uring_enter']} 0 1 1 0 0",
    "bpf": f"call {NR['bpf']} 0 @ 48",
    "perf": f"call {NR['perf_event_open']} @ 0 -1 -1 0",
    "keys": f"call {NR['keyctl']} 0 0",
    "userfaultfd": f"call {NR['userfaultfd']} 0",
    "fanotify": f"call {NR['fanotify_init']} 0 0",
    "terminal input": f"call {NR['ioctl']} 0 0x5412 @",
    "a filter of its own": f"call {NR['seccomp']} 1 0 @",
    "prctl dumpable": f"call {NR['prctl']} 4 1",
    "prctl name": f"call {NR['prctl']} 15 @",
    "arch_prctl": f"call {NR['arch_prctl']} 0x1001 @",
    "uid": f"call {NR['setuid']} 0",
    "mmap of code": f"call {NR['mmap']} 0 4096 7 0x22 -1 0",
    "mmap of anything": f"call {NR['mmap']} 0 4096 3 0x22 -1 0",
    "munmap": f"call {NR['munmap']} 0x60000000 4096",
    "mremap": f"call {NR['mremap']} 0x60000000 4096 8192 1 0",
    "brk": f"call {NR['brk']} 0",
    "mprotect to code": f"call {NR['mprotect']} 0x60000000 4096 7",
    "mprotect to writable": f"call {NR['mprotect']} 0x60000000 4096 3",
    "mprotect to executable": f"call {NR['mprotect']} 0x60000000 4096 4",
    "mprotect with high bits": f"call {NR['mprotect']} 0x60000000 4096 0x100000000",
    "pkey_mprotect": f"call {NR['pkey_mprotect']} 0x60000000 4096 7 -1",
    "shared memory": f"call {NR['shmget']} 1 4096 0x3ff",
    "message queue": f"call {NR['mq_open']} @ 0x42 0x1ff 0",
    "new signal action": f"call {NR['rt_sigaction']} 11 @ 0 8",
    "random with other flags": f"call {NR['getrandom']} @ 8 1",
    "clock that is none": f"call {NR['clock_gettime']} 99 @",
    "clock of a thread": f"call {NR['clock_gettime']} 3 @",
    "clock of the first process": f"call {NR['clock_gettime']} {(~1 << 3) | 2} @",
    "urgent byte": f"call {NR['sendto']} 0 @ 1 0x4041 0 0",
    "send that waits": f"call {NR['sendto']} 0 @ 1 0x4000 0 0",
    "timer of another kind": f"call {NR['setitimer']} 1 @ 0",
    "x32 read": f"call {NR['read'] | X32} 0 @ 1",
    "x32 execve": f"call {X32 | 520} @ 0 0",
    "x32 getpid": f"call {NR['getpid'] | X32}",
    "number with high bits": f"call {(1 << 32) | NR['getpid']}",
    "negative number": "call -1",
    "32-bit getpid": "int80 20",
    "32-bit exit": "int80 1",
    "32-bit read": "int80 3",
    "32-bit socketcall": "int80 102",
}


@pytest.mark.parametrize("name", list(ESCAPES))
def test_escapes(stage, name):
    must_die(stage, ESCAPES[name])


EFAULT, EINVAL, EAGAIN = -14, -22, -11

#: Allowed calls with arguments that lie: an error or a short result, and the session goes on.
LIES = {
    "write from nowhere": (f"call {NR['write']} 0 0x10 100", f"{EFAULT}"),
    "write from the kernel": (f"call {NR['write']} 0 0xffffffff81000000 100", f"{EFAULT}"),
    "writev of a wild vector": (f"call {NR['writev']} 0 0x10 4", f"{EFAULT}"),
    "writev of too many": (f"call {NR['writev']} 0 @ 100000", f"{EINVAL}"),
    "writev of a negative length": (f"word 0 0x60000000\nword 8 -1\ncall {NR['writev']} 0 @ 1", f"{EINVAL}"),
    "send from nowhere": (f"call {NR['sendto']} 0 0x10 100 0x4040 0 0", f"{EFAULT}"),
    "random into nowhere": (f"call {NR['getrandom']} 0x10 16 0", f"{EFAULT}"),
    "clock into the kernel": (f"call {NR['clock_gettime']} 1 0xffffffff81000000", f"{EFAULT}"),
    "poll of too many": (f"call {NR['ppoll']} @ 100000 0 0 8", f"{EINVAL}"),
    "guard at an odd address": (f"call {NR['mprotect']} 0x60000001 4096 0", f"{EINVAL}"),
}


@pytest.mark.parametrize("name", list(LIES))
def test_lies(stage, name):
    script, expected = LIES[name]
    session = stage.server.create()
    assert session.value(script) in (expected, str(-12)), name
    assert session.value("word 0 7\nload @0") == "7"
    session.delete()


#: Accesses that no guest can make: our own fault handler must not take them for a trap of the guest, and go on.
FAULTS = {
    "read of nothing": "load 0",
    "write to nothing": "store 0 1",
    "write to its own code": "store 0x401000 1",
    "read of the kernel": "load 0xffffffff81000000",
    "write above the session's memory": "store 0x200000000 1",
    "write to the guard of a guest's stack": "store 0x300000000 1",
    "jump to nothing": "jump 0",
    "jump into data": "put 0 c3\njump @0",
    "jump into the session's memory": "jump 0x60000000",
    "native stack without end": "deepen",
    "guard under its own stack": f"call {NR['mprotect']} 0x60000000 0x1000 0\nload 0x60000000",
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_faults(stage, name):
    session = stage.server.create()
    before = stage.server.metrics()
    answer = session.post(FAULTS[name], timeout=20)
    assert outcome_of(answer) == ROLLED, answer.text
    assert "SIGSEGV" in answer.text or "SIGTRAP" in answer.text, answer.text
    stage.counted(before, {f'codemode_worker_deaths_total{{cause="{CRASH}"}}': 1})
    session.delete()


def test_clock_of_the_gateway(stage):
    """A clock's number may name a process: how much another one computes is nobody's business."""
    must_die(stage, f"call {NR['clock_gettime']} {(~stage.pid << 3) | 2} @")


def test_everything_made_inaccessible(stage):
    """mprotect to nothing is allowed, also over all that the process has."""
    session = stage.server.create()
    answer = session.post(f"call {NR['mprotect']} 0x400000 0x800000 0", timeout=2)
    assert outcome_of(answer) == ROLLED, answer.text
    session.delete()


def test_alarm_storm(stage):
    """A timer of one microsecond in the worker keeps nobody else from work, and ends with it."""
    session = stage.server.create()
    script = f"word 0 0\nword 8 1\nword 16 0\nword 24 1\ncall {NR['setitimer']} 0 @ 0\nspin"
    answer = session.post(script, timeout=0.5)
    assert outcome_of(answer) == ROLLED, answer.text
    session.delete()


def test_sleep_that_ignores_everything(stage):
    session = stage.server.create()
    answer = session.post(f"word 0 1000000\nword 8 0\ncall {NR['ppoll']} 0 0 @ 0 8\n" * 1000, timeout=0.5)
    assert outcome_of(answer) == ROLLED, answer.text
    session.delete()


def test_stopped_from_outside(stage):
    """Whoever may signal the process may stop it; its deadline still comes."""
    session = stage.server.create()
    os.kill(session.pid(), signal.SIGSTOP)
    assert outcome_of(session.post("load @0", timeout=0.3)) == ROLLED
    session.delete()


def test_live_workers_are_locked(stage):
    """What the kernel says of every worker, spare ones and those of sessions."""
    sessions = [stage.server.create() for _ in range(20)]
    for session in sessions:
        session.ok("load @0")
    workers = [pid for pid in stage.server.children() if pid != stage.server.zygote()]
    assert len(workers) >= 20
    for pid in workers:
        def status():
            with open(f"/proc/{pid}/status", encoding="ascii") as file:
                return dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)

        eventually(lambda: status()["Seccomp"] == "2", "the filter is loaded")
        said = status()
        assert said["NoNewPrivs"] == "1" and said["Threads"] == "1"
        for cap in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(said[cap], 16) == 0, f"{cap} is {said[cap]}"
        assert "0" not in said["Uid"].split() + said["Gid"].split(), said["Uid"]
    for session in sessions:
        session.delete()
