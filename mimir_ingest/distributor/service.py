"""The distributor's shell: takes push requests, hands records to the log, waits for the log.

    admit (limits, before the body is read) ─► decompress ─► decode ─► plan ─► append to every partition at once
                                                                 └─ elected? ─┘   of tenants that send through replicas

Decisions are made in `plan`, protocols are in `formats`, the log's part is in `appends`; this module owns the clock and
the counters. Source: spec ingest-storage 8.2.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import structlog

from mimir_ingest.distributor.admission import Admission, InstanceLimits
from mimir_ingest.distributor.appends import RecordWriter
from mimir_ingest.distributor.counters import TenantCounters
from mimir_ingest.distributor.fence import fresh, may_acknowledge
from mimir_ingest.distributor.formats import RemoteWriteV1, WriteFormat
from mimir_ingest.distributor.ha_election import HaLimits
from mimir_ingest.distributor.ha_labels import earliest_sample_ms, find_sender, without_label
from mimir_ingest.distributor.ha_tracker import TOO_MANY_HA_CLUSTERS, HaTracker
from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.plan import PlannedWrite, plan_write
from mimir_ingest.distributor.rate_limit import RATE_LIMITED, RateLimiters
from mimir_ingest.distributor.relabel import Relabeller
from mimir_ingest.distributor.series_limits import OverLimits
from mimir_ingest.distributor.validate import shortened_text
from mimir_ingest.errors import IngestError, InvalidSeries, LimitExceeded, LogUnavailable
from mimir_ingest.log.contract import PartitionLog
from mimir_ingest.obs.metrics import DistributorMetrics, WriterMetrics
from mimir_ingest.obs.tenant_metrics import MetricGroups, forget_tenants
from mimir_ingest.wire.data_points import DataPoints
from mimir_ingest.wire.record import VERSION_COLUMNAR
from mimir_ingest.wire.remote_write_v1 import DecodedWrite
from partitions.errors import NoActivePartition
from partitions.ring import PartitionRing

INLINE_BODY_BYTES = 8192
"""Smaller bodies are handled on the event loop. why: 8 KiB of snappy are some 200 series of 250 bytes, about 0.3 ms of
work; a hop to a thread and back costs 0.1 ms, and more when the loop is busy."""

IDLE_TENANT_S = 900.0
"""why: as long as Mimir keeps the metrics of a tenant that sends nothing."""

_UPKEEP_S = 180.0

_log = structlog.get_logger()
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributorOptions:
    """Settings of the process, in the units of the names; defaults are Mimir's."""

    max_recv_msg_size: int = 100 << 20
    """Bytes of a push body, compressed and decompressed."""
    remote_timeout_s: float = 2.0
    """How long a request waits for the log."""
    write_timeout_s: float = 10.0
    """How long the log may go on trying (`ingest_storage.kafka.write_timeout`)."""
    record_version: int = VERSION_COLUMNAR
    max_record_bytes: int = 15_983_616
    """Data of one record (`ingest_storage.kafka.producer_max_record_size_bytes`)."""
    skip_label_name_validation_header: bool = False
    """`api.skip_label_name_validation_header_enabled`: whether the header counts."""
    skip_label_count_validation_header: bool = False


@dataclass(frozen=True, slots=True)
class PushResult:
    """A request that the log has taken, as far as it was valid."""

    offsets: dict[int, int]
    """Offset of the request's last record in each partition; empty when nothing was written."""
    samples: int
    """Float samples in the log."""
    error: InvalidSeries | None
    """The first broken validation rule; the rest of the request is in the log."""
    histograms: int = 0
    """Native histograms in the log."""
    exemplars: int = 0
    """Exemplars in the log."""
    data_points: DataPoints | None = None
    """OTLP's data points, as received."""
    refused_points: int = 0
    """Those of them that are not, or not wholly, in the log."""
    written: tuple[int, int, int] = (0, 0, 0)
    """Float samples, native histograms and exemplars of the request that were stored or dropped on purpose: all but
    those of series that broke a rule or a limit."""


