#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a program on a kernel that lacks some system calls: without.py NUMBER=ERRNO... -- PROGRAM ARGUMENT..."""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2
LOAD_NUMBER, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


def instruction(code, yes, no, value):
    return struct.pack("HBBI", code, yes, no, value)


def main():
    split = sys.argv.index("--")
    program = instruction(LOAD_NUMBER, 0, 0, 0)
    for word in sys.argv[1:split]:
        number, errno = map(int, word.split("="))
        program += instruction(IF_EQUAL, 0, 1, number) + instruction(RETURN, 0, 0, ERRNO | errno)
    program += instruction(RETURN, 0, 0, ALLOW)
    code = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, FILTER, header, 0, 0):
        sys.exit(f"without.py: {os.strerror(ctypes.get_errno())}")
    os.execv(sys.argv[split + 1], sys.argv[split + 1 :])


if __name__ == "__main__":
    main()
