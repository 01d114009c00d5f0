# SPDX-License-Identifier: Apache-2.0
"""Floating point in small objects: five bodies under gravity."""

import math


def energy(bodies):
    total = 0.0
    for index, (x, y, z, vx, vy, vz, mass) in enumerate(bodies):
        total += 0.5 * mass * (vx * vx + vy * vy + vz * vz)
        for x2, y2, z2, _, _, _, mass2 in bodies[index + 1 :]:
            total -= mass * mass2 / math.sqrt((x - x2) ** 2 + (y - y2) ** 2 + (z - z2) ** 2)
    return total


def advance(bodies, step):
    for index, a in enumerate(bodies):
        for b in bodies[index + 1 :]:
            dx, dy, dz = a[0] - b[0], a[1] - b[1], a[2] - b[2]
            square = dx * dx + dy * dy + dz * dz
            force = step / (square * math.sqrt(square))
            a[3] -= dx * b[6] * force
            a[4] -= dy * b[6] * force
            a[5] -= dz * b[6] * force
            b[3] += dx * a[6] * force
            b[4] += dy * a[6] * force
            b[5] += dz * a[6] * force
    for body in bodies:
        body[0] += step * body[3]
        body[1] += step * body[4]
        body[2] += step * body[5]


def run():
    bodies = [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 40.0]]
    for number in range(1, 5):
        far = 1.5 * number
        bodies.append([far, 0.1 * number, 0.02 * far, 0.0, math.sqrt(40.0 / far), 0.05 * number, 0.01 * number])
    for _ in range(32000):
        advance(bodies, 0.001)
    return round(energy(bodies), 9)
