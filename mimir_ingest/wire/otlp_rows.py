"""Rows of a batch, one data point's series at a time, and native histograms of OTLP's two kinds of histogram.

A row is one series with one sample. Source: spec ingest-storage 8.9 ("Types").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint, HistogramDataPoint

from mimir_ingest.kernels.hashing import xxh64_spans
from mimir_ingest.model.batch import SOURCE_OTLP, STALE_NAN_BITS, MetadataColumns, WriteBatch
from mimir_ingest.model.exemplars import Exemplars
from mimir_ingest.model.histograms import (
    CUSTOM_BUCKETS_SCHEMA,
    GAUGE,
    MAX_SCHEMA,
    MIN_SCHEMA,
    RESET_UNKNOWN,
    Histograms,
    HistogramSamples,
)
from mimir_ingest.wire.histograms import HistogramFacts

ZERO_THRESHOLD = 1e-128
"""Of every histogram that comes from an exponential one."""
_FILLED_GAP = 2
"""Empty buckets in a gap that are listed; of a longer gap none is."""


_NO_BUCKETS = (np.empty(0, np.int64), np.empty(0, np.float64))


class UnusablePoint(ValueError):
    """A data point that cannot become a sample."""


@dataclass(slots=True)
class NativeHistogram:
    """One histogram, as it goes into the columns; absolute counts."""

    schema: int
    zero_threshold: float
    zero_count: float
    count: float
    sum: float
    negative: tuple[np.ndarray, np.ndarray]
    """Numbers (int64) and counts (float64) of the listed buckets, ascending; some are empty."""
    positive: tuple[np.ndarray, np.ndarray]
    custom_values: Sequence[float] = ()
    reset_hint: int = RESET_UNKNOWN
    stale: bool = False


def from_exponential(point: ExponentialHistogramDataPoint, *, gauge: bool, stale: bool) -> NativeHistogram:
    """Return the native histogram of an exponential one. Raises UnusablePoint."""
    if point.scale < MIN_SCHEMA:
        raise UnusablePoint(
            f"cannot convert exponential to native histogram. Scale must be >= {MIN_SCHEMA}, was {point.scale}"
        )
    down = min(max(point.scale - MAX_SCHEMA, 0), 63)
    return NativeHistogram(
        min(point.scale, MAX_SCHEMA),
        ZERO_THRESHOLD,
        float(point.zero_count),
        float(point.count),
        point.sum,
        *(_buckets(side.bucket_counts, side.offset, down) for side in (point.negative, point.positive)),
        reset_hint=GAUGE if gauge else RESET_UNKNOWN,
        stale=stale,
    )


def from_explicit(point: HistogramDataPoint, *, gauge: bool, stale: bool) -> NativeHistogram:
    """Return the native histogram with the bounds of an explicit-bounds one as custom buckets."""
    counts = np.array(point.bucket_counts, np.float64)
    filled = np.flatnonzero(counts)
    first = filled[0] if len(filled) else len(counts)
    return NativeHistogram(
        CUSTOM_BUCKETS_SCHEMA,
        0.0,
        0.0,
        float(point.count),
        point.sum,
        _NO_BUCKETS,
        _listed(filled, counts[filled], first, len(counts) - 1),
        tuple(point.explicit_bounds),
        reset_hint=GAUGE if gauge else RESET_UNKNOWN,
        stale=stale,
    )


def _buckets(bucket_counts: Sequence[int], offset: int, down: int) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers and counts of the listed buckets at a schema that is `down` coarser. Raises UnusablePoint."""
    if not bucket_counts:
        return _NO_BUCKETS
    counts = np.array(bucket_counts, np.float64)
    filled = np.flatnonzero(counts)
    # OTLP numbers a bucket by its lower bound, Prometheus by its upper one.
    numbers, counts = ((filled + offset) >> down) + 1, counts[filled]
    if len(numbers) and not -(1 << 31) <= numbers[0] <= numbers[-1] < 1 << 31:
        raise UnusablePoint(f"cannot convert exponential to native histogram. No bucket has the number {numbers[-1]}")
    if down and len(numbers):
        numbers, first = np.unique(numbers, return_index=True)
        counts = np.add.reduceat(counts, first)
    last = ((offset + len(bucket_counts) - 1) >> down) + 1
    return _listed(numbers, counts, (offset >> down) + 1, min(last, (1 << 31) - 1))


