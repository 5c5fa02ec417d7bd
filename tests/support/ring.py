"""Rings by hand and by hypothesis: entries with few names, so that they meet."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import strategies as st

from partitions.clock import HybridClock
from partitions.merge import join_entries, stamp
from partitions.model import (
    ElectionDesc,
    Entry,
    InstanceDesc,
    InstanceState,
    OwnerDesc,
    OwnerState,
    PartitionDesc,
    PartitionState,
    RingDesc,
    Version,
)


def ring_of(*entries: Entry) -> RingDesc:
    """The document that holds these entries, as they are."""
    return join_entries(RingDesc(), entries)


def edited(desc: RingDesc, entries: Iterable[Entry], *, writer: str = "test", now_ms: int = 0) -> RingDesc:
    """The document after an edit that nobody interfered with."""
    version = HybridClock(writer).next(now_ms, desc.newest)
    stamped = (stamp(desc.entries.get(entry.key), entry, version) for entry in entries)
    return join_entries(desc, [entry for entry in stamped if entry is not None])


def partition(number: int, state: PartitionState, since_ms: int = 0, *, locked: bool = False) -> PartitionDesc:
    """A partition in a state, stamped."""
    version = Version(1, number, "test")
    return PartitionDesc(number, state, since_ms, version, locked, 0, version)


def owner(instance: str, number: int, since_ms: int = 0, *, version_ms: int = 1) -> OwnerDesc:
    """An owner of a partition, stamped."""
    return OwnerDesc(instance, number, OwnerState.ACTIVE, since_ms, Version(version_ms, number, instance))


def ingester(
    name: str,
    zone: str = "",
    *,
    state: InstanceState = InstanceState.ACTIVE,
    heartbeat_ms: int = 0,
    read_only: bool = False,
) -> InstanceDesc:
    """An instance of the ingesters' ring, stamped."""
    address = f"{name}:9095"
    return InstanceDesc("ingester", name, state, address, zone, 0, heartbeat_ms, read_only, 0, Version(1, 0, name))


def election(
    cluster: str, replica: str, *, tenant: str = "t", received_ms: int = 0, elected_ms: int = 0
) -> ElectionDesc:
    """An election, stamped."""
    return ElectionDesc(tenant, cluster, replica, received_ms, elected_ms, 1, version=Version(1, 0, "test"))


WRITERS = ("ingester-zone-a-0", "ingester-zone-b-0", "distributor-1")

versions = st.builds(Version, st.integers(1, 3), st.integers(0, 2), st.sampled_from(WRITERS))
"""Few, so that the same one comes twice, in one millisecond and out of order."""

times_ms = st.integers(0, 3)

partition_values = st.builds(
    PartitionDesc,
    st.just(0),
    st.sampled_from(PartitionState),
    times_ms,
    versions,
    st.booleans(),
    times_ms,
    versions,
)
owner_values = st.builds(
    OwnerDesc, st.just("ingester-zone-a-0"), st.just(0), st.sampled_from(OwnerState), times_ms, versions
)
instance_values = st.builds(
    InstanceDesc,
    st.just("ingester"),
    st.just("ingester-zone-a-0"),
    st.sampled_from(InstanceState),
    st.sampled_from(["", "a:9095"]),
    st.sampled_from(["", "zone-a"]),
    times_ms,
    times_ms,
    st.booleans(),
    times_ms,
    versions,
)
election_values = st.builds(
    ElectionDesc,
    st.just("tenant"),
    st.just("a/b\tc"),
    st.sampled_from(["r0", "r1", ""]),
    times_ms,
    times_ms,
    times_ms,
    times_ms,
    versions,
)
"""Values of one entry each, so that any two join."""

entry_values = (partition_values, owner_values, instance_values, election_values)
several_values = st.one_of(*(st.lists(values, min_size=1, max_size=6) for values in entry_values))
