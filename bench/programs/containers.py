# SPDX-License-Identifier: Apache-2.0
"""dict, list, set, tuple and Counter at work."""

from collections import Counter, defaultdict, deque


def run():
    groups, seen, window = defaultdict(list), set(), deque(maxlen=50)
    value, total = 12345, 0
    for number in range(250000):
        value = (value * 1103515245 + 12345) & 0x7FFFFFFF
        key = value % 997
        groups[key].append(number)
        seen.add((key, number % 10))
        window.append(key)
        if number % 100 == 0:
            total += sum(window)
    lengths = {key: len(group) for key, group in groups.items()}
    common = Counter(lengths.values()).most_common(3)
    merged = {**lengths, **{-key: value for key, value in lengths.items()}}
    return len(seen), total, common[0], len(merged), max(lengths, key=lambda key: (lengths[key], key))
