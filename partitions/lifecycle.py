"""What an ingester does about partitions, its own and others' (spec: ingest storage, section 4.4).

`step` compares the ring with what it should be and returns the entries to change; a shell calls it every few seconds
with the newest ring. It has no memory, so a step that was lost, repeated or overtaken does no harm.

Own partitions: created as PENDING when missing, also while running (the reference does so at its start only), the
instance registered as an owner, and switched to ACTIVE once enough owners are there for long enough. With the shutdown
marker set, a missing partition is not created and the instance not registered until somebody else creates it.

Others: INACTIVE for `delete_inactive_partition_after` and without owners, a partition is removed, unless its state is
locked or the caller knows that the log still holds records of it that no checkpoint covers.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from partitions import edits
from partitions.errors import InvalidInstanceId
from partitions.model import Entry, PartitionDesc, PartitionState, RingDesc

_TRAILING_NUMBER = re.compile(r"-([0-9]+)\Z")


@dataclass(frozen=True, slots=True)
class LifecycleKnobs:
    """Settings of `ingester.partition_ring`, and whether the shutdown marker is there."""

    min_partition_owners_count: int = 1
    """Owners that a PENDING partition needs."""
    min_partition_owners_duration_ms: int = 10_000
    """How long (ms) it needs them."""
    delete_inactive_partition_after_ms: int = 13 * 3600 * 1000
    """Age (ms) of the state INACTIVE from which an ownerless partition is removed; 0 is never."""
    create_partition: bool = True
    """Whether a missing own partition is created; not while the shutdown marker is there."""


def partition_of(instance: str) -> int:
    """Return the partition that an instance owns by its name: the number after the last `-` (spec, section 4.5).

    Raises
    ------
    InvalidInstanceId
        There is none, or it does not fit a signed 32-bit integer.
    """
    found = _TRAILING_NUMBER.search(instance)
    if found is None or int(found[1]) >= 1 << 31:
        raise InvalidInstanceId(instance)
    return int(found[1])


def step(
    desc: RingDesc,
    instance: str,
    own: Collection[int],
    knobs: LifecycleKnobs,
    now_ms: int,
    *,
    needed: Collection[int] = (),
) -> list[Entry]:
    """Return the entries that this instance should change now; for `RingWatcher.change`.

    Parameters
    ----------
    desc : RingDesc
        The ring.
    instance : str
        Own instance id.
    own : collection of int
        Partitions that it owns: caught up, so that it can answer for them.
    knobs : LifecycleKnobs
        Settings.
    now_ms : int
        Wall clock (ms since the Unix epoch).
    needed : collection of int
        Partitions that must not be removed yet: the log holds records of them past their checkpoint.
    """
    return [
        *(entry for partition in sorted(own) for entry in _own_partition(desc, instance, partition, knobs, now_ms)),
        *_other_partitions(desc, {*own, *needed}, knobs, now_ms),
    ]


def _own_partition(desc: RingDesc, instance: str, partition: int, knobs: LifecycleKnobs, now_ms: int) -> list[Entry]:
    current = desc.partitions.get(partition)
    if current is None:
        if not knobs.create_partition:
            return []
        created = edits.create_partition(desc, partition, now_ms)
        return [*created, *edits.add_owner(desc, instance, partition, now_ms)]
    registered = edits.add_owner(desc, instance, partition, now_ms)
    if current.state is PartitionState.PENDING and not current.locked and _owned_for_long(desc, current, knobs, now_ms):
        return [*registered, *edits.change_state(desc, partition, PartitionState.ACTIVE, now_ms)]
    return registered


def _owned_for_long(desc: RingDesc, partition: PartitionDesc, knobs: LifecycleKnobs, now_ms: int) -> bool:
    before_ms = now_ms - knobs.min_partition_owners_duration_ms
    enough = [o for o in desc.owners_of(partition.id) if o.updated_timestamp_ms < before_ms]
    return len(enough) >= knobs.min_partition_owners_count


def _other_partitions(desc: RingDesc, kept: Collection[int], knobs: LifecycleKnobs, now_ms: int) -> list[Entry]:
    removed: list[Entry] = []
    for partition in desc.partitions.values():
        old = expired(partition, knobs.delete_inactive_partition_after_ms, now_ms)
        if old and partition.id not in kept and not desc.owners_of(partition.id):
            removed += edits.remove_partition(desc, partition.id, now_ms)
    return removed


def expired(partition: PartitionDesc, after_ms: int, now_ms: int) -> bool:
    """Tell whether a partition may go once it has no owner: INACTIVE for longer than this (0: never), not locked."""
    if after_ms <= 0 or partition.locked or partition.state is not PartitionState.INACTIVE:
        return False
    return partition.state_timestamp_ms < now_ms - after_ms


def leave(desc: RingDesc, instance: str, now_ms: int, *, partitions: Collection[int] | None = None) -> list[Entry]:
    """Return the entries with which an instance stops being an owner; of all its partitions, or of those named.

    At a shutdown only if "remove owner on shutdown" was set (`/ingester/prepare-shutdown`): a plain restart keeps them.
    """
    owned = desc.owned_by(instance)
    chosen = owned if partitions is None else [p for p in owned if p in partitions]
    return [entry for p in chosen for entry in edits.remove_owner(desc, instance, p, now_ms)]
