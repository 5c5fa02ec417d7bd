"""Bounds of native-histogram buckets in decimals, and the two functions between them by the standard library."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

CUSTOM = -53
LARGEST = 1.7976931348623157e308


def exact_bound(index: int, schema: int) -> float:
    """Return the upper bound of an exponential bucket, correctly rounded; the last finite one is the largest number."""
    with localcontext() as context:
        context.prec = 50
        exponent = Decimal(index) / Decimal(2**schema) if schema >= 0 else Decimal(index * 2**-schema)
        if exponent == 1024:
            return LARGEST
        if exponent > 1024:
            return math.inf
        return float(Decimal(2) ** exponent)


def bound(index: int, schema: int, custom: tuple[float, ...]) -> float:
    """Return the upper bound of a positive bucket."""
    if schema != CUSTOM:
        return exact_bound(index, schema)
    if index < 0:
        return -math.inf
    return custom[index] if index < len(custom) else math.inf


def share_below(value: float, lower: float, upper: float, linear: bool) -> float:
    """Return which part of a bucket lies below a value inside it."""
    if linear:
        return (value - lower) / (upper - lower)
    a, b, v = (math.log2(abs(x)) for x in (lower, upper, value))
    return (v - a) / (b - a) if value > 0 else 1 - (v - b) / (a - b)
