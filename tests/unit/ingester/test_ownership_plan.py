"""What an ingester consumes, registers for and gives up, as a function of the ring."""

from __future__ import annotations

from mimir_ingest.ingester.ownership_plan import (
    Consumed,
    OwnershipKnobs,
    find_ownerless,
    is_adopter,
    plan_ownership,
)
from partitions.merge import join_entries
from partitions.model import (
    InstanceDesc,
    InstanceState,
    OwnerDesc,
    OwnerState,
    PartitionDesc,
    PartitionState,
    RingDesc,
    Version,
)

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
CAUGHT_UP, SHIPPED = Consumed(True, True), Consumed(True, False)
BEHIND = Consumed(False, True)


class Ring:
    """Builds a ring entry by entry, each newer than the one before."""

    def __init__(self) -> None:
        self.desc = RingDesc()
        self._count = 0

    def _add(self, make) -> Ring:
        self._count += 1
        self.desc = join_entries(self.desc, [make(Version(NOW_MS, self._count, "t"))])
        return self

    def partition(self, number, state=PartitionState.ACTIVE, *, age_ms=0) -> Ring:
        return self._add(lambda v: PartitionDesc(number, state, NOW_MS - age_ms, v))

    def owner(self, instance, partition, state=OwnerState.ACTIVE) -> Ring:
        return self._add(lambda v: OwnerDesc(instance, partition, state, NOW_MS, v))

    def instance(self, name, zone="a", state=InstanceState.ACTIVE, *, age_ms=0) -> Ring:
        return self._add(
            lambda v: InstanceDesc("ingester", name, state, "x:1", zone, NOW_MS, NOW_MS - age_ms, version=v)
        )


def plan(ring, instance, consumed=None, own_partition=None, **knobs):
    settings = OwnershipKnobs(instance, own_partition, **knobs)
    return plan_ownership(ring.desc, settings, consumed or {}, NOW_MS)


def test_an_id_with_a_number_consumes_that_partition_and_registers_once_caught_up():
    ring = Ring().instance("i-3")
    assert plan(ring, "i-3", own_partition=3).consume == {3}
    assert plan(ring, "i-3", {3: BEHIND}, own_partition=3).own == set()
    assert plan(ring, "i-3", {3: CAUGHT_UP}, own_partition=3).own == {3}
    inactive = ring.partition(3, PartitionState.INACTIVE, age_ms=100 * HOUR_MS)
    assert plan(inactive, "i-3", {3: SHIPPED}, own_partition=3).own == {3}


def test_what_an_id_with_a_number_owned_before_is_kept_until_somebody_else_has_it():
    ring = Ring().instance("i-3").partition(3).partition(4).owner("i-3", 3).owner("i-3", 4)
    kept = plan(ring, "i-3", {3: CAUGHT_UP, 4: CAUGHT_UP}, own_partition=3)
    assert (kept.consume, kept.own, kept.release) == ({3, 4}, {3, 4}, set())
    given = plan(ring.owner("i-4", 4), "i-3", {3: CAUGHT_UP, 4: CAUGHT_UP}, own_partition=3)
    assert (given.consume, given.own, given.release) == ({3}, {3}, {4})


def test_leases_go_to_all_members_of_a_zone_and_to_every_zone():
    ring = Ring()
    for number in range(4):
        ring.partition(number)
    ring.instance("a1", "a").instance("a2", "a").instance("b1", "b")
    a1, a2, b1 = (plan(ring, name).consume for name in ("a1", "a2", "b1"))
    assert a1 | a2 == b1 == {0, 1, 2, 3}
    assert len(a1) == len(a2) == 2


def test_a_lease_is_given_up_only_when_the_next_owner_has_registered():
    ring = Ring()
    for number in range(2):
        ring.partition(number).owner("a1", number)
    ring.instance("a1").instance("a2")
    consumed = {0: CAUGHT_UP, 1: CAUGHT_UP}
    (moving,) = plan(ring, "a2").consume
    before = plan(ring, "a1", consumed)
    assert (before.consume, before.own, before.release) == ({0, 1}, {0, 1}, set())
    assert plan(ring, "a2", {moving: BEHIND}).own == set()
    assert plan(ring, "a2", {moving: CAUGHT_UP}).own == {moving}
    after = plan(ring.owner("a2", moving), "a1", consumed)
    assert (after.consume, after.own, after.release) == ({1 - moving}, {1 - moving}, {moving})


