from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partitions import edits
from partitions.errors import InvalidInstanceId
from partitions.lifecycle import LifecycleKnobs, expired, leave, partition_of, step
from partitions.model import PartitionState, RingDesc
from tests.support.ring import edited, owner, partition, ring_of

PENDING, ACTIVE, INACTIVE = PartitionState.PENDING, PartitionState.ACTIVE, PartitionState.INACTIVE
KNOBS = LifecycleKnobs()
HOUR_MS = 3_600_000
ME, OTHER = "ingester-zone-a-3", "ingester-zone-b-3"


def stepped(desc, now_ms, *, instance=ME, own=(3,), knobs=KNOBS, needed=()):
    return edited(desc, step(desc, instance, own, knobs, now_ms, needed=needed), writer=instance, now_ms=now_ms)


def states(desc):
    return {number: p.state for number, p in desc.partitions.items()}


class TestPartitionOf:
    @pytest.mark.parametrize(
        ("instance", "number"),
        [
            ("ingester-zone-a-13", 13),
            ("ingester-zone-b-13", 13),
            ("i-0", 0),
            ("-007", 7),
            ("a-1-2147483647", 2147483647),
        ],
    )
    def test_it_is_the_number_at_the_end(self, instance, number):
        assert partition_of(instance) == number

    @pytest.mark.parametrize(
        "instance", ["", "ingester", "13", "ingester-13.svc.local", "i-2147483648", "i-1\n", "i-٣", "i-", "i-1-"]
    )
    def test_without_one_it_is_refused_with_advice(self, instance):
        with pytest.raises(InvalidInstanceId, match="ownership: leases"):
            partition_of(instance)


class TestOwnPartition:
    def test_a_missing_one_is_created_and_owned_at_once(self):
        desc = stepped(RingDesc(), 1000)
        assert states(desc) == {3: PENDING}
        assert desc.partitions[3].state_timestamp_ms == 1000
        assert [(o.instance, o.updated_timestamp_ms) for o in desc.owners_of(3)] == [(ME, 1000)]

    def test_it_becomes_active_once_its_owner_is_there_for_longer_than_the_duration(self):
        desc = stepped(RingDesc(), 1000)
        assert step(desc, ME, [3], KNOBS, 11_000) == []
        desc = stepped(desc, 11_001)
        assert states(desc) == {3: ACTIVE}
        assert desc.partitions[3].state_timestamp_ms == 11_001
        assert step(desc, ME, [3], KNOBS, 20_000) == []

    def test_it_waits_for_as_many_owners_as_are_asked_for(self):
        knobs = replace(KNOBS, min_partition_owners_count=2)
        desc = stepped(RingDesc(), 1000, knobs=knobs)
        desc = stepped(desc, 60_000, knobs=knobs)
        assert states(desc) == {3: PENDING}
        desc = stepped(desc, 60_000, instance=OTHER, knobs=knobs)
        desc = stepped(desc, 70_000, knobs=knobs)
        assert states(desc) == {3: PENDING}, "the second owner is there for exactly the duration"
        assert states(stepped(desc, 70_001, knobs=knobs)) == {3: ACTIVE}

    def test_with_none_asked_for_it_becomes_active_at_the_next_step(self):
        knobs = replace(KNOBS, min_partition_owners_count=0)
        assert states(stepped(stepped(RingDesc(), 1000, knobs=knobs), 1001, knobs=knobs)) == {3: ACTIVE}

    def test_a_locked_one_stays_pending(self):
        desc = stepped(RingDesc(), 1000)
        desc = edited(desc, edits.lock(desc, 3, True, 2000), now_ms=2000)
        assert step(desc, ME, [3], KNOBS, HOUR_MS) == []
        desc = edited(desc, edits.lock(desc, 3, False, 3000), now_ms=3000)
        assert states(stepped(desc, HOUR_MS)) == {3: ACTIVE}

    def test_one_that_vanished_while_running_is_created_again(self):
        desc = stepped(stepped(RingDesc(), 1000), 20_000)
        desc = edited(desc, edits.remove_partition(desc, 3, 30_000), now_ms=30_000)
        assert desc.corrupted == (3,)
        desc = stepped(desc, 31_000)
        assert states(desc) == {3: PENDING}
        assert states(stepped(desc, 32_000)) == {3: ACTIVE}, "its owner has been there all the time"

    def test_an_owner_that_someone_took_away_registers_again(self):
        desc = stepped(stepped(RingDesc(), 1000), 20_000)
        desc = edited(desc, edits.remove_owner(desc, ME, 3, 30_000), now_ms=30_000)
        assert [o.updated_timestamp_ms for o in stepped(desc, 31_000).owners_of(3)] == [31_000]

    @pytest.mark.parametrize("state", [ACTIVE, INACTIVE])
    def test_another_state_is_left_as_it_is_however_old(self, state):
        desc = ring_of(partition(3, state), owner(ME, 3))
        assert step(desc, ME, [3], KNOBS, 1000 * HOUR_MS) == []

    def test_with_the_shutdown_marker_it_waits_until_somebody_else_creates_the_partition(self):
        knobs = replace(KNOBS, create_partition=False)
        assert step(RingDesc(), ME, [3], knobs, 1000) == []
        desc = stepped(RingDesc(), 1000, instance=OTHER)
        desc = stepped(desc, 2000, knobs=knobs)
        assert [o.instance for o in desc.owners_of(3)] == [ME, OTHER]

    def test_several_are_looked_after_at_once(self):
        desc = stepped(ring_of(partition(5, PENDING), owner(ME, 5)), 60_000, own=[3, 5, 9])
        assert states(desc) == {3: PENDING, 5: ACTIVE, 9: PENDING}
        assert desc.owned_by(ME) == (3, 5, 9)


