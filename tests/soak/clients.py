# SPDX-License-Identifier: Apache-2.0
"""The clients: each owns sessions, does to them what clients do, and holds every answer against its model."""

import asyncio
import contextlib
import os
import random
import signal
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
    "computing": (2, "n += 1\nwhile True: pass", {"limits": {"cpu_time": 0.1}}, "late"),
    "poor": (2, "n += 1\nbytearray(150 << 20)", {"limits": {"memory": 64 << 20}}, "MemoryError"),
    "atomic": (5, "n += 1\nn", {"on_error": "rollback"}, "ok"),
    "atomic failing": (5, "n += 1\n1 / 0", {"on_error": "rollback"}, "ZeroDivisionError"),
    "atomic late": (2, "n += 1\nwhile True: pass", {"on_error": "rollback", "timeout": 0.2}, "late"),
}  # fmt: skip


#: What is interrupted: (code, fields). The last one does not react and is ended.
ENDLESS = [
    ("n += 1\nwhile True: pass", {}),
    ("n += 1\nimport time; time.sleep(15)", {}),
    ("n += 1\nwhile True: pass", {"on_error": "rollback"}),
    ("n += 1\nx = 3 ** (10 ** 9)", {}),
]

FLOOD = (b"x" * 200 + b"\n") * 3000


TOLD = ("state", "result", "error_type", "execution_id")


