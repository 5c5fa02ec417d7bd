"""The distributor's shell: takes push requests, hands records to the log, waits for the log.

    admit (limits, before the body is read) ─► decompress ─► decode ─► plan ─► append to every partition at once

Decisions are made in `plan`; this module owns the tasks, the clock and the counters. Appends are detached from the
request: when the sender goes away or `remote_timeout_s` passes they go on, and are bounded by `write_timeout_s` and the
log's own buffer. Source: spec ingest-storage 2.2, 2.3, 2.5, 8.2.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import structlog

from mimir_ingest.distributor.admission import Admission, InstanceLimits
from mimir_ingest.distributor.counters import TenantCounters
from mimir_ingest.distributor.fence import fresh, may_acknowledge
from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.messages import with_id
from mimir_ingest.distributor.plan import PlannedWrite, plan_write
from mimir_ingest.distributor.rate_limit import RATE_LIMITED, RateLimiters
from mimir_ingest.errors import IngestError, InvalidSeries, LimitExceeded, LogError, LogUnavailable, RecordTooLarge
from mimir_ingest.log.contract import PartitionLog
from mimir_ingest.obs.metrics import DistributorMetrics, WriterMetrics
from mimir_ingest.wire import remote_write_v1, snappy
from mimir_ingest.wire.record import VERSION_COLUMNAR
from partitions.errors import NoActivePartition
from partitions.ring import PartitionRing

INLINE_BODY_BYTES = 8192
"""Smaller bodies are handled on the event loop. why: 8 KiB of snappy are some 200 series of 250 bytes, about 0.3 ms of
work; a hop to a thread and back costs 0.1 ms, and more when the loop is busy."""

_log = structlog.get_logger()


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
    """Samples in the log."""
    error: InvalidSeries | None
    """The first broken validation rule; the rest of the request is in the log."""


class Distributor:
    """Push requests of all tenants of this process. Used from one event loop; the log is not owned.

    Parameters
    ----------
    log : PartitionLog
        Started by the caller, closed after `close`.
    ring : () -> PartitionRing
        The current view; asked once a request, and again before an acknowledgement that took long.
    ring_confirmed_s : () -> float, optional
        When that view was last known to be the newest (by `monotonic_s`); None for a ring that never changes. See
        `fence`.
    limits_for : str -> DistributorLimits
        A tenant's limits; asked once a request.
    distributors : () -> int
        Number of healthy distributors, by which tenants' rates are divided.
    now_ms, monotonic_s
        Clocks.
    """

    def __init__(
        self,
        log: PartitionLog,
        *,
        ring: Callable[[], PartitionRing],
        ring_confirmed_s: Callable[[], float] | None = None,
        limits_for: Callable[[str], DistributorLimits],
        metrics: DistributorMetrics,
        writer_metrics: WriterMetrics,
        options: DistributorOptions | None = None,
        instance_limits: InstanceLimits | None = None,
        distributors: Callable[[], int] = lambda: 1,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options or DistributorOptions()
        self.limiters = RateLimiters(distributors=distributors)
        self.admission = Admission(instance_limits or InstanceLimits(), metrics, monotonic_s=monotonic_s)
        self.state = "New"
        """State of the service, in Mimir's words."""
        self._log, self._ring, self._limits_for = log, ring, limits_for
        self._metrics, self._writer = metrics, writer_metrics
        self._now_ms, self._monotonic_s = now_ms, monotonic_s
        self._ring_confirmed_s = ring_confirmed_s or monotonic_s
        self._counters: dict[str, TenantCounters] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._appends: set[asyncio.Task[int]] = set()

    async def start(self) -> None:
        """Begin to take requests."""
        self._pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="distributor")
        self._metrics.ingest_storage_enabled.set(1)
        self.state = "Running"

    async def close(self) -> None:
        """Refuse new requests and wait until every append has ended, at most `write_timeout_s`. Idempotent."""
        if self.state == "Terminated":
            return
        self.state = "Stopping"
        if self._appends:
            await asyncio.wait(self._appends, timeout=self.options.write_timeout_s)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self.state = "Terminated"

    def admit(self, tenant: str, content_length: int | None) -> Push:
        """Begin a request before its body is read; `content_length` is the announced size in bytes.

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
        push = Push(self, tenant)
        if content_length is not None:
            snappy.check_size(content_length, max_bytes=self.options.max_recv_msg_size, compressed=True)
        self.admission.enter()
        try:
            push.add_bytes(content_length or 0)
            limits = self._limits_for(tenant)
            self.limiters.take_request(tenant, limits, now_s=self._monotonic_s())
        except LimitExceeded as error:
            self.admission.leave(push.size)
            if error.http_status == 429:
                self._metrics.discarded_requests.labels(tenant, RATE_LIMITED).inc()
            raise
        push.limits = limits
        return push

    def counters(self, tenant: str) -> TenantCounters:
        """Return the tenant's counters, made on first use."""
        found = self._counters.get(tenant)
        if found is None:
            found = self._counters[tenant] = TenantCounters.create(self._metrics, tenant)
        return found

    async def write(
        self,
        tenant: str,
        limits: DistributorLimits,
        body: bytes,
        *,
        skip_label_names: bool = False,
        skip_label_count: bool = False,
        add_bytes: Callable[[int], None] = lambda _: None,
    ) -> PushResult:
        """Store a compressed remote write 1.0 request; see `Push.run`. `add_bytes` is told the decompressed size."""
        counters = self.counters(tenant)
        options = self.options
        snappy.check_size(len(body), max_bytes=options.max_recv_msg_size, compressed=True)
        size = snappy.decoded_length(body)
        snappy.check_size(size, max_bytes=options.max_recv_msg_size, compressed=False)
        add_bytes(size)
        confirmed_s, ring = self._ring_confirmed_s(), self._ring()  # in this order: the view is at least as new
        now_ms, now_s = self._now_ms(), self._monotonic_s()
        if not fresh(confirmed_s, now_s):
            raise _stale_ring(confirmed_s, now_s)
        max_record_bytes = self._max_record_bytes()

        def work() -> PlannedWrite:
            write = remote_write_v1.decode(snappy.decompress(body, max_bytes=options.max_recv_msg_size))
            counters.count_in(write, compressed=len(body), decompressed=size)
            return plan_write(
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
            )

        try:
            if len(body) <= INLINE_BODY_BYTES and size <= 16 * INLINE_BODY_BYTES:
                planned = work()
            else:
                planned = await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except NoActivePartition as error:
            raise LogUnavailable(f"send data to partitions: {error}", error_id=error.error_id) from error
        counters.count_planned(planned, now_ms=now_ms)
        if planned.rejected:
            raise planned.rejected
        if planned.shortened:
            _log.warning(
                "label values over the limit were shortened",
                user=tenant,
                series=planned.shortened,
                strategy=limits.label_value_length_over_limit_strategy,
            )
        if not planned.records:
            return PushResult({}, 0, planned.invalid)
        self.admission.count_items(planned.samples + planned.metadata)
        offsets = await self._append(tenant, planned, max_record_bytes)
        self._check_fence(offsets, confirmed_s)
        return PushResult(offsets, planned.samples, planned.invalid)

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

    def _max_record_bytes(self) -> int:
        """Return the size that records are split at: the setting, or what the log takes if that is less."""
        return min(self.options.max_record_bytes, self._log.max_record_bytes)

    async def _append(self, tenant: str, planned: PlannedWrite, max_record_bytes: int) -> dict[int, int]:
        """Append all records at once, split at `max_record_bytes`; return the last offset of each partition.

        Raises LogError.
        """
        key = tenant.encode()
        started_s = self._monotonic_s()
        tasks = [self._start_append(partition, key, value) for partition, value in planned.records]
        self._writer.records_per_write_request.observe(len(tasks))
        done, waiting = await asyncio.wait(
            tasks, timeout=self.options.remote_timeout_s, return_when=asyncio.FIRST_EXCEPTION
        )
        partitions = [partition for partition, _ in planned.records]
        failed = [(p, task.exception()) for p, task in zip(partitions, tasks, strict=True) if task in done]
        failed = [(p, error) for p, error in failed if error is not None]
        self._writer.latency_seconds.labels("failure" if failed or waiting else "success").observe(
            self._monotonic_s() - started_s
        )
        if failed:
            # A server error wins, so that the sender tries again and the rest gets another chance.
            partition, error = min(failed, key=lambda f: isinstance(f[1], RecordTooLarge))
            raise self._backend_error(partition, error, splits=self._max_record_bytes() < max_record_bytes)
        if waiting:
            partition = next(p for p, task in zip(partitions, tasks, strict=True) if task in waiting)
            raise LogUnavailable(
                "send data to partitions: exceeded configured distributor remote timeout: "
                f"failed pushing to partition {partition}: context deadline exceeded",
                error_id="remote-timeout",
            )
        offsets: dict[int, int] = {}
        for partition, task in zip(partitions, tasks, strict=True):
            offsets[partition] = max(offsets.get(partition, -1), task.result())
        return offsets

    def _start_append(self, partition: int, key: bytes, value: bytes) -> asyncio.Task[int]:
        options, writer = self.options, self._writer
        writer.produce_records_enqueued.inc()
        writer.input_bytes.inc(len(value))
        task = asyncio.ensure_future(
            self._log.append(partition, key, value, options.record_version, timeout_s=options.write_timeout_s)
        )
        self._appends.add(task)

        def ended(task: asyncio.Task[int]) -> None:
            self._appends.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is None and not task.cancelled():
                writer.sent_bytes.inc(len(value))
                return
            writer.produce_records_failed.labels(_failure_reason(error)).inc()

        task.add_done_callback(ended)
        return task

    def _backend_error(self, partition: int, error: BaseException, *, splits: bool) -> BaseException:
        """Return the error that the sender gets for one partition's failure.

        `splits`: the log takes smaller records than it did when these were made, so the request's next try differs.
        """
        where = f"send data to partitions: failed pushing to partition {partition}: "
        if isinstance(error, RecordTooLarge) and splits:
            return LogUnavailable(
                f"{where}{error}; the next try is split into smaller records", error_id=error.error_id
            )
        if isinstance(error, RecordTooLarge):
            text = (
                "the write request contains a timeseries or metadata item which is larger that the maximum allowed "
                f"size of {self._max_record_bytes()} bytes"
            )
            return RecordTooLarge(where + with_id(text, error.error_id))
        if isinstance(error, LogError):
            return LogUnavailable(f"{where}{error}", error_id=error.error_id)
        return error


