"""Limits on the series of a head: how many there may be, and how many of one metric (spec ingest-storage 8.7). Pure.

Which new series are admitted follows from the known series, the limits and the order of the rows alone. Series by
metric are counted from the series table when a limit first asks for it, so they are in no checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mimir_ingest.kernels.byte_table import hash_spans
from mimir_ingest.kernels.head import ROW_OVER_LIMIT, ROW_OVER_METRIC_LIMIT
from mimir_ingest.kernels.label_pairs import count_pairs, split_pairs
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.model.byte_table import ByteTable, grown

ADMITTED = 0
"""Verdict on a new series; the others are refs of rows without a series (kernels/head.py)."""

_NAME = np.frombuffer(b"\x08__name__", np.uint8)


@dataclass(frozen=True, slots=True)
class SeriesLimits:
    """A head's share of a tenant's limits; 0 is no limit."""

    max_series: int = 0
    max_series_per_metric: int = 0
    unlimited_metrics: tuple[bytes, ...] = ()
    """Metric names to which the second limit does not apply."""

    def may_exceed(self, series_count: int, rows: int) -> bool:
        """Return whether that many new series could be too many, besides those that are known."""
        return self.max_series_per_metric > 0 or 0 < self.max_series < series_count + rows


def metric_names(text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the metric names of the label sets `text[starts[i]:ends[i]]` start and end, int64[n] each.

    A series without a name has the empty one. The label sets are checked ones.
    """
    counts = np.empty(len(starts), np.int64)
    total = count_pairs(text, starts, ends, counts)
    pair_starts, name_ends, value_starts, pair_ends = (np.empty(total, np.int64) for _ in range(4))
    split_pairs(text, starts, ends, pair_starts, name_ends, value_starts, pair_ends)
    likely = np.flatnonzero(name_ends - pair_starts == len(_NAME))
    found = likely[(text[pair_starts[likely][:, None] + np.arange(len(_NAME))] == _NAME).all(axis=1)]
    series = np.repeat(np.arange(len(starts)), counts)[found]
    begin, end = starts.copy(), starts.copy()
    begin[series], end[series] = value_starts[found], pair_ends[found]
    return begin, end


class MetricCounts:
    """Known series by metric name. One writer."""

    def __init__(self) -> None:
        self._names = ByteTable()
        self._counts = np.zeros(0, np.int64)

    def add(self, text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        """Count the series `text[starts[i]:ends[i]]`, none of which was counted before."""
        begin, end = metric_names(text, starts, ends)
        hashes = np.empty(len(begin), np.uint64)
        hash_spans(text, begin, end, hashes)
        known = self._names.count
        numbers = self._names.intern(text, begin, end, hashes)
        self._counts = grown(self._counts, self._names.count)
        self._counts[known : self._names.count] = 0
        np.add.at(self._counts, numbers, 1)

    def of(self, names: ByteTable) -> np.ndarray:
        """Return int64[names.count]: known series of each metric of another table."""
        count = names.count
        hashes = np.empty(count, np.uint64)
        hash_spans(names.text, names.starts[:count], names.starts[1 : count + 1], hashes)
        numbers, _ = self._names.find(names.text, names.starts[: count + 1], hashes)
        known = numbers >= 0
        counts = np.zeros(count, np.int64)
        counts[known] = self._counts[numbers[known]]
        return counts


def judge_new_series(
    batch: WriteBatch, rows: np.ndarray, limits: SeriesLimits, *, series_count: int, metrics: MetricCounts | None
) -> np.ndarray:
    """Decide which series that are not known yet may be added, in row order.

    Parameters
    ----------
    rows : int64[n]
        Rows of series that are unknown; several may be of the same series.
    series_count : int
        Known series.
    metrics : MetricCounts, optional
        Known series by metric; needed with a limit on them.

    Returns
    -------
    int32[n]
        ADMITTED, ROW_OVER_LIMIT or ROW_OVER_METRIC_LIMIT. The limit of the tenant is looked at first.
    """
    starts, ends = batch.label_offsets[rows], batch.label_offsets[rows + 1]
    series = ByteTable().intern(batch.labels, starts, ends, batch.hashes[rows])
    first = np.unique(series, return_index=True)[1]
    fits = np.ones(len(first), bool)
    if limits.max_series_per_metric and metrics is not None:
        fits = _within_metric(batch.labels, starts[first], ends[first], limits, metrics)
    verdict = np.where(fits, ADMITTED, ROW_OVER_METRIC_LIMIT).astype(np.int32)
    if limits.max_series:
        before = np.cumsum(fits) - fits
        verdict[series_count + before >= limits.max_series] = ROW_OVER_LIMIT
    return verdict[series]


def _within_metric(
    text: np.ndarray, starts: np.ndarray, ends: np.ndarray, limits: SeriesLimits, metrics: MetricCounts
) -> np.ndarray:
    """Return bool[n]: whether each of these distinct new series is within the limit of its metric."""
    begin, end = metric_names(text, starts, ends)
    hashes = np.empty(len(begin), np.uint64)
    hash_spans(text, begin, end, hashes)
    names = ByteTable()
    metric = names.intern(text, begin, end, hashes)
    unlimited = np.zeros(names.count, bool)
    for i in range(names.count) if limits.unlimited_metrics else ():
        name = names.text[names.starts[i] : names.starts[i + 1]].tobytes()
        unlimited[i] = name in limits.unlimited_metrics
    order = np.argsort(metric, kind="stable")
    sizes = np.bincount(metric, minlength=names.count)
    rank = np.empty(len(metric), np.int64)
    rank[order] = np.arange(len(metric)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return unlimited[metric] | (metrics.of(names)[metric] + rank < limits.max_series_per_metric)