class Distributor:
    """Push requests of all tenants of this process. Used from one event loop; the log is not owned.

    Parameters
    ----------
    log : PartitionLog
        Started by the caller, closed after `close`.
    ring : () -> PartitionRing
        The current view; asked once a request, and again before an acknowledgement that took long.
    shard : (tenant, number of partitions) -> PartitionRing, optional
        The part of the current view that a tenant's data goes to; None: all of it, for every tenant.
    ring_confirmed_s : () -> float, optional
        When that view was last known to be the newest (by `monotonic_s`); None for a ring that never changes. See
        `fence`.
    limits_for : str -> DistributorLimits
        A tenant's limits; asked once a request.
    instance_limits : () -> InstanceLimits
        The process's limits that are in force.
    over_limits : OverLimits, optional
        What the ingester of the same process says of series limits.
    groups : MetricGroups, optional
        Groups of the discard counters; shared with an ingester of the same process.
    distributors : () -> int
        Number of healthy distributors, by which tenants' rates are divided.
    ha_tracker : HaTracker, optional
        Started by the caller; None takes the samples of every replica.
    now_ms, monotonic_s
        Clocks.
    """

    def __init__(
        self,
        log: PartitionLog,
        *,
        ring: Callable[[], PartitionRing],
        shard: Callable[[str, int], PartitionRing] | None = None,
        ring_confirmed_s: Callable[[], float] | None = None,
        limits_for: Callable[[str], DistributorLimits],
        metrics: DistributorMetrics,
        writer_metrics: WriterMetrics,
        options: DistributorOptions | None = None,
        instance_limits: Callable[[], InstanceLimits] = InstanceLimits,
        over_limits: OverLimits | None = None,
        groups: MetricGroups | None = None,
        distributors: Callable[[], int] = lambda: 1,
        ha_tracker: HaTracker | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options or DistributorOptions()
        self.limiters = RateLimiters(distributors=distributors)
        self.admission = Admission(instance_limits, metrics, monotonic_s=monotonic_s)
        self._over_limits = over_limits
        self._remote_write_v1 = RemoteWriteV1(self.options.max_recv_msg_size)
        self.state = "New"
        """State of the service, in Mimir's words."""
        self._ring, self._limits_for, self._metrics = ring, limits_for, metrics
        self._ha_tracker = ha_tracker
        self._shard = shard or (lambda tenant, size: ring())
        self._writer = RecordWriter(
            log,
            writer_metrics,
            version=self.options.record_version,
            max_record_bytes=self.options.max_record_bytes,
            remote_timeout_s=self.options.remote_timeout_s,
            write_timeout_s=self.options.write_timeout_s,
            monotonic_s=monotonic_s,
        )
        self._now_ms, self._monotonic_s = now_ms, monotonic_s
        self._ring_confirmed_s = ring_confirmed_s or monotonic_s
        self._counters: dict[str, TenantCounters] = {}
        self._groups = groups or MetricGroups(1000)
        self._relabeller = Relabeller()
        self._upkeep_task: asyncio.Task[None] | None = None
        self._pool: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        """Begin to take requests."""
        self._pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="distributor")
        self._upkeep_task = asyncio.create_task(self._upkeep(), name="distributor-upkeep")
        self._metrics.ingest_storage_enabled.set(1)
        self.state = "Running"

    async def close(self) -> None:
        """Refuse new requests and wait until every append has ended, at most `write_timeout_s`. Idempotent."""
        if self.state == "Terminated":
            return
        self.state = "Stopping"
        if self._upkeep_task is not None:
            self._upkeep_task.cancel()
            await asyncio.wait([self._upkeep_task])
        await self._writer.drain()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self.state = "Terminated"

    def admit(self, tenant: str, content_length: int | None, written: WriteFormat | None = None) -> Push:
        """Begin a request before its body is read; `content_length` is the announced size in bytes.

        `written` is the request's protocol; without it, remote write 1.0.

        Raises
        ------
        LimitExceeded
            A limit of this process (500), or the tenant's request rate (429).
        RequestTooLarge
            The announced size is over the limit.
        IngestError
            The service is not running (500).
        """
        if self.state != "Running":
            raise IngestError(f"distributor is unavailable (current state: {self.state})", error_id="not-running")
        push = Push(self, tenant, written or self._remote_write_v1)
        if content_length is not None:
            push.written.check_size(content_length, compressed=True)
        self.admission.enter()
        try:
            push.add_bytes(content_length or 0)
            limits = self._limits_for(tenant)
            self.limiters.take_request(tenant, limits, now_s=self._monotonic_s())
        except LimitExceeded as error:
            self.admission.leave(push.size)
            if error.http_status == 429:
                self.counters(tenant)  # why: what is counted of a tenant goes with its counters
                self._metrics.discarded_requests.labels(tenant, RATE_LIMITED).inc()
            raise
        push.limits = limits
        return push

    def counters(self, tenant: str) -> TenantCounters:
        """Return the tenant's counters, made on first use."""
        found = self._counters.get(tenant)
        if found is None:
            found = self._counters[tenant] = TenantCounters.create(self._metrics, tenant, self._groups)
        found.seen_s = self._monotonic_s()
        return found

    def forget_idle(self) -> None:
        """Drop buckets that are full again, and all that is kept of tenants that sent nothing for `IDLE_TENANT_S`."""
        now_s = self._monotonic_s()
        self.limiters.forget_full(now_s=now_s)
        gone = {tenant for tenant, counters in self._counters.items() if now_s - counters.seen_s >= IDLE_TENANT_S}
        if gone:
            for tenant in gone:
                del self._counters[tenant]
            self._relabeller.forget(gone)
            self._groups.forget(gone)
            forget_tenants(self._metrics, gone)

    async def _upkeep(self) -> None:
        while True:
            await asyncio.sleep(_UPKEEP_S)
            self.forget_idle()

    async def write(
        self,
        tenant: str,
        limits: DistributorLimits,
        body: bytes,
        written: WriteFormat,
        *,
        skip_label_names: bool = False,
        skip_label_count: bool = False,
        add_bytes: Callable[[int], None] = lambda _: None,
    ) -> PushResult:
        """Store a request's body; see `Push.run`. `add_bytes` is told the decompressed size."""
        counters = self.counters(tenant)
        options = self.options
        written.check_size(len(body), compressed=True)
        size = written.decoded_size(body)
        written.check_size(size, compressed=False)
        add_bytes(size)
        confirmed_s = self._ring_confirmed_s()  # before the view, which then is at least as new
        ring = self._shard(tenant, limits.ingestion_partitions_tenant_shard_size)
        now_ms, now_s = self._now_ms(), self._monotonic_s()
        if not fresh(confirmed_s, now_s):
            raise _stale_ring(confirmed_s, now_s)
        max_record_bytes = self._writer.max_record_bytes

        def read() -> DecodedWrite:
            write = written.decode(body)
            counters.count_in(write, written, compressed=len(body), decompressed=size)
            return write

        def plan(write: DecodedWrite, replica_label: bytes | None) -> tuple[PlannedWrite, tuple[int, int, int]]:
            received = _counts(write)
            if replica_label is not None:
                write = without_label(write, replica_label)
            write = self._relabeller.relabel(write, tenant, limits.relabelling)
            planned = plan_write(
                write,
                tenant,
                limits,
                ring=ring,
                take_items=lambda items: self.limiters.take_items(tenant, items, limits, now_s=now_s),
                now_ms=now_ms,
                version=options.record_version,
                max_record_bytes=max_record_bytes,
                skip_label_names=skip_label_names and options.skip_label_name_validation_header,
                skip_label_count=skip_label_count and options.skip_label_count_validation_header,
                over_limits=self._over_limits,
            )
            return planned, received

        try:
            inline = len(body) <= INLINE_BODY_BYTES and size <= 16 * INLINE_BODY_BYTES
            if self._over_limits is not None and limits.max_global_series_per_metric:
                inline = False  # why: the head is asked at every push then, and may be busy or have to count first
            if limits.ha is None:
                planned, received = await self._work(inline, lambda: plan(read(), None))
            else:
                write = await self._work(inline, read)
                is_replicas = await self._admit_replica(write, tenant, limits, limits.ha)
                label = limits.ha.replica_label if is_replicas else None
                planned, received = await self._work(inline, lambda: plan(write, label))
        except NoActivePartition as error:
            raise LogUnavailable(f"send data to partitions: {error}", error_id=error.error_id) from error
        counters.count_planned(planned, now_ms=now_ms)
        if planned.rejected:
            raise planned.rejected
        if planned.shortened:
            strategy = limits.label_value_length_over_limit_strategy
            _log.warning(shortened_text(strategy), user=tenant, series=planned.shortened)
        if not planned.records:
            return _result(planned, {}, received)
        self.admission.count_items(planned.samples + planned.histograms + planned.exemplars + planned.metadata)
        offsets = await self._writer.append(tenant.encode(), planned.records, split_at=max_record_bytes)
        self._check_fence(offsets, confirmed_s)
        return _result(planned, offsets, received)

    async def _work(self, inline: bool, run: Callable[[], Result]) -> Result:
        """Run here, or in a thread."""
        return run() if inline else await asyncio.get_running_loop().run_in_executor(self._pool, run)

    async def _admit_replica(self, write: DecodedWrite, tenant: str, limits: DistributorLimits, ha: HaLimits) -> bool:
        """Tell whether a replica sent the request, whose label then goes. Raises what `HaTracker.admit` raises."""
        if not write.batch.series_count:
            return False
        counts = _counts(write)
        sender = find_sender(write.batch, ha, max_value_bytes=limits.max_label_value_length)
        if sender is None:
            self._metrics.non_ha_samples_received.labels(tenant).inc(counts[0] + counts[1])
            return False
        if self._ha_tracker is not None:
            sample_ms = earliest_sample_ms(write.batch) if ha.sample_failover_timeout_ms else None
            try:
                await self._ha_tracker.admit(tenant, sender, ha, counts=counts, sample_ms=sample_ms)
            except LimitExceeded:
                group = self._groups.of(tenant, write.batch.first_value(limits.separate_metrics_group_label))
                self._metrics.discarded_samples.labels(tenant, group, TOO_MANY_HA_CLUSTERS).inc(counts[0] + counts[1])
                raise
        return True

    def _check_fence(self, partitions: Iterable[int], routed_confirmed_s: float) -> None:
        """Refuse to acknowledge records whose partitions may be gone. Raises LogUnavailable."""
        confirmed_s, ring, now_s = self._ring_confirmed_s(), self._ring(), self._monotonic_s()
        if not may_acknowledge(
            partitions,
            routed_confirmed_s=routed_confirmed_s,
            active=ring.active_partitions,
            confirmed_s=confirmed_s,
            now_s=now_s,
        ):
            raise _stale_ring(confirmed_s, now_s)


