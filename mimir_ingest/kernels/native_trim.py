"""What of a native histogram lies above or below a number: the operators `>/` and `</`.

Source: Prometheus 3.14 `model/histogram/float_histogram.go` `TrimBuckets`. Twin: `tests/reference/native_trim.py`.
"""

from __future__ import annotations

import math

from mimir_ingest.kernels._jit import inline
from mimir_ingest.kernels.native_bounds import bucket_bound, fraction_below
from mimir_ingest.kernels.native_columns import BOUNDS, COUNT, CUSTOM, LIVE, SCHEMA, SIZE, SUM, THRESHOLD, ZERO
from mimir_ingest.kernels.native_merge import compact


@inline
def _midpoint(lower, upper, positive, linear):
    """Return the value that the observations between two bounds are taken for."""
    if math.isinf(lower):
        if math.isinf(upper):
            return 0.0
        return upper / 2.0 if upper > 0.0 else upper
    if math.isinf(upper):
        return lower
    if linear:
        return (lower + upper) / 2.0
    mean = math.sqrt(abs(lower * upper))
    return mean if positive else -mean


@inline
def _finite(x):
    return 0.0 if math.isinf(x) else x


@inline
def _split_endless(lower, upper, count, limit, keep_below):
    """Return (count kept, value) of a bucket that reaches to infinity: all of it or nothing, but for one from zero."""
    if lower == -math.inf:
        if keep_below:
            if limit >= upper:
                return count, 0.0
            if limit > 0.0 and upper > 0.0 and upper != math.inf:
                return count * limit / upper, limit / 2.0
            return (count, limit) if upper <= 0.0 else (0.0, _finite(upper))
        if limit <= lower:
            return count, 0.0
        if limit >= 0.0 and upper > limit and upper != math.inf:
            return count * (1.0 - limit / upper), (limit + upper) / 2.0
        return 0.0, _finite(upper)
    if not keep_below and limit >= lower:
        return count, limit
    return 0.0, _finite(lower)


@inline
def _split(lower, upper, count, limit, keep_below, positive, linear):
    """Return (count kept, value) of a bucket that the limit lies in."""
    if lower == -math.inf or upper == math.inf:
        return _split_endless(lower, upper, count, limit, keep_below)
    below = 0.0
    if limit >= upper:
        below = count
    elif limit > lower:
        below = count * fraction_below(limit, lower, upper, linear)
    if keep_below:
        return below, _midpoint(lower, limit, positive, linear)
    return count - below, _midpoint(limit, upper, positive, linear)


@inline
def _split_zero(lower, upper, count, limit, keep_below):
    """Return (count kept, value) of the zero bucket, which is even."""
    if keep_below:
        if limit <= lower:
            return 0.0, 0.0
        if limit >= upper:
            return count, (lower + upper) / 2.0
        return count * ((limit - lower) / (upper - lower)), (lower + limit) / 2.0
    if limit <= lower:
        return count, (lower + upper) / 2.0
    if limit >= upper:
        return 0.0, 0.0
    return count * ((upper - limit) / (upper - lower)), (limit + upper) / 2.0


@inline
def trim(work, limit, keep_below):
    """Remove the observations above `limit`, or else those below; count and sum are estimated anew if any went."""
    linear = work.whole[SCHEMA] == CUSTOM
    count = total = 0.0
    trimmed = populated_0 = populated_1 = False
    for side in (1, 0):
        live = work.whole[LIVE + side]
        for k in range(work.whole[SIZE + side]):
            here = work.count[side, live, k]
            if here == 0.0:
                continue
            index = work.index[side, live, k]
            upper = bucket_bound(index, work.whole[SCHEMA], work.custom, 0, work.whole[BOUNDS])
            lower = bucket_bound(index - 1, work.whole[SCHEMA], work.custom, 0, work.whole[BOUNDS])
            if side == 1:
                populated_1 = True
            else:
                populated_0 = True
                lower, upper = -upper, -lower
            kept = 0.0
            value = 0.0
            if (upper <= limit) if keep_below else (lower >= limit):
                kept, value = here, _midpoint(lower, upper, side == 1, linear)
            elif (lower < limit) if keep_below else (upper > limit):
                kept, value = _split(lower, upper, here, limit, keep_below, side == 1, linear)
            else:
                trimmed = True
                work.count[side, live, k] = 0.0
                continue
            count += kept
            total += value * kept
            if kept != here:
                work.count[side, live, k] = kept
                trimmed = True
    zero = work.parts[ZERO]
    if zero > 0.0:
        upper = 0.0 if populated_0 and not populated_1 else work.parts[THRESHOLD]
        lower = 0.0 if populated_1 and not populated_0 else -work.parts[THRESHOLD]
        kept, value = _split_zero(lower, upper, zero, limit, keep_below)
        if kept != zero:
            work.parts[ZERO] = kept
            trimmed = True
        total += value * kept
        count += kept
    if trimmed:
        work.parts[COUNT] = count
        work.parts[SUM] = total
        compact(work)
