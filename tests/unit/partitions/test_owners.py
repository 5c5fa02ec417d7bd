from random import Random

import pytest

from partitions.errors import EmptyRing, TooManyUnhealthyInstances
from partitions.model import InstanceDesc, InstanceState, OwnerDesc, OwnerState, PartitionState, RingDesc, Version
from partitions.owners import read_targets, readable_partitions, zone_order
from tests.support.ring import ingester, owner, partition, ring_of

ACTIVE = PartitionState.ACTIVE
TIMEOUT_MS = 60_000
NOW_MS = 1_000_000


def alive(name, zone, **fields):
    return ingester(name, zone, heartbeat_ms=NOW_MS, **fields)


def targets(desc, partitions, zones=("zone-a", "zone-b")):
    found = read_targets(desc, partitions, zones, now_ms=NOW_MS, heartbeat_timeout_ms=TIMEOUT_MS)
    return {number: [instance.id for instance in instances] for number, instances in found.items()}


TWO_ZONES = (
    alive("ingester-zone-a-0", "zone-a"),
    alive("ingester-zone-b-0", "zone-b"),
    owner("ingester-zone-b-0", 0),
    owner("ingester-zone-a-0", 0),
)


class TestReadablePartitions:
    def test_every_state_is_read_until_the_partition_is_removed(self):
        desc = ring_of(*(partition(n, state) for n, state in enumerate(PartitionState)))
        assert readable_partitions(desc) == (0, 1, 2, 3)

    def test_what_has_an_owner_and_no_entry_is_read_too(self):
        assert readable_partitions(ring_of(partition(1, ACTIVE), owner("i-7", 7))) == (1, 7)

    def test_an_empty_ring_is_an_error(self):
        with pytest.raises(EmptyRing, match="empty ring"):
            readable_partitions(RingDesc())


class TestReadTargets:
    @pytest.mark.parametrize("zones", [("zone-a", "zone-b"), ("zone-b", "zone-a")])
    def test_owners_come_in_the_order_of_the_zones(self, zones):
        expected = [f"ingester-{zone}-0" for zone in zones]
        assert targets(ring_of(*TWO_ZONES), [0], zones) == {0: expected}

    @pytest.mark.parametrize(
        "sick",
        [
            alive("ingester-zone-a-0", "zone-a", state=InstanceState.JOINING),
            alive("ingester-zone-a-0", "zone-a", state=InstanceState.LEAVING),
            alive("ingester-zone-a-0", "zone-a", state=InstanceState.LEFT),
            ingester("ingester-zone-a-0", "zone-a", heartbeat_ms=NOW_MS - TIMEOUT_MS - 1),
        ],
        ids=["joining", "leaving", "left", "silent"],
    )
    def test_an_unhealthy_owner_is_left_out(self, sick):
        assert targets(ring_of(*TWO_ZONES[1:], sick), [0]) == {0: ["ingester-zone-b-0"]}

    @pytest.mark.parametrize(
        "well",
        [
            alive("ingester-zone-a-0", "zone-a", state=InstanceState.PENDING),
            ingester("ingester-zone-a-0", "zone-a", heartbeat_ms=NOW_MS - TIMEOUT_MS),
            ingester("ingester-zone-a-0", "zone-a", heartbeat_ms=NOW_MS + 5000),
        ],
        ids=["pending", "silent for exactly the timeout", "with a clock that is ahead"],
    )
    def test_a_healthy_owner_is_asked(self, well):
        assert targets(ring_of(*TWO_ZONES[1:], well), [0]) == {0: ["ingester-zone-a-0", "ingester-zone-b-0"]}

    def test_an_owner_that_is_not_in_the_ring_of_ingesters_is_left_out(self):
        querier = InstanceDesc("querier", "q-0", InstanceState.ACTIVE, heartbeat_ms=NOW_MS)
        assert targets(ring_of(querier, owner("q-0", 0), owner("ghost-0", 0)), [0]) == {0: []}

    def test_within_a_zone_writable_active_and_later_owners_come_first(self):
        desc = ring_of(
            *(alive(name, "zone-a") for name in ("early-0", "late-0")),
            alive("pending-0", "zone-a", state=InstanceState.PENDING),
            alive("read-only-0", "zone-a", read_only=True),
            owner("early-0", 0, version_ms=10),
            owner("late-0", 0, version_ms=20),
            owner("pending-0", 0, version_ms=30),
            owner("read-only-0", 0, version_ms=40),
        )
        assert targets(desc, [0]) == {0: ["late-0", "early-0", "pending-0", "read-only-0"]}

    def test_zones_that_are_not_named_come_last(self):
        desc = ring_of(*TWO_ZONES, alive("ingester-zone-c-0", "zone-c"), owner("ingester-zone-c-0", 0))
        assert targets(desc, [0], ["zone-c"])[0][0] == "ingester-zone-c-0"

    def test_partitions_of_one_instance_all_lead_to_it(self):
        desc = ring_of(alive("i-0", "zone-a"), *(owner("i-0", n) for n in (4, 1, 9)))
        assert targets(desc, [9, 4, 1]) == {1: ["i-0"], 4: ["i-0"], 9: ["i-0"]}


def test_a_partition_without_a_healthy_owner_has_nobody_to_ask():
    assert targets(ring_of(*TWO_ZONES, partition(7, ACTIVE)), [7, 0])[7] == []
    message = "partition 7: too many unhealthy instances in the ring"
    assert TooManyUnhealthyInstances(7).message == message, "what whoever cannot do without answers"


class TestZoneOrder:
    desc = ring_of(*(ingester(f"i-{zone}-{n}", zone) for zone in "abcd" for n in range(2)))

    def test_preferred_zones_come_first_as_given_and_the_others_by_chance(self):
        orders = {zone_order(self.desc, ["c", "none", "a", "c"], Random(seed)) for seed in range(50)}
        assert orders == {("c", "a", "b", "d"), ("c", "a", "d", "b")}

    def test_one_seed_is_one_order(self):
        assert zone_order(self.desc, [], Random(3)) == zone_order(self.desc, [], Random(3))
        assert len({zone_order(self.desc, [], Random(seed)) for seed in range(200)}) == 24

    def test_without_zones_there_is_one(self):
        assert zone_order(ring_of(ingester("i-0"), ingester("i-1")), [], Random(0)) == ("",)
        assert zone_order(RingDesc(), ["a"], Random(0)) == ()


def test_versions_of_one_moment_are_told_apart_by_their_counter():
    desc = ring_of(
        *(alive(name, "zone-a") for name in ("a-0", "b-0")),
        *(OwnerDesc(name, 0, OwnerState.ACTIVE, 0, Version(5, at, name)) for at, name in enumerate(("a-0", "b-0"))),
    )
    assert targets(desc, [0]) == {0: ["b-0", "a-0"]}
