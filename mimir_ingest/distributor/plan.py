"""A decoded write request to records, in one synchronous step that may run on any thread. Pure.

    validate ─► rate limit ─► route ─► encode

The order is Mimir's (spec: ingest storage 8.2): limits count what is valid, and a request with nothing valid left takes
nothing from a bucket and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mimir_ingest.distributor.exemplars import validate_exemplars
from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.metadata import validate_metadata
from mimir_ingest.distributor.records import encode_records
from mimir_ingest.distributor.route import route
from mimir_ingest.distributor.validate import validate_series
from mimir_ingest.errors import InvalidSeries, LimitExceeded
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
    """Valid float samples."""
    histograms: int
    """Valid native histograms."""
    histogram_buckets: int
    """Buckets of them."""
    metadata: int
    """Valid metadata items."""
    newest_ms: int | None
    """Largest valid timestamp."""
    invalid: InvalidSeries | None
    """The first broken validation rule."""
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
    """Valid exemplars."""
    discarded_exemplars: Mapping[str, int]
    """By reason."""
    data_points: DataPoints | None
    """OTLP's data points, as received."""
    refused_points: int
    """Those of them that could not be converted, or of which a series broke a rule."""


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

    Raises
    ------
    NoActivePartition
        There is something to write and nowhere to write it.
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
    records: tuple[tuple[int, bytes], ...] = ()
    rejected = None
    histograms = batch.histograms
    if histograms is not None and not histograms.sample_count:
        histograms = None
    items = batch.sample_count + batch.histogram_count + batch.exemplar_count + len(batch.metadata)
    if items:
        try:
            take_items(items)
        except LimitExceeded as error:
            rejected = error
        else:
            settings = record_settings(limits, partitions=len(ring.active_partitions))
            records = tuple(
                (partition, value)
                for partition, part in route(batch, tenant, ring)
                for value in encode_records(part, settings, version=version, max_bytes=max_record_bytes)
            )
    times = [batch.timestamps] + ([histograms.timestamps] if histograms is not None else [])
    return PlannedWrite(
        records,
        batch.sample_count,
        histograms.sample_count if histograms is not None else 0,
        len(histograms.values.bucket_index) if histograms is not None else 0,
        len(batch.metadata),
        max((int(ts.max()) for ts in times if len(ts)), default=None),
        series.first_error or metadata.first_error,
        rejected,
        series.discarded,
        metadata.discarded,
        series.shortened,
        series.dropped_histograms,
        batch.exemplar_count,
        discarded_exemplars,
        write.data_points,
        write.data_points.refused(series.refused) if write.data_points is not None else 0,
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
    )
