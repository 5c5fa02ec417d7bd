"""Results of queries, and the columns that evaluation works on.

Evaluation passes *blocks*: all series of an expression at all steps. A result holds only the points that exist.
Native histograms stand beside the numbers: each cell or sample that is one names a row of columns that all share, so
that repeating, filtering and relabelling copy no histogram. Where there are none, nothing is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy._core import multiarray

from mimir_ingest.model.frozen import frozen
from mimir_ingest.model.histograms import Histograms, gather_rows
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.spans import Check, bounded_spans
from mimir_ingest.promql.annotations import Annotations

PIECE_POINTS = 1 << 18
_PIECE_SERIES, _HISTOGRAM_POINTS = 1 << 14, 64
"""What is rendered at a time. why: it takes some 50 ms, and a few megabytes of working memory. A histogram counts as 64
points."""

count_true = multiarray.count_nonzero
"""Counts the trues among bools of any shape, without numpy's two wrappers, which cost more than counting a few."""


@frozen
class Steps:
    """The times at which an expression is evaluated: `start_ms + i * step_ms`, `count` of them."""

    start_ms: int
    step_ms: int
    """Greater than 0, also for a single step."""
    count: int
    at_once: bool = False
    """Whether the range that the steps span ends where it starts; only then has a vector an order."""

    @property
    def end_ms_incl(self) -> int:
        """The last step's time."""
        return self.start_ms + (self.count - 1) * self.step_ms

    @property
    def times_ms(self) -> np.ndarray:
        """int64[count]."""
        return np.arange(self.start_ms, self.end_ms_incl + 1, self.step_ms, np.int64)

    @classmethod
    def spanning(cls, start_ms: int, end_ms_incl: int, step_ms: int) -> Steps:
        """Return the steps from `start_ms` that are not after `end_ms_incl`; none if it lies before the start."""
        count = max(0, (end_ms_incl - start_ms) // step_ms + 1)
        return cls(start_ms, step_ms, count, start_ms == end_ms_incl)


@frozen
class HistogramCells:
    """The histograms among the cells of a block or a vector."""

    index: np.ndarray
    """int64[n, steps] or int64[n]: row of `rows`, -1 where a cell is a number; unspecified where absent."""
    rows: Histograms
    weights: np.ndarray
    """int64[len(rows)]: how many samples a histogram counts for."""

    def take(self, index: np.ndarray) -> HistogramCells:
        """Return the series at `index`."""
        return HistogramCells(self.index[index], self.rows, self.weights)


@frozen
class VectorBlock:
    """An instant vector at every step. Arrays must not be written to once the block is handed on."""

    labels: LabelFrame
    """n label sets; two may be equal as long as they are never present at the same step."""
    values: np.ndarray
    """float64[n, steps]; unspecified where absent."""
    present: np.ndarray
    """bool[n, steps]."""
    drop_name: np.ndarray
    """bool[n]: the metric name goes at the end of the query (delayed name removal)."""
    histograms: HistogramCells | None = None
    """None: all values are numbers."""

    @property
    def points(self) -> int:
        """Number of values; a histogram counts as its weight in samples."""
        if self.histograms is None:
            return int(count_true(self.present))
        here = self.histogram_present
        weight = int(self.histograms.weights[self.histograms.index[here]].sum())
        return int(np.count_nonzero(self.present)) - int(np.count_nonzero(here)) + weight

    @property
    def points_by_step(self) -> np.ndarray:
        """int64[steps]: `points` of each step."""
        return np.count_nonzero(self.present, axis=0) + self._more_points(axis=0)

    @property
    def points_by_row(self) -> np.ndarray:
        """int64[n]: `points` of each series."""
        n, steps = self.present.shape
        if self.histograms is None and count_true(self.present) == n * steps:
            return np.full(n, steps)
        return np.count_nonzero(self.present, axis=1) + self._more_points(axis=1)

    def _more_points(self, axis: int) -> np.ndarray | int:
        """Return what histograms count for beside one sample each, along an axis."""
        if self.histograms is None or not len(self.histograms.weights):
            return 0
        here = self.histogram_present
        return np.where(here, self.histograms.weights[np.where(here, self.histograms.index, 0)] - 1, 0).sum(axis=axis)

    @property
    def float_present(self) -> np.ndarray:
        """bool[n, steps]: where there is a number."""
        return self.present if self.histograms is None else self.present & (self.histograms.index < 0)

    @property
    def histogram_present(self) -> np.ndarray:
        """bool[n, steps]: where there is a histogram."""
        if self.histograms is None:
            return np.zeros_like(self.present)
        return self.present & (self.histograms.index >= 0)

    def take(self, rows: np.ndarray) -> VectorBlock:
        """Return the series at `rows` (int64[k] or bool[n])."""
        histograms = None if self.histograms is None else self.histograms.take(rows)
        return VectorBlock(
            self.labels.take(rows), self.values[rows], self.present[rows], self.drop_name[rows], histograms
        )

    def relabelled(self, labels: LabelFrame) -> VectorBlock:
        """Return the same values under other labels."""
        return replace(self, labels=labels)

    def where(self, present: np.ndarray) -> VectorBlock:
        """Return the cells of `present`, bool[n, steps], all of which must be present."""
        return replace(self, present=present)

    def of_numbers(self, values: np.ndarray, present: np.ndarray) -> VectorBlock:
        """Return the same series with numbers only: float64[n, steps], bool[n, steps]."""
        return VectorBlock(self.labels, values, present, self.drop_name)

    @classmethod
    def empty(cls, steps: int) -> VectorBlock:
        """Return no series."""
        return cls(LabelFrame.empty(), np.empty((0, steps)), np.empty((0, steps), bool), np.empty(0, bool))

    @classmethod
    def of_scalar(cls, values: np.ndarray) -> VectorBlock:
        """Return one series without labels that is always present; `values` is float64[steps]."""
        return cls(LabelFrame.empty(1), values[None, :], np.ones((1, len(values)), bool), np.zeros(1, bool))

    @classmethod
    def concat(cls, blocks: Sequence[VectorBlock]) -> VectorBlock:
        """Return the series of all blocks, one block after another."""
        return cls(
            LabelFrame.concat([b.labels for b in blocks]),
            np.concatenate([b.values for b in blocks]),
            np.concatenate([b.present for b in blocks]),
            np.concatenate([b.drop_name for b in blocks]),
            join_cells([b.histograms for b in blocks], [b.values.shape for b in blocks]),
        )


def join_cells(parts: Sequence[HistogramCells | None], shapes: Sequence[tuple[int, ...]]) -> HistogramCells | None:
    """Return the cells of all parts, one part after another; a part of numbers is None and has the shape given.

    Columns that parts share are not copied.
    """
    distinct: dict[int, HistogramCells] = {id(p.rows): p for p in parts if p is not None}
    if not distinct:
        return None
    sizes = np.cumsum([0, *(len(p.rows) for p in distinct.values())])
    shift = dict(zip(distinct, sizes.tolist(), strict=False))
    index = [
        np.full(shape, -1, np.int64) if p is None else np.where(p.index < 0, -1, p.index + shift[id(p.rows)])
        for p, shape in zip(parts, shapes, strict=True)
    ]
    return HistogramCells(
        np.concatenate(index),
        Histograms.concat([p.rows for p in distinct.values()]),
        np.concatenate([p.weights for p in distinct.values()]),
    )


@frozen
class HistogramPoints:
    """Histogram samples of n series."""

    offsets: np.ndarray
    """int64[n + 1]."""
    timestamps: np.ndarray
    """int64[m]: ms, ascending within a series."""
    rows: np.ndarray
    """int64[m]: row of `histograms`."""
    histograms: Histograms
    weights: np.ndarray
    """int64[len(histograms)]: how many samples a histogram counts for."""

    def take(self, series: np.ndarray) -> HistogramPoints:
        """Return the points of the series `series` (int64[k])."""
        at, offsets = gather_rows(self.offsets, series)
        return replace(self, offsets=offsets, timestamps=self.timestamps[at], rows=self.rows[at])

    def keep(self, mask: np.ndarray) -> HistogramPoints:
        """Return the points of the mask, bool[m]; the series stay."""
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(mask, dtype=np.int64)])[self.offsets]
        return replace(self, offsets=offsets, timestamps=self.timestamps[mask], rows=self.rows[mask])


