"""Read any Prometheus or Mimir block: labels, float samples and native histograms as columns.

The index is held in memory; chunk segments are read by ranges through a function, so that the same reader serves a
local directory, object storage and bytes in memory. A chunk encoding other than XOR and the two of histograms is
refused by number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from mimir_ingest.errors import BlockCorrupt, QueryError
from mimir_ingest.kernels import chunk_frames, xor_chunk
from mimir_ingest.model.histogram_chunks import HistogramChunkCorrupt, count_samples, decode_chunks
from mimir_ingest.model.histograms import Histograms, HistogramSamples, histogram_weight
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import SampleBudget, SeriesSamples, without_empty_series
from mimir_ingest.model.spans import Check, bounded_spans
from mimir_ingest.tsdb.block_check import find_problems
from mimir_ingest.tsdb.block_meta import INDEX_FILE, META_FILE, TOMBSTONES_FILE, decode_meta, read_meta
from mimir_ingest.tsdb.chunk_files import ChunkData, read_chunks, segment_path
from mimir_ingest.tsdb.index_reader import IndexReader, SeriesEntries
from mimir_ingest.tsdb.pieces import concatenated
from mimir_ingest.tsdb.tombstones import decode_tombstones

_PART_CHUNKS = 1 << 13
"""why: a chunk has 120 samples as a rule; a million of them are decoded in 10 ms."""
_MOST_CUT_CHUNKS = 1 << 15
"""Chunks with samples outside a read's range that are decoded at a time. why: these samples count against no limit;
those of so many chunks are 64 MB."""


class BlockReader:
    """One open block; any number of threads may share it."""

    def __init__(
        self,
        index: bytes | bytearray | memoryview,
        meta: dict,
        read_chunk_segment: Callable[[int, int, int], bytes],
        tombstones: bytes | None = None,
    ) -> None:
        """Open a block.

        Parameters
        ----------
        index : bytes-like
            The index file.
        meta : dict
            The document of `meta.json`.
        read_chunk_segment : (segment, start, end) -> bytes
            Reads `chunks/<segment + 1>`, less than asked for where the file ends; its errors pass through.
        tombstones : bytes, optional
            The tombstones file.

        Raises `BlockCorrupt`.
        """
        self.meta = read_meta(meta)
        self.index = IndexReader(index)
        self.tombstones = decode_tombstones(tombstones) if tombstones else {}
        self._read_segment = read_chunk_segment

    @property
    def memory_bytes(self) -> int:
        """Bytes that the open block holds, about."""
        return self.index.memory_bytes

    def select(
        self,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms_incl: int,
        budget: SampleBudget | None = None,
    ) -> SeriesSamples:
        """Return the samples of the matching series within `[start_ms, end_ms_incl]`, in label order.

        Series without samples there are left out. Raises `BlockCorrupt`, `QueryError` for an unknown chunk encoding or
        more samples than the budget has, and what reading a segment raises.
        """
        entries = self._entries(matchers, start_ms, end_ms_incl, None if budget is None else budget.check)
        if budget is not None:
            budget.check_series(entries.labels.n)
            budget.take_chunks(entries.chunks.shape[1], 0)
        cut = (entries.chunks[0] < start_ms) | (entries.chunks[1] > end_ms_incl)
        if np.count_nonzero(cut) <= _MOST_CUT_CHUNKS:
            return without_empty_series(self._read(entries, start_ms, end_ms_incl, budget))
        # Only samples in the range are held for all series.
        parts = [
            self._read(_some(entries, first, last), start_ms, end_ms_incl, budget)
            for first, last in bounded_spans(entries.chunk_offsets, _MOST_CUT_CHUNKS)
        ]
        every = [HistogramSamples.empty(p.series_count) if p.histograms is None else p.histograms for p in parts]
        samples = concatenated([(p.offsets, p.timestamps, p.values) for p in parts])
        return without_empty_series(SeriesSamples(entries.labels, *samples, HistogramSamples.concat(every)))

    def _read(
        self, entries: SeriesEntries, start_ms: int, end_ms_incl: int, budget: SampleBudget | None
    ) -> SeriesSamples:
        """Return the samples of these entries in the time range; raises as `select`."""
        data = read_chunks(entries.chunks[2], self._read_segment)
        floats = data.encodings == chunk_frames.ENCODING_XOR
        histograms = np.isin(data.encodings, chunk_frames.HISTOGRAM_ENCODINGS)
        if not (floats | histograms).all():
            encoding = int(data.encodings[~(floats | histograms)][0])
            raise QueryError(f"block {self.meta.ulid}: chunk encoding {encoding} is not supported")
        if budget is not None:
            budget.take_chunks(0, int((data.ends - data.starts).sum()))
            whole = (entries.chunks[0] >= start_ms) & (entries.chunks[1] <= end_ms_incl)
            budget.take(int(self._count(data, whole & floats, entries).sum()))
            if histograms.any():
                budget.take(self._weigh_histograms(data, whole & histograms, entries))
        sample_offsets, timestamps, values = self.decode(data, floats, entries, budget)
        offsets = sample_offsets[_before(floats)[entries.chunk_offsets]]
        found = None
        if histograms.any():
            chunk_offsets, *columns = self.decode_histograms(data, histograms, entries, budget)
            found = HistogramSamples(chunk_offsets[_before(histograms)[entries.chunk_offsets]], *columns)
        samples = SeriesSamples(entries.labels, offsets, timestamps, values, found)
        if self.tombstones or np.any(entries.chunks[0] < start_ms) or np.any(entries.chunks[1] > end_ms_incl):
            samples = self._cut(entries, samples, start_ms, end_ms_incl)
        return samples

    def select_labels(
        self,
        matchers: Sequence[Matcher],
        start_ms: int | None = None,
        end_ms_incl: int | None = None,
        check: Check | None = None,
    ) -> LabelFrame:
        """Return the matching label sets in label order; with times, of series with a chunk that overlaps them.

        `check` is called between parts of the work.
        """
        if start_ms is None and end_ms_incl is None:
            return self.index.series(self.index.postings(matchers, check)).labels
        low = np.iinfo(np.int64).min if start_ms is None else start_ms
        high = np.iinfo(np.int64).max if end_ms_incl is None else end_ms_incl
        return self._entries(matchers, low, high, check).labels

    def label_names(self, matchers: Sequence[Matcher] = ()) -> list[str]:
        """Return the label names of the matching series, ascending."""
        return list(self.select_labels(matchers).names) if matchers else self.index.label_names()

    def label_values(self, name: str, matchers: Sequence[Matcher] = ()) -> list[str]:
        """Return the values of a label among the matching series, ascending."""
        if not matchers:
            return list(self.index.label_values(name))
        column = self.select_labels(matchers).column(name)
        if column is None:
            return []
        codes, values = column
        return sorted(values[code] for code in np.unique(codes[codes >= 0]).tolist())

    def verify(self) -> list[str]:
        """Read everything, test it against checksums, itself and `meta.json`; return what is wrong, one line each."""
        return find_problems(self)

    def read_all_chunks(self, entries: SeriesEntries) -> ChunkData:
        """Read the chunks of these entries, checksums tested."""
        return read_chunks(entries.chunks[2], self._read_segment)

    def _entries(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms_incl: int, check: Check | None = None
    ) -> SeriesEntries:
        """The matching series that have chunks in the time range, with only these chunks."""
        entries = self.index.series(self.index.postings(matchers, check))
        inside = (entries.chunks[0] <= end_ms_incl) & (entries.chunks[1] >= start_ms)
        if inside.all() and (np.diff(entries.chunk_offsets) > 0).all():
            return entries
        bounds = np.concatenate([[0], np.cumsum(inside)])[entries.chunk_offsets]
        used = np.flatnonzero(np.diff(bounds) > 0)
        return SeriesEntries(
            entries.refs[used],
            entries.labels.take(used),
            np.concatenate([bounds[used], bounds[-1:]]),
            np.ascontiguousarray(entries.chunks[:, inside]),
        )

    def decode(
        self, data: ChunkData, which: np.ndarray, entries: SeriesEntries, budget: SampleBudget | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Decode the XOR chunks `which` (bool[k]); return (int64[chunks + 1] sample offsets, timestamps, values).

        Raises QueryError between some thousand chunks if the budget's reads were given up.
        """
        starts, ends = data.starts[which], data.ends[which]
        refs = entries.chunks[2, which]
        offsets = np.concatenate([[0], np.cumsum(self._count(data, which, entries))])
        timestamps, values = np.empty(offsets[-1], np.int64), np.empty(offsets[-1], np.float64)
        for first in range(0, len(starts), _PART_CHUNKS):
            if budget is not None:
                budget.check()
            part = slice(first, first + _PART_CHUNKS)
            bounds = offsets[first : first + _PART_CHUNKS + 1]
            status = xor_chunk.decode_xor(data.buffer, starts[part], ends[part], bounds, timestamps, values)
            _check_chunks(status, refs[part])
        return offsets, timestamps, values

    def _count(self, data: ChunkData, which: np.ndarray, entries: SeriesEntries) -> np.ndarray:
        """Return int64[chunks]: the samples of the XOR chunks `which` (bool[k])."""
        starts, ends = data.starts[which], data.ends[which]
        refs = entries.chunks[2, which]
        counts = np.empty(len(starts), np.int64)
        _check_chunks(xor_chunk.count_xor(data.buffer, starts, counts), refs)
        # A sample takes two bits at least: a greater count is wrong, and must not make us allocate.
        wrong = counts > 4 * (ends - starts)
        if wrong.any():
            _check_chunks(-(4 * int(np.argmax(wrong)) + xor_chunk.TRUNCATED), refs)
        return counts

    def decode_histograms(
        self, data: ChunkData, which: np.ndarray, entries: SeriesEntries, budget: SampleBudget | None = None
    ) -> tuple[np.ndarray, np.ndarray, Histograms]:
        """Decode the histogram chunks `which` (bool[k]); return (int64[chunks + 1] offsets, timestamps, histograms)."""
        is_float = data.encodings[which] == chunk_frames.ENCODING_FLOAT_HISTOGRAM
        chunks = data.buffer, data.starts[which], data.ends[which], is_float
        with _naming_chunks(entries.chunks[2, which]):
            return decode_chunks(*chunks, resets_begin_chunks=True, check=None if budget is None else budget.check)

    def _weigh_histograms(self, data: ChunkData, which: np.ndarray, entries: SeriesEntries) -> int:
        """Return what the histogram chunks `which` (bool[k]) take of a query's samples."""
        with _naming_chunks(entries.chunks[2, which]):
            samples, buckets, _ = count_samples(data.buffer, data.starts[which], data.ends[which]).T
        return int((samples * histogram_weight(buckets)).sum())

    def _cut(self, entries: SeriesEntries, samples: SeriesSamples, start_ms: int, end_ms_incl: int) -> SeriesSamples:
        """Return only the samples of the time range that no tombstone covers."""
        mask = self._mask(entries, samples.offsets, samples.timestamps, start_ms, end_ms_incl)
        offsets = _before(mask)[samples.offsets]
        histograms = samples.histograms
        if histograms is not None:
            histograms = histograms.keep(
                self._mask(entries, histograms.offsets, histograms.timestamps, start_ms, end_ms_incl)
            )
        return SeriesSamples(samples.labels, offsets, samples.timestamps[mask], samples.values[mask], histograms)

    def _mask(
        self, entries: SeriesEntries, offsets: np.ndarray, timestamps: np.ndarray, start_ms: int, end_ms_incl: int
    ) -> np.ndarray:
        mask = (timestamps >= start_ms) & (timestamps <= end_ms_incl)
        for ref, spans in self.tombstones.items():
            at = int(np.searchsorted(entries.refs, ref))
            if at < len(entries.refs) and entries.refs[at] == ref:
                own = slice(int(offsets[at]), int(offsets[at + 1]))
                for low, high in spans:
                    mask[own] &= (timestamps[own] < low) | (timestamps[own] > high)
        return mask


