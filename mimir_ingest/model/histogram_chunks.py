"""Native histograms as Prometheus chunks and back: what head, blocks and remote read share.

Encodings: kernels/histogram_encode.py. A chunk of float histograms and one of integer histograms differ in their
encoding's number only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mimir_ingest.kernels import histogram_cuts, histogram_decode, histogram_encode, histogram_layout
from mimir_ingest.kernels.histogram_columns import HistogramColumns
from mimir_ingest.kernels.histogram_plan import DETECT, HINTED, SAME_BUCKETS, hint_resets, plan_histogram_chunks
from mimir_ingest.model.histograms import NO_RESET, RESET_UNKNOWN, Histograms
from mimir_ingest.model.spans import Check, bounded_spans

_WORKING_BYTES = 32 << 20
"""Bytes that chunks encoded at a time may take at worst."""
_PART_BYTES = 1 << 18
"""Bytes of chunks that are decoded at a time. why: some ten thousand histograms, 5 ms."""


class HistogramChunkCorrupt(ValueError):
    """Bytes that are no histogram chunk; whoever reads them says where they lie."""

    def __init__(self, chunk: int, reason: str) -> None:
        super().__init__(f"chunk {chunk}: {reason}")
        self.chunk = chunk
        """Its number in the call."""
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """How histograms are split into chunks."""

    starts: np.ndarray
    """int64[k + 1]: chunk j has the rows `starts[j]:starts[j + 1]`."""
    headers: np.ndarray
    """uint8[k]: what it says of counter resets, as a reset hint."""


def plan_chunks(
    values: Histograms,
    offsets: np.ndarray,
    *,
    chunk_samples: int,
    detect_resets: bool,
    same_buckets: bool = False,
    hinted: bool = False,
    runs: np.ndarray | None = None,
) -> ChunkPlan:
    """Split each series' histograms into chunks by number.

    Parameters
    ----------
    values : Histograms
        In order of time within a series.
    offsets : int64[n + 1]
        Series i has the rows `offsets[i]:offsets[i + 1]`.
    chunk_samples : int
        Most rows of a chunk.
    detect_resets : bool
        Begin a chunk at every counter reset, as blocks do; else only where a hint says so.
    same_buckets : bool
        Begin a chunk also where other buckets are listed, so that decoding gives those that each histogram has.
    hinted : bool
        Histograms were read from chunks, and `decode_chunks` with `headers_hold` is to give the hints that they have.
    runs : int64[rows], optional
        A chunk has rows of one run only.
    """
    starts, headers = np.empty(len(values) + 1, np.int64), np.empty(len(values), np.uint8)
    runs = np.empty(0, np.int64) if runs is None else runs
    mode = (DETECT if detect_resets else 0) | (SAME_BUCKETS if same_buckets else 0) | (HINTED if hinted else 0)
    chunks = plan_histogram_chunks(values.columns, offsets, runs, chunk_samples, mode, starts, headers)
    return ChunkPlan(starts[: chunks + 1], headers[:chunks])


def cut_chunks(
    values: Histograms, timestamps: np.ndarray, offsets: np.ndarray, runs: np.ndarray | None = None
) -> ChunkPlan:
    """Split each series' histograms into the chunks that Prometheus would make of them.

    `timestamps` is int64[rows] (ms); the rest as in `plan_chunks`.
    """
    starts, headers = np.empty(len(values) + 1, np.int64), np.empty(len(values), np.uint8)
    runs = np.empty(0, np.int64) if runs is None else runs
    index = values.bucket_index
    spread = int(index.max()) - int(index.min()) + 1 if len(index) else 0
    buckets = min(2 * spread, len(index))
    layout, united = np.empty(buckets, np.int32), np.empty(buckets, np.int32)
    state = np.empty(histogram_encode.STATE_WORDS * buckets, np.uint64)
    room = 1 << 14
    while True:
        out = np.empty(room, np.uint8)
        chunks = histogram_cuts.cut_histograms(
            values.columns, timestamps, offsets, runs, layout, united, state, out, starts, headers
        )
        if chunks != histogram_cuts.OUT_TOO_SMALL:
            return ChunkPlan(starts[: chunks + 1], headers[:chunks])
        room *= 4


def as_read(
    values: Histograms,
    timestamps: np.ndarray,
    offsets: np.ndarray,
    runs: np.ndarray | None = None,
    *,
    alike: bool = False,
) -> Histograms:
    """Return histograms as a reader of a Prometheus that holds them would see them (arguments: cut_chunks).

    Their reset hints are those of the chunks, and they have the buckets of all histograms of their chunk. `alike`: all
    of a series are known to list the same buckets.
    """
    plan = plan_chunks(values, offsets, chunk_samples=len(values) + 1, detect_resets=True, runs=runs)
    if not alike and _spread_size(values, plan, _layouts(values, plan)[1]) > len(values.bucket_index):
        # Only where buckets differ does it matter which histograms share a chunk.
        plan = cut_chunks(values, timestamps, offsets, runs)
        values = _spread(values, plan)
    hints = np.empty(len(values), np.uint8)
    hint_resets(values.columns, plan.starts, plan.headers, hints)
    return replace(values, reset_hint=hints)


def _spread(values: Histograms, plan: ChunkPlan) -> Histograms:
    """Return histograms with the buckets of their chunks."""
    layout, layout_offsets = _layouts(values, plan)
    buckets = _spread_size(values, plan, layout_offsets)
    offsets, index, count = np.empty_like(values.bucket_offsets), np.empty(buckets, np.int32), np.empty(buckets)
    histogram_layout.spread_histograms(values.columns, plan.starts, layout, layout_offsets, offsets, index, count)
    return replace(values, bucket_offsets=offsets, bucket_index=index, bucket_count=count)


def _spread_size(values: Histograms, plan: ChunkPlan, layout_offsets: np.ndarray) -> int:
    """Return how many buckets all histograms have with those of their chunks."""
    if not len(values):
        return 0
    live = np.add.reduceat(~values.stale, plan.starts[:-1], dtype=np.int64)
    return int((live * np.diff(layout_offsets[::2])).sum())


def _layouts(values: Histograms, plan: ChunkPlan) -> tuple[np.ndarray, np.ndarray]:
    """Return the buckets of each chunk and their offsets (kernels.histogram_layout)."""
    scratch, layout = np.empty(len(values.bucket_index), np.int32), np.empty(len(values.bucket_index), np.int32)
    offsets = np.empty(2 * len(plan.headers) + 1, np.int64)
    histogram_layout.layout_histograms(values.columns, plan.starts, scratch, layout, offsets)
    return layout, offsets


@dataclass(frozen=True, slots=True)
class EncodedChunks:
    """k chunks back to back."""

    data: np.ndarray
    """uint8[...]."""
    ends: np.ndarray
    """int64[k]: chunk j is `data[ends[j - 1]:ends[j]]` (from 0 for j = 0)."""
    is_float: np.ndarray
    """bool[k]."""


def encode_chunks(timestamps: np.ndarray, values: Histograms, plan: ChunkPlan) -> EncodedChunks:
    """Encode histograms (timestamps: int64[rows], ms) as planned. A chunk has at most 65,535 of them."""
    columns = values.columns
    k = len(plan.headers)
    layout, layout_offsets = _layouts(values, plan)
    state = np.empty(histogram_encode.STATE_WORDS * int(layout_offsets[-1]), np.uint64)
    counts, buckets = np.diff(plan.starts), np.diff(layout_offsets[::2])
    bounds = np.diff(values.custom_offsets)[plan.starts[:-1]]
    # As `encode_histograms` asks for, and what it may write ahead.
    worst = _running(144 + 28 * buckets + 10 * bounds + counts * (64 + 10 * buckets))
    ends = np.empty(k, np.int64)
    parts: list[np.ndarray] = []
    done = 0
    for first, last in bounded_spans(worst, _WORKING_BYTES):
        out = np.empty(worst[last] - worst[first], np.uint8)
        size = histogram_encode.encode_histograms(
            columns,
            timestamps,
            plan.starts[first : last + 1],
            plan.headers[first:last],
            layout,
            layout_offsets[2 * first : 2 * last + 1],
            state,
            out,
            ends[first:last],
        )
        if size < 0:
            raise ValueError(f"{last - first} histogram chunks do not encode: status {size}")
        ends[first:last] += done
        parts.append(out[:size].copy())
        done += size
    data = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint8), *parts])
    return EncodedChunks(data, ends, values.is_float[plan.starts[:-1]])


def count_samples(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return int64[k, 3]: samples, buckets of the layout and custom bounds of each chunk `data[starts:ends]`.

    Raises HistogramChunkCorrupt.
    """
    counts = np.empty(3 * len(starts), np.int64)
    _checked(histogram_decode.measure_histograms(data, starts, ends, counts))
    return counts.reshape(-1, 3)


