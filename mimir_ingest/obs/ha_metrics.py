"""Metrics of the HA tracker, part of the catalogue that `metrics` begins; names are Mimir's.

What a scrape shows of the elections is read from the newest view during the scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mimir_ingest.obs.histograms import Histogram
from partitions.model import RingDesc


class ElectionCollector(Collector):
    """Shows every cluster's election at each scrape.

    Parameters
    ----------
    view : the newest view of the elections
    elected_replica : whether the elected replicas are shown by name (`distributor.ha_tracker.enable_elected_…_metric`)
    """

    def __init__(
        self, registry: CollectorRegistry, *, view: Callable[[], RingDesc], elected_replica: bool = False
    ) -> None:
        self._view, self._elected_replica = view, elected_replica
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield a sample a cluster."""
        labels = ["user", "cluster"]
        changes = CounterMetricFamily(
            "cortex_ha_tracker_elected_replica_changes",
            "How often a replica was elected, as the elections' store says.",
            labels=labels,
        )
        received = GaugeMetricFamily(
            "cortex_ha_tracker_elected_replica_timestamp_seconds",
            "Unix time at which the elected replica was seen last, as the elections' store says.",
            labels=labels,
        )
        elected = GaugeMetricFamily(
            "cortex_ha_tracker_last_election_timestamp_seconds",
            "Unix time of the cluster's last election.",
            labels=labels,
        )
        status = GaugeMetricFamily(
            "cortex_ha_tracker_elected_replica_status", "1: the replica is elected.", labels=[*labels, "replica"]
        )
        for tenant, clusters in self._view().elections.items():
            for cluster, election in clusters.items():
                changes.add_metric([tenant, cluster], election.elected_changes)
                received.add_metric([tenant, cluster], election.received_ms / 1000)
                elected.add_metric([tenant, cluster], election.elected_ms / 1000)
                if self._elected_replica:
                    status.add_metric([tenant, cluster, election.replica], 1)
        yield from (changes, received, elected)
        if self._elected_replica:
            yield status


@dataclass(frozen=True)
class HaTrackerMetrics:
    """What a distributor does about elections."""

    deduped_samples: Counter
    store_changes: Counter
    """Elections that this process wanted to write down."""
    propagation_seconds: Histogram
    cleanup_started: Counter
    cleanup_marked: Counter
    cleanup_deleted: Counter
    cleanup_failed: Counter

    @classmethod
    def create(cls, registry: CollectorRegistry) -> HaTrackerMetrics:
        """Register `cortex_ha_tracker_*` and `cortex_distributor_deduped_samples_total`."""

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"cortex_ha_tracker_{name}_total", text, labels, registry=registry)

        return cls(
            deduped_samples=Counter(
                "cortex_distributor_deduped_samples_total",
                "Samples of replicas that are not elected.",
                ["user", "cluster"],
                registry=registry,
            ),
            store_changes=counter(
                "kv_store_cas", "Changes of an election that were tried in the elections' store.", "user", "cluster"
            ),
            propagation_seconds=Histogram(
                "cortex_ha_tracker_elected_replica_change_propagation_time_seconds",
                "Time from an election until this process knew of it.",
                registry=registry,
            ),
            cleanup_started=counter("replicas_cleanup_started", "Clean-ups of silent clusters that were begun."),
            cleanup_marked=counter(
                "replicas_cleanup_marked_for_deletion", "Silent clusters that this process gave up."
            ),
            cleanup_deleted=counter(
                "replicas_cleanup_deleted", "Clusters given up whose last record is gone from the store."
            ),
            cleanup_failed=counter("replicas_cleanup_delete_failed", "Clean-ups of silent clusters that failed."),
        )

    def forget(self, tenant: str, cluster: str) -> None:
        """Stop showing a cluster that was given up."""
        for family in (self.deduped_samples, self.store_changes):
            family.remove(tenant, cluster)