def _some(entries: SeriesEntries, first: int, last: int) -> SeriesEntries:
    """Return the entries `first..last - 1`."""
    offsets = entries.chunk_offsets[first : last + 1]
    chunks = np.ascontiguousarray(entries.chunks[:, offsets[0] : offsets[-1]])
    return SeriesEntries(
        entries.refs[first:last], entries.labels.take(np.arange(first, last)), offsets - offsets[0], chunks
    )


def _check_chunks(status: int, refs: np.ndarray) -> None:
    if status < 0:
        chunk, reason = xor_chunk.explain_status(status)
        raise _corrupt(int(refs[chunk]), reason)


@contextmanager
def _naming_chunks(refs: np.ndarray) -> Iterator[None]:
    """Say of a corrupt histogram chunk where it lies."""
    try:
        yield
    except HistogramChunkCorrupt as error:
        raise _corrupt(int(refs[error.chunk]), error.reason) from error


def _corrupt(ref: int, reason: str) -> BlockCorrupt:
    return BlockCorrupt(f"{segment_path(ref >> 32)}: chunk at byte {ref & 0xFFFFFFFF}: {reason}")


def _before(mask: np.ndarray) -> np.ndarray:
    """Return int64[k + 1]: how many are chosen before each."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(mask)])


def open_files(files: Mapping[str, bytes]) -> BlockReader:
    """Open a block whose files are in memory, by relative path. Raises `BlockCorrupt`, also for a missing file."""

    def read(segment: int, start: int, end: int) -> bytes:
        return _file(files, segment_path(segment))[start:end]

    meta = decode_meta(_file(files, META_FILE))
    return BlockReader(_file(files, INDEX_FILE), meta, read, files.get(TOMBSTONES_FILE))


def _file(files: Mapping[str, bytes], path: str) -> bytes:
    try:
        return files[path]
    except KeyError as error:
        raise BlockCorrupt(f"{path}: the file is missing") from error


def verify_block(files: Mapping[str, bytes]) -> None:
    """Decode a block again from its bytes, all of it. Raises `BlockCorrupt` with every problem found."""
    problems = open_files(files).verify()
    if problems:
        raise BlockCorrupt("; ".join(problems))
