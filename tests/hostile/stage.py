# SPDX-License-Identifier: Apache-2.0
"""The server under attack, its neighbour session, its secrets, and what must hold after every attack."""

import os
import pathlib
import secrets
import tempfile
import threading
import time

from support import PATIENCE, Sidecar, eventually, resident_bytes, uses_asan

#: How much larger the gateway may be than before the first attack: heaps keep some of what they have had.
SLACK_BYTES = 12 << 20
#: A neighbour's call does next to nothing. On a machine that has other things to do as well it takes this at most.
PROMPT_SECONDS = 2.0
#: Two as set, and as many as are started at once.
SPARES_MAX = 2 + 16
#: The gateway's, for each: the channel and the process.
DESCRIPTORS_OF_A_SPARE = 2
BEAT_PAUSE = 0.02
BACK_WITHIN = 20.0


class Listening(Sidecar):
    """Remembers all that the server says to an attacker."""

    def __init__(self, settings):
        self.heard = []
        self.ears = threading.local()
        super().__init__(settings)

    def request(self, method, path, **kwargs):
        answer = super().request(method, path, **kwargs)
        self.hear(answer.content)
        return answer

    def raw(self, data, **kwargs):
        received = super().raw(data, **kwargs)
        self.hear(received)
        return received

    def hear(self, data):
        if not getattr(self.ears, "covered", False):
            self.heard.append(data)


class Machine:
    """How long this machine has kept us from running in all: what it takes from us, it takes from the gateway as well."""

    PAUSE = 0.01

    def __init__(self):
        self.kept = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            started = time.monotonic()
            time.sleep(self.PAUSE)
            self.kept += time.monotonic() - started - self.PAUSE

    def clock(self):
        """Seconds in which we ran, or could have."""
        return time.monotonic() - self.kept

    def stop(self):
        self._stop.set()
        self._thread.join()


class Heartbeat:
    """The neighbour: one session that counts, again and again, while others are under attack."""

    def __init__(self, stage):
        self.stage = stage
        self.session = stage.server.create()
        self.beats, self.worst, self.error = 0, 0.0, None
        self._stop = threading.Event()
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._first.wait(60 * PATIENCE), "the neighbour does not answer"

    def _run(self):
        self.stage.server.ears.covered = True  # what it hears of itself is its own
        self.stage.neighbour_begins(self.session)
        while not self._stop.wait(BEAT_PAUSE):
            try:
                self._beat()
            except Exception as error:  # handed to the test that is running
                self.error = self.error or error
                return
            self._first.set()
        self.stage.server.hang_up()

    def _beat(self):
        started = self.stage.machine.clock()
        code, expected = self.stage.beat(self.beats + 1)
        got = self.session.value(code)
        self.worst = max(self.worst, self.stage.machine.clock() - started)
        assert got == expected, f"beat {self.beats + 1} answered {got}"
        self.beats += 1

    def check(self):
        """It was right and prompt all the time, and it is still at work."""
        seen = self.beats
        eventually(lambda: self.error or self.beats >= seen + 2, "the neighbour's heart beats", BACK_WITHIN, 0.005)
        assert self.error is None, f"the neighbour was harmed: {self.error!r}"
        worst, self.worst = self.worst, 0.0
        assert worst < PROMPT_SECONDS * PATIENCE, f"the neighbour waited {worst:.2f} s"

    def stop(self):
        self._stop.set()
        self._thread.join(60)