def _stale_ring(confirmed_s: float, now_s: float) -> LogUnavailable:
    return LogUnavailable(
        f"send data to partitions: the ring of partitions was last confirmed {now_s - confirmed_s:.0f} s ago, so they "
        "may have changed; the request is not acknowledged",
        error_id="partition-ring-stale",
    )


def _failure_reason(error: BaseException | None) -> str:
    """Return the `reason` label of a record that the log did not take."""
    if error is None:
        return "canceled"
    if isinstance(error, RecordTooLarge):
        return "record-too-large"
    return "timeout" if isinstance(error, LogUnavailable) else "other"


class Push:
    """One admitted request. A context manager: leaving it gives back what it was counted for."""

    __slots__ = ("_distributor", "limits", "size", "tenant")

    def __init__(self, distributor: Distributor, tenant: str) -> None:
        self._distributor = distributor
        self.tenant = tenant
        self.limits = DistributorLimits()
        self.size = 0
        """Bytes counted against the limit of inflight bytes."""

    def add_bytes(self, size: int) -> None:
        """Count bytes that the request holds in memory. Raises LimitExceeded."""
        self._distributor.admission.add_bytes(size)
        self.size += size

    async def run(self, body: bytes, *, skip_label_names: bool = False, skip_label_count: bool = False) -> PushResult:
        """Store a compressed remote write 1.0 request, and return once the log has it.

        `skip_label_names` and `skip_label_count` say that the request carries the header of that meaning. When
        cancelled, records already handed to the log may still be stored.

        Raises
        ------
        InvalidRequest, RequestTooLarge
            The body cannot be read, or is too large.
        LimitExceeded
            The tenant's ingestion rate (429), or bytes in flight (500).
        LogUnavailable, RecordTooLarge
            The log did not take it, or not in time; parts of it may be stored.
        """
        return await self._distributor.write(
            self.tenant,
            self.limits,
            body,
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
