"""The next step of taking a partition out of the ring, or of adding some. Pure: facts in, one step out.

    downscale   ACTIVE ─► INACTIVE ─► 20 s (the fence) ─► cut record ─► all in blocks ─► [fixed wait] ─► removed
    upscale     topic partitions ─► PENDING, or INACTIVE ─► ACTIVE

There is no memory: every step is decided from the ring, the log and the bucket as they are, so a procedure that was
interrupted goes on where it stood, and several at a time do no harm. Once a partition is INACTIVE for 20 s no
distributor acknowledges a write to it (architecture, section 6), and once all of its log is in blocks queries no longer
need its owners; then it can go.
"""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ingest.ingester.drain import Drain
from partitions.edits import remove_owner, remove_partition
from partitions.errors import InvalidInstanceId
from partitions.lifecycle import partition_of
from partitions.model import Entry, PartitionDesc, PartitionState, RingDesc, partition_key


@dataclass(frozen=True, slots=True)
class Refuse:
    """It cannot be done; nothing was changed by this step."""

    reason: str


@dataclass(frozen=True, slots=True)
class Deactivate:
    """Make the partition INACTIVE."""


@dataclass(frozen=True, slots=True)
class AppendCut:
    """Append a record that cuts everything held."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again soon."""

    reason: str
    """What is waited for."""
    asks: str = ""
    """What somebody has to do for it to end; empty if it ends by itself."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the partition, as it was judged, from the ring; and owners that are gone."""

    judged: PartitionDesc


@dataclass(frozen=True, slots=True)
class AddTopicPartitions:
    """Add partitions to the log's topic."""

    total: int


@dataclass(frozen=True, slots=True)
class Create:
    """Add PENDING partitions to the ring."""

    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reactivate:
    """Make an INACTIVE partition ACTIVE."""

    partition: int


@dataclass(frozen=True, slots=True)
class Done:
    """Everything is as wanted."""

    summary: str


DownscaleStep = Refuse | Deactivate | AppendCut | Wait | Remove | Done
UpscaleStep = Refuse | AddTopicPartitions | Create | Reactivate | Wait | Done


@dataclass(frozen=True, slots=True, kw_only=True)
class DownscaleFacts:
    """What the next step of a downscale is decided from."""

    desc: RingDesc
    partition: int
    fence_left_s: float
    """Seconds until nothing more is acknowledged to the partition; 0 then. Meaningless unless it is INACTIVE."""
    drain: Drain | None
    """What log and bucket say, looked at behind the fence; None before it."""
    cut_appended: bool
    """Whether this run appended a cut record behind the fence."""
    wait_fixed_ms: int = 0
    """How long the partition has to be INACTIVE besides (ms)."""
    numbered: bool
    """Whether an ingester owns the partition of its number, and would create it again while it runs."""
    heartbeat_timeout_ms: int
    now_ms: int


def plan_downscale(facts: DownscaleFacts) -> DownscaleStep:
    """Return the next step of taking a partition out of the ring."""
    desc, number = facts.desc, facts.partition
    partition = desc.partitions.get(number)
    if partition is None:
        return _plan_gone(facts)
    if partition.locked:
        return Refuse(f"the state of partition {number} is locked; unlock it on /ingester/partition-ring")
    match partition.state:
        case PartitionState.PENDING:
            return Refuse(f"partition {number} is PENDING: wait until it is ACTIVE, or stop the ingester that adds it")
        case PartitionState.ACTIVE:
            if not other_active(desc, number):
                return Refuse(f"partition {number} is the last ACTIVE one; without it no write would be taken")
            return Deactivate()
    if facts.fence_left_s > 0:
        return Wait(f"{facts.fence_left_s:.0f} s, until no distributor writes to partition {number} any more")
    if facts.drain is None:
        return Wait("log and bucket to say what is left of the partition")
    if not facts.drain.drained:
        if not facts.cut_appended:
            return AppendCut()
        return Wait(_undrained(facts.drain, bool(desc.owners_of(number))))
    left_ms = partition.state_timestamp_ms + facts.wait_fixed_ms - facts.now_ms
    if facts.wait_fixed_ms and left_ms > 0:
        return Wait(f"the fixed wait: {_minutes(left_ms)} more")
    running = _running_owners(facts)
    if facts.numbered and running:
        return Wait(
            f"partition {number} is drained; {', '.join(running)} to stop",
            asks=f"stop {', '.join(running)}: a running ingester keeps the partition of its number",
        )
    return Remove(partition)


