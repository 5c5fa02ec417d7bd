"""The ring's document: partitions, their owners, instances, and elections, as versioned entries.

Settles what stands in the ring. Must not know: stores, clocks, how two values are joined (`merge`), bytes (`codec`).

An entry is one partition, one owner of a partition, one instance, or one election. It consists of registers: values
that change as a whole and carry a `Version`. A partition has two, its state and its lock, so that a lock and a change
of state made at the same time both stand; every other entry is one register.

A deletion is a value like any other (`deleted` entries, the tombstones): it has to win over older values until nobody
can write those any more. `RingDesc` holds tombstones and hides them from its views.

Displayed times (`…_timestamp_ms`, `heartbeat_ms`) are a writer's wall clock, and rules about ages use them; which of
two values is newer is decided by versions alone. Source: spec, ingest storage, sections 4.1 to 4.3; instance states are
dskit's; elections, section 8.6.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple


class Version(NamedTuple):
    """A hybrid logical time; greater is newer. Unique: a writer never stamps one twice."""

    ms: int
    """Milliseconds since the Unix epoch, never below what the writer had read."""
    counter: int
    """Tells apart what one millisecond stamped."""
    writer: str
    """Who stamped it; settles the order of two writers' stamps of one moment."""


NEVER = Version(0, 0, "")
"""Below every version that a writer stamps."""


class PartitionState(enum.IntEnum):
    """State of a partition, by its number on the wire."""

    UNKNOWN = 0
    """Never stored on purpose; what a missing field decodes to."""
    PENDING = 1
    """Created, waiting for owners: not written."""
    ACTIVE = 2
    """Written and read."""
    INACTIVE = 3
    """Read only, on its way out."""
    DELETED = 4
    """Gone; kept for a while so that the deletion spreads."""


class OwnerState(enum.IntEnum):
    """State of an owner of a partition, by its number on the wire."""

    UNKNOWN = 0
    """Never stored on purpose."""
    ACTIVE = 1
    """Consumes the partition and answers reads of it."""
    DELETED = 2
    """No longer an owner; kept for a while so that the deletion spreads."""


class InstanceState(enum.IntEnum):
    """State of an instance, by dskit's number."""

    ACTIVE = 0
    """Serves."""
    LEAVING = 1
    """Shutting down."""
    PENDING = 2
    """Registered, not yet started."""
    JOINING = 3
    """Starting: catching up before it serves."""
    LEFT = 4
    """Gone; kept for a while so that the deletion spreads."""


@dataclass(frozen=True, slots=True)
class PartitionDesc:
    """A partition: its state and its lock, two registers."""

    id: int
    """Number of the partition; also of the partition in the log's topic."""
    state: PartitionState = PartitionState.UNKNOWN
    state_timestamp_ms: int = 0
    """When the state last changed (ms since the Unix epoch), by the clock of who changed it."""
    state_version: Version = NEVER
    locked: bool = False
    """While set, nobody may change the state."""
    lock_timestamp_ms: int = 0
    """When the lock last changed (ms since the Unix epoch); 0 if it never did."""
    lock_version: Version = NEVER

    @property
    def key(self) -> str:
        """Name of the entry in the store."""
        return partition_key(self.id)

    @property
    def version(self) -> Version:
        """The newest version of its registers."""
        return max(self.state_version, self.lock_version)

    @property
    def deleted(self) -> bool:
        """Whether this is a tombstone."""
        return self.state is PartitionState.DELETED


@dataclass(frozen=True, slots=True)
class OwnerDesc:
    """That an instance owns, or owned, a partition: one register."""

    instance: str
    """Id of the instance."""
    partition: int
    state: OwnerState = OwnerState.UNKNOWN
    updated_timestamp_ms: int = 0
    """When the state last changed (ms since the Unix epoch); registering again keeps it."""
    version: Version = NEVER

    @property
    def key(self) -> str:
        """Name of the entry in the store."""
        return owner_key(self.instance, self.partition)

    @property
    def deleted(self) -> bool:
        """Whether this is a tombstone."""
        return self.state is OwnerState.DELETED


@dataclass(frozen=True, slots=True)
class InstanceDesc:
    """A process in one of the instance rings: one register, written at each heartbeat."""

    ring: str
    """`ingester`, `distributor` or `querier`."""
    id: str
    state: InstanceState = InstanceState.PENDING
    address: str = ""
    """`host:port` where other processes reach its internal listener."""
    zone: str = ""
    registered_ms: int = 0
    """When it first registered (ms since the Unix epoch); 0 if unknown."""
    heartbeat_ms: int = 0
    """Its newest heartbeat (ms since the Unix epoch), by its own clock."""
    read_only: bool = False
    read_only_updated_ms: int = 0
    """When `read_only` last changed (ms since the Unix epoch); 0 if it never did."""
    version: Version = NEVER

    @property
    def key(self) -> str:
        """Name of the entry in the store."""
        return instance_key(self.ring, self.id)

    @property
    def deleted(self) -> bool:
        """Whether this is a tombstone."""
        return self.state is InstanceState.LEFT

    def alive(self, now_ms: int, heartbeat_timeout_ms: int) -> bool:
        """Tell whether the newest heartbeat is no older than the timeout (`ring.heartbeat_timeout`; 0 is for ever)."""
        return heartbeat_timeout_ms == 0 or now_ms - self.heartbeat_ms <= heartbeat_timeout_ms


