from dataclasses import replace
from itertools import product

import pytest

from partitions import edits
from partitions.errors import PartitionDoesNotExist, StateChangeLocked, TransitionNotAllowed
from partitions.model import InstanceDesc, InstanceState, OwnerState, PartitionState, RingDesc
from tests.support.ring import edited, ingester, owner, partition, ring_of

PENDING, ACTIVE, INACTIVE = PartitionState.PENDING, PartitionState.ACTIVE, PartitionState.INACTIVE
ALLOWED = {(PENDING, ACTIVE), (PENDING, INACTIVE), (ACTIVE, INACTIVE), (INACTIVE, ACTIVE)}
NOW_MS = 1000


@pytest.mark.parametrize(("old", "new"), sorted(product(PartitionState, PartitionState)))
def test_the_table_of_transitions(old, new):
    if old is PartitionState.DELETED:
        return
    desc = ring_of(partition(3, old, 5))
    if old is new:
        assert edits.change_state(desc, 3, new, NOW_MS) == []
    elif (old, new) in ALLOWED:
        (wanted,) = edits.change_state(desc, 3, new, NOW_MS)
        assert (wanted.id, wanted.state, wanted.state_timestamp_ms, wanted.locked) == (3, new, NOW_MS, False)
    else:
        with pytest.raises(TransitionNotAllowed, match=r"^partition state change not allowed") as refused:
            edits.change_state(desc, 3, new, NOW_MS)
        assert (refused.value.old, refused.value.new) == (old.name, new.name)
        assert refused.value.http_status == 400


@pytest.mark.parametrize("gone", [RingDesc(), ring_of(partition(3, PartitionState.DELETED))])
def test_a_partition_that_is_not_there_is_refused_by_every_edit_of_it(gone):
    for edit in (
        lambda: edits.change_state(gone, 3, ACTIVE, NOW_MS),
        lambda: edits.change_state_and_lock(gone, 3, ACTIVE, NOW_MS),
        lambda: edits.lock(gone, 3, True, NOW_MS),
    ):
        with pytest.raises(PartitionDoesNotExist, match=r"^the partition does not exist$"):
            edit()


class TestLocked:
    desc = ring_of(partition(3, ACTIVE, 5, locked=True))

    def test_a_change_is_refused(self):
        with pytest.raises(StateChangeLocked, match=r"^partition state change is locked$") as refused:
            edits.change_state(self.desc, 3, INACTIVE, NOW_MS)
        assert refused.value.http_status == 409
        with pytest.raises(StateChangeLocked):
            edits.change_state_and_lock(self.desc, 3, INACTIVE, NOW_MS)
        with pytest.raises(StateChangeLocked):
            edits.remove_partition(self.desc, 3, NOW_MS)

    def test_what_is_never_allowed_is_told_first(self):
        with pytest.raises(TransitionNotAllowed):
            edits.change_state(self.desc, 3, PENDING, NOW_MS)

    def test_the_same_state_is_no_change(self):
        assert edits.change_state(self.desc, 3, ACTIVE, NOW_MS) == []
        assert edits.change_state_and_lock(self.desc, 3, ACTIVE, NOW_MS) == []

    def test_unlocking_leaves_the_state_and_its_time(self):
        (unlocked,) = edits.lock(self.desc, 3, False, NOW_MS)
        assert (unlocked.locked, unlocked.lock_timestamp_ms, unlocked.state_timestamp_ms) == (False, NOW_MS, 5)
        assert edits.lock(self.desc, 3, True, NOW_MS) == []


def test_change_and_lock_are_one_edit():
    (wanted,) = edits.change_state_and_lock(ring_of(partition(3, ACTIVE, 5)), 3, INACTIVE, NOW_MS)
    assert (wanted.state, wanted.state_timestamp_ms) == (INACTIVE, NOW_MS)
    assert (wanted.locked, wanted.lock_timestamp_ms) == (True, NOW_MS)


def test_change_and_lock_in_the_same_state_locks_only():
    (wanted,) = edits.change_state_and_lock(ring_of(partition(3, ACTIVE, 5)), 3, ACTIVE, NOW_MS)
    assert (wanted.state_timestamp_ms, wanted.locked, wanted.lock_timestamp_ms) == (5, True, NOW_MS)


def test_a_partition_is_created_once_and_again_after_its_removal_unlocked():
    desc = edited(RingDesc(), edits.create_partition(RingDesc(), 3, 1), now_ms=1)
    assert edits.create_partition(desc, 3, 2) == []
    desc = edited(desc, edits.remove_partition(desc, 3, 3), now_ms=3)
    assert desc.partitions == {}
    assert edits.remove_partition(desc, 3, 4) == []
    desc = edited(desc, edits.create_partition(desc, 3, 5), now_ms=2)
    created = desc.partitions[3]
    assert (created.state, created.state_timestamp_ms, created.locked) == (PENDING, 5, False)


