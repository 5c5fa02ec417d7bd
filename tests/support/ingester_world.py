"""Ingesters on an embedded log and a local bucket, with a clock that the test sets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from mimir_ingest.bucket.discover import BlockCatalog
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.ingester.read_gate import Demand
from mimir_ingest.ingester.service import Ingester
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.log.embedded import EmbeddedLog
from mimir_ingest.obs.metrics import IngesterMetrics
from mimir_ingest.wire.record import VERSION_COLUMNAR, RecordSettings, encode_columnar
from tests.support.batches import write_batch
from tests.support.blocks import to_python

FOREVER = (0, 1 << 60)
SETTINGS = PartitionSettings(range_ms=60_000, grace_ms=30_000)
LIMITS = RecordSettings(max_series=0, out_of_order_window_ms=0, creation_grace_ms=600_000)


class Clock:
    """The embedded log's wall clock, set by the test."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_040_000

    def __call__(self) -> int:
        return self.now_ms


class World:
    """What outlives an ingester: log, bucket, local folder."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.clock = Clock()
        self.log: EmbeddedLog | None = None
        self.bucket = Bucket(str(folder / "bucket"))
        self.registry = CollectorRegistry()

    @asynccontextmanager
    async def ingester(self, *, ready: bool = True, partitions=None, **options):
        self.registry = CollectorRegistry()
        options = {
            "partition_settings": SETTINGS,
            "snapshot_folder": self.folder / "snapshots",
            "snapshot_interval_s": 3600.0,
            "retention_s": 0.0,
            "trim_delay_s": 0.0,
            "fetch_max_wait_s": 0.05,
            **options,
        }
        log = options.pop("log", self.log)
        ingester = Ingester(
            log,
            options.pop("bucket", self.bucket),
            metrics=IngesterMetrics.create(self.registry),
            default_record_settings=lambda _tenant: LIMITS,
            **options,
        )
        await ingester.start()
        await ingester.own(await log.partitions() if partitions is None else partitions)
        try:
            if ready:
                await until(lambda: ingester.ready_reason() is None)
            yield ingester
        finally:
            await ingester.close()

    async def push(self, rows, tenant: str = "a", partition: int = 0) -> int:
        value = encode_columnar(write_batch(rows), LIMITS)
        return await self.log.append(partition, tenant.encode(), value, VERSION_COLUMNAR, timeout_s=60)

    def blocks(self, tenant: str = "a") -> dict[str, list]:
        catalog = BlockCatalog(self.bucket)
        catalog.refresh(tenant)
        found = catalog.blocks(tenant, *FOREVER)
        return {b.ulid: to_python(catalog.open(b).select([], *FOREVER)) for b in found}


async def until(condition, timeout_s: float = 120) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 (the conditions have no event)
            await asyncio.sleep(0.01)


def row(i: int, t: int, v: float = 1.0):
    return {"__name__": "m", "i": str(i)}, [(t, v)]


async def held(ingester: Ingester, tenant: str = "a", matchers=(), **demand) -> dict[str, list[int]]:
    answer = await ingester.select(tenant, list(matchers), *FOREVER, demand=Demand(**demand))
    found: dict[str, set[int]] = {}
    for samples in answer.series:
        for labels, points in to_python(samples):
            found.setdefault(labels["i"], set()).update(t for t, _ in points)
    return {i: sorted(ts) for i, ts in found.items()}
