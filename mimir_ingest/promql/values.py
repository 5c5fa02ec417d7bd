"""Results of queries, and the columns that evaluation works on.

Evaluation passes *blocks*: all series of an expression at all steps. A result holds only the points that exist.
Native histograms are no values yet; a histogram column would stand beside `values` in both forms.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.promql.annotations import Annotations


@dataclass(frozen=True, slots=True)
class Steps:
    """The times at which an expression is evaluated: `start_ms + i * step_ms`, `count` of them."""

    start_ms: int
    step_ms: int
    """Greater than 0, also for a single step."""
    count: int

    @property
    def end_ms_incl(self) -> int:
        """The last step's time."""
        return self.start_ms + (self.count - 1) * self.step_ms

    @property
    def times_ms(self) -> np.ndarray:
        """int64[count]."""
        return self.start_ms + np.arange(self.count, dtype=np.int64) * self.step_ms

    @classmethod
    def spanning(cls, start_ms: int, end_ms_incl: int, step_ms: int) -> Steps:
        """Return the steps from `start_ms` that are not after `end_ms_incl`; none if it lies before the start."""
        return cls(start_ms, step_ms, max(0, (end_ms_incl - start_ms) // step_ms + 1))


@dataclass(frozen=True, slots=True)
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

    @property
    def points(self) -> int:
        """Number of values."""
        return int(np.count_nonzero(self.present))

    def take(self, rows: np.ndarray) -> VectorBlock:
        """Return the series at `rows` (int64[k] or bool[n])."""
        return VectorBlock(self.labels.take(rows), self.values[rows], self.present[rows], self.drop_name[rows])

    def relabelled(self, labels: LabelFrame) -> VectorBlock:
        """Return the same values under other labels."""
        return VectorBlock(labels, self.values, self.present, self.drop_name)

    @classmethod
    def empty(cls, steps: int) -> VectorBlock:
        """Return no series."""
        return cls(LabelFrame.empty(), np.empty((0, steps)), np.empty((0, steps), bool), np.empty(0, bool))

    @classmethod
    def of_scalar(cls, values: np.ndarray) -> VectorBlock:
        """Return one series without labels that is always present; `values` is float64[steps]."""
        return cls(LabelFrame.empty(1), values[None, :], np.ones((1, len(values)), bool), np.zeros(1, bool))


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Vector:
    """One value a series, at one time; the order means something after sorting and ranking functions."""

    labels: LabelFrame
    timestamp_ms: int
    values: np.ndarray
    """float64[n]."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Points of n series, each with at least one; series in label order."""

    labels: LabelFrame
    offsets: np.ndarray
    """int64[n + 1]: series i has the points `offsets[i]:offsets[i + 1]`."""
    timestamps: np.ndarray
    """int64[m]: ms."""
    values: np.ndarray
    """float64[m]."""


@dataclass(slots=True)
class QueryStats:
    """Samples that a query went through, counted as Prometheus does (`util/stats/query_stats.go`)."""

    total_queryable_samples: int = 0
    """For range vectors the whole window counts at every step."""
    samples_read: int = 0
    """For range vectors only samples that the step before had not."""
    peak_samples: int = 0
    """Most values held at a time."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a query evaluates to."""

    value: Vector | Matrix | Scalar | String
    annotations: Annotations = field(default_factory=Annotations)
    stats: QueryStats = field(default_factory=QueryStats)
