"""Which exemplars of a write request may go on (spec ingest-storage 8.5); a bad one is dropped, counted, never told."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.messages import read_labels
from mimir_ingest.model.batch import WriteBatch

_MAX_LABEL_RUNES = 128
"""Characters of all label names and values together (OpenMetrics)."""

_OLDEST_MS = 300_000
"""How much older than the request's first sample an exemplar may be."""


def validate_exemplars(batch: WriteBatch, limits: DistributorLimits, *, now_ms: int) -> tuple[WriteBatch, Counter[str]]:
    """Return the batch with the exemplars that pass, by time within a series, and the others by discard reason.

    A tenant that keeps no exemplars has them dropped without a reason.
    """
    exemplars = batch.exemplars
    discarded: Counter[str] = Counter()
    if exemplars is None or limits.max_global_exemplars_per_user <= 0 or not exemplars.count:
        return replace(batch, exemplars=None), discarded
    times = [batch.timestamps] + ([batch.histograms.timestamps] if batch.histograms is not None else [])
    oldest = min((int(ts.min()) for ts in times if len(ts)), default=now_ms) - _OLDEST_MS
    if limits.past_grace_period_ms > 0:
        oldest = max(oldest, now_ms - limits.past_grace_period_ms - limits.out_of_order_time_window_ms)
    newest = now_ms + limits.creation_grace_period_ms
    number = np.arange(exemplars.count) - np.repeat(exemplars.offsets[:-1], np.diff(exemplars.offsets))
    most = limits.max_exemplars_per_series_per_request
    rows = []
    for row, (labels, timestamp) in enumerate(zip(exemplars.label_bytes(), exemplars.timestamps.tolist(), strict=True)):
        if 0 < most <= number[row]:
            reason = "too_many_exemplars_per_series_per_request"
        else:
            reason = _label_fault(labels, timestamp) or (
                "exemplar_too_old" if timestamp < oldest else "exemplar_too_far_in_future" if timestamp > newest else ""
            )
        if reason:
            discarded[reason] += 1
        else:
            rows.append(row)
    kept = np.array(rows, np.int64)
    series = np.searchsorted(exemplars.offsets, kept, side="right")
    kept = kept[np.lexsort((exemplars.timestamps[kept], series))]
    return replace(batch, exemplars=exemplars.pick(kept) if len(kept) else None), discarded


def _label_fault(labels: bytes, timestamp: int) -> str:
    pairs = list(read_labels(labels))
    if not pairs:
        return "exemplar_labels_missing"
    if timestamp == 0:
        return "exemplar_timestamp_invalid"
    if sum(len(text.decode("utf-8", "replace")) for pair in pairs for text in pair) > _MAX_LABEL_RUNES:
        return "exemplar_labels_too_long"
    return "" if any(name and value for name, value in pairs) else "exemplar_labels_blank"
