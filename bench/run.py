# SPDX-License-Identifier: Apache-2.0
"""Measures the built sidecar and writes build/bench.json and a table.

    python3 bench/run.py [--quick] [--only PART]... [--check]

Parts: start, jail, latency, throughput, churn, memory, capacity, checkpoint, rollback, grpc, rlm, programs. --quick takes less than a minute and gives
rough figures. --check ends with status 1 when a goal is missed; a wrong answer always does. Client and server
share the machine's cores.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import signal
import subprocess
import sys
import threading
import time

import over_grpc
import programs
import rlm
from server import Failure, RlmServer, Server, private_bytes, resident_bytes

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = pathlib.Path(os.environ.get("CODEMODE_BUILD") or ROOT / "build").resolve()
CACHE = pathlib.Path(os.environ.get("CODEMODE_CACHE") or pathlib.Path.home() / ".cache" / "codemode")
PARTS = ("start", "jail", "latency", "throughput", "churn", "memory", "capacity", "checkpoint", "rollback", "grpc", "rlm", "programs")
MEBI = 1 << 20

CODE, RESULT = "x = 42; x * 2", "84"

#: What the project wants to reach: figure, value of it, comparison, goal.
GOALS = [
    ("start to ready", "p50", "<=", 0.050),
    ("jail of a worker", "p50", "<=", 0.0001),
    ("create", "p50", "<=", 0.001),
    ("create + first execution", "p50", "<=", 0.002),
    ("warm execution, 1 connection", "p50", "<=", 0.0002),
    ("best executions/s", "value", ">=", 5000),
    ("create + delete/s", "value", ">=", 1000),
    ("private memory per session", "mean", "<=", 1.2 * MEBI),
    ("live sessions at once", "value", ">=", 2000),
    ("checkpoint after a small execution", "p50", "<=", 0.0003),
    ("rollback", "p50", "<=", 0.050),
    ("execution over gRPC, beyond HTTP", "value", "<=", 0.0001),
    ("tool call, tool in C", "p50", "<=", 0.0003),
    ("failures of 200 calls at once", "value", "<=", 0),
    ("RLM: a turn beside its model", "p50", "<=", 0.002),
    ("RLM: failures of 50 runs at once", "value", "<=", 0),
    ("RLM: session's memory / 40 MiB context", "value", "<=", 3),
    ("RLM: service's memory afterwards / context", "value", "<=", 0.1),
    ("Python time / system CPython", "value", "<=", 1.35),
]


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def percentiles(values):
    ordered = sorted(values)
    points = {name: ordered[round(share * (len(ordered) - 1))] for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}
    return {"n": len(ordered), **points}


class Bench:
    """One run: collects figures by name, and reasons for what was not measured."""

    def __init__(self, quick):
        self.quick = quick
        self.figures = {}
        self.programs = {}
        self.versions = {}
        self.skipped = {}
        self.build = BUILD
        self._log = open(BUILD / "bench-server.log", "w", encoding="utf-8")
        self._load = BUILD / "bench-load"

    def add(self, name, unit, **values):
        self.figures[name] = {"unit": unit, **values}

    def server(self, **settings):
        return Server(BUILD, self._log, **settings)

    def rlm(self, models, **settings):
        return RlmServer(BUILD, self._log, LLM_BASE_URL=models.url, LLM_API_KEY=rlm.model.KEY, LLM_MODEL=models.models[0], **settings)

    def load(self, server, mode, connections, count, seconds):
        code = json.dumps({"code": CODE})
        command = [self._load, mode, server.port, connections, count, seconds, code, f'"result":"{RESULT}"']
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=seconds + 90)
        if done.returncode != 0:
            raise Failure(f"load {mode}: {done.stderr.strip()[:500]}")
        return json.loads(done.stdout)

    def build_load(self):
        source = ROOT / "bench" / "load.c"
        if not self._load.exists() or self._load.stat().st_mtime < source.stat().st_mtime:
            subprocess.run(["cc", "-O2", "-std=c17", "-D_GNU_SOURCE", "-o", self._load, source], check=True)

    # --- parts

    def start(self):
        seconds = []
        for number in range(5 if self.quick else 21):
            progress(f"start to ready, {number + 1}")
            with self.server() as server:
                seconds.append(server.start_seconds)
        self.add("start to ready", "s", **percentiles(seconds[1:]))

    def jail(self):
        """Of a fresh process each, so with the page faults that a worker has as well."""
        progress("jail of a worker")
        seconds = []
        for _ in range(20 if self.quick else 200):
            command = [BUILD / "codemode-sandbox", "--check", "--image", BUILD / "guest" / "python.img"]
            report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            seconds += [int(line.split("\t")[1]) / 1e9 for line in report.splitlines() if line.startswith("jail\t")]
        self.add("jail of a worker", "s", **percentiles(seconds))

    def latency(self):
        count = 200 if self.quick else 1000
        with self.server() as server:
            progress("create, execute, delete")
            self.load(server, "first", 1, 20, 10)
            first = self.load(server, "first", 1, count, 30)
            self.add("create", "s", **first["create"])
            self.add("first execution", "s", **first["execute"])
            self.add("create + first execution", "s", **first["round"])
            progress("warm execution")
            self.load(server, "warm", 1, 200, 10)
            warm = self.load(server, "warm", 1, count * 10, 30)
            self.add("warm execution, 1 connection", "s", **warm["execute"])

    def throughput(self):
        with self.server() as server:
            best = 0.0
            for connections in (1, 8, 64):
                progress(f"executions/s, {connections} connections")
                self.load(server, "warm", connections, connections * 5, 10)
                done = self.load(server, "warm", connections, 1_000_000, 1 if self.quick else 5)
                self.add(f"executions/s, {connections} connections", "1/s", value=done["per_second"])
                self.add(f"execution, {connections} connections", "s", **done["execute"])
                best = max(best, done["per_second"])
            self.add("best executions/s", "1/s", value=best)

    def churn(self):
        with self.server() as server:
            best = 0.0
            for connections in (1, 8):
                progress(f"create + delete/s, {connections} connections")
                done = self.load(server, "churn", connections, 1_000_000, 1 if self.quick else 5)
                self.add(f"create + delete/s, {connections} connections", "1/s", value=done["per_second"])
                best = max(best, done["per_second"])
            self.add("create + delete/s", "1/s", value=best)

    def memory(self):
        count = 200 if self.quick else 1000
        with self.server(MAX_SESSIONS=str(count)) as server:
            before = resident_bytes(server.process.pid)
            self.fill(server, count)
            gateway = (resident_bytes(server.process.pid) - before) / count
            try:
                found = [private_bytes(server.pid(session)) for session in server.call("GET", "/sessions")["sessions"]]
            except PermissionError:
                self.skipped["memory"] = "only root may read the memory map of a process that is not dumpable"
                return
            pages = [entry[0] for entry in found]
            self.add("private memory per session", "B", **percentiles(pages), mean=sum(pages) / count)
            self.add("page tables per session", "B", mean=sum(entry[1] for entry in found) / count)
            self.add("server's memory per session", "B", mean=gateway)

    def capacity(self):
        count = 500 if self.quick else 2000
        with self.server(MAX_SESSIONS=str(count)) as server:
            sessions = self.fill(server, count)
            for number, session in enumerate(sessions):
                progress(f"live sessions, asking {number + 1} of {count}")
                if server.execute(session, "x + 1") != "43":
                    raise Failure(f"session {session} has lost its state")
            name = "live sessions at once" + (" (quick)" if self.quick else "")
            self.add(name, "", value=len(sessions))

    def checkpoint(self):
        """In the worker, after the answer: what a save takes, and a restore in the next process."""
        names = {"warm": "checkpoint after a small execution", "work": "checkpoint after 200 small objects", "first": "checkpoint, the first one",
                 "large_idle": "checkpoint of 100 MB, little changed", "large_touched": "checkpoint of 100 MB, 300 objects changed",
                 "restore": "restore, without the process"}
        progress("checkpoints")
        done = subprocess.run([BUILD / "tests" / "unit" / "bench-checkpoint"], capture_output=True, text=True, check=True, timeout=120,
                              env={"CM_IMAGE": str(BUILD / "guest" / "python.img")})
        seconds = {}
        for line in done.stdout.splitlines():
            name, nanoseconds = line.split()
            seconds.setdefault(name, []).append(int(nanoseconds) / 1e9)
        for name, text in names.items():
            self.add(text, "s", **percentiles(seconds[name]))

    def rollback(self):
        """From the end of a session's process in the middle of an execution to the answer that says what it went back to."""
        seconds = []
        with self.server() as server:
            session = server.call("POST", "/session")["session_id"]
            execute = f"/session/{session}/execute"
            server.call("POST", execute, {"code": "rows = list(range(10_000))"})
            for number in range(10 if self.quick else 50):
                progress(f"rollback, {number + 1}")
                killed = []

                def kill(pid=server.pid(session), killed=killed):
                    time.sleep(0.02)
                    killed.append(time.monotonic())
                    os.kill(pid, signal.SIGKILL)

                killer = threading.Thread(target=kill)
                killer.start()
                answer = server.call("POST", execute, {"code": "while True: pass"})
                seconds.append(time.monotonic() - killed[0])
                killer.join()
                if answer["state"] != "rolled_back":
                    raise Failure(f"a rollback answered {answer}")
        self.add("rollback", "s", **percentiles(seconds))

    def grpc(self):
        over_grpc.measure(self, percentiles, progress, CODE, RESULT)

    def rlm_runs(self):
        rlm.measure(self, percentiles, progress)

    def fill(self, server, count):
        sessions = []
        for number in range(count):
            progress(f"live sessions, creating {number + 1} of {count}")
            sessions.append(server.create())
            if server.execute(sessions[-1], CODE) != RESULT:
                raise Failure("a wrong result")
        return sessions

    def compare(self):
        progress("starting the runtimes")
        other, reason = programs.pyodide(CACHE)
        if reason:
            self.skipped["pyodide"] = reason
        with self.server() as server:
            runtimes = [programs.InSession(server), programs.system_python()] + ([other] if other else [])
            try:
                self.versions = {runtime.name: runtime.version for runtime in runtimes}
                times = programs.compare(runtimes, 2 if self.quick else 9, not self.quick, progress)
            finally:
                for runtime in runtimes:
                    runtime.stop()
        if other:
            self.add("Pyodide: load to ready", "s", value=other.start_seconds)
        self.programs = {name: {runtime: percentiles(seconds) for runtime, seconds in row.items()} for name, row in times.items()}
        for runtime, title in (("codemode", "Python time / system CPython"), ("pyodide", "Pyodide time / system CPython")):
            if runtime in self.versions:
                self.add(title, "ratio", value=self.ratio(runtime))

    def ratio(self, runtime):
        """Geometric mean over the programs of the median times' ratios to the system's Python."""
        logs = [math.log(row[runtime]["p50"] / row["system"]["p50"]) for row in self.programs.values()]
        return math.exp(sum(logs) / len(logs))

    def run(self, parts):
        self.build_load()
        for part in parts:
            getattr(self, {"programs": "compare", "rlm": "rlm_runs"}.get(part, part))()
        progress("")

    # --- the report

    def goals(self):
        """[(figure, goal as text, met)] of the goals whose figure was measured."""
        rows = []
        for name, key, sign, goal in GOALS:
            if name in self.figures:
                value = self.figures[name][key]
                met = value <= goal if sign == "<=" else value >= goal
                rows.append((name, f"{sign} {show(goal, self.figures[name]['unit'])}", met))
        return rows

    def report(self):
        return {
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "quick": self.quick,
            "machine": machine(),
            "versions": self.versions,
            "figures": self.figures,
            "programs": self.programs,
            "goals": {name: {"goal": goal, "met": met} for name, goal, met in self.goals()},
            "skipped": self.skipped,
        }


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) * 1024
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "memory_bytes": memory, "kernel": platform.release()}


