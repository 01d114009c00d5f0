# SPDX-License-Identifier: Apache-2.0
"""The same programs in a session, under the system's Python and in Pyodide, turn by turn."""

import ast
import json
import os
import pathlib
import shutil
import subprocess

from server import Failure

HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = sorted((HERE / "programs").glob("*.py"))
SYSTEM_PYTHON = "/usr/bin/python3"
PYODIDE = "pyodide@314.0.7"
ANSWER_WAIT = 120  # seconds; a program takes about a fifth of one

#: What a session executes for each turn; runner.py and pyodide.mjs do the same in their places.
MEASURE = """
import json, time
_start = time.perf_counter()
_value = run()
_seconds = time.perf_counter() - _start
json.dumps({"seconds": _seconds, "value": repr(_value)})
"""


class InProcess:
    """A runtime behind a pipe: a path in, {"seconds", "value"} out."""

    def __init__(self, name, command):
        self.name = name
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = ""

    def answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise Failure(f"{self.name} ended")
        return json.loads(line)

    def run(self, path):
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        return self.answer()

    def stop(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


class InSession:
    """One session per program, so that none lives in the heap that another has left."""

    name = "codemode"

    def __init__(self, server):
        self._server = server
        self._sessions = {}
        session = server.create()
        self.version = "Python " + server.execute(session, "import sys; sys.version.split()[0]").strip("'")
        server.call("DELETE", f"/session/{session}")

    def run(self, path):
        if path not in self._sessions:
            self._sessions[path] = self._server.create()
            self._server.execute(self._sessions[path], path.read_text(encoding="utf-8"))
        return json.loads(ast.literal_eval(self._server.execute(self._sessions[path], MEASURE, ANSWER_WAIT)))

    def stop(self):
        for session in self._sessions.values():
            self._server.call("DELETE", f"/session/{session}")


def system_python():
    runtime = InProcess("system", [SYSTEM_PYTHON, "-E", "-s", str(HERE / "runner.py")])
    runtime.version = subprocess.run([SYSTEM_PYTHON, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return runtime


def pyodide(cache):
    """The runtime and None, or None and the reason why it is not measured."""
    if not shutil.which("node") or not shutil.which("npm"):
        return None, "node and npm are not installed"
    folder = cache / "pyodide-npm"
    package = folder / "node_modules" / "pyodide"
    if not (package / "pyodide.mjs").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel", "error", PYODIDE]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=180, env={**os.environ, "CI": "true"})
        except subprocess.TimeoutExpired:
            return None, "npm did not answer within 180 s"
        if done.returncode != 0:
            return None, "npm install pyodide failed: " + (done.stderr.strip().splitlines() or ["no reason given"])[0]
    runtime = InProcess("pyodide", ["node", str(HERE / "pyodide.mjs"), str(package)])
    try:
        hello = runtime.answer()
    except Failure as failure:
        runtime.stop()
        return None, f"pyodide did not start: {failure}"
    runtime.version = hello["version"]
    runtime.start_seconds = hello["seconds"]
    return runtime, None


def compare(runtimes, rounds, warm_up, progress):
    """{program: {runtime: [seconds]}}. Turn by turn, so that a slow moment of the machine hits all alike."""
    times = {path.stem: {runtime.name: [] for runtime in runtimes} for path in PROGRAMS}
    values = {}
    for number in range(-1 if warm_up else 0, rounds):
        for path in PROGRAMS:
            progress(f"programs, round {max(number + 1, 0)} of {rounds}: {path.stem}")
            for runtime in runtimes:
                reply = runtime.run(path)
                if values.setdefault(path.stem, reply["value"]) != reply["value"]:
                    raise Failure(f"{path.stem} in {runtime.name}: {reply['value']}, not {values[path.stem]}")
                if number >= 0:
                    times[path.stem][runtime.name].append(reply["seconds"])
    return times
