"""Native histograms as columns: what the wire, the head, blocks and PromQL pass to each other.

Source: spec ingest-storage 1.2 (`Histogram`); Prometheus's native histogram specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mimir_ingest.kernels.histogram_check import check_histograms, digest_histograms
from mimir_ingest.kernels.histogram_columns import HistogramColumns
from mimir_ingest.kernels.histogram_layout import digest_buckets
from mimir_ingest.kernels.histogram_plan import STALE, rank_among
from mimir_ingest.model.spans import Check, bounded_spans

CUSTOM_BUCKETS_SCHEMA = -53
MIN_SCHEMA, MAX_SCHEMA = -4, 8
"""Exponential schemas that are stored."""

RESET_UNKNOWN, RESET, NO_RESET, GAUGE = 0, 1, 2, 3
"""Reset hints, by the numbers of the wire (spec 1.2)."""


_SPAN_ROWS = 1 << 19
"""Rows that are moved at a time. why: 5 ms, and the numbers of the rows are no more memory than a small query has."""


def histogram_weight(buckets: np.ndarray | int) -> np.ndarray | int:
    """Return for how many float samples a histogram with so many buckets stands in a query's limit on samples.

    Source: Prometheus's `FloatHistogram.Size` in units of a float sample: 16 bytes, spans left out.
    """
    return 10 + buckets // 2


def gather_rows(offsets: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the rows of the spans `index` lie, and the spans' new bounds.

    Parameters
    ----------
    offsets : int64[n + 1]
        Span i has the rows `offsets[i]:offsets[i + 1]`.
    index : int64[k]
        Spans, each in `[0, n)`.

    Returns
    -------
    rows, bounds : int64[m], int64[k + 1]
        Rows of the spans one after another, and where each span begins among them.
    """
    counts = offsets[index + 1] - offsets[index]
    bounds = np.zeros(len(index) + 1, np.int64)
    np.cumsum(counts, out=bounds[1:])
    return np.repeat(offsets[index] - bounds[:-1], counts) + np.arange(bounds[-1]), bounds