def _listed(numbers: np.ndarray, counts: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers and counts of the buckets that Prometheus lists for these filled ones, of `first` to `last`.

    The last one is listed, filled or not, and so are empty ones in short gaps, that before the first filled one too.
    """
    if first > last:
        return numbers, counts
    if not len(numbers) or numbers[-1] < last:
        numbers, counts = np.append(numbers, last), np.append(counts, 0.0)
    gaps = np.diff(numbers, prepend=first - 1) - 1
    if not gaps.any():
        return numbers, counts
    before = np.where(gaps <= _FILLED_GAP, gaps, 0)
    places = np.arange(len(numbers)) + np.cumsum(before)
    listed = np.repeat(numbers, before + 1)
    # What stands in the places before a filled one counts down from it.
    listed -= np.repeat(places, before + 1) - np.arange(len(listed))
    filled = np.zeros(len(listed), np.float64)
    filled[places] = counts
    return listed, filled


@dataclass(slots=True)
class Rows:
    """The batch of a request while it is made."""

    labels: list[bytes] = field(default_factory=list)
    points: list[int] = field(default_factory=list)
    """Data point of each row, -1 for none."""
    deltas: list[bool] = field(default_factory=list)
    """Whether the samples of each row are deltas."""
    sizes: list[int] = field(default_factory=list)
    """Float samples of each row."""
    timestamps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    """When what each float sample counts began (ms), 0 where that is not told."""
    stale: list[int] = field(default_factory=list)
    """Samples that are staleness markers."""
    histogram_rows: list[int] = field(default_factory=list)
    histogram_times: list[int] = field(default_factory=list)
    histogram_starts: list[int] = field(default_factory=list)
    histograms: list[NativeHistogram] = field(default_factory=list)
    exemplars: list[tuple[int, int, float, bytes]] = field(default_factory=list)
    """(row, ms, value, label bytes)."""

    def add(
        self,
        label_bytes: bytes,
        point: int,
        timestamp_ms: int,
        value: float,
        *,
        stale: bool = False,
        start_ms: int = 0,
        delta: bool = False,
    ) -> int:
        """Add a series with a sample, which counts since `start_ms` (0: not known). Return its row."""
        self.labels.append(label_bytes)
        self.points.append(point)
        self.deltas.append(delta)
        self.sizes.append(1)
        if stale:
            self.stale.append(len(self.timestamps))
        self.timestamps.append(timestamp_ms)
        self.values.append(value)
        self.starts.append(start_ms)
        return len(self.labels) - 1

    def add_all(
        self,
        label_bytes: Sequence[bytes],
        point: int,
        timestamp_ms: int,
        values: Sequence[float],
        *,
        stale: bool,
        start_ms: int,
        delta: bool,
    ) -> int:
        """Add the series of one data point, as `add` does, each with its value. Return the first row."""
        first, n = len(self.labels), len(values)
        self.labels += label_bytes
        self.points += [point] * n
        self.deltas += [delta] * n
        self.sizes += [1] * n
        if stale:
            self.stale += range(len(self.timestamps), len(self.timestamps) + n)
        self.timestamps += [timestamp_ms] * n
        self.values += values
        self.starts += [start_ms] * n
        return first

    def add_histogram(
        self,
        label_bytes: bytes,
        point: int,
        timestamp_ms: int,
        histogram: NativeHistogram,
        *,
        start_ms: int,
        delta: bool,
    ) -> int:
        """Add a series with a native histogram, as `add` does."""
        row = len(self.labels)
        self.labels.append(label_bytes)
        self.points.append(point)
        self.deltas.append(delta)
        self.sizes.append(0)
        self.histogram_rows.append(row)
        self.histogram_times.append(timestamp_ms)
        self.histogram_starts.append(start_ms)
        self.histograms.append(histogram)
        return row

    def add_ones(self, label_bytes: bytes, timestamps_ms: Sequence[int]) -> None:
        """Add a series with the value 1 at each time, of no data point."""
        self.labels.append(label_bytes)
        self.points.append(-1)
        self.deltas.append(False)
        self.sizes.append(len(timestamps_ms))
        self.timestamps += timestamps_ms
        self.values += [1.0] * len(timestamps_ms)
        self.starts += [0] * len(timestamps_ms)

    def batch(self, metadata: MetadataColumns) -> WriteBatch:
        """Return the rows as columns."""
        n = len(self.labels)
        labels = np.frombuffer(b"".join(self.labels), np.uint8)
        offsets = _bounds(map(len, self.labels), n)
        hashes = np.empty(n, np.uint64)
        xxh64_spans(labels, offsets, hashes)
        values = np.array(self.values, np.float64)
        values.view(np.uint64)[self.stale] = STALE_NAN_BITS
        return WriteBatch(
            labels,
            offsets,
            hashes,
            _bounds(self.sizes, n),
            np.array(self.timestamps, np.int64),
            values,
            metadata,
            SOURCE_OTLP,
            self._histogram_samples() if self.histograms else None,
            self._exemplars() if self.exemplars else None,
            np.array(self.starts, np.int64) if any(self.starts) else None,
            np.array(self.deltas, bool) if any(self.deltas) else None,
        )

    def _exemplars(self) -> Exemplars:
        rows, timestamps, values, labels = zip(*sorted(self.exemplars, key=lambda one: one[0]), strict=True)
        per_row = np.bincount(rows, minlength=len(self.labels))
        return Exemplars(
            _bounds(per_row, len(per_row)),
            np.array(timestamps, np.int64),
            np.array(values, np.float64),
            np.frombuffer(b"".join(labels), np.uint8),
            _bounds(map(len, labels), len(labels)),
        )

    def _histogram_samples(self) -> HistogramSamples:
        per_row = np.bincount(self.histogram_rows, minlength=len(self.labels))
        times = np.array(self.histogram_times, np.int64)
        starts = np.array(self.histogram_starts, np.int64) if any(self.histogram_starts) else None
        return HistogramSamples(_bounds(per_row, len(per_row)), times, _columns(self.histograms), starts)

    def histogram_facts(self) -> HistogramFacts | None:
        """Return what validation asks of histograms; None without any."""
        if not self.histograms:
            return None
        m = len(self.histograms)
        return HistogramFacts(
            np.array([one.schema for one in self.histograms], np.int64),
            np.array([len(one.negative[0]) + len(one.positive[0]) for one in self.histograms], np.int64),
            np.zeros(m, np.int64),
            np.zeros((m, 3), np.int64),
        )


def _bounds(sizes: object, n: int) -> np.ndarray:
    bounds = np.zeros(n + 1, np.int64)
    np.cumsum(np.fromiter(sizes, np.int64, n), out=bounds[1:])  # type: ignore[call-overload]
    return bounds


def _columns(rows: Sequence[NativeHistogram]) -> Histograms:
    m = len(rows)
    sides = [side for row in rows for side in (row.negative, row.positive)]
    sums = np.array([row.sum for row in rows], np.float64)
    sums.view(np.uint64)[[i for i, row in enumerate(rows) if row.stale]] = STALE_NAN_BITS
    return Histograms(
        np.array([row.schema for row in rows], np.int8),
        np.array([row.reset_hint for row in rows], np.uint8),
        np.zeros(m, bool),
        np.array([row.zero_threshold for row in rows], np.float64),
        np.array([row.zero_count for row in rows], np.float64),
        np.array([row.count for row in rows], np.float64),
        sums,
        _bounds((len(numbers) for numbers, _ in sides), 2 * m),
        np.concatenate([numbers for numbers, _ in sides]).astype(np.int32),
        np.concatenate([counts for _, counts in sides]),
        _bounds((len(row.custom_values) for row in rows), m),
        np.array([bound for row in rows for bound in row.custom_values], np.float64),
    )
