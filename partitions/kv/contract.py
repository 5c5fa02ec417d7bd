"""The ring store: the contract that every place for the ring keeps, and nothing else.

A store is a log of records, each of an entry (`key`) as one process (`writer`) knows it. Positions grow with every
record and are never given twice. The store may forget a record some minutes after a newer one of the same key and
writer came (compaction); it never forgets the newest one, except a null, a day after it was written.

Promised
    Records are durable when `append` returns, in the order given, and visible to every reader of the store soon after.
    `read` gives records in the order of their positions, none left out but forgotten ones. A reader that has read up to
    a position has seen, for every record below it, that record or a newer one of its key and writer.
Not promised
    An append that failed or was cancelled may still appear later, wholly or in part, even after a later append of the
    same writer. The records of one append may be read in several parts.
Errors
    RingUnavailable when the store does not answer in time (retriable), or cannot be used (not retriable: access
    refused, settings that would lose records); RingPositionLost when a position is past the end, which means that the
    store was made anew or lost its end. Cancelling `read` loses nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RingRecord:
    """One entry as one writer knows it."""

    key: str
    """Key of the entry."""
    writer: str
    """Name of the process that wrote it; without control characters."""
    value: bytes | None
    """The entry (partitions/codec.py); None takes back what the writer wrote before."""

    def __post_init__(self) -> None:
        if not self.key or not self.writer or not self.writer.isprintable():
            raise ValueError(f"a ring record needs a key and a printable writer, not {self.key!r} and {self.writer!r}")


class RingStore(ABC):
    """Created closed; `start` before any other call; used from one event loop, `read` by one reader at a time."""

    @abstractmethod
    async def start(self) -> None:
        """Connect and create what is missing; one attempt. Raises RingUnavailable; may be called again after that."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything. Idempotent; a waiting `read` ends with RingUnavailable or nothing."""

    @abstractmethod
    async def append(self, records: Sequence[RingRecord]) -> int:
        """Append records; return the position after them once they are durable. Raises RingUnavailable."""

    @abstractmethod
    async def read(self, position: int, *, max_wait_s: float) -> tuple[list[RingRecord], int]:
        """Return records from `position` on (0 is the start) and the position to go on from.

        Waits up to `max_wait_s` for the first one, then returns an empty list, with a position that may be greater all
        the same. Raises RingUnavailable, RingPositionLost.
        """

    @abstractmethod
    async def end(self) -> int:
        """Return the position after the newest record, as it is during the call. Raises RingUnavailable."""
