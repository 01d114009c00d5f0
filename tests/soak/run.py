#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The soak: run.py [--minutes N] [--seed S] [--clients N] [--tap FILE]

Many clients against a real server while its processes are killed and stopped and its descriptors run out. Each client
knows what its sessions must hold and checks every answer; at the end nothing may be left over. Prints a summary;
exit code 1 when a promise was broken. See README.md.
"""

import argparse
import asyncio
import json
import pathlib
import random
import sys
import time

from chaos import Chaos
from clients import Client
from model import Violations
from world import World, alive

QUIET_SECONDS = 20.0


async def run_load(world, seconds, count, seed):
    clients = [Client(world, number, seed) for number in range(count)]
    tasks = [asyncio.create_task(one) for one in [client.live() for client in clients] + Chaos(world, seed).tasks()]
    watch = asyncio.create_task(world.watch_memory())
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert world.server.process.poll() is None, "the server died:\n" + world.server.log_text()[-4000:]
        for task in tasks:
            if task.done():
                task.result()  # an error of the soak itself
        await asyncio.sleep(0.2)
    world.ending = True
    await asyncio.wait_for(asyncio.gather(*tasks), 120)
    await watch


async def check_rest(world):
    """Nothing may be left of all that was."""
    server, violations = world.server, world.violations
    left = [one for one in server.sessions()]
    violations.check("sessions", not left, f"{len(left)} sessions are left: {left[:3]}")
    server.hang_up()
    calm = await world.until(lambda: len(world.children()) == server.base_children, QUIET_SECONDS)
    violations.check("processes", calm, f"{len(world.children())} children, {server.base_children} at the start")
    spares = int(world.server.settings["SPARE_WORKERS"])
    calm = await world.until(lambda: world.checkpoints() <= spares, QUIET_SECONDS)
    violations.check("descriptors", calm, f"{world.checkpoints()} checkpoints are left, of {spares} spare workers")
    calm = await world.until(lambda: world.descriptors() <= server.base_descriptors, QUIET_SECONDS)
    violations.check("descriptors", calm, f"{world.descriptors()} open, {server.base_descriptors} at the start: {server.descriptor_targets()}")


def check_metrics(world):
    tally, violations, samples = world.tally, world.violations, world.server.metrics()

    def total(name):
        return sum(value for key, value in samples.items() if key.split("{")[0] == name)

    def check(good, text):
        violations.check("metrics", good, text)

    created, ended = (total(f"codemode_sessions_{name}_total") for name in ("created", "ended"))
    active = total("wasm_sessions_active")
    check(active == 0, f"{active:g} sessions are active")
    check(created == ended + active, f"{created:g} sessions created, {ended:g} ended, {active:g} active")
    check(created >= tally.created, f"{created:g} sessions created, the clients saw {tally.created}")
    for name in ("running", "queued"):
        check(total(f"codemode_executions_{name}") == 0, f"executions are {name}: {total(f'codemode_executions_{name}'):g}")
    finished = total("codemode_executions_total")
    check(finished >= tally.executed, f"{finished:g} executions finished, the clients saw {tally.executed}")
    answered = total("codemode_http_requests_total")
    check(answered >= tally.received, f"{answered:g} requests answered, the clients read {tally.received} answers")
    deaths = total("codemode_worker_deaths_total")
    check(deaths >= tally.lost, f"{deaths:g} workers died, the clients saw {tally.lost} losses")
    return {"created": created, "finished": finished, "deaths": deaths, "answered": answered}


def check_log(world):
    """Our own faults, and lines that are none; the zygote's reports of the kills are expected."""
    for line in world.server.log_text().split("\n")[:-1]:
        try:
            entry = json.loads(line)
        except ValueError:
            world.violations.add("log", f"no JSON: {line[:200]}")
            continue
        event = entry["event"]
        if event == "protocol_violation" or (event == "worker_crashed" and "sent by process" not in entry["report"]):
            world.violations.add("log", line[:1500])


async def check_end(world):
    server, violations = world.server, world.violations
    family = world.children()
    server.process.terminate()
    ended = await world.until(lambda: server.process.poll() is not None, 60)
    violations.check("end", ended and server.process.returncode == 0, f"exit status {server.process.poll()} after SIGTERM")
    gone = await world.until(lambda: not any(map(alive, family)), 30)
    violations.check("end", gone, f"still there: {[pid for pid in family if alive(pid)]}")


def print_summary(world, figures, memory, seconds, seed):
    tally = world.tally
    print(f"seed {seed}, {seconds:.0f} s")
    print(f"requests {tally.sent}, answers {tally.received}, thrown away {tally.abandoned}")
    print(f"sessions {tally.created}; executions seen {tally.executed}, finished {figures.get('finished', 0):g}")
    print(f"undone on request {tally.asked_back}, atomic {tally.taken_back}, interrupts {tally.interrupted}; "
          f"stored outputs read {tally.stored}, gone {tally.evicted}")  # fmt: skip
    print(f"rolled back {tally.rolled_back}, undone {tally.undone}, lost {tally.lost}; worker deaths {figures.get('deaths', 0):g}")
    for title, counts in (("signals", tally.kills), ("refused", tally.refused), ("done", tally.kinds)):
        print(f"{title}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=str)))
    print(f"memory of the gateway: {memory}; most {max(world.memory) / 2**20:.1f} MiB")


def report(world):
    """The promises in TAP, and the words of those that were broken."""
    lines = [f"1..{len(Violations.PROMISES)}"]
    for number, (promise, text) in enumerate(Violations.PROMISES.items(), 1):
        count = world.violations.counts[promise]
        lines.append(f"{'not ok' if count else 'ok'} {number} - {text}")
        lines += [f"# {words}" for words in world.violations.words[promise]]
        if count > len(world.violations.words[promise]):
            lines.append(f"# ... {count} in all")
    return "\n".join(lines) + "\n"


async def soak(world, arguments):
    started = time.monotonic()
    await run_load(world, arguments.minutes * 60, arguments.clients, arguments.seed)
    await check_rest(world)
    figures = check_metrics(world)
    memory = world.check_memory()
    await check_end(world)
    check_log(world)
    print_summary(world, figures, memory, time.monotonic() - started, arguments.seed)


def main():
    parser = argparse.ArgumentParser(prog="./dev soak", description="many clients, and everything that goes wrong around them")
    parser.add_argument("--minutes", type=float, default=5.0, help="length of the load (5)")
    parser.add_argument("--seed", type=int, default=None, help="of every choice (random); timing is never the same twice")
    parser.add_argument("--clients", type=int, default=16, help="clients at once (16)")
    parser.add_argument("--log", type=pathlib.Path, help="keep the server's log there, with all it can say")
    parser.add_argument("--tap", type=pathlib.Path, help="also write the results there")
    arguments = parser.parse_args()
    arguments.seed = random.randrange(1 << 31) if arguments.seed is None else arguments.seed
    world = World("DEBUG" if arguments.log else "INFO")
    try:
        asyncio.run(soak(world, arguments))
    finally:
        if arguments.log:
            arguments.log.write_text(world.server.log_text())
        if world.server.process.poll() is None:
            world.server.stop()
    text = report(world)
    print(text, end="")
    if arguments.tap:
        arguments.tap.write_text(text)
    return 1 if world.violations.counts else 0


if __name__ == "__main__":
    sys.exit(main())
