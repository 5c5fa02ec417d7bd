"""A streamed remote read answer, read as it arrives: frames to columns.

The other side of `read_response.encode_frames`; frames of a Prometheus or of another owner are read alike, the headers
of histogram chunks being believed. The answer is of one query. Its chunks are decoded piece by piece, so that only
columns are held; labels are numbered by pairs, and become strings when somebody reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mimir_ingest.errors import AnswerCorrupt
from mimir_ingest.kernels.byte_table import hash_spans
from mimir_ingest.kernels.chunk_frames import ENCODING_FLOAT_HISTOGRAM, ENCODING_XOR, HISTOGRAM_ENCODINGS
from mimir_ingest.kernels.read_frames import (
    CHUNK_BYTES,
    CHUNK_COLUMNS,
    PAIR_BYTES,
    PAIR_COLUMNS,
    SERIES_COLUMNS,
    FrameStatus,
    find_invalid_text,
    number_series,
    scan_frames,
)
from mimir_ingest.kernels.varint import WireStatus
from mimir_ingest.kernels.xor_chunk import count_xor, decode_xor, explain_status
from mimir_ingest.model.byte_table import ByteTable, grown
from mimir_ingest.model.histogram_chunks import HistogramChunkCorrupt, count_samples, decode_chunks
from mimir_ingest.model.histograms import Histograms, HistogramSamples, histogram_weight
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.samples import SampleBudget, SeriesSamples, without_empty_series

_REASONS = {
    FrameStatus.TOO_LARGE: "a frame is longer than 50 MB",
    FrameStatus.CHECKSUM: "a frame's checksum differs",
    FrameStatus.LABEL_FORM: "a label is not a name and a value in their shortest form",
    FrameStatus.LABEL_ORDER: "label names do not ascend",
    FrameStatus.NO_CHUNKS: "a series has no chunks",
    FrameStatus.CHUNK_TOO_SHORT: "a chunk is too short to hold a sample",
    FrameStatus.QUERY_INDEX: "a frame answers another query",
}


class FrameReader:
    """Decodes one answer. `feed` pieces in order, one at a time, then `finish`; any thread.

    Parameters
    ----------
    budget
        Samples are taken from it before they are decoded.
    start_ms, end_ms
        Samples outside `[start_ms, end_ms)` are dropped: other servers send whole chunks.
    """

    def __init__(self, *, budget: SampleBudget, start_ms: int, end_ms: int) -> None:
        self._budget = budget
        self._range = start_ms, end_ms
        self._rest = b""
        self._series_count = 0
        self._labels = _PairTable()
        self._pairs: list[np.ndarray] = []
        self._pair_counts: list[np.ndarray] = []
        self._sample_counts: list[np.ndarray] = []
        self._timestamps: list[np.ndarray] = []
        self._values: list[np.ndarray] = []
        self._histograms: list[tuple[np.ndarray, np.ndarray, Histograms]] = []
        """(Count of each series, timestamps, histograms) of each piece."""

    def feed(self, piece: bytes) -> None:
        """Decode the frames that are complete with this piece. Raises AnswerCorrupt, QueryError (too many samples)."""
        stream = self._rest + piece if self._rest else piece
        data = np.frombuffer(stream, np.uint8)
        pairs = np.empty(PAIR_COLUMNS * (len(data) // PAIR_BYTES), np.int64)
        chunks = np.empty(CHUNK_COLUMNS * (len(data) // CHUNK_BYTES), np.int64)
        series = np.empty(SERIES_COLUMNS * (len(data) // CHUNK_BYTES), np.int64)
        counts = np.empty(3, np.int64)
        used = scan_frames(data, pairs, chunks, series, counts)
        if used < 0:
            reason = _REASONS.get(used) or f"a message does not decode ({WireStatus(used).name})"
            raise AnswerCorrupt(f"remote read answer: {reason}")
        self._rest = stream[used:]
        if counts[0]:
            ends = series.reshape(-1, SERIES_COLUMNS)[: counts[0]]
            self._take_labels(data, pairs.reshape(-1, PAIR_COLUMNS)[: counts[1]], ends[:, 0])
            self._take_chunks(data, chunks.reshape(-1, CHUNK_COLUMNS)[: counts[2]], ends[:, 1])

    def _take_labels(self, data: np.ndarray, spans: np.ndarray, ends: np.ndarray) -> None:
        pairs = self._labels.intern(data, *(np.ascontiguousarray(column) for column in spans.T))
        if self._budget.limits_series:
            numbers = np.empty(len(ends), np.int64)
            number_series(np.concatenate([np.zeros(1, np.int64), ends]), pairs, numbers)
            # The first one may go on with the last one of the piece before.
            self._series_count += int(numbers[-1]) + (0 if self._pairs else 1)
            self._budget.check_series(self._series_count)
        self._pairs.append(pairs)
        self._pair_counts.append(np.diff(ends, prepend=0))

    def _take_chunks(self, data: np.ndarray, spans: np.ndarray, ends: np.ndarray) -> None:
        starts, chunk_ends, kinds = (np.ascontiguousarray(column) for column in spans.T)
        self._budget.take_chunks(len(starts), int((chunk_ends - starts).sum()))
        floats, histograms = kinds == ENCODING_XOR, np.isin(kinds, HISTOGRAM_ENCODINGS)
        unknown = kinds[~(floats | histograms)]
        if len(unknown):
            raise AnswerCorrupt(f"remote read answer: chunks of encoding {unknown[0]} are not known")
        counts = np.zeros(len(starts), np.int64)
        counts[floats] = self._take_floats(data, starts[floats], chunk_ends[floats])
        self._sample_counts.append(_by_series(counts, ends))
        counts[floats] = 0
        if histograms.any():
            is_float = kinds[histograms] == ENCODING_FLOAT_HISTOGRAM
            counts[histograms], *columns = self._take_histograms(
                data, starts[histograms], chunk_ends[histograms], is_float
            )
            self._histograms.append((_by_series(counts, ends), *columns))
        else:
            self._histograms.append((np.zeros(len(ends), np.int64), np.empty(0, np.int64), Histograms.empty()))

    def _take_floats(self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Decode XOR chunks; return int64[chunks], their samples."""
        counts = np.empty(len(starts), np.int64)
        count_xor(data, starts, counts)
        # The shortest chunk: 16 bits of count, 72 of the first sample, 9 of the second, 2 of each other one.
        needed = 70 + 2 * counts + np.where(counts > 1, 23, 16)
        if not ((counts > 0) & (needed <= 8 * (ends - starts) + 2)).all():
            raise AnswerCorrupt("remote read answer: a chunk is too short for its samples")
        offsets = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        total = int(offsets[-1])
        self._budget.take(total)
        timestamps, values = np.empty(total, np.int64), np.empty(total, np.float64)
        status = decode_xor(data, starts, ends, offsets, timestamps, values)
        if status < 0:
            raise AnswerCorrupt("remote read answer: chunk {}: {}".format(*explain_status(status)))
        self._timestamps.append(timestamps)
        self._values.append(values)
        return counts

    def _take_histograms(
        self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray, is_float: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, Histograms]:
        """Decode histogram chunks; return (int64[chunks] samples, timestamps, histograms)."""
        try:
            samples, buckets, _ = count_samples(data, starts, ends).T
            self._budget.take(int((samples * histogram_weight(buckets)).sum()))
            chunks = data, starts, ends, is_float
            offsets, timestamps, values = decode_chunks(
                *chunks, resets_begin_chunks=True, headers_hold=True, check=self._budget.check
            )
        except HistogramChunkCorrupt as error:
            raise AnswerCorrupt(f"remote read answer: histogram {error}") from error
        if not samples.all():
            raise AnswerCorrupt("remote read answer: a histogram chunk has no samples")
        return np.diff(offsets), timestamps, values

    def finish(self) -> SeriesSamples:
        """Return the series, in the answer's order. Raises AnswerCorrupt when the stream ended within a frame."""
        if self._rest:
            raise AnswerCorrupt(f"remote read answer: it ends within a frame, {len(self._rest)} bytes after the last")
        if not self._pairs:
            return SeriesSamples.empty()
        pairs, pair_counts = np.concatenate(self._pairs), np.concatenate(self._pair_counts)
        pair_offsets = np.zeros(len(pair_counts) + 1, np.int64)
        np.cumsum(pair_counts, out=pair_offsets[1:])
        numbers = np.empty(len(pair_counts), np.int64)
        number_series(pair_offsets, pairs, numbers)
        firsts = np.flatnonzero(np.diff(numbers, prepend=-1))
        offsets = _offsets(self._sample_counts, firsts)
        frame = self._labels.frame(pair_offsets, pairs, firsts)
        if len(frame.group_ids()[1]) != frame.n:
            raise AnswerCorrupt("remote read answer: a series comes twice")
        timestamps, values = _joined(self._timestamps), _joined(self._values)
        samples = SeriesSamples(frame, offsets, timestamps, values, self._found_histograms(firsts))
        if not samples.ascends():
            raise AnswerCorrupt("remote read answer: times of a series do not ascend")
        return _within(samples, *self._range)

    def _found_histograms(self, firsts: np.ndarray) -> HistogramSamples | None:
        counts, timestamps, values = zip(*self._histograms, strict=True)
        if not any(len(piece) for piece in timestamps):
            return None
        return HistogramSamples(_offsets(counts, firsts), _joined(timestamps), Histograms.concat(values))


