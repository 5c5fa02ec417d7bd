"""Read the index file of any Prometheus or Mimir block (format version 2), columns at a time.

Opening finds all symbols and all postings lists; strings are decoded when they are asked for, series when they are
selected. Every section's checksum is tested before its content is believed. Layout: `tsdb.index_writer`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mimir_ingest.errors import BlockCorrupt
from mimir_ingest.kernels import index_scan
from mimir_ingest.kernels.crc32c import crc32c
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.model.spans import Check
from mimir_ingest.tsdb.index_writer import HEADER, TOC_BYTES

_MAGIC = HEADER[:4]


@dataclass(frozen=True, slots=True)
class SeriesEntries:
    """Series of a block, and where their chunks are."""

    refs: np.ndarray
    """int64[n]: offset of each entry in the index over 16, ascending, which is label order."""
    labels: LabelFrame
    chunk_offsets: np.ndarray
    """int64[n + 1]."""
    chunks: np.ndarray
    """int64[3, k]: min time (ms), max time (ms, included), reference."""


class IndexReader:
    """An open index. Immutable but for caches of decoded strings, so any number of threads may share it."""

    def __init__(self, file: bytes | bytearray | memoryview) -> None:
        """Open an index held in memory (or mapped). Raises `BlockCorrupt`."""
        self._data = np.frombuffer(file, np.uint8)
        self._bytes = memoryview(self._data)
        self.end = len(self._data) - TOC_BYTES
        symbols_at, self.series_at, _, _, self.postings_at, table_at = self._read_toc()
        self._symbol_starts, self._symbol_ends = self._scan_symbols(symbols_at)
        self._table = self._scan_table(table_at)
        self._names = self._group_names()
        self._values: dict[str, list[str]] = {}

    def _read_toc(self) -> list[int]:
        if self.end < len(HEADER) or bytes(self._bytes[:4]) != _MAGIC:
            raise BlockCorrupt(f"index: no magic 0x{_MAGIC.hex()} in {len(self._data)} bytes")
        if self._data[4] != HEADER[4]:
            raise BlockCorrupt(f"index: version {self._data[4]} at byte 4, only 2 is known")
        toc = bytes(self._bytes[self.end : -4])
        if crc32c(toc) != int.from_bytes(self._bytes[-4:], "big"):
            raise BlockCorrupt(f"index: TOC: checksum at byte {len(self._data) - 4} differs")
        offsets = [int.from_bytes(toc[i : i + 8], "big") for i in range(0, 48, 8)]
        if any(at > self.end for at in offsets):
            raise BlockCorrupt(f"index: TOC at byte {self.end}: offsets {offsets} pass the end of the file")
        return offsets

    def _section(self, at: int, name: str) -> tuple[int, int, int]:
        """Return (entry count, start, end) of a checksummed section that begins with its count."""
        size = int.from_bytes(self._bytes[at : at + 4], "big")
        start, end = at + 4, at + 4 + size
        if size < 4 or end + 4 > self.end:
            raise BlockCorrupt(f"index: {name} at byte {at}: length {size} does not fit the {self.end - at} bytes left")
        if crc32c(self._data[start:end]) != int.from_bytes(self._bytes[end : end + 4], "big"):
            raise BlockCorrupt(f"index: {name} at byte {at}: checksum at byte {end} differs")
        count = int.from_bytes(self._bytes[start : start + 4], "big")
        if count > size:
            raise BlockCorrupt(f"index: {name} at byte {at}: {count} entries in {size} bytes")
        return count, start + 4, end

    def _scan_symbols(self, at: int) -> tuple[np.ndarray, np.ndarray]:
        count, start, end = self._section(at, "symbols")
        starts, ends = np.empty(count, np.int64), np.empty(count, np.int64)
        _check(index_scan.scan_symbols(self._data, start, end, starts, ends), "symbol")
        return starts, ends

    def _scan_table(self, at: int) -> np.ndarray:
        count, start, end = self._section(at, "postings offset table")
        table = np.empty((6, count), np.int64)
        _check(index_scan.scan_postings_offsets(self._data, start, end, table), "postings offset table, entry")
        if not count or table[1, 0] != table[0, 0] or table[3, 0] != table[2, 0]:
            raise BlockCorrupt(f"index: postings offset table at byte {at}: no entry for all series")
        return table

    def _group_names(self) -> dict[str, tuple[int, int]]:
        """Table rows `first:last` of each label name; row 0, the list of all series, belongs to none."""
        numbers = self._table[5]
        first = np.flatnonzero(np.diff(numbers)) + 1
        bounds = [*first.tolist(), len(numbers)]
        spans = self._table[:2, first].T.tolist()
        return {self._text(start, end): (bounds[i], bounds[i + 1]) for i, (start, end) in enumerate(spans)}

    def _text(self, start: int, end: int) -> str:
        return str(self._bytes[start:end], "utf-8", "replace")

    def _symbol(self, ref: int) -> str:
        return self._text(int(self._symbol_starts[ref]), int(self._symbol_ends[ref]))

    @property
    def memory_bytes(self) -> int:
        """Bytes held: the file, the tables over it, and about as much as the strings decoded so far take."""
        strings = sum(map(len, self._values.values())) * 90
        return self._data.nbytes + self._table.nbytes + 2 * self._symbol_starts.nbytes + strings

    @property
    def file_bytes(self) -> int:
        """Length of the file."""
        return self._data.nbytes

    def label_names(self) -> list[str]:
        """Return all label names, ascending."""
        return sorted(self._names)

    def label_values(self, name: str) -> Sequence[str]:
        """Return all values of a label, ascending. Do not change the list."""
        values = self._values.get(name)
        if values is None:
            first, last = self._names.get(name, (0, 0))
            starts, ends = self._table[2, first:last].tolist(), self._table[3, first:last].tolist()
            values = [self._text(start, end) for start, end in zip(starts, ends, strict=True)]
            self._values[name] = values
        return values

    def all_postings(self) -> np.ndarray:
        """Return the references of all series, int64[n], ascending."""
        return self.read_lists(self._table[4, :1])

    def postings(self, matchers: Sequence[Matcher], check: Check | None = None) -> np.ndarray:
        """Return the references of the series that satisfy all matchers, int64[n], ascending.

        `check` is called between parts of the work.

        A label that a series lacks has the value "". A matcher that "" satisfies can only take series away: those with
        a value that does not satisfy it; any other selects those with a value that does. Source: Prometheus
        `PostingsForMatchers`.
        """
        selecting = [self._lists_of(m, check, satisfying=True) for m in matchers if not m.matches_empty]
        removing = [self._lists_of(m, check, satisfying=False) for m in matchers if m.matches_empty]
        if not selecting:
            found = self.all_postings()
        else:
            selecting.sort(key=self.count_entries)
            found = self.read_lists(selecting[0])
        for lists in selecting[1:]:
            if not len(found):
                break
            found = found[_contains(self.read_lists(lists), found)]
        for lists in removing:
            if not len(found):
                break
            if len(lists):
                found = found[~_contains(self.read_lists(lists), found)]
        return found

    def _lists_of(self, matcher: Matcher, check: Check | None, *, satisfying: bool) -> np.ndarray:
        """Return int64[k], the postings lists of the values that satisfy the matcher, or that do not."""
        first, last = self._names.get(matcher.name, (0, 0))
        exact = MatchType.EQUAL if satisfying else MatchType.NOT_EQUAL
        if matcher.type is exact:
            row = self._find_value(first, last, matcher.value.encode("utf-8", "surrogateescape"))
            return self._table[4, row : row + 1] if row is not None else np.empty(0, np.int64)
        hit = matcher.match_all(self.label_values(matcher.name), check)
        return self._table[4, first:last][hit if satisfying else ~hit]

    def _find_value(self, first: int, last: int, value: bytes) -> int | None:
        starts, ends = self._table[2], self._table[3]
        row = bisect_left(range(last), value, first, last, key=lambda i: bytes(self._bytes[starts[i] : ends[i]]))
        return row if row < last and bytes(self._bytes[starts[row] : ends[row]]) == value else None

    def count_entries(self, lists: np.ndarray) -> int:
        """Return the number of entries in postings lists at these offsets (int64[k])."""
        counts = np.empty(len(lists), np.int64)
        return self._check_list(index_scan.count_postings(self._data, lists, self.end, counts), lists)

    def read_each(self, lists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the entries of postings lists (int64[k]): list i has `refs[offsets[i]:offsets[i + 1]]`.

        Returns
        -------
        offsets : int64[k + 1]
        refs : int64[...]
            Ascending within a list.
        """
        lists = np.ascontiguousarray(lists)
        counts = np.empty(len(lists), np.int64)
        total = self._check_list(index_scan.count_postings(self._data, lists, self.end, counts), lists)
        refs, offsets = np.empty(total, np.int64), np.concatenate([[0], np.cumsum(counts)])
        self._check_list(index_scan.read_postings(self._data, lists, offsets, refs), lists)
        return offsets, refs

    def read_lists(self, lists: np.ndarray) -> np.ndarray:
        """Return the union of postings lists at these offsets (int64[k]): int64[n], ascending."""
        refs = self.read_each(lists)[1]
        return refs if len(lists) < 2 else np.unique(refs)

    def _check_list(self, status: int, lists: np.ndarray) -> int:
        if status < 0:
            item, reason = index_scan.explain_status(status)
            raise BlockCorrupt(f"index: postings list at byte {lists[item]}: {reason}")
        return status

    def series(self, refs: np.ndarray) -> SeriesEntries:
        """Return the entries of series (references from `postings`)."""
        label_counts, chunk_counts = np.empty(len(refs), np.int64), np.empty(len(refs), np.int64)
        status = index_scan.measure_series(self._data, refs, self.end, label_counts, chunk_counts)
        if status < 0:
            item, reason = index_scan.explain_status(status)
            raise BlockCorrupt(f"index: series at byte {16 * int(refs[item])}: {reason}")
        label_offsets = np.concatenate([[0], np.cumsum(label_counts)])
        chunk_offsets = np.concatenate([[0], np.cumsum(chunk_counts)])
        label_refs = np.empty((2, label_offsets[-1]), np.int64)
        chunks = np.empty((3, chunk_offsets[-1]), np.int64)
        index_scan.read_series(self._data, refs, label_offsets, chunk_offsets, label_refs, chunks)
        wrong = (label_refs < 0) | (label_refs >= len(self._symbol_starts))
        if wrong.any():
            at = int(np.flatnonzero(wrong.any(axis=0))[0])
            series = int(np.searchsorted(label_offsets, at, side="right")) - 1
            raise BlockCorrupt(f"index: series at byte {16 * int(refs[series])}: it names a symbol that does not exist")
        labels = LabelFrame.from_refs(label_offsets, label_refs[0], label_refs[1], self._symbol, self._symbol)
        return SeriesEntries(refs, labels, chunk_offsets, chunks)

    def lists_of_name(self, name: str) -> np.ndarray:
        """Return int64[k]: the postings list of each of `label_values(name)`."""
        first, last = self._names.get(name, (0, 0))
        return self._table[4, first:last]


def _check(status: int, what: str) -> None:
    if status < 0:
        item, reason = index_scan.explain_status(status)
        raise BlockCorrupt(f"index: {what} {item}: {reason}")


def _contains(members: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether each of `wanted` is among `members`; both int64, ascending."""
    if not len(members):
        return np.zeros(len(wanted), bool)
    at = np.searchsorted(members, wanted)
    return members[np.minimum(at, len(members) - 1)] == wanted
