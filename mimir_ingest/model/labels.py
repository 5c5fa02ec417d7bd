"""Label sets, in the two forms the project uses.

*Label bytes* (write path): one label set is `(uvarint len(name), name, uvarint len(value), value)*`, names ascending by
bytes, no empty value. It identifies a series everywhere: hash and equality are over these bytes.

*Label frame* (read path): the label sets of n series as dictionary-encoded columns, one column a label name. Grouping,
matching and dropping labels are operations on integer codes; a Python object a series appears only in a response.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from mimir_ingest.kernels.grouping import group_columns

METRIC_NAME = "__name__"

_FEW_SERIES, _MOST_MADE = 64, 16
"""Series of a frame that remembers what was made of it, and how much that is. why: 20 kB a frame at most."""

_Made = TypeVar("_Made")


def put_uvarint(out: bytearray, value: int) -> None:
    """Append an unsigned LEB128 number."""
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def get_uvarint(buffer: bytes | memoryview, at: int) -> tuple[int, int]:
    """Read an unsigned LEB128 number; return it and the next position. `ValueError` when cut off or over 64 bits."""
    shift = value = 0
    while True:
        if at >= len(buffer) or shift > 63:
            raise ValueError(f"uvarint cut off or too long at byte {at}")
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def encode_label_bytes(labels: Mapping[str, str] | Iterable[tuple[str, str]]) -> bytes:
    """Return the canonical label bytes: sorted by name, empty values left out. Cold paths and tests only."""
    pairs = labels.items() if isinstance(labels, Mapping) else labels
    out = bytearray()
    for name, value in sorted((n.encode(), v.encode()) for n, v in pairs):
        if value:
            put_uvarint(out, len(name))
            out += name
            put_uvarint(out, len(value))
            out += value
    return bytes(out)


def decode_label_bytes(buffer: bytes | memoryview) -> list[tuple[str, str]]:
    """Return the (name, value) pairs of one label set. Invalid UTF-8 becomes U+FFFD. Cold paths and tests only."""
    at, strings = 0, []
    while at < len(buffer):
        size, at = get_uvarint(buffer, at)
        if at + size > len(buffer):
            raise ValueError(f"label string of {size} bytes at {at} passes the end {len(buffer)}")
        strings.append(bytes(buffer[at : at + size]).decode("utf-8", "replace"))
        at += size
    if len(strings) % 2:
        raise ValueError("label bytes end after a name")
    return list(zip(strings[::2], strings[1::2], strict=True))


_ESCAPES = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\\": r"\\",
    '"': r"\"",
}


_UNICODE_15 = re.compile(
    "[\u0cf3\u0ece\U00010efd-\U00010eff\U0001123f-\U00011241\U00011b00-\U00011b09\U00011f00-\U00011f10\U00011f12-\U00011f3a"
    "\U00011f3e-\U00011f59\U0001342f\U00013440-\U00013455\U0001b132\U0001b155\U0001d2c0-\U0001d2d3\U0001df25-\U0001df2a"
    "\U0001e030-\U0001e06d\U0001e08f\U0001e4d0-\U0001e4f9\U0001f6dc\U0001f774-\U0001f776\U0001f77b-\U0001f77f\U0001f7d9"
    "\U0001fa75-\U0001fa77\U0001fa87\U0001fa88\U0001faad-\U0001faaf\U0001fabb-\U0001fabd\U0001fabf\U0001face\U0001facf"
    "\U0001fada\U0001fadb\U0001fae8\U0001faf7\U0001faf8\U0002b739\U00031350-\U000323af]"
)
"""Printable characters of Unicode 15.0, Go's version, that are not in 14.0, Python 3.11's."""


def is_printable(char: str) -> bool:
    """Whether Go's `strconv.IsPrint` holds for a character."""
    return char.isprintable() or _UNICODE_15.match(char) is not None


def go_quote(text: str) -> str:
    """Quote a string as Go's `strconv.Quote` does; lone surrogates stand for bytes that are no UTF-8."""
    out = ['"']
    for char in text:
        if char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif is_printable(char):
            out.append(char)
        elif ord(char) < 0x80:
            out.append(f"\\x{ord(char):02x}")
        elif "\udc80" <= char <= "\udcff":
            out.append(f"\\x{ord(char) - 0xDC00:02x}")
        elif ord(char) < 0x10000:
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(f"\\U{ord(char):08x}")
    out.append('"')
    return "".join(out)


