# SPDX-License-Identifier: Apache-2.0
"""Correlation ids: one per request, in the logs of both sides, and the mark by which a repeated request is known."""

from __future__ import annotations

import re
import secrets
import time

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_USABLE = re.compile(r"[!-~]{1,128}\Z")


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text or "0"


def generate_correlation_id(prefix: str = "cm") -> str:
    """``<prefix>-<last 6 base-36 digits of the time in ms>-<4 random ones>``, for example ``cm-q1x9dk-7f3a``."""
    stamp = _base36(time.time_ns() // 1_000_000)[-6:].rjust(6, "0")
    return f"{prefix}-{stamp}-{''.join(secrets.choice(_DIGITS) for _ in range(4))}"


def check_correlation_id(value: str) -> str:
    """The id, or a ValueError: 1 to 128 printable ASCII characters without spaces."""
    if not _USABLE.match(value):
        raise ValueError(f"correlation id {value!r}: 1 to 128 printable ASCII characters without spaces")
    return value
