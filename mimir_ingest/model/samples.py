"""What a selector gives: series with their raw samples, as columns."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import numpy as np

from mimir_ingest.errors import QueryError
from mimir_ingest.model.histograms import HistogramSamples, gather_rows
from mimir_ingest.model.labels import LabelFrame

TOO_MANY_SAMPLES = "query processing would load too many samples into memory in query execution"
"""Prometheus's text for a query that needs more than `-querier.max-samples`."""


@dataclass(frozen=True, slots=True)
class SeriesSamples:
    """Raw samples of n series.

    Within a series timestamps ascend strictly, over floats and histograms together. Label sets are distinct. Values are
    bit-exact; staleness markers are still in.
    """

    labels: LabelFrame
    """n label sets."""
    offsets: np.ndarray
    """int64[n + 1]: series i has the samples `offsets[i]:offsets[i + 1]`."""
    timestamps: np.ndarray
    """int64[m]: ms since the Unix epoch."""
    values: np.ndarray
    """float64[m]."""
    histograms: HistogramSamples | None = None
    """Native histograms of the same n series; None: there are none."""

    @classmethod
    def empty(cls) -> SeriesSamples:
        """Return no series."""
        return cls(LabelFrame.empty(), np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))

    @property
    def series_count(self) -> int:
        """Number of series."""
        return len(self.offsets) - 1

    @property
    def sample_count(self) -> int:
        """Number of float samples."""
        return len(self.timestamps)

    @property
    def histogram_count(self) -> int:
        """Number of native histograms."""
        return 0 if self.histograms is None else self.histograms.sample_count

    def ascends(self) -> bool:
        """Whether timestamps ascend strictly within each series, each kind for itself."""
        kinds = [(self.offsets, self.timestamps)]
        if self.histograms is not None:
            kinds.append((self.histograms.offsets, self.histograms.timestamps))
        for offsets, timestamps in kinds:
            later = np.ones(len(timestamps) + 1, bool)
            later[1:-1] = timestamps[1:] > timestamps[:-1]
            later[offsets] = True
            if not later.all():
                return False
        return True

    def in_label_order(self) -> SeriesSamples:
        """Return the same series ordered by labels."""
        order = self.labels.sort_order()
        if (order[1:] > order[:-1]).all():
            return self
        rows, offsets = gather_rows(self.offsets, order)
        return SeriesSamples(
            self.labels.take(order),
            offsets,
            self.timestamps[rows],
            self.values[rows],
            None if self.histograms is None else self.histograms.take(order),
        )


def without_empty_series(samples: SeriesSamples) -> SeriesSamples:
    """Return the series that have samples of either kind; `histograms` is None when there are none."""
    counts = np.diff(samples.offsets)
    histograms = samples.histograms
    if histograms is not None:
        if histograms.sample_count:
            counts = counts + np.diff(histograms.offsets)
        else:
            histograms = None
    if counts.all():
        return samples if histograms is samples.histograms else replace(samples, histograms=None)
    filled = np.flatnonzero(counts)
    if histograms is not None:
        histograms = replace(histograms, offsets=np.append(histograms.offsets[filled], histograms.offsets[-1]))
    offsets = np.append(samples.offsets[filled], samples.offsets[-1])
    return SeriesSamples(samples.labels.take(filled), offsets, samples.timestamps, samples.values, histograms)


class SampleBudget:
    """How many samples a query may still read. Readers take from it before they decode; any number of threads may."""

    def __init__(self, samples: int) -> None:
        """Begin with `samples`; 0 or less is no bound."""
        self._limit = samples
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, samples: int) -> None:
        """Count samples that are going to be held. Raises QueryError (execution) if they are too many."""
        with self._lock:
            self._taken += samples
            if 0 < self._limit < self._taken:
                raise QueryError(TOO_MANY_SAMPLES)

    def give_back(self, samples: int) -> None:
        """Count samples that are not held any more."""
        with self._lock:
            self._taken -= samples

    def attempt(self) -> BudgetAttempt:
        """Return a part for a read that may fail and be repeated elsewhere."""
        return BudgetAttempt(self)


class BudgetAttempt(SampleBudget):
    """What one try at a read takes from a query's budget; `abandon` gives it back."""

    def __init__(self, whole: SampleBudget) -> None:
        super().__init__(0)
        self._whole = whole
        self._abandoned = False

    def take(self, samples: int) -> None:
        """Count samples, also with the whole. Raises QueryError if they are too many or the try was given up."""
        with self._lock:
            if self._abandoned:
                raise QueryError("the read was given up", error_type="canceled")
            self._taken += samples
            self._whole.take(samples)

    def abandon(self) -> None:
        """Give everything back; readers that are still at work stop at their next samples. Idempotent."""
        with self._lock:
            self._abandoned = True
            taken, self._taken = self._taken, 0
        self._whole.give_back(taken)
