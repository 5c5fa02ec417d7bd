"""Tokens of a partition: a pure function of its number (spec: ingest storage, section 3.4).

Spread-minimising: with the partitions 0..n present each owns nearly 1/(n+1) of the ring, and a new one takes equally
from all. Partition 0 is spaced evenly; partition i is found by simulating 1..i, each new token splitting the largest
range of the partition that owns most. The simulation is kept and extended, so asking for 0..n costs one run: about 1 ms
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


def _distance(start: int, end: int) -> float:
    """Size of the range from a token to the next one, once round the ring if they are equal."""
    return float((end - start) % _RING or _RING)


class _Simulation:
    """Partitions 0..n placed so far. Heaps hold negated numbers: largest range, then largest token, on top."""

    def __init__(self) -> None:
        first = [i * _SPACING for i in range(TOKENS_PER_PARTITION)]
        ranges = [(-_distance(first[i - 1], token), -token, first[i - 1]) for i, token in enumerate(first)]
        heapq.heapify(ranges)
        self._ranges: list[list[tuple[float, int, int]]] = [ranges]
        """One heap a partition: (-owned, -token, predecessor)."""
        self._owners: list[tuple[float, int]] = [(sum(owned for owned, _, _ in ranges), 0)]
        """Heap of (-owned, -partition)."""
        self.tokens: list[list[int]] = [first]

    def extend(self) -> None:
        """Place the next partition."""
        partition = len(self.tokens)
        wanted = _RING / (partition + 1)
        gained = 0.0
        placed: list[int] = []
        own: list[tuple[float, int, int]] = []
        aside: list[tuple[float, int]] = []
        while len(placed) < TOKENS_PER_PARTITION:
            share = int(wanted - gained) // (TOKENS_PER_PARTITION - len(placed)) // _ZONES * _ZONES
            if not self._owners or -self._owners[0][0] <= share:
                raise ValueError(f"partition {partition}: no partition owns enough of the ring to give it {share}")
            owned, negative_partition = self._owners[0]
            ranges = self._ranges[-negative_partition]
            range_owned, negative_token, predecessor = ranges[0]
            if -range_owned <= share:
                aside.append(heapq.heappop(self._owners))
                continue
            left = _MAX_TOKEN - predecessor
            token = share - left if left < share else predecessor + share
            remaining = _distance(token, -negative_token)
            taken = -range_owned - remaining
            heapq.heapreplace(ranges, (-remaining, negative_token, token))
            heapq.heapreplace(self._owners, (owned + taken, negative_partition))
            heapq.heappush(own, (-float(share), -token, predecessor))
            placed.append(token)
            gained += taken
        for owner in aside:
            heapq.heappush(self._owners, owner)
        heapq.heappush(self._owners, (-gained, -partition))
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
