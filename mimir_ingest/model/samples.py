"""What a selector gives: series with their raw samples, as columns."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import numpy as np

from mimir_ingest.errors import QueryError
from mimir_ingest.model.frozen import frozen
from mimir_ingest.model.histograms import HistogramSamples, gather_columns
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.spans import Check

TOO_MANY_SAMPLES = "query processing would load too many samples into memory in query execution"
"""Prometheus's text for a query that needs more than `-querier.max-samples`."""


@frozen
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

    def in_label_order(self, check: Check | None = None) -> SeriesSamples:
        """Return the same series ordered by labels; `check` is called between parts of the work."""
        order = self.labels.sort_order()
        if (order[1:] > order[:-1]).all():
            return self
        columns, offsets = gather_columns(self.offsets, order, (self.timestamps, self.values), check)
        histograms = None if self.histograms is None else self.histograms.take(order, check)
        return SeriesSamples(self.labels.take(order), offsets, *columns, histograms)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """A tenant's bounds on what one query reads; 0 is none."""

    max_series: int = 0
    max_chunks: int = 0
    max_chunk_bytes: int = 0


_ADVICE = (
    "Consider reducing the time range and/or number of series selected by the query. One way to reduce the number of "
    "selected series is to add more label matchers to the query. Otherwise, to adjust the related per-tenant limit, "
    "configure -querier.{flag}, or contact your service administrator."
)


def _over_limit(text: str, error_id: str, flag: str) -> QueryError:
    """Return the error of a passed limit, with Mimir's text. Source: spec http-api.md 15."""
    return QueryError(f"{text} (err-mimir-{error_id}). {_ADVICE.format(flag=flag)}")


_NO_FETCH_LIMITS = FetchLimits()


def _given_up() -> QueryError:
    return QueryError("the read was given up", error_type="canceled")


class SampleBudget:
    """How much a query may still read. Readers take from it before they decode; any number of threads may."""

    def __init__(self, samples: int, fetch: FetchLimits | None = None) -> None:
        """Begin with `samples`, 0 or less is no bound, and a tenant's limits."""
        self._limit = samples
        self._fetch = fetch = fetch or _NO_FETCH_LIMITS
        self._taken = 0
        self._chunks = self._chunk_bytes = 0
        self._ended = False
        self._lock = threading.Lock()
        self.limits_series = fetch.max_series > 0
        """Whether readers have to tell how many series they found."""

    def check_series(self, count: int) -> None:
        """Raise QueryError if `count` distinct series are too many.

        Each reader tells its own, so what several have is seen when they are merged.
        """
        limit = self._fetch.max_series
        if 0 < limit < count:
            raise _over_limit(
                f"the query exceeded the maximum number of series (limit: {limit} series)",
                "max-series-per-query",
                "max-fetched-series-per-query",
            )

    def take_chunks(self, count: int, size_bytes: int) -> None:
        """Count chunks that are going to be read, and their bytes. Raises QueryError if they are too many."""
        fetch = self._fetch
        with self._lock:
            if self._ended:
                raise _given_up()
            self._chunks += count
            self._chunk_bytes += size_bytes
            if 0 < fetch.max_chunks < self._chunks:
                raise _over_limit(
                    f"the query exceeded the maximum number of chunks (limit: {fetch.max_chunks} chunks)",
                    "max-chunks-per-query",
                    "max-fetched-chunks-per-query",
                )
            if 0 < fetch.max_chunk_bytes < self._chunk_bytes:
                raise _over_limit(
                    f"the query exceeded the aggregated chunks size limit (limit: {fetch.max_chunk_bytes} bytes)",
                    "max-chunks-bytes-per-query",
                    "max-fetched-chunk-bytes-per-query",
                )

    def take(self, samples: int) -> None:
        """Count samples that are going to be held. Raises QueryError (execution) if they are too many."""
        with self._lock:
            if self._ended:
                raise _given_up()
            self._taken += samples
            if 0 < self._limit < self._taken:
                raise QueryError(TOO_MANY_SAMPLES)

    def check(self) -> None:
        """Raise QueryError (canceled) if nobody waits any more; for readers, between parts of their work."""
        if self._ended:
            raise _given_up()

    def end(self) -> None:
        """Let readers that are still at work stop at their next samples. Idempotent."""
        self._ended = True

    @property
    def taken(self) -> tuple[int, int, int]:
        """What was taken so far: samples, chunks, their bytes."""
        return self._taken, self._chunks, self._chunk_bytes

    def give_back_to(self, samples: int, chunks: int, chunk_bytes: int) -> None:
        """Forget what was taken since `taken` said this; for a budget that nobody else takes from meanwhile."""
        with self._lock:
            self._taken, self._chunks, self._chunk_bytes = samples, chunks, chunk_bytes

    def give_back(self, samples: int, chunks: int, chunk_bytes: int) -> None:
        """Count what is not held any more."""
        with self._lock:
            self._taken -= samples
            self._chunks -= chunks
            self._chunk_bytes -= chunk_bytes

    def attempt(self) -> BudgetAttempt:
        """Return a part for a read that may fail and be repeated elsewhere."""
        return BudgetAttempt(self, self._fetch)


class BudgetAttempt(SampleBudget):
    """What one try at a read takes from a query's budget; `abandon` gives it back."""

    def __init__(self, whole: SampleBudget, fetch: FetchLimits) -> None:
        super().__init__(0, fetch)
        self._whole = whole

    def take(self, samples: int) -> None:
        """Count samples, also with the whole. Raises QueryError if they are too many or the try was given up."""
        with self._lock:
            self.check()
            self._taken += samples
            self._whole.take(samples)

    def take_chunks(self, count: int, size_bytes: int) -> None:
        """Count chunks, also with the whole. Raises QueryError if they are too many or the try was given up."""
        with self._lock:
            self.check()
            self._chunks += count
            self._chunk_bytes += size_bytes
            self._whole.take_chunks(count, size_bytes)

    def check(self) -> None:
        """Raise QueryError (canceled) if the try, or the whole, was given up."""
        super().check()
        self._whole.check()

    def abandon(self) -> None:
        """Give everything back; readers that are still at work stop at their next samples. Idempotent."""
        with self._lock:
            self._ended = True
            taken = self._taken, self._chunks, self._chunk_bytes
            self._taken = self._chunks = self._chunk_bytes = 0
        self._whole.give_back(*taken)