def gather_columns(
    offsets: np.ndarray, index: np.ndarray, columns: Sequence[np.ndarray], check: Check | None = None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the rows of the spans `index` in each column, a bounded number at a time, and the spans' new bounds.

    Arguments and bounds as in `gather_rows`; `check` is called before each part.
    """
    counts = offsets[index + 1] - offsets[index]
    bounds = np.zeros(len(index) + 1, np.int64)
    np.cumsum(counts, out=bounds[1:])
    if bounds[-1] <= _SPAN_ROWS:
        rows = np.repeat(offsets[index] - bounds[:-1], counts) + np.arange(bounds[-1])
        return [column[rows] for column in columns], bounds
    out = [np.empty(bounds[-1], column.dtype) for column in columns]
    for first, last in bounded_spans(bounds, _SPAN_ROWS, check):
        rows, _ = gather_rows(offsets, index[first:last])
        for column, taken in zip(columns, out, strict=True):
            taken[bounds[first] : bounds[last]] = column[rows]
    return out, bounds


@dataclass(frozen=True, slots=True)
class Histograms:
    """n native histograms. Arrays may be read-only views over a record's bytes."""

    schema: np.ndarray
    """int8[n]: -4 to 8, or CUSTOM_BUCKETS_SCHEMA."""
    reset_hint: np.ndarray
    """uint8[n]: RESET_UNKNOWN, RESET, NO_RESET or GAUGE."""
    is_float: np.ndarray
    """bool[n]: counts came as floats; decides the chunk encoding."""
    zero_threshold: np.ndarray
    """float64[n]."""
    zero_count: np.ndarray
    """float64[n]."""
    count: np.ndarray
    """float64[n]."""
    sum: np.ndarray
    """float64[n]: bit-exact; the staleness marker's bits here make the sample a stale one."""
    bucket_offsets: np.ndarray
    """int64[2n + 1]: histogram i has the negative buckets `[2i]:[2i + 1]` and the positive ones `[2i + 1]:[2i + 2]`."""
    bucket_index: np.ndarray
    """int32[b]: number of each bucket, ascending within a slice."""
    bucket_count: np.ndarray
    """float64[b]: absolute count of each bucket."""
    custom_offsets: np.ndarray
    """int64[n + 1]: histogram i has the bounds `custom_values[[i]:[i + 1]]`; none with an exponential schema."""
    custom_values: np.ndarray
    """float64[c]: upper bounds, ascending."""

    @classmethod
    def empty(cls) -> Histograms:
        """Return no histograms."""
        return cls(
            np.empty(0, np.int8),
            np.empty(0, np.uint8),
            np.empty(0, bool),
            *(np.empty(0, np.float64) for _ in range(4)),
            np.zeros(1, np.int64),
            np.empty(0, np.int32),
            np.empty(0, np.float64),
            np.zeros(1, np.int64),
            np.empty(0, np.float64),
        )

    def __len__(self) -> int:
        return len(self.schema)

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        return sum(getattr(self, name).nbytes for name in self.__slots__)

    @property
    def columns(self) -> HistogramColumns:
        """The columns as kernels take them."""
        arrays = (getattr(self, name) for name in HistogramColumns._fields)
        return HistogramColumns(*(_read_only(np.ascontiguousarray(array)) for array in arrays))

    @property
    def stale(self) -> np.ndarray:
        """bool[n]: which are staleness markers."""
        return np.ascontiguousarray(self.sum).view(np.uint64) == STALE

    def stored(self) -> Histograms:
        """Return the histograms as they are stored, buckets as sent, the empty ones among them.

        Stale ones have nothing but their sum; that there was no reset is for the reader to find out, since the sender
        may not have seen the sample before.
        """
        stale = self.stale
        kept = np.isin(self.reset_hint, (RESET, GAUGE)) & ~stale
        values = replace(self, reset_hint=np.where(kept, self.reset_hint, np.uint8(RESET_UNKNOWN)))
        if not stale.any():
            return values
        return replace(
            values._without_buckets(stale),
            schema=np.where(stale, np.int8(0), self.schema),
            zero_threshold=np.where(stale, 0.0, self.zero_threshold),
            zero_count=np.where(stale, 0.0, self.zero_count),
            count=np.where(stale, 0.0, self.count),
        )

    def _without_buckets(self, which: np.ndarray) -> Histograms:
        """Return the histograms, those of the mask (bool[n]) without buckets."""
        sizes, sides = np.diff(self.bucket_offsets), np.repeat(which, 2)
        kept = np.repeat(~sides, sizes)
        return replace(
            self,
            bucket_offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(np.where(sides, 0, sizes))]),
            bucket_index=self.bucket_index[kept],
            bucket_count=self.bucket_count[kept],
        )

    def digests(self) -> np.ndarray:
        """Return uint64[n]: what tells histograms apart; reset hints and empty buckets do not count."""
        digests = np.empty(len(self), np.uint64)
        digest_histograms(self.columns, digests)
        return digests

    def bucket_digests(self) -> np.ndarray:
        """Return uint64[n]: what tells apart which buckets are listed; 0: none are."""
        digests = np.empty(len(self), np.uint64)
        digest_buckets(self.columns, digests)
        return digests

    def faults(self) -> np.ndarray:
        """Return uint8[n]: what is wrong with each (kernels.histogram_check.HistogramFault)."""
        faults = np.empty(len(self), np.uint8)
        check_histograms(self.columns, faults)
        return faults

    def take(self, index: np.ndarray, check: Check | None = None) -> Histograms:
        """Return the histograms at `index` (int64[k]; a mask of bool[n] will do too).

        `check` is called between parts of the work.
        """
        index = np.asarray(index)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        sides = (2 * index[:, None] + np.arange(2)).reshape(-1)
        (bucket_index, bucket_count), bucket_offsets = gather_columns(
            self.bucket_offsets, sides, (self.bucket_index, self.bucket_count), check
        )
        (custom_values,), custom_offsets = gather_columns(self.custom_offsets, index, (self.custom_values,), check)
        return Histograms(
            self.schema[index],
            self.reset_hint[index],
            self.is_float[index],
            self.zero_threshold[index],
            self.zero_count[index],
            self.count[index],
            self.sum[index],
            bucket_offsets,
            bucket_index,
            bucket_count,
            custom_offsets,
            custom_values,
        )

    def emptied(self, which: np.ndarray) -> Histograms:
        """Return the histograms, those of the mask (bool[n]) as before any observation, with the hint of a reset."""
        if not which.any():
            return self
        return replace(
            self._without_buckets(which),
            reset_hint=np.where(which, np.uint8(RESET), self.reset_hint),
            zero_count=np.where(which, 0.0, self.zero_count),
            count=np.where(which, 0.0, self.count),
            sum=np.where(which, 0.0, self.sum),
        )

    @classmethod
    def concat(cls, parts: Sequence[Histograms]) -> Histograms:
        """Return the histograms of all parts, one part after another."""
        if not parts:
            return cls.empty()
        if len(parts) == 1:
            return parts[0]
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in cls.__slots__
            if name not in ("bucket_offsets", "custom_offsets")
        }
        columns["bucket_offsets"] = _chained([part.bucket_offsets for part in parts])
        columns["custom_offsets"] = _chained([part.custom_offsets for part in parts])
        return cls(**columns)


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _chained(offsets: Sequence[np.ndarray]) -> np.ndarray:
    """Return the offsets of spans that follow one another."""
    shifts = np.cumsum([0, *(int(part[-1]) for part in offsets)])
    moved = [part[1:] + shift for part, shift in zip(offsets, shifts[:-1], strict=True)]
    return np.concatenate([np.zeros(1, np.int64), *moved])


