"""Metadata of series as metadata of metric families (spec ingest-storage 8.1), for senders that attach it to series."""

from __future__ import annotations

import itertools

import numpy as np

from mimir_ingest.model.batch import METRIC_TYPES, MetadataColumns

_SUFFIXES = {
    "summary": (b"_count", b"_sum"),
    "histogram": (b"_bucket", b"_count", b"_sum"),
    "gaugehistogram": (b"_bucket", b"_gcount", b"_gsum"),
}
"""Type → what OpenMetrics appends to the family's name; `_total` and `_info` stay, as in Mimir."""


def first_of_each_family(items: MetadataColumns) -> MetadataColumns:
    """Return the first item of each family; the names of `items` are those of series."""
    if not len(items):
        return items
    text = items.text.tobytes()
    strings = [text[start:end] for start, end in itertools.pairwise(items.offsets.tolist())]
    first: dict[bytes, int] = {}
    for i, kind in enumerate(items.types.tolist()):
        if family := _family(strings[3 * i], kind):
            first.setdefault(family, i)
    kept = [part for family, i in first.items() for part in (family, *strings[3 * i + 1 : 3 * i + 3])]
    offsets = np.cumsum([0, *map(len, kept)], dtype=np.int64)
    return MetadataColumns(items.types[list(first.values())], np.frombuffer(b"".join(kept), np.uint8), offsets)


def _family(name: bytes, kind: int) -> bytes:
    for suffix in _SUFFIXES.get(METRIC_TYPES[kind] if kind < len(METRIC_TYPES) else "", ()):
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name
