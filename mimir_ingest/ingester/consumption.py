"""What a consumer tells the metrics. Nothing is decided here."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from mimir_ingest.errors import IngestError
from mimir_ingest.ingester.ingestion_rates import IngestionRates
from mimir_ingest.ingester.metadata import TakenMetadata
from mimir_ingest.ingester.partition import Applied, PartitionState
from mimir_ingest.kernels.head import (
    ACCEPTED,
    ACCEPTED_LATE,
    BEHIND_BUCKETS,
    BEHIND_MS,
    INVALID_HISTOGRAM,
    METRIC_SERIES_LIMIT,
    NEW_VALUE,
    OUT_OF_ORDER,
    SERIES_LIMIT,
    TIMESTAMP_TOO_OLD,
    TOO_FAR_IN_FUTURE,
    TOO_OLD,
)
from mimir_ingest.log.contract import Record
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.obs.metrics import IngesterMetrics
from mimir_ingest.obs.tenant_metrics import MetricGroups, forget_tenants

REASONS = {
    TIMESTAMP_TOO_OLD: "sample-timestamp-too-old",
    OUT_OF_ORDER: "sample-out-of-order",
    TOO_OLD: "sample-too-old",
    NEW_VALUE: "new-value-for-timestamp",
    TOO_FAR_IN_FUTURE: "sample-too-far-in-future",
    SERIES_LIMIT: "per_user_series_limit",
    METRIC_SERIES_LIMIT: "per_metric_series_limit",
    INVALID_HISTOGRAM: "invalid-native-histogram",
}
"""Outcome of a sample → Mimir's label `reason` (spec 9.2, 8.7)."""


