"""Which partition each series and metadata item of a request goes to (spec: ingest storage 1.6 and 3.1). Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mimir_ingest.errors import InvariantViolated
from mimir_ingest.kernels.hashing import fnv1_spans
from mimir_ingest.model.batch import MetadataColumns, WriteBatch
from mimir_ingest.model.series_tokens import tenant_state, tokens_of
from partitions.errors import NoActivePartition
from partitions.ring import PartitionRing


class Part(NamedTuple):
    """What of a batch goes to one partition."""

    partition: int
    batch: WriteBatch
    rows: np.ndarray
    """int64[n]: its series' rows in the whole batch."""


def route(batch: WriteBatch, tenant: str, ring: PartitionRing) -> list[Part]:
    """Split a batch by partition, ascending; only partitions that get something are listed.

    With one ACTIVE partition nothing is hashed and the batch itself is returned. Raises NoActivePartition.
    """
    active = ring.active_partitions
    if not active:
        raise NoActivePartition
    if len(active) == 1:
        return [Part(active[0], batch, np.arange(batch.series_count))]
    tokens, metadata_tokens = batch_tokens(batch, tenant)
    series_of, items_of = ring.lookup(tokens), ring.lookup(metadata_tokens)
    series_rows, item_rows = _group(series_of), _group(items_of)
    if len({*series_rows, *item_rows}) == 1:
        return [Part(next(iter({*series_rows, *item_rows})), batch, np.arange(batch.series_count))]
    none = np.empty(0, np.int64)
    return [
        Part(
            partition,
            replace(
                batch.take(series_rows.get(partition, none)),
                metadata=batch.metadata.take(item_rows[partition])
                if partition in item_rows
                else MetadataColumns.empty(),
            ),
            series_rows.get(partition, none),
        )
        for partition in sorted({*series_rows, *item_rows})
    ]


def batch_tokens(batch: WriteBatch, tenant: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the partition tokens, uint32[series] and uint32[metadata items]."""
    tokens = tokens_of(tenant, batch.labels, batch.label_offsets)
    offsets = batch.metadata.offsets
    families = np.stack([offsets[:-1:3], offsets[1::3]], axis=1).reshape(-1)
    metadata_tokens = np.empty(len(batch.metadata), np.uint32)
    if fnv1_spans(tenant_state(tenant), batch.metadata.text, families, metadata_tokens) < 0:
        raise InvariantViolated("metadata offsets of a validated batch do not ascend")
    return tokens, metadata_tokens


def _group(partition_of: np.ndarray) -> dict[int, np.ndarray]:
    """Return the rows of each partition (int64, ascending), by partition."""
    if not len(partition_of):
        return {}
    order = np.argsort(partition_of, kind="stable")
    partitions, starts = np.unique(partition_of[order], return_index=True)
    return dict(zip(partitions.tolist(), np.split(order, starts[1:]), strict=True))
