# SPDX-License-Identifier: Apache-2.0
"""The plan of failing calls that a test shares with a running server (shim.c)."""

import errno
import mmap
import pathlib
import re
import struct
import tempfile

HERE = pathlib.Path(__file__).parent
CALLS = re.findall(r"^FAULT\((\w+)\)", (HERE / "calls.def").read_text(), re.MULTILINE)
RULE = struct.Struct("=IIiIII")  # from, count, error, callers, calls, failed: struct rule of shim.c

#: Whose calls.
PROGRAM, HTTP_LIBRARY, LOOP_LIBRARY = 1, 2, 4


class Plan:
    """Rules in a file that the server has mapped: what is written here holds from its next call on."""

    def __init__(self):
        self.file = tempfile.NamedTemporaryFile(prefix="codemode-fault-")
        self.file.truncate(RULE.size * len(CALLS))
        self.memory = mmap.mmap(self.file.fileno(), RULE.size * len(CALLS))

    def close(self):
        self.memory.close()
        self.file.close()

    def settings(self, library):
        """What a server has to find in its environment."""
        return {"LD_PRELOAD": str(library), "CM_FAULT_FILE": self.file.name}

    def fail(self, call, error, first=1, count=1, callers=PROGRAM):
        """Lets calls number `first` to `first + count - 1`, counted from now, fail with the errno of this name."""
        # The set of callers is written last but for the counters: without it a rule does not count.
        self.clear(call)
        RULE.pack_into(self.memory, self._at(call), first, count, getattr(errno, error), callers, 0, 0)

    def watch(self, call, callers=PROGRAM):
        """Counts calls and lets none fail."""
        self.clear(call)
        RULE.pack_into(self.memory, self._at(call), 1, 0, 0, callers, 0, 0)

    def clear(self, call):
        """Ends the rule; returns how many calls it has seen and how many of them failed."""
        seen, failed = RULE.unpack_from(self.memory, self._at(call))[4:]
        RULE.pack_into(self.memory, self._at(call), 0, 0, 0, 0, 0, 0)
        return seen, failed

    def failed(self, call):
        return RULE.unpack_from(self.memory, self._at(call))[5]

    @staticmethod
    def _at(call):
        return RULE.size * CALLS.index(call)
