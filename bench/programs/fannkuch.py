# SPDX-License-Identifier: Apache-2.0
"""Integer lists, slices and swaps: the most flips over all permutations of nine."""


def run():
    size = 9
    perm, count = list(range(size)), [0] * size
    best = checksum = rounds = 0
    left = size
    while True:
        while left != 1:
            count[left - 1] = left
            left -= 1
        flips, row = 0, perm[:]
        first = row[0]
        while first:
            row[: first + 1] = row[first::-1]
            flips += 1
            first = row[0]
        best = max(best, flips)
        checksum += flips if rounds % 2 == 0 else -flips
        rounds += 1
        while True:
            if left == size:
                return best, checksum, rounds
            perm.insert(left, perm.pop(0))
            count[left] -= 1
            if count[left] > 0:
                break
            left += 1
