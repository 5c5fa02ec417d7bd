"""One tenant's recent samples in one partition.

Content (which samples and series are held, what is accepted next) follows from the appended records and the cuts alone.
How it lies in memory (staging, segments, merges, dead series still in the table) does not show in any answer.

    append ─► staging (columns in order of acceptance) ─seal─► segments (chunks) ─merge─► larger segments
    freeze (a cut begins) ─► frozen segments ─thaw (its checkpoint is read back)─► retained, and one segment that stays

One writer at a time calls the methods that change something; `lock` guards what readers capture with `view`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from mimir_ingest.kernels.head import (
    ACCEPTED,
    FRESH,
    INVALID_HISTOGRAM,
    MAX_ACCEPTED,
    MIN_ACCEPTED,
    NO_SAMPLE,
    OUTCOME_COLUMNS,
    admit_samples,
)
from mimir_ingest.kernels.histogram_check import HistogramFault
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.model.byte_table import grown
from mimir_ingest.model.histograms import HistogramSamples
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.tsdb.activity import Activity
from mimir_ingest.tsdb.census import Census
from mimir_ingest.tsdb.delta_totals import DeltaTotals, TotalsOfSeries
from mimir_ingest.tsdb.frozen_head import FrozenHead, Held, Retained, count_held
from mimir_ingest.tsdb.head_view import HeadView
from mimir_ingest.tsdb.histogram_segment import StagedHistograms, staged_with
from mimir_ingest.tsdb.known_series import KnownSeries
from mimir_ingest.tsdb.segment import (
    MAX_MS,
    MIN_MS,
    Segment,
    Staged,
    present_refs,
    rewrite,
    seal,
)
from mimir_ingest.tsdb.series_limits import SeriesLimits
from mimir_ingest.tsdb.series_table import SeriesTable
from mimir_ingest.tsdb.turns import in_turns

MERGE_SEGMENTS = 8
"""why: eight segments of 15 samples a series fill a chunk of 120."""
_SEAL_SAMPLES_A_SERIES = 15
_MERGED_SAMPLES_A_SERIES = 120
_MERGED_SAMPLES = 1 << 22
"""why: past full chunks a merge saves nothing but the number of segments; few series may still merge up to this."""


_NO_STARTS, _NO_DELTAS = np.empty(0, np.int64), np.empty(0, bool)


class Head:
    """See the module's header."""

    def __init__(self, tenant: str, *, seal_samples: int = 1 << 16) -> None:
        self.tenant = tenant
        self.lock = threading.Lock()
        self._series = KnownSeries()
        self.max_ts = NO_SAMPLE
        """Largest accepted timestamp (ms), NO_SAMPLE before the first."""
        self.window_ms = 0
        """Out-of-order window of the newest record."""
        self.held: dict[int, Held] = {}
        """Range number → what was accepted and not cut."""
        self.segments: tuple[Segment, ...] = ()
        self.frozen: tuple[Segment, ...] = ()
        self.retained: tuple[Retained, ...] = ()
        self._seal_samples = seal_samples
        self.activity = Activity()
        self._totals = DeltaTotals()
        self._staged = Staged.empty()
        self._staged_count = 0
        self._staged_histograms: tuple[StagedHistograms, ...] = ()
        self._staged_histogram_count = 0

    @property
    def table(self) -> SeriesTable:
        """Labels of the series, by ref."""
        return self._series.table

    @property
    def live_count(self) -> int:
        """Known series: those the series limit counts."""
        return self._series.live_count

    @property
    def created_count(self) -> int:
        """Series ever added to `live_count`, restored ones included."""
        return self._series.created_count

    @property
    def blank(self) -> bool:
        """Whether it knows nothing, so that a head that is not there would take the same."""
        return self.max_ts == NO_SAMPLE and not self.live_count

    @property
    def held_count(self) -> int:
        """Samples accepted and not cut."""
        return sum(h.samples for h in self.held.values())

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken by labels, staged samples and segments."""
        staged = self._staged.refs.nbytes + self._staged.timestamps.nbytes + self._staged.values.nbytes
        staged += sum(part.values.nbytes for part in self._staged_histograms)
        staged += self._totals.nbytes + self.activity.nbytes
        return self.table.nbytes + staged + sum(s.nbytes for s in (*self.segments, *self.frozen))

    def floors(self, range_ms: int, window_ms: int) -> tuple[int, int]:
        """Return the oldest timestamps (ms) taken in order and out of order, before the next record's samples."""
        if self.max_ts == NO_SAMPLE:
            return FRESH + 1, FRESH + 1
        return max(self.max_ts - range_ms // 2, FRESH + 1), max(self.max_ts - window_ms, FRESH + 1)

    def append(
        self,
        batch: WriteBatch,
        *,
        offset: int,
        newest_ms: int,
        range_ms: int,
        limits: SeriesLimits,
        window_ms: int,
    ) -> np.ndarray:
        """Take a record's samples: wholly, or not at all when it raises.

        Parameters
        ----------
        offset : int
            The record's.
        newest_ms : int
            Samples after this time are too far in the future.
        limits : SeriesLimits
            Those of the record.
        window_ms : int
            Out-of-order window; 0 takes none.

        Returns
        -------
        int64[OUTCOME_COLUMNS]
            Samples by outcome (kernels/head.py).

        Raises
        ------
        RecordCorrupt
            Label bytes that are none.
        """
        with self.lock:
            return self._append(batch, offset, newest_ms, range_ms, limits, window_ms)

    def _append(
        self, batch: WriteBatch, offset: int, newest_ms: int, range_ms: int, limits: SeriesLimits, window_ms: int
    ) -> np.ndarray:
        in_order, out_of_order = self.floors(range_ms, window_ms)
        histograms, invalid = batch.histograms, 0
        if histograms is not None:
            valid = histograms.values.faults() == HistogramFault.NONE
            invalid = len(valid) - int(valid.sum())
            histograms = histograms.keep(valid)
            histograms = replace(histograms, values=histograms.values.stored())
        before = self.table.count
        refs = self._series.refs(batch, histograms, min(in_order, out_of_order), newest_ms, limits)
        self.activity.reserve(before, self.table.count)
        self.window_ms = window_ms
        bounds = np.array([in_order, out_of_order, newest_ms, window_ms > 0, self.max_ts], np.int64)
        counts = np.zeros(OUTCOME_COLUMNS, np.int64)
        counts[MIN_ACCEPTED], counts[MAX_ACCEPTED] = MAX_MS, MIN_MS
        counts[INVALID_HISTOGRAM] = invalid
        turns = None if histograms is None else in_turns(refs, batch.sample_offsets, histograms.offsets)
        if turns is None:
            times = self._stage(batch, histograms, refs, bounds, counts)
        else:
            order, begins = turns
            parts = [order[low:high] for low, high in pairwise(begins.tolist())]
            times = [
                t
                for rows in parts
                for t in self._stage(batch.take(rows), histograms.take(rows), refs[rows], bounds, counts)
            ]
        if counts[ACCEPTED]:
            self.max_ts = max(self.max_ts, int(counts[MAX_ACCEPTED]))
            all_times = times[0] if len(times) == 1 else np.concatenate(times)
            count_held(self.held, all_times, counts[MIN_ACCEPTED : MAX_ACCEPTED + 1], range_ms, offset)
        return counts

    def _stage(
        self,
        batch: WriteBatch,
        histograms: HistogramSamples | None,
        refs: np.ndarray,
        bounds: np.ndarray,
        counts: np.ndarray,
    ) -> list[np.ndarray]:
        """Decide the samples of some rows, floats first; return the timestamps of those accepted."""
        at = self._staged_count
        starts = _NO_STARTS if batch.starts is None else batch.starts
        deltas = _NO_DELTAS if batch.deltas is None else batch.deltas
        self._reserve_staged(at + batch.sample_count + len(starts))
        staged = self._staged
        if len(deltas):
            self._totals.reserve(self.table.count)
        accepted = admit_samples(
            refs,
            batch.sample_offsets,
            batch.timestamps,
            batch.values,
            starts,
            deltas,
            bounds,
            self._series.last_ts,
            self._series.last_value,
            self._totals.floats if len(deltas) else np.empty(0, np.float64),
            staged.refs[at:],
            staged.timestamps[at:],
            staged.values[at:],
            np.empty(0, np.int64),
            counts,
        )
        times = [staged.timestamps[at : at + accepted]]
        self._staged_count = at + accepted
        self.activity.note(staged.refs[at : at + accepted])
        if histograms is not None and histograms.sample_count:
            times.append(self._stage_histograms(histograms, deltas, refs, bounds, counts))
        return times

    def _stage_histograms(
        self,
        histograms: HistogramSamples,
        deltas: np.ndarray,
        refs: np.ndarray,
        bounds: np.ndarray,
        counts: np.ndarray,
    ) -> np.ndarray:
        """Decide the histograms of some rows; return the timestamps of those accepted."""
        starts = _NO_STARTS if histograms.starts is None else histograms.starts
        m = histograms.sample_count + len(starts)
        refs_out, ts_out, rows = np.empty(m, np.int32), np.empty(m, np.int64), np.empty(m, np.int64)
        accepted = admit_samples(
            refs,
            histograms.offsets,
            histograms.timestamps,
            histograms.values.digests().view(np.float64),
            starts,
            deltas,
            bounds,
            self._series.last_ts,
            self._series.last_value,
            np.empty(0, np.float64),
            refs_out,
            ts_out,
            np.empty(m, np.float64),
            rows,
            counts,
        )
        if accepted:
            refs_out, ts_out = refs_out[:accepted], ts_out[:accepted]
            values = self._totals.stored(histograms, deltas, refs_out, rows[:accepted])
            part = StagedHistograms(refs_out, ts_out, values)
            self.activity.note(refs_out, buckets=np.diff(values.bucket_offsets[::2]))
            self._staged_histograms = staged_with(self._staged_histograms, part)
            self._staged_histogram_count += accepted
        return ts_out[:accepted]

    def new_rows(self, batch: WriteBatch) -> np.ndarray:
        """Return int64[...], the rows of series that are not known now. Any thread."""
        with self.lock:
            return self._series.find(batch)[1]

    def over_limits(self, batch: WriteBatch, limits: SeriesLimits) -> np.ndarray | None:
        """Return what the limits say now of the rows that would be new, as if all samples passed by time. Any thread.

        int32[n] of ADMITTED, ROW_OVER_LIMIT, ROW_OVER_METRIC_LIMIT; None: nothing is over a limit.
        """
        if not limits.may_exceed(self.live_count, batch.series_count):
            return None
        with self.lock:
            return self._series.over_limits(batch, limits)

    def _reserve_staged(self, size: int) -> None:
        staged = self._staged
        if len(staged.refs) < size:
            self._staged = Staged(grown(staged.refs, size), grown(staged.timestamps, size), grown(staged.values, size))

    def _staged_now(self) -> Staged:
        staged, count = self._staged, self._staged_count
        return Staged(staged.refs[:count], staged.timestamps[:count], staged.values[:count], self._staged_histograms)

    @property
    def seal_due(self) -> bool:
        """Whether enough samples are staged for a segment."""
        limit = max(1, self._seal_samples, _SEAL_SAMPLES_A_SERIES * self.table.count)
        return self._staged_count + self._staged_histogram_count >= limit

    def seal(self, *, force: bool = False) -> bool:
        """Turn staged samples into a segment if there are enough of them (or any, with `force`)."""
        if not self.seal_due and not (force and self._staged_count + self._staged_histogram_count):
            return False
        segment = seal(self._staged_now(), self.table.count)
        with self.lock:
            self.segments = (*self.segments, segment)
            self._staged, self._staged_count = Staged.reserved(len(self._staged.refs)), 0
            self._staged_histograms, self._staged_histogram_count = (), 0
        return True

    def merge(self) -> bool:
        """Merge the youngest segments of a level when there are MERGE_SEGMENTS of it. Returns whether it did."""
        group = self.segments[-MERGE_SEGMENTS:]
        if len(group) < MERGE_SEGMENTS or any(s.level != group[-1].level for s in group):
            return False
        size = sum(s.sample_count for s in group)
        if size > max(_MERGED_SAMPLES, 2 * _MERGED_SAMPLES_A_SERIES * self.table.count):
            return False
        merged = rewrite(group, self.table.count, level=group[-1].level + 1)
        with self.lock:
            self.segments = (*self.segments[:-MERGE_SEGMENTS], merged)
        return True

    def view(self, matchers: Sequence[Matcher]) -> HeadView:
        """Return what readers of these matchers need. Any thread."""
        with self.lock:
            parts = [(r.table.view(matchers), r.segments, Staged.empty(), r.before_ms) for r in self.retained]
            current = (*self.frozen, *self.segments)
            parts.append((self.table.view(matchers), current, self._staged_now(), MAX_MS))
        return HeadView(tuple(parts))

    def census(self, matchers: Sequence[Matcher]) -> Census:
        """Return what counts of series that satisfy some of these matchers need. Any thread."""
        with self.lock:
            return Census(self.table.view(matchers), self._series.last_ts, self.activity.columns)

    def freeze(self, before_ms: int, range_ms: int) -> FrozenHead:
        """Begin a cut of everything before `before_ms` (a range's start, or a bound): forget old series, hand over.

        Until `thaw`, frozen samples stay readable here.
        """
        self.seal(force=True)
        with self.lock:
            self.frozen, self.segments = self.segments, ()
            if self.max_ts != NO_SAMPLE:
                forgotten = self._series.forget(min(before_ms, *self.floors(range_ms, self.window_ms)))
                self.activity.forget(forgotten)
                self._totals.forget(np.flatnonzero(forgotten))
        cut = {number: h for number, h in self.held.items() if number * range_ms < before_ms}
        self.held = {number: h for number, h in self.held.items() if number not in cut}
        live = self._series.live()
        return FrozenHead(
            tenant=self.tenant,
            table=self.table.view(),
            segments=self.frozen,
            before_ms=before_ms,
            live=live,
            last_ts=self._series.last_ts[live],
            last_value=self._series.last_value[live],
            totals=self._totals.take(live),
            max_ts=self.max_ts,
            window_ms=self.window_ms,
            cut=cut,
            held=dict(self.held),
        )

    def thaw(self, stays: Segment, before_ms: int, cut_offset: int) -> None:
        """End a cut: the frozen samples before `before_ms` are shipped, and `stays` are the others.

        With `before_ms` MIN_MS nothing of this tenant was cut, and `stays` is not looked at.
        """
        with self.lock:
            if before_ms == MIN_MS:
                self.segments, self.frozen = (*self.frozen, *self.segments), ()
                return
            if self.frozen:
                shipped = Retained(cut_offset, self.table, self.frozen, before_ms)
                self.retained = (*self.retained, shipped)
            self.frozen = ()
            self.segments = (stays, *self.segments) if stays.sample_count else self.segments
        if self._series.mostly_dead:
            self._rebuild_table()

    def release(self, cut_offset: int) -> None:
        """Serve no longer what the cuts up to `cut_offset` have shipped."""
        with self.lock:
            self.retained = tuple(r for r in self.retained if r.cut_offset > cut_offset)

    def _rebuild_table(self) -> None:
        """Give the series in use new refs in a new table; needs a head without frozen segments."""
        used = np.zeros(self.table.count, bool)
        used[self._series.live()] = True
        used[present_refs(self.segments, self._staged_now())] = True
        kept = np.flatnonzero(used)
        series = self._series.kept(kept)
        new_refs = np.full(len(used), -1, np.int32)
        new_refs[kept] = np.arange(len(kept), dtype=np.int32)
        segments = tuple(s.renumbered(new_refs) for s in self.segments)
        staged = self._staged_now()
        with self.lock:
            self._series, self.segments = series, segments
            self._staged = Staged(new_refs[staged.refs], staged.timestamps.copy(), staged.values.copy())
            self._staged_histograms = tuple(replace(p, refs=new_refs[p.refs]) for p in staged.histograms)
            self.activity = self.activity.renumbered(kept)
            self._totals = DeltaTotals.of(self._totals.take(kept))

    def series_state(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (int64[count] last timestamps, NO_SAMPLE where forgotten; float64[count] last values), copies."""
        count = self.table.count
        return self._series.last_ts[:count].copy(), self._series.last_value[:count].copy()

    def delta_totals(self) -> TotalsOfSeries:
        """Return what the deltas of each series come to, by ref."""
        return self._totals.take(np.arange(self.table.count))

    @classmethod
    def restore(
        cls,
        tenant: str,
        labels: tuple[np.ndarray, np.ndarray, np.ndarray],
        last_ts: np.ndarray,
        last_value: np.ndarray,
        *,
        max_ts: int,
        window_ms: int,
        held: dict[int, Held],
        segments: tuple[Segment, ...],
        totals: TotalsOfSeries | None = None,
        seal_samples: int = 1 << 16,
    ) -> Head:
        """Build a head from a checkpoint's or snapshot's columns: series i has the ref i in `segments`."""
        head = cls(tenant, seal_samples=seal_samples)
        head._series = KnownSeries.of(labels, last_ts, last_value)
        head.activity = Activity.restored(last_ts)
        if totals is not None:
            head._totals = DeltaTotals.of(totals)
        head.max_ts, head.window_ms, head.held, head.segments = max_ts, window_ms, dict(held), segments
        return head
