# SPDX-License-Identifier: Apache-2.0
"""Starting the real sidecar, talking to it, and looking at its processes from outside."""

import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import threading
import time

import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("CODEMODE_BUILD") or ROOT / "build").resolve()
CODEMODE = BUILD / "codemode"

#: Every bound on a wait is multiplied by this; raise it on slow machines and for sanitizer builds.
PATIENCE = float(os.environ.get("CODEMODE_PATIENCE") or 1)

#: An environment variable of the server that no session may ever see.
SECRET = "not-for-sessions-5f2c9a"

#: No tool service: something may listen on the default port of this machine.
#: The grace is long enough for a worker that has to wait for a processor.
DEFAULTS = {"SPARE_WORKERS": "2", "LOG_LEVEL": "INFO", "GRACE": "5", "CODEMODE_MAIN_APP_TARGET": "none"}


def eventually(check, what, deadline=15.0, pause=0.02):
    """Polls `check` until it is true and returns its value; fails with `what` after `deadline` seconds. That is for what never
    comes: a machine with other things to do may need seconds for what otherwise takes none. Less than EXECUTION_TIMEOUT, so
    that code which nobody stops is found out."""
    end = time.monotonic() + deadline * PATIENCE
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {deadline * PATIENCE:g} s (last value: {value!r})"
        time.sleep(pause)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def process_table():
    """{pid: (parent, state, start time)} of every process, read from /proc."""
    table = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            table[int(entry)] = (int(fields[1]), fields[0], int(fields[19]))
    return table


def alive(pid):
    """True while the process runs; a zombie does not count."""
    row = process_table().get(pid)
    return row is not None and row[1] != "Z"


PR_SET_CHILD_SUBREAPER = 36


@contextlib.contextmanager
def adopting():
    """Processes whose parent has died become children of ours meanwhile; a function that names those that live. Of all
    the processes of a machine these are certain to be of this test."""

    def children():
        return {pid for pid, (parent, _, _) in process_table().items() if parent == os.getpid()}

    library, before = ctypes.CDLL(None, use_errno=True), children()
    assert library.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield lambda: [pid for pid in children() - before if os.waitpid(pid, os.WNOHANG)[0] == 0]
    finally:
        library.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def uses_asan(pid):
    """Such a process keeps memory that it has freed."""
    return "libasan" in pathlib.Path(f"/proc/{pid}/maps").read_text()


