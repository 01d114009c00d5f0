# SPDX-License-Identifier: Apache-2.0
"""Method calls, properties, inheritance and dunder methods."""


class Vector:
    __slots__ = ("x", "y")

    def __init__(self, x, y):
        self.x = x
        self.y = y

    def __add__(self, other):
        return type(self)(self.x + other.x, self.y + other.y)

    def __eq__(self, other):
        return self.x == other.x and self.y == other.y

    @property
    def size(self):
        return abs(self.x) + abs(self.y)


class Counted(Vector):
    made = 0

    def __init__(self, x, y):
        super().__init__(x, y)
        Counted.made += 1


class Visitor:
    def __init__(self):
        self.total = 0

    def visit(self, node):
        return getattr(self, "visit_" + node[0])(node)

    def visit_add(self, node):
        return self.visit(node[1]) + self.visit(node[2])

    def visit_number(self, node):
        self.total += 1
        return node[1]


def run():
    Counted.made = 0
    place, one = Counted(0, 0), Counted(1, -1)
    for _ in range(240000):
        place = place + one
        if place.size < 0 or place == one and place.x > 1:
            raise ValueError("never")
    node = ("number", 1)
    for _ in range(15):
        node = ("add", node, node)
    visitor = Visitor()
    return place.x, Counted.made, visitor.visit(node), visitor.total
