"""Native histograms of deltas added up, a plain row at a time (kernels/histogram_totals.py)."""

from __future__ import annotations

import math

from tests.support.histograms import STALE_BITS, Row, bits, from_bits

MAX_SPAN = 160
NAN_BITS = 0x7FF8000000000001


def empty(row: Row) -> Row:
    """Return a histogram like this one before any observation."""
    return row._replace(reset_hint=1, zero_count=0.0, count=0.0, sum_bits=0, negative=(), positive=())


def filled(row: Row) -> Row:
    """Return a histogram without the empty buckets that it lists."""
    sides = {side: tuple(one for one in getattr(row, side) if one[1]) for side in ("negative", "positive")}
    return row._replace(**sides)


def lowered(row: Row, schema: int) -> Row:
    """Return the same observations at a coarser resolution."""
    if schema == row.schema:
        return row
    sides = []
    for side in (row.negative, row.positive):
        found: dict[int, float] = {}
        for i, c in side:
            at = ((i - 1) >> (row.schema - schema)) + 1
            found[at] = found.get(at, 0.0) + c
        sides.append(tuple(sorted(found.items())))
    return row._replace(schema=schema, negative=sides[0], positive=sides[1])


def fitting(rows: list[Row]) -> int | None:
    """Return the finest schema at which the buckets of all rows together are near enough, None where none is."""
    for schema in range(min(row.schema for row in rows), -5, -1):
        low = [lowered(row, schema) for row in rows]
        sides = [[i for row in low for i, _ in getattr(row, side)] for side in ("negative", "positive")]
        if all(not side or max(side) - min(side) < MAX_SPAN for side in sides):
            return schema
    return None


def first(row: Row, hint: int = 0) -> Row:
    """Return the total of one delta."""
    row = filled(row)
    schema = row.schema if row.custom or row.schema == -53 else fitting([row])
    return lowered(row, row.schema if schema is None else schema)._replace(reset_hint=hint)


def add(total: Row, row: Row) -> Row:
    """Return the total with one delta more."""
    row = filled(row)
    custom = row.schema == -53
    same = (total.schema == -53) == custom and (total.zero_threshold, total.custom) == (row.zero_threshold, row.custom)
    schema = None
    if same:
        schema = -53 if custom else fitting([total, row])
    if schema is None:
        return first(row, hint=1)
    a, b = lowered(total, schema), lowered(row, schema)
    sides = []
    for side in ("negative", "positive"):
        found = dict(getattr(a, side))
        for i, c in getattr(b, side):
            found[i] = found.get(i, 0.0) + c
        sides.append(tuple(sorted(found.items())))
    summed = from_bits(total.sum_bits) + from_bits(row.sum_bits)
    return Row(
        schema,
        0,
        total.is_float or row.is_float,
        row.zero_threshold,
        total.zero_count + row.zero_count,
        total.count + row.count,
        NAN_BITS if math.isnan(summed) else bits(summed),
        *sides,
        row.custom,
    )


def finite(row: Row) -> bool:
    """Whether a total can go on."""
    return math.isfinite(from_bits(row.sum_bits)) and math.isfinite(row.count)


def fold(deltas: list[Row], rows: list[int], slots: list[int], totals: dict[int, Row]) -> list[Row]:
    """Return what is stored of the accepted histograms; `totals` by slot are brought up to date."""
    out = []
    for number, slot in zip(rows, slots, strict=True):
        row = deltas[-1 - number if number < 0 else number]
        if number < 0:
            held = totals.get(slot)
            out.append(empty(row) if held is None else held._replace(reset_hint=0))
        elif slot < 0 or row.sum_bits == STALE_BITS:
            out.append(row)
        else:
            out.append(add(totals[slot], row) if slot in totals else first(row))
            totals.pop(slot, None)
            if finite(out[-1]):
                totals[slot] = out[-1]
    return out
