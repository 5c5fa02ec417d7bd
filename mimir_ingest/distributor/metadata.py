"""Which metadata items of a write request may go on (spec: ingest storage 8.5, table "Metadata"). Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.messages import MAX_QUOTED_BYTES, clean, cut, lenient, with_id, with_tenant_flags
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
        items = items.take(np.flatnonzero(~broken))
        if bool((np.diff(items.offsets)[1::3] > limit).any()):
            items = _cut_help(items, limit)
    return ValidMetadata(items, first_error, discarded)


def _error(items: MetadataColumns, row: int, *, missing: bool, family: bool) -> InvalidSeries:
    """Return the error of one item, with Mimir's text."""
    if missing:
        error_id = "err-mimir-metadata-missing-metric-name"
        return InvalidSeries(with_id("received a metric metadata with no metric name", error_id), error_id=error_id)
    start, name_end, help_end, end = items.offsets[3 * row : 3 * row + 4]
    name = clean(cut(lenient(items.text[start : min(name_end, start + MAX_QUOTED_BYTES)].tobytes())))
    if family:
        error_id = "err-mimir-metric-name-too-long"
        text = f"received a metric metadata whose metric name length exceeds the limit, metric name: '{name}'"
    else:
        error_id = "err-mimir-unit-too-long"
        unit = clean(cut(lenient(items.text[help_end : min(end, help_end + MAX_QUOTED_BYTES)].tobytes())))
        text = (
            f"received a metric metadata whose unit name length exceeds the limit, unit: '{unit}' metric name: '{name}'"
        )
    return InvalidSeries(with_tenant_flags(text, error_id, "validation.max-metadata-length"), error_id=error_id)


def _cut_help(items: MetadataColumns, limit: int) -> MetadataColumns:
    """Return the items with help texts of at most `limit` bytes."""
    text, offsets = items.text.tobytes(), items.offsets.tolist()
    pieces = [text[start:end] for start, end in itertools.pairwise(offsets)]
    pieces[1::3] = [_cut_at_character(help_text, limit) for help_text in pieces[1::3]]
    ends = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
    return MetadataColumns(items.types, np.frombuffer(b"".join(pieces), np.uint8), ends)


def _cut_at_character(text: bytes, limit: int) -> bytes:
    """Return at most `limit` bytes of `text`, without half a character at the end."""
    if len(text) <= limit:
        return text
    stop = limit
    while stop > max(limit - 3, 0) and text[stop] & 0xC0 == 0x80:
        stop -= 1
    return text[: limit if text[stop] & 0xC0 == 0x80 else stop]
