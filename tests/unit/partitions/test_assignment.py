from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partitions import edits
from partitions.assignment import lease_members, plan_leases, releasable
from partitions.model import InstanceState, RingDesc
from tests.support.ring import edited, ingester, owner, ring_of

TIMEOUT_MS = 60_000


def owned(desc):
    return {(o.instance, o.partition) for o in desc.owners}


def pairs(plan):
    return {(instance, number) for instance, numbers in plan.items() for number in numbers}


def newest_owners(desc, partitions, members):
    """By partition, who registered last; a member that was away may still be registered from before."""
    owners = sorted((o for o in desc.owners if o.instance in members), key=lambda o: o.version)
    return {o.partition: o.instance for o in owners if o.partition in partitions}


def hand_over_all(desc, plan, members):
    """The ring after everybody has registered and released what the plan says."""
    for instance, number in sorted(pairs(plan) - owned(desc)):
        desc = edited(desc, edits.add_owner(desc, instance, number, 0), writer=instance)
    for instance in sorted({o.instance for o in desc.owners}):
        for number in releasable(desc, instance, plan, members):
            desc = edited(desc, edits.remove_owner(desc, instance, number, 0), writer=instance)
    return desc


# An instance keeps its zone, as its name says; which zones have how many changes.
members_of_zones = st.lists(st.sampled_from("abc"), max_size=9).map(
    lambda zones: {f"ingester-{zone}-{n}": zone for n, zone in enumerate(zones)}
)
numbers = st.sets(st.integers(0, 30), max_size=20)


def check(plan, partitions, members):
    """One owner a partition and zone; loads of a zone differ by one at most."""
    assert plan.keys() == members.keys()
    for zone in set(members.values()):
        of_zone = [plan[member] for member in members if members[member] == zone]
        assert Counter(n for owned_numbers in of_zone for n in owned_numbers) == Counter(partitions)
        assert max(map(len, of_zone)) - min(map(len, of_zone)) <= 1


@given(numbers, members_of_zones, st.data())
def test_every_zone_owns_each_partition_once_in_even_shares(partitions, members, data):
    names = st.sampled_from([*members, "gone-9"])
    owners = data.draw(st.sets(st.tuples(names, st.integers(0, 30)), max_size=20))
    desc = ring_of(*(owner(name, number) for name, number in owners))
    plan = plan_leases(desc, partitions, members)
    check(plan, partitions, members)
    assert plan == plan_leases(desc, list(partitions), dict(reversed(members.items())))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(numbers, members_of_zones), min_size=1, max_size=4))
def test_what_moves_is_only_what_is_above_a_share_or_has_no_owner(histories):
    desc = RingDesc()
    for partitions, members in histories:
        plan = plan_leases(desc, partitions, members)
        check(plan, partitions, members)
        for zone in set(members.values()):
            of_zone = [member for member in members if members[member] == zone]
            share, extra = divmod(len(partitions), len(of_zone))
            held = newest_owners(desc, partitions, of_zone)
            loads = Counter(held.values())
            above = sum(loads[member] > share for member in of_zone)
            could_stay = sum(min(loads[member], share) for member in of_zone) + min(above, extra)
            assert sum(number in plan[member] for number, member in held.items()) == could_stay
        desc = hand_over_all(desc, plan, members)
        if members:
            assert owned(desc) >= pairs(plan)


@settings(max_examples=60, deadline=None)
@given(numbers, members_of_zones, members_of_zones, st.data())
def test_the_plan_stays_the_same_while_it_is_carried_out_in_any_order(partitions, before, after, data):
    desc = hand_over_all(RingDesc(), plan_leases(RingDesc(), partitions, before), before)
    plan = plan_leases(desc, partitions, after)
    for instance, number in data.draw(st.permutations(sorted(pairs(plan) - owned(desc)))):
        desc = edited(desc, edits.add_owner(desc, instance, number, 0), writer=instance)
        assert plan_leases(desc, partitions, after) == plan
        leaving = data.draw(st.sampled_from(sorted({o.instance for o in desc.owners})))
        for given_up in releasable(desc, leaving, plan, after)[:1]:
            desc = edited(desc, edits.remove_owner(desc, leaving, given_up, 0), writer=leaving)
            assert plan_leases(desc, partitions, after) == plan


def test_a_member_that_joins_takes_its_share_and_nothing_else_moves():
    members = {f"ingester-{n}": "a" for n in range(10)}
    plan = plan_leases(RingDesc(), range(100), members)
    desc = hand_over_all(RingDesc(), plan, members)
    larger = plan_leases(desc, range(100), {**members, "ingester-10": "a"})
    moved = pairs(larger) - pairs(plan)
    assert {instance for instance, _ in moved} == {"ingester-10"}
    assert len(moved) == 9


def test_a_member_that_goes_is_replaced_by_the_others_evenly():
    members = {f"ingester-{n}": "a" for n in range(11)}
    plan = plan_leases(RingDesc(), range(110), members)
    desc = hand_over_all(RingDesc(), plan, members)
    rest = {name: zone for name, zone in members.items() if name != "ingester-3"}
    smaller = plan_leases(desc, range(110), rest)
    assert pairs(smaller) - pairs(plan) == {
        (instance, number) for instance, number in pairs(smaller) if number in plan["ingester-3"]
    }
    assert {len(numbers) for numbers in smaller.values()} == {11}