class ConsumptionMetrics:
    """Translates events of consumers into metrics; one for all partitions, used on the event loop and in threads."""

    def __init__(
        self,
        metrics: IngesterMetrics,
        rates: IngestionRates,
        *,
        groups: MetricGroups | None = None,
        group_label: Callable[[str], str] = lambda _: "",
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """`group_label` names the label by which a tenant groups what is discarded; empty: none."""
        self._metrics = metrics
        self._rates = rates
        self._groups, self._group_label = groups or MetricGroups(0), group_label
        self._wall_s = wall_s
        self._cut_since_s: dict[int, float] = {}

    def received(self, records: Sequence[Record], *, starting: bool, waited_s: float) -> None:
        """A fetch came with these records."""
        self._metrics.records_batch_wait_duration_seconds.observe(waited_s)
        self._metrics.fetches.inc()
        self._metrics.records_per_fetch.observe(len(records))
        delay = self._wall_s() - records[-1].timestamp_ms / 1000
        self._metrics.receive_delay_seconds.labels("starting" if starting else "running").observe(max(0.0, delay))

    def consumed(self, records: Sequence[Record], *, seconds: float) -> None:
        """All records of a fetch can be queried."""
        self._metrics.records_batch_process_duration_seconds.observe(seconds)
        delay = self._wall_s() - records[-1].timestamp_ms / 1000
        self._metrics.receive_and_consume_delay_seconds.observe(max(0.0, delay))

    def applied(self, partition: int, state: PartitionState, applied: Applied, *, seconds: float) -> None:
        """Records were applied."""
        metrics = self._metrics
        metrics.requests.inc(applied.consumed)
        metrics.records_processing_time_seconds.observe(seconds)
        if applied.corrupt:
            metrics.requests_failed.labels("client").inc(len(applied.corrupt))
        if applied.missed:
            metrics.missed_records.inc(applied.missed)
        for tenant, counts in applied.outcomes.items():
            metrics.ingested_samples.labels(tenant).inc(int(counts[ACCEPTED]))
            if counts[ACCEPTED_LATE]:
                metrics.out_of_order_samples_appended.labels(tenant).inc(int(counts[ACCEPTED_LATE]))
            if counts[BEHIND_MS]:
                metrics.out_of_order_deltas.add(counts[BEHIND_BUCKETS:], int(counts[BEHIND_MS]))
            self._rates.add(partition, tenant, int(counts[ACCEPTED]), applied.rule_samples.get(tenant, 0))
        for tenant, batch, counts in applied.rejected:
            self._rejected(tenant, batch, counts)
        metrics.held_samples.labels(str(partition)).set(state.held_count)
        metrics.last_consumed_offset.labels(str(partition)).set(state.next_offset - 1)

    def _rejected(self, tenant: str, batch: WriteBatch, counts: np.ndarray) -> None:
        group = self._groups.of(tenant, batch.first_value(self._group_label(tenant)))
        rejected = {reason: int(counts[outcome]) for outcome, reason in REASONS.items() if counts[outcome]}
        for reason, count in rejected.items():
            self._metrics.discarded_samples.labels(tenant, group, reason).inc(count)
        self._metrics.ingested_samples_failures.labels(tenant).inc(sum(rejected.values()))

    def exemplars(self, count: int, taken: int) -> None:
        """Exemplars came, and some of them were taken."""
        self._metrics.ingested_exemplars.inc(taken)
        self._metrics.exemplars.appended.inc(taken)
        self._metrics.ingested_exemplars_failures.inc(count - taken)

    def metadata(self, tenant: str, result: TakenMetadata) -> None:
        """Metadata items were taken, or were over a limit."""
        self._metrics.ingested_metadata.labels(tenant).inc(result.taken)
        for reason, count in (
            ("per_user_metadata_limit", result.over_user),
            ("per_metric_metadata_limit", result.over_metric),
        ):
            if count:
                self._metrics.discarded_metadata.labels(tenant, reason).inc(count)
                self._metrics.ingested_metadata_failures.labels(tenant).inc(count)

    def missed(self, count: int) -> None:
        """The log has dropped records that were not consumed."""
        self._metrics.missed_records.inc(count)

    def failed(self, error: IngestError | None) -> None:
        """A step of a consumer failed and is tried again."""
        self._metrics.fetch_errors.inc()
        if error is None or error.blame == "server":
            self._metrics.requests_failed.labels("server").inc()

    def cut_begun(self, partition: int) -> None:
        """A cut point was reached."""
        self._metrics.shipping.compactions_triggered.inc()
        self._cut_since_s[partition] = self._wall_s()
        self._show_oldest_cut()

    def cut_failed(self) -> None:
        """An attempt to ship a cut failed."""
        self._metrics.shipping.compactions_failed.inc()
        self._metrics.shipping.upload_failures.inc()

    def cut_shipped(self, partition: int) -> None:
        """A cut is in the bucket."""
        took_s = self._wall_s() - self._cut_since_s[partition]
        self._metrics.shipping.compactions.inc()
        self._metrics.shipping.compaction_duration.observe(max(0.0, took_s))
        self.cut_ended(partition)

    def cut_ended(self, partition: int) -> None:
        """No cut of a partition is in flight any more: it is in the bucket, or was given up with the partition."""
        self._cut_since_s.pop(partition, None)
        self._show_oldest_cut()

    def _show_oldest_cut(self) -> None:
        self._metrics.shipping.oldest_unshipped_block.set(min(self._cut_since_s.values(), default=0))

    def uploaded(self) -> None:
        """A block was written to the bucket."""
        self._metrics.shipping.uploads.inc()
        self._metrics.shipping.last_successful_upload.set(self._wall_s())

    def committed(self, partition: int, next_offset: int, *, seconds: float) -> None:
        """A group offset was committed."""
        self._commit_tried(partition, seconds)
        self._metrics.last_committed_offset.labels(str(partition)).set(next_offset - 1)

    def commit_failed(self, partition: int, *, seconds: float) -> None:
        """A commit failed."""
        self._commit_tried(partition, seconds)
        self._metrics.offset_commit_failures.labels(str(partition)).inc()

    def _commit_tried(self, partition: int, seconds: float) -> None:
        self._metrics.offset_commit_requests.labels(str(partition)).inc()
        self._metrics.offset_commit_request_duration_seconds.labels(str(partition)).observe(seconds)

    def snapshot_written(self) -> None:
        """A snapshot is on disk."""
        self._metrics.shipping.snapshots.inc()

    def snapshot_failed(self) -> None:
        """A snapshot could not be written."""
        self._metrics.shipping.snapshot_failures.inc()

    def queried(self, series: int, samples: int) -> None:
        """A query was answered."""
        self._metrics.queries.inc()
        self._metrics.queried_series.observe(series)
        self._metrics.queried_samples.observe(samples)

    def queried_exemplars(self, exemplars: int) -> None:
        """A query for exemplars was answered."""
        self._metrics.queries.inc()
        self._metrics.queried_exemplars.observe(exemplars)

    def memory(
        self, *, series: int, tenants: int, metadata: int, created: dict[str, int], removed: dict[str, int]
    ) -> None:
        """What is in memory, and what came and went since the last call."""
        self._metrics.memory_series.set(series)
        self._metrics.memory_users.set(tenants)
        self._metrics.memory_metadata.set(metadata)
        for tenant, count in created.items():
            self._metrics.memory_series_created.labels(tenant).inc(count)
        for tenant, count in removed.items():
            self._metrics.memory_series_removed.labels(tenant).inc(count)

    def exemplars_held(self, held: Mapping[str, tuple[int, int, int]]) -> None:
        """What is in memory of exemplars: see `ExemplarMetrics.show`."""
        self._metrics.exemplars.show(held)

    def local_limit(self, tenant: str, max_series: int) -> None:
        """How many series of a tenant the partitions owned here take."""
        self._metrics.local_limits.labels("max_global_series_per_user", tenant).set(max_series)

    def forget(self, tenants: Collection[str]) -> None:
        """Nothing is held of these tenants any more."""
        self._groups.forget(tenants)
        forget_tenants(self._metrics, tenants)

    def head_bytes(self, partition: int, size: int) -> None:
        """Bytes that a partition's heads take."""
        self._metrics.head_bytes.labels(str(partition)).set(size)

    def let_go(self, partition: int) -> None:
        """A partition is not owned any more: gauges that tell its state go."""
        for gauge in (self._metrics.held_samples, self._metrics.head_bytes, self._metrics.last_consumed_offset):
            gauge.remove(str(partition))
        self._rates.forget(partition)
