"""What of a native histogram lies above or below a number, bucket by bucket."""

from __future__ import annotations

import math

from tests.reference.native_bounds import CUSTOM, bound, share_below
from tests.reference.native_merge import Plain, compact


def _middle(lower: float, upper: float, positive: bool, linear: bool) -> float:
    if math.isinf(lower) and math.isinf(upper):
        return 0.0
    if math.isinf(lower):
        return upper / 2 if upper > 0 else upper
    if math.isinf(upper):
        return lower
    if linear:
        return (lower + upper) / 2
    return math.sqrt(abs(lower * upper)) * (1 if positive else -1)


def _cut(lower: float, upper: float, count: float, limit: float, below: bool, positive: bool, linear: bool):
    """Return (count kept, where it is) of a bucket around the limit."""
    if lower == -math.inf:
        if below:
            if upper > 0 and not math.isinf(upper) and limit > 0:
                return count * limit / upper, limit / 2
            return (count, limit) if upper <= 0 else (0.0, 0.0)
        if limit >= 0 and not math.isinf(upper):
            return count * (1 - limit / upper), (limit + upper) / 2
        return 0.0, 0.0
    if upper == math.inf:
        return (0.0, 0.0) if below else (count, limit)
    under = count * share_below(limit, lower, upper, linear)
    if below:
        return under, _middle(lower, limit, positive, linear)
    return count - under, _middle(limit, upper, positive, linear)


def trim(h: Plain, limit: float, below: bool) -> None:
    """Keep the observations below the limit, or else those above."""
    linear, count, total, changed = h.schema == CUSTOM, 0.0, 0.0, False
    above_zero, below_zero = (any(n for n, _ in side.values()) for side in (h.positive, h.negative))
    for side, positive in ((h.positive, True), (h.negative, False)):
        for index, (here, _) in sorted(side.items()):
            if not here:
                continue
            lower, upper = bound(index - 1, h.schema, h.custom), bound(index, h.schema, h.custom)
            if not positive:
                lower, upper = -upper, -lower
            if upper <= limit if below else lower >= limit:
                kept, value = here, _middle(lower, upper, positive, linear)
            elif lower < limit if below else upper > limit:
                kept, value = _cut(lower, upper, here, limit, below, positive, linear)
            else:
                kept, value = 0.0, 0.0
            changed |= kept != here
            side[index] = (kept, 0.0)
            count, total = count + kept, total + value * kept
    zero = h.value("zero")
    if zero > 0:
        lower = 0.0 if above_zero and not below_zero else -h.threshold
        upper = 0.0 if below_zero and not above_zero else h.threshold
        a, b = (lower, min(limit, upper)) if below else (max(limit, lower), upper)
        kept = zero * ((b - a) / (upper - lower)) if lower < limit < upper else zero
        if limit <= lower if below else limit > lower and limit >= upper:
            kept = 0.0
        changed |= kept != zero
        h.parts["zero"] = (kept, 0.0)
        count, total = count + kept, total + ((a + b) / 2 * kept if kept else 0.0)
    if changed:
        h.parts["count"], h.parts["sum"] = (count, 0.0), (total, 0.0)
        compact(h)
