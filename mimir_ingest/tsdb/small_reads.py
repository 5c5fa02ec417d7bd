"""Reads of a few series from a head, in a few calls: what panels of one or ten series ask for.

The same answer as a large read's (`pieces`), which first counts what it will hold; here the room is fixed and small, so
that nothing has to be counted, and most of the time is not spent in making arrays.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mimir_ingest.kernels.head import join_pieces
from mimir_ingest.kernels.small_reads import CHUNK_BYTES, INSIDE, NO_ROOM, PIECES, SAMPLES, read_segments, read_staged
from mimir_ingest.model.samples import SampleBudget
from mimir_ingest.tsdb.pieces import Samples, checked

FEW_SERIES = 32
"""Series of a small read. why: so many, of an hour each, are read in 0.1 ms; a thread costs that much."""
_MOST_PIECES, _MOST_SAMPLES = 1 << 10, 1 << 14


class Chunks(Protocol):
    """What is needed of a `segment.Segment`."""

    place: np.ndarray


class StagedSamples(Protocol):
    """What is needed of a `segment.Staged`."""

    refs: np.ndarray
    timestamps: np.ndarray
    values: np.ndarray


class _Room(threading.local):
    """A thread's columns for pieces; a read uses them from its beginning to its end."""

    def __init__(self) -> None:
        self.spans = np.empty(3 * _MOST_PIECES, np.int64)
        self.positions = np.empty(_MOST_PIECES, np.int64)
        self.offsets = np.zeros(_MOST_PIECES + 1, np.int64)
        self.order = np.empty(_MOST_PIECES, np.int64)
        self.timestamps, self.spare_timestamps = np.empty((2, _MOST_SAMPLES), np.int64)
        self.values, self.spare_values = np.empty((2, _MOST_SAMPLES))


_room = _Room()


def read_few(
    segments: Sequence[Chunks],
    staged: StagedSamples,
    refs: np.ndarray,
    start_ms: int,
    end_ms: int,
    budget: SampleBudget | None = None,
) -> Samples | None:
    """Return the float samples of some series, `refs` int32[n] ascending, in `[start_ms, end_ms)`; None if too many.

    Arguments and errors as in `segment.read_samples`; the budget is asked before anything is kept.
    """
    room, tally = _room, np.zeros(4, np.int64)
    positions, offsets, times, values = room.positions, room.offsets, room.timestamps, room.values
    if segments:
        places = segments[0].place if len(segments) == 1 else np.concatenate([segment.place for segment in segments])
        status = read_segments(refs, places, start_ms, end_ms, tally, room.spans, positions, offsets, times, values)
        if status == NO_ROOM:
            return None
        checked(status)
    chunks = int(tally[PIECES])
    if len(staged.refs) and len(refs):
        columns = staged.refs, staged.timestamps, staged.values
        if read_staged(refs, *columns, start_ms, end_ms, tally, positions, offsets, times, values) == NO_ROOM:
            return None
    pieces, samples = int(tally[PIECES]), int(tally[SAMPLES])
    positions = positions[:pieces]
    if budget is not None:
        if budget.limits_series:
            filled = np.diff(offsets[: pieces + 1]) > 0
            budget.check_series(len(set(positions[filled].tolist())))
        budget.take_chunks(chunks, int(tally[CHUNK_BYTES]))
        budget.take(int(tally[INSIDE]))
    found, times_found, values_found = np.zeros(len(refs) + 1, np.int64), np.empty(samples, np.int64), np.empty(samples)
    written = join_pieces(
        positions, offsets[: pieces + 1], times, values, start_ms, end_ms,
        room.order, found, times_found, values_found, room.spare_timestamps, room.spare_values,
    )  # fmt: skip
    return found, times_found[:written], values_found[:written]
