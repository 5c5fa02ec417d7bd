"""Counts over the series of one head: how many there are, which are active, how many have each label value.

A `Census` is captured under the head's lock and counted from any thread; the head may go on meanwhile, so counts are of
about that moment. Source: spec http-api.md 6.10 to 6.13, ingest-storage.md 9.8.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from mimir_ingest.kernels.gather import gather_bytes
from mimir_ingest.kernels.head import NO_SAMPLE
from mimir_ingest.kernels.label_pairs import gather_pairs
from mimir_ingest.model.labels import METRIC_NAME
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.spans import Check, even_spans
from mimir_ingest.tsdb.activity import FLOAT, ActivityColumns
from mimir_ingest.tsdb.series_table import TableView
from mimir_ingest.tsdb.tally import Counted, combined

_BLOCK = 1 << 16
"""why: the pairs of 65,536 series are some 3 MB, whatever the head's size."""

SERIES, BUCKETS, LEAST_BUCKETS, MOST_BUCKETS = range(4)
"""Counts of a metric's native histograms: two sums; the fewest buckets of a series, negative, and the most: maxima."""


@dataclass(frozen=True, slots=True)
class SeriesTotals:
    """Numbers of series."""

    series: int = 0
    otlp: int = 0
    """Those whose last sample came by OTLP."""
    histograms: int = 0
    """Those whose last sample is a native histogram."""
    buckets: int = 0
    """Buckets of these histograms together."""

    def plus(self, other: SeriesTotals) -> SeriesTotals:
        """Return both together."""
        return SeriesTotals(
            self.series + other.series,
            self.otlp + other.otlp,
            self.histograms + other.histograms,
            self.buckets + other.buckets,
        )


@dataclass(frozen=True, slots=True)
class Census:
    """A head's series at one moment. Safe from any thread."""

    table: TableView
    last_ts: np.ndarray
    """int64[...]: NO_SAMPLE where a series is forgotten."""
    activity: ActivityColumns

    def select(
        self, matchers: Sequence[Matcher], since_ms: int | None = None, check: Check | None = None
    ) -> np.ndarray:
        """Return int32[n], ascending: known series that satisfy all matchers and got a sample since then, if given.

        `matchers` are among those that the table was viewed with. `check` is called between parts of the work.
        """
        refs = self.table.select(matchers, check)
        known = refs[self.last_ts[refs] != NO_SAMPLE]
        return known if since_ms is None else known[self.activity.seen_ms[known] >= since_ms]

    def totals(self, refs: np.ndarray) -> SeriesTotals:
        """Count the series `refs` (int32[n])."""
        activity = self.activity
        buckets = np.empty(0, np.int32) if activity.buckets is None else activity.buckets[refs]
        buckets = buckets[buckets != FLOAT]
        otlp = 0 if activity.otlp is None else int(activity.otlp[refs].sum())
        return SeriesTotals(len(refs), otlp, len(buckets), int(buckets.sum()))

    def pairs(self, refs: np.ndarray, names: Collection[str] | None = None, check: Check | None = None) -> Counted:
        """Count the series of each label pair that occurs in `refs`, or only of the pairs of these label names."""
        table = self.table
        counts = np.zeros(table.pair_count, np.int64)
        for first, last in even_spans(len(refs), _BLOCK, check):
            counts += np.bincount(_pairs_of(table, refs[first:last]), minlength=table.pair_count)
        used = np.flatnonzero(counts)
        if names is not None:
            present = np.unique(table.pair_name[used])
            wanted = present[[table.name(name) in names for name in present.tolist()]]
            used = used[np.isin(table.pair_name[used], wanted)]
        return _counted(table.pair_text, table.pair_starts, used, counts[used][:, None])

    def series(self, refs: np.ndarray) -> Counted:
        """Return the label sets of `refs`, without counts."""
        table, counts = self.table, np.empty((len(refs), 0), np.int64)
        return _counted(table.series_text, table.series_starts, refs.astype(np.int64), counts)

    def histograms(self, refs: np.ndarray) -> Counted:
        """Return the metrics (label pairs of `__name__`) whose last samples in `refs` are native histograms.

        Counts are SERIES to MOST_BUCKETS.
        """
        if self.activity.buckets is None:
            return Counted.empty(4)
        refs = refs[self.activity.buckets[refs] != FLOAT]
        buckets = self.activity.buckets[refs].astype(np.int64)
        table = self.table
        sizes = table.series_pair_starts[refs + 1] - table.series_pair_starts[refs]
        pairs = _pairs_of(table, refs)
        named = np.flatnonzero(table.pair_name[: table.pair_count] == _name_number(table, METRIC_NAME))
        at = np.isin(pairs, named)
        of_named = buckets[np.repeat(np.arange(len(refs)), sizes)[at]]
        each = np.stack([np.ones(len(of_named), np.int64), of_named, -of_named, of_named], axis=1)
        used, inverse = np.unique(pairs[at], return_inverse=True)
        counts = combined(each, inverse, len(used), sums=2)
        return _counted(table.pair_text, table.pair_starts, used.astype(np.int64), counts)


def _name_number(table: TableView, name: str) -> int:
    """Return a label name's number, -1 if no pair has it."""
    numbers = np.unique(table.pair_name[: table.pair_count]).tolist()
    return next((number for number in numbers if table.name(number) == name), -1)


def _pairs_of(table: TableView, refs: np.ndarray) -> np.ndarray:
    """Return int32[...], the pairs of the series `refs`, one series after another."""
    sizes = table.series_pair_starts[refs + 1] - table.series_pair_starts[refs]
    pairs = np.empty(int(sizes.sum()), np.int32)
    gather_pairs(refs, table.series_pair_starts, table.series_pairs, np.empty(len(refs) + 1, np.int64), pairs)
    return pairs


def _counted(text: np.ndarray, starts: np.ndarray, index: np.ndarray, counts: np.ndarray) -> Counted:
    offsets = np.zeros(len(index) + 1, np.int64)
    np.cumsum(starts[index + 1] - starts[index], out=offsets[1:])
    labels = np.empty(offsets[-1], np.uint8)
    gather_bytes(text, starts, index, offsets, labels)
    return Counted(labels, offsets, counts)
