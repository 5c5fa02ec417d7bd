"""The error tree of the ring.

    PartitionError
    ├─ NoActivePartition     a key has no partition to go to
    ├─ RingUnavailable       the ring store does not answer (retriable), or cannot be used (not retriable)
    │  └─ RingPositionLost   it holds less than was read from it before
    ├─ RingConflict          a change lost against others again and again (retriable)
    └─ OffsetWaitTimeout     an offset was not consumed in time (retriable)

Attributes are those of `mimir_ingest.errors` (`error_id`, `blame`, `retriable`, `http_status`), so that the HTTP edge
maps both trees alike without this package knowing the other one.
"""

from __future__ import annotations

from typing import ClassVar, Literal


class PartitionError(Exception):
    """Root of the tree."""

    error_id: str = "partition-ring"
    blame: ClassVar[Literal["client", "server"]] = "server"
    retriable: bool = False
    http_status: int = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NoActivePartition(PartitionError):
    """No partition of the ring is ACTIVE; the text is the one that Mimir's clients see."""

    error_id = "no-active-partition"
    retriable = True

    def __init__(self) -> None:
        super().__init__("DoBatch: InstancesCount <= 0")


class RingUnavailable(PartitionError):
    """The ring store does not answer in time, or (not retriable) cannot be used before somebody mends it."""

    error_id = "ring-unavailable"
    http_status = 503

    def __init__(self, message: str, *, retriable: bool = True) -> None:
        super().__init__(message)
        self.retriable = retriable


class RingPositionLost(RingUnavailable):
    """A position is past the end of the ring store: it was made anew, or a broker lost its newest records."""

    error_id = "ring-position-lost"

    def __init__(self, *, position: int, end: int) -> None:
        super().__init__(f"the ring store ends at position {end}, although it was read up to {position} before")
        self.position, self.end = position, end


class RingConflict(PartitionError):
    """Others changed the same entry each time that a change was tried."""

    error_id = "ring-conflict"
    retriable = True
    http_status = 503


class OffsetWaitTimeout(PartitionError):
    """An offset that a read asked for was not consumed in time."""

    error_id = "strong-read-consistency-timeout"
    retriable = True

    def __init__(self, *, partition: int, last_offset: int, next_offset: int, timeout_s: float) -> None:
        super().__init__(
            f"timed out waiting for strong read consistency: partition {partition} was consumed up to offset "
            f"{next_offset - 1} within {timeout_s:g} s, the request needs offset {last_offset}"
        )
        self.partition, self.last_offset, self.next_offset = partition, last_offset, next_offset
