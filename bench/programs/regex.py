# SPDX-License-Identifier: Apache-2.0
"""re: search, groups, substitution over a log-like text."""

import re


def run():
    lines = [
        f"2024-01-{number % 28 + 1:02d} 10:{number % 60:02d} host{number % 13} GET /item/{number * 37 % 1000}?q={'ab' * (number % 5)} {200 + number % 3}"
        for number in range(30000)
    ]
    text = "\n".join(lines)
    line = re.compile(r"^(\d{4})-(\d\d)-(\d\d) (\d\d:\d\d) (\w+) (GET|POST) /item/(\d+)\?q=((?:ab)*) (\d{3})$", re.M)
    hits = sum(int(found[7]) for found in line.finditer(text) if found[9] == "200")
    words = len(re.findall(r"\b[a-z]+\d+\b", text))
    changed = re.sub(r"host(\d+)", lambda found: f"server-{int(found[1]):03d}", text)
    numbers = sum(map(int, re.findall(r"\d+$", changed, re.M)))
    return hits, words, len(changed), numbers
