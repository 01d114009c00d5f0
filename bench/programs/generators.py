# SPDX-License-Identifier: Apache-2.0
"""Generators, comprehensions and itertools."""

import itertools


def primes():
    found = {}
    for number in itertools.count(2):
        factor = found.pop(number, None)
        if factor is None:
            yield number
            found[number * number] = number
        else:
            step = number + factor
            while step in found:
                step += factor
            found[step] = factor


def tree(depth):
    if depth:
        yield from tree(depth - 1)
        yield depth
        yield from tree(depth - 1)


def run():
    pairs = sum(a * b for a, b in zip(itertools.cycle((1, -1)), itertools.islice(primes(), 40000)))
    nodes = sum(tree(16))
    table = [[row * column for column in range(300)] for row in range(300)]
    flat = sum(value for row in table for value in row if value % 3)
    grouped = {key: len(list(group)) for key, group in itertools.groupby(range(20000), lambda number: number // 1000)}
    return pairs, nodes, flat, len(grouped)
