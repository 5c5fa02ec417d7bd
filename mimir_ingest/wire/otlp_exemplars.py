"""Exemplars of OTLP. Source: spec ingest-storage 8.9; OpenMetrics for what their labels may be."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence

import numpy as np

from mimir_ingest.model.exemplars import Exemplars
from mimir_ingest.model.labels import encode_label_bytes
from mimir_ingest.wire.otlp_tables import (
    MARKED,
    NEGATIVE,
    POSITIVE,
    TIME,
    VALUE,
    RequestTables,
    bounds_of,
    invalid,
)

MAX_RUNES = 128
"""Characters of an exemplar's labels (OpenMetrics); with more of them its attributes are left out."""

_AS_INT = 6
_TRACE_BYTES, _SPAN_BYTES = 16, 8
_MS = np.uint64(1_000_000)


def check_ids(tables: RequestTables) -> None:
    """Raise InvalidRequest unless trace ids have 16 bytes and span ids 8, or none."""
    rows = tables.points.exemplars.rows
    for column, size in ((POSITIVE, _TRACE_BYTES), (NEGATIVE, _SPAN_BYTES)):
        sizes = rows[:, column + 1] - rows[:, column]
        wrong = sizes[(sizes != 0) & (sizes != size)]
        if len(wrong):
            raise invalid(f"an id of an exemplar has {size} bytes, not {wrong[0]}")


def read_exemplars(
    tables: RequestTables, first_rows: np.ndarray, bounds_of_point: Callable[[int], Sequence[float] | None], rows: int
) -> Exemplars | None:
    """Return the exemplars of a request.

    Parameters
    ----------
    first_rows : int64[points]
        Row of each data point that the first of its exemplars may be at; -1 for points that have none.
    bounds_of_point
        Bounds of a point's buckets, which have a row each; None where all exemplars are at the first row.
    rows
        Rows of the batch.
    """
    points, held = tables.points.exemplar_points, tables.points.exemplars
    first = first_rows[points]
    kept = np.flatnonzero(first >= 0)
    if not len(kept):
        return None
    table = held.rows[kept]
    bits = np.ascontiguousarray(table[:, VALUE])
    values = np.where(table[:, MARKED] == _AS_INT, bits.astype(np.float64), bits.view(np.float64))
    row_of = first[kept]
    for i, (point, value) in enumerate(zip(points[kept].tolist(), values.tolist(), strict=True)):
        bounds = bounds_of_point(point)
        if bounds is not None:
            row_of[i] += bisect.bisect_left(bounds, value)
    order = np.argsort(row_of, kind="stable")
    offsets = tables.attribute_offsets[3]
    data = tables.data
    labels = []
    for one, (trace, trace_end, span, span_end) in zip(
        kept[order].tolist(), table[order, POSITIVE : NEGATIVE + 2].tolist(), strict=True
    ):
        attributes = tables.attributes.pairs(int(offsets[one]), int(offsets[one + 1]))
        labels.append(_label_bytes(data[trace:trace_end].tobytes(), data[span:span_end].tobytes(), attributes))
    times = np.ascontiguousarray(table[order, TIME]).view(np.uint64) // _MS
    return Exemplars(
        bounds_of(np.bincount(row_of, minlength=rows)),
        times.astype(np.int64),
        values[order],
        np.frombuffer(b"".join(labels), np.uint8),
        bounds_of(np.array([len(one) for one in labels])),
    )


def _label_bytes(trace: bytes, span: bytes, attributes: Sequence[tuple[str, str]]) -> bytes:
    """Return label bytes: trace and span, and attributes if they fit."""
    labels = {name: value.hex() for name, value in (("trace_id", trace), ("span_id", span)) if any(value)}
    if sum(len(name) + len(value) for name, value in (*labels.items(), *attributes)) <= MAX_RUNES:
        labels |= {name: value for name, value in attributes if value}
    return encode_label_bytes(labels)