def _counts(write: DecodedWrite) -> tuple[int, int, int]:
    """Return how many float samples, native histograms and exemplars a request has."""
    return write.batch.sample_count, write.histogram_count, write.exemplar_count


def _result(planned: PlannedWrite, offsets: dict[int, int], received: tuple[int, int, int]) -> PushResult:
    return PushResult(
        offsets,
        planned.samples,
        planned.invalid,
        planned.histograms,
        planned.exemplars,
        planned.data_points,
        planned.refused_points,
        tuple(came - refused for came, refused in zip(received, planned.rejected_items, strict=True)),
    )


def _stale_ring(confirmed_s: float, now_s: float) -> LogUnavailable:
    return LogUnavailable(
        f"send data to partitions: the ring of partitions was last confirmed {now_s - confirmed_s:.0f} s ago, so they "
        "may have changed; the request is not acknowledged",
        error_id="partition-ring-stale",
    )


class Push:
    """One admitted request. A context manager: leaving it gives back what it was counted for."""

    __slots__ = ("_distributor", "limits", "size", "tenant", "written")

    def __init__(self, distributor: Distributor, tenant: str, written: WriteFormat) -> None:
        self._distributor = distributor
        self.tenant = tenant
        self.written = written
        self.limits = DistributorLimits()
        self.size = 0
        """Bytes counted against the limit of inflight bytes."""

    def add_bytes(self, size: int) -> None:
        """Count bytes that the request holds in memory. Raises LimitExceeded."""
        self._distributor.admission.add_bytes(size)
        self.size += size

    async def run(self, body: bytes, *, skip_label_names: bool = False, skip_label_count: bool = False) -> PushResult:
        """Store the request's body, and return once the log has it.

        `skip_label_names` and `skip_label_count` say that the request carries the header of that meaning. When
        cancelled, records already handed to the log may still be stored.

        Raises
        ------
        InvalidRequest, RequestTooLarge
            The body cannot be read, or is too large.
        LimitExceeded
            The tenant's ingestion rate (429) or clusters of replicas (400); bytes in flight (500), or what the ingester
            of this process holds (503).
        ReplicasDidNotMatch, ElectionUnavailable
            It comes from a replica that is not elected, or nobody could be elected.
        LogUnavailable, RecordTooLarge
            The log did not take it, or not in time; parts of it may be stored.
        """
        return await self._distributor.write(
            self.tenant,
            self.limits,
            body,
            self.written,
            skip_label_names=skip_label_names,
            skip_label_count=skip_label_count,
            add_bytes=self.add_bytes,
        )

    def __enter__(self) -> Push:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._distributor.admission.leave(self.size)
