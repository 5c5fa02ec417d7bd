"""What an ingester has of a tenant, for pages and the tenant's own metrics: the head's times and counts, recent blocks.

A tenant's heads of all partitions consumed here count as one. Source: spec http-api.md 5.7 to 5.9.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mimir_ingest.bucket.layout import meta_file
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import BlockCorrupt, BlockNotFound
from mimir_ingest.ingester.cut import BlockRef
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.kernels.head import NO_SAMPLE
from mimir_ingest.tsdb.block_meta import MetaFile, decode_meta, read_meta
from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.segment import MAX_MS, MIN_MS


@dataclass(frozen=True, slots=True)
class TenantFacts:
    """One tenant's heads."""

    tenant: str
    min_ms: int
    """Oldest sample that is in no block yet; MAX_MS without one."""
    max_ms: int
    """Newest one; MIN_MS without one."""
    series: int
    series_created: int
    chunks: int
    held_samples: int
    """Samples that are in no block yet."""
    appendable_from_ms: int | None
    """Samples from this time on are taken in order, in every partition; None: from any time."""
    blocks: tuple[BlockRef, ...]
    """Blocks that cuts of the last two days have published, oldest first."""


def describe_tenant(states: Mapping[int, PartitionState], tenant: str) -> TenantFacts | None:
    """Return what these partitions have of a tenant, None if nothing. Any thread."""
    return _describe(states, tenant, [block for block in _recent_blocks(states) if block.tenant == tenant])


def describe_tenants(states: Mapping[int, PartitionState]) -> list[TenantFacts]:
    """Return every tenant with a head or recent blocks, ascending. Any thread."""
    blocks: dict[str, list[BlockRef]] = {}
    for block in _recent_blocks(states):
        blocks.setdefault(block.tenant, []).append(block)
    tenants = blocks.keys() | {tenant for state in states.values() for tenant in list(state.heads)}
    found = (_describe(states, tenant, blocks.get(tenant, ())) for tenant in sorted(tenants))
    return [facts for facts in found if facts is not None]


def _recent_blocks(states: Mapping[int, PartitionState]) -> Iterator[BlockRef]:
    return (block for state in states.values() for cut in state.cuts for block in cut.blocks)


def _describe(states: Mapping[int, PartitionState], tenant: str, blocks: Sequence[BlockRef]) -> TenantFacts | None:
    heads = [(state, state.heads[tenant]) for state in states.values() if tenant in state.heads]
    if not heads and not blocks:
        return None
    extremes = [_extremes(head) for _, head in heads]
    floors = [
        head.floors(state.settings.range_ms, head.window_ms)[0] for state, head in heads if head.max_ts != NO_SAMPLE
    ]
    return TenantFacts(
        tenant,
        min((low for low, _, _ in extremes), default=MAX_MS),
        max((high for _, high, _ in extremes), default=MIN_MS),
        sum(head.live_count for _, head in heads),
        sum(head.created_count for _, head in heads),
        sum(chunks for _, _, chunks in extremes),
        sum(head.held_count for _, head in heads),
        max(floors, default=None),
        tuple(sorted(blocks, key=lambda b: (b.min_time_ms, b.ulid))),
    )


def read_published(bucket: Bucket, blocks: Sequence[BlockRef]) -> list[tuple[MetaFile, int]]:
    """Return (a block's facts, when it was uploaded: ms by the store's clock) of those that are still in the bucket.

    Raises StoreUnavailable.
    """
    found = []
    for block in blocks:
        path = meta_file(block.tenant, block.ulid)
        with contextlib.suppress(BlockNotFound, BlockCorrupt):
            found.append((read_meta(decode_meta(bucket.read(path))), bucket.modified_ms(path)))
    return found


def _extremes(head: Head) -> tuple[int, int, int]:
    """Return (oldest and newest time that is in no block yet, chunks)."""
    _, segments, staged, _ = head.view(()).parts[-1]
    kinds = [*segments, *(s.histograms for s in segments if s.histograms is not None)]
    columns = [(kind.min_ts, kind.max_ts) for kind in kinds]
    columns += [(part.timestamps, part.timestamps) for part in (staged, *staged.histograms)]
    filled = [(low, high) for low, high in columns if len(low)]
    return (
        min((int(low.min()) for low, _ in filled), default=MAX_MS),
        max((int(high.max()) for _, high in filled), default=MIN_MS),
        sum(len(kind.refs) for kind in kinds),
    )
