"""Compensated sums on Python floats. Source: Prometheus 3.14 util/kahansum."""

from __future__ import annotations

import math
from collections.abc import Sequence


def add(term: float, total: float, lost: float) -> tuple[float, float]:
    """Return (total, lost) after adding a term."""
    new = total + term
    if math.isinf(new):
        return new, 0.0
    if abs(total) >= abs(term):
        return new, lost + ((total - new) + term)
    return new, lost + ((term - new) + total)


def mean(values: Sequence[float]) -> float:
    """Return the mean, incremental from the value on that makes the sum overflow."""
    total, lost, average, incremental = values[0], 0.0, 0.0, False
    for count, value in enumerate(values[1:], 2):
        if not incremental:
            new = add(value, total, lost)
            if not math.isinf(new[0]):
                total, lost = new
                continue
            incremental = True
            average, lost = total / (count - 1), lost / (count - 1)
        q = (count - 1) / count
        average, lost = add(value / count, q * average, q * lost)
    return average + lost if incremental else total / len(values) + lost / len(values)


def divide(a: float, b: float) -> float:
    """Divide as IEEE 754 has it."""
    try:
        return a / b
    except ZeroDivisionError:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
