# SPDX-License-Identifier: Apache-2.0
"""decimal: digits of pi and money."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext


def pi(digits):
    with localcontext() as context:
        context.prec = digits + 5
        last, term, total, n, na, d, da = Decimal(0), Decimal(3), Decimal(3), 1, 0, 0, 24
        while total != last:
            last = total
            n, na = n + na, na + 8
            d, da = d + da, da + 32
            term = term * n / d
            total += term
    return total


def run():
    digits = str(pi(900))
    cent, account = Decimal("0.01"), Decimal("1000.00")
    for number in range(250000):
        account = (account * Decimal("1.00006") - Decimal(number % 5) / 7).quantize(cent, ROUND_HALF_EVEN)
    return digits[500:510], str(account)
