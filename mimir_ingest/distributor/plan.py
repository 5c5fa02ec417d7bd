"""A decoded write request to records, in one synchronous step that may run on any thread. Pure.

    validate ─► rate limit ─► route ─► series limits ─► encode

The order is Mimir's (spec: ingest storage 8.2): limits count what is valid, and a request with nothing valid left takes
nothing from a bucket and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from mimir_ingest.distributor.exemplars import validate_exemplars
from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.metadata import validate_metadata
from mimir_ingest.distributor.records import encode_records
from mimir_ingest.distributor.route import route
from mimir_ingest.distributor.series_limits import OverLimits, WithinLimits, refuse_over_limits
from mimir_ingest.distributor.validate import validate_series
from mimir_ingest.errors import InvalidSeries, LimitExceeded
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.wire.data_points import DataPoints
from mimir_ingest.wire.record import RecordSettings
from mimir_ingest.wire.remote_write_v1 import DecodedWrite
from partitions.ring import PartitionRing


@dataclass(frozen=True, slots=True)
class PlannedWrite:
    """What is to be appended, and what the sender is told if that succeeds."""

    records: tuple[tuple[int, bytes], ...]
    """(partition, value), partitions ascending, a partition's records in the order of the request."""
    samples: int
    """Float samples in them; where the rate limit refuses all, those that were valid. So with what follows."""
    histograms: int
    """Native histograms."""
    histogram_buckets: int
    """Buckets of them."""
    metadata: int
    """Metadata items."""
    newest_ms: int | None
    """Largest valid timestamp."""
    invalid: InvalidSeries | None
    """The first broken validation rule, or the first limit that a series is over."""
    rejected: LimitExceeded | None
    """Set when the tenant's rate limit refuses the whole request; there are no records then."""
    discarded_samples: Mapping[str, int]
    """By reason."""
    discarded_metadata: Mapping[str, int]
    """By reason."""
    shortened: int
    """Series with shortened label values."""
    dropped_histograms: int
    """Valid native histograms of a tenant that stores none."""
    exemplars: int
    """Exemplars."""
    discarded_exemplars: Mapping[str, int]
    """By reason."""
    data_points: DataPoints | None
    """OTLP's data points, as received."""
    refused_points: int
    """Those of them that could not be converted, or of which a series broke a rule or a limit."""
    rejected_items: tuple[int, int, int]
    """Float samples, native histograms and exemplars of series that broke a rule or a limit."""
    group: str
    """Value of the label by which the tenant groups what is discarded; empty without one."""


def plan_write(
    write: DecodedWrite,
    tenant: str,
    limits: DistributorLimits,
    *,
    ring: PartitionRing,
    take_items: Callable[[int], None],
    now_ms: int,
    version: int,
    max_record_bytes: int,
    skip_label_names: bool,
    skip_label_count: bool,
    over_limits: OverLimits | None = None,
) -> PlannedWrite:
    """Decide what becomes of a request.

    Parameters
    ----------
    take_items : int -> None
        Takes that many items from the tenant's bucket; raises LimitExceeded.
    version : int
        Record version to write.
    max_record_bytes : int
        Larger requests become several records of a partition.
    skip_label_names, skip_label_count : bool
        Whether the client may skip these rules; it also has to ask for it in the body.
    over_limits : OverLimits, optional
        Tells which series are over the tenant's limits, as far as that is known here.

    Raises
    ------
    NoActivePartition
        There is something to write and nowhere to write it.
    LimitExceeded
        The ingester of this process holds as much as it may.
    """
    series = validate_series(
        write.batch,
        limits,
        now_ms=now_ms,
        skip_label_names=skip_label_names and write.skip_label_name_validation,
        skip_label_count=skip_label_count and write.skip_label_count_validation,
        histogram_facts=write.histogram_facts,
    )
    metadata = validate_metadata(series.batch.metadata, limits)
    batch, discarded_exemplars = validate_exemplars(series.batch, limits, now_ms=now_ms)
    if metadata.items is not batch.metadata:
        batch = replace(batch, metadata=metadata.items)
    items = batch.sample_count + batch.histogram_count + batch.exemplar_count + len(batch.metadata)
    within = WithinLimits([], None, {}, np.empty(0, np.int64))
    records: tuple[tuple[int, bytes], ...] = ()
    rejected = None
    if items:
        try:
            take_items(items)
        except LimitExceeded as error:
            rejected = error
        else:
            settings = record_settings(limits, partitions=len(ring.active_partitions))
            within = replace(within, parts=route(batch, tenant, ring))
            if over_limits is not None:
                within = refuse_over_limits(within.parts, tenant, limits, settings, over_limits)
            records = tuple(
                (part.partition, value)
                for part in within.parts
                for value in encode_records(part.batch, settings, version=version, max_bytes=max_record_bytes)
            )
    refused = series.refused.copy()
    refused[series.rows[within.refused]] = True
    written = [batch] if rejected else [part.batch for part in within.parts]
    points = write.data_points
    return PlannedWrite(
        records=records,
        samples=sum(part.sample_count for part in written),
        histograms=sum(part.histogram_count for part in written),
        histogram_buckets=sum(len(p.histograms.values.bucket_index) for p in written if p.histograms is not None),
        metadata=sum(len(part.metadata) for part in written),
        newest_ms=_newest_ms(batch),
        invalid=series.first_error or metadata.first_error or within.first_error,
        rejected=rejected,
        discarded_samples={**series.discarded, **within.discarded},
        discarded_metadata=metadata.discarded,
        shortened=series.shortened,
        dropped_histograms=series.dropped_histograms,
        exemplars=sum(part.exemplar_count for part in written),
        discarded_exemplars=discarded_exemplars,
        data_points=points,
        refused_points=points.refused(refused) if points is not None else 0,
        rejected_items=_items_of(write.batch, refused),
        group=write.batch.first_value(limits.separate_metrics_group_label),
    )


def _newest_ms(batch: WriteBatch) -> int | None:
    """Return the largest timestamp, None without samples."""
    times = [batch.timestamps] + ([batch.histograms.timestamps] if batch.histograms is not None else [])
    return max((int(ts.max()) for ts in times if len(ts)), default=None)


def _items_of(batch: WriteBatch, rows: np.ndarray) -> tuple[int, int, int]:
    """Return the float samples, native histograms and exemplars of the series of a mask."""
    if not rows.any():
        return 0, 0, 0

    def count(offsets: np.ndarray) -> int:
        return int(np.diff(offsets)[rows].sum())

    return (
        count(batch.sample_offsets),
        count(batch.histograms.offsets) if batch.histograms is not None else 0,
        count(batch.exemplars.offsets) if batch.exemplars is not None else 0,
    )


def partition_share(limit: int, partitions: int) -> int:
    """Return a partition's part of a tenant's limit; 0 without a limit, and without partitions."""
    # A share of nothing would mean no limit at all.
    return max(limit // partitions, 1) if limit > 0 and partitions else 0


def record_settings(limits: DistributorLimits, *, partitions: int) -> RecordSettings:
    """Return the settings that decide a record's own samples wherever it is read."""
    return RecordSettings(
        max_series=partition_share(limits.max_global_series_per_user, partitions),
        out_of_order_window_ms=limits.out_of_order_time_window_ms,
        creation_grace_ms=limits.creation_grace_period_ms,
        max_series_per_metric=partition_share(limits.max_global_series_per_metric, partitions),
        unlimited_metrics=tuple(name.encode() for name in limits.unlimited_metrics),
    )
