"""What to write to the ring store so that it stays complete and small: repairs and nulls.

Repairs. An entry that a late reader would not see (`Replica.lacking`) is written again, as it is known; soon, before
the store compacts away what running readers still knew.

Nulls. Where one slot holds the whole joined entry, the others are nulled when they are 24 h old, also at a key that
changes all the time: an election is renewed by whoever sees its cluster. A tombstone of that age loses its last slot,
too, once the nulls of all others were read back, so no reader, whenever it starts, finds an older value without the
tombstone above it. A writer nulls its own slots; those of writers that keep no instance in the ring are nulled by the
keeper, the first by name of those that keep an alive one. Who lives may stand in another store than what is kept up.

Run it on a view that was just confirmed to contain the store's end, about once a minute and when something is lacking,
and append what it returns in one go, with no change of the same writer under way. Ages are those of versions, which are
never behind what was read before: a clock that is ahead delays nulls, and one that is behind does not bring them
forward.
"""

from __future__ import annotations

from collections.abc import Iterator

from partitions.codec import encode
from partitions.kv.contract import RingRecord
from partitions.model import InstanceDesc, RingDesc
from partitions.replica import Replica

SETTLED_MS = 24 * 3600 * 1000
"""Age (ms) from which losing records and tombstones are nulled."""


def keeper(desc: RingDesc, now_ms: int, heartbeat_timeout_ms: int) -> str | None:
    """Return the writer that does what only one needs to do; None if no instance is alive."""
    alive = (instance for instance in _instances(desc) if instance.alive(now_ms, heartbeat_timeout_ms))
    return min((instance.version.writer for instance in alive), default=None)


def _instances(desc: RingDesc) -> Iterator[InstanceDesc]:
    return (instance for ring in desc.rings for instance in desc.instances(ring).values())


def plan_upkeep(
    replica: Replica, me: str, now_ms: int, heartbeat_timeout_ms: int, *, members: RingDesc | None = None
) -> list[RingRecord]:
    """Return the records that this writer should append now: repairs, then nulls; most often none.

    Parameters
    ----------
    replica : Replica
        Just confirmed to contain the store's end.
    me : str
        The writer's name.
    now_ms : int
        Wall clock (ms since the Unix epoch).
    heartbeat_timeout_ms : int
        Age of a heartbeat (ms) above which an instance does not count as alive.
    members : RingDesc, optional
        The document with the instances of the writers, when that is another one.
    """
    desc = replica.desc
    members = desc if members is None else members
    keeping = keeper(members, now_ms, heartbeat_timeout_ms) in (me, None)
    in_ring = {instance.version.writer for instance in _instances(members)}
    rewritten = {e.key: e for e in replica.lacking() if keeping or e.version.writer == me}
    nulls = []
    for key, slots in replica.slots.items():
        entry = desc.entries[key]
        settled = now_ms - entry.version.ms >= SETTLED_MS
        whole = min((writer for writer, value in slots.items() if value == entry), default=None)
        if whole is None:  # two writers changed a register each, unaware of each other
            if settled and keeping:
                rewritten[key] = entry
            continue
        if settled and entry.deleted and len(slots) == 1:
            losing = [whole]
        else:
            losing = [w for w, value in slots.items() if w != whole and now_ms - value.version.ms >= SETTLED_MS]
        nulls += [RingRecord(key, w, None) for w in losing if w == me or (keeping and w not in in_ring)]
    return [RingRecord(key, me, encode(entry)) for key, entry in rewritten.items()] + nulls
