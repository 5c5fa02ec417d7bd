"""Which replica of a cluster is taken: the decisions of the HA tracker. Pure.

    first sight of a cluster            ─► elected, while the tenant has room for one more cluster
    the elected one is still seen       ─► its time is written down again, when what stands there is old
    it is silent, and another one sends ─► that one is elected
    nobody has sent for half an hour    ─► the cluster is given up

Times are a wall clock's (ms since the Unix epoch). Source: spec, ingest storage, section 8.6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from partitions.model import ElectionDesc, RingDesc, election_key

SILENT_MS = 30 * 60 * 1000
"""A cluster of which nothing was written down for so long (ms) is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HaLimits:
    """How one tenant's replicas are told apart and taken turns by. Defaults are Mimir's."""

    cluster_label: bytes = b"cluster"
    replica_label: bytes = b"__replica__"
    max_clusters: int = 100
    """Clusters of the tenant; 0 is no limit."""
    update_timeout_ms: int = 15_000
    """Age from which a cluster's time is written down again."""
    update_timeout_jitter_max_ms: int = 5_000
    """That age is up to so much more, or less, in each process."""
    failover_timeout_ms: int = 30_000
    """Silence of the elected replica after which another one is elected."""
    sample_failover_timeout_ms: int = 0
    """So far must the other one's samples be ahead of the last time of the elected one; 0 does not ask."""


class Sighting(NamedTuple):
    """A request of a replica."""

    replica: str
    seen_ms: int
    """When it came in."""
    sample_ms: int
    """Its earliest sample's time, at most `seen_ms`; where nobody asks for that, `seen_ms`."""


class Sightings(NamedTuple):
    """What one process has seen of a cluster last. However many replicas there are, two are remembered."""

    elected: Sighting | None = None
    """Of the one that was elected when it came."""
    other: Sighting | None = None
    """Of one that was not."""

    def noted(self, sighting: Sighting, elected: str) -> Sightings:
        """Return these with one more, which came while `elected` was."""
        return self._replace(**{"elected" if sighting.replica == elected else "other": sighting})

    def of(self, replica: str) -> Sighting | None:
        """Return the newest one of a replica."""
        return max((s for s in self if s is not None and s.replica == replica), key=_seen_ms, default=None)

    def besides(self, replica: str) -> Sighting | None:
        """Return the newest one of any other replica."""
        return max((s for s in self if s is not None and s.replica != replica), key=_seen_ms, default=None)


def _seen_ms(sighting: Sighting) -> int:
    return sighting.seen_ms


class Candidate(NamedTuple):
    """A replica of a cluster that has no election."""

    tenant: str
    cluster: str
    replica: str
    seen_ms: int


def elected(desc: RingDesc, key: str) -> ElectionDesc | None:
    """Return the election of a cluster by its key; None if there is none, or it was given up."""
    entry = desc.entries.get(key)
    return entry if isinstance(entry, ElectionDesc) and not entry.deleted else None


def has_room(clusters: int, limits: HaLimits) -> bool:
    """Tell whether a tenant with so many clusters may have one more."""
    return not 0 < limits.max_clusters <= clusters


def first_elections(
    desc: RingDesc, candidates: Iterable[Candidate], limits_for: Callable[[str], HaLimits], now_ms: int
) -> list[ElectionDesc]:
    """Return the elections of clusters that have none; the first candidate of a cluster wins."""
    made: dict[str, ElectionDesc] = {}
    clusters: dict[str, int] = {}
    for tenant, cluster, name, seen_ms in candidates:
        key = election_key(tenant, cluster)
        if key in made or elected(desc, key) is not None:
            continue
        count = clusters.setdefault(tenant, len(desc.elections.get(tenant, ())))
        if has_room(count, limits_for(tenant)):
            clusters[tenant] = count + 1
            before = desc.entries.get(key)
            changes = before.elected_changes if isinstance(before, ElectionDesc) else 0
            made[key] = ElectionDesc(tenant, cluster, name, seen_ms, now_ms, changes + 1)
    return list(made.values())


def renewed(
    election: ElectionDesc, seen: Sightings, limits: HaLimits, now_ms: int, *, jitter: float
) -> ElectionDesc | None:
    """Return what should be written down of an election now, or None.

    Parameters
    ----------
    election : ElectionDesc
        As it stands in the store.
    seen : Sightings
        What this process has seen of the cluster.
    jitter : float
        This process's part of the jitter, -1 to 1.
    """
    age_ms = now_ms - election.received_ms
    if age_ms < limits.update_timeout_ms + jitter * limits.update_timeout_jitter_max_ms:
        return None
    own = seen.of(election.replica)
    if own is not None and own.seen_ms > election.received_ms:
        return replace(election, received_ms=own.seen_ms)
    other = seen.besides(election.replica)
    if other is None or age_ms < limits.failover_timeout_ms or other.seen_ms <= election.received_ms:
        return None
    ahead_ms = other.sample_ms - election.received_ms
    if limits.sample_failover_timeout_ms > 0 and ahead_ms < limits.sample_failover_timeout_ms:
        return None
    return replace(
        election,
        replica=other.replica,
        received_ms=other.seen_ms,
        elected_ms=now_ms,
        elected_changes=election.elected_changes + 1,
    )


def renewals(
    desc: RingDesc,
    seen: Mapping[str, Sightings],
    limits_for: Callable[[str], HaLimits],
    now_ms: int,
    *,
    jitter: float,
) -> list[ElectionDesc]:
    """Return what should be written down of all clusters that this process has seen; `seen` by key. See `renewed`."""
    found = ((elected(desc, key), sightings) for key, sightings in seen.items())
    wanted = (
        renewed(election, sightings, limits_for(election.tenant), now_ms, jitter=jitter)
        for election, sightings in found
        if election is not None
    )
    return [election for election in wanted if election is not None]


def given_up(desc: RingDesc, now_ms: int) -> list[ElectionDesc]:
    """Return the tombstones of the clusters that are silent for SILENT_MS."""
    return [
        replace(election, deleted_ms=now_ms)
        for clusters in desc.elections.values()
        for election in clusters.values()
        if now_ms - election.received_ms >= SILENT_MS
    ]