def _by_series(counts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the samples of each series; series i has the chunks `ends[i - 1]:ends[i]`."""
    return np.diff(np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])[ends], prepend=0)


def _offsets(counts: Sequence[np.ndarray], firsts: np.ndarray) -> np.ndarray:
    """Return the offsets of series, of which a part begins at each of `firsts`."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.add.reduceat(_joined(counts), firsts))])


def _joined(pieces: Sequence[np.ndarray]) -> np.ndarray:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _within(samples: SeriesSamples, start_ms: int, end_ms: int) -> SeriesSamples:
    """Return the samples in `[start_ms, end_ms)`, and the series that have some."""
    histograms = samples.histograms
    if histograms is not None:
        times = histograms.timestamps
        histograms = histograms.keep((times >= start_ms) & (times < end_ms))
        histograms = histograms.without_times_of(samples.offsets, samples.timestamps)
    times = samples.timestamps
    inside = (times >= start_ms) & (times < end_ms)
    if inside.all():
        return without_empty_series(replace(samples, histograms=histograms))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(inside)])[samples.offsets]
    return without_empty_series(
        SeriesSamples(samples.labels, offsets, times[inside], samples.values[inside], histograms)
    )


class _PairTable:
    """Distinct label pairs, and their names, by number."""

    def __init__(self) -> None:
        self._pairs, self._names = ByteTable(), ByteTable()
        self._pair_name = np.empty(0, np.int64)
        self._value_skip = np.empty(0, np.int64)

    def intern(
        self,
        data: np.ndarray,
        starts: np.ndarray,
        names: np.ndarray,
        name_ends: np.ndarray,
        values: np.ndarray,
        ends: np.ndarray,
    ) -> np.ndarray:
        """Return int32[n], the numbers of pairs (positions as in `scan_frames`). Raises AnswerCorrupt."""
        known = self._pairs.count
        hashes = np.empty(len(starts), np.uint64)
        hash_spans(data, starts, ends, hashes)
        pairs = self._pairs.intern(data, starts, ends, hashes)
        if self._pairs.count > known:
            new, at = np.unique(pairs, return_index=True)
            at = at[new >= known]
            if find_invalid_text(data, names[at], name_ends[at]) < len(at):
                raise AnswerCorrupt("remote read answer: a label name is not UTF-8")
            if find_invalid_text(data, values[at], ends[at]) < len(at):
                raise AnswerCorrupt("remote read answer: a label value is not UTF-8")
            hash_spans(data, names[at], name_ends[at], hashes[: len(at)])
            self._pair_name = grown(self._pair_name, self._pairs.count)
            self._pair_name[known : self._pairs.count] = self._names.intern(
                data, names[at], name_ends[at], hashes[: len(at)]
            )
            self._value_skip = grown(self._value_skip, self._pairs.count)
            self._value_skip[known : self._pairs.count] = (values - starts)[at]
        return pairs

    def frame(self, pair_offsets: np.ndarray, pairs: np.ndarray, series: np.ndarray) -> LabelFrame:
        """Return the label sets of some series; series i has the pairs `pairs[pair_offsets[i]:pair_offsets[i + 1]]`."""
        counts = (pair_offsets[1:] - pair_offsets[:-1])[series]
        offsets = np.zeros(len(series) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        if len(series) < len(pair_offsets) - 1:
            pairs = pairs[np.repeat(pair_offsets[series] - offsets[:-1], counts) + np.arange(offsets[-1])]
        count = self._pairs.count
        return LabelFrame.from_pairs(offsets, pairs, self._pair_name[:count], np.arange(count), self._name, self._value)

    def _name(self, number: int) -> str:
        table = self._names
        return table.text[table.starts[number] : table.starts[number + 1]].tobytes().decode()

    def _value(self, pair: int) -> str:
        table = self._pairs
        return table.text[table.starts[pair] + self._value_skip[pair] : table.starts[pair + 1]].tobytes().decode()
