"""Label bytes with counts, and their joining: what several heads counted, as one. Exact, and columnar throughout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mimir_ingest.kernels.byte_table import hash_spans
from mimir_ingest.model.spans import Check, even_spans
from mimir_ingest.tsdb.series_table import SeriesTable, TableView

_PART_ENTRIES = 1 << 15
"""Entries joined at a time. why: about ten milliseconds."""
LEAST = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Counted:
    """Label pairs or whole label sets, distinct, with counts each."""

    labels: np.ndarray
    """uint8[...]: label bytes (see model.labels), back to back."""
    offsets: np.ndarray
    """int64[n + 1]: entry i is `labels[offsets[i]:offsets[i + 1]]`."""
    counts: np.ndarray
    """int64[n, k]: counts of entry i; the first columns add up over heads, of the others the maximum counts."""

    @classmethod
    def empty(cls, columns: int) -> Counted:
        """Return no entries with so many columns of counts."""
        return cls(np.empty(0, np.uint8), np.zeros(1, np.int64), np.empty((0, columns), np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of labels."""
        return int(self.offsets[-1])


def combined(counts: np.ndarray, groups: np.ndarray, group_count: int, *, sums: int) -> np.ndarray:
    """Return int64[group_count, k]: the rows of `counts` (int64[n, k]) of each group; `sums` columns add up.

    Of the other columns it is the maximum. `groups` is int[n].
    """
    out = np.full((group_count, counts.shape[1]), LEAST, np.int64)
    out[:, :sums] = 0
    if sums:
        np.add.at(out[:, :sums], groups, counts[:, :sums])
    if sums < counts.shape[1]:
        np.maximum.at(out[:, sums:], groups, counts[:, sums:])
    return out


@dataclass(frozen=True, slots=True)
class Tally:
    """The distinct entries of several heads."""

    table: TableView
    """Each entry is a series of it; where entries are pairs, pair i is entry i."""
    counts: np.ndarray
    """int64[n, k]."""

    @classmethod
    def of(cls, parts: list[Counted], *, columns: int, sums: int, check: Check | None = None) -> Tally:
        """Join parts with so many `columns` of counts, of which the first `sums` add up.

        Entries are joined some at a time, and `check` is called between.

        Raises RecordCorrupt for label bytes that are none.
        """
        table = SeriesTable()
        groups = []
        for part in parts:
            for first, last in even_spans(len(part), _PART_ENTRIES, check):
                starts, ends = part.offsets[first:last], part.offsets[first + 1 : last + 1]
                table.check(part.labels, starts, ends)
                hashes = np.empty(last - first, np.uint64)
                hash_spans(part.labels, starts, ends, hashes)
                groups.append(table.intern(part.labels, starts, ends, hashes))
        counts = np.concatenate([np.empty((0, columns), np.int64), *(part.counts for part in parts)])
        rows = np.concatenate([np.empty(0, np.int32), *groups])
        return cls(table.view(), combined(counts, rows, table.count, sums=sums))

    @property
    def nbytes(self) -> int:
        """Bytes of the distinct entries' labels."""
        return int(self.table.series_starts[self.table.series_count])
