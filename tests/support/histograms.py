"""Native histograms as plain tuples, and random ones."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from mimir_ingest.model.histograms import CUSTOM_BUCKETS_SCHEMA, Histograms


class Row(NamedTuple):
    """One histogram; floats by their bits, so that NaN equals itself."""

    schema: int
    reset_hint: int
    is_float: bool
    zero_threshold: float
    zero_count: float
    count: float
    sum_bits: int
    negative: tuple[tuple[int, float], ...]
    positive: tuple[tuple[int, float], ...]
    custom: tuple[float, ...] = ()


def bits(value: float) -> int:
    """Return the 64 bits of a float."""
    return struct.unpack("<Q", struct.pack("<d", value))[0]


def from_bits(word: int) -> float:
    """Return the float of 64 bits."""
    return struct.unpack("<d", struct.pack("<Q", word))[0]


def of_rows(rows: list[Row]) -> Histograms:
    """Return the columns of rows."""
    sides = [side for row in rows for side in (row.negative, row.positive)]
    return Histograms(
        np.array([r.schema for r in rows], np.int8),
        np.array([r.reset_hint for r in rows], np.uint8),
        np.array([r.is_float for r in rows], bool),
        np.array([r.zero_threshold for r in rows], np.float64),
        np.array([r.zero_count for r in rows], np.float64),
        np.array([r.count for r in rows], np.float64),
        np.array([r.sum_bits for r in rows], np.uint64).view(np.float64),
        np.cumsum([0, *map(len, sides)], dtype=np.int64),
        np.array([i for side in sides for i, _ in side], np.int32),
        np.array([c for side in sides for _, c in side], np.float64),
        np.cumsum([0, *(len(r.custom) for r in rows)], dtype=np.int64),
        np.array([v for r in rows for v in r.custom], np.float64),
    )


def as_rows(columns: Histograms) -> list[Row]:
    """Return columns as rows."""
    words = columns.sum.view(np.uint64).tolist() if len(columns) else []
    offsets, customs = columns.bucket_offsets.tolist(), columns.custom_offsets.tolist()
    buckets = list(zip(columns.bucket_index.tolist(), columns.bucket_count.tolist(), strict=True))
    values = columns.custom_values.tolist()
    return [
        Row(
            int(columns.schema[i]),
            int(columns.reset_hint[i]),
            bool(columns.is_float[i]),
            float(columns.zero_threshold[i]),
            float(columns.zero_count[i]),
            float(columns.count[i]),
            words[i],
            tuple(buckets[offsets[2 * i] : offsets[2 * i + 1]]),
            tuple(buckets[offsets[2 * i + 1] : offsets[2 * i + 2]]),
            tuple(values[customs[i] : customs[i + 1]]),
        )
        for i in range(len(columns))
    ]


def _sides(counts, low=-40, high=40) -> st.SearchStrategy:
    return st.dictionaries(st.integers(low, high), counts, max_size=6).map(lambda d: tuple(sorted(d.items())))


@st.composite
def histogram_rows(draw) -> Row:
    """One histogram that a client may send: consistent counts, no empty buckets."""
    is_float, custom = draw(st.booleans()), draw(st.booleans())
    counts = st.floats(0.001, 1e9) if is_float else st.integers(1, 1 << 40).map(float)
    bounds = tuple(sorted(draw(st.sets(st.floats(-1e6, 1e6), min_size=1, max_size=5)))) if custom else ()
    negative = () if custom else draw(_sides(counts))
    positive = draw(_sides(counts, 0, len(bounds)) if custom else _sides(counts))
    zero = 0.0 if custom else draw(st.just(0.0) | counts)
    return Row(
        CUSTOM_BUCKETS_SCHEMA if custom else draw(st.integers(-4, 8)),
        draw(st.integers(0, 3)),
        is_float,
        0.0 if custom else draw(st.sampled_from([0.0, 2.0**-128, 0.001, 2.5])),
        zero,
        zero + sum(c for side in (negative, positive) for _, c in side),
        bits(draw(st.floats(allow_nan=False, allow_infinity=False))),
        negative,
        positive,
        bounds,
    )


STALE_BITS = 0x7FF0000000000002


def put_histogram(message, timestamp: int, row: Row) -> None:
    """Fill a protobuf `Histogram` (tests.support.protobuf_schema) with a row."""
    message.timestamp, message.schema, message.reset_hint = timestamp, row.schema, row.reset_hint
    message.sum, message.zero_threshold = from_bits(row.sum_bits), row.zero_threshold
    if row.is_float:
        message.count_float, message.zero_count_float = row.count, row.zero_count
    else:
        message.count_int, message.zero_count_int = int(row.count), int(row.zero_count)
    for side, buckets in (("negative", row.negative), ("positive", row.positive)):
        spans = getattr(message, f"{side}_spans")
        following = 0
        for i, (index, _) in enumerate(buckets):
            if i and index == following:
                spans[-1].length += 1
            else:
                spans.add(offset=index - following, length=1)
            following = index + 1
        counts = [count for _, count in buckets]
        if row.is_float:
            getattr(message, f"{side}_counts").extend(counts)
        else:
            deltas = [int(b) - int(a) for a, b in zip([0, *counts], counts, strict=False)]
            getattr(message, f"{side}_deltas").extend(deltas)
    message.custom_values.extend(row.custom)


def stored(row: Row) -> Row:
    """Return what is kept of a row, hint aside: of a stale one its sum."""
    if row.sum_bits == STALE_BITS:
        return Row(0, 0, row.is_float, 0.0, 0.0, 0.0, STALE_BITS, (), ())
    return row._replace(reset_hint=0)


def filled(row: Row) -> Row:
    """Return a row without its empty buckets, which histograms of one chunk give one another."""
    sides = [tuple((i, c) for i, c in side if c) for side in (row.negative, row.positive)]
    return row._replace(negative=sides[0], positive=sides[1])
