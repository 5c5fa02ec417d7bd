"""The error tree of the ring.

    PartitionError
    ├─ NoActivePartition     a key has no partition to go to
    ├─ RingUnavailable       the ring store does not answer (retriable), or cannot be used (not retriable)
    │  └─ RingPositionLost   it holds less than was read from it before
    ├─ RingConflict          a change lost against others again and again (retriable)
    ├─ OffsetWaitTimeout     an offset was not consumed in time (retriable)
    ├─ ReaderNotRunning      nobody consumes the partition at the moment (retriable)
    ├─ EmptyRing             a read finds no partition at all (retriable)
    ├─ TooManyUnhealthyInstances   a partition has no healthy owner to read from (retriable)
    ├─ InvalidInstanceId     an instance id without a partition's number at its end
    ├─ ChangeRefused         what someone asked of the ring is against its rules
    │  └─ PartitionDoesNotExist · TransitionNotAllowed · StateChangeLocked
    └─ EntryCorrupt          a record of the store is not an entry

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
        super().__init__(f"position {position} is outside of the ring store, which ends at {end} now")
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
            f"partition {partition}: offset {last_offset} was not consumed within {timeout_s:g} s, "
            f"the reader is at {next_offset}: wait for read consistency: "
            "wait strong read consistency timeout exceeded: context deadline exceeded"
        )
        self.partition, self.last_offset, self.next_offset = partition, last_offset, next_offset


class EmptyRing(PartitionError):
    """There is no partition to read: an error and not an empty answer, since data may exist."""

    error_id = "empty-ring"
    retriable = True

    def __init__(self) -> None:
        super().__init__("empty ring")


class TooManyUnhealthyInstances(PartitionError):
    """A partition has no healthy owner; the whole read fails."""

    error_id = "too-many-unhealthy-instances"
    retriable = True

    def __init__(self, partition: int) -> None:
        super().__init__(f"partition {partition}: too many unhealthy instances in the ring")
        self.partition = partition


class InvalidInstanceId(PartitionError):
    """An instance id that does not end in a partition's number."""

    error_id = "invalid-instance-id"

    def __init__(self, instance: str) -> None:
        super().__init__(
            f"instance id {instance!r} does not end in '-' and a partition's number, such as ingester-zone-a-13; "
            "set ingester.ring.instance_id, or ingester.partition_ring.ownership: leases"
        )
        self.instance = instance


class ChangeRefused(PartitionError):
    """A change of the ring that its rules forbid."""

    error_id = "partition-change-refused"
    blame = "client"
    http_status = 400


class PartitionDoesNotExist(ChangeRefused):
    """The ring has no partition of this number."""

    error_id = "partition-does-not-exist"

    def __init__(self, partition: int) -> None:
        super().__init__("the partition does not exist")
        self.partition = partition


class TransitionNotAllowed(ChangeRefused):
    """A partition does not change from the one state to the other."""

    error_id = "partition-state-change-not-allowed"

    def __init__(self, old: str, new: str) -> None:
        super().__init__(f"partition state change not allowed (from {old} to {new})")
        self.old = old
        self.new = new


class StateChangeLocked(ChangeRefused):
    """Somebody locked the partition's state."""

    error_id = "partition-state-change-locked"
    http_status = 409

    def __init__(self, partition: int) -> None:
        super().__init__("partition state change is locked")
        self.partition = partition


class EntryCorrupt(PartitionError):
    """A record whose key or value is not an entry of the ring."""

    error_id = "ring-entry-corrupt"

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"ring entry {key!r}: {reason}")
        self.key = key
        self.reason = reason


class ReaderNotRunning(PartitionError):
    """The partition is not consumed at the moment, so what a read asked for will not come."""

    error_id = "partition-reader-not-running"
    retriable = True

    def __init__(self, *, partition: int, reason: str) -> None:
        super().__init__(
            f"partition {partition}: wait for read consistency: partition reader service is not running ({reason})"
        )
        self.partition, self.reason = partition, reason
