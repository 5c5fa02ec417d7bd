"""Owned series: those in memory that the ring, as it is now, would still bring to their partition.

After partitions were added, the rest is what the head forgets at its next cuts; so autoscaling goes by the owned ones.
Source: spec ingest-storage.md 9.7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import Gauge

from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.model.series_tokens import tokens_of
from mimir_ingest.tsdb.head import Head
from partitions.ring import PartitionRing


def count_owned(partition: int, head: Head, ring: PartitionRing) -> int:
    """Return how many known series of a head have their tokens in its partition. Any thread.

    `ring` is the tenant's part of the ring, which its writes go by.
    """
    active = ring.active_partitions
    if partition not in active:
        return 0
    census = head.census(())
    refs = census.select(())
    if len(active) == 1:
        return len(refs)
    labels, offsets, _ = census.table.label_bytes(refs)
    return int((ring.lookup(tokens_of(head.tenant, labels, offsets)) == partition).sum())


class OwnedSeries:
    """Counts now and then, again only where the ring or a head's series changed."""

    def __init__(self, gauge: Gauge, shard_of: Callable[[str], PartitionRing]) -> None:
        """`shard_of` gives the part of the newest ring that a tenant's writes go by; called on the event loop."""
        self._gauge, self._shard_of = gauge, shard_of
        self._counted: dict[tuple[int, str], tuple[PartitionRing, Head, tuple[int, int], int]] = {}
        self._shown: set[str] = set()

    def shards(self, states: Mapping[int, PartitionState]) -> dict[str, PartitionRing]:
        """Return tenant → its part of the ring, for `count`."""
        return {tenant: self._shard_of(tenant) for state in states.values() for tenant in list(state.heads)}

    def count(self, states: Mapping[int, PartitionState], shards: Mapping[str, PartitionRing]) -> dict[str, int]:
        """Return tenant → owned series in these partitions. Any thread, one at a time."""
        counted, found = {}, dict.fromkeys(shards, 0)
        for partition, state in states.items():
            for tenant, ring in shards.items():
                head = state.heads.get(tenant)
                if head is None:
                    continue
                series = head.created_count, head.live_count
                known = self._counted.get((partition, tenant))
                same = known is not None and known[0] is ring and known[1] is head and known[2] == series
                own = known[3] if known is not None and same else count_owned(partition, head, ring)
                counted[partition, tenant] = (ring, head, series, own)
                found[tenant] += own
        self._counted = counted
        return found

    def show(self, counts: Mapping[str, int]) -> None:
        """Set the gauge of every tenant, and remove those of tenants that are gone."""
        for tenant in self._shown - counts.keys():
            self._gauge.remove(tenant)
        for tenant, count in counts.items():
            self._gauge.labels(tenant).set(count)
        self._shown = set(counts)
