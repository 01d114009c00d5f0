# SPDX-License-Identifier: Apache-2.0
"""The part `grpc` of the benchmark: executions over gRPC beside HTTP, and calls of tools out and back."""

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import threading

#: Times that executions over gRPC and over HTTP take turns.
TURNS = 10

ROOT = pathlib.Path(__file__).resolve().parents[1]

CALLS = """
import time
def once(i):
    begun = time.perf_counter()
    tools['echo'].run(i=i)
    return time.perf_counter() - begun
times = [once(i) for i in range({count})]
times
"""
ASYNC_CALLS = CALLS.replace("def once", "async def once").replace("    tools", "    await tools").replace("[once(i)", "[await once(i)")
FOUR = "import asyncio\nlen(await asyncio.gather(*(tools['slow'].run() for _ in range(4))))"


@contextlib.contextmanager
def service(*command):
    """A tool service that says its port first and ends with its standard input."""
    with subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield int(process.stdout.readline())
        process.stdin.close()


def tool_calls(server, code, count):
    session = server.create()
    times = json.loads(server.execute(session, code.format(count=50))) and []
    while len(times) < count:
        times += json.loads(server.execute(session, code.format(count=500)))
    return times


def executions(bench, server, code, result, count):
    done = subprocess.run([bench.build / "sdk" / "c" / "bench-grpc", f"127.0.0.1:{server.port}", str(count), code, result],
                          capture_output=True, text=True, timeout=120, check=True)
    return [int(line) / 1e9 for line in done.stdout.split()]


def many(server, sessions):
    """Four calls at once from each of so many sessions; how many answers were wrong or missing."""
    made, wrong = [server.create() for _ in range(sessions)], []

    def run(session):
        own = server.another()
        try:
            if own.execute(session, FOUR) != "4":
                wrong.append(session)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(session,)) for session in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(wrong)


def measure(bench, percentiles, progress, code, result):
    count = 1000 if bench.quick else 5000
    drive = bench.build / "sdk" / "c" / "libcodemode-drive"
    with service(drive, "serve", "0") as port, bench.server(CODEMODE_MAIN_APP_TARGET=f"127.0.0.1:{port}") as server:
        progress("executions over gRPC and HTTP")
        over, beyond = [], []
        for _ in range(TURNS):  # in turns, so that a slow moment hits both
            times = executions(bench, server, code, result, count // TURNS)
            beyond.append(percentiles(times)["p50"] - bench.load(server, "warm", 1, count // TURNS, 30)["execute"]["p50"])
            over += times
        bench.add("execution over gRPC", "s", **percentiles(over))
        bench.add("execution over gRPC, beyond HTTP", "s", value=statistics.median(beyond))
        progress("calls of a tool in C")
        bench.add("tool call, tool in C", "s", **percentiles(tool_calls(server, CALLS.replace("echo", "about"), count)))
        bench.add("tool call, awaited", "s", **percentiles(tool_calls(server, ASYNC_CALLS, count)))
        progress("200 calls at once")
        bench.add("failures of 200 calls at once", "", value=many(server, 50))
    beside_grpcio(bench, percentiles, progress, count)


def beside_grpcio(bench, percentiles, progress, count):
    python, script = "/usr/bin/python3", ROOT / "bench" / "echo_service.py"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["protoc", f"--proto_path={ROOT / 'proto'}", f"--python_out={folder}", "codemode.proto"], check=True)
        with service(python, script, folder) as port, bench.server(CODEMODE_MAIN_APP_TARGET=f"127.0.0.1:{port}") as server:
            progress("calls of a tool in grpcio")
            bench.add("tool call, tool in grpcio", "s", **percentiles(tool_calls(server, CALLS, count)))
            bare = subprocess.run([python, script, folder, str(port), str(count)], capture_output=True, text=True, check=True,
                                  env={**os.environ, "BARE": "1"}, timeout=120)
            bench.add("bare echo, grpcio to grpcio", "s", **percentiles([float(line) for line in bare.stdout.split()]))
