"""The parts of one process, built for its target and not yet started.

What a target does not need is None, and nothing of it is built: a querier's process has no ingester and touches no
snapshot directory. `app` starts and stops the parts; `wiring` and `ring_wiring` know the settings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from mimir_ingest import ring_wiring, wiring
from mimir_ingest.bucket.discover import BlockCatalog
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.bucket.upkeep import BucketUpkeep
from mimir_ingest.config.runtime import RuntimeConfigWatcher
from mimir_ingest.config.settings import Settings
from mimir_ingest.distributor.ha_tracker import HaTracker
from mimir_ingest.distributor.plan import partition_share, record_settings
from mimir_ingest.distributor.service import Distributor
from mimir_ingest.ingester.downscale import Downscale
from mimir_ingest.ingester.drain import DrainProbe
from mimir_ingest.ingester.limiter import LocalLimiter
from mimir_ingest.ingester.membership import Membership
from mimir_ingest.ingester.metadata import MetadataLimits
from mimir_ingest.ingester.ownership import Ownership
from mimir_ingest.ingester.service import Ingester
from mimir_ingest.ingester.shutdown_marker import ShutdownMarker
from mimir_ingest.log.contract import PartitionLog
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.obs.limit_metrics import IngesterLimitMetrics
from mimir_ingest.obs.metrics import (
    DistributorMetrics,
    IngesterMetrics,
    RuntimeConfigMetrics,
    StrongReadMetrics,
    WriterMetrics,
)
from mimir_ingest.obs.querier_metrics import HeadReadMetrics, IngesterClientMetrics, OffsetLookupMetrics
from mimir_ingest.obs.ring_metrics import LifecyclerMetrics
from mimir_ingest.obs.tenant_metrics import MetricGroups
from mimir_ingest.querier.all_ingesters import AllIngesters
from mimir_ingest.querier.checkpoint_cuts import CheckpointCuts
from mimir_ingest.querier.demands import Demands
from mimir_ingest.querier.ingester_client import IngesterClient
from mimir_ingest.querier.owner import LocalOwner
from mimir_ingest.querier.owners import PartitionOwners
from mimir_ingest.querier.ring_view import RingView
from mimir_ingest.querier.service import Querier
from mimir_ingest.tls import client_tls
from mimir_ingest.wire.record import RecordSettings
from partitions.lifecycler import InstanceLifecycler, PartitionLifecycler
from partitions.model import InstanceDesc
from partitions.ring import PartitionRing
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
    distributor_instance: InstanceLifecycler | None
    ha_tracker: HaTracker | None
    """The distributor's; None where it is not enabled, too."""
    ingester: Ingester | None
    membership: Membership | None
    """The ingester's life in the ring."""
    downscale: Downscale | None
    querier: Querier | None
    ingester_client: IngesterClient | None
    """Connections to ingesters, of querier and distributor."""
    all_ingesters: AllIngesters | None
    """What the distributor's statistics ask."""


def assemble(
    settings: Settings,
    registry: CollectorRegistry,
    modules: Collection[str],
    *,
    http_port: int,
    internal_port: int | None,
) -> Parts:
    """Build what the modules of a target need.

    Parameters
    ----------
    registry : metrics of the process
    modules : from `modules.start_order`
    http_port, internal_port : the ports that the process listens on; no internal one without an ingester

    Raises ConfigError, LogUnavailable and StoreUnavailable for settings that cannot be used.
    """
    runtime = RuntimeConfigWatcher(
        files=settings.runtime_config.file,
        period_s=settings.runtime_config.period.seconds,
        defaults=settings.limits,
        metrics=RuntimeConfigMetrics.create(registry),
    )
    identity = ring_wiring.identity(settings, http_port)
    watcher = ring_wiring.make_watcher(settings, identity, now_ms=now_ms)
    own = {"distributor": identity.distributor, "ingester": identity.ingester}
    ring_wiring.watch_metrics(settings, watcher, registry, own=own, now_ms=now_ms)
    bucket = wiring.make_bucket(settings.blocks_storage) if "bucket" in modules else None
    log = wiring.make_log(settings.ingest_storage) if "log" in modules else None
    builder = _Builder(settings, registry, runtime, watcher, identity)
    distributor = ha_tracker = None
    if log and "distributor" in modules:
        ha_tracker = ring_wiring.make_ha_tracker(
            settings, identity, watcher, runtime.for_tenant, registry, now_ms=now_ms
        )
        distributor = builder.distributor(log, ha_tracker)
    client = builder.ingester_client() if {"querier", "distributor"} & set(modules) else None
    ingester = membership = downscale = querier = None
    if log and bucket:
        storage = _Storage(log, bucket, wiring.make_catalog(bucket, settings.blocks_storage), DrainProbe(log, bucket))
        if "ingester" in modules and internal_port is not None:
            ingester = builder.ingester(storage)
            membership, downscale = builder.membership(ingester, storage, internal_port)
        if "querier" in modules:
            querier = builder.querier(storage, ingester, client)
    return Parts(
        identity=identity,
        runtime=runtime,
        watcher=watcher,
        log=log,
        bucket_upkeep=BucketUpkeep(bucket, now_ms=now_ms, cleans="bucket-upkeep" in modules) if bucket else None,
        distributor=distributor,
        distributor_instance=builder.distributor_instance(internal_port or http_port) if distributor else None,
        ha_tracker=ha_tracker,
        ingester=ingester,
        membership=membership,
        downscale=downscale,
        querier=querier,
        ingester_client=client,
        all_ingesters=builder.all_ingesters(client, ingester) if client and distributor else None,
    )


