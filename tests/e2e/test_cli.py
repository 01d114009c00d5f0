# SPDX-License-Identifier: Apache-2.0
"""The command line: what it prints, where, and with which exit code."""

import contextlib
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import time

import pytest

from support import CODEMODE, PATIENCE, adopting, eventually, free_port

HERE = "here"
PRIVATE = "private"


def environment(sidecar=None):
    kept = {name: os.environ[name] for name in ("CODEMODE_SANDBOX", "CODEMODE_IMAGE") if name in os.environ}
    url = {"WASM_MANAGER_SERVICE_URL": sidecar.url} if sidecar else {}
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": "/nonexistent", "TERM": "dumb", **kept, **url}


def codemode(*args, sidecar=None, text=None):
    return subprocess.run(
        [str(CODEMODE), *args], env=environment(sidecar), input=text, capture_output=True, text=True, timeout=60 * PATIENCE
    )


@pytest.fixture(params=[HERE, PRIVATE])
def where(request, sidecar):
    """Against the running sidecar, and with a private sandbox."""
    return sidecar if request.param == HERE else None


def test_version():
    done = codemode("version")
    assert done.returncode == 0 and done.stderr == ""
    assert re.fullmatch(r"codemode version \d+\.\d+\.\d+\n", done.stdout)
    assert codemode("--version").stdout == done.stdout


@pytest.mark.parametrize("args", [["--help"], ["serve", "--help"], ["exec", "--help"], ["repl", "--help"], ["version", "--help"]])
def test_help(args):
    done = codemode(*args)
    assert done.returncode == 0 and done.stderr == "" and "usage" in done.stdout.lower()


@pytest.mark.parametrize(
    "args",
    [[], ["nonsense"], ["version", "1"], ["version", "--nonsense"], ["exec", "--nonsense"], ["serve", "--nonsense"], ["serve", "--port", "99999"], ["serve", "--port", "x"], ["exec", "-c"], ["serve", "--log-level", "LOUD"]],
)
def test_wrong_usage(args):
    done = codemode(*args)
    assert done.returncode == 2 and done.stderr and done.stdout == "", done


def test_exec_code(where):
    done = codemode("exec", "-c", "1 + 1", sidecar=where)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_exec_streams(where):
    done = codemode("exec", "-c", "import sys\nprint('out')\nprint('err', file=sys.stderr)", sidecar=where)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")


def test_exec_file_and_stdin(where, tmp_path):
    path = tmp_path / "program.py"
    path.write_text("print('from a file')\n")
    assert codemode("exec", str(path), sidecar=where).stdout == "from a file\n"
    assert codemode("exec", "-", sidecar=where, text="print('from stdin')\n").stdout == "from stdin\n"


def test_exec_error(where):
    done = codemode("exec", "-c", "print('before')\n1/0", sidecar=where)
    assert done.returncode == 1 and done.stdout == "before\n"
    assert "ZeroDivisionError: division by zero" in done.stderr and "Traceback" in done.stderr
    assert done.stderr.count("ZeroDivisionError: division by zero") == 1


def test_exec_missing_file():
    done = codemode("exec", "/nonexistent/program.py")
    assert done.returncode == 2 and "/nonexistent/program.py" in done.stderr


def test_exec_timeout(where):
    done = codemode("exec", "--timeout", "2s", "-c", "print('before', flush=True)\nwhile True: pass", sidecar=where)
    assert done.returncode == 124 and done.stdout == "before\n" and done.stderr


def test_exec_without_a_sidecar():
    done = codemode("exec", "--url", f"http://127.0.0.1:{free_port()}", "-c", "1")
    assert done.returncode == 3 and done.stderr and done.stdout == ""


def test_url_flag(sidecar):
    done = codemode("exec", "--url", sidecar.url, "-c", "6 * 7")
    assert (done.returncode, done.stdout) == (0, "42\n")


def test_exec_in_a_session(sidecar, session):
    session.ok("x = 41")
    done = codemode("exec", "-s", session.id, "-c", "x + 1", sidecar=sidecar)
    assert (done.returncode, done.stdout) == (0, "42\n")
    codemode("exec", "-s", session.id, "-c", "y = 7", sidecar=sidecar)
    assert session.value("y") == "7"


def test_exec_in_an_unknown_session(sidecar):
    done = codemode("exec", "-s", "session-" + "0" * 32, "-c", "1", sidecar=sidecar)
    assert done.returncode == 3 and done.stdout == "" and done.stderr


def test_exec_that_leaves_no_trace(sidecar, session):
    session.ok("x = 1")
    done = codemode("exec", "-s", session.id, "--on-error", "rollback", "-c", "x = 2\n1/0", sidecar=sidecar)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr and "rolled back" in done.stderr, done
    assert session.value("x") == "1"
    done = codemode("exec", "-s", session.id, "--on-error=keep", "-c", "x = 3\n1/0", sidecar=sidecar)
    assert done.returncode == 1 and "rolled back" not in done.stderr, done
    assert session.value("x") == "3"


