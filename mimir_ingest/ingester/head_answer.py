"""What a partition's head gives to a query, besides samples: how far it goes, and what it leaves to the bucket."""

from __future__ import annotations

from mimir_ingest.errors import LogUnavailable
from mimir_ingest.ingester.consumer import PartitionConsumer
from mimir_ingest.ingester.cut import BlockRef
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.ingester.reader_health import explain_unreadable
from mimir_ingest.model.frozen import frozen
from mimir_ingest.model.samples import SeriesSamples


@frozen
class PartitionCut:
    """What a partition no longer serves from memory: everything below `cut_offset` that was cut, in these blocks."""

    partition: int
    cut_offset: int
    blocks: tuple[BlockRef, ...]
    """The tenant's blocks of recent cuts; older ones are in every list of blocks."""


@frozen
class HeadAnswer:
    """The ingester's part of a query."""

    series: list[SeriesSamples]
    """In order of precedence: of equal timestamps of a series, the one in the first of these counts."""
    cuts: list[PartitionCut]
    """What the querier has to find in the bucket."""
    next_offsets: dict[int, int]
    """Partition → first offset that may be missing: everything below is in the answer or was cut."""


def state_of(consumer: PartitionConsumer) -> PartitionState:
    """Return a partition's state. Raises LogUnavailable while it is being recovered."""
    if consumer.state is None or not consumer.caught_up:
        raise LogUnavailable(f"partition {consumer.partition} is recovering")
    return consumer.state


def released_cut(consumer: PartitionConsumer, tenant: str) -> PartitionCut | None:
    """Return what a partition no longer serves of a tenant. Raises LogUnavailable."""
    released = state_of(consumer).released
    if released.cut_offset < 0:
        return None
    return PartitionCut(consumer.partition, released.cut_offset, released.blocks_of(tenant))


def describe(consumer: PartitionConsumer) -> dict[str, int | str | list | None]:
    """Return a partition's row of a status page."""
    state = consumer.state
    row: dict[str, int | str | list | None] = {
        "partition": consumer.partition,
        "unreadable": explain_unreadable(consumer.facts),
        "error": consumer.facts.error,
        "lost_offsets": [list(span) for span in consumer.lost],
    }
    if state is None:
        return row
    return row | {
        "next_offset": state.next_offset,
        "last_cut_offset": state.last_cut_offset,
        "record_time_ms": state.record_time_ms,
        "held_samples": state.held_count,
        "series": sum(head.live_count for head in list(state.heads.values())),
    }