@frozen
class RangeBlock:
    """The samples that windows slide over, staleness markers taken out."""

    labels: LabelFrame
    offsets: np.ndarray
    """int64[n + 1]."""
    timestamps: np.ndarray
    """int64[m]: ms, ascending within a series."""
    values: np.ndarray
    """float64[m]."""
    drop_name: np.ndarray
    """bool[n]."""
    histograms: HistogramPoints | None = None
    """Of the same series; None: there are none."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number at one time."""

    timestamp_ms: int
    value: float


@dataclass(frozen=True, slots=True)
class String:
    """A string at one time."""

    timestamp_ms: int
    value: str


@frozen
class Vector:
    """One value a series, at one time; the order means something after sorting and ranking functions."""

    labels: LabelFrame
    timestamp_ms: int
    values: np.ndarray
    """float64[n]."""
    histograms: HistogramCells | None = None
    """None: all values are numbers."""

    def pieces(self, check: Check | None = None) -> Iterator[tuple[int, Vector]]:
        """Yield (first series, a part of the vector), each of a bounded size; `check` is called before each."""
        for first in range(0, self.labels.n, _PIECE_SERIES):
            if check is not None:
                check()
            if self.labels.n <= _PIECE_SERIES:
                yield 0, self
                continue
            rows = slice(first, first + _PIECE_SERIES)
            cells = None if self.histograms is None else self.histograms.take(rows)
            yield first, Vector(self.labels.take(rows), self.timestamp_ms, self.values[rows], cells)


