"""Rates of one window, given as a list of (timestamp, value). Source: Prometheus 3.14 promql/functions.go."""

from __future__ import annotations

from itertools import pairwise

from tests.reference.compensated import divide
from tests.reference.lookback import Samples


def window(samples: Samples, end: int, range_ms: int) -> list[tuple[int, float]]:
    """Return the samples in (end - range, end]."""
    return [s for s in samples if end - range_ms < s[0] <= end]


def seconds(duration_ms: int) -> float:
    """Return a duration in seconds, as Go rounds it."""
    return duration_ms // 1000 + duration_ms % 1000 * 1_000_000 / 1e9


def extrapolated(points: Samples, end: int, range_ms: int, *, counter: bool, per_second: bool) -> float | None:
    """Return `rate`, `increase` or `delta`."""
    if len(points) < 2:
        return None
    values = [v for _, v in points]
    delta = values[-1] - values[0]
    if counter:
        for previous, value in pairwise(values):
            if value < previous:
                delta += previous
    first_at, last_at = points[0][0], points[-1][0]
    to_start, to_end = (first_at - (end - range_ms)) / 1000, (end - last_at) / 1000
    sampled = (last_at - first_at) / 1000
    average = sampled / (len(points) - 1)
    if to_start >= average * 1.1:
        to_start = average / 2
    if counter and delta > 0 and values[0] >= 0:
        to_start = min(to_start, sampled * divide(values[0], delta))
    if to_end >= average * 1.1:
        to_end = average / 2
    factor = (sampled + to_start + to_end) / sampled
    return delta * (factor / seconds(range_ms) if per_second else factor)


def _between(p1: tuple[int, float], p2: tuple[int, float], at: int, counter: bool) -> float:
    y1 = 0.0 if counter and p2[1] < p1[1] else p1[1]
    return y1 + (p2[1] - y1) * float(at - p1[0]) / float(p2[0] - p1[0])


def extended(
    samples: Samples, end: int, range_ms: int, lookback_ms: int, *, counter: bool, per_second: bool, smoothed: bool
) -> float | None:
    """Return `rate`, `increase` or `delta` of an anchored or smoothed range."""
    start = end - range_ms
    points = [s for s in samples if start - lookback_ms < s[0] <= end + (lookback_ms if smoothed else 0)]
    if not points:
        return None
    # Neither search looks at the last point.
    first = max(0, next((i for i, p in enumerate(points[:-1]) if p[0] > start), len(points) - 1) - 1)
    last = len(points) - 1
    if smoothed:
        last = next((i for i, p in enumerate(points[:-1]) if p[0] >= end), last)
    if points[last][0] <= start or (smoothed and points[first][0] > end):
        return None
    left, right = points[first][1], points[last][1]
    if smoothed and points[first][0] < start:
        left = _between(points[first], points[first + 1], start, counter)
    if smoothed and last > 0 and points[last][0] > end:
        right = _between(points[last - 1], points[last], end, counter)
    result = right - left
    if counter:
        inside = points[first + (points[first][0] <= start) : last + 1 - (points[last][0] >= end)]
        path = [left, *(v for _, v in inside), right]
        correction = 0.0
        for previous, value in pairwise(path):
            if value < previous:
                correction += previous
        result += correction
    return result / seconds(range_ms) if per_second else result


def measure(samples: Samples, ends: list[int], range_ms: int) -> tuple[int, int, int, int]:
    """Return samples over all windows, those new at their step, those of the longest window, and of the last."""
    found = [window(samples, end, range_ms) for end in ends]
    fresh, seen = 0, None
    for points in found:
        fresh += sum(1 for t, _ in points if seen is None or t > seen)
        if points:
            seen = points[-1][0]
    sizes = [len(points) for points in found]
    return sum(sizes), fresh, max(sizes, default=0), sizes[-1] if sizes else 0


def bordered(samples: Samples, start: int, end: int, smoothed: bool) -> list[tuple[int, float]]:
    """Return the samples of an anchored or smoothed window and its borders; none if none is after the start."""
    if not samples:
        return []
    last = next((i for i, s in enumerate(samples[:-1]) if smoothed and s[0] >= end), len(samples) - 1)
    first = max((i for i, s in enumerate(samples[:-1]) if s[0] <= start), default=0)
    if samples[last][0] <= start:
        return []
    left, right = samples[first][1], samples[last][1]
    if smoothed and samples[first][0] < start:
        left = _between(samples[first], samples[first + 1], start, False)
    if smoothed and last > 0 and samples[last][0] > end:
        right = _between(samples[last - 1], samples[last], end, False)
    inside = [s for s in samples[first : last + 1] if start < s[0] < end]
    return [(start, left), *inside, (end, right)]