@dataclass(frozen=True, slots=True)
class HistogramSamples:
    """Histogram samples of a number of series."""

    offsets: np.ndarray
    """int64[series + 1]: series i has the samples `offsets[i]:offsets[i + 1]`."""
    timestamps: np.ndarray
    """int64[m]: ms since the Unix epoch."""
    values: Histograms
    """m histograms."""
    starts: np.ndarray | None = None
    """int64[m] (ms): when what a histogram counts began, 0 where that is not known; None: it is for none."""

    @classmethod
    def empty(cls, series: int = 0) -> HistogramSamples:
        """Return `series` series without samples."""
        return cls(np.zeros(series + 1, np.int64), np.empty(0, np.int64), Histograms.empty())

    @property
    def series_count(self) -> int:
        """Number of series."""
        return len(self.offsets) - 1

    @property
    def sample_count(self) -> int:
        """Number of samples."""
        return len(self.timestamps)

    def take(self, index: np.ndarray, check: Check | None = None) -> HistogramSamples:
        """Return the series at `index` (int64[k]) with their samples; `check` is called between parts of the work."""
        rows, offsets = gather_rows(self.offsets, np.asarray(index, np.int64))
        starts = self.starts[rows] if self.starts is not None else None
        return HistogramSamples(offsets, self.timestamps[rows], self.values.take(rows, check), starts)

    def keep(self, mask: np.ndarray, check: Check | None = None) -> HistogramSamples:
        """Return the samples of the mask (bool[m]); the series stay. `check` is called between parts of the work."""
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(mask)])[self.offsets]
        starts = self.starts[mask] if self.starts is not None else None
        return HistogramSamples(offsets, self.timestamps[mask], self.values.take(mask, check), starts)

    def without_times_of(
        self, offsets: np.ndarray, timestamps: np.ndarray, check: Check | None = None
    ) -> HistogramSamples:
        """Return the samples whose time no other sample of their series has; others: int64[n + 1], int64[k] (ms)."""
        ranks = np.empty(self.sample_count, np.int64)
        if not rank_among(self.offsets, self.timestamps, offsets, timestamps, ranks):
            return self
        return self.keep(ranks & 1 == 0, check)

    @classmethod
    def concat(cls, parts: Sequence[HistogramSamples]) -> HistogramSamples:
        """Return the series of all parts, one part after another; their starts are left out."""
        if not parts:
            return cls.empty()
        return cls(
            _chained([part.offsets for part in parts]),
            np.concatenate([part.timestamps for part in parts]),
            Histograms.concat([part.values for part in parts]),
        )
