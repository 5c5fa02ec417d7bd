"""Which partitions an ingester consumes, registers as an owner of, and gives up: a pure function of the ring.

    target      what it should own: the number of its id, or what the leases give it
    kept        what it is registered for and may not give up yet: the next owner has not registered
    leftover    what is nobody's: consumed until all of it is in blocks, then let go

A lease is given up once another member of the zone has registered for it. A partition that has left the ring, or is so
long INACTIVE that it will, is given up once everything of it is shipped. Source: architecture, sections 5 and 6; spec
4.4 and 4.5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from partitions.assignment import lease_members, plan_leases, releasable
from partitions.lifecycle import expired
from partitions.model import InstanceState, PartitionState, RingDesc


@dataclass(frozen=True, slots=True)
class OwnershipKnobs:
    """Who this ingester is, and how partitions are owned."""

    instance: str
    """Id in the ingester ring."""
    own_partition: int | None
    """Partition of the id; None: ownership is leased."""
    heartbeat_timeout_ms: int = 60_000
    delete_inactive_partition_after_ms: int = 13 * 3600 * 1000
    """Age (ms) of the state INACTIVE from which nobody is to own a leased partition any more; 0 is never."""


@dataclass(frozen=True, slots=True)
class Consumed:
    """How far a partition that is consumed here is."""

    caught_up: bool
    unshipped: bool
    """Whether samples, or records of data since the last cut, are in no block yet."""


@dataclass(frozen=True, slots=True)
class OwnershipPlan:
    """What to do now."""

    consume: frozenset[int]
    own: frozenset[int]
    """Registered as an owner, or to be: caught up."""
    release: frozenset[int]
    """Owner entries to remove."""
    ship: frozenset[int]
    """Consumed only until all of it is in blocks."""


def plan_ownership(
    desc: RingDesc, knobs: OwnershipKnobs, consumed: Mapping[int, Consumed], now_ms: int
) -> OwnershipPlan:
    """Return what an ingester should do, from the ring and what it consumes now.

    Parameters
    ----------
    desc : RingDesc
        The ring.
    knobs : OwnershipKnobs
        Settings.
    consumed : mapping of int to Consumed
        Partitions that are consumed now.
    now_ms : int
        Wall clock (ms since the Unix epoch).
    """
    target, handed_over = _target(desc, knobs, now_ms)
    kept, release = set(), set()
    for partition in set(desc.owned_by(knobs.instance)) - target:
        known = consumed.get(partition)
        shipped = known is not None and known.caught_up and not known.unshipped
        outdated = partition not in desc.partitions or partition in _expired(desc, knobs, now_ms)
        if shipped if outdated else partition in handed_over:
            release.add(partition)
        else:
            kept.add(partition)
    leftover = {
        partition
        for partition, known in consumed.items()
        if partition not in target | kept
        and not _other_owners(desc, partition, knobs.instance)
        and (not known.caught_up or known.unshipped)
    }
    caught_up = {partition for partition, known in consumed.items() if known.caught_up}
    return OwnershipPlan(
        consume=frozenset(target | kept | leftover),
        own=frozenset((target & caught_up) | (kept & desc.partitions.keys())),
        release=frozenset(release),
        ship=frozenset(leftover | (kept - desc.partitions.keys())),
    )


def _target(desc: RingDesc, knobs: OwnershipKnobs, now_ms: int) -> tuple[set[int], set[int]]:
    """Return what the instance should own, and what it owns that the next owner has taken over."""
    if knobs.own_partition is not None:
        target = {knobs.own_partition}
        owned = desc.owned_by(knobs.instance)
        return target, {p for p in owned if p not in target and _other_owners(desc, p, knobs.instance)}
    members = lease_members(desc, now_ms, knobs.heartbeat_timeout_ms)
    plan = plan_leases(desc, desc.partitions.keys() - _expired(desc, knobs, now_ms), members)
    return set(plan.get(knobs.instance, ())), set(releasable(desc, knobs.instance, plan, members))


def _expired(desc: RingDesc, knobs: OwnershipKnobs, now_ms: int) -> set[int]:
    """Leased partitions that are INACTIVE for so long that they are removed once nobody owns them."""
    if knobs.own_partition is not None:
        return set()
    after_ms = knobs.delete_inactive_partition_after_ms
    return {partition.id for partition in desc.partitions.values() if expired(partition, after_ms, now_ms)}


def _other_owners(desc: RingDesc, partition: int, instance: str) -> bool:
    return any(owner.instance != instance for owner in desc.owners_of(partition))


def find_ownerless(
    desc: RingDesc, topic_partitions: Collection[int], knobs: OwnershipKnobs, now_ms: int
) -> frozenset[int]:
    """Return the topic's partitions that nobody owns, or is about to own, though they may hold records.

    One that is leased has an owner on its way, and so has a PENDING one, which was never written to under this entry.
    """
    leased = desc.partitions.keys() - _expired(desc, knobs, now_ms) if knobs.own_partition is None else frozenset()
    return frozenset(
        partition
        for partition in topic_partitions
        if not desc.owners_of(partition)
        and partition not in leased
        and (partition not in desc.partitions or desc.partitions[partition].state is not PartitionState.PENDING)
    )


def is_adopter(desc: RingDesc, partition: int, instance: str, now_ms: int, heartbeat_timeout_ms: int) -> bool:
    """Tell whether an ownerless partition is this instance's to look after.

    One of those that are ACTIVE and alive, by highest random weight. While views differ it may be two, which is
    harmless: blocks are a function of the log.
    """
    members = [
        other.id
        for other in desc.instances("ingester").values()
        if other.state is InstanceState.ACTIVE and other.alive(now_ms, heartbeat_timeout_ms)
    ]
    return bool(members) and instance == max(members, key=lambda member: (_weight(member, partition), member))


def _weight(instance: str, partition: int) -> bytes:
    return hashlib.blake2b(f"{instance}\0{partition}".encode(), digest_size=8).digest()