@frozen
class Matrix:
    """Points of n series, each with at least one number or histogram; series in label order."""

    labels: LabelFrame
    offsets: np.ndarray
    """int64[n + 1]: series i has the points `offsets[i]:offsets[i + 1]`."""
    timestamps: np.ndarray
    """int64[m]: ms."""
    values: np.ndarray
    """float64[m]."""
    histograms: HistogramPoints | None = None
    """Of the same series; None: there are none."""

    def pieces(self, check: Check | None = None) -> Iterator[tuple[int, Matrix]]:
        """Yield (first series, some series): a bounded number of points, or one series; `check` as for vectors."""
        if check is None and self.histograms is None and 0 < self.labels.n <= len(self.values) <= PIECE_POINTS // 2:
            yield 0, self
            return
        weights = self.offsets + np.arange(self.labels.n + 1)
        if self.histograms is not None:
            weights = weights + _HISTOGRAM_POINTS * self.histograms.offsets
        for first, last in bounded_spans(weights, PIECE_POINTS, check):
            if last - first == self.labels.n:
                yield first, self
                continue
            begin, end = int(self.offsets[first]), int(self.offsets[last])
            points, rows = (self.timestamps[begin:end], self.values[begin:end]), np.arange(first, last)
            own = None if self.histograms is None else self.histograms.take(rows)
            yield first, Matrix(self.labels.take(rows), self.offsets[first : last + 1] - begin, *points, own)


@dataclass(slots=True)
class QueryStats:
    """Samples that a query went through, counted as Prometheus does (`util/stats/query_stats.go`)."""

    total_queryable_samples: int = 0
    """For range vectors the whole window counts at every step."""
    samples_read: int = 0
    """For range vectors only samples that the step before had not."""
    peak_samples: int = 0
    """Most values held at a time."""
    total_per_step: np.ndarray | None = None
    read_per_step: np.ndarray | None = None
    """int64[steps] each: the first two by step; None where nobody asks."""
    steps: Steps | None = None
    """Those steps."""

    @classmethod
    def by_step(cls, steps: Steps) -> QueryStats:
        """Return counts of nothing that are also kept by step."""
        return cls(
            total_per_step=np.zeros(steps.count, np.int64), read_per_step=np.zeros(steps.count, np.int64), steps=steps
        )

    @property
    def per_step(self) -> bool:
        """Whether counts are kept by step, too."""
        return self.total_per_step is not None

    def add_steps(self, total: np.ndarray | int, read: np.ndarray | int) -> None:
        """Add to the counts of each step, where these are kept: int64[steps] or what all steps have alike."""
        if self.total_per_step is not None:
            self.total_per_step += total
            self.read_per_step += read


@frozen
class QueryResult:
    """What a query evaluates to."""

    value: Vector | Matrix | Scalar | String
    annotations: Annotations = field(default_factory=Annotations)
    stats: QueryStats = field(default_factory=QueryStats)
