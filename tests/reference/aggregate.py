"""Aggregations of one group's values at one step. Source: Prometheus 3.14 promql/engine.go."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.reference.compensated import add


def total(values: Sequence[float]) -> float:
    """Return the compensated sum."""
    result, lost = values[0], 0.0
    for value in values[1:]:
        result, lost = add(value, result, lost)
    return result + lost


def extreme(values: Sequence[float], *, smallest: bool) -> float:
    """Return the smallest or largest number, NaN if there is none; the first of equal ones."""
    kept = values[0]
    for value in values[1:]:
        if math.isnan(kept) or (value < kept if smallest else value > kept):
            kept = value
    return kept


def variance(values: Sequence[float]) -> float:
    """Return the population variance, updated value by value."""
    average = values[0]
    result = 0.0 if math.isfinite(average) else math.nan
    for count, value in enumerate(values[1:], 2):
        delta = value - average
        average += delta / count
        result += delta * (value - average)
    return result / len(values)
