# SPDX-License-Identifier: Apache-2.0
"""The servers of this suite. Each is started when the first of its attacks runs."""

import os
import tempfile

from stage import Stage
from support import BUILD

#: Small limits: an attack reaches them soon. Its own time is its own affair; what has no other is meant to end by itself.
LIMITS = {"MEMORY_LIMIT": "96Mi", "EXECUTION_TIMEOUT": "30", "MAX_TIMEOUT": "30", "GRACE": "1", "MAX_OUTPUT": "256Ki", "MAX_RESULT": "64Ki", "MAX_SESSIONS": "40"}


class GuestStage(Stage):
    """Hostile Python in the real sandbox."""

    def __init__(self):
        super().__init__({**LIMITS, "MAX_CODE_LENGTH": "12Mi", "MAX_BODY": "32Mi"})


class HttpStage(Stage):
    """Hostile clients: everything that waits for a client is short here."""

    def __init__(self):
        super().__init__({**LIMITS, "MAX_BODY": "4Mi", "IDLE_TIMEOUT": "2", "HEAD_TIMEOUT": "3", "BODY_TIMEOUT": "1.5", "MAX_CONNECTIONS": "300", "QUEUE_MAX": "16", "STORED_OUTPUT": "1Mi"})


class NativeStage(Stage):
    """Workers that have been taken over: src/roles/prober.c in the place of the guest."""

    sandbox = "codemode-prober"

    def __init__(self):
        super().__init__({**LIMITS, "CODEMODE_SANDBOX": self.place()})

    def place(self):
        path = BUILD / "codemode-prober"
        assert path.exists(), f"{path} is missing: build first"
        return str(path)

    def neighbour_begins(self, session):
        pass

    def beat(self, number):
        return f"word 0 {number}\nload @0", str(number)

    def warm_up(self):
        for _ in range(3):
            session = self.server.create()
            session.ok("flood 33 id 100000 10")
            session.delete()


class LooseStage(NativeStage):
    """The same without the jail: what the gateway does about frames that the jail would not let out."""

    def place(self):
        self._links = tempfile.TemporaryDirectory(prefix="codemode-hostile-")
        path = os.path.join(self._links.name, "codemode-prober-loose")
        os.symlink(super().place(), path)
        return path

    def end(self):
        super().end()
        self._links.cleanup()


KINDS = {"guest": GuestStage, "http": HttpStage, "native": NativeStage, "loose": LooseStage}
