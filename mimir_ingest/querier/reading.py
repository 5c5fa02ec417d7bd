"""One request's reads: what they have to contain, and what they did contain."""

from __future__ import annotations

from collections.abc import Mapping

from mimir_ingest.ingester.head_answer import PartitionCut
from mimir_ingest.querier.consistency import Level, ReadConsistency

EVENTUAL = ReadConsistency()


class Reading:
    """The state that all reads of one request share. Used from one event loop."""

    def __init__(self, consistency: ReadConsistency = EVENTUAL, *, partial: bool = False) -> None:
        self.consistency = consistency
        self.partial = partial
        """Whether an answer without some partitions is better than an error."""
        self.prepared = False
        """Whether the fields below say what the consistency demands."""
        self.wait_offsets: dict[int, int] = {}
        """Partition → first offset that need not be contained."""
        self.demanded: frozenset[int] = frozenset()
        """Partitions that are read whether or not they are in the tenant's shard."""
        self.handed_over: list[PartitionCut] = []
        """What the request demands of partitions that are gone, and is in the bucket."""
        self.unread: dict[int, str] = {}
        """Partitions that are missing from a partial answer, with the reason."""
        self.fetched_series = self.fetched_chunks = self.fetched_chunk_bytes = 0
        """What was read of samples: series of each distinct selector, chunks that were decoded, and their bytes."""
        self._next_offsets: dict[int, int] = {}

    @property
    def needs_preparing(self) -> bool:
        """Whether what the consistency demands has still to be worked out; of an eventual read there is nothing."""
        return not self.prepared and (self.consistency.level is Level.STRONG or bool(self.consistency.offsets))

    def saw(self, next_offsets: Mapping[int, int]) -> None:
        """Note how far the partitions of one read went; of several reads the least counts."""
        for partition, offset in next_offsets.items():
            known = self._next_offsets.get(partition)
            self._next_offsets[partition] = offset if known is None else min(known, offset)

    def again(self) -> Reading:
        """Return a reading that demands the same, and has seen nothing."""
        return Reading(self.consistency, partial=self.partial)

    def join(self, other: Reading) -> None:
        """Note what another reading of the same request saw."""
        self.saw(other._next_offsets)
        self.unread.update(other.unread)
        self.fetched_series += other.fetched_series
        self.fetched_chunks += other.fetched_chunks
        self.fetched_chunk_bytes += other.fetched_chunk_bytes

    @property
    def seen(self) -> dict[int, int]:
        """Partition → last offset that every read of the request contained."""
        return {p: offset - 1 for p, offset in self._next_offsets.items() if p not in self.unread}

    @property
    def warnings(self) -> list[str]:
        """What a partial answer lacks, as sentences."""
        return [f"partial response: partition {p} is missing: {why}" for p, why in sorted(self.unread.items())]
