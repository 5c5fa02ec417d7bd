"""Chunk segment files: `magic 0x85BD40DD, version 1, 3 zero bytes | frames`, frames as in `kernels.chunk_frames`.

A chunk's reference is the number of its segment, counted from 0, in the high 32 bits and the position of its frame in
the low ones; segment 0 is the file `chunks/000001`.

Source: Prometheus tsdb/docs/format/chunks.md, tsdb/chunks/chunks.go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mimir_ingest.errors import BlockCorrupt, InvariantViolated
from mimir_ingest.kernels import chunk_frames
from mimir_ingest.kernels.gather import gather_bytes
from mimir_ingest.kernels.xor_chunk import encode_xor, max_encoded_size
from mimir_ingest.model.histogram_chunks import ChunkPlan, EncodedChunks, encode_chunks
from mimir_ingest.model.histograms import HistogramSamples

HEADER = bytes.fromhex("85bd40dd01000000")

SEGMENT_BYTES = 512 << 20
"""No segment is longer. Prometheus's default."""

_BATCH_SAMPLES = 1 << 20
"""Samples encoded at a time. why: scratch takes 20 bytes a sample, encoded chunks one to ten."""

_HISTOGRAM_WEIGHT = 16
"""Samples that a histogram stands for in that."""

_GAP_BYTES = 64 << 10
"""Ranges this close are read as one. why: a request to object storage costs about as much as 64 KiB of transfer."""

_TAIL_BYTES = 4 << 10
"""Read after the start of a range's last chunk, whose length is not known; 120 random samples take 2.4 KiB."""

ReadRange = Callable[[int, int, int], bytes]
"""(segment from 0, start, end) to the bytes; fewer when the file ends before `end`."""


def segment_path(segment: int) -> str:
    """Return a segment's path in its block."""
    return f"chunks/{segment + 1:06d}"


