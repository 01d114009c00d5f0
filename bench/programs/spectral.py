# SPDX-License-Identifier: Apache-2.0
"""Spectral norm: function calls and float arithmetic in nested loops."""

import math


def element(row, column):
    both = row + column
    return 1.0 / (both * (both + 1) // 2 + row + 1)


def times(vector):
    size = range(len(vector))
    return [sum(element(row, column) * vector[column] for column in size) for row in size]


def times_transposed(vector):
    size = range(len(vector))
    return [sum(element(column, row) * vector[column] for column in size) for row in size]


def run():
    u = [1.0] * 160
    for _ in range(10):
        v = times_transposed(times(u))
        u = times_transposed(times(v))
    top = sum(a * b for a, b in zip(u, v))
    bottom = sum(b * b for b in v)
    return round(math.sqrt(top / bottom), 9)
