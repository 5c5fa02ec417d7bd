"""Lines and smoothing through one window. Source: Prometheus 3.14 promql/functions.go."""

from __future__ import annotations

import math

from tests.reference.compensated import add, divide
from tests.reference.lookback import Samples


def line(points: Samples, origin: int) -> tuple[float, float]:
    """Return (slope per second, value at `origin`)."""
    first = points[0][1]
    if not any(v != first for _, v in points[1:]):
        return (math.nan, math.nan) if math.isinf(first) else (0.0, first)
    sums = []
    for term in (lambda x, y: x, lambda x, y: y, lambda x, y: x * y, lambda x, y: x * x):
        total = lost = 0.0
        for t, y in points:
            total, lost = add(term((t - origin) / 1e3, y), total, lost)
        sums.append(total + lost)
    x, y, xy, xx = sums
    n = float(len(points))
    slope = divide(xy - x * y / n, xx - x * x / n)
    return slope, y / n - slope * x / n


def smooth(points: Samples, smoothing: float, factor: float) -> float:
    """Return the last value of double exponential smoothing."""
    values = [v for _, v in points]
    before, level, trend = 0.0, values[0], values[1] - values[0]
    for i, value in enumerate(values[1:]):
        if i:
            trend = factor * (level - before) + (1 - factor) * trend
        before, level = level, smoothing * value + (1 - smoothing) * (level + trend)
    return level
