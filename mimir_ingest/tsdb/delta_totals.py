"""What the deltas of a head's series come to: state that decides content, beside each series' last sample.

Floats are a column by ref, which the admission of samples reads and writes. Histograms are few parts, never edited, and
where in them each ref's total stands. A head without deltas has neither.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mimir_ingest.kernels.histogram_columns import HistogramColumns
from mimir_ingest.kernels.histogram_totals import MAX_SPAN, fold_histograms
from mimir_ingest.model.histograms import Histograms, HistogramSamples

_SLICE_BUCKETS = 1 << 20
"""why: bounds the columns that a fold writes to some 20 MB, whatever a record claims."""
_MOST_DEAD = 1024
"""why: totals that newer ones have replaced are let go of together, and a few are not worth it."""


@dataclass(frozen=True, slots=True)
class TotalsOfSeries:
    """Totals of n series."""

    floats: np.ndarray
    """float64[n], 0 where there is none; float64[0]: none has any."""
    places: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """int64[k], ascending: which of the series have a total of histograms."""
    histograms: Histograms = field(default_factory=Histograms.empty)
    """k histograms."""

    def placed(self, rank: np.ndarray) -> TotalsOfSeries:
        """Return the totals of the same series in another order; series i comes to `rank[i]` (int64[n])."""
        floats = np.empty_like(self.floats)
        if len(floats):
            floats[rank] = self.floats
        order = np.argsort(rank[self.places])
        return TotalsOfSeries(floats, rank[self.places][order], self.histograms.take(order))


class DeltaTotals:
    """See the module's header. Guarded by the head's lock."""

    def __init__(self) -> None:
        self.floats = np.empty(0, np.float64)
        """By ref; the series behind its end have none."""
        self._row_of = np.empty(0, np.int64)
        """By ref: 1 + the row of the total among the parts' rows; 0: none."""
        self._parts: tuple[Histograms, ...] = ()

    @classmethod
    def of(cls, totals: TotalsOfSeries) -> DeltaTotals:
        """Begin with totals by ref."""
        made = cls()
        made.floats = totals.floats.copy()
        if len(totals.places):
            made._put(totals.places, totals.histograms)
        return made

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        return self.floats.nbytes + self._row_of.nbytes + sum(part.nbytes for part in self._parts)

    def reserve(self, series_count: int) -> None:
        """Make room for the floats of so many series."""
        self.floats = _zero_extended(self.floats, series_count)

    def forget(self, refs: np.ndarray) -> None:
        """Let go of series."""
        self.floats[refs[refs < len(self.floats)]] = 0.0
        self._row_of[refs[refs < len(self._row_of)]] = 0
        if not self._row_of.any():
            self._parts = ()

    def take(self, refs: np.ndarray) -> TotalsOfSeries:
        """Return the totals of some series, as they stand now."""
        floats = _zero_extended(self.floats, int(refs.max(initial=-1)) + 1)[refs]
        if not floats.any():
            floats = np.empty(0, np.float64)
        if not self._parts:
            return TotalsOfSeries(floats)
        rows = _zero_extended(self._row_of, int(refs.max(initial=-1)) + 1)[refs]
        places = np.flatnonzero(rows)
        return TotalsOfSeries(floats, places, self._gather(rows[places] - 1))

    def stored(
        self, histograms: HistogramSamples, deltas: np.ndarray, refs: np.ndarray, rows: np.ndarray
    ) -> Histograms:
        """Return the histograms to store of a record's accepted ones.

        Parameters
        ----------
        histograms : HistogramSamples
            The record's, as they are stored (`Histograms.stored`).
        deltas : bool[n], or bool[0]
            Which series have deltas.
        refs, rows : int32[k], int64[k]
            Series and number of each accepted one; -1 - i for the one in front of `values[i]`.
        """
        values = histograms.values
        own = np.where(rows < 0, -1 - rows, rows)
        of_delta = np.repeat(deltas, np.diff(histograms.offsets))[own] if len(deltas) else np.zeros(len(rows), bool)
        if not of_delta.any():
            # The kernel takes seconds to compile, and hardly anybody sends deltas.
            return values.take(own).emptied(rows < 0)
        width = max(_width(values), *(_width(part) for part in self._parts), 2 * MAX_SPAN)
        step = max(1, _SLICE_BUCKETS // width)
        parts = []
        for first in range(0, len(rows), step):
            part = slice(first, min(first + step, len(rows)))
            parts.append(self._fold(values, refs[part], rows[part], of_delta[part], width))
        return Histograms.concat(parts)

    def _fold(
        self, values: Histograms, refs: np.ndarray, rows: np.ndarray, of_delta: np.ndarray, width: int
    ) -> Histograms:
        """As `stored`, of so few that `width` buckets and bounds for each fit into memory."""
        slots = np.full(len(rows), -1, np.int64)
        series, slots[of_delta] = np.unique(refs[of_delta], return_inverse=True)
        self._row_of = _zero_extended(self._row_of, int(series.max(initial=-1)) + 1)
        held = self._row_of[series]
        known = np.flatnonzero(held)
        newest = np.full(len(series), -1, np.int64)
        newest[known] = np.arange(len(known))
        columns = _begun_with(self._gather(held[known] - 1), len(rows), width)
        fold_histograms(values.columns, rows, slots, newest, len(known), columns)
        out = _trimmed(columns)
        changed = newest >= len(known)
        self._put(series[changed], out.take(newest[changed]))
        self._row_of[series[newest < 0]] = 0
        return out.take(np.arange(len(known), len(out)))

    def _gather(self, rows: np.ndarray) -> Histograms:
        """Return the totals that stand in these rows of the parts (int64[k])."""
        ends = np.cumsum([len(part) for part in self._parts])
        which = np.searchsorted(ends, rows, side="right")
        found, order = [], []
        for i, part in enumerate(self._parts):
            mine = np.flatnonzero(which == i)
            if len(mine):
                found.append(part.take(rows[mine] - (int(ends[i]) - len(part))))
                order.append(mine)
        if len(found) < 2:
            return found[0] if found else Histograms.empty()
        return Histograms.concat(found).take(np.argsort(np.concatenate(order)))

    def _put(self, refs: np.ndarray, totals: Histograms) -> None:
        """Replace the totals of some series."""
        if not len(refs):
            return
        before = sum(len(part) for part in self._parts)
        self._row_of = _zero_extended(self._row_of, int(refs.max()) + 1)
        self._row_of[refs] = before + 1 + np.arange(len(refs))
        # Parts of like size are joined, so that a total is copied as often as the logarithm of their number.
        joined, kept = [totals], len(self._parts)
        while kept and len(self._parts[kept - 1]) <= sum(map(len, joined)):
            kept -= 1
            joined.insert(0, self._parts[kept])
        self._parts = (*self._parts[:kept], Histograms.concat(joined))
        live = np.flatnonzero(self._row_of)
        if before + len(refs) > 2 * len(live) + _MOST_DEAD:
            self._parts = (self._gather(self._row_of[live] - 1),)
            self._row_of[live] = 1 + np.arange(len(live))


def _zero_extended(column: np.ndarray, size: int) -> np.ndarray:
    """Return the column with zeros behind it, if it is shorter than `size`."""
    if len(column) >= size:
        return column
    longer = np.zeros(max(size, len(column) * 3 // 2), column.dtype)
    longer[: len(column)] = column
    return longer


def _width(values: Histograms) -> int:
    """Return the most buckets, or custom bounds and one, that any of the histograms has."""
    buckets = np.diff(values.bucket_offsets[::2]).max(initial=0)
    return int(max(buckets, np.diff(values.custom_offsets).max(initial=0) + 1))


def _begun_with(totals: Histograms, count: int, width: int) -> HistogramColumns:
    """Return columns that hold the totals, to write `count` histograms behind them."""
    sizes = dict.fromkeys(HistogramColumns._fields, count)
    sizes |= {"bucket_offsets": 2 * count} | dict.fromkeys(
        ("bucket_index", "bucket_count", "custom_values"), count * width
    )
    begun = {}
    for name, size in sizes.items():
        column = getattr(totals, name)
        begun[name] = np.empty(len(column) + size, column.dtype)
        begun[name][: len(column)] = column
    return HistogramColumns(**begun)


def _trimmed(columns: HistogramColumns) -> Histograms:
    """Return the histograms that were written, without the room behind them."""
    buckets, bounds = int(columns.bucket_offsets[-1]), int(columns.custom_offsets[-1])
    short = {"bucket_index": buckets, "bucket_count": buckets, "custom_values": bounds}
    return Histograms(**columns._asdict() | {name: getattr(columns, name)[:n].copy() for name, n in short.items()})
