"""OTLP's exponential histograms, and explicit ones with their bounds as custom buckets, to native histograms.

Source: spec ingest-storage 8.9 ("Types").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mimir_ingest.kernels.otlp_buckets import list_buckets
from mimir_ingest.model.batch import STALE_NAN_BITS
from mimir_ingest.model.histograms import (
    CUSTOM_BUCKETS_SCHEMA,
    GAUGE,
    MAX_SCHEMA,
    MIN_SCHEMA,
    RESET_UNKNOWN,
    Histograms,
)
from mimir_ingest.wire.histograms import HistogramFacts
from mimir_ingest.wire.otlp_points import EXPONENTIALS, HISTOGRAMS, counts_of, histogram_lists, runs
from mimir_ingest.wire.otlp_tables import (
    COUNT,
    NEGATIVE,
    POSITIVE,
    SCALE,
    VALUE,
    ZEROS,
    RequestTables,
    read_buckets,
)

ZERO_THRESHOLD = 1e-128
"""Of every histogram that comes from an exponential one."""


class UnusablePoint(ValueError):
    """A data point that cannot become a sample."""


@dataclass(slots=True, eq=False)
class Natives:
    """Native histograms of some data points."""

    points: np.ndarray
    """int64[n]: data point of each."""
    values: Histograms

    def joined(self, other: Natives) -> Natives:
        """Return both."""
        points = np.concatenate([self.points, other.points])
        return Natives(points, Histograms.concat([self.values, other.values]))

    def facts(self) -> HistogramFacts:
        """Return what validation asks of them."""
        n = len(self.points)
        sent = self.values.bucket_offsets[2::2] - self.values.bucket_offsets[:-2:2]
        zeros = np.zeros(n, np.int64)
        return HistogramFacts(self.values.schema.astype(np.int64), sent, zeros, np.zeros((n, 3), np.int64))


def _buckets(
    counts: np.ndarray, starts: np.ndarray, ends: np.ndarray, shifts: np.ndarray, downs: np.ndarray, *, custom: bool
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the columns of buckets, and the numbers that do not fit; arguments as `list_buckets` takes them."""
    room, sides = int((ends - starts).sum()), len(starts)
    index, count = np.empty(room, np.int32), np.empty(room)
    offsets, wrong = np.empty(sides + 1, np.int64), np.empty(sides, np.int64)
    used = list_buckets(counts, starts, ends, shifts, downs, custom, index, count, offsets, wrong)
    return {"bucket_offsets": offsets, "bucket_index": index[:used], "bucket_count": count[:used]}, wrong


def _histograms(rows: np.ndarray, gauges: np.ndarray, stale: np.ndarray, **columns: np.ndarray) -> Histograms:
    """Return histograms with what both kinds have alike; arrays of n rows."""
    n = len(rows)
    sums = np.ascontiguousarray(rows[:, VALUE]).view(np.float64)
    sums.view(np.uint64)[stale] = STALE_NAN_BITS
    return Histograms(
        reset_hint=np.where(gauges, GAUGE, RESET_UNKNOWN).astype(np.uint8),
        is_float=np.zeros(n, bool),
        count=counts_of(rows, COUNT),
        sum=sums,
        **columns,
    )


def from_exponential(
    tables: RequestTables, chosen: np.ndarray, gauges: np.ndarray, stale: np.ndarray
) -> tuple[Natives, dict[int, UnusablePoint]]:
    """Return the histograms of exponential ones, and why others cannot become any.

    Parameters
    ----------
    chosen : int64[n]
        Data points.
    gauges, stale : bool[n]

    Returns
    -------
    natives, errors : Natives, dict
        Errors by data point.
    """
    rows = tables.points.tables[EXPONENTIALS].rows[chosen - tables.points.bounds[EXPONENTIALS]]
    n, scale = len(rows), rows[:, SCALE]
    places = rows[:, [NEGATIVE, NEGATIVE + 1, POSITIVE, POSITIVE + 1]].reshape(-1, 2).astype(np.int32)
    shifts, counts = read_buckets(tables.data, *map(np.ascontiguousarray, places.T))
    down = np.repeat(np.clip(scale - MAX_SCHEMA, 0, 63), 2)
    # OTLP numbers a bucket by its lower bound, Prometheus by its upper one.
    buckets, wrong = _buckets(counts.values, counts.offsets[:-1], counts.offsets[1:], shifts, down, custom=False)
    errors = _errors(chosen, scale, wrong)
    natives = Natives(
        chosen,
        _histograms(
            rows,
            gauges,
            stale,
            schema=np.clip(scale, -128, MAX_SCHEMA).astype(np.int8),
            zero_threshold=np.full(n, ZERO_THRESHOLD),
            zero_count=counts_of(rows, ZEROS),
            custom_offsets=np.zeros(n + 1, np.int64),
            custom_values=np.empty(0),
            **buckets,
        ),
    )
    if errors:
        kept = np.flatnonzero(~np.isin(chosen, list(errors)))
        natives = Natives(chosen[kept], natives.values.take(kept))
    return natives, errors


def _errors(chosen: np.ndarray, scale: np.ndarray, wrong: np.ndarray) -> dict[int, UnusablePoint]:
    """Return why histograms cannot be converted; `wrong` are the numbers of both sides that do not fit."""
    errors: dict[int, UnusablePoint] = {}
    for row in np.flatnonzero(scale < MIN_SCHEMA).tolist():
        errors[int(chosen[row])] = UnusablePoint(
            f"cannot convert exponential to native histogram. Scale must be >= {MIN_SCHEMA}, was {scale[row]}"
        )
    for side in np.flatnonzero(wrong).tolist():
        error = UnusablePoint(f"cannot convert exponential to native histogram. No bucket has the number {wrong[side]}")
        errors.setdefault(int(chosen[side // 2]), error)
    return errors


def from_explicit(tables: RequestTables, chosen: np.ndarray, gauges: np.ndarray, stale: np.ndarray) -> Natives:
    """Return the histograms of explicit ones, their bounds as custom buckets; arguments as in `from_exponential`."""
    places = chosen - tables.points.bounds[HISTOGRAMS]
    rows, n = tables.points.tables[HISTOGRAMS].rows[places], len(places)
    counts, bounds = histogram_lists(tables)
    # The negative side of each has no buckets; numbers begin at zero.
    starts, ends = np.repeat(counts.offsets[places], 2), np.repeat(counts.offsets[places + 1], 2)
    ends[::2] = starts[::2]
    buckets, _ = _buckets(counts.values, starts, ends, np.full(2 * n, -1), np.zeros(2 * n, np.int64), custom=True)
    of_bound, bound, custom_offsets = runs(np.diff(bounds.offsets)[places])
    return Natives(
        chosen,
        _histograms(
            rows,
            gauges,
            stale,
            schema=np.full(n, CUSTOM_BUCKETS_SCHEMA, np.int8),
            zero_threshold=np.zeros(n),
            zero_count=np.zeros(n),
            custom_offsets=custom_offsets,
            custom_values=bounds.values[bounds.offsets[places][of_bound] + bound],
            **buckets,
        ),
    )
