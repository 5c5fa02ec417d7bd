"""Read any Prometheus or Mimir block: labels and float samples as columns.

The index is held in memory; chunk segments are read by ranges through a function, so that the same reader serves a
local directory, object storage and bytes in memory. Float chunks (XOR) are decoded; native histogram chunks are
counted and left out, and any other encoding is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mimir_ingest.errors import BlockCorrupt, QueryError
from mimir_ingest.kernels import chunk_frames, xor_chunk
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import SampleBudget, SeriesSamples
from mimir_ingest.tsdb.block_check import find_problems
from mimir_ingest.tsdb.block_meta import INDEX_FILE, META_FILE, TOMBSTONES_FILE, decode_meta, read_meta
from mimir_ingest.tsdb.chunk_files import ChunkData, read_chunks, segment_path
from mimir_ingest.tsdb.index_reader import IndexReader, SeriesEntries
from mimir_ingest.tsdb.tombstones import decode_tombstones

_HISTOGRAMS = (chunk_frames.ENCODING_HISTOGRAM, chunk_frames.ENCODING_FLOAT_HISTOGRAM)


@dataclass(frozen=True, slots=True)
class BlockSelection:
    """The answer of one block, and what it leaves out."""

    samples: SeriesSamples
    histogram_chunks_skipped: int
    """Chunks of native histograms among the selected ones."""


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

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms_incl: int) -> SeriesSamples:
        """Return the float samples of the matching series within `[start_ms, end_ms_incl]`, in label order.

        Series without samples there are left out. Raises `BlockCorrupt`, `QueryError` for an unknown chunk encoding,
        and what reading a segment raises.
        """
        return self.select_counted(matchers, start_ms, end_ms_incl).samples

    def select_counted(
        self,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms_incl: int,
        budget: SampleBudget | None = None,
    ) -> BlockSelection:
        """As `select`, and say what was left out. QueryError if the samples are more than the budget has."""
        entries = self._entries(matchers, start_ms, end_ms_incl)
        data = read_chunks(entries.chunks[2], self._read_segment)
        floats = data.encodings == chunk_frames.ENCODING_XOR
        histograms = np.isin(data.encodings, _HISTOGRAMS)
        if not (floats | histograms).all():
            encoding = int(data.encodings[~(floats | histograms)][0])
            raise QueryError(f"block {self.meta.ulid}: chunk encoding {encoding} is not supported")
        kept = np.concatenate([[0], np.cumsum(floats)])
        if budget is not None:
            whole = (entries.chunks[0] >= start_ms) & (entries.chunks[1] <= end_ms_incl) & floats
            budget.take(int(self._count(data, whole, entries).sum()))
        sample_offsets, timestamps, values = self.decode(data, floats, entries)
        offsets = sample_offsets[kept[entries.chunk_offsets]]
        samples = SeriesSamples(entries.labels, offsets, timestamps, values)
        cut = self.tombstones or np.any(entries.chunks[0] < start_ms) or np.any(entries.chunks[1] > end_ms_incl)
        mask = self._mask(entries, samples, start_ms, end_ms_incl) if cut else None
        return BlockSelection(_trim(samples, mask), int(np.count_nonzero(histograms)))

    def select_labels(
        self, matchers: Sequence[Matcher], start_ms: int | None = None, end_ms_incl: int | None = None
    ) -> LabelFrame:
        """Return the matching label sets in label order; with times, of series with a chunk that overlaps them."""
        if start_ms is None and end_ms_incl is None:
            return self.index.series(self.index.postings(matchers)).labels
        low = np.iinfo(np.int64).min if start_ms is None else start_ms
        high = np.iinfo(np.int64).max if end_ms_incl is None else end_ms_incl
        return self._entries(matchers, low, high).labels

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

    def _entries(self, matchers: Sequence[Matcher], start_ms: int, end_ms_incl: int) -> SeriesEntries:
        """The matching series that have chunks in the time range, with only these chunks."""
        entries = self.index.series(self.index.postings(matchers))
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
        self, data: ChunkData, which: np.ndarray, entries: SeriesEntries
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Decode the XOR chunks `which` (bool[k]); return (int64[chunks + 1] sample offsets, timestamps, values)."""
        starts, ends = data.starts[which], data.ends[which]
        refs = entries.chunks[2, which]
        offsets = np.concatenate([[0], np.cumsum(self._count(data, which, entries))])
        timestamps, values = np.empty(offsets[-1], np.int64), np.empty(offsets[-1], np.float64)
        _check_chunks(xor_chunk.decode_xor(data.buffer, starts, ends, offsets, timestamps, values), refs)
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

    def _mask(self, entries: SeriesEntries, samples: SeriesSamples, start_ms: int, end_ms_incl: int) -> np.ndarray:
        mask = (samples.timestamps >= start_ms) & (samples.timestamps <= end_ms_incl)
        for ref, spans in self.tombstones.items():
            at = int(np.searchsorted(entries.refs, ref))
            if at < len(entries.refs) and entries.refs[at] == ref:
                own = slice(int(samples.offsets[at]), int(samples.offsets[at + 1]))
                for low, high in spans:
                    mask[own] &= (samples.timestamps[own] < low) | (samples.timestamps[own] > high)
        return mask


def _check_chunks(status: int, refs: np.ndarray) -> None:
    if status < 0:
        chunk, reason = xor_chunk.explain_status(status)
        ref = int(refs[chunk])
        raise BlockCorrupt(f"{segment_path(ref >> 32)}: chunk at byte {ref & 0xFFFFFFFF}: {reason}")


def _trim(samples: SeriesSamples, mask: np.ndarray | None) -> SeriesSamples:
    """Return only the samples of the mask (all, without one), and only the series that have some."""
    labels, offsets, timestamps, values = samples.labels, samples.offsets, samples.timestamps, samples.values
    if mask is not None and not mask.all():
        offsets = np.concatenate([[0], np.cumsum(mask)])[offsets]
        timestamps, values = timestamps[mask], values[mask]
    filled = np.diff(offsets) > 0
    if not filled.all():
        labels = labels.take(np.flatnonzero(filled))
        offsets = np.concatenate([offsets[:1], offsets[1:][filled]])
    return SeriesSamples(labels, offsets, timestamps, values)


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
