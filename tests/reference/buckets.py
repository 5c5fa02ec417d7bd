"""One classic histogram, a list of (upper bound, cumulative count). Source: Prometheus 3.14 promql/quantile.go."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from tests.reference.compensated import divide

Buckets = Sequence[tuple[float, float]]


def _coalesced(buckets: Buckets) -> list[list[float]]:
    out: list[list[float]] = []
    for bound, count in sorted(buckets, key=lambda b: b[0]):
        if out and out[-1][0] == bound:
            out[-1][1] += count
        else:
            out.append([bound, count])
    return out


def _nearly_equal(a: float, b: float) -> bool:
    if a == b or (math.isnan(a) and math.isnan(b)):
        return True
    smallest = 2.0**-1022
    total = abs(a) + abs(b)
    if a == 0 or b == 0 or total < smallest:
        return abs(a - b) < 1e-12 * smallest
    return abs(a - b) / min(total, 1.7976931348623157e308) < 1e-12


def _monotonic(buckets: list[list[float]]) -> bool:
    previous, forced = buckets[0][1], False
    for bucket in buckets[1:]:
        if bucket[1] == previous:
            continue
        if _nearly_equal(previous, bucket[1]):
            bucket[1] = previous
        elif bucket[1] < previous:
            bucket[1] = previous
            forced = True
        else:
            previous = bucket[1]
    return forced


def quantile(q: float, buckets: Buckets) -> tuple[float, bool]:
    """Return (quantile, whether falling counts had to be raised)."""
    if math.isnan(q):
        return math.nan, False
    if q < 0 or q > 1:
        return math.copysign(math.inf, q), False
    merged = _coalesced(buckets)
    if merged[-1][0] != math.inf:
        return math.nan, False
    forced = _monotonic(merged)
    if len(merged) < 2 or merged[-1][1] == 0:
        return math.nan, forced
    rank = q * merged[-1][1]
    # A count may be NaN, so the order of comparisons matters: Go's sort.Search bisects as Python does.
    at = bisect.bisect_left(range(len(merged) - 1), True, key=lambda i: merged[i][1] >= rank)
    if at == len(merged) - 1:
        return merged[-2][0], forced
    if at == 0 and merged[0][0] <= 0:
        return merged[0][0], forced
    start, below = merged[at - 1] if at else (0.0, 0.0)
    end, count = merged[at]
    if at:
        count -= below
        rank -= below
    return start + (end - start) * divide(rank, count), forced


def fraction(lower: float, upper: float, buckets: Buckets) -> float:
    """Return the fraction of observations between two values."""
    merged = _coalesced(buckets)
    total = merged[-1][1]
    if merged[-1][0] != math.inf or total == 0 or math.isnan(lower) or math.isnan(upper):
        return math.nan
    if lower >= upper:
        return 0.0
    ranks = []
    for value in (lower, upper):
        below, start, found = 0.0, (-math.inf if merged[0][0] <= 0 else 0.0), None
        for bound, count in merged:
            if start >= value:
                found = below
            elif bound > value:
                found = (
                    count if start == -math.inf else below + divide((count - below) * (value - start), bound - start)
                )
            if found is not None:
                break
            below, start = count, bound
        ranks.append(total if found is None or found > total else found)
    return (ranks[1] - ranks[0]) / total