def _ranks(codes: np.ndarray, values: Sequence[str]) -> tuple[np.ndarray, int]:
    """Return (int64[n]: the place by bytes of each series' value, -1 where `codes` is; more than every place).

    Where there are fewer series than values only those in use are read.
    """
    if len(codes) < len(values):
        used, codes = np.unique(codes, return_inverse=True)
        absent = int(used[0] < 0)
        codes = codes - absent
        values = [values[code] for code in used[absent:].tolist()]
    encoded = [v.encode("utf-8", "surrogateescape") for v in values]
    order = sorted(range(len(encoded)), key=encoded.__getitem__)
    rank = np.empty(len(order) + 1, np.int64)
    rank[order] = np.arange(len(order))
    rank[-1] = -1
    return rank[codes], len(order)


class LazyStrings(Sequence[str]):
    """A dictionary of strings, each made when it is first read. Any number of threads may share it."""

    __slots__ = ("_made", "_origin", "_refs", "_string_of")

    def __init__(self, refs: np.ndarray, string_of: Callable[[int], str], origin: object = None) -> None:
        """String i is `string_of(refs[i])`; `refs` is int64[n].

        `origin`, where given, is what numbers the strings: one never gives two references to a string, and
        `string_of` knows all references up to the largest in `refs`.
        """
        self._refs = refs
        self._string_of = string_of
        self._origin = origin
        self._made: list[str | None] = [None] * len(refs)

    @staticmethod
    def merged(parts: Sequence[Sequence[str]]) -> tuple[LazyStrings, list[np.ndarray]] | None:
        """Return the distinct strings of dictionaries of one origin, and the places of each part's; None of several."""
        lazy = [p for p in parts if isinstance(p, LazyStrings) and p._origin is not None]
        if len(lazy) < len(parts) or any(p._origin is not lazy[0]._origin for p in lazy):
            return None
        refs, at = np.unique(np.concatenate([p._refs for p in lazy]), return_inverse=True)
        newest = max(lazy, key=lambda p: int(p._refs.max(initial=-1)))
        bounds = np.cumsum([len(p) for p in lazy])[:-1]
        return LazyStrings(refs, newest._string_of, newest._origin), np.split(at, bounds)

    def unread(self) -> LazyStrings:
        """Return the same strings, none of them made yet."""
        return LazyStrings(self._refs, self._string_of, self._origin)

    def __len__(self) -> int:
        return len(self._refs)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        made = self._made[index]
        if made is None:
            made = self._made[index] = self._string_of(int(self._refs[index]))
        return made


