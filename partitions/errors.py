"""The error tree of the ring.

    PartitionError
    └─ NoActivePartition     a key has no partition to go to

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
