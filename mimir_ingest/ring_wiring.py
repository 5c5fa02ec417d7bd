"""From settings to the ring: where it is kept, and who this process is in it.

Nothing here starts anything; the composition root and the commands do.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from mimir_ingest import wiring
from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.limits import Limits
from mimir_ingest.config.sections import DistributorRingSection, IngesterRingSection, IngestStorageSection
from mimir_ingest.config.settings import Settings
from mimir_ingest.config.targets import components
from mimir_ingest.distributor.ha_tracker import HaTracker
from mimir_ingest.ingester.ownership_plan import OwnershipKnobs
from mimir_ingest.instance_address import find_address, join_host_port
from mimir_ingest.obs.ha_metrics import ElectionCollector, HaTrackerMetrics
from mimir_ingest.obs.ring_metrics import RingCollector
from partitions.errors import InvalidInstanceId
from partitions.kv.contract import RingStore
from partitions.lifecycle import LifecycleKnobs, partition_of
from partitions.model import InstanceState, RingDesc
from partitions.ring import PartitionRing
from partitions.shuffle_shard import WriteShards
from partitions.watch import RingWatcher

LOOPBACK = "127.0.0.1"
ELECTIONS_FILE = "ha-tracker.sqlite"
"""Database of the HA tracker's elections beside the embedded log's."""


def ring_topic(storage: IngestStorageSection) -> str:
    """Return the name of the Kafka topic that keeps the rings."""
    return storage.kafka.ring_topic or f"{storage.kafka.topic}-ring"


def topic(storage: IngestStorageSection) -> str:
    """Return the label `topic` of metrics about the log."""
    return storage.kafka.topic if storage.log == "kafka" else "embedded"


def ring_database(storage: IngestStorageSection) -> Path:
    """Return the file that keeps the rings beside the embedded log."""
    from mimir_ingest.log.sqlite_store import FILE_NAME

    return Path(storage.embedded.path) / FILE_NAME


def make_ring_store(storage: IngestStorageSection) -> RingStore:
    """Return the ring store that goes with the log, not yet started. Raises LogUnavailable for unusable TLS or SASL."""
    return _make_store(storage, ring_topic(storage), "-ingest-storage.kafka.ring-topic", ring_database(storage))


def make_election_store(storage: IngestStorageSection) -> RingStore:
    """Return the HA tracker's store, as `make_ring_store`: a place of its own, which only distributors read."""
    topic = storage.kafka.ha_tracker_topic or f"{storage.kafka.topic}-ha-tracker"
    database = Path(storage.embedded.path) / ELECTIONS_FILE
    return _make_store(storage, topic, "-ingest-storage.kafka.ha-tracker-topic", database)


def _make_store(storage: IngestStorageSection, topic: str, topic_flag: str, database: Path) -> RingStore:
    if storage.log == "kafka":
        from mimir_ingest.log.kafka_security import build_client_arguments
        from partitions.kv.kafka import KafkaRingStore

        kafka = storage.kafka
        return KafkaRingStore(
            kafka.address,
            topic,
            topic_flag=topic_flag,
            client_arguments=build_client_arguments(wiring.kafka_security(kafka)),
            client_id=kafka.client_id or "mimir-ingest",
        )
    from partitions.kv.sqlite import SqliteRingStore

    return SqliteRingStore(database)


def describe_ring_store(storage: IngestStorageSection) -> str:
    """Say where the rings are kept, for people."""
    if storage.log == "kafka":
        return f"the Kafka topic {ring_topic(storage)}"
    return f"the embedded log's database {ring_database(storage)}"


def internal_host(settings: Settings) -> str:
    """Return the address that the internal listener binds to; empty is all addresses.

    The embedded log is one machine's, so nobody else has to reach its processes.
    """
    if settings.server.grpc_listen_address or settings.ingest_storage.log == "kafka":
        return settings.server.grpc_listen_address
    return LOOPBACK


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a process is in the rings."""

    ingester: str
    """Id in the ingester ring."""
    distributor: str
    """Id in the distributor ring."""
    writer: str
    """Name in the ring store: the id of one of its rings, so that others can tell whether it lives."""


def identity(settings: Settings, http_port: int) -> Identity:
    """Return the ids of a process that listens on a port.

    An id that was not configured is the host's name and the port, so that processes of one machine differ; an ingester
    whose partition is the number at the end of its id is the host's name alone, as in Mimir.
    """
    running = components(settings.target)
    own = f"{socket.gethostname()}:{http_port}"
    given = settings.effective.sources
    numbered = settings.ingester.partition_ring.ownership == "instance-id"
    ingester = own
    if numbered or "ingester.ring.instance_id" in given:
        ingester = settings.ingester.ring.instance_id
    distributor = own
    if "distributor.ring.instance_id" in given:
        distributor = settings.distributor.ring.instance_id
    elif "ingester" in running or "ingester.ring.instance_id" in given:
        distributor = ingester
    return Identity(ingester, distributor, ingester if "ingester" in running else distributor)


def instance_address(settings: Settings, ring: IngesterRingSection | DistributorRingSection, internal_port: int) -> str:
    """Return this process's `host:port` for a ring. Raises ConfigError for interfaces without an address.

    Parameters
    ----------
    ring : the ring's section of the settings
    internal_port : the internal listener's real port
    """
    host = find_address(
        configured=ring.instance_addr, interfaces=ring.instance_interface_names, listens_on=internal_host(settings)
    )
    return join_host_port(host, ring.instance_port or internal_port)


def make_watcher(settings: Settings, me: Identity, *, now_ms: Callable[[], int]) -> RingWatcher:
    """Return the process's view of the rings, not yet started. Raises LogUnavailable for unusable TLS or SASL."""
    return RingWatcher(
        make_ring_store(settings.ingest_storage),
        writer=me.writer,
        now_ms=now_ms,
        heartbeat_timeout_ms=settings.ingester.ring.heartbeat_timeout.ms,
    )


