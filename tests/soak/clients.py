# SPDX-License-Identifier: Apache-2.0
"""The clients: each owns sessions, does to them what clients do, and holds every answer against its model."""

import asyncio
import random
import time

from model import Counted
from wire import Vanished, encode

#: Refusals that a loaded server may give, and that say when to come back.
OVERLOADED = {"too_many_sessions", "queue_full", "not_ready", "sandbox_unavailable", "out_of_memory", "overloaded", "low_memory"}

START = "n = 0"
SESSIONS_EACH = 3

#: name: (weight, code, fields of the request, what its answer must be: ok, error, or any)
CELLS = {
    "short": (30, "n += 1\nn", {}, "ok"),
    "printing": (8, "n += 1\nfor i in range(50): print('line', i)\nn", {}, "ok"),
    "sleeping": (8, "n += 1\nimport time; time.sleep(0.2)\nn", {}, "ok"),
    "working": (6, "n += 1\nsum(i * i for i in range(200000))\nn", {}, "ok"),
    "threads": (4, "n += 1\nimport threading, time\nts = [threading.Thread(target=time.sleep, args=(0.02,)) for _ in range(5)]\n"
                   "for t in ts: t.start()\nfor t in ts: t.join()\nn", {}, "ok"),
    "failing": (8, "n += 1\n1 / 0", {}, "ZeroDivisionError"),
    "no syntax": (4, "n += = 1", {}, "SyntaxError"),
    "hungry": (4, "n += 1\nb = bytearray(40 << 20)\nb[::4096] = b'x' * len(b[::4096])\ndel b\nn", {}, "ok"),
    "starving": (3, "n += 1\nbytearray(1 << 30)", {}, "MemoryError"),
    "flood": (3, "n += 1\nfor i in range(3000): print('x' * 200)\nn", {}, "ok"),
    "late": (3, "n += 1\nwhile True: pass", {"timeout": 0.2}, "late"),
    "deaf": (2, "n += 1\nwhile True:\n    try:\n        while True: pass\n    except BaseException: pass", {"timeout": 0.2}, "late"),
    "stuck": (1, "n += 1\nx = 3 ** (10 ** 9)", {"timeout": 0.2}, "late"),
    "leaving": (1, "n += 1\nimport os; os._exit(3)", {}, "dies"),
}  # fmt: skip