@dataclass(frozen=True, slots=True)
class ElectionDesc:
    """Whose samples of a cluster are taken, where several replicas send the same ones: one register."""

    tenant: str
    cluster: str
    """Value of the tenant's cluster label."""
    replica: str = ""
    """Value of the replica label of the one that was elected."""
    received_ms: int = 0
    """When its samples last came in (ms since the Unix epoch), as far as that was written down."""
    elected_ms: int = 0
    """When it was elected (ms since the Unix epoch)."""
    elected_changes: int = 0
    """How often one was elected, the first time included."""
    deleted_ms: int = 0
    """When the cluster was given up, having been silent for long (ms since the Unix epoch); 0: it was not."""
    version: Version = NEVER

    @property
    def key(self) -> str:
        """Name of the entry in the store."""
        return election_key(self.tenant, self.cluster)

    @property
    def deleted(self) -> bool:
        """Whether this is a tombstone."""
        return self.deleted_ms > 0


Entry = PartitionDesc | OwnerDesc | InstanceDesc | ElectionDesc
"""What the ring holds under a key."""


def partition_key(partition: int) -> str:
    """Return the key of a partition's entry."""
    return f"partition/{partition}"


def owner_key(instance: str, partition: int) -> str:
    """Return the key of the entry that says that an instance owns a partition."""
    return f"owner/{instance}/{partition}"


def instance_key(ring: str, instance: str) -> str:
    """Return the key of an instance's entry."""
    return f"instance/{ring}/{instance}"


def election_key(tenant: str, cluster: str) -> str:
    """Return the key of the entry of a cluster's election; tenant ids have no slash."""
    return f"election/{tenant}/{cluster}"


@dataclass(frozen=True, eq=False)
class RingDesc:
    """All entries at one moment, with views of those that are not deleted. Immutable; watchers swap the whole value.

    Two are equal if they hold the same entries.
    """

    entries: Mapping[str, Entry] = field(default_factory=lambda: MappingProxyType({}))
    """By key, tombstones included."""
    newest: Version = NEVER
    """Above this a writer stamps; not lowered when tombstones are dropped."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RingDesc) and self.entries == other.entries

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def partitions(self) -> Mapping[int, PartitionDesc]:
        """Partitions that exist, by number, ascending."""
        found = [e for e in self.entries.values() if isinstance(e, PartitionDesc) and not e.deleted]
        return MappingProxyType({e.id: e for e in sorted(found, key=lambda e: e.id)})

    @cached_property
    def owners(self) -> tuple[OwnerDesc, ...]:
        """Every owner of every partition, by partition, then instance."""
        found = [e for e in self.entries.values() if isinstance(e, OwnerDesc) and not e.deleted]
        return tuple(sorted(found, key=lambda e: (e.partition, e.instance)))

    @cached_property
    def _owners_by_partition(self) -> Mapping[int, tuple[OwnerDesc, ...]]:
        grouped: dict[int, tuple[OwnerDesc, ...]] = {}
        for owner in self.owners:
            grouped[owner.partition] = (*grouped.get(owner.partition, ()), owner)
        return grouped

    @cached_property
    def _partitions_by_owner(self) -> Mapping[str, tuple[int, ...]]:
        grouped: dict[str, tuple[int, ...]] = {}
        for owner in self.owners:
            grouped[owner.instance] = (*grouped.get(owner.instance, ()), owner.partition)
        return grouped

    @cached_property
    def _instances_by_ring(self) -> Mapping[str, Mapping[str, InstanceDesc]]:
        grouped: dict[str, dict[str, InstanceDesc]] = {}
        found = [e for e in self.entries.values() if isinstance(e, InstanceDesc) and not e.deleted]
        for instance in sorted(found, key=lambda e: e.id):
            grouped.setdefault(instance.ring, {})[instance.id] = instance
        return {ring: MappingProxyType(members) for ring, members in grouped.items()}

    def owners_of(self, partition: int) -> tuple[OwnerDesc, ...]:
        """Return a partition's owners, by instance; also of a partition that has no entry."""
        return self._owners_by_partition.get(partition, ())

    def owned_by(self, instance: str) -> tuple[int, ...]:
        """Return the numbers of the partitions that an instance owns, ascending."""
        return self._partitions_by_owner.get(instance, ())

    def instances(self, ring: str) -> Mapping[str, InstanceDesc]:
        """Return the instances of a ring (`ingester`, `distributor`, `querier`) by id, ascending."""
        return self._instances_by_ring.get(ring, MappingProxyType({}))

    @property
    def rings(self) -> tuple[str, ...]:
        """Names of the rings that have an instance, ascending."""
        return tuple(sorted(self._instances_by_ring))

    @cached_property
    def elections(self) -> Mapping[str, Mapping[str, ElectionDesc]]:
        """Elections by tenant, then cluster; both in the order of their names."""
        grouped: dict[str, dict[str, ElectionDesc]] = {}
        found = [e for e in self.entries.values() if isinstance(e, ElectionDesc) and not e.deleted]
        for election in sorted(found, key=lambda e: (e.tenant, e.cluster)):
            grouped.setdefault(election.tenant, {})[election.cluster] = election
        return MappingProxyType(grouped)

    @cached_property
    def corrupted(self) -> tuple[int, ...]:
        """Numbers that have an owner and no partition, ascending; the admin page shows them as corrupted."""
        return tuple(sorted(self._owners_by_partition.keys() - self.partitions.keys()))

    @cached_property
    def states(self) -> Mapping[int, PartitionState]:
        """State of each partition that exists; what `PartitionRing.build` takes."""
        return MappingProxyType({number: p.state for number, p in self.partitions.items()})
