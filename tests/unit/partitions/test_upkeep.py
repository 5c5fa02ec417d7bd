from dataclasses import replace

import pytest

from partitions.codec import encode
from partitions.kv.contract import RingRecord
from partitions.model import ElectionDesc, OwnerDesc, OwnerState, PartitionDesc, PartitionState, RingDesc, Version
from partitions.replica import Replica
from partitions.upkeep import SETTLED_MS, keeper, plan_upkeep
from tests.support.ring import ingester, ring_of

TIMEOUT_MS = 60_000
A, B, DEAD = "ingester-0", "ingester-1", "ingester-9"
LIVE = OwnerDesc(DEAD, 0, OwnerState.ACTIVE, 1, Version(1, 0, DEAD))
GONE = OwnerDesc(DEAD, 0, OwnerState.DELETED, 2, Version(2, 0, B))
SETTLED = SETTLED_MS + 2


def record(entry, writer):
    return RingRecord(entry.key, writer, encode(entry))


def members(now_ms):
    """Records of two instances that are alive at this time."""
    return [
        record(replace(ingester(name, heartbeat_ms=now_ms), version=Version(now_ms, 0, name)), name) for name in (A, B)
    ]


def replica_of(*records):
    replica = Replica()
    replica.apply(records)
    return replica


def plan(replica, me, now_ms):
    return plan_upkeep(replica, me, now_ms, TIMEOUT_MS)


def test_the_keeper_is_the_first_writer_that_keeps_an_alive_instance():
    ring = ring_of(ingester(B, heartbeat_ms=100_000), ingester(A, heartbeat_ms=0))
    assert keeper(ring, 60_000, TIMEOUT_MS) == A
    assert keeper(ring, 100_000, TIMEOUT_MS) == B
    assert keeper(ring, 160_001, TIMEOUT_MS) is None
    assert keeper(ring, 160_001, 0) == A
    assert keeper(RingDesc(), 0, TIMEOUT_MS) is None


def test_the_keeper_is_known_by_the_name_that_its_process_writes_under():
    ring = ring_of(replace(ingester("a-distributor"), version=Version(1, 0, B)), ingester(B))
    assert keeper(ring, 0, TIMEOUT_MS) == B


def test_nothing_is_nulled_before_it_is_a_day_old():
    replica = replica_of(*members(SETTLED), record(LIVE, DEAD), record(GONE, B))
    assert plan(replica, A, SETTLED - 2) == []
    assert plan(replica, A, SETTLED - 1) == [RingRecord(GONE.key, DEAD, None)]


def test_old_records_of_a_key_that_changes_all_the_time_are_nulled():
    old, newer = (ElectionDesc("t", "c", "r0", version=Version(ms, 0, "w")) for ms in (1, SETTLED))
    replica = replica_of(*members(SETTLED), record(old, DEAD), record(old, B), record(newer, A))
    assert plan(replica, A, SETTLED) == [RingRecord(old.key, DEAD, None)]
    assert plan(replica, B, SETTLED) == [RingRecord(old.key, B, None)]
    replica.apply(plan(replica, A, SETTLED) + plan(replica, B, SETTLED))
    assert plan(replica, A, 2 * SETTLED - 1) == plan(replica, B, 2 * SETTLED - 1) == []


def test_who_lives_may_stand_in_another_document():
    elected = ElectionDesc("t", "c", "r0", version=Version(1, 0, B))
    newer = replace(elected, version=Version(2, 0, A))
    replica = replica_of(record(elected, DEAD), record(elected, B), record(newer, A))
    others = replica_of(*members(SETTLED)).desc
    assert plan_upkeep(replica, B, SETTLED, TIMEOUT_MS, members=others) == [RingRecord(newer.key, B, None)]
    assert plan_upkeep(replica, A, SETTLED, TIMEOUT_MS, members=others) == [RingRecord(newer.key, DEAD, None)]


def test_a_tombstone_is_nulled_only_after_the_nulls_of_the_others_were_read_back():
    replica = replica_of(*members(SETTLED), record(LIVE, DEAD), record(GONE, B))
    assert plan(replica, B, SETTLED) == [], "another's record is the keeper's, and its own is needed"
    first = plan(replica, A, SETTLED)
    assert first == [RingRecord(GONE.key, DEAD, None)]
    replica.apply(first)
    assert plan(replica, A, SETTLED) == [], "the tombstone's writer is in the ring"
    last = plan(replica, B, SETTLED)
    assert last == [RingRecord(GONE.key, B, None)]
    replica.apply(last)
    assert GONE.key not in replica.desc.entries
    assert plan(replica, A, SETTLED) == plan(replica, B, SETTLED) == []


def test_of_records_of_one_value_one_stays():
    live = replace(LIVE, instance=A)
    replica = replica_of(*members(SETTLED), record(live, A), record(live, B), record(live, DEAD))
    assert plan(replica, A, SETTLED) == [RingRecord(live.key, DEAD, None)]
    assert plan(replica, B, SETTLED) == [RingRecord(live.key, B, None)]


def test_registers_changed_apart_are_written_together_before_anything_is_nulled():
    state = PartitionDesc(0, PartitionState.DELETED, 2, Version(2, 0, A), False, 0, Version(1, 0, A))
    locked = PartitionDesc(0, PartitionState.ACTIVE, 1, Version(1, 0, A), True, 2, Version(2, 0, B))
    replica = replica_of(*members(SETTLED), record(state, A), record(locked, B))
    whole = replica.desc.entries["partition/0"]
    assert (whole.state, whole.locked) == (PartitionState.DELETED, True)
    assert plan(replica, B, SETTLED) == [], "the keeper does it"
    written = plan(replica, A, SETTLED)
    assert written == [record(whole, A)]
    replica.apply(written)
    assert plan(replica, A, SETTLED) == []
    assert plan(replica, B, SETTLED) == [RingRecord("partition/0", B, None)]


@pytest.mark.parametrize("me", [A, B])
def test_what_late_readers_lack_is_written_again_by_the_keeper_and_by_who_changed_it(me):
    mine = replace(LIVE, version=Version(1, 0, B))
    replica = replica_of(*members(1), record(mine, B), RingRecord(mine.key, B, None))
    assert plan(replica, me, 2) == [record(mine, me)]
    replica.apply(plan(replica, me, 2))
    assert replica.lacking() == []


@pytest.mark.parametrize("me", [A, B])
def test_a_repair_is_written_once_and_leaves_no_null_at_its_key(me):
    replica = replica_of(*members(SETTLED), record(GONE, B), record(LIVE, B))
    assert plan(replica, me, SETTLED) == [record(GONE, me)]


def test_without_anybody_alive_whoever_runs_is_the_keeper():
    replica = replica_of(record(GONE, DEAD))
    assert plan(replica, "cli", SETTLED) == [RingRecord(GONE.key, DEAD, None)]