def test_an_instance_that_is_no_member_keeps_what_it_owns_until_it_is_taken_over():
    ring = Ring().partition(0).owner("a1", 0).instance("a1", state=InstanceState.LEAVING)
    assert plan(ring, "a1", {0: CAUGHT_UP}).own == {0}
    taken = ring.instance("a2").owner("a2", 0)
    assert plan(taken, "a1", {0: CAUGHT_UP}).release == {0}


def test_a_partition_that_left_the_ring_is_shipped_before_it_is_given_up():
    ring = Ring().instance("a1").partition(0).owner("a1", 0).owner("a1", 1)
    held = plan(ring, "a1", {0: CAUGHT_UP, 1: CAUGHT_UP})
    assert (held.consume, held.own, held.release, held.ship) == ({0, 1}, {0}, set(), {1})
    gone = plan(ring, "a1", {0: CAUGHT_UP, 1: SHIPPED})
    assert (gone.consume, gone.own, gone.release, gone.ship) == ({0}, {0}, {1}, set())


def test_a_leased_partition_that_is_inactive_for_long_is_nobodys_once_it_is_shipped():
    ring = Ring().instance("a1").partition(0).owner("a1", 0)
    ring.partition(1, PartitionState.INACTIVE, age_ms=14 * HOUR_MS).owner("a1", 1)
    assert plan(ring, "a1", {0: CAUGHT_UP, 1: CAUGHT_UP}).own == {0, 1}
    assert plan(ring, "a1", {0: CAUGHT_UP, 1: SHIPPED}).release == {1}
    assert plan(ring, "a1", {0: CAUGHT_UP, 1: SHIPPED}, delete_inactive_partition_after_ms=0).release == set()
    young = Ring().instance("a1").partition(1, PartitionState.INACTIVE, age_ms=12 * HOUR_MS).owner("a1", 1)
    assert plan(young, "a1", {1: SHIPPED}).own == {1}


def test_what_was_adopted_is_consumed_until_it_is_shipped_and_never_registered():
    ring = Ring().instance("a1").partition(0).owner("a1", 0)
    for known in (BEHIND, CAUGHT_UP):
        adopting = plan(ring, "a1", {0: CAUGHT_UP, 7: known})
        assert (adopting.consume, adopting.own, adopting.ship) == ({0, 7}, {0}, {7})
    assert plan(ring, "a1", {0: CAUGHT_UP, 7: SHIPPED}).consume == {0}
    owned = ring.partition(7).owner("b1", 7)
    assert plan(owned, "a1", {0: CAUGHT_UP, 7: CAUGHT_UP}, own_partition=0).consume == {0}


def test_partitions_of_the_topic_that_nobody_owns_are_found_but_those_on_their_way_in():
    ring = Ring().partition(0).owner("a1", 0).partition(1, PartitionState.INACTIVE)
    ring.partition(2, PartitionState.PENDING).partition(3).owner("a1", 3).owner("a1", 3, OwnerState.DELETED)
    ring.partition(6, PartitionState.INACTIVE, age_ms=14 * HOUR_MS)
    assert find_ownerless(ring.desc, range(8), OwnershipKnobs("a1", 0), NOW_MS) == {1, 3, 4, 5, 6, 7}
    assert find_ownerless(ring.desc, range(8), OwnershipKnobs("a1", None), NOW_MS) == {4, 5, 6, 7}


def test_each_ownerless_partition_has_one_adopter_that_is_alive():
    ring = Ring().instance("a1").instance("a2").instance("a3", age_ms=61_000)
    ring.instance("a4", state=InstanceState.JOINING)
    adopters = {
        p: [m for m in ("a1", "a2", "a3", "a4") if is_adopter(ring.desc, p, m, NOW_MS, 60_000)] for p in range(20)
    }
    assert all(len(found) == 1 for found in adopters.values())
    assert {found[0] for found in adopters.values()} == {"a1", "a2"}
    assert not is_adopter(RingDesc(), 0, "a1", NOW_MS, 60_000)
