"""Reductions of one window, given as a list of (timestamp, value). Source: Prometheus 3.14 promql/functions.go."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from tests.reference.compensated import add, mean
from tests.reference.lookback import Samples


def _total(points: Samples) -> float:
    total = lost = 0.0
    for _, value in points:
        total, lost = add(value, total, lost)
    return total if math.isinf(total) else total + lost


def _best(points: Samples, better: Callable[[float, float], bool]) -> tuple[int, float]:
    best = points[0]
    for point in points:
        if better(point[1], best[1]) or math.isnan(best[1]):
            best = point
    return best


def _variance(points: Samples) -> float:
    average = average_lost = aux = aux_lost = 0.0
    for count, (_, value) in enumerate(points, 1):
        delta = value - (average + average_lost)
        average, average_lost = add(delta / count, average, average_lost)
        aux, aux_lost = add(delta * (value - (average + average_lost)), aux, aux_lost)
    return (aux + aux_lost) / len(points)


def _root(value: float) -> float:
    return math.nan if value < 0 or math.isnan(value) else math.sqrt(value)


def _pairs(points: Samples) -> list[tuple[float, float]]:
    values = [v for _, v in points]
    return list(pairwise(values))


def _differs(a: float, b: float) -> bool:
    return a != b and not (math.isnan(a) and math.isnan(b))


def _step(points: Samples, per_second: bool) -> float | None:
    if len(points) < 2:
        return None
    (t1, v1), (t2, v2) = points[-2:]
    value = v2 if per_second and v2 < v1 else v2 - v1
    return value / ((t2 - t1) / 1000) if per_second else value


REDUCTIONS: dict[str, Callable[[Samples], float | None]] = {
    "COUNT": lambda p: float(len(p)),
    "SUM": _total,
    "AVG": lambda p: mean([v for _, v in p]),
    "MIN": lambda p: _best(p, lambda a, b: a < b)[1],
    "MAX": lambda p: _best(p, lambda a, b: a > b)[1],
    "FIRST": lambda p: p[0][1],
    "LAST": lambda p: p[-1][1],
    "PRESENT": lambda p: 1.0,
    "STDDEV": lambda p: _root(_variance(p)),
    "STDVAR": _variance,
    "CHANGES": lambda p: float(sum(_differs(a, b) for a, b in _pairs(p))),
    "RESETS": lambda p: float(sum(b < a for a, b in _pairs(p))),
    "IRATE": lambda p: _step(p, True),
    "IDELTA": lambda p: _step(p, False),
    "FIRST_TIME": lambda p: p[0][0] / 1000,
    "LAST_TIME": lambda p: p[-1][0] / 1000,
    "MIN_TIME": lambda p: _best(p, lambda a, b: a <= b)[0] / 1000,
    "MAX_TIME": lambda p: _best(p, lambda a, b: a >= b)[0] / 1000,
}
"""Reduction by name of its operation; windows are not empty."""


def anchored(samples: Samples, end: int, range_ms: int, lookback_ms: int) -> list[tuple[int, float]]:
    """Return the window from the newest sample at or before its start on; none if it has no sample itself."""
    start = end - range_ms
    inside = [s for s in samples if start < s[0] <= end]
    before = [s for s in samples if start - lookback_ms < s[0] <= start]
    return [*before[-1:], *inside] if inside else []


def quantile(q: float, values: Sequence[float]) -> float:
    """Return a quantile, interpolated between ranks; NaN are the smallest values."""
    if not values or math.isnan(q):
        return math.nan
    if q < 0 or q > 1:
        return math.copysign(math.inf, q)
    ordered = [v for v in values if math.isnan(v)] + sorted(v for v in values if not math.isnan(v))
    rank = q * (len(ordered) - 1)
    low = max(0, math.floor(rank))
    high = min(len(ordered) - 1, low + 1)
    weight = rank - math.floor(rank)
    return ordered[low] * (1 - weight) + ordered[high] * weight


def median_deviation(values: Sequence[float]) -> float:
    """Return the median of the absolute deviations from the median."""
    if any(map(math.isnan, values)):
        return math.nan
    median = quantile(0.5, values)
    return quantile(0.5, [abs(v - median) for v in values])
