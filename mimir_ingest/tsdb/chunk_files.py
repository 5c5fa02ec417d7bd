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
from mimir_ingest.model.series_chunks import SeriesChunks

HEADER = bytes.fromhex("85bd40dd01000000")

SEGMENT_BYTES = 512 << 20
"""No segment is longer. Prometheus's default."""

_BATCH_SAMPLES = 1 << 20
"""Samples encoded at a time. why: scratch takes 20 bytes a sample, encoded chunks one to ten."""

_GAP_BYTES = 64 << 10
"""Ranges this close are read as one. why: a request to object storage costs about as much as 64 KiB of transfer."""

_TAIL_BYTES = 4 << 10
"""Read after the start of a range's last chunk, whose length is not known; 120 random samples take 2.4 KiB."""

ReadRange = Callable[[int, int, int], bytes]
"""(segment from 0, start, end) to the bytes; fewer when the file ends before `end`."""


def segment_path(segment: int) -> str:
    """Return a segment's path in its block."""
    return f"chunks/{segment + 1:06d}"


def write_chunks(chunks: SeriesChunks, *, segment_bytes: int = SEGMENT_BYTES) -> tuple[list[bytes], np.ndarray]:
    """Encode chunks and pack them into segments, each at most `segment_bytes` long.

    Returns
    -------
    segments : list of bytes
    refs : int64[chunks]
        In the order written.
    """
    running = np.concatenate([[0], np.cumsum(chunks.weights)])
    segments: list[list[bytes]] = [[HEADER]]
    room = segment_bytes - len(HEADER)
    refs = np.empty(len(chunks.min_ts), np.int64)
    chunk = 0
    while chunk < len(refs):
        end = max(chunk + 1, int(np.searchsorted(running, running[chunk] + _BATCH_SAMPLES, side="right")) - 1)
        frames, positions = _frame(*chunks.encode(chunk, end))
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