@dataclass(frozen=True, eq=False)
class LabelFrame:
    """The label sets of `n` series as dictionary-encoded columns. Immutable; arrays must not be written to."""

    names: tuple[str, ...]
    """Label names, ascending and unique."""
    codes: np.ndarray
    """int32[len(names), n]: index into the name's dictionary, -1 where a series lacks the label."""
    values: tuple[Sequence[str], ...]
    """One dictionary of distinct, non-empty strings a name, in any order; entries need not be in use."""

    @property
    def n(self) -> int:
        """Number of series."""
        return self.codes.shape[1]

    def __len__(self) -> int:
        return self.n

    @classmethod
    def empty(cls, n: int = 0) -> LabelFrame:
        """Return `n` empty label sets."""
        return cls((), np.empty((0, n), np.int32), ())

    @classmethod
    def from_dicts(cls, sets: Sequence[Mapping[str, str]]) -> LabelFrame:
        """Build from one mapping a series; empty values count as absent."""
        names = tuple(sorted({k for s in sets for k, v in s.items() if v}))
        row = {name: i for i, name in enumerate(names)}
        dictionaries: list[dict[str, int]] = [{} for _ in names]
        codes = np.full((len(names), len(sets)), -1, np.int32)
        for column, labels in enumerate(sets):
            for key, value in labels.items():
                if value:
                    known = dictionaries[row[key]]
                    codes[row[key], column] = known.setdefault(value, len(known))
        return cls(names, codes, tuple(list(d) for d in dictionaries))

    @classmethod
    def from_refs(
        cls,
        offsets: np.ndarray,
        name_refs: np.ndarray,
        value_refs: np.ndarray,
        name_of: Callable[[int], str],
        value_of: Callable[[int], str],
    ) -> LabelFrame:
        """Build from references to strings, looking up each distinct one once.

        Parameters
        ----------
        offsets : int64[n + 1]
            Series i has the labels `offsets[i]:offsets[i + 1]`.
        name_refs, value_refs : int64[offsets[-1]]
            References; equal strings of one name must have equal references.
        name_of, value_of : int -> str
            Called once a distinct reference.
        """
        n = len(offsets) - 1
        refs, rows = np.unique(name_refs, return_inverse=True)
        unsorted = [name_of(int(r)) for r in refs]
        order = sorted(range(len(unsorted)), key=unsorted.__getitem__)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        names = tuple(unsorted[i] for i in order)
        codes = np.full((len(names), n), -1, np.int32)
        series = np.repeat(np.arange(n), np.diff(offsets))
        row = rank[rows] if len(rows) else rows
        dictionaries: list[Sequence[str]] = []
        by_row = np.argsort(row, kind="stable")
        bounds = np.searchsorted(row[by_row], np.arange(len(names) + 1))
        for i in range(len(names)):
            picked = by_row[bounds[i] : bounds[i + 1]]
            distinct, inverse = np.unique(value_refs[picked], return_inverse=True)
            codes[i, series[picked]] = inverse
            dictionaries.append([value_of(int(r)) for r in distinct])
        return cls(names, codes, tuple(dictionaries))

    @classmethod
    def from_pairs(
        cls,
        offsets: np.ndarray,
        pairs: np.ndarray,
        pair_names: np.ndarray,
        pair_refs: np.ndarray,
        name_of: Callable[[int], str],
        value_of: Callable[[int], str],
        origin: object = None,
    ) -> LabelFrame:
        """Build from references to (name, value) pairs; values are looked up when somebody reads them.

        Parameters
        ----------
        offsets : int64[n + 1]
            Series i has the pairs `offsets[i]:offsets[i + 1]`.
        pairs : int64[offsets[-1]]
            Index into `pair_names` and `pair_refs`.
        pair_names, pair_refs : int64[p]
            Each distinct pair's name (a small number), and what `value_of` takes.
        name_of, value_of : int -> str
        origin : object, optional
            What numbers the pairs (see `LazyStrings`).
        """
        counts = np.bincount(pair_names)
        found = sorted((name_of(ref), ref) for ref in np.flatnonzero(counts).tolist())
        order = [ref for _, ref in found]
        rows = np.zeros(len(counts), np.int64)
        rows[order] = np.arange(len(order))
        row_of_pair = rows[pair_names]
        # A stable sort of 16 bits is a radix sort.
        by_row = np.argsort(row_of_pair.astype(np.uint16) if len(order) < 1 << 16 else row_of_pair, kind="stable")
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[order])])
        code_of_pair = np.empty(len(pair_refs), np.int32)
        code_of_pair[by_row] = np.arange(len(pair_refs)) - np.repeat(bounds[:-1], np.diff(bounds))
        n = len(offsets) - 1
        codes = np.full((len(order), n), -1, np.int32)
        codes[row_of_pair[pairs], np.repeat(np.arange(n), np.diff(offsets))] = code_of_pair[pairs]
        values = tuple(
            LazyStrings(pair_refs[by_row[a:b]], value_of, origin) for a, b in itertools.pairwise(bounds.tolist())
        )
        return cls(tuple(name for name, _ in found), codes, values)

    @classmethod
    def concat(cls, frames: Sequence[LabelFrame]) -> LabelFrame:
        """Return the series of all frames, one after another; dictionaries are merged."""
        if len(frames) == 1:
            return frames[0]
        names = tuple(sorted({name for f in frames for name in f.names}))
        codes = np.full((len(names), sum(f.n for f in frames)), -1, np.int32)
        dictionaries: list[Sequence[str]] = []
        ends = np.cumsum([f.n for f in frames])
        for row, name in enumerate(names):
            columns = [(frame.column(name), end) for frame, end in zip(frames, ends.tolist(), strict=True)]
            found = [(column, end) for column, end in columns if column is not None]
            dictionary, places = _merged([values for (_, values), _ in found])
            for ((own, _), end), place in zip(found, places, strict=True):
                # The extra last entry maps the code -1 to itself.
                codes[row, end - len(own) : end] = own if place is None else np.append(place, -1)[own]
            dictionaries.append(dictionary)
        return cls(names, codes, tuple(dictionaries))

    def unread(self) -> LabelFrame:
        """Return the same label sets without the strings that were made of them, for who remembers them."""
        values = tuple(v.unread() if isinstance(v, LazyStrings) else v for v in self.values)
        return LabelFrame(self.names, self.codes, values)

    def column(self, name: str) -> tuple[np.ndarray, Sequence[str]] | None:
        """Return (int32[n] codes, dictionary) of a label name, or None if no series has it."""
        row = self._rows.get(name)
        return None if row is None else (self.codes[row], self.values[row])

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def _made(self) -> dict[tuple, Any]:
        return {}

    def once(self, what: tuple, make: Callable[[], _Made], is_small: Callable[[_Made], bool] | None = None) -> _Made:
        """Return what `make` gives. Of few series it is made once: heads keep their frames from query to query.

        `what` names it; what is not `is_small` is not kept.
        """
        if self.n > _FEW_SERIES:
            return make()
        made = self._made
        found = made.get(what)
        if found is None:
            found = make()
            if is_small is None or is_small(found):
                if len(made) >= _MOST_MADE:
                    made.clear()
                made[what] = found
        return found

    def take(self, index: np.ndarray | slice) -> LabelFrame:
        """Return the series at `index` (int64[k], bool[n] or a slice)."""

        def make() -> LabelFrame:
            return LabelFrame(self.names, np.ascontiguousarray(self.codes[:, index]), self.values)

        if isinstance(index, slice) or len(index) > _FEW_SERIES:
            return make()
        return self.once(("take", index.dtype, index.tobytes()), make)

    def keep(self, names: Iterable[str]) -> LabelFrame:
        """Return the same series with only these labels."""
        wanted = frozenset(names)
        return self.once(
            ("keep", wanted), lambda: self._select([i for i, name in enumerate(self.names) if name in wanted])
        )

    def drop(self, names: Iterable[str]) -> LabelFrame:
        """Return the same series without these labels."""
        unwanted = frozenset(names)
        return self.once(
            ("drop", unwanted), lambda: self._select([i for i, name in enumerate(self.names) if name not in unwanted])
        )

    def _select(self, rows: list[int]) -> LabelFrame:
        if len(rows) == len(self.names):
            return self
        return LabelFrame(tuple(self.names[i] for i in rows), self.codes[rows], tuple(self.values[i] for i in rows))

    def with_column(self, name: str, codes: np.ndarray, values: Sequence[str]) -> LabelFrame:
        """Return the same series with a label set or replaced; code -1 removes it from a series."""
        rest = self.drop([name])
        at = int(np.searchsorted(np.array(rest.names, dtype=object), name)) if rest.names else 0
        return LabelFrame(
            (*rest.names[:at], name, *rest.names[at:]),
            np.insert(rest.codes, at, np.asarray(codes, np.int32), axis=0),
            (*rest.values[:at], values, *rest.values[at:]),
        )

    def strings(self, name: str) -> list[str]:
        """Return the label's value of every series, "" where absent."""
        column = self.column(name)
        if column is None:
            return [""] * self.n
        codes, values = column
        return [values[c] if c >= 0 else "" for c in codes.tolist()]

    def group_ids(self) -> tuple[np.ndarray, np.ndarray]:
        """Group equal label sets. The arrays must not be written to.

        Returns
        -------
        ids : int64[n]
            Group of each series; groups are numbered by first appearance.
        first : int64[groups]
            The first series of each group.
        """
        return self.once(("groups",), self._group_ids)

    def _group_ids(self) -> tuple[np.ndarray, np.ndarray]:
        ids, first = np.empty(self.n, np.int64), np.empty(self.n, np.int64)
        # Twice the series at least: open addressing gets slow as the table fills.
        table = np.empty(2 << max(1, self.n).bit_length(), np.int64)
        groups = group_columns(np.ascontiguousarray(self.codes), table, ids, first)
        first = first[:groups].copy()
        ids.flags.writeable = first.flags.writeable = False
        return ids, first

    def sort_order(self) -> np.ndarray:
        """Return int64[n], the stable order by label sets as Prometheus compares them; not to be written to.

        Label sets compare as the sequence of their (name, value) pairs; a prefix comes first. Source: Prometheus
        `labels.Compare`.
        """
        return self.once(("order",), self._sort_order)

    def _sort_order(self) -> np.ndarray:
        if self.n < 2:
            return np.arange(self.n)
        keys = []
        later = np.zeros(self.n, bool)
        for codes, values in zip(self.codes[::-1], self.values[::-1], strict=True):
            ranks, count = _ranks(codes, values)
            # An absent label: the set has ended (smallest), or its next label has a greater name (largest).
            keys.append(np.where((codes < 0) & later, count, ranks))
            later |= codes >= 0
        return np.lexsort(keys) if keys else np.arange(self.n)

    def to_dicts(self) -> list[dict[str, str]]:
        """Return one dict a series, keys ascending."""
        sets: list[dict[str, str]] = [{} for _ in range(self.n)]
        for name, codes, values in zip(self.names, self.codes, self.values, strict=True):
            present = np.flatnonzero(codes >= 0)
            for series, code in zip(present.tolist(), codes[present].tolist(), strict=True):
                sets[series][name] = values[code]
        return sets


def _merged(parts: Sequence[Sequence[str]]) -> tuple[Sequence[str], list[np.ndarray | None]]:
    """Return the distinct strings of some dictionaries, and the places of each part's; None: they are the same."""
    if all(part is parts[0] for part in parts):
        return parts[0], [None] * len(parts)
    merged = LazyStrings.merged(parts)
    if merged is not None:
        return merged
    known: dict[str, int] = {}
    places = [np.array([known.setdefault(v, len(known)) for v in part], np.int64) for part in parts]
    return list(known), places
