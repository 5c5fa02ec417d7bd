"""Native histograms in dictionaries: sums, differences, resets, and folds of many.

Written from the rules in the documentation of Prometheus's `FloatHistogram`: buckets by index, no spans, no arrays.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

from tests.reference.compensated import add, divide
from tests.reference.native_bounds import CUSTOM, exact_bound

UNKNOWN, RESET, NO_RESET, GAUGE = range(4)
INCOMPATIBLE, RECONCILED, COLLISION, MIXED = 1, 2, 4, 8


@dataclass
class Plain:
    """One histogram. `parts` are zero count, count and sum; each number is (value, what was lost of it)."""

    schema: int = 0
    hint: int = UNKNOWN
    threshold: float = 0.0
    parts: dict[str, tuple[float, float]] = field(
        default_factory=lambda: dict.fromkeys(("zero", "count", "sum"), (0.0, 0.0))
    )
    negative: dict[int, tuple[float, float]] = field(default_factory=dict)
    positive: dict[int, tuple[float, float]] = field(default_factory=dict)
    custom: tuple[float, ...] = ()

    def value(self, part: str) -> float:
        """Return a part without what was lost."""
        return self.parts[part][0]

    def clone(self) -> Plain:
        """Return a copy."""
        return copy.deepcopy(self)

    def numbers(self):
        """Return every dictionary of numbers."""
        return self.parts, self.negative, self.positive


def plus(a: tuple[float, float], b: float, kept: bool) -> tuple[float, float]:
    """Return a number after adding to it, compensated or not."""
    return add(b, *a) if kept else (a[0] + b, 0.0)


def coarsen(h: Plain, schema: int, kept: bool) -> None:
    """Merge buckets to a coarser schema, in rising order."""
    width = 2 ** (h.schema - schema)
    for name in ("negative", "positive"):
        merged: dict[int, tuple[float, float]] = {}
        for index, (value, lost) in sorted(getattr(h, name).items()):
            target = math.ceil(index / width)
            if target in merged:
                merged[target] = plus(merged[target], value, kept)
                if kept:
                    merged[target] = plus(merged[target], lost, kept)
            else:
                merged[target] = (value, lost if kept else 0.0)
        setattr(h, name, merged)
    h.schema = schema


def compact(h: Plain) -> None:
    """Drop empty buckets."""
    for side in (h.negative, h.positive):
        for index in [i for i, number in side.items() if number == (0.0, 0.0)]:
            del side[index]


def widened(h: Plain, threshold: float) -> tuple[tuple[float, float], float]:
    """Return (zero count, threshold) as if the zero bucket reached there, or to the end of the bucket it cuts."""
    lost = h.parts["zero"][1]
    if threshold == h.threshold:
        return h.parts["zero"], threshold
    while True:
        number, moved = (h.parts["zero"][0], lost), False
        for name in ("positive", "negative"):
            for index, (value, rest) in sorted(getattr(h, name).items()):
                if exact_bound(index - 1, h.schema) >= threshold:
                    break
                number = add(rest, *add(value, *number))
                upper = exact_bound(index, h.schema)
                if upper > threshold:
                    if value != 0:
                        threshold, moved = upper, name == "negative"
                    break
        lost = number[1]
        if not moved:
            return number, threshold


def align_zero(h: Plain, other: Plain) -> tuple[float, float]:
    """Widen `h`'s zero bucket until both histograms have one; return `other`'s zero count there."""
    number, threshold = (other.value("zero"), 0.0), other.threshold
    while threshold != h.threshold:
        if h.threshold > threshold:
            number, threshold = widened(other, h.threshold)
        if threshold > h.threshold:
            h.parts["zero"], h.threshold = widened(h, threshold)
            for side in (h.negative, h.positive):
                for index in [i for i in side if exact_bound(i - 1, h.schema) < h.threshold]:
                    del side[index]
            compact(h)
    return number


def join_hints(h: Plain, hint: int) -> int:
    """Set the hint of a sum; return COLLISION for a reset and none."""
    if h.hint != hint:
        collision = {h.hint, hint} == {RESET, NO_RESET}
        h.hint = GAUGE if GAUGE in (h.hint, hint) else UNKNOWN
        return COLLISION if collision else 0
    return 0


def map_to(
    buckets: dict[int, tuple[float, float]],
    bounds: tuple[float, ...],
    shared: tuple[float, ...],
    sign: float,
    kept,
    into,
):
    """Add custom buckets to those of the shared bounds."""
    for index, (value, lost) in sorted(buckets.items()):
        upper = bounds[index] if index < len(bounds) else math.inf
        target = next((i for i, b in enumerate(shared) if b >= upper), len(shared))
        into[target] = add(sign * value, *into[target])
        if kept:
            into[target] = add(lost, *into[target])


def merge(h: Plain, other: Plain, sign: float, kept: bool) -> int:
    """Add `other` times `sign` to `h`; return flags. `kept`: sums are compensated."""
    if (h.schema == CUSTOM) != (other.schema == CUSTOM):
        return INCOMPATIBLE
    other = other.clone()
    flags = join_hints(h, other.hint)
    if h.schema != CUSTOM:
        zero, lost = align_zero(h, other)
        h.parts["zero"] = plus(h.parts["zero"], sign * zero, kept)
        if kept:
            h.parts["zero"] = plus(h.parts["zero"], sign * lost, kept)
    for part in ("count", "sum"):
        h.parts[part] = plus(h.parts[part], (1 if kept else sign) * other.value(part), kept)
    if h.schema == CUSTOM and h.custom != other.custom:
        shared = tuple(b for b in h.custom if b in other.custom)
        into = dict.fromkeys(range(len(shared) + 1), (0.0, 0.0))
        map_to(h.positive, h.custom, shared, 1.0, kept, into)
        map_to(other.positive, other.custom, shared, sign, False, into)
        h.positive, h.custom = into, shared
        compact(h)
        if not kept:
            h.positive = {i: (value, 0.0) for i, (value, _) in h.positive.items()}
        return flags | RECONCILED
    if h.schema != CUSTOM:
        schema = min(h.schema, other.schema)
        for one in (h, other):
            if one.schema > schema:
                coarsen(one, schema, kept)
    for name in ("positive", "negative"):
        side, skipping = getattr(h, name), h.schema != CUSTOM
        for index, (value, lost) in sorted(getattr(other, name).items()):
            skipping = skipping and exact_bound(index, h.schema) <= h.threshold
            if skipping:
                continue
            if index not in side:
                side[index] = (sign * value, sign * lost if kept else 0.0)
                continue
            side[index] = plus(side[index], sign * value, kept)
            if kept and lost:
                side[index] = plus(side[index], sign * lost, kept)
    return flags


def scale(h: Plain, factor: float, by_division: bool) -> None:
    """Multiply everything, or divide it; a division by zero removes the buckets."""
    for numbers in h.numbers():
        for key, (value, lost) in numbers.items():
            numbers[key] = (
                (divide(value, factor), divide(lost, factor)) if by_division else (value * factor, lost * factor)
            )
    if by_division and factor == 0:
        h.negative, h.positive = {}, {}
    elif factor < 0:
        h.hint = GAUGE


def settle(h: Plain) -> None:
    """Add what was lost."""
    for numbers in h.numbers():
        for key, (value, lost) in numbers.items():
            numbers[key] = (value + lost, 0.0)


def overflows(h: Plain) -> bool:
    """Whether any number is infinite."""
    return any(math.isinf(value) for numbers in h.numbers() for value, _ in numbers.values())


def fold(members: list[Plain | None], average: bool, packed: bool) -> tuple[Plain | None, int]:
    """Return the sum or average of histograms (None: a float), and flags."""
    flags, hints, total, mean = 0, set(), None, False
    floats = False
    for count, member in enumerate(members, 1):
        if member is None:
            floats = True
            continue
        if count == 1:
            total = member.clone()
            hints.add(member.hint)
            continue
        if total is None:
            continue
        hints.add(member.hint)
        before = total.clone()
        done = 0
        if not mean:
            done = merge(total, member, 1.0, True)
        if average and not done & INCOMPATIBLE and (mean or overflows(total)):
            if not mean:
                total, mean = before, True
                scale(total, count - 1.0, True)
            scale(total, (count - 1.0) / count, False)
            share = member.clone()
            scale(share, float(count), True)
            done |= merge(total, share, 1.0, True)
        flags |= done & RECONCILED
        if done & INCOMPATIBLE:
            return None, flags | INCOMPATIBLE | (MIXED if floats else 0)
    if floats:
        return None, flags | MIXED
    if average and not mean:
        scale(total, float(len(members)), True)
    if len(members) > 1:
        settle(total)
    if packed:
        compact(total)
    return total, flags | (COLLISION if {RESET, NO_RESET} <= hints else 0)


def was_reset(now: Plain, before: Plain) -> bool:
    """Whether a counter was reset between two histograms."""
    if now.hint in (RESET, NO_RESET):
        return now.hint == RESET
    if now.value("count") < before.value("count"):
        return True
    if now.schema == CUSTOM:
        if before.schema != CUSTOM:
            return True
        if now.custom != before.custom:
            shared = (*(b for b in now.custom if b in before.custom), math.inf)
            return any(a < b for a, b in zip(_between(now, shared), _between(before, shared), strict=True))
    if now.schema > before.schema or now.threshold < before.threshold:
        return True
    (zero, _), threshold = widened(before, now.threshold) if now.schema != CUSTOM else ((0.0, 0.0), 0.0)
    if threshold != now.threshold or now.value("zero") < zero:
        return True
    before = before.clone()
    if before.schema > now.schema:
        coarsen(before, now.schema, False)
    for name in ("positive", "negative"):
        side = getattr(now, name)
        for index, (value, _) in getattr(before, name).items():
            if now.schema != CUSTOM and now.threshold and exact_bound(index, now.schema) <= now.threshold:
                continue
            if (side[index][0] < value) if index in side else value != 0:
                return True
    return False


def _between(h: Plain, shared: tuple[float, ...]) -> list[float]:
    """Return the observations up to each of the shared bounds, from the one before."""
    out, done = [], set()
    for limit in shared:
        total = 0.0
        for index, (value, _) in sorted(h.positive.items()):
            upper = h.custom[index] if index < len(h.custom) else math.inf
            if upper <= limit and index not in done:
                done.add(index)
                total += value
        out.append(total)
    return out
