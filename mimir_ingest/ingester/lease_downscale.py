"""How an ingester whose partitions are leased gets ready to go, and takes that back: pure edits of the ring.

    another ingester of its zone is alive   read-only: the leases move to the others, the partitions stay ACTIVE
    none is                                 nobody could take them: what it owns becomes INACTIVE with it

An ingester that is read-only keeps a partition until its next owner has caught up (`partitions.assignment`).
"""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ingest.errors import ClientError
from partitions.assignment import lease_members
from partitions.edits import change_state, set_read_only
from partitions.model import Entry, PartitionDesc, PartitionState, RingDesc


class DownscaleRefused(ClientError):
    """What was asked cannot be prepared for going; the message is the body of the answer, empty as in Mimir or not."""

    error_id = "downscale-refused"
    http_status = 409


@dataclass(frozen=True, slots=True)
class InstanceDownscale:
    """How far an ingester with leases is on its way out."""

    instance: str
    read_only: bool
    """Whether it gets no leases and hands over those that it has."""
    partitions: tuple[PartitionDesc, ...]
    """What it still owns."""
    timestamp_s: int
    """Since when it is ready to go, as the rollout-operator counts (Unix seconds); 0 if it was not asked to."""

    def to_json(self) -> dict[str, int | str | bool | dict[str, str]]:
        """Return the body of an answer: Mimir's `timestamp`, and what is still owned."""
        owned = {str(partition.id): partition.state.name for partition in self.partitions}
        return {
            "timestamp": self.timestamp_s,
            "instance": self.instance,
            "read_only": self.read_only,
            "owned_partitions": owned,
        }


def deactivate(desc: RingDesc, partition: int, now_ms: int) -> list[Entry]:
    """Return the edit that prepares a partition for going: INACTIVE; nothing if it is so.

    Raises DownscaleRefused for a PENDING one, since a cancellation could not know which state to restore, and
    PartitionDoesNotExist, StateChangeLocked.
    """
    known = desc.partitions.get(partition)
    if known is not None and known.state is PartitionState.PENDING:
        raise DownscaleRefused("")
    return change_state(desc, partition, PartitionState.INACTIVE, now_ms)


def reactivate(desc: RingDesc, partition: int, now_ms: int) -> list[Entry]:
    """Return the edit that takes `deactivate` back: ACTIVE if it is INACTIVE, nothing otherwise.

    Raises PartitionDoesNotExist, StateChangeLocked.
    """
    known = desc.partitions.get(partition)
    if known is not None and known.state is not PartitionState.INACTIVE:
        return []
    return change_state(desc, partition, PartitionState.ACTIVE, now_ms)


def describe_instance(desc: RingDesc, instance: str) -> InstanceDownscale:
    """Return how far an ingester is; one that is not in the ring, or owns nothing, was not asked to go."""
    known = desc.instances("ingester").get(instance)
    owned = _owned(desc, instance)
    since_ms = 0
    if known is not None and known.read_only:
        since_ms = known.read_only_updated_ms
    elif owned and all(partition.state is PartitionState.INACTIVE for partition in owned):
        since_ms = max(partition.state_timestamp_ms for partition in owned)
    return InstanceDownscale(instance, known is not None and known.read_only, owned, since_ms // 1000)


def withdraw(desc: RingDesc, instance: str, now_ms: int, heartbeat_timeout_ms: int) -> list[Entry]:
    """Return the edit that prepares an ingester for going; nothing if it is prepared, so that it keeps its time.

    Raises DownscaleRefused, StateChangeLocked when nobody could take a partition that is PENDING or locked.
    """
    known = desc.instances("ingester").get(instance)
    if known is None or known.read_only:
        return []
    members = lease_members(desc, now_ms, heartbeat_timeout_ms)
    if any(zone == known.zone for member, zone in members.items() if member != instance):
        return set_read_only(desc, "ingester", instance, True, now_ms)
    return [entry for partition in _owned(desc, instance) for entry in deactivate(desc, partition.id, now_ms)]


def stay(desc: RingDesc, instance: str, now_ms: int) -> list[Entry]:
    """Return the edit that takes `withdraw` back; partitions whose state somebody locked stay as they are."""
    unlocked = [partition.id for partition in _owned(desc, instance) if not partition.locked]
    entries = [entry for partition in unlocked for entry in reactivate(desc, partition, now_ms)]
    return [*set_read_only(desc, "ingester", instance, False, now_ms), *entries]


def _owned(desc: RingDesc, instance: str) -> tuple[PartitionDesc, ...]:
    return tuple(desc.partitions[p] for p in sorted(desc.owned_by(instance)) if p in desc.partitions)