def show(value, unit):
    if unit == "s":
        return f"{value * 1e3:.3f} ms" if value < 1 else f"{value:.2f} s"
    if unit == "B":
        return f"{value / MEBI:.2f} MiB" if abs(value) >= MEBI / 10 else f"{value / 1024:.1f} KiB"
    if unit == "ratio":
        return f"{value:.2f} x"
    return f"{value:,.0f}" + (f" {unit}" if unit and unit != "1/s" else "")


def print_table(bench):
    goals = {name: (goal, met) for name, goal, met in bench.goals()}
    facts = machine()
    print(f"{facts['cores']} cores of {facts['cpu']}, {facts['memory_bytes'] / MEBI / 1024:.0f} GiB, Linux {facts['kernel']}\n")
    print(f"{'figure':34} {'p50':>12} {'p90':>12} {'p99':>12}  goal")
    for name, row in bench.figures.items():
        cells = [show(row[key], row["unit"]) if key in row else "" for key in ("p50", "p90", "p99")]
        single = row.get("mean", row.get("value"))
        if single is not None:
            cells[0] = show(single, row["unit"]) + (" mean" if "mean" in row else "")
            cells[1:] = ["", ""]
        goal, met = goals.get(name, ("", True))
        print(f"{name:34} {cells[0]:>12} {cells[1]:>12} {cells[2]:>12}  {goal}{'' if met else '  MISSED'}")
    if bench.programs:
        print_programs(bench)
    for name, reason in bench.skipped.items():
        print(f"not measured: {name}: {reason}")


