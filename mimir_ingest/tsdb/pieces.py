"""Pieces of series that a read of a head has picked: chunks and staged samples, to be decoded and joined.

Series are numbered 0..n of the read. A large read is decoded a part of the series at a time, in a few threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mimir_ingest.errors import InvariantViolated
from mimir_ingest.kernels.head import join_pieces
from mimir_ingest.kernels.xor_chunk import decode_xor, explain_status
from mimir_ingest.model.spans import bounded_spans
from mimir_ingest.model.threads import spread

Samples = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(int64[n + 1] offsets, int64[m] timestamps (ms), float64[m] values): series i is `offsets[i]:offsets[i + 1]`."""

_PART_SAMPLES, _MOST_PARTS = 1 << 16, 8
"""why: a part's fixed cost, 0.1 ms, is small beside decoding it; eight parts let two threads end together."""


@dataclass(frozen=True, slots=True)
class PickedChunks:
    """Chunks of one segment; arrays are parallel."""

    data: np.ndarray
    """uint8[...]: XOR chunks."""
    starts: np.ndarray
    """int64[c]."""
    ends: np.ndarray
    """int64[c]: chunk i is `data[starts[i]:ends[i]]`."""
    counts: np.ndarray
    """int64[c]: samples."""
    whole: np.ndarray
    """bool[c]: whether all of them lie in the read's range."""
    series: np.ndarray
    """int64[c], ascending."""

    def between(self, first: int, last: int) -> PickedChunks:
        """Return the chunks of the series `first..last - 1`, which are numbered from 0."""
        a, b = np.searchsorted(self.series, (first, last))
        columns = (self.starts, self.ends, self.counts, self.whole)
        return PickedChunks(self.data, *(c[a:b] for c in columns), self.series[a:b] - first)


@dataclass(frozen=True, slots=True)
class PickedSamples:
    """Staged samples of the read's range, in order of acceptance within a series; arrays are parallel."""

    series: np.ndarray
    """int64[m]."""
    timestamps: np.ndarray
    """int64[m] (ms)."""
    values: np.ndarray
    """float64[m]."""

    def by_series(self) -> PickedSamples:
        """Return them ordered by series."""
        order = np.argsort(self.series, kind="stable")
        return PickedSamples(self.series[order], self.timestamps[order], self.values[order])

    def between(self, first: int, last: int) -> PickedSamples:
        """Return the samples of the series `first..last - 1`, which are numbered from 0; they are ordered by series."""
        a, b = np.searchsorted(self.series, (first, last))
        return PickedSamples(self.series[a:b] - first, self.timestamps[a:b], self.values[a:b])


