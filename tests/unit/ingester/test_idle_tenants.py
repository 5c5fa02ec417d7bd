"""A tenant that sends nothing for long is forgotten at a cut: in memory, in checkpoints, in metrics (spec 9.6)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from mimir_ingest.bucket.store import Bucket
from mimir_ingest.ingester.checkpoint import decode_checkpoint
from mimir_ingest.ingester.consumption import ConsumptionMetrics
from mimir_ingest.ingester.head_gauges import HeadGauges
from mimir_ingest.ingester.ingestion_rates import IngestionRates
from mimir_ingest.obs.metrics import IngesterMetrics
from tests.support.partition_log import SETTINGS, START_MS, Owner, data_record, files_of

UP = {"__name__": "up"}


def record(offset: int, tenant: str, at_ms: int, sample_ms: int | None = None):
    return data_record(offset, tenant, [(UP, [(at_ms if sample_ms is None else sample_ms, 1.0)])], at_ms=at_ms)


def checkpoint_tenants(folder) -> list[str]:
    """Tenants of the newest checkpoint."""
    newest = max((path, data) for path, data in files_of(folder).items() if data.startswith(b"MIMIRCOL"))
    return sorted(decode_checkpoint(newest[1])[1])


def test_an_idle_tenant_is_forgotten_and_begins_anew(tmp_path):
    owner = Owner(Bucket(str(tmp_path / "bucket")), tmp_path / "local")
    metrics = IngesterMetrics.create(registry := CollectorRegistry())
    gauges = HeadGauges(ConsumptionMetrics(metrics, IngestionRates(period_s=15, now_s=0)))
    step = SETTINGS.range_ms
    quiet = SETTINGS.idle_ms // step + 1
    records = [record(0, "idle", START_MS)] + [record(i, "busy", START_MS + i * step) for i in range(1, quiet)]
    owner.consume(records[:3])
    gauges.update({3: owner.state}, metadata_count=0, exemplars={})
    assert set(owner.state.heads) == {"idle", "busy"}
    owner.consume(records)
    assert "idle" in owner.state.heads
    assert checkpoint_tenants(tmp_path / "bucket") == ["busy", "idle"]

    # The next cut comes more than `idle_ms` of record time after its last sample, and finds nothing of it.
    more = [record(quiet + i, "busy", START_MS + (quiet + i) * step) for i in range(2)]
    owner.consume([*records, *more])
    assert set(owner.state.heads) == {"busy"}
    assert checkpoint_tenants(tmp_path / "bucket") == ["busy"]
    gauges.update({3: owner.state}, metadata_count=0, exemplars={})
    families = [family.name for family in registry.collect() for s in family.samples if s.labels.get("user") == "idle"]
    assert families == []

    late = record(quiet + 2, "idle", START_MS + (quiet + 2) * step, START_MS - 1)
    owner.consume([*records, *more, late])
    assert owner.state.heads["idle"].max_ts == START_MS - 1
    gauges.update({3: owner.state}, metadata_count=0, exemplars={})
    assert registry.get_sample_value("cortex_ingester_memory_series_created_total", {"user": "idle"}) == 1


def test_what_was_shipped_stays_readable_until_it_is_released(tmp_path):
    """The head that is forgotten leaves its readers what the cut before has shipped."""
    owner = Owner(Bucket(str(tmp_path / "bucket")), tmp_path / "local")
    state = owner.start(0, 10)
    state.apply([record(0, "idle", START_MS)])
    later = START_MS + 2 * SETTINGS.range_ms
    for offset, at in ((1, later), (2, later + SETTINGS.idle_ms)):
        applied = state.apply([record(offset, "busy", at)])
        shipped = owner.shipper().ship(applied.cut)
        state.finish_cut(shipped.cuts, shipped.stays)
        state.apply([record(offset, "busy", at)])
    assert state.heads["idle"].blank
    assert sum(answer.sample_count for answer in state.view("idle", []).select([], 0, 1 << 60)) == 1
    state.release(shipped.cuts[-1].cut_offset)
    state.apply([record(3, "busy", later + 2 * SETTINGS.idle_ms)])
    assert set(state.heads) == {"busy"}
