from dataclasses import replace
from functools import reduce
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partitions import edits
from partitions.merge import drop_entries, join, join_entries, shows, stamp
from partitions.model import (
    NEVER,
    ElectionDesc,
    InstanceDesc,
    InstanceState,
    OwnerDesc,
    OwnerState,
    PartitionDesc,
    PartitionState,
    RingDesc,
    Version,
)
from tests.support.ring import (
    entry_values,
    owner,
    partition,
    ring_of,
    several_values,
)

pairs = st.one_of(*(st.tuples(v, v) for v in entry_values))
triples = st.one_of(*(st.tuples(v, v, v) for v in entry_values))


@given(pairs)
def test_join_is_commutative_also_within_one_millisecond(pair):
    a, b = pair
    assert join(a, b) == join(b, a)


@given(triples)
def test_join_is_associative(triple):
    a, b, c = triple
    assert join(join(a, b), c) == join(a, join(b, c))


@given(pairs)
def test_join_is_idempotent_and_absorbs(pair):
    a, b = pair
    assert join(a, a) == a
    assert join(join(a, b), b) == join(a, b)


@given(several_values)
def test_every_order_of_the_same_values_ends_in_the_same_entry(values):
    expected = reduce(join, values)
    assert all(reduce(join, order) == expected for order in list(permutations(values))[:24])


@given(several_values, st.data())
def test_repeated_values_change_nothing(values, data):
    again = data.draw(st.lists(st.sampled_from(values), max_size=6))
    assert join_entries(join_entries(RingDesc(), values), again).entries == join_entries(RingDesc(), values).entries


def test_the_newer_version_wins_in_each_register_by_itself():
    early, late = Version(1, 0, "a"), Version(2, 0, "a")
    a = PartitionDesc(0, PartitionState.ACTIVE, 50, late, False, 0, early)
    b = PartitionDesc(0, PartitionState.PENDING, 99, early, True, 60, late)
    assert join(a, b) == PartitionDesc(0, PartitionState.ACTIVE, 50, late, True, 60, late)


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        (
            PartitionDesc(0, PartitionState.ACTIVE, 9, Version(1, 0, "a")),
            PartitionDesc(0, PartitionState.DELETED, 1, Version(1, 0, "a")),
        ),
        (
            OwnerDesc("i-0", 0, OwnerState.ACTIVE, 9, Version(1, 0, "a")),
            OwnerDesc("i-0", 0, OwnerState.DELETED, 1, Version(1, 0, "a")),
        ),
        (
            InstanceDesc("ingester", "i-0", InstanceState.ACTIVE, heartbeat_ms=9, version=Version(1, 0, "a")),
            InstanceDesc("ingester", "i-0", InstanceState.LEFT, heartbeat_ms=1, version=Version(1, 0, "a")),
        ),
        (
            ElectionDesc("t", "c", "r1", 9, 9, 9, version=Version(1, 0, "a")),
            ElectionDesc("t", "c", "r0", 1, 1, 1, 2, Version(1, 0, "a")),
        ),
    ],
    ids=["partition", "owner", "instance", "election"],
)
def test_at_one_version_a_deletion_wins(lower, higher):
    assert join(lower, higher) == higher
    assert join(higher, lower) == higher


def test_values_of_two_entries_do_not_join():
    with pytest.raises(ValueError, match="two entries"):
        join(partition(0, PartitionState.ACTIVE), partition(1, PartitionState.ACTIVE))


def test_the_newest_version_is_kept_when_a_tombstone_is_dropped():
    desc = ring_of(OwnerDesc("i-0", 0, OwnerState.DELETED, 5, Version(7, 3, "a")))
    dropped = drop_entries(desc, ["owner/i-0/0", "owner/none/1"])
    assert dropped.entries == {}
    assert dropped.newest == Version(7, 3, "a")
    assert drop_entries(desc, ["partition/9"]) is desc


def test_joining_what_is_known_gives_the_same_document():
    desc = ring_of(partition(0, PartitionState.ACTIVE))
    assert join_entries(desc, [partition(0, PartitionState.ACTIVE)]) is desc


class TestStamp:
    version = Version(50, 0, "w")

    def test_what_is_new_carries_the_version_in_all_registers(self):
        stamped = stamp(None, PartitionDesc(1, PartitionState.PENDING, 5), self.version)
        assert stamped == PartitionDesc(1, PartitionState.PENDING, 5, self.version, False, 0, self.version)
        assert stamp(None, OwnerDesc("i-1", 1), self.version).version == self.version

    def test_only_the_register_that_differs_is_stamped(self):
        known = partition(1, PartitionState.PENDING)
        state = stamp(known, replace(known, state=PartitionState.ACTIVE, state_timestamp_ms=9), self.version)
        assert (state.state_version, state.lock_version) == (self.version, known.lock_version)
        lock = stamp(known, replace(known, locked=True, lock_timestamp_ms=9), self.version)
        assert (lock.state_version, lock.lock_version) == (known.state_version, self.version)

    @given(several_values)
    def test_nothing_is_stamped_where_nothing_differs(self, values):
        known = values[0]
        version = {"state_version": NEVER, "lock_version": NEVER} if isinstance(known, PartitionDesc) else {}
        wanted = replace(known, **(version or {"version": NEVER}))
        assert stamp(known, wanted, self.version) is None

    @given(pairs)
    def test_a_stamped_value_wins_against_what_was_known(self, pair):
        known, wanted = pair
        stamped = stamp(known, wanted, self.version)
        if stamped is not None:
            assert join(known, stamped) == stamped
            assert shows(stamped, stamped, self.version)


class TestShows:
    def test_a_change_that_lost_is_not_shown(self):
        mine, theirs = Version(5, 0, "a"), Version(5, 0, "b")
        known = partition(0, PartitionState.PENDING)
        stamped = stamp(known, edits.change_state(ring_of(known), 0, PartitionState.ACTIVE, 5)[0], mine)
        other = stamp(known, edits.change_state(ring_of(known), 0, PartitionState.INACTIVE, 5)[0], theirs)
        assert shows(join(known, stamped), stamped, mine)
        assert not shows(join(stamped, other), stamped, mine)
        assert shows(join(stamped, other), other, theirs)
        assert not shows(None, stamped, mine)

    def test_a_change_of_the_other_register_does_not_hide_it(self):
        mine, theirs = Version(5, 0, "a"), Version(6, 0, "b")
        known = partition(0, PartitionState.PENDING)
        stamped = stamp(known, edits.change_state(ring_of(known), 0, PartitionState.ACTIVE, 5)[0], mine)
        locked = stamp(known, edits.lock(ring_of(known), 0, True, 6)[0], theirs)
        both = join(stamped, locked)
        assert (both.state, both.locked) == (PartitionState.ACTIVE, True)
        assert shows(both, stamped, mine)
        assert shows(both, locked, theirs)

    def test_an_owner_that_someone_took_away_again_is_not_shown(self):
        mine = owner("i-0", 0, version_ms=5)
        gone = OwnerDesc("i-0", 0, OwnerState.DELETED, 6, Version(6, 0, "b"))
        assert shows(mine, mine, mine.version)
        assert not shows(join(mine, gone), mine, mine.version)
