"""Which partitions a ring begins with, where partitions are leased and not named by instances. Pure.

A ring that never had a partition gets all of the log's at once, ACTIVE: there is nowhere else that writes could go, the
log keeps them, and no older data waits for an owner. Later ones begin as PENDING, as everywhere: those that the
configuration asks the embedded log to have, and those of `upscale`.
"""

from __future__ import annotations

from collections.abc import Collection

from partitions.edits import create_partition
from partitions.model import Entry, PartitionDesc, PartitionState, RingDesc


def first_partitions(desc: RingDesc, existing: Collection[int], wanted: int, now_ms: int) -> list[Entry]:
    """Return the partitions that a process adds to the ring when it starts; none when all are there.

    Parameters
    ----------
    desc : RingDesc
        The ring, tombstones included.
    existing : collection of int
        Partitions of the log.
    wanted : int
        Partitions that the configuration asks for, 0..wanted-1; 0 to leave that to the ring.
    now_ms : int
        Wall clock (ms since the Unix epoch).
    """
    if not any(isinstance(entry, PartitionDesc) for entry in desc.entries.values()):
        return [PartitionDesc(number, PartitionState.ACTIVE, now_ms) for number in sorted(existing)]
    return [entry for number in range(wanted) for entry in create_partition(desc, number, now_ms)]
