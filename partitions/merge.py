"""How two values of one entry become one, and how a writer's edit becomes a versioned value.

`join` takes, register by register, the greater one: by version first; the same version twice, which only two processes
under one name can stamp, falls by the state (deleted is the highest), then by the rest. That is the maximum of
a total order, so joining is commutative, associative and idempotent, and readers agree whatever they read in whatever
order (architecture, section 6; unlike the reference, whose updates of one second do not converge: spec, section 4.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from partitions.model import ElectionDesc, Entry, InstanceDesc, OwnerDesc, PartitionDesc, RingDesc, Version

E = TypeVar("E", PartitionDesc, OwnerDesc, InstanceDesc, ElectionDesc)


def _state_register(p: PartitionDesc) -> tuple:
    return p.state_version, p.state, p.state_timestamp_ms


def _lock_register(p: PartitionDesc) -> tuple:
    return p.lock_version, p.locked, p.lock_timestamp_ms


def _owner_register(o: OwnerDesc) -> tuple:
    return o.version, o.state, o.updated_timestamp_ms


def _instance_register(i: InstanceDesc) -> tuple:
    rest = (i.heartbeat_ms, i.registered_ms, i.address, i.zone, i.read_only, i.read_only_updated_ms)
    return i.version, i.state, *rest


def _election_register(e: ElectionDesc) -> tuple:
    return e.version, e.deleted_ms, e.elected_ms, e.received_ms, e.elected_changes, e.replica


def join(a: E, b: E) -> E:
    """Return the join of two values of the same entry; the result contains the newer of each register.

    Raises
    ------
    ValueError
        The values are of two entries.
    """
    if a.key != b.key:
        raise ValueError(f"{a.key} and {b.key} are two entries")
    if isinstance(a, OwnerDesc):
        return max(a, b, key=_owner_register)
    if isinstance(a, InstanceDesc):
        return max(a, b, key=_instance_register)
    if isinstance(a, ElectionDesc):
        return max(a, b, key=_election_register)
    state = max(a, b, key=_state_register)
    lock = max(a, b, key=_lock_register)
    if state is lock:
        return state
    return replace(state, locked=lock.locked, lock_timestamp_ms=lock.lock_timestamp_ms, lock_version=lock.lock_version)


def join_entries(desc: RingDesc, entries: Iterable[Entry]) -> RingDesc:
    """Return the document with the entries joined into it; `desc` itself if they change nothing."""
    joined: dict[str, Entry] = {}
    for entry in entries:
        known = joined.get(entry.key) or desc.entries.get(entry.key)
        value = entry if known is None else join(known, entry)
        if value != known:
            joined[entry.key] = value
    if not joined:
        return desc
    newest = max(desc.newest, *(e.version for e in joined.values()))
    return RingDesc(MappingProxyType({**desc.entries, **joined}), newest)


def drop_entries(desc: RingDesc, keys: Iterable[str]) -> RingDesc:
    """Return the document without these entries: of tombstones whose records are all gone from the store."""
    dropped = set(keys) & desc.entries.keys()
    if not dropped:
        return desc
    return RingDesc(MappingProxyType({k: e for k, e in desc.entries.items() if k not in dropped}), desc.newest)


def stamp(known: Entry | None, wanted: Entry, version: Version) -> Entry | None:
    """Return the value to append for a wanted one: registers that differ from the known ones carry `version`.

    Parameters
    ----------
    known : Entry or None
        The entry as the writer knows it, tombstones included; None if there is none.
    wanted : Entry
        What an edit returned; its versions are not looked at.
    version : Version
        From `HybridClock.next`, above all that the writer knows.

    Returns
    -------
    Entry or None
        None if nothing differs: there is nothing to append.
    """
    if known is None:
        if isinstance(wanted, PartitionDesc):
            return replace(wanted, state_version=version, lock_version=version)
        return replace(wanted, version=version)
    if isinstance(wanted, PartitionDesc):
        versions = {"state_version": known.state_version, "lock_version": known.lock_version}
        if (wanted.state, wanted.state_timestamp_ms) != (known.state, known.state_timestamp_ms):
            versions["state_version"] = version
        if (wanted.locked, wanted.lock_timestamp_ms) != (known.locked, known.lock_timestamp_ms):
            versions["lock_version"] = version
        stamped = replace(wanted, **versions)
        return None if stamped == known else stamped
    if replace(wanted, version=known.version) == known:
        return None
    return replace(wanted, version=version)


def shows(known: Entry | None, stamped: Entry, version: Version) -> bool:
    """Tell whether a document's entry shows a change: every register that `version` stamped is there as it was written.

    Parameters
    ----------
    known : Entry or None
        The entry in the document into which the change's own record was joined.
    stamped : Entry
        What `stamp` returned.
    version : Version
        What it was stamped with.
    """
    if known is None:
        return False
    if isinstance(stamped, PartitionDesc):
        return (stamped.state_version != version or _state_register(known) == _state_register(stamped)) and (
            stamped.lock_version != version or _lock_register(known) == _lock_register(stamped)
        )
    return known == stamped