@dataclass(frozen=True, slots=True)
class PlannedChunks:
    """What chunks are to hold, and in which order they stand. Chunks are numbered: floats first, then histograms."""

    timestamps: np.ndarray
    """int64[m] (ms)."""
    values: np.ndarray
    """float64[m]."""
    starts: np.ndarray
    """int64[k + 1]: chunk j holds the samples `starts[j]:starts[j + 1]`."""
    histograms: HistogramSamples | None = None
    histogram_plan: ChunkPlan | None = None
    """Chunk j of it has the number k + j."""
    order: np.ndarray | None = None
    """int64[chunks]: numbers in the order in which they are written; None: as they are numbered."""

    def encode(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Encode the chunks `numbers` (ascending within a kind).

        Returns (uint8[...] data, int64[n] ends, uint8[n] encodings), in the order of `numbers`.
        """
        floats = numbers[numbers < len(self.starts) - 1]
        data, ends = self._encode_floats(floats)
        encodings = np.full(len(floats), chunk_frames.ENCODING_XOR, np.uint8)
        if len(floats) == len(numbers):
            return data, ends, encodings
        others = self._encode_histograms(numbers[numbers >= len(self.starts) - 1] - (len(self.starts) - 1))
        kinds = np.where(others.is_float, chunk_frames.ENCODING_FLOAT_HISTOGRAM, chunk_frames.ENCODING_HISTOGRAM)
        if not len(floats):
            return others.data, others.ends, kinds.astype(np.uint8)
        offsets = np.concatenate([[0], ends, others.ends + len(data)])
        both = np.concatenate([data, others.data])
        is_float = numbers < len(self.starts) - 1
        where = np.where(is_float, np.cumsum(is_float) - 1, len(floats) + np.cumsum(~is_float) - 1)
        placed = np.concatenate([[0], np.cumsum(np.diff(offsets)[where])])
        out = np.empty(placed[-1], np.uint8)
        gather_bytes(both, offsets, where, placed, out)
        return out, placed[1:], np.concatenate([encodings, kinds])[where].astype(np.uint8)

    def _encode_floats(self, chunks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not len(chunks):
            return np.empty(0, np.uint8), np.empty(0, np.int64)
        starts = self.starts[chunks[0] : chunks[-1] + 2]
        encoded = np.empty(max_encoded_size(np.diff(starts)), np.uint8)
        ends = np.empty(len(chunks), np.int64)
        size = encode_xor(self.timestamps, self.values, starts, encoded, ends)
        if size < 0:
            raise InvariantViolated(f"chunks of up to {np.diff(starts).max()} samples do not encode: status {size}")
        return encoded[:size], ends

    def _encode_histograms(self, chunks: np.ndarray) -> EncodedChunks:
        plan, histograms = self.histogram_plan, self.histograms
        assert plan is not None
        assert histograms is not None
        part = ChunkPlan(plan.starts[chunks[0] : chunks[-1] + 2], plan.headers[chunks[0] : chunks[-1] + 1])
        rows = slice(int(part.starts[0]), int(part.starts[-1]))
        moved = ChunkPlan(part.starts - part.starts[0], part.headers)
        return encode_chunks(
            histograms.timestamps[rows], histograms.values.take(np.arange(rows.start, rows.stop)), moved
        )


def write_chunks(chunks: PlannedChunks, *, segment_bytes: int = SEGMENT_BYTES) -> tuple[list[bytes], np.ndarray]:
    """Encode chunks and pack them into segments, each at most `segment_bytes` long.

    Returns
    -------
    segments : list of bytes
    refs : int64[chunks]
        In the order written.
    """
    counts = np.diff(chunks.starts)
    if chunks.histogram_plan is not None:
        counts = np.concatenate([counts, _HISTOGRAM_WEIGHT * np.diff(chunks.histogram_plan.starts)])
    order = np.arange(len(counts)) if chunks.order is None else chunks.order
    running = np.concatenate([[0], np.cumsum(counts[order])])
    segments: list[list[bytes]] = [[HEADER]]
    room = segment_bytes - len(HEADER)
    refs = np.empty(len(order), np.int64)
    chunk = 0
    while chunk < len(refs):
        end = max(chunk + 1, int(np.searchsorted(running, running[chunk] + _BATCH_SAMPLES, side="right")) - 1)
        frames, positions = _frame(*chunks.encode(order[chunk:end]))
        placed = 0
        while placed < end - chunk:
            fit = int(np.searchsorted(positions, positions[placed] + room, side="right")) - 1
            if fit == placed:
                if len(segments[-1]) == 1:
                    raise InvariantViolated(f"a chunk is longer than a segment of {segment_bytes} bytes")
                segments.append([HEADER])
                room = segment_bytes - len(HEADER)
                continue
            at = segment_bytes - room
            segment = len(segments) - 1
            refs[chunk + placed : chunk + fit] = (segment << 32) + at + positions[placed:fit] - positions[placed]
            segments[-1].append(frames[positions[placed] : positions[fit]].tobytes())
            room -= int(positions[fit] - positions[placed])
            placed = fit
        chunk = end
    return [b"".join(pieces) for pieces in segments], refs


def _frame(data: np.ndarray, ends: np.ndarray, encodings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return framed chunks and int64[k + 1], where each begins and the last ends."""
    frames = np.empty(len(data) + chunk_frames.FRAME_OVERHEAD * len(ends), np.uint8)
    positions = np.empty(len(ends) + 1, np.int64)
    positions[-1] = chunk_frames.write_frames(data, ends, encodings, frames, positions[:-1])
    return frames, positions


@dataclass(frozen=True, slots=True)
class ChunkData:
    """The data of k chunks in one buffer."""

    buffer: np.ndarray
    """uint8[...]."""
    starts: np.ndarray
    """int64[k]."""
    ends: np.ndarray
    """int64[k]."""
    encodings: np.ndarray
    """int64[k]."""


def plan_ranges(refs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coalesce the reads of chunks at `refs` (int64[k], ascending).

    Returns
    -------
    ranges : int64[r, 3]
        (segment, start, end) of each read; a range's end is a guess when its last chunk is long.
    range_of : int64[k]
        The read that covers each chunk's start.
    """
    segments, at = refs >> 32, refs & 0xFFFFFFFF
    new = np.ones(len(refs), bool)
    new[1:] = (segments[1:] != segments[:-1]) | (at[1:] - at[:-1] > _GAP_BYTES)
    first = np.flatnonzero(new)
    last = np.concatenate([first[1:], [len(refs)]]) - 1
    ranges = np.stack([segments[first], at[first], at[last] + _TAIL_BYTES], axis=1)
    return ranges, np.cumsum(new) - 1


def read_chunks(refs: np.ndarray, read_range: ReadRange) -> ChunkData:
    """Read and checksum the chunks at `refs` (int64[k], any order), in few coalesced ranges.

    Raises `BlockCorrupt`, and what `read_range` raises.
    """
    if not len(refs):
        empty = np.empty(0, np.int64)
        return ChunkData(np.empty(0, np.uint8), empty, empty, empty)
    order = np.argsort(refs, kind="stable")
    ordered = refs[order]
    ranges, range_of = plan_ranges(ordered)
    pieces = [read_range(int(s), int(a), int(b)) for s, a, b in ranges]
    data = _scan(ordered, pieces, ranges, range_of)
    short = np.flatnonzero(data.encodings < 0)
    if len(short):
        # Read these again, each as far as its length says; if that is not enough, the file ends too early.
        size = np.maximum(data.ends - data.starts, 0)[short] + chunk_frames.FRAME_OVERHEAD
        segments, at = ordered[short] >> 32, ordered[short] & 0xFFFFFFFF
        longer = np.stack([segments, at, at + size], axis=1)
        pieces += [read_range(int(s), int(a), int(b)) for s, a, b in longer]
        range_of[short] = len(ranges) + np.arange(len(short))
        data = _scan(ordered, pieces, np.concatenate([ranges, longer]), range_of)
    cut = np.flatnonzero(data.encodings < 0)
    if len(cut):
        ref = int(ordered[cut[0]])
        raise BlockCorrupt(f"{segment_path(ref >> 32)}: the file ends inside the chunk at byte {ref & 0xFFFFFFFF}")
    back = np.empty(len(refs), np.int64)
    back[order] = np.arange(len(refs))
    return ChunkData(data.buffer, data.starts[back], data.ends[back], data.encodings[back])


def _scan(refs: np.ndarray, pieces: list[bytes], ranges: np.ndarray, range_of: np.ndarray) -> ChunkData:
    buffer = np.frombuffer(pieces[0] if len(pieces) == 1 else b"".join(pieces), np.uint8)
    bounds = np.concatenate([[0], np.cumsum([len(p) for p in pieces])])
    starts = (refs & 0xFFFFFFFF) - ranges[range_of, 1] + bounds[range_of]
    limits = bounds[range_of + 1]
    data = ChunkData(buffer, *(np.empty(len(refs), np.int64) for _ in range(3)))
    status = chunk_frames.scan_frames(buffer, starts, limits, data.starts, data.ends, data.encodings)
    if status < 0:
        ref = int(refs[-status // 4])
        reason = {chunk_frames.BAD_LENGTH: "length is too long", chunk_frames.BAD_CHECKSUM: "checksum differs"}
        raise BlockCorrupt(f"{segment_path(ref >> 32)}: chunk at byte {ref & 0xFFFFFFFF}: its {reason[-status % 4]}")
    return data
