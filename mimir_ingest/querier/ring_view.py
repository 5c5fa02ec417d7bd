"""The ring as reads see it: which partitions a tenant's data may be in, and who can be asked for them.

The decisions are those of `partitions.owners` and `partitions.shuffle_shard`; here are the clock, the settings, and the
memory of what this process has seen removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from partitions.model import InstanceDesc, RingDesc
from partitions.owners import read_targets, readable_partitions, targets_last_until_ms, zone_order
from partitions.ring import PartitionRing
from partitions.shuffle_shard import read_shard


class Watcher(Protocol):
    """What is needed of `partitions.watch.RingWatcher`."""

    @property
    def desc(self) -> RingDesc:
        """The newest document."""

    @property
    def ring(self) -> PartitionRing:
        """Its tokens."""

    @property
    def confirmed_s(self) -> float:
        """Monotonic time at which the document was the store's newest."""

    async def refresh(self) -> RingDesc:
        """Return a document that contains everything the store held at the call."""


@dataclass(frozen=True, slots=True)
class _Found:
    """The targets of the last read, which small reads one after another share."""

    desc: RingDesc
    partitions: frozenset[int]
    first_ms: int
    last_ms: float
    targets: Mapping[int, tuple[InstanceDesc, ...]]

    def serves(self, desc: RingDesc, partitions: frozenset[int], now_ms: int) -> bool:
        return self.desc is desc and self.partitions == partitions and self.first_ms <= now_ms <= self.last_ms


class RingView:
    """Read targets of one process. Used from one event loop.

    Parameters
    ----------
    shard_size_of : callable
        Tenant → `ingestion_partitions_tenant_shard_size`; 0 is all partitions.
    lookback_ms : int
        How long (ms) a change of the ring extends shards; 0 is for ever, so that every read asks all partitions.
    heartbeat_timeout_ms : int
        `ring.heartbeat_timeout` (ms).
    preferred_zones : sequence of str
        `querier.prefer_availability_zones`.
    """

    def __init__(
        self,
        watcher: Watcher,
        *,
        shard_size_of: Callable[[str], int],
        lookback_ms: int,
        heartbeat_timeout_ms: int,
        preferred_zones: Sequence[str] = (),
        now_ms: Callable[[], int],
        monotonic_s: Callable[[], float] = time.monotonic,
        random: Random | None = None,
    ) -> None:
        self._watcher = watcher
        self._shard_size_of = shard_size_of
        self._lookback_ms = lookback_ms
        self._heartbeat_timeout_ms = heartbeat_timeout_ms
        self._preferred_zones = tuple(preferred_zones)
        self._now_ms, self._monotonic_s = now_ms, monotonic_s
        self._random = random or Random()
        self._known: frozenset[int] = frozenset()
        self._noted: RingDesc | None = None
        self._removed_s = float("-inf")
        self._readable: tuple[RingDesc, frozenset[int]] | None = None
        self._found: _Found | None = None

    async def refresh(self) -> None:
        """Make the view contain everything that was in the ring store at the call. Raises RingUnavailable."""
        await self._watcher.refresh()

    @property
    def desc(self) -> RingDesc:
        """The newest document."""
        return self._watcher.desc

    def note_removals(self) -> float:
        """Return the monotonic time (s) when the newest removal of a partition was noticed, -inf without one.

        What a removed partition held is in blocks; a list of blocks older than this may lack them, and nobody says so.
        """
        desc = self.desc
        if desc is self._noted:
            return self._removed_s
        self._noted, known = desc, frozenset(desc.partitions)
        if self._known - known:
            self._removed_s = self._monotonic_s()
        self._known = known
        return self._removed_s

    def partitions_of(self, tenant: str) -> frozenset[int]:
        """Return the partitions that may hold a tenant's data, in any state until removed. Raises EmptyRing."""
        desc = self.desc
        if self._readable is None or self._readable[0] is not desc:
            self._readable = desc, frozenset(readable_partitions(desc))
        everything = self._readable[1]
        size = self._shard_size_of(tenant)
        if size <= 0:
            return everything
        shard = read_shard(
            self._watcher.ring,
            desc.partitions,
            tenant,
            size,
            lookback_ms=self._lookback_ms,
            now_ms=self._now_ms(),
        )
        # What has an owner and no entry is outside of every shard, and may hold anything.
        return shard | everything.intersection(desc.corrupted)

    def targets(self, partitions: frozenset[int]) -> Mapping[int, tuple[InstanceDesc, ...]]:
        """Return the healthy owners of each partition in the order to try them.

        Health is judged as of the moment to which the view is confirmed: a ring store that does not answer makes no
        owner unhealthy.
        """
        age_ms = max(0.0, self._monotonic_s() - self._watcher.confirmed_s) * 1000
        seen_ms = self._now_ms() - (int(age_ms) if age_ms < float("inf") else 0)
        desc, found = self.desc, self._found
        if found is not None and found.serves(desc, partitions, seen_ms):
            return found.targets
        zones, timeout_ms = zone_order(desc, self._preferred_zones, self._random), self._heartbeat_timeout_ms
        targets = read_targets(desc, partitions, zones, now_ms=seen_ms, heartbeat_timeout_ms=timeout_ms)
        if len(zones) <= 1:  # the order of several is left to chance, read by read
            until_ms = targets_last_until_ms(desc, now_ms=seen_ms, heartbeat_timeout_ms=timeout_ms)
            self._found = _Found(desc, partitions, seen_ms, until_ms, targets)
        return targets
