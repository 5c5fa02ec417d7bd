"""Series over a tenant's limits that are told to the sender, as far as this process knows before the log does.

Only the ingester of the same process is asked, about the partitions that it owns; the rest is refused by whoever
consumes the log, and then only counted. Limits, ids and reasons: spec ingest-storage 8.7; texts: spec http-api 15.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.messages import whole_series_text, with_tenant_flags
from mimir_ingest.distributor.route import Part
from mimir_ingest.errors import InvalidSeries
from mimir_ingest.kernels.head import ROW_OVER_LIMIT, ROW_OVER_METRIC_LIMIT
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.wire.record import RecordSettings

OverLimits = Callable[[int, str, WriteBatch, RecordSettings], np.ndarray | None]
"""(partition, tenant, batch, settings of its record) -> int32[n], 0 or the limit that a row is over; None: none is."""

_REASONS = {ROW_OVER_LIMIT: "per_user_series_limit", ROW_OVER_METRIC_LIMIT: "per_metric_series_limit"}


@dataclass(frozen=True, slots=True)
class WithinLimits:
    """What is left of a request's parts, and why the rest is not."""

    parts: list[Part]
    first_error: InvalidSeries | None
    discarded: Mapping[str, int]
    """Discarded samples and histograms by reason."""
    refused: np.ndarray
    """int64[...]: rows of the request that are over a limit."""


def refuse_over_limits(
    parts: Sequence[Part], tenant: str, limits: DistributorLimits, settings: RecordSettings, over_limits: OverLimits
) -> WithinLimits:
    """Drop the rows that are over a limit. Raises what `over_limits` raises."""
    kept: list[Part] = []
    refused: list[np.ndarray] = []
    discarded: Counter[str] = Counter()
    first_error = None
    for part in parts:
        verdict = over_limits(part.partition, tenant, part.batch, settings) if part.batch.series_count else None
        if verdict is None:
            kept.append(part)
            continue
        over = np.flatnonzero(verdict)
        refused.append(part.rows[over])
        samples = np.diff(part.batch.sample_offsets)
        if part.batch.histograms is not None:
            samples = samples + np.diff(part.batch.histograms.offsets)
        for limit, reason in _REASONS.items():
            if count := int(samples[verdict == limit].sum()):
                discarded[reason] += count
        first_error = first_error or _error(int(verdict[over[0]]), part.batch, int(over[0]), limits)
        stays = np.flatnonzero(verdict == 0)
        left = replace(part.batch.take(stays), metadata=part.batch.metadata)
        if len(stays) or len(left.metadata):
            kept.append(Part(part.partition, left, part.rows[stays]))
    rows = np.concatenate(refused) if refused else np.empty(0, np.int64)
    return WithinLimits(kept, first_error, discarded, rows)


def _error(limit: int, batch: WriteBatch, row: int, limits: DistributorLimits) -> InvalidSeries:
    if limit == ROW_OVER_LIMIT:
        error_id = "err-mimir-max-series-per-user"
        text = f"per-user series limit of {limits.max_global_series_per_user} exceeded"
        return InvalidSeries(
            with_tenant_flags(text, error_id, "ingester.max-global-series-per-user"), error_id=error_id
        )
    error_id = "err-mimir-max-series-per-metric"
    text = f"per-metric series limit of {limits.max_global_series_per_metric} exceeded"
    series = whole_series_text(batch.labels[batch.label_offsets[row] : batch.label_offsets[row + 1]].tobytes())
    advice = with_tenant_flags(text, error_id, "ingester.max-global-series-per-metric")
    return InvalidSeries(f"{advice} This is for series {series}", error_id=error_id)
