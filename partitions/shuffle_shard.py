"""Shuffle sharding: which partitions a tenant's series go to, and where a read of the tenant looks (spec, section 3.3).

A tenant's random numbers point at places in the ring of tokens; from each the walk goes on to a partition not chosen
yet. So every component computes the same shard, a change of one partition changes a shard by at most one, and tenants
share few partitions. The numbers are those of the reference (`go_rand`), so that both can share a ring.

Reads extend the shard. Whatever the walk meets that may have been in the shard before, and is on its way in or out, is
added without using up a place. The reference takes partitions whose state changed within a lookback and never reads a
PENDING one; `read_shard` takes every partition met that is not ACTIVE, however old its state, because a partition is
removed only once nothing in it is needed (architecture, section 7).
"""

from __future__ import annotations

import enum
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from itertools import islice

import numpy as np

from partitions.go_rand import uint32s
from partitions.model import PartitionDesc, PartitionState
from partitions.ring import PartitionRing


class _Place(enum.Enum):
    """What the walk does with a partition that it meets."""

    TAKEN = enum.auto()
    """In the shard, and the draw is over."""
    EXTRA = enum.auto()
    """In the shard, and the draw goes on."""
    PASSED = enum.auto()
    """Not in the shard."""


def seed(tenant: str) -> int:
    """Return the signed 64-bit seed of a tenant's numbers: the first bytes of the MD5 of its name."""
    return int.from_bytes(hashlib.md5(tenant.encode(), usedforsecurity=False).digest()[:8], "big", signed=True)


def shard(
    ring: PartitionRing,
    partitions: Mapping[int, PartitionDesc],
    tenant: str,
    size: int,
    *,
    lookback_ms: int = 0,
    now_ms: int = 0,
) -> frozenset[int]:
    """Return the numbers of a tenant's partitions, as the reference does.

    Parameters
    ----------
    ring : PartitionRing
        Tokens of exactly the partitions given.
    partitions : mapping
        By number; `RingDesc.partitions`.
    tenant : str
        Tenant id.
    size : int
        `ingestion_partitions_tenant_shard_size`; 0 or less, or more than there are, takes all.
    lookback_ms : int
        0 for writes, which go to ACTIVE partitions only; else partitions whose state changed no longer ago than this
        extend the shard. Compared in whole seconds, as the reference stores them.
    now_ms : int
        Wall clock (ms since the Unix epoch); only used with a lookback.
    """
    since_s = (now_ms - lookback_ms) // 1000

    def place(p: PartitionDesc) -> _Place:
        if p.state is PartitionState.PENDING:
            return _Place.PASSED
        if lookback_ms > 0 and p.state_timestamp_ms // 1000 >= since_s:
            return _Place.EXTRA
        return _Place.TAKEN if p.state is PartitionState.ACTIVE else _Place.PASSED

    return _walk(ring, {number: place(p) for number, p in partitions.items()}, tenant, size)


def read_shard(
    ring: PartitionRing,
    partitions: Mapping[int, PartitionDesc],
    tenant: str,
    size: int,
    *,
    lookback_ms: int,
    now_ms: int,
) -> frozenset[int]:
    """Return the numbers of the partitions where a tenant's data may be; contains the write shard.

    As `shard`, except that a partition that is not ACTIVE extends the shard whatever its age. An ACTIVE one extends it
    while its state is younger than the lookback: until then, what it displaced may hold samples that no block has. A
    lookback of 0 is for ever, and so takes all partitions.
    """

    def place(p: PartitionDesc) -> _Place:
        settled = p.state is PartitionState.ACTIVE and p.state_timestamp_ms < now_ms - lookback_ms
        return _Place.TAKEN if settled and lookback_ms > 0 else _Place.EXTRA

    return _walk(ring, {number: place(p) for number, p in partitions.items()}, tenant, size)


def _walk(ring: PartitionRing, places: Mapping[int, _Place], tenant: str, size: int) -> frozenset[int]:
    """The partitions that the tenant's draws meet, until `size` draws took one or a whole turn found nothing."""
    if size <= 0 or size >= len(places):  # why: as many draws as partitions find all that can be found
        return frozenset(number for number, place in places.items() if place is not _Place.PASSED)
    draws = np.fromiter(islice(uint32s(seed(tenant)), size), np.uint32, size)
    undecided = dict(places)
    chosen: set[int] = set()
    for start in np.searchsorted(ring.tokens, draws, side="right").tolist():
        for at in range(start, start + len(ring.tokens)):
            number = int(ring.partition_of[at % len(ring.tokens)])
            place = undecided.pop(number, None)
            if place is _Place.TAKEN or place is _Place.EXTRA:
                chosen.add(number)
            if place is _Place.TAKEN or not undecided:
                break
        if not undecided:
            break
    return frozenset(chosen)


class WriteShards:
    """The views that tenants write to, for one state of the ring; dropped when that changes. Owned by one task."""

    def __init__(self, ring: PartitionRing, partitions: Mapping[int, PartitionDesc], *, kept: int = 1024) -> None:
        """`kept` bounds how many tenants' views are held, the most recently used ones (some 5 KB a partition)."""
        self.ring = ring
        self._partitions = partitions
        self._kept = kept
        self._views: OrderedDict[tuple[str, int], PartitionRing] = OrderedDict()

    def of(self, tenant: str, size: int) -> PartitionRing:
        """Return the view of a tenant's shard of `size` partitions (0: all), to look its tokens up in."""
        if size <= 0 or size >= len(self._partitions):
            return self.ring
        key = tenant, size
        if key not in self._views:
            self._views[key] = self.ring.subring(shard(self.ring, self._partitions, tenant, size))
            if len(self._views) > self._kept:
                self._views.popitem(last=False)
        self._views.move_to_end(key)
        return self._views[key]