def _plan_gone(facts: DownscaleFacts) -> DownscaleStep:
    number = facts.partition
    if (running := _running_owners(facts)) and not facts.numbered:
        return Wait(f"{', '.join(running)} to let go of partition {number}")
    if partition_key(number) in facts.desc.entries:
        return Done(f"partition {number} is out of the ring")
    known = ", ".join(map(str, facts.desc.partitions)) or "none"
    return Refuse(f"there is no partition {number} in the ring; there are: {known}")


def other_active(desc: RingDesc, number: int) -> bool:
    """Tell whether another partition than this one is ACTIVE."""
    return any(p.state is PartitionState.ACTIVE for p in desc.partitions.values() if p.id != number)


def _undrained(drain: Drain, owned: bool) -> str:
    at = "no cut yet" if drain.cut_offset is None else f"blocks reach offset {drain.cut_offset}"
    nobody = "" if owned else "; nobody owns it, a running ingester adopts it"
    return f"everything up to offset {drain.end_offset} to be in blocks ({at}{nobody})"


def _running_owners(facts: DownscaleFacts) -> list[str]:
    """Return the owners whose instances are in their ring and alive."""
    instances = facts.desc.instances("ingester")
    return [
        owner.instance
        for owner in facts.desc.owners_of(facts.partition)
        if owner.instance in instances and instances[owner.instance].alive(facts.now_ms, facts.heartbeat_timeout_ms)
    ]


def removal(desc: RingDesc, judged: PartitionDesc, now_ms: int, heartbeat_timeout_ms: int) -> list[Entry]:
    """Return the edit that removes a partition that was judged to be drained, with owners whose instances are gone.

    Nothing if it is gone already. Raises StateChangeLocked; ValueError if somebody changed it since.
    """
    known = desc.partitions.get(judged.id)
    if known is None:
        return []
    if (known.state, known.state_version) != (judged.state, judged.state_version):
        raise ValueError(f"partition {judged.id} was changed meanwhile: it is {known.state.name} now")
    instances = desc.instances("ingester")
    gone = [
        owner.instance
        for owner in desc.owners_of(judged.id)
        if owner.instance not in instances or not instances[owner.instance].alive(now_ms, heartbeat_timeout_ms)
    ]
    entries = remove_partition(desc, judged.id, now_ms)
    return entries + [entry for instance in gone for entry in remove_owner(desc, instance, judged.id, now_ms)]


def looks_numbered(desc: RingDesc, partition: int) -> bool:
    """Tell whether all owners of a partition have its number at the end of their ids; what to assume if nobody says."""
    owners = desc.owners_of(partition)
    return bool(owners) and all(_ends_in(owner.instance, partition) for owner in owners)


def _ends_in(instance: str, partition: int) -> bool:
    try:
        return partition_of(instance) == partition
    except InvalidInstanceId:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleFacts:
    """What the next step of an upscale is decided from."""

    desc: RingDesc
    partitions: int
    """How many there should be, 0..partitions-1."""
    topic_partitions: int
    """How many the log has."""
    numbered: bool
    """Whether partitions are added by ingesters of their number."""


def plan_upscale(facts: UpscaleFacts) -> UpscaleStep:
    """Return the next step of having all partitions 0..n-1 ACTIVE."""
    desc, wanted = facts.desc, range(facts.partitions)
    beyond = [p.id for p in desc.partitions.values() if p.id >= facts.partitions and p.state is PartitionState.ACTIVE]
    if beyond:
        return Refuse(
            f"partition {beyond[-1]} is ACTIVE beyond that; take it out with downscale --partition {beyond[-1]}"
        )
    if facts.topic_partitions < facts.partitions:
        return AddTopicPartitions(facts.partitions)
    missing = tuple(number for number in wanted if number not in desc.partitions)
    if missing and not facts.numbered:
        return Create(missing)
    for number in wanted:
        partition = desc.partitions.get(number)
        if partition is not None and partition.state is not PartitionState.ACTIVE and partition.locked:
            return Refuse(f"the state of partition {number} is locked; unlock it on /ingester/partition-ring")
        if partition is not None and partition.state is PartitionState.INACTIVE:
            return Reactivate(number)
    if missing:
        names = ", ".join(map(str, missing))
        return Wait(
            f"ingesters of partitions {names}", asks=f"start an ingester whose id ends in -N for each of these: {names}"
        )
    pending = [number for number in wanted if desc.partitions[number].state is not PartitionState.ACTIVE]
    if pending:
        return Wait(
            f"partitions {', '.join(map(str, pending))} to become ACTIVE: each needs an owner that has caught up"
        )
    return Done(f"partitions 0 to {facts.partitions - 1} are ACTIVE")


def _minutes(ms: int) -> str:
    minutes = -(-ms // 60_000)
    return f"{minutes // 60}h{minutes % 60}m" if minutes >= 60 else f"{minutes}m"
