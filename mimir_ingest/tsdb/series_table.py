"""The label sets of a head: series by number (ref), label pairs by number, and selection by matchers.

A series' key is its label bytes; a pair's key is its part of them. `SeriesTable` has one writer; readers work on a
`TableView`, taken while the writer is held off, and on nothing else. Postings (pair → refs) are built by readers when
the part of the table that they do not cover has grown; the rest is scanned.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mimir_ingest.errors import RecordCorrupt
from mimir_ingest.kernels.byte_table import hash_spans
from mimir_ingest.kernels.label_pairs import (
    build_postings,
    check_label_sets,
    count_pairs,
    filter_series,
    gather_pairs,
    match_few,
    split_pairs,
)
from mimir_ingest.model.byte_table import ByteTable, grown
from mimir_ingest.model.labels import LabelFrame, get_uvarint, put_uvarint
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.model.spans import Check

_UNINDEXED_SERIES, _UNINDEXED_SHARE = 1024, 32
"""why: scanning 1,024 series' pairs, or a 32nd of what is indexed, costs little beside a query; to build postings again
for each 32nd that comes costs 1 microsecond a series."""
_FEW_POSTINGS = 2048
"""why: so many series are looked through in 0.1 ms."""

_FILTER_MATCHERS = 63
"""Matchers of one pass: bits of a word."""


@dataclass(frozen=True, slots=True)
class Postings:
    """Pair → series of the table's first `series_count` series."""

    series_count: int
    starts: np.ndarray
    """int64[pairs + 1]."""
    refs: np.ndarray
    """int32[...]: pair p is in `refs[starts[p]:starts[p + 1]]`, ascending."""

    def leave_out_many(self, series_count: int) -> bool:
        """Whether so many of a table's series are not indexed that scanning them would take long."""
        return series_count - self.series_count > max(_UNINDEXED_SERIES, self.series_count // _UNINDEXED_SHARE)

    def count(self, pairs: np.ndarray) -> int:
        """Return how many entries the pairs have together."""
        known = pairs[pairs < len(self.starts) - 1]
        return int((self.starts[known + 1] - self.starts[known]).sum())

    def of(self, pair: int) -> np.ndarray:
        """Return int32[n], ascending: the series with a pair."""
        if pair >= len(self.starts) - 1:
            return np.empty(0, np.int32)
        return self.refs[self.starts[pair] : self.starts[pair + 1]]

    def union(self, pairs: np.ndarray) -> np.ndarray:
        """Return int32[n], ascending: series with one of the pairs, all of the same name."""
        known = pairs[pairs < len(self.starts) - 1]
        lists = [self.refs[self.starts[p] : self.starts[p + 1]] for p in known.tolist()]
        if not lists:
            return np.empty(0, np.int32)
        return lists[0] if len(lists) == 1 else np.sort(np.concatenate(lists))


class SeriesTable:
    """Series and pairs of one head. Not safe for concurrent use; see the module's header."""

    def __init__(self) -> None:
        self.series = ByteTable()
        self._pairs = ByteTable()
        self._names = ByteTable()
        self._pair_name = np.empty(0, np.int32)
        self._pair_value = np.empty(0, np.int64)
        self._series_pair_starts = np.zeros(64, np.int64)
        self._series_pairs = np.empty(0, np.int32)
        self._cache = _ReaderCache()
        self._views: dict[tuple[Matcher, ...], TableView] = {}
        """Of the table as it stands, by matchers."""

    @property
    def count(self) -> int:
        """Number of series."""
        return self.series.count

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        columns = (self._pair_name, self._pair_value, self._series_pair_starts, self._series_pairs)
        return sum(t.nbytes for t in (self.series, self._pairs, self._names)) + sum(c.nbytes for c in columns)

    def find(self, labels: np.ndarray, offsets: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, int]:
        """Return (int32[n] refs, -1 where unknown; count of unknown) for a batch's label bytes."""
        return self.series.find(labels, offsets, hashes)

    def check(self, labels: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        """Raise RecordCorrupt unless `labels[starts[i]:ends[i]]` are label sets.

        why: what is interned is cut into blocks, and one label set that no block can hold would stop all later cuts.
        """
        good = check_label_sets(labels, starts, ends)
        if good < len(starts):
            raise RecordCorrupt(
                f"label bytes {labels[starts[good] : ends[good]][:200].tobytes()!r} are no label set: "
                "length-prefixed, names ascending, no empty string, all UTF-8"
            )

    def intern(self, labels: np.ndarray, starts: np.ndarray, ends: np.ndarray, hashes: np.ndarray) -> np.ndarray:
        """Return int32[n], the refs of `labels[starts[i]:ends[i]]` (checked); new series are added in order."""
        first = self.series.count
        self._views = {}
        refs = self.series.intern(labels, starts, ends, hashes)
        if self.series.count > first:
            self._intern_pairs(first)
        return refs

    def _intern_pairs(self, first: int) -> None:
        """Number the pairs of the series from `first` on."""
        text, last = self.series.text, self.series.count
        starts, ends = self.series.starts[first:last], self.series.starts[first + 1 : last + 1]
        counts = np.empty(last - first, np.int64)
        total = count_pairs(text, starts, ends, counts)
        pair_starts, name_ends, value_starts, pair_ends = (np.empty(total, np.int64) for _ in range(4))
        split_pairs(text, starts, ends, pair_starts, name_ends, value_starts, pair_ends)
        hashes = np.empty(total, np.uint64)
        hash_spans(text, pair_starts, pair_ends, hashes)
        known = self._pairs.count
        pairs = self._pairs.intern(text, pair_starts, pair_ends, hashes)
        if self._pairs.count > known:
            new, where = np.unique(pairs, return_index=True)
            where = where[new >= known]
            hash_spans(text, pair_starts[where], name_ends[where], hashes[: len(where)])
            names = self._names.intern(text, pair_starts[where], name_ends[where], hashes[: len(where)])
            self._pair_name = grown(self._pair_name, self._pairs.count)
            self._pair_name[known : self._pairs.count] = names
            self._pair_value = grown(self._pair_value, self._pairs.count)
            skipped = value_starts[where] - pair_starts[where]
            self._pair_value[known : self._pairs.count] = self._pairs.starts[known : self._pairs.count] + skipped
        column = grown(self._series_pair_starts, last + 1)
        at = int(column[first])
        column[first + 1 : last + 1] = at + np.cumsum(counts)
        self._series_pair_starts = column
        self._series_pairs = grown(self._series_pairs, at + total)
        self._series_pairs[at : at + total] = pairs

    def view(self, matchers: Iterable[Matcher] = ()) -> TableView:
        """Return what readers need, with the matchers' names and equal pairs already looked up."""
        key = tuple(matchers)
        view = self._views.get(key)
        if view is None:
            view = self._make_view(key)
            if len(self._views) >= _MOST_VIEWS:
                self._views = {}
            self._views[key] = view
        return view

    def _make_view(self, matchers: tuple[Matcher, ...]) -> TableView:
        names: dict[str, int] = {}
        pairs: dict[tuple[str, str], int] = {}
        for matcher in matchers:
            name, pair = _prefixed(matcher.name), -1
            if matcher.type in (MatchType.EQUAL, MatchType.NOT_EQUAL) and matcher.value:
                pair = _find_text(self._pairs, name + _prefixed(matcher.value))
                pairs[matcher.name, matcher.value] = pair
            names[matcher.name] = int(self._pair_name[pair]) if pair >= 0 else _find_text(self._names, name)
        wanted, all_known = None, False
        if matchers and all(m.type is MatchType.EQUAL and m.value for m in matchers):
            numbers = [pairs[m.name, m.value] for m in matchers]
            wanted, all_known = np.array(numbers, np.int64), min(numbers) >= 0
        return TableView(
            series_count=self.series.count,
            pair_count=self._pairs.count,
            series_text=self.series.text,
            series_starts=self.series.starts,
            series_hashes=self.series.hashes,
            series_pair_starts=self._series_pair_starts,
            series_pairs=self._series_pairs,
            pair_text=self._pairs.text,
            pair_starts=self._pairs.starts,
            pair_name=self._pair_name,
            pair_value=self._pair_value,
            name_text=self._names.text,
            name_starts=self._names.starts,
            cache=self._cache,
            found_names=names,
            found_pairs=pairs,
            wanted=wanted,
            all_known=all_known,
        )


_MOST_VIEWS = 128
"""why: panels ask the same again and again, and a view takes 10 microseconds to make."""
_FEW_PAIRS = 64
"""why: making columns of codes costs 0.1 ms before the first pair, and looking up a pair 2 microseconds."""
_FEW_REFS, _MOST_FRAMES = 32, 128
"""why: panels ask for the same few series again and again; putting the labels of one together takes 0.05 ms."""
_MOST_SELECTIONS, _MOST_CODES_A_PAIR = 16, 2
"""why: as for views. With these a table's selections take no more than five times the memory of its pairs' numbers."""
_DENSE_PAIRS = 32
"""why: sorting n numbers costs about 30 times as much as passing over them, measured at 10,000."""


def _prefixed(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogateescape")
    out = bytearray()
    put_uvarint(out, len(encoded))
    return bytes(out) + encoded


def _find_text(table: ByteTable, key: bytes) -> int:
    text = np.frombuffer(key, np.uint8)
    offsets = np.array([0, len(key)], np.int64)
    hashed = np.empty(1, np.uint64)
    hash_spans(text, offsets[:1], offsets[1:], hashed)
    return int(table.find(text, offsets, hashed)[0][0])


@dataclass(slots=True)
class _Selection:
    """What matchers select of the first `series_count` series."""

    series_count: int
    refs: np.ndarray
    """int32[n], not to be written to."""
    frame: LabelFrame | None = None
    """Their label sets, once somebody wants most of them."""


class _ReaderCache:
    """What readers have worked out; changed by single assignments only, so that readers need no lock."""

    def __init__(self) -> None:
        self.postings = Postings(0, np.zeros(1, np.int64), np.empty(0, np.int32))
        self.values: dict[int, tuple[int, np.ndarray, list[str]]] = {}
        self.frames: dict[tuple[int, ...], LabelFrame] = {}
        """Refs → their label sets, of a few small reads."""
        self.selections: dict[tuple[Matcher, ...], _Selection] = {}
        """Matchers → what they select, of a few large reads."""

    def keep_selection(self, matchers: tuple[Matcher, ...], selection: _Selection, most_refs: int) -> None:
        """Remember what matchers select, beside others if these are few and have no more refs than `most_refs`."""
        others = {m: s for m, s in self.selections.items() if s.series_count == selection.series_count}
        if len(others) >= _MOST_SELECTIONS or sum(len(s.refs) for s in others.values()) > most_refs:
            others = {}
        others[matchers] = selection
        self.selections = others

    def keep_frame(self, refs: tuple[int, ...], frame: LabelFrame) -> None:
        """Remember the label sets of a few series; what was remembered goes when it is too much."""
        if len(self.frames) >= _MOST_FRAMES:
            self.frames = {}
        self.frames[refs] = frame


@dataclass(frozen=True, slots=True)
class TableView:
    """The series table as it stood at one moment. Safe from any thread."""

    series_count: int
    pair_count: int
    series_text: np.ndarray
    series_starts: np.ndarray
    series_hashes: np.ndarray
    series_pair_starts: np.ndarray
    series_pairs: np.ndarray
    pair_text: np.ndarray
    pair_starts: np.ndarray
    pair_name: np.ndarray
    pair_value: np.ndarray
    name_text: np.ndarray
    name_starts: np.ndarray
    cache: _ReaderCache
    found_names: dict[str, int]
    found_pairs: dict[tuple[str, str], int]
    wanted: np.ndarray | None
    """int64[k]: the pairs, -1 for an unknown one, where the matchers are equalities with what is not empty."""
    all_known: bool
    """Whether there are such pairs, and none is unknown."""

    def select(self, matchers: Sequence[Matcher], check: Check | None = None) -> np.ndarray:
        """Return int32[n], ascending: the series that satisfy all matchers; `check` is called in between.

        The array must not be written to.
        """
        key = tuple(matchers)
        known = self.cache.selections.get(key)
        if known is not None and known.series_count == self.series_count:
            return known.refs
        refs = self._select(key, check)
        if len(refs) > _FEW_REFS:
            self.cache.keep_selection(key, _Selection(self.series_count, refs), self.series_count)
        return refs

    def _select(self, matchers: Sequence[Matcher], check: Check | None) -> np.ndarray:
        sets: list[tuple[Matcher, int, np.ndarray]] = []
        for matcher in matchers:
            name = self.found_names[matcher.name]
            if name < 0:
                if not matcher.matches_empty:
                    return np.empty(0, np.int32)
                continue
            accepted = self._accepted_pairs(matcher, name, check)
            if not len(accepted) and not matcher.matches_empty:
                return np.empty(0, np.int32)
            sets.append((matcher, name, accepted))
        postings = self._postings()
        drivers = [pairs for matcher, _, pairs in sets if not matcher.matches_empty]
        if not drivers:
            candidates = np.arange(self.series_count, dtype=np.int32)
        else:
            driver = min(drivers, key=postings.count)
            found = postings.union(driver)
            found = found[: np.searchsorted(found, self.series_count)]
            rest = np.arange(min(postings.series_count, self.series_count), self.series_count, dtype=np.int32)
            candidates = np.concatenate([found, rest])
            if len(sets) == 1 and not len(rest):
                return candidates
        for i in range(0, len(sets), _FILTER_MATCHERS):
            candidates = self._filter(candidates, sets[i : i + _FILTER_MATCHERS])
        return candidates

    def find_few(self, most: int) -> np.ndarray | None:
        """Return what `select` does, if that are at most `most` series and equalities lead to them at once, else None.

        Takes at most a tenth of a millisecond, whatever the size of the table.
        """
        wanted = self.wanted
        if wanted is None:
            return None
        if not self.all_known:
            return np.empty(0, np.int32)
        postings = self.cache.postings
        indexed = min(postings.series_count, self.series_count)
        if postings.leave_out_many(self.series_count):
            return None
        refs = np.empty(most, np.int32)
        lists = postings.starts, postings.refs, indexed
        columns = self.series_pair_starts, self.series_pairs, self.series_count
        found = match_few(wanted, *lists, *columns, _FEW_POSTINGS, refs)
        return None if found < 0 else refs[:found]

    def _accepted_pairs(self, matcher: Matcher, name: int, check: Check | None) -> np.ndarray:
        """Return int64[n]: the pairs of the matcher's name whose value it accepts."""
        if matcher.type is MatchType.EQUAL:
            pair = self.found_pairs.get((matcher.name, matcher.value), -1)
            return np.array([pair] if pair >= 0 else [], np.int64)
        if matcher.type is MatchType.NOT_EQUAL:
            pairs = np.flatnonzero(self.pair_name[: self.pair_count] == name)
            return pairs[pairs != self.found_pairs.get((matcher.name, matcher.value), -1)]
        pairs, values = self.values_of(name)
        return pairs[matcher.match_all(values, check)]

    def _filter(self, candidates: np.ndarray, sets: list[tuple[Matcher, int, np.ndarray]]) -> np.ndarray:
        accepted = np.zeros(self.pair_count, np.uint64)
        constrained = np.zeros(self.pair_count, np.uint64)
        absent = 0
        for bit, (matcher, name, pairs) in enumerate(sets):
            flag = np.uint64(1 << bit)
            accepted[pairs] |= flag
            constrained[self.pair_name[: self.pair_count] == name] |= flag
            if matcher.matches_empty:
                absent |= 1 << bit
        out = np.empty(len(candidates), np.int32)
        kept = filter_series(
            candidates,
            self.series_pair_starts,
            self.series_pairs,
            accepted,
            constrained,
            np.uint64((1 << len(sets)) - 1),
            np.uint64(absent),
            out,
        )
        return out[:kept]

    def _postings(self) -> Postings:
        postings = self.cache.postings
        if not postings.leave_out_many(self.series_count):
            return postings
        starts = np.zeros(self.pair_count + 1, np.int64)
        refs = np.empty(int(self.series_pair_starts[self.series_count]), np.int32)
        build_postings(self.series_pair_starts, self.series_pairs, self.series_count, starts, refs)
        postings = Postings(self.series_count, starts, refs)
        if self.cache.postings.series_count < self.series_count:
            self.cache.postings = postings
        return postings

    def values_of(self, name: int) -> tuple[np.ndarray, list[str]]:
        """Return (int64[k] pairs, their values) of a label name, in the order in which the values came."""
        seen, pairs, values = self.cache.values.get(name, (0, np.empty(0, np.int64), []))
        if seen < self.pair_count:
            new = seen + np.flatnonzero(self.pair_name[seen : self.pair_count] == name)
            if len(new):
                pairs = np.concatenate([pairs, new])
                values = values + [self.value(p) for p in new.tolist()]
            self.cache.values[name] = (self.pair_count, pairs, values)
        elif len(pairs) and pairs[-1] >= self.pair_count:
            known = int(np.searchsorted(pairs, self.pair_count))
            pairs, values = pairs[:known], values[:known]
        return pairs, values

    def value(self, pair: int) -> str:
        """Return the value of a pair."""
        return self.pair_text[self.pair_value[pair] : self.pair_starts[pair + 1]].tobytes().decode("utf-8", "replace")

    def name(self, name: int) -> str:
        """Return a label name."""
        key = self.name_text[self.name_starts[name] : self.name_starts[name + 1]].tobytes()
        return key[get_uvarint(key, 0)[1] :].decode("utf-8", "replace")

    def frame_of(self, refs: np.ndarray, filled: np.ndarray) -> LabelFrame:
        """Return the label sets of `refs[filled]`; `refs` is what `select` gave, `filled` int64[n] ascending.

        Where these are most of what was selected, all label sets are put together and remembered.
        """
        most = 2 * len(filled) > len(refs) > _FEW_REFS
        known = next((s for s in self.cache.selections.values() if s.refs is refs), None) if most else None
        if known is None:
            return self.frame(refs if len(filled) == len(refs) else refs[filled])
        frame = known.frame
        if frame is None:
            frame = self.frame(refs)
            pairs = int((self.series_pair_starts[refs + 1] - self.series_pair_starts[refs]).sum())
            if frame.codes.size <= _MOST_CODES_A_PAIR * pairs:
                known.frame = frame.unread()
        else:
            frame = frame.unread()
        return frame if len(filled) == len(refs) else frame.take(filled)

    def frame(self, refs: np.ndarray) -> LabelFrame:
        """Return the label sets of the series `refs` (int32[n])."""
        key = tuple(refs.tolist()) if len(refs) <= _FEW_REFS else ()
        if (known := self.cache.frames.get(key)) is not None:
            return known
        sizes = self.series_pair_starts[refs + 1] - self.series_pair_starts[refs]
        pairs = np.empty(int(sizes.sum()), np.int32)
        offsets = np.empty(len(refs) + 1, np.int64)
        gather_pairs(refs, self.series_pair_starts, self.series_pairs, offsets, pairs)
        frame = self._frame(offsets, pairs)
        if key:
            self.cache.keep_frame(key, frame)
        return frame

    def _frame(self, offsets: np.ndarray, pairs: np.ndarray) -> LabelFrame:
        """Return the label sets of series: series i has the pairs `pairs[offsets[i]:offsets[i + 1]]`."""
        if len(pairs) <= _FEW_PAIRS:
            found = [(self.name(int(self.pair_name[pair])), self.value(pair)) for pair in pairs.tolist()]
            return LabelFrame.from_dicts([dict(found[a:b]) for a, b in itertools.pairwise(offsets.tolist())])
        if len(pairs) * _DENSE_PAIRS < self.pair_count:
            used, at = np.unique(pairs, return_inverse=True)
        else:
            # One pass over all pairs is cheaper than sorting many.
            seen = np.zeros(self.pair_count, bool)
            seen[pairs] = True
            used, at = np.flatnonzero(seen), (np.cumsum(seen) - 1)[pairs]
        return LabelFrame.from_pairs(offsets, at, self.pair_name[used], used, self.name, self.value, self.cache)

    def label_bytes(self, refs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (uint8 label bytes back to back, int64[n + 1] offsets, uint64[n] hashes) of the series `refs`."""
        starts = self.series_starts[refs]
        sizes = self.series_starts[refs + 1] - starts
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        positions = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
        return self.series_text[positions], offsets, self.series_hashes[refs]
