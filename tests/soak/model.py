# SPDX-License-Identifier: Apache-2.0
"""What a session must hold, as far as its client can know.

Every cell adds one to `n` in its session. An answer fixes the value; a request whose answer the client threw away
leaves two possibilities; a rollback goes back to where the execution began.
"""

import collections
import time

#: Time for a request that was left to be read by the server, loaded as it is.
LATE_SECONDS = 5.0


class Violations:
    """Broken promises, by the promise. The first few of each are kept in words."""

    PROMISES = {
        "answers": "every request got exactly one answer",
        "updates": "no update was lost, and none came twice",
        "losses": "no session was lost but those that we killed, and each loss was reported",
        "refusals": "every refusal was one that the load explains, with Retry-After where it may be tried again",
        "processes": "no process was left over",
        "descriptors": "no descriptor was left open",
        "sessions": "no session was left over",
        "memory": "the gateway's memory stayed flat",
        "metrics": "the metrics add up",
        "log": "the log reports no fault of ours",
        "end": "the server ended in order",
    }

    def __init__(self):
        self.words = collections.defaultdict(list)
        self.counts = collections.Counter()

    def add(self, promise, text):
        assert promise in self.PROMISES, promise
        self.counts[promise] += 1
        if len(self.words[promise]) < 5:
            self.words[promise].append(text)

    def check(self, promise, good, text):
        if not good:
            self.add(promise, text)


class Tally:
    """What the clients did and saw."""

    def __init__(self):
        self.sent = self.received = self.abandoned = 0
        self.created = self.executed = self.rolled_back = self.lost = self.undone = 0
        self.asked_back = self.taken_back = self.stored = self.evicted = self.interrupted = 0
        self.kills = collections.Counter()
        self.kinds = collections.Counter()
        self.refused = collections.Counter()
        self.wild_kills = 0  # of processes that may have belonged to any session


class Counted:
    """The expected state of one session."""

    def __init__(self, session_id):
        self.id = session_id
        self.path = f"/session/{session_id}"
        self.possible = {0}  # values that n may have now
        self.before = {0}  # ... and may have had before the last execution
        self.blows = 0  # what was done to its process, or will be by its own cell, and has shown no effect yet
        self.echo = False  # the last answer that told of trouble was a rollback
        self.begun = False  # an execution after the first has answered: an undone one was not the first, which makes n
        self.gone = False
        self.late, self.late_until = 0, 0.0  # requests that were left, and may still arrive behind later ones
        self.history = collections.deque(maxlen=30)  # what was done and answered, and what was expected then

    def note(self, text):
        self.history.append(f"{time.time():.3f} {text} -> {sorted(self.possible)}, before {sorted(self.before)}, late {self.late}, blows {self.blows}")

    def story(self):
        return "".join(f"\n#     {line}" for line in self.history)

    def settle(self, value):
        """n is `value` now; what was left a moment ago may still add to it."""
        self.late = self.late if time.monotonic() < self.late_until else 0
        self.possible = set(range(value, value + self.late + 1))

    def leave(self):
        """A request was sent on a connection that is gone: another connection's may overtake it. Should the answer have
        been that the execution before is undone, nobody has read it."""
        self.forget_answer()
        self.possible |= self.before
        self.late, self.late_until = self.late + 1, time.monotonic() + LATE_SECONDS

    def forget_answer(self):
        """An execution was begun, and its answer will never be read: it may have run or not."""
        self.before |= self.possible
        self.possible = self.possible | {n + 1 for n in self.possible}

    def commit(self, value, violations, what):
        """An execution has answered with n's new value."""
        expected = {n + 1 for n in self.possible}
        good = value in expected
        violations.check("updates", good, f"{self.id}: {what} made n {value}, expected one of {sorted(expected)}{self.story()}")
        self.before, self.begun = {value - 1}, True
        self.settle(value)

    def assume(self):
        """An execution has run that could not tell the value."""
        self.before, self.begun = set(self.possible), True
        self.possible = {n + 1 for n in self.possible}

    def change_nothing(self):
        """An execution has run, and is one that can be undone, but n is as it was."""
        self.before = set(self.possible)

    def go_back(self):
        """The newest execution was undone on request; one that was left may have been it."""
        left = self.late and time.monotonic() < self.late_until
        self.possible = self.possible | self.before if left else set(self.before)
        self.before = set(self.possible)

    def undo(self):
        """The API says that the last answered execution is undone."""
        self.possible = self.possible | self.before
        self.gone = not self.begun
