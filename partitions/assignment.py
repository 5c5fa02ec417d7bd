"""Leases: which partitions each ingester should own, in every zone one owner a partition.

`plan_leases` is a pure function of the partitions, the members and today's owners, so all members compute the same plan
from the same ring; while their views differ, leases may overlap, which is harmless. In a zone with n partitions and m
members each owns floor(n/m) or one more.

Minimal movement: members keep what they own up to their share; only what is above it, or has no owner there, moves. The
moving partitions then choose, in a fixed order, the member that they rank highest among those with room (highest random
weight). A hand-over changes the owners one by one, and the plan does not change with it: a partition that has arrived
counts for its new owner, who would have kept a place for it in any case.

Hand-over (by shells): a member consumes what the plan gives it, registers as an owner once it has caught up, and gives
a lease up only when the planned owner has registered (`releasable`).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from partitions.model import InstanceState, OwnerDesc, RingDesc

_STAYING = (InstanceState.ACTIVE, InstanceState.JOINING, InstanceState.PENDING)


def lease_members(desc: RingDesc, now_ms: int, heartbeat_timeout_ms: int) -> dict[str, str]:
    """Return the ingesters that leases are given to, with their zones: alive, neither leaving nor read-only."""
    return {
        instance.id: instance.zone
        for instance in desc.instances("ingester").values()
        if instance.state in _STAYING and not instance.read_only and instance.alive(now_ms, heartbeat_timeout_ms)
    }


def plan_leases(desc: RingDesc, partitions: Collection[int], members: Mapping[str, str]) -> dict[str, frozenset[int]]:
    """Return what each member should own; a partition once in every zone that has a member.

    Parameters
    ----------
    desc : RingDesc
        Today's owners; the newest one of each partition and zone counts.
    partitions : collection of int
        Numbers to be owned.
    members : mapping of str to str
        Zone of each instance: `lease_members`.
    """
    by_zone: dict[str, list[str]] = defaultdict(list)
    for instance in sorted(members):
        by_zone[members[instance]].append(instance)
    plan: dict[str, frozenset[int]] = {}
    for zone_members in by_zone.values():
        plan |= _plan_zone(desc, sorted(set(partitions)), zone_members)
    return plan


def _plan_zone(desc: RingDesc, partitions: list[int], members: list[str]) -> dict[str, frozenset[int]]:
    share, extra = divmod(len(partitions), len(members))
    held = _held(desc, partitions, members)
    plan: dict[str, list[int]] = {}
    for member in members:
        plan[member] = held[member][:share]
        if extra and len(held[member]) > share:
            plan[member].append(held[member][share])
            extra -= 1
    placed = {p for kept in plan.values() for p in kept}
    for partition in _in_order(p for p in partitions if p not in placed):
        with_room = [m for m in members if len(plan[m]) < share or (extra and len(plan[m]) == share)]
        chosen = max(with_room, key=lambda member: _weight(member, partition))
        extra -= len(plan[chosen]) == share
        plan[chosen].append(partition)
    return {member: frozenset(owned) for member, owned in plan.items()}


def _held(desc: RingDesc, partitions: list[int], members: list[str]) -> dict[str, list[int]]:
    """What each member is the newest owner of, in the order in which it is kept."""
    held: dict[str, list[int]] = {member: [] for member in members}
    for partition in _in_order(partitions):
        newest = _newest_owner(desc, partition, held)
        if newest is not None:
            held[newest.instance].append(partition)
    return held


def _newest_owner(desc: RingDesc, partition: int, members: Collection[str]) -> OwnerDesc | None:
    owners = [owner for owner in desc.owners_of(partition) if owner.instance in members]
    return max(owners, key=lambda owner: owner.version, default=None)


def _weight(*named: object) -> bytes:
    return hashlib.blake2b("\0".join(map(str, named)).encode(), digest_size=8).digest()


def _in_order(partitions: Iterable[int]) -> list[int]:
    """Partitions in an order that does not follow their numbers, so that neighbours do not move together."""
    return sorted(partitions, key=lambda p: (_weight(p), p))


def releasable(
    desc: RingDesc, instance: str, plan: Mapping[str, Collection[int]], members: Mapping[str, str]
) -> tuple[int, ...]:
    """Return the partitions that an instance owns and may give up, ascending.

    Those that the plan gives to another member of its zone who is registered as their owner, and those that the plan
    gives to nobody in any zone. If nobody in its zone can take a lease, or there is no member at all, it is kept.

    Parameters
    ----------
    desc : RingDesc
        The ring.
    instance : str
        Who asks; if it leaves, it is not in `members`.
    plan : mapping
        From `plan_leases`.
    members : mapping of str to str
        Zone of each member.
    """
    own = desc.instances("ingester").get(instance)
    zone = own.zone if own is not None else members.get(instance)
    leased = set().union(*plan.values())

    def may_go(partition: int) -> bool:
        if partition in plan.get(instance, ()):
            return False
        if partition not in leased:
            return bool(plan)
        owners = (owner.instance for owner in desc.owners_of(partition) if owner.instance != instance)
        return any(members.get(owner) == zone and partition in plan.get(owner, ()) for owner in owners)

    return tuple(partition for partition in desc.owned_by(instance) if may_go(partition))
