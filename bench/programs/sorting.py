# SPDX-License-Identifier: Apache-2.0
"""sort with keys, bisect and heapq."""

import bisect
import heapq


def run():
    value, numbers = 42, []
    for _ in range(80000):
        value = (value * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        numbers.append(value >> 40)
    rows = [(number % 100, str(number), -number) for number in numbers]
    rows.sort()
    rows.sort(key=lambda row: (row[2] % 10, row[1]))
    ordered = sorted(numbers, reverse=True)
    heap, kept = [], []
    for number in numbers:
        heapq.heappush(heap, number)
        if len(heap) > 500:
            heapq.heappop(heap)
    for number in numbers[:16000]:
        bisect.insort(kept, number)
    return rows[1000], ordered[100], heap[0], kept[8000]
