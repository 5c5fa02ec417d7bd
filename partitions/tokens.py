"""Tokens of a partition: a pure function of its number (spec: ingest storage, section 3.4).

Spread-minimising: with the partitions 0..n present each owns nearly 1/(n+1) of the ring, and a new one takes equally
from all. Partition 0 is spaced evenly; partition i is found by simulating 1..i, each new token splitting the largest
range of the partition that owns most. The simulation is kept and extended, so asking for 0..n costs one run: 1 to 2 ms
a partition. Source of the algorithm: grafana/dskit:ring/spread_minimizing_token_generator.go.
"""

from __future__ import annotations

import heapq
import threading

import numpy as np

TOKENS_PER_PARTITION = 512
_RING = 1 << 32
_ZONES = 8  # why: dskit reserves the token values for eight zones; partitions use those of zone 0, multiples of 8
_SPACING = _RING // TOKENS_PER_PARTITION // _ZONES * _ZONES
_MAX_TOKEN = (_RING // _ZONES - 1) * _ZONES


def _distance(start: int, end: int) -> int:
    """Size of the range from a token to the next one, once round the ring if they are equal."""
    return (end - start) % _RING or _RING


def _range_key(owned: int, token: int, predecessor: int) -> int:
    """One number for a range: the largest range, then the largest token, is the smallest number."""
    return (_RING - owned) << 64 | (_RING - 1 - token) << 32 | predecessor


class _Simulation:
    """Partitions 0..n placed so far. Heaps hold single numbers, which compare faster than tuples."""

    def __init__(self) -> None:
        first = [i * _SPACING for i in range(TOKENS_PER_PARTITION)]
        ranges = [_range_key(_distance(first[i - 1], token), token, first[i - 1]) for i, token in enumerate(first)]
        heapq.heapify(ranges)
        self._ranges: list[list[int]] = [ranges]
        """One heap a partition."""
        self._owners: list[int] = [-(_RING << 32)]
        """Heap: largest ownership, then largest partition, on top: minus both, as one number."""
        self.tokens: list[list[int]] = [first]

    def extend(self) -> None:
        """Place the next partition."""
        partition = len(self.tokens)
        wanted = _RING / (partition + 1)
        gained = 0
        placed: list[int] = []
        own: list[int] = []
        aside: list[int] = []
        owners, mask = self._owners, _RING - 1
        while len(placed) < TOKENS_PER_PARTITION:
            share = int(wanted - gained) // (TOKENS_PER_PARTITION - len(placed)) // _ZONES * _ZONES
            top = -owners[0] if owners else 0
            if top >> 32 <= share:
                raise ValueError(f"partition {partition}: no partition owns enough of the ring to give it {share}")
            ranges = self._ranges[top & mask]
            key = ranges[0]
            range_owned = _RING - (key >> 64)
            if range_owned <= share:
                aside.append(heapq.heappop(owners))
                continue
            end, predecessor = mask - (key >> 32 & mask), key & mask
            left = _MAX_TOKEN - predecessor
            token = share - left if left < share else predecessor + share
            remaining = (end - token) % _RING or _RING
            taken = range_owned - remaining
            heapq.heapreplace(ranges, _range_key(remaining, end, token))
            heapq.heapreplace(owners, (taken << 32) - top)
            own.append(_range_key(share, token, predecessor))
            placed.append(token)
            gained += taken
        for owner in aside:
            heapq.heappush(owners, owner)
        heapq.heappush(owners, -(gained << 32 | partition))
        heapq.heapify(own)
        self._ranges.append(own)
        self.tokens.append(sorted(placed))


_simulation = _Simulation()
_lock = threading.Lock()


def partition_tokens(partition: int) -> np.ndarray:
    """Return the uint32[512] tokens of a partition, ascending."""
    if partition < 0:
        raise ValueError(f"partition {partition} is negative")
    with _lock:
        while len(_simulation.tokens) <= partition:
            _simulation.extend()
        return np.array(_simulation.tokens[partition], np.uint32)