@dataclass(frozen=True, slots=True)
class Pieces:
    """What was picked of n series for the times `[start_ms, end_ms)`."""

    n: int
    start_ms: int
    end_ms: int
    chunks: tuple[PickedChunks, ...]
    """Oldest first."""
    staged: PickedSamples
    """Younger than all chunks."""
    samples: int = field(init=False)
    """How many samples there are, those outside the range and equal times included."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", _total([c.counts for c in self.chunks]) + len(self.staged.series))

    @property
    def samples_inside(self) -> int:
        """How many certainly lie in the range; of equal times all count."""
        return _total([c.counts[c.whole] for c in self.chunks]) + len(self.staged.series)

    @property
    def chunk_bytes(self) -> int:
        """Size of the chunks."""
        return _total([c.ends - c.starts for c in self.chunks])

    def per_series(self) -> np.ndarray:
        """Return int64[n]: `samples` of each series."""
        counts = np.bincount(self.staged.series, minlength=self.n)
        for picked in self.chunks:
            counts += np.bincount(picked.series, picked.counts, self.n).astype(np.int64)
        return counts

    def split(self, size: int) -> list[tuple[int, int, Pieces]]:
        """Return (first, last, the pieces of the series `first..last - 1`): `size` samples each, or a single series."""
        running = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.per_series())])
        staged = self.staged.by_series()
        parts = []
        for first, last in bounded_spans(running, size):
            chunks = tuple(c.between(first, last) for c in self.chunks)
            part = replace(self, n=last - first, chunks=chunks, staged=staged.between(first, last))
            parts.append((first, last, part))
        return parts

    def join(self, rank: np.ndarray | None = None) -> Samples:
        """Decode everything and return whole series, timestamps strictly ascending; of equal times the oldest stays.

        `rank` (int64[n], optional) is the place of each series in the result.
        """
        total = self.samples
        ts, values = np.empty(total, np.int64), np.empty(total, np.float64)
        if rank is not None or total <= _PART_SAMPLES:
            offsets = self._join_into(ts, values, rank)
            return offsets, ts[: offsets[-1]], values[: offsets[-1]]
        parts = self.split(max(_PART_SAMPLES, -(-total // _MOST_PARTS)))
        ends = np.cumsum([part.samples for _, _, part in parts]).tolist()
        found: list[np.ndarray] = [np.empty(0, np.int64)] * len(parts)

        def join_part(number: int) -> None:
            part, end = parts[number][2], ends[number]
            found[number] = part._join_into(ts[end - part.samples : end], values[end - part.samples : end], None)

        spread(join_part, range(len(parts)))
        offsets, at = np.zeros(self.n + 1, np.int64), 0
        for (first, last, part), end, own in zip(parts, ends, found, strict=True):
            begin, written = end - part.samples, int(own[-1])
            if begin > at:
                ts[at : at + written] = ts[begin : begin + written]
                values[at : at + written] = values[begin : begin + written]
            offsets[first + 1 : last + 1] = own[1:] + at
            at += written
        return offsets, ts[:at], values[:at]

    def _join_into(self, ts_out: np.ndarray, values_out: np.ndarray, rank: np.ndarray | None) -> np.ndarray:
        """Do what `join` does with the result's columns given, in this thread; return the offsets."""
        late = self.staged
        counts = np.concatenate([*(c.counts for c in self.chunks), np.ones(len(late.series), np.int64)])
        series = np.concatenate([*(c.series for c in self.chunks), late.series])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        total, at = int(offsets[-1]), 0
        ts, values = np.empty(total, np.int64), np.empty(total, np.float64)
        for picked in self.chunks:
            size = len(picked.starts)
            checked(decode_xor(picked.data, picked.starts, picked.ends, offsets[at : at + size + 1], ts, values))
            at += size
        ts[total - len(late.series) :], values[total - len(late.series) :] = late.timestamps, late.values
        offsets_out = np.zeros(self.n + 1, np.int64)
        join_pieces(
            series if rank is None else rank[series],
            offsets,
            ts,
            values,
            self.start_ms,
            self.end_ms,
            np.empty(len(series), np.int64),
            offsets_out,
            ts_out,
            values_out,
            np.empty(total, np.int64),
            np.empty(total, np.float64),
        )
        return offsets_out


def _total(columns: list[np.ndarray]) -> int:
    """Return the sum of all numbers of some columns; one sum of many is quicker than many sums of few."""
    if len(columns) > 1:
        return int(np.concatenate(columns).sum())
    return int(columns[0].sum()) if columns else 0


def concatenated(parts: Sequence[Samples]) -> Samples:
    """Return the series of all parts, one part after another."""
    shifts = np.cumsum([0, *(len(ts) for _, ts, _ in parts)])
    return (
        np.concatenate(
            [np.zeros(1, np.int64), *(o[1:] + shift for (o, _, _), shift in zip(parts, shifts, strict=False))]
        ),
        np.concatenate([ts for _, ts, _ in parts]),
        np.concatenate([values for _, _, values in parts]),
    )


def checked(status: int) -> int:
    """Return a decoder's status; raise InvariantViolated if it is negative: the head encoded the chunk itself."""
    if status < 0:
        chunk, reason = explain_status(status)
        raise InvariantViolated(f"chunk {chunk} of a head segment does not decode: {reason}")
    return status
