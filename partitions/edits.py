"""Edits of the ring: each takes the document and returns the entries it wants changed, or refuses.

Pure functions for `RingWatcher.change`, which stamps what differs and appends it. An edit that has nothing to do
returns nothing, so repeating one is harmless. Texts and rules: spec, ingest storage, sections 4.3 and 7.1, http-api
section 7. Times are a wall clock's (ms since the Unix epoch).
"""

from __future__ import annotations

from dataclasses import replace

from partitions.errors import PartitionDoesNotExist, StateChangeLocked, TransitionNotAllowed
from partitions.model import (
    Entry,
    InstanceDesc,
    InstanceState,
    OwnerDesc,
    OwnerState,
    PartitionDesc,
    PartitionState,
    RingDesc,
    instance_key,
    owner_key,
)

_ALLOWED = {
    (PartitionState.PENDING, PartitionState.ACTIVE),
    (PartitionState.PENDING, PartitionState.INACTIVE),
    (PartitionState.ACTIVE, PartitionState.INACTIVE),
    (PartitionState.INACTIVE, PartitionState.ACTIVE),
}

Edit = list[Entry]


def _partition(desc: RingDesc, partition: int) -> PartitionDesc:
    if partition not in desc.partitions:
        raise PartitionDoesNotExist(partition)
    return desc.partitions[partition]


def _changed(current: PartitionDesc, state: PartitionState, now_ms: int) -> PartitionDesc:
    if state is current.state:
        return current
    if (current.state, state) not in _ALLOWED:
        raise TransitionNotAllowed(current.state.name, state.name)
    if current.locked:
        raise StateChangeLocked(current.id)
    return replace(current, state=state, state_timestamp_ms=now_ms)


def _locked(current: PartitionDesc, locked: bool, now_ms: int) -> PartitionDesc:
    return current if locked is current.locked else replace(current, locked=locked, lock_timestamp_ms=now_ms)


def change_state(desc: RingDesc, partition: int, state: PartitionState, now_ms: int) -> Edit:
    """Switch a partition to a state; the same state is no change, also of a locked partition.

    Raises
    ------
    PartitionDoesNotExist, TransitionNotAllowed, StateChangeLocked
        Checked in this order.
    """
    current = _partition(desc, partition)
    wanted = _changed(current, state, now_ms)
    return [] if wanted is current else [wanted]


def lock(desc: RingDesc, partition: int, locked: bool, now_ms: int) -> Edit:
    """Lock or unlock a partition's state.

    Raises
    ------
    PartitionDoesNotExist
    """
    current = _partition(desc, partition)
    wanted = _locked(current, locked, now_ms)
    return [] if wanted is current else [wanted]


def change_state_and_lock(desc: RingDesc, partition: int, state: PartitionState, now_ms: int) -> Edit:
    """Switch a partition to a state and lock it, both or neither.

    Raises
    ------
    PartitionDoesNotExist, TransitionNotAllowed, StateChangeLocked
        As `change_state`.
    """
    current = _partition(desc, partition)
    wanted = _locked(_changed(current, state, now_ms), True, now_ms)
    return [] if wanted is current else [wanted]


def create_partition(desc: RingDesc, partition: int, now_ms: int) -> Edit:
    """Add a PENDING partition unless it exists."""
    if partition in desc.partitions:
        return []
    return [PartitionDesc(partition, PartitionState.PENDING, now_ms)]


def remove_partition(desc: RingDesc, partition: int, now_ms: int) -> Edit:
    """Remove a partition, whatever its state; whether it may go is the caller's to know.

    Raises
    ------
    StateChangeLocked
        Somebody locked its state.
    """
    current = desc.partitions.get(partition)
    if current is None:
        return []
    if current.locked:
        raise StateChangeLocked(partition)
    return [replace(current, state=PartitionState.DELETED, state_timestamp_ms=now_ms)]


def add_owner(desc: RingDesc, instance: str, partition: int, now_ms: int) -> Edit:
    """Register an owner of a partition; one that is registered keeps its time."""
    known = desc.entries.get(owner_key(instance, partition))
    if known is not None and known.state is OwnerState.ACTIVE:
        return []
    return [OwnerDesc(instance, partition, OwnerState.ACTIVE, now_ms)]


def remove_owner(desc: RingDesc, instance: str, partition: int, now_ms: int) -> Edit:
    """Take an owner from a partition; nothing if it is not one."""
    known = desc.entries.get(owner_key(instance, partition))
    if known is None or known.deleted:
        return []
    return [OwnerDesc(instance, partition, OwnerState.DELETED, now_ms)]


def heartbeat(desc: RingDesc, wanted: InstanceDesc, now_ms: int) -> Edit:
    """Register an instance or renew its heartbeat, with the state, address and zone of `wanted`.

    The ring's registration time and read-only flag are kept; an instance that was not in the ring, also one that
    somebody forgot, registers anew.
    """
    known = desc.instances(wanted.ring).get(wanted.id)
    if known is None:
        return [replace(wanted, registered_ms=now_ms, heartbeat_ms=now_ms)]
    kept = replace(
        wanted,
        registered_ms=known.registered_ms,
        read_only=known.read_only,
        read_only_updated_ms=known.read_only_updated_ms,
    )
    return [replace(kept, heartbeat_ms=now_ms)]


def set_read_only(desc: RingDesc, ring: str, instance: str, read_only: bool, now_ms: int) -> Edit:
    """Set or clear an instance's read-only flag; nothing if it is not in the ring or the flag is so already."""
    known = desc.instances(ring).get(instance)
    if known is None or known.read_only is read_only:
        return []
    return [replace(known, read_only=read_only, read_only_updated_ms=now_ms)]


def unregister_instance(desc: RingDesc, ring: str, instance: str, now_ms: int) -> Edit:
    """Remove an instance from a ring; what it owns stays its own, as over a restart."""
    known = desc.entries.get(instance_key(ring, instance))
    if known is None or known.deleted:
        return []
    return [replace(known, state=InstanceState.LEFT, heartbeat_ms=now_ms)]


def forget_silent(desc: RingDesc, ring: str, after_ms: int, now_ms: int) -> Edit:
    """Remove the instances of a ring whose heartbeat is older than `after_ms` (0 or less: none): the killed."""
    if after_ms <= 0:
        return []
    return [
        gone
        for instance in desc.instances(ring).values()
        if not instance.alive(now_ms, after_ms)
        for gone in unregister_instance(desc, ring, instance.id, now_ms)
    ]


def forget_instance(desc: RingDesc, ring: str, instance: str, now_ms: int) -> Edit:
    """Remove an instance from a ring; from the ingesters' ring with all that it owns.

    What forgot an instance that is still there is undone by its next heartbeat and lifecycle step.
    """
    gone = unregister_instance(desc, ring, instance, now_ms)
    if gone and ring == "ingester":
        for partition in desc.owned_by(instance):
            gone += remove_owner(desc, instance, partition, now_ms)
    return gone
