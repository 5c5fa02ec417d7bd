"""Entries as bytes: JSON objects, one kind of entry a codec (format below).

The kind is the first part of the key; the parts that the key says are not repeated in the value. The bytes of an entry
are always the same: no spaces, names in the order below. A version is `[ms, counter, "writer"]`; states are names.

    partition/<id>          state, state_timestamp_ms, state_version, locked, lock_timestamp_ms, lock_version
    owner/<instance>/<id>   state, updated_timestamp_ms, version
    instance/<ring>/<id>    state, address, zone, registered_ms, heartbeat_ms, read_only, read_only_updated_ms, version
    election/<tenant>/<cluster>   replica, received_ms, elected_ms, elected_changes, deleted_ms, version

Readers pass over kinds and names that they do not know, so that versions of the program can run side by side. A missing
name takes the field's default.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from partitions.errors import EntryCorrupt
from partitions.model import (
    ElectionDesc,
    Entry,
    InstanceDesc,
    InstanceState,
    OwnerDesc,
    OwnerState,
    PartitionDesc,
    PartitionState,
)
from partitions.model import Version as V

_MAX = 1 << 63
_LATEST_MS = 253_402_300_799_999


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MAX:
        raise ValueError(f"{value!r} is not a number from 0 to 2^63-1")
    return value


def _time(value: Any) -> int:
    """Read ms since the epoch; a time that no page could show is none."""
    if _number(value) > _LATEST_MS:
        raise ValueError(f"{value!r} is no time before the year 10000")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"{value!r} is not a text")
    value.encode()  # lone surrogates, which JSON can say and nothing can show
    return value


def _version(value: Any) -> V:
    if type(value) is not list or len(value) != 3:
        raise ValueError(f"{value!r} is not a version")
    return V(_number(value[0]), _number(value[1]), _text(value[2]))


def _state_of(states: type) -> Callable[[Any], Any]:
    def state(value: Any) -> Any:
        if value not in states.__members__:
            raise ValueError(f"{value!r} is not a state")
        return states[value]

    return state


_READ: dict[type, dict[str, Callable[[Any], Any]]] = {
    PartitionDesc: {
        "state": _state_of(PartitionState),
        "state_timestamp_ms": _time,
        "state_version": _version,
        "locked": _flag,
        "lock_timestamp_ms": _time,
        "lock_version": _version,
    },
    OwnerDesc: {"state": _state_of(OwnerState), "updated_timestamp_ms": _time, "version": _version},
    InstanceDesc: {
        "state": _state_of(InstanceState),
        "address": _text,
        "zone": _text,
        "registered_ms": _time,
        "heartbeat_ms": _time,
        "read_only": _flag,
        "read_only_updated_ms": _time,
        "version": _version,
    },
    ElectionDesc: {
        "replica": _text,
        "received_ms": _time,
        "elected_ms": _time,
        "elected_changes": _number,
        "deleted_ms": _time,
        "version": _version,
    },
}


def _partition_id(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or str(int(text)) != text or int(text) >= 1 << 31:
        raise ValueError(f"{text!r} is not the number of a partition")
    return int(text)


def _identity(key: str) -> tuple[type, dict[str, Any]] | None:
    """The class of a key's entry and the fields that the key says; None for a kind that is not known."""
    kind, _, rest = key.partition("/")
    if kind == "partition":
        return PartitionDesc, {"id": _partition_id(rest)}
    if kind == "owner":
        instance, _, partition = rest.rpartition("/")
        if not instance:
            raise ValueError("an owner's key names an instance and a partition")
        return OwnerDesc, {"instance": instance, "partition": _partition_id(partition)}
    if kind == "instance":
        ring, _, instance = rest.partition("/")
        if not ring or not instance:
            raise ValueError("an instance's key names a ring and an instance")
        return InstanceDesc, {"ring": ring, "id": instance}
    if kind == "election":
        tenant, _, cluster = rest.partition("/")
        if not tenant or not cluster:
            raise ValueError("an election's key names a tenant and a cluster")
        return ElectionDesc, {"tenant": tenant, "cluster": cluster}
    return None


def encode(entry: Entry) -> bytes:
    """Return an entry's value for the record under `entry.key`."""
    value = {name: getattr(entry, name) for name in _READ[type(entry)]}
    if "state" in value:
        value["state"] = value["state"].name
    return json.dumps(value, separators=(",", ":")).encode()


def decode(key: str, value: bytes) -> Entry | None:
    """Return the entry that a record holds; None if its kind is not one that this program knows.

    Raises
    ------
    EntryCorrupt
        The key or the value is not an entry.
    """
    try:
        identity = _identity(key)
        if identity is None:
            return None
        kind, named = identity
        document = json.loads(value)
        if type(document) is not dict:
            raise ValueError("not an object")
        read = _READ[kind]
        return kind(**named, **{name: read[name](document[name]) for name in read if name in document})
    except (ValueError, TypeError, RecursionError) as error:
        raise EntryCorrupt(key, str(error)) from error
