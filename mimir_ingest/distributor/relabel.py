"""Relabelling of pushed series, by a tenant's `metric_relabel_configs` and `drop_labels`.

A series is relabelled once and remembered by its label bytes, so that a steady stream costs a lookup a series. Source:
spec ingest-storage 8.2.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace

import numpy as np

from mimir_ingest.kernels.hashing import xxh64_spans
from mimir_ingest.model.relabel import Relabelling
from mimir_ingest.wire.remote_write_v1 import DecodedWrite

REMEMBERED_SERIES = 200_000
"""Of a tenant. why: they take 600 bytes each; beyond it all are forgotten, and relabelled again as they come."""


class Relabeller:
    """Applies tenants' relabelling to batches, and remembers what became of each series. Any thread may use it."""

    def __init__(self, *, remembered: int = REMEMBERED_SERIES) -> None:
        self._remembered = remembered
        self._known: dict[str, tuple[Relabelling, dict[bytes, bytes | None]]] = {}

    def relabel(self, write: DecodedWrite, tenant: str, relabelling: Relabelling) -> DecodedWrite:
        """Return the request with its series relabelled; those that are dropped leave no trace, as in Mimir."""
        batch = write.batch
        if not relabelling or not batch.series_count:
            return write
        results = self._results(tenant, relabelling)
        text, ends = batch.labels.tobytes(), batch.label_offsets.tolist()
        sets: list[bytes | None] = []
        for begin, end in itertools.pairwise(ends):
            before = text[begin:end]
            if before not in results:
                if len(results) >= self._remembered:
                    results.clear()
                results[before] = relabelling.apply(before, tenant)
            sets.append(results[before])
        return _with_labels(write, sets)

    def forget(self, tenants: Collection[str]) -> None:
        """Drop what is remembered of tenants that are gone."""
        for tenant in tenants:
            self._known.pop(tenant, None)

    def _results(self, tenant: str, relabelling: Relabelling) -> dict[bytes, bytes | None]:
        known = self._known.get(tenant)
        if known is None or known[0] is not relabelling:
            known = self._known[tenant] = (relabelling, {})
        return known[1]


def _with_labels(write: DecodedWrite, sets: list[bytes | None]) -> DecodedWrite:
    """Return the series whose new label bytes are not None."""
    labels = [labels for labels in sets if labels is not None]
    if len(labels) < len(sets):
        write = write.take(np.array([i for i, labels in enumerate(sets) if labels is not None], np.int64))
    offsets = np.cumsum([0, *map(len, labels)]).astype(np.int64)
    column = np.frombuffer(b"".join(labels), np.uint8)
    hashes = np.empty(len(labels), np.uint64)
    xxh64_spans(column, offsets, hashes)
    return replace(write, batch=replace(write.batch, labels=column, label_offsets=offsets, hashes=hashes))