def ring_members(desc: RingDesc, ring: str) -> RingDesc:
    """Return the document with nothing but one ring's instances: those of the processes that follow its store."""
    return RingDesc({member.key: member for member in desc.instances(ring).values()}, desc.newest)


def make_ha_tracker(
    settings: Settings,
    me: Identity,
    rings: RingWatcher,
    limits_for: Callable[[str], Limits],
    registry: CollectorRegistry,
    *,
    now_ms: Callable[[], int],
) -> HaTracker | None:
    """Return the HA tracker, not yet started, with its metrics; None when it is not enabled.

    `rings` says which distributors live. Raises LogUnavailable for unusable TLS or SASL.
    """
    if not settings.distributor.ha_tracker.enable_ha_tracker:
        return None
    watcher = RingWatcher(
        make_election_store(settings.ingest_storage),
        writer=me.writer,
        now_ms=now_ms,
        heartbeat_timeout_ms=settings.distributor.ring.heartbeat_timeout.ms,
        members=lambda: ring_members(rings.desc, "distributor"),
    )
    ElectionCollector(
        registry,
        view=lambda: watcher.desc,
        elected_replica=settings.distributor.ha_tracker.enable_elected_replica_metric,
    )
    return HaTracker(
        watcher,
        limits_for=wiring.ha_limits(limits_for),
        metrics=HaTrackerMetrics.create(registry),
        timeout_s=settings.distributor.remote_timeout.seconds,
        now_ms=now_ms,
    )


def healthy_distributors(settings: Settings, watcher: RingWatcher, *, now_ms: Callable[[], int]) -> Callable[[], int]:
    """Return a function that counts the distributors among which tenants' rates are divided; at least this one."""
    timeout_ms = settings.distributor.ring.heartbeat_timeout.ms

    def count() -> int:
        members = watcher.desc.instances("distributor").values()
        now = now_ms()
        return max(1, sum(1 for m in members if m.state is InstanceState.ACTIVE and m.alive(now, timeout_ms)))

    return count


def watch_metrics(
    settings: Settings,
    watcher: RingWatcher,
    registry: CollectorRegistry,
    *,
    own: Mapping[str, str],
    now_ms: Callable[[], int],
) -> None:
    """Show what the rings hold in the process's metrics; `own` has the process's instances by ring."""
    RingCollector(
        registry,
        view=lambda: watcher.desc,
        heartbeat_timeouts_ms={
            "distributor": settings.distributor.ring.heartbeat_timeout.ms,
            "ingester": settings.ingester.ring.heartbeat_timeout.ms,
        },
        own=own,
        confirmed_age_s=lambda: time.monotonic() - watcher.confirmed_s,
        now_ms=now_ms,
    )


def own_partition(settings: Settings, instance: str) -> int | None:
    """Return the partition of an ingester's id, None where they are leased. Raises ConfigError without a number."""
    if settings.ingester.partition_ring.ownership == "leases":
        return None
    try:
        return partition_of(instance)
    except InvalidInstanceId as error:
        raise ConfigError(error.message) from error


def ownership_knobs(settings: Settings, instance: str, partition: int | None) -> OwnershipKnobs:
    """Return how an ingester finds its partitions."""
    return OwnershipKnobs(
        instance=instance,
        own_partition=partition,
        heartbeat_timeout_ms=settings.ingester.ring.heartbeat_timeout.ms,
        delete_inactive_partition_after_ms=settings.ingester.partition_ring.delete_inactive_partition_after.ms,
    )


def lifecycle_knobs(settings: Settings) -> LifecycleKnobs:
    """Return the rules by which partitions become ACTIVE and go."""
    ring = settings.ingester.partition_ring
    return LifecycleKnobs(
        min_partition_owners_count=ring.min_partition_owners_count,
        min_partition_owners_duration_ms=ring.min_partition_owners_duration.ms,
        delete_inactive_partition_after_ms=ring.delete_inactive_partition_after.ms,
    )


def read_lookback_ms(settings: Settings) -> int:
    """Return how long a change of the ring extends the partitions that a tenant's reads go to (ms); 0 is for ever."""
    if not settings.querier.shuffle_sharding_ingesters_enabled:
        return 0
    return settings.limits.query_ingesters_within.ms


def preferred_zones(settings: Settings) -> list[str]:
    """Return the zones to read from first."""
    return [zone.strip() for zone in settings.querier.prefer_availability_zones.split(",") if zone.strip()]


def hedging_delay_s(settings: Settings) -> float:
    """Return how long one owner is waited for before the next one is asked as well (s); 0 is for ever."""
    return settings.querier.minimize_ingester_requests_hedging_delay.seconds


def write_shards(watcher: RingWatcher) -> Callable[[str, int], PartitionRing]:
    """Return a function from tenant and shard size to the part of the newest ring that the tenant's data goes to."""
    shards = WriteShards(watcher.ring, watcher.desc.partitions)

    def of(tenant: str, size: int) -> PartitionRing:
        nonlocal shards
        if shards.ring is not watcher.ring:
            shards = WriteShards(watcher.ring, watcher.desc.partitions)
        return shards.of(tenant, size)

    return of