def listening_port(pid):
    """The TCP port that a process listens on at the IPv4 loopback, or None. Asking the kernel leaves no moment
    in which another program could take a port that was meant for us."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            inodes.add(target[8:-1] if target.startswith("socket:[") else None)
    with open("/proc/net/tcp", encoding="ascii") as file:
        for fields in map(str.split, file.readlines()[1:]):
            if fields[3] == "0A" and fields[9] in inodes:  # 0A: listening
                return int(fields[1].split(":")[1], 16)
    return None


class Session:
    """One session of a running sidecar."""

    def __init__(self, sidecar, session_id):
        self.sidecar = sidecar
        self.id = session_id
        self.path = f"/session/{session_id}"

    def post(self, code, **body):
        """The HTTP answer to one execution. Keyword arguments are further fields of the request."""
        return self.sidecar.request("POST", self.path + "/execute", json={"code": code, **body})

    def run(self, code, **body):
        """The JSON of one execution; its status must be 200."""
        answer = self.post(code, **body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ok(self, code, **body):
        """The JSON of an execution that must succeed."""
        reply = self.run(code, **body)
        assert reply["success"] is True, (reply["error"], reply.get("traceback"), reply["stderr"])
        return reply

    def rest(self):
        """Until its process waits for work: only then the state after its newest execution is saved."""
        pid = self.pid()
        eventually(lambda: process_table().get(pid, (0, "Z"))[1] == "S", "its process has saved its state and waits")

    def computes(self, seconds=0.03):
        """Until its process has used some more processor time: the code has begun for certain."""
        pid = self.pid()

        def used():
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        before = used()
        eventually(lambda: used() >= before + seconds, "it computes")

    def value(self, code, **body):
        """The repr of the last expression of code that must succeed."""
        return self.ok(code, **body)["result"]

    def fails(self, code, error_type, **body):
        """The JSON of code that must raise `error_type`."""
        reply = self.run(code, **body)
        assert reply["success"] is False, reply
        assert reply["error_type"] == error_type and error_type in reply["error"], reply
        return reply

    def rolled_back(self, code, **body):
        """Runs code that its process does not survive; the reason. The session goes on from the state before."""
        reply = self.run(code, **body)
        assert reply["state"] == "rolled_back" and reply["success"] is False and reply["result"] is None, reply
        return reply["error"]

    def info(self):
        answer = self.sidecar.request("GET", self.path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def pid(self):
        return self.info()["pid"]

    def delete(self):
        return self.sidecar.request("DELETE", self.path)

    def in_background(self, code, **body):
        """Starts an execution in a thread; `.result()` of what it returns waits for the HTTP answer."""

        def call():
            try:
                return self.post(code, **body)
            finally:
                self.sidecar.hang_up()

        return Background(call)


class Background:
    """A call in a thread of its own."""

    def __init__(self, call):
        self._call = call
        self._value = self._error = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self._value = self._call()
        except Exception as error:  # handed to the thread that asks for the result
            self._error = error

    def done(self):
        return not self._thread.is_alive()

    def result(self, deadline=60.0):
        self._thread.join(deadline * PATIENCE)
        assert self.done(), "the call has not returned"
        if self._error is not None:
            raise self._error
        return self._value


class Sidecar:
    """A `codemode serve` of our own on a free port of the loopback."""

    def __init__(self, settings=None, launcher=(), verify=None, cert=None, port=0):
        """`verify` and `cert` as of requests, for one that speaks TLS. `port` 0: any free one."""
        assert CODEMODE.exists(), f"{CODEMODE} is missing: build first, or name the folder in CODEMODE_BUILD"
        self.port = None
        self.verify, self.cert = verify, cert
        self.settings = {**DEFAULTS, **(settings or {})}
        self._local = threading.local()
        self._log = tempfile.TemporaryFile(mode="a+", prefix="codemode-log-")
        # The server's descriptor shares our position; tempfile opens without this flag, whatever the mode says. Without
        # it a line that comes while we read lands in the middle.
        fcntl.fcntl(self._log, fcntl.F_SETFL, fcntl.fcntl(self._log, fcntl.F_GETFL) | os.O_APPEND)
        self.process = subprocess.Popen(
            [*launcher, str(CODEMODE), "serve", "--port", str(port)],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self.wait_ready()
            self._settle()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self):
        return f"{'https' if self.verify else 'http'}://127.0.0.1:{self.port}"

    def _environment(self):
        names = ("CODEMODE_SANDBOX", "CODEMODE_IMAGE", "ASAN_OPTIONS", "UBSAN_OPTIONS")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        path = os.environ.get("PATH", "/usr/bin:/bin")
        return {"PATH": path, "HOST": "127.0.0.1", "API_TOKEN": SECRET, **kept, **self.settings}

    def wait_ready(self, deadline=60.0):
        def ready():
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log_text()}"
            self.port = self.port or listening_port(self.process.pid)
            return self.port and self.request("GET", "/ready", timeout=20).status_code == 200

        eventually(ready, "GET /ready answers 200", deadline)

    def _settle(self):
        """Waits until start-up is over and remembers what the server holds when it has no sessions."""
        seen = []

        def steady():
            seen.append((len(self.descriptors()), len(self.children())))
            return len(seen) > 10 and len(set(seen[-10:])) == 1

        eventually(steady, "the server has settled after its start", 30)
        self.base_descriptors, self.base_children = seen[-1]

    # --- requests

    def request(self, method, path, **kwargs):
        """One exchange over this thread's kept connection."""
        # It may be closed from the other side after IDLE_TIMEOUT, in the moment in which it is used again.
        if time.monotonic() - getattr(self._local, "used", 0) > float(self.settings.get("IDLE_TIMEOUT", 75)) / 4:
            self.hang_up()
        if not hasattr(self._local, "http"):
            self._local.http = requests.Session()
            self._local.http.trust_env = False
            self._local.http.verify, self._local.http.cert = self.verify or True, self.cert
            if key := self.settings.get("CODEMODE_API_KEY"):
                self._local.http.headers["Authorization"] = f"Bearer {key}"
        kwargs.setdefault("timeout", 60 * PATIENCE)
        answer = self._local.http.request(method, self.url + path, **kwargs)
        self._local.used = time.monotonic()
        if not kwargs.get("stream"):
            answer.raw = None  # read already; as long as it is kept, urllib3 2 keeps the connection open beyond hang_up()
        return answer

    def hang_up(self):
        """Closes this thread's kept connection."""
        if hasattr(self._local, "http"):
            self._local.http.close()

    def create(self, **limits):
        answer = self.request("POST", "/session", json={"limits": limits} if limits else None)
        assert answer.status_code == 200, answer.text
        return Session(self, answer.json()["session_id"])

    def execute(self, code, **body):
        """The JSON of a one-shot execution."""
        answer = self.request("POST", "/execute", json={"code": code, **body})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def sessions(self):
        return self.request("GET", "/sessions").json()["sessions"]

    def raw(self, data, deadline=15.0, shut=False):
        """Sends bytes as they are and returns all that comes back before the server closes or `deadline`."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=deadline * PATIENCE) as sock:
            received = b""
            with contextlib.suppress(ConnectionError, socket.timeout):
                sock.sendall(data)
                if shut:
                    sock.shutdown(socket.SHUT_WR)
                while len(received) < 1 << 20:
                    piece = sock.recv(65536)
                    if not piece:
                        break
                    received += piece
            return received

    def metrics(self):
        """{name{labels}: value} of /metrics."""
        samples = {}
        for line in self.request("GET", "/metrics").text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                samples[name] = float(value)
        return samples

    def metric(self, name):
        """The sum of a metric's samples over its labels."""
        found = [value for key, value in self.metrics().items() if key.split("{")[0] == name]
        assert found, f"no metric {name}"
        return sum(found)

    # --- what it looks like from outside

    def log_text(self):
        # Opened anew: the server's writes move the position of the descriptor that it shares with us.
        with open(f"/proc/self/fd/{self._log.fileno()}", encoding="utf-8") as log:
            return log.read()

    def log_lines(self):
        """The log as JSON objects; a line that is none fails. What follows the last newline is still being written."""
        return [json.loads(line) for line in self.log_text().split("\n")[:-1]]

    def children(self):
        """Process ids of the zygote and of all workers, oldest first."""
        table = process_table()
        mine = [pid for pid, (parent, state, _) in table.items() if parent == self.process.pid and state != "Z"]
        return sorted(mine, key=lambda pid: (table[pid][2], pid))

    def zygote(self):
        """Process id of the zygote that runs now, as the log (INFO) names it."""
        return [line["pid"] for line in self.log_lines() if line["event"] == "zygote_ready"][-1]

    def descriptors(self):
        return os.listdir(f"/proc/{self.process.pid}/fd")

    def descriptor_sizes(self):
        """What each is of, and its bytes."""
        found = []
        for number in self.descriptors():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                path = f"/proc/{self.process.pid}/fd/{number}"
                found.append((os.readlink(path), os.stat(path).st_size))
        return found

    def descriptor_targets(self):
        return [target for target, _ in self.descriptor_sizes()]

    # --- its end

    def check_clean(self):
        """Alive, no session's process left over, no descriptors lost."""
        for session_id in self.sessions():
            self.request("DELETE", f"/session/{session_id}")
        self.hang_up()
        assert self.process.poll() is None, f"the server died:\n{self.log_text()[-4000:]}"
        eventually(lambda: len(self.children()) <= self.base_children, "no worker is left over")
        try:
            eventually(lambda: len(self.descriptors()) <= self.base_descriptors + 1, "no descriptor is left open")
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.base_descriptors} at rest, now {self.descriptor_targets()}") from None
        assert self.request("GET", "/health").status_code == 200
        self.hang_up()

    def stop(self, deadline=30.0):
        """Ends the server and whatever it started; returns its exit status."""
        family = self.children()
        self.hang_up()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(deadline * PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        try:
            eventually(lambda: not any(alive(pid) for pid in family), "the server's processes end with it")
        finally:
            for pid in filter(alive, family):
                os.kill(pid, signal.SIGKILL)
            self._log.close()
        return status


@contextlib.contextmanager
def running_sidecar(launcher=(), verify=None, cert=None, **settings):
    """A sidecar for one test; checks nothing at its end but that it can be stopped. `launcher` goes before its name."""
    server = Sidecar(settings, launcher, verify, cert)
    try:
        yield server
    finally:
        server.stop()
