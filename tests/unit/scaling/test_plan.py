"""The steps of scaling: what is refused, what is waited for, in which order, and when a partition may go."""

import pytest

from mimir_ingest.ingester.drain import Drain
from mimir_ingest.scaling import plan
from partitions.errors import StateChangeLocked
from partitions.merge import join_entries
from partitions.model import PartitionState, RingDesc
from tests.support.ring import edited, ingester, owner, partition, ring_of

NOW_MS = 100_000_000
ACTIVE, INACTIVE, PENDING = PartitionState.ACTIVE, PartitionState.INACTIVE, PartitionState.PENDING
DRAINED = Drain(1, end_offset=7, cut_offset=7, held_samples=0, pending=False)
HELD = Drain(1, end_offset=7, cut_offset=5, held_samples=3, pending=True)


def ring(state=INACTIVE, *more, locked=False):
    return ring_of(partition(0, ACTIVE), partition(1, state, NOW_MS - 60_000, locked=locked), *more)


def downscale(desc, **changed):
    facts = {
        "partition": 1,
        "fence_left_s": 0.0,
        "drain": DRAINED,
        "cut_appended": False,
        "numbered": True,
        "heartbeat_timeout_ms": 60_000,
        "now_ms": NOW_MS,
    }
    return plan.plan_downscale(plan.DownscaleFacts(desc=desc, **facts | changed))


@pytest.mark.parametrize(
    ("desc", "number", "reason"),
    [
        (ring_of(partition(0, ACTIVE)), 0, "the last ACTIVE one"),
        (ring_of(partition(0, ACTIVE), partition(1, INACTIVE), partition(2, PENDING)), 0, "the last ACTIVE one"),
        (ring(PENDING), 1, "PENDING"),
        (ring(ACTIVE, locked=True), 1, "locked"),
        (ring(INACTIVE, locked=True), 1, "locked"),
        (ring(), 9, "no partition 9 in the ring; there are: 0, 1"),
    ],
)
def test_what_would_lose_data_or_cannot_be_is_refused(desc, number, reason):
    step = downscale(desc, partition=number)
    assert isinstance(step, plan.Refuse)
    assert reason in step.reason


def test_the_steps_come_in_their_order():
    assert downscale(ring(ACTIVE)) == plan.Deactivate()
    fence = downscale(ring(), fence_left_s=19.6, drain=None)
    assert isinstance(fence, plan.Wait)
    assert fence.reason.startswith("20 s")
    assert downscale(ring(), drain=HELD) == plan.AppendCut()
    waiting = downscale(ring(), drain=HELD, cut_appended=True)
    assert "offset 7 to be in blocks (blocks reach offset 5" in waiting.reason
    assert isinstance(downscale(ring()), plan.Remove)


def test_a_drain_that_was_not_looked_at_behind_the_fence_does_not_count():
    assert isinstance(downscale(ring(), fence_left_s=0.1, drain=DRAINED), plan.Wait)
    assert isinstance(downscale(ring(), drain=None), plan.Wait)


def test_the_fixed_wait_counts_from_the_change_of_state():
    step = downscale(ring(), wait_fixed_ms=13 * 3_600_000)
    assert isinstance(step, plan.Wait)
    assert "12h59m" in step.reason
    assert isinstance(downscale(ring(), wait_fixed_ms=60_000), plan.Remove)


def test_an_ingester_that_keeps_the_partition_of_its_number_has_to_stop_first():
    running = ingester("ing-1", heartbeat_ms=NOW_MS - 1000)
    step = downscale(ring(INACTIVE, running, owner("ing-1", 1)))
    assert isinstance(step, plan.Wait)
    assert "stop ing-1" in step.asks
    gone = ingester("ing-1", heartbeat_ms=NOW_MS - 61_000)
    assert isinstance(downscale(ring(INACTIVE, gone, owner("ing-1", 1))), plan.Remove)
    assert isinstance(downscale(ring(INACTIVE, owner("ing-1", 1))), plan.Remove)
    assert isinstance(downscale(ring(INACTIVE, running, owner("ing-1", 1)), numbered=False), plan.Remove)


def removed(desc):
    return edited(desc, plan.removal(desc, desc.partitions[1], NOW_MS, 60_000), now_ms=NOW_MS)


def test_the_removal_takes_owners_that_are_gone_and_leaves_those_that_run_to_let_go():
    running = ingester("lease-a", heartbeat_ms=NOW_MS)
    desc = removed(ring(INACTIVE, running, owner("lease-a", 1), owner("lost", 1)))
    assert list(desc.partitions) == [0]
    assert [o.instance for o in desc.owners_of(1)] == ["lease-a"]
    step = downscale(desc, numbered=False)
    assert "lease-a to let go" in step.reason
    assert isinstance(downscale(removed(ring(INACTIVE))), plan.Done)


def test_a_partition_that_was_changed_since_it_was_judged_is_not_removed():
    desc = ring()
    judged = desc.partitions[1]
    again = edited(desc, [partition(1, ACTIVE, NOW_MS)], now_ms=NOW_MS)
    with pytest.raises(ValueError, match="changed meanwhile: it is ACTIVE"):
        plan.removal(again, judged, NOW_MS, 60_000)
    locked = ring(INACTIVE, locked=True)
    with pytest.raises(StateChangeLocked):
        plan.removal(locked, locked.partitions[1], NOW_MS, 60_000)
    assert plan.removal(RingDesc(), judged, NOW_MS, 60_000) == []


def test_owners_ids_tell_whether_partitions_are_numbered():
    assert plan.looks_numbered(ring(INACTIVE, owner("ingester-zone-a-1", 1), owner("b-1", 1)), 1)
    assert not plan.looks_numbered(ring(INACTIVE, owner("ingester-zone-a-1", 1), owner("host:8080", 1)), 1)
    assert not plan.looks_numbered(ring(INACTIVE, owner("a-2", 1)), 1)
    assert not plan.looks_numbered(ring(), 1)


def upscale(desc, partitions=3, topic_partitions=3, numbered=False):
    return plan.plan_upscale(
        plan.UpscaleFacts(desc=desc, partitions=partitions, topic_partitions=topic_partitions, numbered=numbered)
    )


def test_partitions_are_added_to_the_log_then_to_the_ring_and_waited_for():
    desc = ring(ACTIVE)
    assert upscale(desc, topic_partitions=2) == plan.AddTopicPartitions(3)
    assert upscale(desc) == plan.Create((2,))
    desc = join_entries(desc, [partition(2, PENDING)])
    assert "partitions 2 to become ACTIVE" in upscale(desc).reason
    desc = ring_of(partition(0, ACTIVE), partition(1, ACTIVE), partition(2, ACTIVE))
    assert upscale(desc) == plan.Done("partitions 0 to 2 are ACTIVE")


def test_one_that_is_on_its_way_out_is_taken_back():
    assert upscale(ring(INACTIVE), partitions=2) == plan.Reactivate(1)
    assert "locked" in upscale(ring(INACTIVE, locked=True), partitions=2).reason


def test_where_ingesters_bring_their_partitions_they_are_asked_for():
    step = upscale(ring(ACTIVE), numbered=True)
    assert isinstance(step, plan.Wait)
    assert "ends in -N for each of these: 2" in step.asks


def test_fewer_partitions_than_there_are_is_another_command():
    assert "downscale --partition 1" in upscale(ring(ACTIVE), partitions=1).reason