class Client:
    def __init__(self, world, number, seed):
        self.world, self.tally, self.violations = world, world.tally, world.violations
        self.random = random.Random(f"{seed}/{number}")
        self.wire = world.connection()
        self.own = []

    # --- one exchange, and what may be wrong with it

    async def ask(self, method, path, body=None, pace=None, wire=None):
        """An answer, or None after a violation."""
        wire = wire or self.wire
        try:
            answer = await wire.request(method, path, body, pace=pace)
        except Vanished as error:
            wire.abort()
            if self.world.starved:
                self.tally.abandoned += 1  # without descriptors a connection may go unanswered, or not even begin
            else:
                self.violations.add("answers", f"{method} {path}: {error}")
            return None
        self.check_refusal(method, path, answer)
        return answer

    def check_refusal(self, method, path, answer):
        if answer.status in (429, 503):
            code = answer.code()
            self.tally.refused[code] += 1
            what = f"{method} {path}: {answer}"
            self.violations.check("refusals", code in OVERLOADED, what)
            self.violations.check("refusals", int(answer.headers.get("retry-after", 0)) > 0, "no Retry-After: " + what)
        elif answer.status >= 500 and not self.world.starved:
            self.violations.add("refusals", f"{method} {path}: {answer}")

    # --- sessions

    async def create(self):
        answer = await self.ask("POST", "/session")
        if answer is None or answer.status != 200:
            self.violations.check("refusals", answer is None or answer.status in (429, 500, 503), f"POST /session: {answer}")
            return None
        self.tally.created += 1
        session = Counted(answer.json()["session_id"])
        self.world.sessions[session.id] = session
        self.own.append(session)
        answer = await self.ask("POST", session.path + "/execute", {"code": START})
        if answer is None:
            await self.drop(session)
        elif answer.status != 200 or not answer.json()["success"]:
            self.judge_trouble(session, answer, "the first cell")
            await self.drop(session)
        return session

    async def drop(self, session):
        session.gone = True
        self.own.remove(session)
        del self.world.sessions[session.id]
        answer = await self.ask("DELETE", session.path)
        while answer is None and self.world.starved:
            await asyncio.sleep(0.2)
            answer = await self.ask("DELETE", session.path)
        self.violations.check("losses", answer is None or answer.status == 200, f"DELETE {session.path}: {answer}")

    def judge_trouble(self, session, answer, what):
        """An answer that is no result: what it says of the session. True when the session is still there."""
        code = answer.code() if answer.status >= 400 else None
        state = answer.json().get("state")
        if state == "rolled_back":
            self.tally.rolled_back += 1
        elif code == "state_rolled_back":
            self.tally.undone += 1
            session.undo()
        elif code == "session_lost" or state == "lost":
            self.tally.lost += 1
            session.gone = True
        elif code in OVERLOADED or (self.world.starved and answer.status >= 500):
            return True
        else:
            self.violations.add("losses", f"{session.id}: {what} was answered with {answer}")
            session.gone = True
            return False
        echo, session.echo = session.echo and code == "state_rolled_back", state == "rolled_back"
        if echo:  # a second word about the same death: the execution before was not saved either
            return not session.gone
        if session.blows:
            session.blows -= 1
        elif self.tally.wild_kills:
            self.tally.wild_kills -= 1
        else:
            self.violations.add("losses", f"{session.id}: {what}, unprovoked: {answer}")
        return not session.gone

    def judge(self, session, answer, name, expect):
        """Holds the answer to one cell against the model."""
        if answer is None:
            session.leave()
            return
        body = answer.json()
        if answer.status != 200 or body["state"] != "kept":
            self.judge_trouble(session, answer, name)
            return
        self.tally.executed += 1
        if expect == "SyntaxError":
            self.violations.check("updates", body["error_type"] == expect, f"{name}: {answer}")
        elif body["success"]:
            self.violations.check("updates", expect in ("ok", "late"), f"{name} succeeded: {answer}")
            session.commit(int(body["result"]), self.violations, name)
        elif expect == "late":
            session.forget_answer()  # the interrupt may have come before the first line had run
            self.violations.check("updates", body["timed_out"], f"{name}: {answer}")
        elif body["error_type"] == expect:
            session.assume()
        else:
            self.violations.add("updates", f"{session.id}: {name} was answered with {answer}")

    # --- what a client does to a session

    async def execute(self, session):
        names = list(CELLS)
        name = self.random.choices(names, [CELLS[one][0] for one in names])[0]
        _, code, fields, expect = CELLS[name]
        self.tally.kinds[name] += 1
        if name in ("deaf", "stuck", "leaving"):
            session.blows += 1
        answer = await self.ask("POST", session.path + "/execute", {"code": code, **fields})
        self.judge(session, answer, name, expect)

    async def look(self, session):
        """n itself: no update may have got lost."""
        self.tally.kinds["look"] += 1
        answer = await self.ask("POST", session.path + "/execute", {"code": "n"})
        if answer is None:
            return
        if answer.status != 200 or answer.json()["state"] != "kept":
            self.judge_trouble(session, answer, "look")
            return
        body = answer.json()
        good = body["success"] and int(body["result"]) in session.possible
        self.violations.check("updates", good, f"{session.id}: n is {answer}, expected one of {sorted(session.possible)}")
        if good:
            session.before = {int(body["result"])}
            session.settle(int(body["result"]))

    async def read_slowly(self, session):
        self.tally.kinds["slow reader"] += 1
        wire = self.world.connection()
        code = CELLS["flood"][1]
        answer = await self.ask("POST", session.path + "/execute", {"code": code}, pace=(4096, 0.02), wire=wire)
        wire.abort()
        self.judge(session, answer, "slow reader", "ok")

    async def disconnect(self, session):
        """Goes away while its cell runs, or while its request is being sent."""
        self.tally.kinds["disconnect"] += 1
        wire = self.world.connection()
        data = encode("POST", session.path + "/execute", {"code": "n += 1\nimport time; time.sleep(0.4)\nn" + " " * 2000})
        cut = self.random.choice([len(data), len(data), self.random.randrange(1, len(data))])
        try:
            await wire.send(data[:cut])
            self.tally.abandoned += 1
            await asyncio.sleep(self.random.choice([0, 0.05, 0.3]))
        except (ConnectionError, OSError):
            self.violations.check("answers", self.world.starved, "a new connection was refused")
        wire.abort()
        if cut == len(data):
            session.leave()

    async def half_a_request(self):
        """Begins a body and leaves it, or goes on too slowly: the server must give up by itself."""
        self.tally.kinds["half a request"] += 1
        wire, trickle = self.world.connection(), self.random.random() < 0.5
        starved = self.world.starved  # then it may be accepted late, and all of its bytes come at once
        data = encode("POST", "/execute", {"code": "1" + " " * 4000})
        try:
            await wire.send(data[:2000])
            self.tally.abandoned += 1
            for at in range(2000, 2020) if trickle else ():
                await asyncio.sleep(0.25)
                if wire.reader._buffer or wire.reader.at_eof():
                    break
                await wire.send(data[at : at + 1])
            answer = await wire.receive(15)
            self.violations.check("answers", answer.status in (408, 503), f"half a request: {answer}")
        except (Vanished, OSError) as error:
            closed = isinstance(error, OSError) or (error.closed and not trickle)
            self.violations.check("answers", starved or self.world.starved or closed, f"half a request: {error}")
        wire.abort()

    async def crowd(self, session):
        """More requests at once than the session's queue holds."""
        self.tally.kinds["crowd"] += 1
        wires = [self.world.connection() for _ in range(12)]
        body = {"code": "n += 1\nimport time; time.sleep(0.01)\nn"}
        answers = await asyncio.gather(*(self.ask("POST", session.path + "/execute", body, wire=one) for one in wires))
        for one in wires:
            one.abort()
        plain, values = time.monotonic() > session.late_until, []
        for answer in answers:
            if answer is not None and answer.status == 200 and answer.json()["state"] == "kept" and answer.json()["success"]:
                values.append(int(answer.json()["result"]))
            elif answer is None or answer.status != 429:
                plain = False
                if answer is not None and not session.gone:
                    self.judge_trouble(session, answer, "crowd")
        self.tally.executed += len(values)
        if not plain:  # something was done to its process meanwhile, or a request that was left came in between
            session.possible = set(range(min(session.possible), max(session.possible) + session.late + len(answers) + 1))
            session.before = set(session.possible)
            return
        expected = [set(range(n + 1, n + 1 + len(values))) for n in session.possible]
        self.violations.check("updates", set(values) in expected and len(set(values)) == len(values),
                              f"{session.id}: a crowd made n {sorted(values)}, from {sorted(session.possible)}")  # fmt: skip
        if values:
            session.before = {max(values) - 1}
            session.settle(max(values))

    async def once(self):
        self.tally.kinds["one-shot"] += 1
        answer = await self.ask("POST", "/execute", {"code": "print('hello')\n6 * 7"})
        if answer is None or answer.status in (429, 503) or (self.world.starved and answer.status >= 500):
            return
        if answer.status == 200 and answer.json()["state"] == "kept":
            good = answer.json()["result"] == "42" and answer.json()["stdout"] == "hello\n"
            self.violations.check("updates", good, f"one-shot: {answer}")
        else:
            self.violations.check("losses", self.tally.wild_kills > 0, f"one-shot: {answer}")
            self.tally.wild_kills -= 1

    # --- the client's life

    async def step(self):
        dice = self.random.random()
        if len(self.own) < SESSIONS_EACH and (not self.own or dice < 0.2):
            if await self.create() is None:
                await asyncio.sleep(0.3)
            return
        if dice < 0.25:
            return await (self.once() if self.random.random() < 0.8 else self.half_a_request())
        session = self.random.choice(self.own)
        actions = [self.execute, self.look, self.disconnect, self.crowd, self.read_slowly]
        await self.random.choices(actions, [70, 15, 6, 3, 3])[0](session)
        if session.gone or self.random.random() < 0.02:
            await self.drop(session)

    async def live(self):
        while not self.world.ending:
            await self.step()
            await asyncio.sleep(self.random.random() * 0.05)
        for session in list(self.own):
            await self.look(session)
            await self.drop(session)
        self.wire.abort()