class TestOtherPartitions:
    after_ms = KNOBS.delete_inactive_partition_after_ms

    def test_an_old_inactive_one_without_owners_is_removed(self):
        desc = ring_of(partition(9, INACTIVE, 1000))
        assert step(desc, ME, [], KNOBS, 1000 + self.after_ms) == []
        assert states(stepped(desc, 1001 + self.after_ms, own=[])) == {}

    @pytest.mark.parametrize(
        "kept",
        [
            (partition(9, INACTIVE, 1000), owner(OTHER, 9)),
            (partition(9, INACTIVE, 1000, locked=True),),
            (partition(9, ACTIVE, 1000),),
            (partition(9, PENDING, 1000),),
        ],
        ids=["owned", "locked", "active", "pending"],
    )
    def test_every_other_one_stays(self, kept):
        assert step(ring_of(*kept), ME, [], KNOBS, 1000 * HOUR_MS) == []

    def test_an_own_one_and_one_whose_records_are_needed_stay(self):
        desc = ring_of(partition(9, INACTIVE, 1000), partition(10, INACTIVE, 1000))
        knobs = replace(KNOBS, create_partition=False)
        assert step(desc, ME, [], knobs, 1000 * HOUR_MS, needed=[9, 10]) == []
        assert states(stepped(desc, 1000 * HOUR_MS, own=[9])) == {9: INACTIVE}

    def test_0_never_removes(self):
        knobs = replace(KNOBS, delete_inactive_partition_after_ms=0)
        assert step(ring_of(partition(9, INACTIVE)), ME, [], knobs, 1000 * HOUR_MS) == []
        assert not expired(partition(9, INACTIVE), 0, 1000 * HOUR_MS)


class TestLeave:
    desc = ring_of(owner(ME, 3), owner(ME, 9), owner(OTHER, 3))

    def test_all_partitions_are_left(self):
        left = edited(self.desc, leave(self.desc, ME, 10), now_ms=10)
        assert left.owned_by(ME) == ()
        assert left.owned_by(OTHER) == (3,)

    def test_only_the_named_ones_are_left(self):
        left = edited(self.desc, leave(self.desc, ME, 10, partitions=[9, 11]), now_ms=10)
        assert left.owned_by(ME) == (3,)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([ME, OTHER, "ingester-zone-a-1"]),
            st.sampled_from(["step", "step", "leave", "lock", "unlock", "inactive", "active"]),
            st.sampled_from([0, 5_000, 20_000, 14 * HOUR_MS]),
        ),
        max_size=25,
    )
)
def test_a_step_after_a_step_changes_nothing_and_only_allowed_transitions_happen(actions):
    desc, now_ms = RingDesc(), 1_000_000
    allowed = {
        (PENDING, ACTIVE),
        (PENDING, INACTIVE),
        (ACTIVE, INACTIVE),
        (INACTIVE, ACTIVE),
        (None, PENDING),
        (INACTIVE, None),
    }
    for instance, action, pause_ms in actions:
        now_ms += pause_ms
        own = [partition_of(instance)]
        before = desc
        if action == "step":
            desc = stepped(desc, now_ms, instance=instance, own=own)
            again = stepped(desc, now_ms, instance=instance, own=own)
            assert again is desc
        elif action == "leave":
            desc = edited(desc, leave(desc, instance, now_ms), now_ms=now_ms)
        elif own[0] in desc.partitions:
            locked = desc.partitions[own[0]].locked
            if action in ("lock", "unlock"):
                desc = edited(desc, edits.lock(desc, own[0], action == "lock", now_ms), now_ms=now_ms)
            elif not locked:
                state = INACTIVE if action == "inactive" else ACTIVE
                desc = edited(desc, edits.change_state(desc, own[0], state, now_ms), now_ms=now_ms)
        for number in before.partitions.keys() | desc.partitions.keys():
            old, new = before.partitions.get(number), desc.partitions.get(number)
            change = (old and old.state, new and new.state)
            assert change[0] is change[1] or change in allowed
            assert change[0] is change[1] or old is None or not old.locked
