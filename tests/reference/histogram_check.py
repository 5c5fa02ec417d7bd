"""Twin of kernels/histogram_check.py on plain rows."""

from __future__ import annotations

import math
from collections import Counter

from tests.support.histograms import STALE_BITS, Row, from_bits

(NONE, UNKNOWN_SCHEMA, INVALID, INFINITE, MISMATCH, BESIDES, BOUNDS, NEGATIVE, COUNT, NOT_BIG_ENOUGH) = range(10)


def fault(row: Row) -> int:
    """Return the first thing that is wrong with a histogram."""
    if row.schema == -53:
        if any(math.isnan(b) for b in row.custom) or any(
            b <= a for a, b in zip(row.custom, row.custom[1:], strict=False)
        ):
            return INVALID
        if row.custom and row.custom[-1] == math.inf:
            return INFINITE
        if row.positive and not 0 <= row.positive[0][0] <= row.positive[-1][0] <= len(row.custom):
            return MISMATCH
        if row.negative or row.zero_count or row.zero_threshold:
            return BESIDES
    elif not -4 <= row.schema <= 8:
        return UNKNOWN_SCHEMA
    elif row.custom:
        return BOUNDS
    counts = [c for side in (row.negative, row.positive) for _, c in side]
    if any(c < 0 for c in counts):
        return NEGATIVE
    total = row.zero_count + sum(counts)
    if row.is_float:
        return NONE
    slack = 0 if max(total, row.count) <= 2**53 else max(total, row.count) * 2**-40
    if math.isnan(from_bits(row.sum_bits)):
        return NOT_BIG_ENOUGH if total - row.count > slack else NONE
    return COUNT if abs(total - row.count) > slack else NONE


def halved(row: Row) -> Row:
    """Return the same observations with every two buckets merged."""
    sides = []
    for side in (row.negative, row.positive):
        merged: Counter[int] = Counter()
        for index, count in side:
            merged[math.ceil(index / 2)] += count
        sides.append(tuple(sorted(merged.items())))
    return row._replace(schema=row.schema - 1, negative=sides[0], positive=sides[1])


def reduced(row: Row, limit: int) -> Row | None:
    """Return a row with fewer buckets than the limit if it had more; None if that cannot be."""
    if len(row.negative) + len(row.positive) <= limit:
        return row
    while len(row.negative) + len(row.positive) >= limit:
        if row.schema == -4:
            return None
        row = halved(row)
    return row


def stored(row: Row) -> Row:
    """Return what is stored of a row."""
    if row.sum_bits == STALE_BITS:
        return Row(0, 0, row.is_float, 0.0, 0.0, 0.0, STALE_BITS, (), (), row.custom)
    return row._replace(reset_hint=row.reset_hint if row.reset_hint in (1, 3) else 0)