@pytest.mark.parametrize("generous", ["ingester-0", "ingester-1"])
def test_shares_that_differ_by_one_stay_as_they_are(generous):
    members = {"ingester-0": "a", "ingester-1": "a"}
    held = {name: {0, 1, 2} if name == generous else {3, 4} for name in members}
    desc = ring_of(*(owner(name, number) for name, numbers in held.items() for number in numbers))
    assert plan_leases(desc, range(5), members) == held


def test_while_two_are_registered_the_later_one_owns_the_lease():
    members = {"ingester-0": "a", "ingester-1": "a"}
    desc = ring_of(owner("ingester-0", 0, version_ms=2), owner("ingester-1", 0, version_ms=1), owner("ingester-1", 1))
    assert plan_leases(desc, range(2), members) == {"ingester-0": {0}, "ingester-1": {1}}
    swapped = ring_of(owner("ingester-0", 0), owner("ingester-1", 0, version_ms=2), owner("ingester-0", 1))
    assert plan_leases(swapped, range(2), members) == {"ingester-0": {1}, "ingester-1": {0}}


def test_a_hand_over_half_done_leaves_the_plan():
    members = {f"ingester-{n}": "a" for n in range(3)}
    desc = hand_over_all(RingDesc(), plan_leases(RingDesc(), range(12), members), members)
    members |= {"ingester-8": "a", "ingester-9": "a"}
    plan = plan_leases(desc, range(12), members)
    moving = sorted(pairs(plan) - owned(desc))
    assert len(moving) == 4
    for instance, number in reversed(moving):
        desc = edited(desc, edits.add_owner(desc, instance, number, 0), writer=instance)
        assert plan_leases(desc, range(12), members) == plan


def test_zones_do_not_touch_each_other():
    members = {"ingester-0": "a", "ingester-1": "b"}
    desc = hand_over_all(RingDesc(), plan_leases(RingDesc(), range(6), members), members)
    plan = plan_leases(desc, range(6), {**members, "ingester-2": "b"})
    assert plan["ingester-0"] == frozenset(range(6))
    assert len(plan["ingester-1"]) == len(plan["ingester-2"]) == 3


def test_without_members_there_is_no_plan():
    assert plan_leases(ring_of(owner("ingester-0", 0)), [0], {}) == {}


class TestReleasable:
    def test_a_lease_is_given_up_only_when_the_planned_owner_of_the_zone_has_registered(self):
        members = {"ingester-0": "a", "ingester-1": "a", "ingester-2": "b"}
        desc = ring_of(*(ingester(name, zone) for name, zone in members.items()), owner("ingester-0", 5))
        plan = {"ingester-0": frozenset(), "ingester-1": frozenset({5}), "ingester-2": frozenset({5})}
        assert releasable(desc, "ingester-0", plan, members) == ()
        desc = edited(desc, edits.add_owner(desc, "ingester-2", 5, 0), writer="ingester-2")
        assert releasable(desc, "ingester-0", plan, members) == (), "another zone's owner is no replacement"
        desc = edited(desc, edits.add_owner(desc, "ingester-1", 5, 0), writer="ingester-1")
        assert releasable(desc, "ingester-0", plan, members) == (5,)
        assert releasable(desc, "ingester-1", plan, members) == ()

    def test_who_leaves_hands_over_like_everybody(self):
        members = {"ingester-1": "a"}
        leaving = ingester("ingester-0", "a", state=InstanceState.LEAVING)
        desc = ring_of(leaving, ingester("ingester-1", "a"), owner("ingester-0", 5))
        plan = plan_leases(desc, [5], members)
        assert releasable(desc, "ingester-0", plan, members) == ()
        desc = edited(desc, edits.add_owner(desc, "ingester-1", 5, 0), writer="ingester-1")
        assert releasable(desc, "ingester-0", plan, members) == (5,)

    def test_what_nobody_is_to_own_any_more_is_given_up(self):
        members = {"ingester-0": "a"}
        desc = ring_of(ingester("ingester-0", "a"), owner("ingester-0", 5), owner("ingester-0", 6))
        assert releasable(desc, "ingester-0", plan_leases(desc, [6], members), members) == (5,)

    def test_the_last_member_keeps_what_it_owns(self):
        desc = ring_of(ingester("ingester-0", "a", state=InstanceState.LEAVING), owner("ingester-0", 5))
        assert releasable(desc, "ingester-0", {}, {}) == ()
        other_zone = {"ingester-1": "b"}
        assert releasable(desc, "ingester-0", plan_leases(desc, [5], other_zone), other_zone) == ()


def test_leases_go_to_ingesters_that_are_alive_and_stay():
    desc = ring_of(
        ingester("active-0", "a", heartbeat_ms=0),
        ingester("joining-0", "b", state=InstanceState.JOINING),
        ingester("pending-0", "b", state=InstanceState.PENDING),
        ingester("leaving-0", "a", state=InstanceState.LEAVING),
        ingester("left-0", "a", state=InstanceState.LEFT),
        ingester("read-only-0", "a", read_only=True),
        ingester("silent-0", "a", heartbeat_ms=-1),
    )
    expected = {"active-0": "a", "joining-0": "b", "pending-0": "b"}
    assert lease_members(desc, TIMEOUT_MS, TIMEOUT_MS) == expected