class TestOwners:
    def test_registering_again_keeps_the_time(self):
        desc = edited(RingDesc(), edits.add_owner(RingDesc(), "i-0", 3, 10))
        assert [(o.instance, o.updated_timestamp_ms) for o in desc.owners_of(3)] == [("i-0", 10)]
        assert edits.add_owner(desc, "i-0", 3, 20) == []

    def test_one_that_was_removed_registers_with_a_new_time(self):
        desc = edited(RingDesc(), edits.add_owner(RingDesc(), "i-0", 3, 10))
        desc = edited(desc, edits.remove_owner(desc, "i-0", 3, 20), now_ms=20)
        assert desc.owners_of(3) == ()
        assert edits.remove_owner(desc, "i-0", 3, 30) == []
        desc = edited(desc, edits.add_owner(desc, "i-0", 3, 40), now_ms=5)
        assert [o.updated_timestamp_ms for o in desc.owners_of(3)] == [40]

    def test_an_instance_owns_several_partitions_and_a_partition_has_several_owners(self):
        desc = ring_of(owner("i-1", 3), owner("i-0", 3), owner("i-0", 7))
        assert [o.instance for o in desc.owners_of(3)] == ["i-0", "i-1"]
        assert desc.owned_by("i-0") == (3, 7)
        assert desc.corrupted == (3, 7)

    def test_nobody_is_removed_who_was_never_there(self):
        assert edits.remove_owner(RingDesc(), "i-0", 3, 10) == []


class TestInstances:
    wanted = InstanceDesc("ingester", "i-0", InstanceState.JOINING, "a:9095", "zone-a")

    def test_a_first_heartbeat_registers(self):
        desc = edited(RingDesc(), edits.heartbeat(RingDesc(), self.wanted, 10))
        found = desc.instances("ingester")["i-0"]
        assert (found.state, found.registered_ms, found.heartbeat_ms) == (InstanceState.JOINING, 10, 10)
        assert desc.instances("querier") == {}

    def test_a_later_one_keeps_the_registration_and_the_read_only_flag(self):
        desc = edited(RingDesc(), edits.heartbeat(RingDesc(), self.wanted, 10))
        desc = edited(desc, edits.set_read_only(desc, "ingester", "i-0", True, 15), now_ms=15)
        active = replace(self.wanted, state=InstanceState.ACTIVE, address="b:9095")
        desc = edited(desc, edits.heartbeat(desc, active, 20), now_ms=20)
        found = desc.instances("ingester")["i-0"]
        assert (found.state, found.address, found.registered_ms, found.heartbeat_ms) == (
            InstanceState.ACTIVE,
            "b:9095",
            10,
            20,
        )
        assert (found.read_only, found.read_only_updated_ms) == (True, 15)
        assert edits.set_read_only(desc, "ingester", "i-0", True, 25) == []

    def test_who_is_forgotten_leaves_with_all_it_owns_and_comes_back_as_new(self):
        desc = edited(RingDesc(), edits.heartbeat(RingDesc(), self.wanted, 10))
        for number in (3, 7):
            desc = edited(desc, edits.add_owner(desc, "i-0", number, 10), now_ms=10)
        desc = edited(desc, edits.forget_instance(desc, "ingester", "i-0", 20), now_ms=20)
        assert desc.instances("ingester") == {}
        assert desc.owners == ()
        assert desc.entries["owner/i-0/3"].state is OwnerState.DELETED
        assert edits.forget_instance(desc, "ingester", "i-0", 30) == []
        assert edits.set_read_only(desc, "ingester", "i-0", True, 30) == []
        desc = edited(desc, edits.heartbeat(desc, self.wanted, 40), now_ms=1)
        assert desc.instances("ingester")["i-0"].registered_ms == 40

    def test_forgetting_a_distributor_leaves_owners_of_its_name(self):
        distributor = InstanceDesc("distributor", "i-0", InstanceState.ACTIVE)
        desc = edited(ring_of(owner("i-0", 3)), edits.heartbeat(RingDesc(), distributor, 10))
        desc = edited(desc, edits.forget_instance(desc, "distributor", "i-0", 20), now_ms=20)
        assert desc.rings == ()
        assert desc.owned_by("i-0") == (3,)

    def test_the_silent_of_a_ring_are_forgotten_after_a_while_and_keep_what_they_own(self):
        desc = ring_of(ingester("i-0", heartbeat_ms=10), ingester("i-1", heartbeat_ms=20), owner("i-0", 3))
        assert edits.forget_silent(desc, "ingester", 100, 110) == []
        assert edits.forget_silent(desc, "ingester", 0, 10**9) == edits.forget_silent(desc, "ingester", -1, 10**9) == []
        assert edits.forget_silent(desc, "distributor", 100, 10**9) == []
        left = edited(desc, edits.forget_silent(desc, "ingester", 100, 111), now_ms=111)
        assert list(left.instances("ingester")) == ["i-1"]
        assert left.owned_by("i-0") == (3,)

    @pytest.mark.parametrize(
        ("now_ms", "timeout_ms", "alive"), [(1060, 60, True), (1061, 60, False), (10**9, 0, True), (0, 60, True)]
    )
    def test_an_instance_is_alive_while_its_heartbeat_is_no_older_than_the_timeout(self, now_ms, timeout_ms, alive):
        assert ingester("i-0", heartbeat_ms=1000).alive(now_ms, timeout_ms) is alive
