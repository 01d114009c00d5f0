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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSIDE = "/codemode"
NOBODY = 65534
MEMORY = 512 << 20
#: Everything but what looks at the command line, the language or the client library: none of it is about the machine.
MODULES = ["isolation", "limits", "memory", "timeouts", "sessions", "resilience", "threads", "observability", "crash", "jail"]


def stage(build, folder):
    """Copies what the tests need to where anybody may read it."""
    folder.chmod(0o755)
    (folder / "build" / "guest").mkdir(parents=True)
    for name in ("codemode", "codemode-sandbox", "guest/python.img"):
        shutil.copy(build / name, folder / "build" / name)
    for name in ("tests/e2e", "tests/restricted", "sdk/python"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    (folder / "out").mkdir()
    (folder / "out").chmod(0o777)
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)


def lowered():
    """How root becomes nobody; whoever is somebody already only loses what is left."""
    if os.geteuid() != 0:
        return ["setpriv", "--no-new-privs"]
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]


def container(folder):
    """A user namespace is how bwrap gets at the rest; --disable-userns takes the way away from whoever is inside."""
    lists = [path for path in ("/lib", "/lib64", "/lib32", "/bin", "/sbin") if os.path.lexists(path)]
    links = [word for path in lists if os.path.islink(path) for word in ("--symlink", os.readlink(path), path)]
    folders = [word for path in lists if not os.path.islink(path) for word in ("--ro-bind", path, path)]
    return [
        "bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--uid", str(NOBODY), "--gid", str(NOBODY), "--cap-drop", "ALL",
        "--die-with-parent", "--new-session", "--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc", *links, *folders,
        "--proc", "/proc", "--dev", "/dev", "--ro-bind", folder, INSIDE, "--bind", folder / "out", INSIDE + "/out", "--remount-ro", "/",
        "--chdir", INSIDE, "--clearenv",
    ]  # fmt: skip


def environment():
    kept = {key: os.environ[key] for key in ("CODEMODE_PATIENCE", "CI") if key in os.environ}
    values = {
        "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TMPDIR": "/dev/shm", "HOME": "/nonexistent", "CODEMODE_BUILD": INSIDE + "/build",
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
            status = run([*lowered(), *container(folder), *environment(), *pytest], group)
            if (folder / "out" / "results.xml").exists():
                shutil.copyfile(folder / "out" / "results.xml", junit)
        finally:
            if group:
                group.rmdir()
    # Nothing left to run under a filter is no failure.
    return 0 if status == 5 and words else status


if __name__ == "__main__":
    sys.exit(main())
