# SPDX-License-Identifier: Apache-2.0
"""The part `rlm` of the benchmark: what the service adds to its model, many runs at once, and what a large context costs."""

import contextlib
import os
import pathlib
import re
import sys
import threading
import time

from server import Failure, resident_bytes

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import model_server as model  # noqa: E402

MEBI = 1 << 20
CONTEXT = 40 * MEBI
AT_ONCE = 50


def script(turns, look=lambda: None):
    """So many blocks of trivial code, then the answer; `look` is called while the newest one's session waits."""
    last = model.repl(model.answer('str(x)'))
    block = model.repl("x = 6 * 7\nprint(x)")

    def reply(request):
        if request.turn < turns:
            return block
        look()
        return last

    return reply


def infer(server, body):
    answer = server.call("POST", "/infer", {"query": "What is x?", **body})
    if not answer["success"] or answer["answer"] != "42":
        raise Failure(f"a run answered {answer}")
    return answer


def turns(bench, percentiles, progress):
    """By the model server's clock, which takes no time itself between a reply and the next request."""
    count, runs = 20, 5 if bench.quick else 20
    with model.ModelServer(script(count)) as models, bench.rlm(models) as server:
        for number in range(runs + 1):
            progress(f"turns of a run, {number + 1} of {runs + 1}")
            if number == 1:
                models.requests.clear()
            infer(server, {"max_iterations": count})
        found = []
        for number in range(runs):
            run = models.requests[number * count : (number + 1) * count]
            found += [after.began - before.ended for before, after in zip(run, run[1:])]
        bench.add("RLM: a turn beside its model", "s", **percentiles(found))


def many(bench, percentiles, progress):
    """Runs of five turns, all begun together; client, model, service and sidecar share the cores."""
    progress(f"{AT_ONCE} runs at once")
    seconds, failures = [], []
    with model.ModelServer(script(5)) as models, bench.rlm(models) as server:
        infer(server, {})

        def run():
            begun = time.perf_counter()
            try:
                infer(server.another(), {})
                seconds.append(time.perf_counter() - begun)
            except (Failure, OSError) as error:
                failures.append(error)

        threads = [threading.Thread(target=run) for _ in range(AT_ONCE)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        whole = time.perf_counter() - begun
    for failure in failures[:3]:
        print(f"\n{failure}", file=sys.stderr)
    bench.add(f"RLM: failures of {AT_ONCE} runs at once", "", value=len(failures))
    if seconds:
        bench.add(f"RLM: one of {AT_ONCE} runs of 5 turns", "s", **percentiles(seconds))
        bench.add(f"RLM: {AT_ONCE} runs of 5 turns", "s", value=whole)


def descendants(pid):
    """Those that are still there when they are looked at."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += [int(child)] + descendants(int(child))
    return found


def named(server, name):
    """Processes of this name; one that ends meanwhile is none of them."""
    for pid in descendants(server.process.pid):
        with contextlib.suppress(FileNotFoundError):
            if pathlib.Path(f"/proc/{pid}/comm").read_text().startswith(name):
                yield pid


def session_bytes(server):
    """Memory of the session that has most: its process's own pages, and its files in memory, which hold the saved state."""
    most = 0
    for pid in named(server, "codemode-sandb"):
        with contextlib.suppress(FileNotFoundError):
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            own = sum(int(re.search(rf"{name}:\s+(\d+) kB", status).group(1)) * 1024 for name in ("RssAnon", "VmPTE"))
            most = max(most, own + files_bytes(pid))
    return most


def files_bytes(pid):
    total = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        link = f"/proc/{pid}/fd/{fd}"
        if os.readlink(link).startswith("/memfd:"):
            total += os.stat(link).st_blocks * 512
    return total


def service_bytes(server):
    """Of the service and of its sidecar's gateway, without sessions."""
    return sum(resident_bytes(pid) for pid in [server.process.pid, *named(server, "codemode\n")])


def memory(bench, progress):
    """A context of text, sent to the service, taken by a run, and gone."""
    seen = []

    def cost(data):
        for _ in range(3):
            sent = server.send("/contexts", data, "text/plain")
            infer(server, {"context_id": sent["context_id"]})
        return (max(seen[-3:]) - small) / CONTEXT

    with model.ModelServer(script(3, lambda: seen.append(session_bytes(server)))) as models, bench.rlm(models) as server:
        for _ in range(3):
            infer(server, {"context": "short"})
        progress("runs with 40 MiB of context")
        small, before = seen[-1], service_bytes(server)
        text = b"a line of some seventy characters, as there are so many in any text...\n"
        text = (text * (CONTEXT // len(text) + 1))[:CONTEXT]
        bench.add("RLM: session's memory / 40 MiB context", "ratio", value=cost(text))
        bench.add("RLM: service's memory afterwards / context", "ratio", value=(service_bytes(server) - before) / CONTEXT)
        bench.add("RLM: the session's, with one emoji in it", "ratio", value=cost(text[:-4] + "\N{SLIGHTLY SMILING FACE}".encode()))


def measure(bench, percentiles, progress):
    if not (bench.build / "rlm").exists():
        bench.skipped["rlm"] = "build/rlm is not built"
        return
    turns(bench, percentiles, progress)
    many(bench, percentiles, progress)
    if os.geteuid() == 0:
        memory(bench, progress)
    else:
        bench.skipped["rlm memory"] = "only root may read the memory map of a process that is not dumpable"
