"""The series that a head knows: their refs, what came last of each, and what the series limits count.

A ref is a series' number in the table. A forgotten series keeps its ref until the table is made anew; its last
timestamp is NO_SAMPLE meanwhile. FRESH is that of a series without a sample yet. The head's lock guards all of it.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels.head import FRESH, NO_SAMPLE, ROW_NOT_ELIGIBLE, eligible_rows
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.model.byte_table import grown
from mimir_ingest.model.histograms import HistogramSamples
from mimir_ingest.tsdb.series_limits import ADMITTED, MetricCounts, SeriesLimits, judge_new_series
from mimir_ingest.tsdb.series_table import SeriesTable


class KnownSeries:
    """See the module's header. One writer."""

    def __init__(self) -> None:
        self.table = SeriesTable()
        self.last_ts = np.empty(0, np.int64)
        """int64[...], at least as many as the table has: timestamp (ms) of the last sample."""
        self.last_value = np.empty(0, np.float64)
        """float64[...], as `last_ts`."""
        self.live_count = 0
        self.created_count = 0
        self._dead_count = 0
        self._metrics: MetricCounts | None = None
        """Known series by metric; None until a limit asks for it."""

    @classmethod
    def of(
        cls, labels: tuple[np.ndarray, np.ndarray, np.ndarray], last_ts: np.ndarray, last_value: np.ndarray
    ) -> KnownSeries:
        """Return the series of (label bytes, offsets, hashes), numbered in their order; what came last is copied."""
        series = cls()
        text, offsets, hashes = labels
        series.table.intern(text, offsets[:-1], offsets[1:], hashes)
        series.last_ts, series.last_value = last_ts.copy(), last_value.copy()
        series._dead_count = int((last_ts == NO_SAMPLE).sum())
        series.live_count = series.created_count = len(last_ts) - series._dead_count
        return series

    def kept(self, refs: np.ndarray) -> KnownSeries:
        """Return the series `refs` (int64[k], all live ones among them) with the refs 0..k."""
        series = KnownSeries.of(self.table.view().label_bytes(refs), self.last_ts[refs], self.last_value[refs])
        series.live_count, series.created_count, series._metrics = self.live_count, self.created_count, self._metrics
        return series

    @property
    def mostly_dead(self) -> bool:
        """Whether the table is worth making anew."""
        return self._dead_count > max(1024, self.live_count)

    def live(self) -> np.ndarray:
        """Return int32[...], the refs of known series."""
        return np.flatnonzero(self.last_ts[: self.table.count] != NO_SAMPLE).astype(np.int32)

    def forget(self, before_ms: int) -> np.ndarray:
        """Forget the series whose last sample is older; return bool[count], which those are."""
        last_ts = self.last_ts[: self.table.count]
        forgotten = (last_ts < before_ms) & (last_ts != NO_SAMPLE)
        last_ts[forgotten] = NO_SAMPLE
        count = int(forgotten.sum())
        self.live_count -= count
        self._dead_count += count
        self._metrics = None
        return forgotten

    def refs(
        self, batch: WriteBatch, histograms: HistogramSamples | None, floor: int, newest_ms: int, limits: SeriesLimits
    ) -> np.ndarray:
        """Return int32[n], the series of each row; new ones are added as long as the limits allow.

        Hashes of known series are checked by being found; those of a batch with others are computed. Raises
        RecordCorrupt.
        """
        refs, rows = self.find(batch)
        if not len(rows):
            return refs
        batch.check_hashes()
        eligible = np.empty(len(rows), np.int64)
        count = eligible_rows(rows, batch.sample_offsets, batch.timestamps, floor, newest_ms, eligible)
        eligible = eligible[:count]
        if histograms is not None:
            more = np.empty(len(rows), np.int64)
            found = eligible_rows(rows, histograms.offsets, histograms.timestamps, floor, newest_ms, more)
            eligible = np.union1d(eligible, more[:found])
        self.table.check(batch.labels, batch.label_offsets[eligible], batch.label_offsets[eligible + 1])
        refs[rows] = ROW_NOT_ELIGIBLE
        if not limits.may_exceed(self.live_count, len(eligible)):
            refs[eligible] = self._add(batch, eligible)
            return refs
        verdict = self._judge(batch, eligible, limits)
        refs[eligible] = verdict
        admitted = eligible[verdict == ADMITTED]
        refs[admitted] = self._add(batch, admitted)
        return refs

    def find(self, batch: WriteBatch) -> tuple[np.ndarray, np.ndarray]:
        """Return (int32[n] refs of the rows, negative where never seen; int64[...] rows of series that are new)."""
        refs, unknown = self.table.find(batch.labels, batch.label_offsets, batch.hashes)
        if not unknown and not self._dead_count:
            return refs, np.empty(0, np.int64)
        new = refs < 0
        if self._dead_count:
            new[~new] = self.last_ts[refs[~new]] == NO_SAMPLE
        return refs, np.flatnonzero(new)

    def _judge(self, batch: WriteBatch, rows: np.ndarray, limits: SeriesLimits) -> np.ndarray:
        if limits.max_series_per_metric and self._metrics is None:
            metrics, table = MetricCounts(), self.table.series
            live = self.live()
            metrics.add(table.text, table.starts[live], table.starts[live + 1])
            self._metrics = metrics
        return judge_new_series(batch, rows, limits, series_count=self.live_count, metrics=self._metrics)

    def over_limits(self, batch: WriteBatch, limits: SeriesLimits) -> np.ndarray | None:
        """Return what `Head.over_limits` returns of a batch that may exceed them."""
        _, rows = self.find(batch)
        if not len(rows):
            return None
        verdict = np.full(batch.series_count, ADMITTED, np.int32)
        verdict[rows] = self._judge(batch, rows, limits)
        return verdict if verdict.any() else None

    def _add(self, batch: WriteBatch, rows: np.ndarray) -> np.ndarray:
        before = self.table.count
        starts, ends = batch.label_offsets[rows], batch.label_offsets[rows + 1]
        refs = self.table.intern(batch.labels, starts, ends, batch.hashes[rows])
        self.last_ts = grown(self.last_ts, self.table.count)
        self.last_value = grown(self.last_value, self.table.count)
        self.last_ts[before : self.table.count] = NO_SAMPLE
        distinct, where = np.unique(refs, return_index=True)
        new = self.last_ts[distinct] == NO_SAMPLE
        distinct, where = distinct[new], where[new]
        self.last_ts[distinct] = FRESH
        self.live_count += len(distinct)
        self.created_count += len(distinct)
        self._dead_count -= int((distinct < before).sum())
        if self._metrics is not None:
            self._metrics.add(batch.labels, starts[where], ends[where])
        return refs
