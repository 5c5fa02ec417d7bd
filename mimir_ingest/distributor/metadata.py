"""Which metadata items of a write request may go on (spec: ingest storage 8.5, table "Metadata"). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.messages import clean, cut, lenient, with_id, with_tenant_flags
from mimir_ingest.errors import InvalidSeries
from mimir_ingest.model.batch import MetadataColumns

MISSING_METRIC_NAME = "missing_metric_name"
METRIC_NAME_TOO_LONG = "metric_name_too_long"
UNIT_TOO_LONG = "unit_too_long"
"""Discard reasons."""


@dataclass(frozen=True, slots=True)
class ValidMetadata:
    """What is left of a request's metadata, and why the rest is not."""

    items: MetadataColumns
    first_error: InvalidSeries | None
    discarded: Mapping[str, int]
    """Discarded items by reason."""


def validate_metadata(items: MetadataColumns, limits: DistributorLimits) -> ValidMetadata:
    """Drop the items that break a rule; cut help texts that are too long."""
    if not len(items):
        return ValidMetadata(items, None, {})
    limit = limits.max_metadata_length
    family, help_text, unit = np.diff(items.offsets).reshape(-1, 3).T
    nameless = (family == 0) & limits.enforce_metadata_metric_name
    family_too_long = ~nameless & (family > limit)
    unit_too_long = ~nameless & ~family_too_long & (unit > limit)
    broken = nameless | family_too_long | unit_too_long
    discarded = {
        reason: int(np.count_nonzero(rows))
        for reason, rows in (
            (MISSING_METRIC_NAME, nameless),
            (METRIC_NAME_TOO_LONG, family_too_long),
            (UNIT_TOO_LONG, unit_too_long),
        )
        if rows.any()
    }
    first_error = None
    if discarded:
        row = int(np.argmax(broken))
        first_error = _error(items, row, missing=bool(nameless[row]), family=bool(family_too_long[row]))
    if discarded or bool((help_text > limit).any()):
        items = take_metadata(items, np.flatnonzero(~broken), max_help_bytes=limit)
    return ValidMetadata(items, first_error, discarded)


def _error(items: MetadataColumns, row: int, *, missing: bool, family: bool) -> InvalidSeries:
    """Return the error of one item, with Mimir's text."""
    if missing:
        error_id = "err-mimir-metadata-missing-metric-name"
        return InvalidSeries(with_id("received a metric metadata with no metric name", error_id), error_id=error_id)
    start, name_end, help_end, end = items.offsets[3 * row : 3 * row + 4]
    name = clean(cut(lenient(items.text[start:name_end].tobytes())))
    if family:
        error_id = "err-mimir-metric-name-too-long"
        text = f"received a metric metadata whose metric name length exceeds the limit, metric name: '{name}'"
    else:
        error_id = "err-mimir-unit-too-long"
        unit = clean(cut(lenient(items.text[help_end:end].tobytes())))
        text = (
            f"received a metric metadata whose unit name length exceeds the limit, unit: '{unit}' metric name: '{name}'"
        )
    return InvalidSeries(with_tenant_flags(text, error_id, "validation.max-metadata-length"), error_id=error_id)


def take_metadata(items: MetadataColumns, index: np.ndarray, *, max_help_bytes: int | None = None) -> MetadataColumns:
    """Return the items at `index` (int64[k]); longer help texts end at the last whole character within the limit."""
    text, offsets = items.text.tobytes(), items.offsets.tolist()
    pieces = []
    for row in index.tolist():
        start, name_end, help_end, end = offsets[3 * row : 3 * row + 4]
        if max_help_bytes is not None and help_end - name_end > max_help_bytes:
            pieces += [text[start:name_end], _cut_at_character(text[name_end:help_end], max_help_bytes)]
        else:
            pieces += [text[start:name_end], text[name_end:help_end]]
        pieces.append(text[help_end:end])
    ends = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
    return MetadataColumns(items.types[index], np.frombuffer(b"".join(pieces), np.uint8), ends)


def _cut_at_character(text: bytes, limit: int) -> bytes:
    """Return at most `limit` bytes of `text`, without half a character at the end."""
    stop = limit
    while stop > max(limit - 3, 0) and text[stop] & 0xC0 == 0x80:
        stop -= 1
    return text[: limit if text[stop] & 0xC0 == 0x80 else stop]
