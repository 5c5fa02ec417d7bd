"""Whether blocks may stand in for what the heads no longer serve (architecture: read path, hand-over).

An owner's answer names the cut offset below which it has let go of data, and the blocks that took it over. A query is
complete only if each of those that overlaps it is in the bucket's list, by itself or merged into another block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class RequiredBlock(Protocol):
    """A block that a cut has published."""

    ulid: str
    min_time_ms: int
    max_time_ms: int


class ListedBlock(Protocol):
    """A block in the bucket; `sources` are the ULIDs that were merged into it, itself among them."""

    ulid: str
    sources: Sequence[str]


def missing_blocks(
    required: Iterable[RequiredBlock], listed: Iterable[ListedBlock], *, start_ms: int, end_ms: int
) -> list[str]:
    """Return the ULIDs that the query `[start_ms, end_ms)` needs and the list lacks, ascending.

    A required block covers `[min_time_ms, max_time_ms)`.
    """
    known: set[str] = set()
    for block in listed:
        known.add(block.ulid)
        known.update(block.sources)
    return sorted(
        {b.ulid for b in required if b.min_time_ms < end_ms and b.max_time_ms > start_ms and b.ulid not in known}
    )
