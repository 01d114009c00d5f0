# SPDX-License-Identifier: Apache-2.0
"""The server under test, and what all clients share."""

import asyncio
import contextlib
import os
import pathlib
import resource
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from model import Tally, Violations  # noqa: E402
from support import Sidecar, alive, process_table, resident_bytes  # noqa: E402
from wire import Connection, Vanished  # noqa: E402

SETTINGS = {
    "MAX_SESSIONS": "60",
    "QUEUE_MAX": "8",
    "SPARE_WORKERS": "4",
    "GRACE": "1",
    "MEMORY_LIMIT": "192Mi",
    "MAX_OUTPUT": "256Ki",
    "MAX_CONNECTIONS": "200",
    "BODY_TIMEOUT": "2",
    "IDLE_TIMEOUT": "5",
    "DRAIN_TIMEOUT": "5",
    "EXECUTION_TIMEOUT": "20",
    "STORED_OUTPUT": "512Ki",
    "TOTAL_STORED_OUTPUT": "2Mi",
}

#: Growth of the gateway's resident memory that counts as flat: what an allocator moves about.
FLAT_BYTES = 6 << 20


class World:
    def __init__(self, log_level):
        self.server = Sidecar({**SETTINGS, "LOG_LEVEL": log_level})
        self.tally, self.violations = Tally(), Violations()
        self.sessions = {}  # id: Counted, those that clients still use
        self.ending = False
        self.starved = False  # the server has few descriptors, or no zygote: it may refuse
        self.memory = []

    def connection(self):
        return Connection(self.server.port, self.tally)

    def pid(self):
        return self.server.process.pid

    async def watch_memory(self):
        while not self.ending:
            self.memory.append(resident_bytes(self.pid()))
            await asyncio.sleep(0.25)

    def check_memory(self):
        """Compares the second quarter of the run with its last: the first is for warming up. On a machine that is slow to
        warm up, what matters is that at rest it is not more than it was then."""
        quarter = len(self.memory) // 4
        self.violations.check("memory", quarter >= 4, "the run was too short to say")
        if quarter >= 4:
            early, late = (statistics.median(part) for part in (self.memory[quarter : 2 * quarter], self.memory[-quarter:]))
            rest = resident_bytes(self.pid())
            text = f"{early / 2**20:.1f} MiB in the second quarter, {late / 2**20:.1f} MiB in the last, {rest / 2**20:.1f} MiB at rest"
            self.violations.check("memory", late - early <= FLAT_BYTES or rest <= early, text)
            return text
        return "unknown"

    def children(self):
        return self.server.children()

    def zygote(self):
        """The child that leads a session of its own; workers are in that of the zygote that made them."""
        for pid in self.children():
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                    if int(file.read().rsplit(")", 1)[1].split()[3]) == pid:
                        return pid
        return 0

    def descriptors(self):
        return len(self.server.descriptors())

    def checkpoints(self):
        """Files of saved states that the gateway holds: each is a session's memory."""
        return sum("memfd:checkpoint" in target for target in self.server.descriptor_targets())

    @contextlib.contextmanager
    def few_descriptors(self, room):
        """Takes all but `room` descriptors away from the running server."""
        soft, hard = resource.prlimit(self.pid(), resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir(f"/proc/{self.pid()}/fd")))
        resource.prlimit(self.pid(), resource.RLIMIT_NOFILE, (highest + 1 + room, hard))
        try:
            yield
        finally:
            resource.prlimit(self.pid(), resource.RLIMIT_NOFILE, (soft, hard))

    async def until(self, check, seconds):
        """True as soon as `check` is; False when it never was."""
        end = time.monotonic() + seconds
        while not check():
            if time.monotonic() > end:
                return False
            await asyncio.sleep(0.05)
        return True


__all__ = ["Connection", "Vanished", "World", "alive", "process_table"]