def digest_layouts(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (int64[k] samples, uint64[k] what tells the buckets apart, 0: none) of each chunk `data[starts:ends]`.

    Digests are those of `Histograms.bucket_digests`. Raises HistogramChunkCorrupt.
    """
    samples, buckets, _ = count_samples(data, starts, ends).T
    digests = np.empty(len(starts), np.uint64)
    state = np.empty(histogram_decode.STATE_WORDS * int(buckets.max(initial=0)), np.uint64)
    _checked(histogram_decode.digest_layouts(data, starts, ends, state, digests))
    return samples, digests


def decode_chunks(
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    is_float: np.ndarray,
    *,
    resets_begin_chunks: bool,
    headers_hold: bool = False,
    check: Check | None = None,
) -> tuple[np.ndarray, np.ndarray, Histograms]:
    """Expand chunks; all histograms of a chunk have its buckets.

    Parameters
    ----------
    data : uint8[...]
        May be hostile.
    starts, ends, is_float : int64[k], int64[k], bool[k]
        Chunk j is `data[starts[j]:ends[j]]`.
    resets_begin_chunks : bool
        Whether counters are known not to reset inside a chunk, which is so in Prometheus's own. Then hints are those
        that Prometheus's readers see: of a chunk's first counter nothing is known, whatever the header says.
    headers_hold : bool
        A header that says that a counter goes on is believed: chunks were planned as `hinted`, and all are here.
    check : callable, optional
        Called between some hundred chunks.

    Returns
    -------
    sample_offsets, timestamps, values : int64[k + 1], int64[m] (ms), Histograms
        Chunk j has the rows `sample_offsets[j]:sample_offsets[j + 1]`.

    Raises
    ------
    HistogramChunkCorrupt
    """
    counts = count_samples(data, starts, ends)
    samples, layouts, bounds = counts.T
    sample_offsets = _running(samples)
    m = int(sample_offsets[-1])
    buckets = int(np.minimum(samples * layouts, 8 * (ends - starts)).sum())
    out = HistogramColumns(
        np.empty(m, np.int8),
        np.empty(m, np.uint8),
        np.empty(m, bool),
        *(np.empty(m, np.float64) for _ in range(4)),
        np.empty(2 * m + 1, np.int64),
        np.empty(buckets, np.int32),
        np.empty(buckets, np.float64),
        np.empty(m + 1, np.int64),
        np.empty(int((samples * bounds).sum()) + int(bounds.max(initial=0)), np.float64),
    )
    timestamps = np.empty(m, np.int64)
    state = np.empty(histogram_decode.STATE_WORDS * int(layouts.max(initial=0)), np.uint64)
    goes_on = NO_RESET if headers_hold else RESET_UNKNOWN
    later = NO_RESET if resets_begin_chunks else RESET_UNKNOWN
    out.bucket_offsets[0] = out.custom_offsets[0] = 0
    for first, last in bounded_spans(_running(ends - starts), _PART_BYTES, check):
        part = slice(first, last)
        chunks = data, starts[part], ends[part], is_float[part], sample_offsets[first : last + 1]
        _checked(histogram_decode.decode_histograms(*chunks, goes_on, later, state, timestamps, out), first)
    used, used_bounds = int(out.bucket_offsets[-1]), int(out.custom_offsets[-1])
    values = Histograms(
        **{
            **out._asdict(),
            "bucket_index": _fitted(out.bucket_index, used),
            "bucket_count": _fitted(out.bucket_count, used),
            "custom_values": _fitted(out.custom_values, used_bounds),
        }
    )
    return sample_offsets, timestamps, values


def _running(sizes: np.ndarray) -> np.ndarray:
    """Return int64[n + 1]: the sum before each of int64[n], and of all."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def _fitted(column: np.ndarray, size: int) -> np.ndarray:
    """Return the first entries, without memory that is mostly unused."""
    return column[:size] if 2 * size > len(column) else column[:size].copy()


def _checked(status: int, first: int = 0) -> None:
    """Raise HistogramChunkCorrupt for a negative status of chunks, the first of which is number `first` of the call."""
    if status < 0:
        chunk, reason = histogram_decode.explain_status(status)
        raise HistogramChunkCorrupt(first + chunk, reason)
