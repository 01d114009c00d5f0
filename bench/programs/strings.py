# SPDX-License-Identifier: Apache-2.0
"""Building, splitting, formatting and searching text."""


def run():
    parts = []
    for number in range(200000):
        word = f"{number:05d}-{number * 7919 % 10007:x}"
        parts.append(word.upper() if number % 3 else word[::-1])
    text = " ".join(parts)
    words = text.split()
    total = sum(word.count("A") + word.find("F") for word in words)
    joined = ""
    for word in words[:60000]:
        joined += word.strip("0").replace("-", "_").title()
    table = str.maketrans("ABCDEF", "uvwxyz")
    return total, len(joined), joined.translate(table)[-20:], "9999" in text
