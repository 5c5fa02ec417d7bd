"""Numbers out of native histograms: from a list of (lower, upper, count), by rising bounds."""

from __future__ import annotations

import math

from tests.reference.compensated import add, divide
from tests.reference.native_bounds import CUSTOM, bound, share_below
from tests.reference.native_merge import Plain

Bucket = tuple[float, float, float]


def buckets(h: Plain) -> list[Bucket]:
    """Return all buckets; those that reach into the zero bucket end where it begins."""
    out = []
    for index, (count, _) in sorted(h.negative.items(), reverse=True):
        upper = -bound(index - 1, h.schema, h.custom)
        out.append((-bound(index, h.schema, h.custom), min(upper, -h.threshold) if upper < 0 else upper, count))
    if h.schema != CUSTOM and h.value("zero") > 0:
        out.append((-h.threshold, h.threshold, h.value("zero")))
    for index, (count, _) in sorted(h.positive.items()):
        lower = bound(index - 1, h.schema, h.custom)
        out.append((max(lower, h.threshold) if lower > 0 else lower, bound(index, h.schema, h.custom), count))
    return out


def _around_zero(h: Plain, bucket: Bucket) -> Bucket:
    """Return the zero bucket, halved where all other buckets are on one side."""
    lower, upper, count = bucket
    if h.positive and not h.negative:
        lower = 0.0
    elif h.negative and not h.positive:
        upper = 0.0
    return lower, upper, count


def quantile(h: Plain, q: float) -> float:
    """Return the q-quantile."""
    total = h.value("count")
    if q < 0:
        return -math.inf
    if q > 1:
        return math.inf
    if total == 0 or math.isnan(q):
        return math.nan
    broken = math.isnan(h.value("sum"))
    forward = broken or q < 0.5
    rank = q * total if forward else (1 - q) * total
    order = buckets(h) if forward else buckets(h)[::-1]
    seen, bucket, rest = 0.0, (0.0, 0.0, 0.0), []
    for k, bucket in enumerate(order):
        seen += bucket[2]
        rest = order[k + 1 :]
        if bucket[2] and seen >= rank:
            break
    lower, upper, count = bucket
    if h.schema != CUSTOM:
        if lower < 0 < upper:
            lower, upper, count = _around_zero(h, bucket)
    elif lower == -math.inf:
        if upper <= 0:
            return upper
        lower = 0.0
    elif upper == math.inf:
        return lower
    seen = min(seen, total)
    if seen < rank:
        return math.nan if broken else upper
    rank = rank - (seen - count) if forward else seen - rank
    if broken and rest:
        lower, upper, count = rest[-1]
    share = divide(rank, count)
    if h.schema == CUSTOM or lower <= 0 <= upper:
        return lower + (upper - lower) * share
    a, b = math.log2(abs(lower)), math.log2(abs(upper))
    return 2 ** (a + (b - a) * share) if lower > 0 else -(2 ** (b + (a - b) * (1 - share)))


def fraction(h: Plain, low: float, high: float) -> float:
    """Return the fraction of observations between two values."""
    total = h.value("count")
    if total == 0 or math.isnan(low) or math.isnan(high):
        return math.nan
    if low >= high:
        return 0.0
    all_of_them = sum(count for _, _, count in buckets(h)) if math.isnan(h.value("sum")) else total

    def rank(value: float) -> float:
        below = 0.0
        for bucket in buckets(h):
            lower, upper, count = bucket
            linear = h.schema == CUSTOM
            if lower <= 0 <= upper:
                lower, upper, count = _around_zero(h, bucket)
                linear = True
            if lower >= value:
                return min(below, all_of_them)
            if upper > value:
                inside = count if lower == -math.inf else below + count * share_below(value, lower, upper, linear)
                return min(inside, all_of_them)
            below += count
        return all_of_them

    return (rank(high) - rank(low)) / total


def variance(h: Plain) -> float:
    """Return the variance, each bucket's observations being at its mean."""
    mean = divide(h.value("sum"), h.value("count"))
    number = (0.0, 0.0)
    for lower, upper, count in buckets(h):
        if not count:
            continue
        if h.schema == CUSTOM:
            value = (lower + upper) / 2
        elif lower <= 0 <= upper:
            value = 0.0
        else:
            value = math.copysign(math.sqrt(lower * upper), upper)
        number = add(count * (value - mean) * (value - mean), *number)
    return divide(number[0] + number[1], h.value("count"))


def weight(h: Plain, more: int = 0) -> int:
    """Return for how many samples a histogram counts: 16 bytes each of 176, `more`, 8 a bucket, span, custom bound."""
    spans = sum(1 for side in (h.negative, h.positive) for index in side if index - 1 not in side)
    return (176 + more + 8 * (spans + len(h.negative) + len(h.positive) + len(h.custom))) // 16
