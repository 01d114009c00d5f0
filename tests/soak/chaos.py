# SPDX-License-Identifier: Apache-2.0
"""What goes wrong around the clients: processes that die or stop, floods of connections, descriptors that run out."""

import asyncio
import os
import random
import signal

from wire import Vanished

STOP_SECONDS = (0.05, 0.4, 1.5)


class Chaos:
    def __init__(self, world, seed):
        self.world, self.tally = world, world.tally
        self.random = random.Random(f"{seed}/chaos")

    async def pause(self, least, most):
        """False when the run is over."""
        end = asyncio.get_running_loop().time() + self.random.uniform(least, most)
        while not self.world.ending and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.05)
        return not self.world.ending

    async def victim(self):
        """A session that is about to be hit, and its process now."""
        if not self.world.sessions:
            return None, 0
        session = self.random.choice(list(self.world.sessions.values()))
        session.blows += 1
        answer = await self.ask("GET", session.path)
        if answer is None:
            return None, 0
        pid = answer.json().get("pid", 0) if answer.status == 200 else 0
        return session, pid if pid in self.world.children() else 0

    async def ask(self, method, path):
        wire = self.world.connection()
        try:
            return await wire.request(method, path)
        except Vanished as error:
            self.world.violations.check("answers", self.world.starved, f"{method} {path}: {error}")
            return None
        finally:
            wire.abort()

    def signal(self, pid, name):
        try:
            os.kill(pid, getattr(signal, name))
        except ProcessLookupError:
            return
        self.tally.kills[name] += 1

    async def kill_workers(self):
        while await self.pause(0.2, 1.2):
            _, pid = await self.victim()
            if pid:
                self.signal(pid, self.random.choice(["SIGKILL", "SIGKILL", "SIGKILL", "SIGSEGV"]))

    async def stop_workers(self):
        while await self.pause(0.5, 3):
            _, pid = await self.victim()
            if pid:
                self.signal(pid, "SIGSTOP")
                await asyncio.sleep(self.random.choice(STOP_SECONDS))
                self.signal(pid, "SIGCONT")

    async def kill_zygote(self):
        while await self.pause(4, 9):
            if zygote := self.world.zygote():
                self.signal(zygote, "SIGKILL")

    async def kill_anyone(self):
        """A worker that may be spare, starting, or of any session."""
        while await self.pause(3, 8):
            zygote = self.world.zygote()
            workers = [pid for pid in self.world.children() if pid != zygote]
            if workers:
                self.tally.wild_kills += 1
                self.signal(self.random.choice(workers), "SIGKILL")

    async def too_many_sessions(self):
        """Creates until it is refused, and takes all back."""
        while await self.pause(6, 12):
            wires = [self.world.connection() for _ in range(80)]
            made = await asyncio.gather(*(self.create(one) for one in wires))
            for path in filter(None, made):
                await self.delete(path)
            for one in wires:
                one.abort()
            self.tally.kinds["burst of sessions"] += 1

    async def create(self, wire):
        try:
            answer = await wire.request("POST", "/session")
        except Vanished as error:
            self.world.violations.check("answers", self.world.starved, f"burst: {error}")
            return None
        if answer.status == 200:
            self.tally.created += 1
            return "/session/" + answer.json()["session_id"]
        self.tally.refused[answer.code()] += 1
        good = answer.status in (429, 503) and int(answer.headers.get("retry-after", 0)) > 0
        self.world.violations.check("refusals", good or self.world.starved, f"burst: {answer}")
        return None

    async def delete(self, path):
        for _ in range(100):
            if await self.ask("DELETE", path) is not None:
                return
            await asyncio.sleep(0.1)
        self.world.violations.add("sessions", f"DELETE {path} got no answer")

    async def too_few_descriptors(self):
        while await self.pause(9, 16):
            self.world.starved = True
            with self.world.few_descriptors(room=self.random.choice([0, 1, 2, 5])):
                await asyncio.sleep(1.5)
            await asyncio.sleep(1.5)  # until what was refused meanwhile has been tried again
            self.world.starved = False
            self.tally.kinds["few descriptors"] += 1

    def tasks(self):
        return [
            self.kill_workers(),
            self.stop_workers(),
            self.kill_zygote(),
            self.kill_anyone(),
            self.too_many_sessions(),
            self.too_few_descriptors(),
        ]
