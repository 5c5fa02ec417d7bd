"""Which instances can answer reads of which partitions (spec: ingest storage, section 4.8).

A target is a partition with the healthy instances that own it, in the order in which to try them: one answer a
partition is enough. Zones come in a random order that is the same for all partitions of a read, preferred zones first,
so that most reads need one zone only. An instance is healthy if its state is ACTIVE or PENDING and its heartbeat is no
older than `ring.heartbeat_timeout`.

Partitions are read in every state until they are removed, and numbers that have an owner but no entry are read too: an
owner may hold what nobody else has (the reference reads neither PENDING nor old INACTIVE ones).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from random import Random

from partitions.errors import EmptyRing
from partitions.model import InstanceDesc, InstanceState, OwnerDesc, RingDesc

_ANSWERING = (InstanceState.ACTIVE, InstanceState.PENDING)


def healthy(instance: InstanceDesc, now_ms: int, heartbeat_timeout_ms: int) -> bool:
    """Tell whether an instance takes reads: its state, and the age of its heartbeat (ms; a timeout of 0 is none)."""
    return instance.state in _ANSWERING and instance.alive(now_ms, heartbeat_timeout_ms)


def readable_partitions(desc: RingDesc) -> tuple[int, ...]:
    """Return the numbers that a read of all data has to cover, ascending.

    Raises
    ------
    EmptyRing
        There is none.
    """
    numbers = tuple(sorted({*desc.partitions, *desc.corrupted}))
    if not numbers:
        raise EmptyRing
    return numbers


def zone_order(desc: RingDesc, preferred: Sequence[str], random: Random) -> tuple[str, ...]:
    """Return the ingesters' zones in the order to try them: preferred ones as given, then the others by chance."""
    zones = sorted({i.zone for i in desc.instances("ingester").values()})
    first = [zone for zone in preferred if zone in zones]
    rest = [zone for zone in zones if zone not in first]
    random.shuffle(rest)
    return (*dict.fromkeys(first), *rest)


def read_targets(
    desc: RingDesc,
    partitions: Collection[int],
    zones: Sequence[str],
    *,
    now_ms: int,
    heartbeat_timeout_ms: int,
) -> dict[int, tuple[InstanceDesc, ...]]:
    """Return each partition's healthy owners in the order to try them; none for a partition without one.

    Parameters
    ----------
    desc : RingDesc
        The ring.
    partitions : collection of int
        `readable_partitions`, or a tenant's `read_shard`.
    zones : sequence of str
        From `zone_order`, once a read. Within a zone, writable instances come before read-only ones, ACTIVE before
        PENDING ones, and later owners before earlier ones, who may be about to leave.
    now_ms, heartbeat_timeout_ms : int
        Wall clock (ms since the Unix epoch) and `ring.heartbeat_timeout` (ms).
    """
    instances = desc.instances("ingester")
    place = {zone: at for at, zone in enumerate(zones)}

    def order(owner: OwnerDesc) -> tuple:
        instance = instances[owner.instance]
        newest_first = (-owner.version.ms, -owner.version.counter, owner.instance)
        return place.get(instance.zone, len(place)), instance.read_only, instance.state, *newest_first

    targets = {}
    for partition in sorted(partitions):
        owners = [
            owner
            for owner in desc.owners_of(partition)
            if owner.instance in instances and healthy(instances[owner.instance], now_ms, heartbeat_timeout_ms)
        ]
        targets[partition] = tuple(instances[owner.instance] for owner in sorted(owners, key=order))
    return targets


def targets_last_until_ms(desc: RingDesc, *, now_ms: int, heartbeat_timeout_ms: int) -> float:
    """Return the last time (ms) at which `read_targets` of these zones says what it says at `now_ms`; may be inf.

    Until then no healthy instance's heartbeat grows too old; what is unhealthy stays so without a new entry.
    """
    if heartbeat_timeout_ms == 0:
        return float("inf")
    alive = [i for i in desc.instances("ingester").values() if healthy(i, now_ms, heartbeat_timeout_ms)]
    return min((i.heartbeat_ms + heartbeat_timeout_ms for i in alive), default=float("inf"))
