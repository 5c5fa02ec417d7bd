"""Metrics of the rings, part of the catalogue that `metrics` begins (spec: ingest storage, section 4.9; dskit's names).

What a scrape shows of the rings is counted from the newest view during the scrape, so it is never older than that.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from partitions.model import InstanceState, PartitionState, RingDesc

PARTITION_RING = "ingester-partitions"
"""Label `name` of the partition ring's metrics; Mimir's."""
_UNHEALTHY = "Unhealthy"
_MEMBER_STATES = (*(state.name for state in InstanceState if state is not InstanceState.LEFT), _UNHEALTHY)
_PARTITION_STATES = (PartitionState.PENDING, PartitionState.ACTIVE, PartitionState.INACTIVE)


class RingCollector(Collector):
    """Counts members and partitions at each scrape.

    Parameters
    ----------
    view : the newest view of the ring
    heartbeat_timeouts_ms : by ring, silence after which a member counts as Unhealthy; these rings are shown
    own : by ring, id of this process's instance in it
    confirmed_age_s : seconds since the view was last known to be the newest
    now_ms : wall clock (ms since the Unix epoch)
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        view: Callable[[], RingDesc],
        heartbeat_timeouts_ms: Mapping[str, int],
        own: Mapping[str, str],
        confirmed_age_s: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self._view, self._timeouts_ms, self._now_ms = view, heartbeat_timeouts_ms, now_ms
        self._own, self._confirmed_age_s = own, confirmed_age_s
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        desc, now_ms = self._view(), self._now_ms()
        members = GaugeMetricFamily("cortex_ring_members", "Number of members in the ring.", labels=["name", "state"])
        oldest = GaugeMetricFamily(
            "cortex_ring_oldest_member_timestamp",
            "Unix time (seconds) of the oldest heartbeat of the ring's members.",
            labels=["name", "state"],
        )
        for ring, timeout_ms in self._timeouts_ms.items():
            found = [
                (member.state.name if member.alive(now_ms, timeout_ms) else _UNHEALTHY, member.heartbeat_ms)
                for member in desc.instances(ring).values()
            ]
            tally = Tally(state for state, _ in found)
            for state in _MEMBER_STATES:
                members.add_metric([ring, state], tally[state])
                beats = [heartbeat for s, heartbeat in found if s == state]
                oldest.add_metric([ring, state], min(beats) / 1000 if beats else 0)
        yield members
        yield oldest
        yield self._read_only(desc)
        partitions = GaugeMetricFamily(
            "cortex_partition_ring_partitions", "Number of partitions by state.", labels=["name", "state"]
        )
        tally = Tally(partition.state for partition in desc.partitions.values())
        for state in _PARTITION_STATES:
            partitions.add_metric([PARTITION_RING, state.name.capitalize()], tally[state])
        yield partitions
        age = GaugeMetricFamily(
            "cortex_partition_ring_confirmed_age_seconds",
            "Seconds since this process last knew that its view of the rings is the newest; distributors refuse from "
            "10 on.",
            labels=["name"],
        )
        age.add_metric([PARTITION_RING], self._confirmed_age_s())
        yield age

    def _read_only(self, desc: RingDesc) -> Metric:
        """Whether the own instances are to be given nothing more."""
        family = GaugeMetricFamily(
            "cortex_lifecycler_read_only",
            "Set to 1 if this lifecycler's instance entry is in read-only state.",
            labels=["name"],
        )
        for ring, instance in self._own.items():
            member = desc.instances(ring).get(instance)
            if member is not None:
                family.add_metric([ring], int(member.read_only))
        return family


@dataclass(frozen=True)
class LifecyclerMetrics:
    """What an ingester does about its entries in the rings."""

    reconciles: Counter
    reconciles_failed: Counter
    heartbeats: Counter
    heartbeats_failed: Counter

    @classmethod
    def create(cls, registry: CollectorRegistry) -> LifecyclerMetrics:
        """Register `cortex_partition_ring_lifecycler_reconciles_*` and `cortex_ring_heartbeats_*`."""
        return cls(
            reconciles=Counter(
                "cortex_partition_ring_lifecycler_reconciles",
                "Reconciliations of the partition ring that were tried.",
                ["name", "type"],
                registry=registry,
            ),
            reconciles_failed=Counter(
                "cortex_partition_ring_lifecycler_reconciles_failed",
                "Reconciliations of the partition ring that failed.",
                ["name", "type"],
                registry=registry,
            ),
            heartbeats=Counter(
                "cortex_ring_heartbeats", "Heartbeats that were sent to a ring.", ["name"], registry=registry
            ),
            heartbeats_failed=Counter(
                "cortex_ring_heartbeats_failed",
                "Heartbeats that did not reach the ring's store.",
                ["name"],
                registry=registry,
            ),
        )

    def reconciled(self, kind: str, succeeded: bool) -> None:
        """Count a reconcile of a kind (`owned-partition`, `other-partitions`)."""
        self.reconciles.labels(PARTITION_RING, kind).inc()
        if not succeeded:
            self.reconciles_failed.labels(PARTITION_RING, kind).inc()

    def heartbeat(self, ring: str, reached: bool) -> None:
        """Count a heartbeat."""
        self.heartbeats.labels(ring).inc()
        if not reached:
            self.heartbeats_failed.labels(ring).inc()
