"""The floor of a query: decoding the samples that it reads and one pass over them, by this project's reader."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.workload import Workload
from mimir_ingest.tsdb.segment import Segment, Staged, build_segment, read_samples

_CHUNK_ROUNDS = 120


def segments_of(load: Workload, series: int) -> list[Segment]:
    """Return the first `series` series of a workload as a head holds them: a chunk for 120 rounds."""
    segments = []
    for first in range(0, load.rounds, _CHUNK_ROUNDS):
        turns = np.arange(first, min(load.rounds, first + _CHUNK_ROUNDS))
        values = load.value(np.arange(series)[:, None], turns).astype(np.float64)
        times = np.broadcast_to(load.start_ms + turns * load.step_ms, values.shape)
        offsets = np.arange(series + 1) * len(turns)
        segments.append(build_segment(np.arange(series, dtype=np.int32), offsets, times.ravel(), values.ravel()))
    return segments


def floor_ms(segments: list[Segment], series: int, start_ms: int, end_ms: int, repeat: int) -> float:
    """Return the least time (ms) of decoding `series` series in `[start_ms, end_ms)` and adding up their values."""
    refs = np.arange(series, dtype=np.int32)
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        read_samples(segments, Staged.empty(), refs, series, start_ms, end_ms)[2].sum()
        times.append(time.perf_counter() - began)
    return min(times) * 1000