def brief(answer):
    if answer is None:
        return "no answer"
    if answer.status != 200:
        return f"{answer.status} {answer.code()}"
    return " ".join(f"{key}={value}" for key, value in answer.json().items() if key in TOLD)


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
        limits = self.random.choice([None, None, {"limits": {"queue": self.random.randint(1, 8), "memory": 160 << 20}}])
        answer = await self.ask("POST", "/session", limits)
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
            self.violations.add("losses", f"{session.id}: {what}, unprovoked: {answer}{session.story()}")
        return not session.gone

    def judge(self, session, answer, name, expect, atomic=False):
        """Holds the answer to one cell against the model."""
        self.hold(session, answer, name, expect, atomic)
        session.note(f"{name}: {brief(answer)}")

    def hold(self, session, answer, name, expect, atomic):
        if answer is None:
            session.leave()
            return
        body = answer.json()
        if atomic and answer.status == 200 and body["state"] == "rolled_back" and body["error_type"] != "RuntimeError":
            good = body["timed_out"] if expect == "late" else body["error_type"] == expect
            self.violations.check("updates", good, f"{session.id}: {name}: {answer}{session.story()}")
            self.tally.taken_back += 1
            session.echo = False
            return
        if answer.status != 200 or body["state"] != "kept":
            self.judge_trouble(session, answer, name)
            return
        self.tally.executed += 1
        good = not atomic or body["success"]
        self.violations.check("updates", good, f"{session.id}: {name} was kept: {answer}{session.story()}")
        if expect == "SyntaxError":
            self.violations.check("updates", body["error_type"] == expect, f"{name}: {answer}")
            session.change_nothing()
        elif body["success"]:
            self.violations.check("updates", expect in ("ok", "late"), f"{name} succeeded: {answer}")
            session.commit(int(body["result"]), self.violations, name)
        elif expect == "late":
            session.forget_answer()  # the interrupt may have come before the first line had run
            self.violations.check("updates", body["timed_out"] or body["error_type"] == "KeyboardInterrupt", f"{name}: {answer}")
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
        self.judge(session, answer, name, expect, "on_error" in fields)
        if name == "flood":
            await self.read_stored(session, answer)

    async def read_stored(self, session, answer):
        """The middle of an output that was too long for its answer."""
        if answer is None or answer.status != 200 or answer.json()["state"] != "kept" or self.random.random() < 0.3:
            return
        reply = answer.json()
        if reply["stdout_ref"] is None:  # there was no room in the store
            self.tally.evicted += 1
            return
        offset, length = self.random.randrange(600_000), self.random.choice([1, 1000, 200_000])
        part = await self.ask("GET", f"{reply['stdout_ref']}?offset={offset}&length={length}")
        if part is None:
            return
        if part.status == 200:
            self.tally.stored += 1
            stored, total = (int(part.headers[f"x-{name}-length"]) for name in ("stored", "total"))
            good = total == len(FLOOD) == reply["stdout_bytes"] and part.body == FLOOD[:stored][offset : offset + length]
            self.violations.check("updates", good, f"{session.id}: stored output: {part.headers} {part}")
        else:
            self.tally.evicted += part.code() == "unknown_output"
            good = part.code() in ("unknown_output", "session_lost")
            self.violations.check("updates", good, f"{session.id}: stored output: {part}")

    async def interrupt(self, session):
        """Somebody stops what runs, and goes on doing so until it has stopped."""
        self.tally.kinds["interrupt"] += 1
        code, fields = self.random.choices(ENDLESS, [4, 4, 2, 1])[0]
        session.blows += "**" in code
        wire = self.world.connection()
        work = asyncio.create_task(self.ask("POST", session.path + "/execute", {"code": code, **fields}, wire=wire))
        while not work.done():
            await asyncio.sleep(self.random.choice([0.01, 0.1, 0.3]))
            answer = await self.ask("POST", session.path + "/interrupt")
            if answer is not None and answer.status == 200:
                self.tally.interrupted += answer.json()["interrupted"]
            elif answer is not None:
                self.violations.check("updates", answer.code() == "session_lost", f"{session.id}: interrupt: {answer}")
        wire.abort()
        self.judge_interrupted(session, work.result(), "on_error" in fields)

    def judge_interrupted(self, session, answer, atomic):
        body = answer.json() if answer is not None and answer.status == 200 else None
        if body and body["state"] == "kept":
            good = body["error_type"] == "KeyboardInterrupt" and not body["timed_out"]
            self.violations.check("updates", good, f"{session.id}: interrupted: {answer}")
        elif body and atomic and body["error_type"] == "KeyboardInterrupt":
            self.tally.taken_back += 1
            session.echo = False
            return session.note("interrupted, rolled back")
        return self.judge(session, answer, "interrupt", "late")

    async def strike(self, session):
        """Its process is killed while it computes, answers, or saves; perhaps twice."""
        self.tally.kinds["strike"] += 1
        answer = await self.ask("GET", session.path)
        pid = answer.json().get("pid", 0) if answer is not None and answer.status == 200 else 0
        if pid not in self.world.children():
            return
        session.blows += 1
        wire = self.world.connection()
        body = {"code": "n += 1\nbig = bytearray(n % 251 for _ in range(100000)) * 20\nn"}
        work = asyncio.create_task(self.ask("POST", session.path + "/execute", body, wire=wire))
        if self.random.random() < 0.5:
            await work
        await asyncio.sleep(self.random.random() * 0.03)
        session.note(f"kill {pid}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.tally.kills["SIGKILL"] += 1
        answer = await work
        wire.abort()
        self.judge(session, answer, "strike", "ok")

    async def roll_back(self, session):
        """Undoes the newest execution."""
        if not session.begun:
            return
        self.tally.kinds["rollback"] += 1
        answer = await self.ask("POST", session.path + "/rollback")
        if answer is None:
            session.possible |= session.before
        elif answer.status == 200:
            self.tally.asked_back += 1
            self.violations.check("updates", answer.json()["state"] == "rolled_back", f"{session.id}: rollback: {answer}")
            session.go_back()
        elif answer.code() not in ("nothing_to_undo", "session_busy"):
            self.judge_trouble(session, answer, "rollback")
        else:
            self.tally.refused[answer.code()] += 1
        session.note(f"rollback: {brief(answer)}")

    async def look(self, session):
        """n itself: no update may have got lost."""
        self.tally.kinds["look"] += 1
        answer = await self.ask("POST", session.path + "/execute", {"code": "n"})
        if answer is None:
            session.before |= session.possible
            session.possible |= session.before  # see leave()
            return
        if answer.status != 200 or answer.json()["state"] != "kept":
            self.judge_trouble(session, answer, "look")
            session.note(f"look: {brief(answer)}")
            return
        body = answer.json()
        good = body["success"] and int(body["result"]) in session.possible
        self.violations.check("updates", good, f"{session.id}: n is {answer}, expected one of {sorted(session.possible)}{session.story()}")
        if good:
            session.before = {int(body["result"])}
            session.settle(int(body["result"]))
        session.note(f"look: {brief(answer)}")

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
        session.note(f"disconnect after {cut} of {len(data)} bytes")

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
            for _ in range(answers.count(None)):
                session.leave()
            session.note(f"crowd: {[brief(one) for one in answers]}")
            return
        expected = [set(range(n + 1, n + 1 + len(values))) for n in session.possible]
        self.violations.check("updates", set(values) in expected and len(set(values)) == len(values),
                              f"{session.id}: a crowd made n {sorted(values)}, from {sorted(session.possible)}{session.story()}")  # fmt: skip
        if values:
            session.before = {max(values) - 1}
            session.settle(max(values))
        session.note(f"crowd made {sorted(values)}")

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
        actions = [self.execute, self.look, self.disconnect, self.crowd, self.read_slowly, self.interrupt, self.roll_back, self.strike]
        await self.random.choices(actions, [70, 15, 6, 3, 3, 4, 8, 5])[0](session)
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
