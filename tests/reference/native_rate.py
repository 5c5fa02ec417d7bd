"""Increases of native histograms over windows, sample by sample, in dictionaries."""

from __future__ import annotations

from tests.reference.native_bounds import CUSTOM
from tests.reference.native_merge import (
    GAUGE,
    INCOMPATIBLE,
    RECONCILED,
    RESET,
    Plain,
    coarsen,
    compact,
    merge,
    scale,
    was_reset,
)

RECONCILED_SUB, RECONCILED_ADD, NOT_COUNTER, NOT_GAUGE = 1 << 8, 1 << 9, 1 << 10, 1 << 11
Sample = tuple[int, Plain]


def increase(window: list[Sample], counter: bool) -> tuple[Plain | None, int]:
    """Return what a window of at least two samples grew by, and flags."""
    samples = [h for _, h in window]
    flags = 0
    if counter and GAUGE in (samples[0].hint, samples[-1].hint):
        flags |= NOT_COUNTER
    if not counter and (samples[0].hint, samples[-1].hint) != (GAUGE, GAUGE):
        flags |= NOT_GAUGE
    anew = counter and was_reset(samples[1], samples[0])
    before = Plain(schema=samples[1].schema, custom=samples[1].custom) if anew else samples[0]
    if (samples[-1].schema == CUSTOM) != (before.schema == CUSTOM):
        return None, (flags & NOT_COUNTER) | INCOMPATIBLE
    schema = min(samples[-1].schema, before.schema)
    if counter:
        for h in samples[1:-1]:
            if h.hint == GAUGE:
                flags |= NOT_COUNTER
            if (h.schema == CUSTOM) != (before.schema == CUSTOM):
                return None, INCOMPATIBLE
            schema = min(schema, h.schema)
    total = samples[-1].clone()
    if CUSTOM != schema < total.schema:
        coarsen(total, schema, False)
    if merge(total, before, -1.0, False) & RECONCILED:
        flags |= RECONCILED_SUB
    if counter:
        for h, earlier in zip(samples[1:], [before, *samples[1:]], strict=False):
            if h.hint == RESET or ((earlier is not before or not anew) and was_reset(h, earlier)):
                done = merge(total, earlier, 1.0, False)
                if done & INCOMPATIBLE:
                    return None, INCOMPATIBLE
                if done & RECONCILED:
                    flags |= RECONCILED_ADD
    total.hint = GAUGE
    compact(total)
    return total, flags


def extrapolated(window: list[Sample], start: int, end: int, counter: bool, per_second: float | None):
    """Return (rate, increase or delta of a window, flags); `per_second` is the range (s) to divide by."""
    total, flags = increase(window, counter)
    if total is None:
        return None, flags
    first, last = window[0][0], window[-1][0]
    to_start, to_end, sampled = (first - start) / 1000, (end - last) / 1000, (last - first) / 1000
    average = sampled / (len(window) - 1)
    if to_start >= average * 1.1:
        to_start = average / 2
    begin, grown = window[0][1].value("count"), total.value("count")
    if counter and grown > 0 and begin >= 0:
        to_start = min(to_start, sampled * (begin / grown))
    if to_end >= average * 1.1:
        to_end = average / 2
    factor = (sampled + to_start + to_end) / sampled
    scale(total, factor / (per_second or 1.0), False)
    return total, flags


def last_step(before: Sample, now: Sample, per_second: bool) -> tuple[Plain | None, int]:
    """Return `irate` or `idelta` of two samples, and flags."""
    flags = 0
    hints = (before[1].hint, now[1].hint)
    if per_second and GAUGE in hints:
        flags |= NOT_COUNTER
    if not per_second and hints != (GAUGE, GAUGE):
        flags |= NOT_GAUGE
    total = now[1].clone()
    if not per_second or not was_reset(now[1], before[1]):
        done = merge(total, before[1], -1.0, False)
        if done & INCOMPATIBLE:
            return None, flags | INCOMPATIBLE
        if done & RECONCILED:
            flags |= RECONCILED_SUB
    total.hint = GAUGE
    compact(total)
    if per_second:
        scale(total, (now[0] - before[0]) / 1000, True)
    return total, flags


def between(before: Sample, after: Sample, at: int, counter: bool) -> tuple[Plain, int]:
    """Return what lies between two samples, and flags; a counter that was reset begins at zero."""
    if at in (before[0], after[0]):
        return (before if at == before[0] else after)[1].clone(), 0
    share = (at - before[0]) / (after[0] - before[0])
    total, flags = after[1].clone(), 0
    if counter and was_reset(after[1], before[1]):
        scale(total, share, False)
        return total, 0
    if merge(total, before[1], -1.0, False) & RECONCILED:
        flags |= RECONCILED_SUB
    scale(total, share, False)
    if merge(total, before[1], 1.0, False) & RECONCILED:
        flags |= RECONCILED_ADD
    return total, flags


def extended(window: list[Sample], start: int, end: int, counter: bool, smoothed: bool, per_second: float | None):
    """Return (what an `anchored` or `smoothed` window grew by between its borders, flags)."""
    last = len(window) - 1
    first = max((i for i in range(last) if window[i][0] <= start), default=0)
    if smoothed:
        last = next((i for i in range(last) if window[i][0] >= end), last)
    if window[last][0] <= start or (smoothed and window[first][0] > end):
        return None, 0
    flags = 0
    for _, h in window[first : last + 1]:
        if (h.schema == CUSTOM) != (window[first][1].schema == CUSTOM):
            return None, flags | INCOMPATIBLE
        if counter and h.hint == GAUGE:
            flags |= NOT_COUNTER
    left, right = window[first][1].clone(), window[last][1].clone()
    spans_left = smoothed and window[first][0] < start
    if spans_left:
        left, seen = between(window[first], window[first + 1], start, counter)
        flags |= seen
    if smoothed and last > 0 and window[last][0] > end:
        right, seen = between(window[last - 1], window[last], end, counter)
        flags |= seen
    if not counter and (left.hint, right.hint) != (GAUGE, GAUGE):
        flags |= NOT_GAUGE
    total = right.clone()
    if merge(total, left, -1.0, False) & RECONCILED:
        flags |= RECONCILED_SUB
    if counter:
        before, begin = left, first + 1
        if spans_left and was_reset(window[first + 1][1], window[first][1]):
            before, begin = window[first + 1][1], first + 2
        lost: Plain | None = None
        if begin <= last:
            for now in [*(h for _, h in window[begin:last]), right]:
                if was_reset(now, before):
                    if lost is None:
                        lost = before.clone()
                    elif merge(lost, before, 1.0, False) & RECONCILED:
                        flags |= RECONCILED_ADD
                before = now
        if lost is not None and merge(total, lost, 1.0, False) & RECONCILED:
            flags |= RECONCILED_ADD
    if per_second:
        scale(total, per_second, True)
    total.hint = GAUGE
    compact(total)
    return total, flags