@pytest.mark.parametrize("args", [["--on-error", "rollback"], ["-s", "session-1", "--on-error", "undo"]])
def test_on_error_wants_a_session_and_a_word_it_knows(sidecar, args):
    done = codemode("exec", *args, "-c", "1", sidecar=sidecar)
    assert done.returncode == 2 and "--on-error" in done.stderr, done


def test_exec_leaves_nothing(where, sidecar):
    with adopting() as orphans:
        codemode("exec", "-c", "1", sidecar=where)
        eventually(lambda: sidecar.sessions() == [], "no session is left")
        eventually(lambda: not orphans(), "no process is left")


def takes(pid, signum):
    """True when the process has a handler for the signal."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.M)[1], 16) >> (signum - 1) & 1


def test_exec_stops_at_a_signal(where):
    process = subprocess.Popen(
        [str(CODEMODE), "exec", "-c", "while True: pass"],
        env=environment(where), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    eventually(lambda: takes(process.pid, signal.SIGINT), "it takes the signal")
    time.sleep(0.5)  # most of the time its code runs by now; it need not
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60 * PATIENCE)
    assert process.returncode == 130


def test_repl_with_piped_input(where):
    done = codemode("repl", sidecar=where, text="x = 40\nx + 2\ndef f():\n    return 'multi'\n\nf()\n1/0\nprint('after')\n")
    assert done.returncode == 0, done
    assert "42" in done.stdout and "'multi'" in done.stdout and "after" in done.stdout
    assert "ZeroDivisionError" in done.stdout + done.stderr


def test_repl_rolls_back(where):
    done = codemode("repl", "--on-error", "rollback", sidecar=where, text="x = 40\nx = 41; 1/0\nx + 2\n")
    assert (done.returncode, done.stdout) == (0, "42\n"), done
    assert "ZeroDivisionError" in done.stderr and "rolled back" in done.stderr


def test_repl_goes_on_after_a_refusal(sidecar):
    """Here an input that the session's own limit refuses."""
    answer = sidecar.request("POST", "/session", json={"limits": {"code_length": 20}})
    done = codemode("repl", "-s", answer.json()["session_id"], sidecar=sidecar, text="'" + 30 * "a" + "'\n6 * 7\n")
    assert (done.returncode, done.stdout) == (0, "42\n"), done
    assert "code" in done.stderr, done
    sidecar.request("DELETE", "/session/" + answer.json()["session_id"])


def test_repl_ends_with_its_session(sidecar):
    done = codemode("repl", "-s", "session-" + "0" * 32, sidecar=sidecar, text="1\n2\n")
    assert done.returncode == 3 and done.stdout == "" and done.stderr.count("codemode:") == 1, done


class Terminal:
    """A program in a pseudo-terminal. Wait for its prompt before typing: what is typed earlier may be taken
    by the terminal's line discipline in place of the program."""

    def __init__(self, *args, env):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(CODEMODE, ["codemode", *args], env)
        self._seen = ""

    def expect(self, wanted, deadline=20):
        """Reads until `wanted` has appeared behind what was expected last."""
        end = time.monotonic() + deadline * PATIENCE
        while wanted not in self._seen:
            left = end - time.monotonic()
            assert left > 0 and select.select([self.fd], [], [], left)[0], f"{wanted!r} did not appear in {self._seen!r}"
            self._seen += os.read(self.fd, 4096).decode(errors="replace")
        self._seen = self._seen.split(wanted, 1)[1]

    def type(self, text):
        os.write(self.fd, text.encode())

    def exit_code(self):
        """Of the program, which must end by itself."""

        def ended():
            if select.select([self.fd], [], [], 0)[0]:
                with contextlib.suppress(OSError):  # EIO: the other side is closed
                    os.read(self.fd, 4096)
            return os.waitpid(self.pid, os.WNOHANG)

        status = eventually(lambda: (found := ended())[0] and found, "the program ends")[1]
        self.pid = None
        return os.waitstatus_to_exitcode(status)

    def close(self):
        os.close(self.fd)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def test_repl_in_a_terminal(where):
    terminal = Terminal("repl", env=environment(where))
    try:
        terminal.expect(">>> ")
        terminal.type("21 * 2\n")
        terminal.expect("42")
        terminal.expect(">>> ")
        terminal.type("for i in range(2):\n")
        terminal.expect("... ")
        terminal.type("    print('row', i)\n")
        terminal.expect("... ")
        terminal.type("\n")
        terminal.expect("row 1")
        terminal.expect(">>> ")
        terminal.type("import time; time.sleep(60)\n")
        terminal.expect("sleep(60)")
        time.sleep(1)
        terminal.type("\x03")
        terminal.expect("KeyboardInterrupt")
        terminal.expect(">>> ")
        terminal.type("'still ' + 'here'\n")
        terminal.expect("'still here'")
        terminal.expect(">>> ")
        terminal.type("\x04")
        assert terminal.exit_code() == 0
    finally:
        terminal.close()