@dataclass(frozen=True, slots=True)
class _Storage:
    """What ingester and querier read and write, shared by both."""

    log: PartitionLog
    bucket: Bucket
    catalog: BlockCatalog
    drains: DrainProbe


class _Builder:
    """What the components of one process share while they are built."""

    def __init__(
        self,
        settings: Settings,
        registry: CollectorRegistry,
        runtime: RuntimeConfigWatcher,
        watcher: RingWatcher,
        identity: ring_wiring.Identity,
    ) -> None:
        self._settings, self._registry = settings, registry
        self._watcher, self._identity = watcher, identity
        self._runtime = runtime
        self._limits_for = wiring.distributor_limits(settings, runtime.for_tenant)
        self._trackers_of = wiring.custom_trackers(runtime.for_tenant)
        self._shard_size_of = lambda tenant: runtime.for_tenant(tenant).ingestion_partitions_tenant_shard_size
        self._distributor_metrics: DistributorMetrics | None = None
        self._limiter: LocalLimiter | None = None
        self._owned: Callable[[], frozenset[int]] = frozenset
        self._shard = ring_wiring.write_shards(watcher)
        self._groups = MetricGroups(settings.max_separate_metrics_groups_per_user)
        self._strong_reads = StrongReadMetrics.create(registry, topic=ring_wiring.topic(settings.ingest_storage))
        self._lifecycler_metrics = LifecyclerMetrics.create(registry)

    def distributor(self, log: PartitionLog, ha_tracker: HaTracker | None) -> Distributor:
        settings, watcher = self._settings, self._watcher
        self._distributor_metrics = DistributorMetrics.create(self._registry)
        return Distributor(
            log,
            ring=lambda: watcher.ring,
            shard=self._shard,
            ring_confirmed_s=lambda: watcher.confirmed_s,
            limits_for=self._limits_for,
            metrics=self._distributor_metrics,
            writer_metrics=WriterMetrics.create(self._registry),
            options=wiring.distributor_options(settings),
            instance_limits=wiring.instance_limits(settings, self._runtime),
            over_limits=self._over_limits,
            groups=self._groups,
            distributors=ring_wiring.healthy_distributors(settings, watcher, now_ms=now_ms),
            ha_tracker=ha_tracker,
            now_ms=now_ms,
        )

    def _over_limits(
        self, partition: int, tenant: str, batch: WriteBatch, settings: RecordSettings
    ) -> np.ndarray | None:
        """Ask the ingester of this process, if there is one, what is over a limit."""
        return None if self._limiter is None else self._limiter.over_limits(partition, tenant, batch, settings)

    def ingester(self, storage: _Storage) -> Ingester:
        self._ingester_metrics = IngesterMetrics.create(
            self._registry, distributor=self._distributor_metrics, strong_reads=self._strong_reads
        )
        ingester = Ingester(
            storage.log,
            storage.bucket,
            catalog=storage.catalog,
            metrics=self._ingester_metrics,
            default_record_settings=lambda tenant: record_settings(
                self._limits_for(tenant), partitions=len(self._watcher.ring.active_partitions)
            ),
            metadata_limits=self._metadata_limits,
            groups=self._groups,
            group_label=lambda tenant: self._limits_for(tenant).separate_metrics_group_label,
            max_exemplars=lambda tenant: partition_share(
                self._limits_for(tenant).max_global_exemplars_per_user, len(self._watcher.ring.active_partitions)
            ),
            trackers_of=self._trackers_of,
            shard_of=self._shards() if self._settings.ingester.track_ingester_owned_series else None,
            **wiring.ingester_options(self._settings),
        )
        self._owned = lambda: ingester.owned
        limits = wiring.ingester_limits(self._settings, self._runtime)
        self._limiter = LocalLimiter(ingester, limits, IngesterLimitMetrics.create(self._registry))
        return ingester

    def _metadata_limits(self, tenant: str) -> MetadataLimits:
        """Return how much metadata the partitions owned here keep; all of one family is in one partition."""
        limits = self._limits_for(tenant)
        active = self._shard(tenant, limits.ingestion_partitions_tenant_shard_size).active_partitions
        share = partition_share(limits.max_global_metadata_per_user, len(active))
        share *= max(len(self._owned() & frozenset(active)), 1)
        return MetadataLimits(share, limits.max_global_metadata_per_metric)

    def distributor_instance(self, port: int) -> InstanceLifecycler:
        ring = self._settings.distributor.ring
        address = ring_wiring.instance_address(self._settings, ring, port)
        return self._instance(
            InstanceDesc("distributor", self._identity.distributor, address=address),
            ring.heartbeat_period.seconds,
            forget_after_ms=ring.auto_forget_unhealthy_periods * ring.heartbeat_timeout.ms,
        )

    def _instance(self, me: InstanceDesc, heartbeat_period_s: float, *, forget_after_ms: int = 0) -> InstanceLifecycler:
        return InstanceLifecycler(
            self._watcher,
            me,
            heartbeat_period_s=heartbeat_period_s,
            forget_after_ms=forget_after_ms,
            now_ms=now_ms,
            on_heartbeat=lambda reached: self._lifecycler_metrics.heartbeat(me.ring, reached),
        )

    def membership(self, ingester: Ingester, storage: _Storage, internal_port: int) -> tuple[Membership, Downscale]:
        settings, watcher, me = self._settings, self._watcher, self._identity.ingester
        ring = settings.ingester.ring
        knobs = ring_wiring.ownership_knobs(settings, me, ring_wiring.own_partition(settings, me))
        ownership = Ownership(
            watcher,
            ingester,
            storage.log,
            storage.drains,
            knobs=knobs,
            now_ms=now_ms,
        )
        downscale = Downscale(
            watcher,
            ShutdownMarker(Path(settings.blocks_storage.tsdb.dir)),
            storage.drains,
            knobs=knobs,
            fenced=ownership.fenced,
            unregister_by_default=ring.unregister_on_shutdown,
            requested=self._ingester_metrics.prepare_shutdown_requested,
            now_ms=now_ms,
        )
        address = ring_wiring.instance_address(settings, ring, internal_port)
        instance = InstanceDesc("ingester", me, address=address, zone=ring.instance_availability_zone)
        membership = Membership(
            me,
            watcher,
            ingester,
            instance=self._instance(instance, ring.heartbeat_period.seconds),
            lifecycler=PartitionLifecycler(
                watcher,
                me,
                own=ownership.own,
                needed=ownership.needed,
                knobs=ring_wiring.lifecycle_knobs(settings),
                now_ms=now_ms,
                on_reconcile=self._lifecycler_metrics.reconciled,
            ),
            ownership=ownership,
            downscale=downscale,
            flush_on_shutdown=settings.blocks_storage.tsdb.flush_blocks_on_shutdown,
        )
        return membership, downscale

    def _shards(self) -> Callable[[str], PartitionRing]:
        shards = ring_wiring.write_shards(self._watcher)
        return lambda tenant: shards(tenant, self._shard_size_of(tenant))

    def ingester_client(self) -> IngesterClient:
        grpc_client = self._settings.ingester_client.grpc_client_config
        return IngesterClient(
            IngesterClientMetrics.create(self._registry),
            tls=client_tls(grpc_client),
            server_name=grpc_client.tls_server_name,
        )

    def all_ingesters(self, client: IngesterClient, ingester: Ingester | None) -> AllIngesters:
        return AllIngesters(
            lambda: self._watcher.desc,
            client,
            local_id=self._identity.ingester,
            local=LocalOwner(ingester) if ingester else None,
            heartbeat_timeout_ms=self._settings.ingester.ring.heartbeat_timeout.ms,
            now_ms=now_ms,
        )

    def querier(self, storage: _Storage, ingester: Ingester | None, client: IngesterClient) -> Querier:
        settings = self._settings
        ring = RingView(
            self._watcher,
            shard_size_of=self._shard_size_of,
            lookback_ms=ring_wiring.read_lookback_ms(settings),
            heartbeat_timeout_ms=settings.ingester.ring.heartbeat_timeout.ms,
            preferred_zones=ring_wiring.preferred_zones(settings),
            now_ms=now_ms,
        )
        checkpoints = CheckpointCuts(storage.bucket, lambda: storage.log.topic_id)
        topic = ring_wiring.topic(settings.ingest_storage)
        demands = Demands(
            ring,
            storage.log,
            topic=topic,
            checkpoints=checkpoints,
            drains=storage.drains,
            metrics=self._strong_reads,
            lookups=OffsetLookupMetrics.create(self._registry, topic=topic),
        )
        heads = PartitionOwners(
            ring,
            client,
            local_id=self._identity.ingester,
            local=LocalOwner(ingester) if ingester else None,
            demands=demands,
            checkpoints=checkpoints,
            drains=storage.drains,
            hedge_s=ring_wiring.hedging_delay_s(settings),
            metrics=HeadReadMetrics.create(self._registry),
        )
        return Querier(
            heads=heads,
            catalog=storage.catalog,
            limits=wiring.query_limits(settings),
            max_concurrent=settings.querier.max_concurrent,
            block_list_max_age_s=BLOCK_LIST_MAX_AGE_S,
        )