def print_programs(bench):
    runtimes = list(bench.versions)
    print("\n" + f"{'program (median ms)':34}" + "".join(f"{name:>13}{'':8}" for name in runtimes))
    for name, row in bench.programs.items():
        line = f"{name:34}"
        for runtime in runtimes:
            seconds = row[runtime]["p50"]
            line += f"{seconds * 1e3:13.1f} {seconds / row['system']['p50']:6.2f}x"
        print(line)
    for name, version in bench.versions.items():
        print(f"  {name}: {version}")


def main():
    parser = argparse.ArgumentParser(description="Measures the built sidecar.")
    parser.add_argument("--quick", action="store_true", help="less than a minute, rough figures")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part; may be repeated")
    parser.add_argument("--check", action="store_true", help="end with status 1 when a goal is missed")
    options = parser.parse_args()
    if not (BUILD / "codemode").exists():
        parser.error(f"{BUILD}/codemode is missing: build first, or name the folder in CODEMODE_BUILD")
    bench = Bench(options.quick)
    try:
        bench.run(options.only or PARTS)
    except Failure as failure:
        progress("")
        print(f"error: {failure}", file=sys.stderr)
        return 1
    path = BUILD / "bench.json"
    path.write_text(json.dumps(bench.report(), indent=1) + "\n", encoding="utf-8")
    print_table(bench)
    print(f"\nwritten to {path}")
    return 1 if options.check and not all(met for _, _, met in bench.goals()) else 0


if __name__ == "__main__":
    sys.exit(main())
