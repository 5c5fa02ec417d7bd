"""What an ingester shows of its heads, and that looking at them holds nobody up."""

import asyncio
import threading
from types import SimpleNamespace

from mimir_ingest.ingester.consumption import ConsumptionMetrics
from mimir_ingest.ingester.exemplars import ExemplarStore
from mimir_ingest.ingester.ingestion_rates import IngestionRates
from mimir_ingest.ingester.knobs import TrackingKnobs
from mimir_ingest.ingester.metadata import MetadataStore
from mimir_ingest.ingester.owned_series import OwnedSeries
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.ingester.upkeep import IngesterUpkeep
from mimir_ingest.log.contract import Record
from mimir_ingest.obs.metrics import IngesterMetrics, new_registry
from mimir_ingest.wire.record import VERSION_COLUMNAR, RecordSettings, encode_columnar
from partitions.model import PartitionState as State
from partitions.ring import PartitionRing
from tests.support.batches import write_batch

T0 = 1_700_000_000_000
LIMITS = RecordSettings(max_series=7, out_of_order_window_ms=0, creation_grace_ms=600_000)
KNOBS = TrackingKnobs(update_period_s=0.001, owned_period_s=0.001, rate_period_s=0.001)


def state_of(*tenants):
    state = PartitionState("t", 0, settings=PartitionSettings(), default_record_settings=lambda _: LIMITS)
    value = encode_columnar(write_batch([({"__name__": "m", "i": str(i)}, [(T0, 1.0)]) for i in range(3)]), LIMITS)
    state.apply([Record(0, at, T0, t.encode(), value, VERSION_COLUMNAR) for at, t in enumerate(tenants)])
    return state


async def test_heads_are_looked_at_in_threads_and_shown_by_tenant():
    registry = new_registry()
    metrics = IngesterMetrics.create(registry)
    rates = IngestionRates(period_s=15, now_s=0)
    looked, shown_all, here = set(), asyncio.Event(), threading.get_ident()

    async def in_thread(function, *arguments):
        def run():
            assert threading.get_ident() != here
            return function(*arguments)

        result = await asyncio.to_thread(run)
        looked.add(function.__qualname__)
        if looked >= {"IngesterUpkeep._show_heads", "ActiveSeriesGauges.show", "OwnedSeries.show"}:
            shown_all.set()
        return result

    upkeep = IngesterUpkeep(
        {0: SimpleNamespace(state=state_of("a", "b")), 1: SimpleNamespace(state=None)},
        in_thread=in_thread,
        metrics=ConsumptionMetrics(metrics, rates),
        series_metrics=metrics.active_series,
        rates=rates,
        metadata=MetadataStore(retain_s=1, limits_of=None),
        exemplars=ExemplarStore(lambda _: 0),
        tracking=KNOBS,
        trackers_of=lambda _: {},
        active_since_ms=lambda: T0,
        max_series_of=lambda _: LIMITS.max_series,
        owned_series=OwnedSeries(
            metrics.active_series.owned_series, lambda _: PartitionRing.build({0: State.ACTIVE, 1: State.INACTIVE})
        ),
    )
    await upkeep.start()
    await asyncio.wait_for(shown_all.wait(), 120)
    await upkeep.close()
    shown = registry.get_sample_value
    for tenant in ("a", "b"):
        limit = {"user": tenant, "limit": "max_global_series_per_user"}
        assert shown("cortex_ingester_local_limits", limit) == 2 * LIMITS.max_series
        for name in ("active_series", "owned_series", "memory_series_created_total"):
            assert shown(f"cortex_ingester_{name}", {"user": tenant}) == 3, name
    assert shown("cortex_ingester_memory_series") == 6
    assert shown("cortex_ingester_memory_users") == 2