class Stage:
    """One server for all attacks of a kind. `settings` are on top of the test suite's usual ones."""

    def __init__(self, settings):
        self._folder = tempfile.TemporaryDirectory(prefix="codemode-hostile-")
        self.host_file = os.path.join(self._folder.name, "secret.txt")
        self.canary_of_neighbour = "neighbour-canary-" + secrets.token_hex(16)
        self.canary_of_file = "file-canary-" + secrets.token_hex(16)
        self.canary_of_environment = "environment-canary-" + secrets.token_hex(16)
        pathlib.Path(self.host_file).write_text(self.canary_of_file + "\n")
        self.server = Listening({**settings, "SECRET_OF_THE_GATEWAY": self.canary_of_environment})
        self.pid = self.server.process.pid
        self.machine = Machine()
        self.heart = Heartbeat(self)
        self._log_seen = 0
        self.warm_up()
        self._remember()

    # What a stage of native code says differently.

    def neighbour_begins(self, session):
        session.ok(f"x, canary = 0, {self.canary_of_neighbour!r}")

    def beat(self, number):
        return "x += 1\nx", str(number)

    def warm_up(self):
        for _ in range(3):
            session = self.server.create()
            session.ok("'x' * 10000")
            session.run("print('y' * 300_000)\n1/0")
            session.delete()

    def fill_in(self, code):
        return code.replace("HOST_FILE", self.host_file).replace("PORT", str(self.server.port))

    # --- what must hold after every attack

    def _counts(self):
        """Processes and descriptors without those of spare workers: a worker that was asked for by a session which
        ended meanwhile becomes one spare more, until the next session takes it."""
        spares = int(self.server.metric("codemode_spare_workers"))
        assert spares <= SPARES_MAX, f"{spares} spare workers"
        return len(self.server.children()) - spares, len(self.server.descriptors()) - DESCRIPTORS_OF_A_SPARE * spares

    def _remember(self):
        seen = []

        def steady():
            seen.append(self._counts())
            return len(seen) > 10 and len(set(seen[-10:])) == 1

        eventually(steady, "the server is at rest", 30)
        self.children, self.descriptors = seen[-1]
        self.resident = resident_bytes(self.pid)

    def check_alive(self):
        assert self.server.process.poll() is None, f"the gateway died:\n{self.server.log_text()[-4000:]}"
        started = self.machine.clock()
        assert self.server.request("GET", "/health").status_code == 200
        assert self.machine.clock() - started < PROMPT_SECONDS * PATIENCE

    def check_secrets(self):
        log = self.server.log_text()
        heard = self.server.heard + [log[self._log_seen :].encode(), self.server.request("GET", "/metrics").content]
        self.server.heard, self._log_seen = [], len(log)
        with open("/etc/passwd", "rb") as file:
            secrets_known = [file.readline().strip()]
        secrets_known += [s.encode() for s in (self.canary_of_neighbour, self.canary_of_file, self.canary_of_environment)]
        for text in heard:
            for secret in secrets_known:
                assert secret not in text, f"{secret!r} came out: {text[:500]!r}"
        assert pathlib.Path(self.host_file).read_text() == self.canary_of_file + "\n"

    def _too_much(self):
        children, descriptors = self._counts()
        found = []
        if children > self.children:
            found.append(f"{children} processes besides spare ones, {self.children} at rest")
        if descriptors > self.descriptors + 1:  # this thread's own connection may have been closed and opened
            found.append(f"{descriptors} descriptors, {self.descriptors} at rest")
        grown = resident_bytes(self.pid) - self.resident
        if grown > SLACK_BYTES and not uses_asan(self.pid):  # a sanitizer keeps what was freed
            found.append(f"{grown >> 20} MiB more than at rest")
        return found

    def check_resources(self):
        eventually(lambda: not self._too_much() or None, "processes, descriptors and memory are back", BACK_WITHIN)

    def check_sessions(self):
        left = [name for name in self.server.sessions() if name != self.heart.session.id]
        for name in left:
            self.server.request("DELETE", "/session/" + name)

    def check(self):
        self.check_alive()
        self.heart.check()
        self.check_secrets()
        self.check_sessions()
        try:
            self.check_resources()
        except AssertionError as error:
            raise AssertionError(f"{error}: {self._too_much()}") from None

    def counted(self, before, moves):
        """The counters have moved since `before` by what `moves` says, and settle there."""

        def total(samples, name):
            return sum(value for key, value in samples.items() if key == name or key.split("{")[0] == name)

        def moved():
            now = self.server.metrics()
            return {name: total(now, name) - total(before, name) for name in moves}

        eventually(lambda: moved() == moves, f"the counters move by {moves}, not {moved()}", BACK_WITHIN)

    def end(self):
        self.heart.stop()
        self.machine.stop()
        self.heart.session.delete()
        try:
            self.check_alive()
            eventually(lambda: self.server.metric("wasm_sessions_active") == 0, "no session is left")
            eventually(lambda: self._counts()[0] < self.children, "the neighbour's process has ended, and no other is left")
        finally:
            status = self.server.stop()
            self._folder.cleanup()
        assert status == 0, f"the gateway ended with status {status}"
