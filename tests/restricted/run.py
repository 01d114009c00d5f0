#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The end-to-end tests in the meanest container that we promise to work in: run.py BUILD JUNIT_FILE [FILTER]

    user 65534 without any capability, no_new_privs, no user namespaces to be had
    read-only root without /tmp, its own /proc, a network of nothing but the loopback
    512 MiB of memory for the server, its sandboxes and the tests

Tests marked "unrestricted" stay out, each with its reason. A machine on which this cannot be made fails the suite.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSIDE = "/codemode"
NOBODY = 65534
MEMORY = 512 << 20
#: Everything but what looks at the command line, the language or the client library: none of it is about the machine. Of the RLM service
#: what it does with a sidecar of its own, and with files.
MODULES = ["isolation", "limits", "memory", "timeouts", "sessions", "resilience", "threads", "observability", "crash", "rollback", "jail", "rlm_service", "rlm_records"]


def stage(build, folder):
    """Copies what the tests need to where anybody may read it."""
    folder.chmod(0o755)
    (folder / "build" / "guest").mkdir(parents=True)
    for name in ("codemode", "codemode-sandbox", "rlm", "guest/python.img"):
        shutil.copy(build / name, folder / "build" / name)
    for name in ("tests/e2e", "tests/restricted", "sdk/python"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    (folder / "out").mkdir()
    (folder / "out").chmod(0o777)
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)


NO_RIGHTS = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
NOBODYS = [*NO_RIGHTS[:1], f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *NO_RIGHTS[1:]]


def root_folder(folder):
    """What bwrap makes of the file system: the system's programs, /proc, /dev and the tests; nothing else."""
    lists = [path for path in ("/lib", "/lib64", "/lib32", "/bin", "/sbin") if os.path.lexists(path)]
    links = [word for path in lists if os.path.islink(path) for word in ("--symlink", os.readlink(path), path)]
    folders = [word for path in lists if not os.path.islink(path) for word in ("--ro-bind", path, path)]
    return [
        "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--die-with-parent", "--new-session",
        "--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc", *links, *folders, "--proc", "/proc", "--dev", "/dev",
        "--ro-bind", folder, INSIDE, "--bind", folder / "out", INSIDE + "/out", "--remount-ro", "/", "--chdir", INSIDE,
    ]  # fmt: skip


def settings(folder):
    """Ways to get there. A user namespace is how an unprivileged bwrap gets at the rest; --disable-userns then takes the
    way away from whoever is inside. Where there are none, root makes the container and becomes nobody inside."""
    lowered = NOBODYS if os.geteuid() == 0 else ["setpriv", "--no-new-privs"]
    own = ["--unshare-user", "--disable-userns", "--uid", str(NOBODY), "--gid", str(NOBODY), "--cap-drop", "ALL"]
    yield [*lowered, "bwrap", *own, *root_folder(folder), "--clearenv", *environment()]
    if os.geteuid() == 0:
        yield ["bwrap", *root_folder(folder), "--clearenv", *environment(), *NOBODYS]


def working_setting(folder):
    for command in settings(folder):
        tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            return command
        print("cannot be used here:", command[0], "...:", tried.stderr.strip())
    sys.exit("error: this machine cannot make the setting, so the tests would prove nothing")


def environment():
    kept = {key: os.environ[key] for key in ("CODEMODE_PATIENCE", "CI") if key in os.environ}
    values = {
        "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TMPDIR": INSIDE + "/out", "HOME": "/nonexistent", "CODEMODE_BUILD": INSIDE + "/build",
        "PYTHONPATH": INSIDE + "/sdk/python", "PYTHONDONTWRITEBYTECODE": "1", "CODEMODE_RESTRICTED": "1", **kept,
    }  # fmt: skip
    return [word for key, value in values.items() for word in ("--setenv", key, value)]


def descendants(pid):
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


class Watch(threading.Thread):
    """Where no control group can be had: sums up what the processes hold, several times a second."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.ended = pid, 0, threading.Event()

    def run(self):
        while not self.ended.wait(0.25):
            total = 0
            for pid in descendants(self.pid):
                try:
                    text = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue
                total += sum(int(kib) << 10 for kib in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+)", text, re.M))
            self.peak = max(self.peak, total)


def memory_group():
    """A control group with the limit, or None."""
    for base, file in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
        group = Path(base) / f"codemode-test-{os.getpid()}"
        try:
            group.mkdir()
            if (group / file).exists():  # a plain folder takes any file
                (group / file).write_text(str(MEMORY))
                return group
            group.rmdir()
        except OSError:
            if group.is_dir():
                group.rmdir()
    return None


def remove(group):
    """It is busy until the last process is reaped."""
    for _ in range(100):
        try:
            return group and group.rmdir()
        except OSError:
            time.sleep(0.05)
    sys.exit(f"error: processes are left in {group}")


def run(command, group):
    def enter():
        if group:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    process = subprocess.Popen(command, preexec_fn=enter)
    watch = Watch(process.pid)
    watch.start()
    status = process.wait()
    watch.ended.set()
    print(f"memory: {'capped by a control group' if group else 'measured'}, peak {watch.peak >> 20} MiB of {MEMORY >> 20}")
    if watch.peak > MEMORY:
        print("error: more memory than the setting has")
        return 1
    return status


def main():
    build, junit, words = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    with tempfile.TemporaryDirectory(prefix="codemode-restricted-") as name:
        folder, group = Path(name), memory_group()
        stage(build, folder)
        tests = ["tests/restricted/test_setting.py"] + [f"tests/e2e/test_{module}.py" for module in MODULES]
        pytest = ["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfEs", "-m", "not unrestricted"]
        pytest += ["--junitxml", INSIDE + "/out/results.xml", *(["-k", words[0]] if words else []), *tests]
        try:
            status = run([*working_setting(folder), *pytest], group)
            if (folder / "out" / "results.xml").exists():
                shutil.copyfile(folder / "out" / "results.xml", junit)
        finally:
            remove(group)
    # Nothing left to run under a filter is no failure.
    return 0 if status == 5 and words else status


if __name__ == "__main__":
    sys.exit(main())
