# SPDX-License-Identifier: Apache-2.0
"""The real executor, for as long as a test needs it; it can be killed and started again on its port."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
CODEMODE = pathlib.Path(os.environ.get("CODEMODE_BUILD") or ROOT / "build").resolve() / "codemode"
PATIENCE = float(os.environ.get("CODEMODE_PATIENCE") or 1)

#: Of the executor and of the tool service alike.
KEY = "a-key-of-the-tests"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Executor:
    """`codemode serve`; `target` is where the application's tools are."""

    def __init__(self, target="", **settings):
        assert CODEMODE.exists(), f"{CODEMODE} is missing: build first, or name the folder in CODEMODE_BUILD"
        self._settings = {"CODEMODE_API_KEY": KEY, "CODEMODE_MAIN_APP_TARGET": target, "SPARE_WORKERS": "2", **settings}
        self.port, self.process, self._log = 0, None, None
        self.start()

    @property
    def url(self):
        return f"http://localhost:{self.port}"

    def start(self):
        """Starts it, on the port that it had before if it had one, and waits until it serves."""
        self._log = tempfile.TemporaryFile(prefix="codemode-log-")
        names = ("PATH", "CODEMODE_SANDBOX", "CODEMODE_IMAGE", "ASAN_OPTIONS", "UBSAN_OPTIONS")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        self.process = subprocess.Popen(
            [str(CODEMODE), "serve", "--host", "127.0.0.1", "--port", str(self.port)],
            env={**kept, **{name: value for name, value in self._settings.items() if value}},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        end = time.monotonic() + 60 * PATIENCE
        while not self._events("serving"):
            assert self.process.poll() is None and time.monotonic() < end, f"the executor does not serve:\n{self.log()}"
            time.sleep(0.01)
        self.port = self._events("serving")[0]["port"]

    def log(self):
        return os.pread(self._log.fileno(), 1 << 22, 0).decode()

    def _events(self, name):
        lines = [json.loads(line) for line in self.log().split("\n")[:-1] if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def kill(self):
        """Ends it the hard way; its sandbox ends with it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)
        self._log.close()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(60 * PATIENCE)
            if self.process.poll() is None:
                self.kill()
                raise AssertionError("the executor did not end")
        self._log.close()


@contextlib.contextmanager
def running_executor(target="", **settings):
    made = Executor(target, **settings)
    try:
        yield made
    finally:
        made.stop()
