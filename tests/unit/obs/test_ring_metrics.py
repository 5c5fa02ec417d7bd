"""Ring metrics have Mimir's names and labels, and count what the newest view holds."""

from prometheus_client import CollectorRegistry

from mimir_ingest.obs.ring_metrics import LifecyclerMetrics, RingCollector
from partitions.model import InstanceDesc, InstanceState, PartitionState
from tests.support.ring import ingester, partition, ring_of

NOW_MS = 1_700_000_100_000


def test_members_and_partitions_are_counted_by_state():
    desc = ring_of(
        ingester("a-0", heartbeat_ms=NOW_MS),
        ingester("b-0", heartbeat_ms=NOW_MS - 60_001),
        ingester("c-0", heartbeat_ms=NOW_MS, state=InstanceState.JOINING),
        InstanceDesc("distributor", "d", InstanceState.ACTIVE, heartbeat_ms=NOW_MS - 30_000),
        partition(0, PartitionState.ACTIVE),
        partition(1, PartitionState.ACTIVE),
        partition(2, PartitionState.INACTIVE),
        partition(3, PartitionState.DELETED),
    )
    registry = CollectorRegistry()
    RingCollector(
        registry,
        view=lambda: desc,
        heartbeat_timeouts_ms={"ingester": 60_000, "distributor": 60_000},
        own={"ingester": "c-0", "distributor": "elsewhere"},
        confirmed_age_s=lambda: 0.5,
        now_ms=lambda: NOW_MS,
    )

    def value(metric, **labels):
        return registry.get_sample_value(metric, labels)

    counts = {s: value("cortex_ring_members", name="ingester", state=s) for s in ("ACTIVE", "JOINING", "Unhealthy")}
    assert counts == {"ACTIVE": 1, "JOINING": 1, "Unhealthy": 1}
    assert value("cortex_ring_members", name="ingester", state="LEAVING") == 0
    assert value("cortex_ring_members", name="distributor", state="ACTIVE") == 1
    assert value("cortex_ring_oldest_member_timestamp", name="distributor", state="ACTIVE") == 1_700_000_070
    states = {
        s: value("cortex_partition_ring_partitions", name="ingester-partitions", state=s)
        for s in ("Pending", "Active", "Inactive")
    }
    assert states == {"Pending": 0, "Active": 2, "Inactive": 1}
    assert value("cortex_partition_ring_confirmed_age_seconds", name="ingester-partitions") == 0.5
    assert value("cortex_lifecycler_read_only", name="ingester") == 0
    assert value("cortex_lifecycler_read_only", name="distributor") is None


def test_reconciles_and_heartbeats_are_counted_with_their_failures():
    registry = CollectorRegistry()
    metrics = LifecyclerMetrics.create(registry)
    metrics.reconciled("owned-partition", True)
    metrics.reconciled("owned-partition", False)
    metrics.heartbeat("ingester", True)
    metrics.heartbeat("ingester", False)
    owned = {"name": "ingester-partitions", "type": "owned-partition"}
    prefix = "cortex_partition_ring_lifecycler_reconciles"
    assert registry.get_sample_value(f"{prefix}_total", owned) == 2
    assert registry.get_sample_value(f"{prefix}_failed_total", owned) == 1
    assert registry.get_sample_value("cortex_ring_heartbeats_total", {"name": "ingester"}) == 2
    assert registry.get_sample_value("cortex_ring_heartbeats_failed_total", {"name": "ingester"}) == 1
