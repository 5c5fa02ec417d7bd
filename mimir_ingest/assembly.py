"""The parts of one process, built for its target and not yet started.

What a target does not need is None, and nothing of it is built: a querier's process has no ingester and touches no
snapshot directory. `app` starts and stops the parts; `wiring` and `ring_wiring` know the settings.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from mimir_ingest import ring_wiring, wiring
from mimir_ingest.bucket.discover import BlockCatalog
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.bucket.upkeep import BucketUpkeep
from mimir_ingest.config.runtime import RuntimeConfigWatcher
from mimir_ingest.config.settings import Settings
from mimir_ingest.distributor.plan import record_settings
from mimir_ingest.distributor.service import Distributor
from mimir_ingest.ingester.service import Ingester
from mimir_ingest.log.contract import PartitionLog
from mimir_ingest.obs.metrics import DistributorMetrics, IngesterMetrics, RuntimeConfigMetrics, WriterMetrics
from mimir_ingest.querier.service import Querier
from partitions.watch import RingWatcher

BLOCK_LIST_MAX_AGE_S = 60.0
"""How old a tenant's list of blocks may be when a query reads it. why: blocks of this program's own cuts are asked for
by name, so age only delays blocks that others upload; a listing of a bucket costs one request a thousand blocks."""


def now_ms() -> int:
    """Return the wall clock, ms since the Unix epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Parts:
    """What a process runs; None for what its target does not need."""

    identity: ring_wiring.Identity
    runtime: RuntimeConfigWatcher
    watcher: RingWatcher
    log: PartitionLog | None
    bucket_upkeep: BucketUpkeep | None
    distributor: Distributor | None
    ingester: Ingester | None
    querier: Querier | None


def assemble(settings: Settings, registry: CollectorRegistry, modules: Collection[str], *, http_port: int) -> Parts:
    """Build what the modules of a target need.

    Parameters
    ----------
    registry : metrics of the process
    modules : from `modules.start_order`
    http_port : the port that the process listens on

    Raises ConfigError, LogUnavailable and StoreUnavailable for settings that cannot be used.
    """
    runtime = RuntimeConfigWatcher(
        files=settings.runtime_config.file,
        period_s=settings.runtime_config.period.seconds,
        defaults=settings.limits,
        metrics=RuntimeConfigMetrics.create(registry),
    )
    identity = ring_wiring.identity(settings, http_port)
    builder = _Builder(settings, registry, runtime, ring_wiring.make_watcher(settings, identity, now_ms=now_ms))
    bucket = wiring.make_bucket(settings.blocks_storage) if "bucket" in modules else None
    log = wiring.make_log(settings.ingest_storage) if "log" in modules else None
    distributor = builder.distributor(log) if log and "distributor" in modules else None
    catalog = BlockCatalog(bucket) if bucket else None
    ingester = builder.ingester(log, bucket, catalog) if log and bucket and catalog and "ingester" in modules else None
    querier = builder.querier(ingester, catalog) if catalog and ingester and "querier" in modules else None
    return Parts(
        identity=identity,
        runtime=runtime,
        watcher=builder.watcher,
        log=log,
        bucket_upkeep=BucketUpkeep(bucket, now_ms=now_ms, cleans="bucket-upkeep" in modules) if bucket else None,
        distributor=distributor,
        ingester=ingester,
        querier=querier,
    )


class _Builder:
    """What the components of one process share while they are built."""

    def __init__(
        self, settings: Settings, registry: CollectorRegistry, runtime: RuntimeConfigWatcher, watcher: RingWatcher
    ) -> None:
        self._settings, self._registry = settings, registry
        self.watcher = watcher
        self._limits_for = wiring.distributor_limits(runtime.for_tenant)
        self._distributor_metrics: DistributorMetrics | None = None

    def distributor(self, log: PartitionLog) -> Distributor:
        settings, watcher = self._settings, self.watcher
        self._distributor_metrics = DistributorMetrics.create(self._registry)
        return Distributor(
            log,
            ring=lambda: watcher.ring,
            ring_confirmed_s=lambda: watcher.confirmed_s,
            limits_for=self._limits_for,
            metrics=self._distributor_metrics,
            writer_metrics=WriterMetrics.create(self._registry),
            options=wiring.distributor_options(settings),
            instance_limits=wiring.instance_limits(settings),
            distributors=ring_wiring.healthy_distributors(settings, watcher, now_ms=now_ms),
            now_ms=now_ms,
        )

    def ingester(self, log: PartitionLog, bucket: Bucket, catalog: BlockCatalog) -> Ingester:
        discarded = self._distributor_metrics.discarded_samples if self._distributor_metrics else None
        return Ingester(
            log,
            bucket,
            catalog=catalog,
            metrics=IngesterMetrics.create(self._registry, discarded_samples=discarded),
            default_record_settings=lambda tenant: record_settings(
                self._limits_for(tenant), partitions=len(self.watcher.ring.active_partitions)
            ),
            **wiring.ingester_options(self._settings),
        )

    def querier(self, ingester: Ingester, catalog: BlockCatalog) -> Querier:
        return Querier(
            ingester=ingester,
            catalog=catalog,
            limits=wiring.query_limits(self._settings),
            max_concurrent=self._settings.querier.max_concurrent,
            block_list_max_age_s=BLOCK_LIST_MAX_AGE_S,
        )
