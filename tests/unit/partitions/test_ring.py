import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partitions.errors import NoActivePartition
from partitions.model import PartitionState
from partitions.ring import PartitionRing
from partitions.tokens import partition_tokens
from tests.reference import partition_lookup

STATES = [PartitionState.PENDING, PartitionState.ACTIVE, PartitionState.INACTIVE]
KEY = st.integers(0, 2**32 - 1)


def reference(ring: PartitionRing, key: int) -> int | None:
    rows = list(zip(ring.tokens.tolist(), ring.partition_of.tolist(), ring.active.tolist(), strict=True))
    return partition_lookup.lookup(rows, key)


@given(st.dictionaries(st.integers(0, 6), st.sampled_from(STATES), max_size=5), st.lists(KEY, max_size=5))
def test_a_lookup_is_the_walk_of_the_specification(states, keys):
    ring = PartitionRing.build(states)
    keys = [*keys, 0, 2**32 - 1, *(int(t) for t in ring.tokens[:3]), *(int(t) - 1 for t in ring.tokens[1:3])]
    if PartitionState.ACTIVE not in states.values():
        with pytest.raises(NoActivePartition, match="InstancesCount <= 0"):
            ring.lookup(np.array(keys, np.uint32))
        return
    found = ring.lookup(np.array(keys, np.uint32))
    assert found.dtype == np.int32
    assert found.tolist() == [reference(ring, key) for key in keys]


def test_a_key_equal_to_a_token_belongs_to_the_next_one():
    ring = PartitionRing(np.array([10, 20], np.uint32), np.array([0, 1], np.int32), np.array([True, True]))
    assert ring.lookup(np.array([9, 10, 19, 20, 21], np.uint32)).tolist() == [0, 1, 1, 0, 0]


def test_active_partitions_leave_out_every_other_state():
    ring = PartitionRing.build({0: PartitionState.ACTIVE, 1: PartitionState.PENDING, 5: PartitionState.ACTIVE})
    assert ring.active_partitions == (0, 5)
    assert set(ring.lookup(np.arange(0, 2**32, 2**20).astype(np.uint32)).tolist()) == {0, 5}


def test_lookup_of_nothing_is_nothing():
    ring = PartitionRing.build({0: PartitionState.ACTIVE})
    assert ring.lookup(np.empty(0, np.uint32)).tolist() == []


def ring_of_tokens(tokens_of: dict[int, list[int]]) -> PartitionRing:
    rows = sorted((token, partition) for partition, tokens in tokens_of.items() for token in tokens)
    tokens, partitions = (list(column) for column in zip(*rows, strict=True))
    return PartitionRing(np.array(tokens, np.uint32), np.array(partitions, np.int32), np.ones(len(rows), bool))


def owned_ranges(ring: PartitionRing, partition: int) -> list[list[int]]:
    """Return the first and last key of each range that a partition owns, states aside; ranges that touch are one.

    A token and its predecessor p own [p, token - 1]; the smallest token owns what is left at both ends.
    """
    tokens, found = ring.tokens.tolist(), []
    for at, token in enumerate(tokens):
        if ring.partition_of[at] == partition:
            found += [[tokens[at - 1], token - 1]] if at else [[0, token - 1], [tokens[-1], 2**32 - 1]]
    joined: list[list[int]] = []
    for first, last in sorted(each for each in found if each[0] <= each[1]):
        if joined and joined[-1][1] + 1 == first:
            joined[-1][1] = last
        else:
            joined.append([first, last])
    return joined


@pytest.mark.parametrize(
    ("tokens_of", "ranges_of"),
    [  # the ranges that dskit's ring tells for these tokens
        ({0: [25, 75], 1: [10, 50, 100]}, {0: [[10, 24], [50, 74]], 1: [[0, 9], [25, 49], [75, 2**32 - 1]]}),
        (
            {0: [10, 20, 30, 40, 50], 1: [1000, 2000, 3000, 4000]},
            {0: [[0, 49], [4000, 2**32 - 1]], 1: [[50, 3999]]},
        ),
        ({0: [99], 1: [100]}, {0: [[0, 98], [100, 2**32 - 1]], 1: [[99, 99]]}),
        ({0: [0], 1: [2**32 - 1]}, {0: [[2**32 - 1, 2**32 - 1]], 1: [[0, 2**32 - 2]]}),
        ({0: [7]}, {0: [[0, 2**32 - 1]], 5: []}),
    ],
    ids=["simple", "grouped", "consecutive", "extremes", "one token"],
)
def test_ranges_of_a_partition(tokens_of, ranges_of):
    ring = ring_of_tokens(tokens_of)
    for partition, ranges in ranges_of.items():
        assert owned_ranges(ring, partition) == ranges
    assert ring.owned_keys == {p: sum(last - first + 1 for first, last in ranges_of[p]) for p in tokens_of}


@given(st.dictionaries(st.integers(0, 6), st.sampled_from(STATES), min_size=1, max_size=5), st.lists(KEY, max_size=5))
def test_ranges_and_owned_keys_agree_with_the_lookup_whatever_the_states(states, keys):
    ring = PartitionRing.build(states)
    everyone = PartitionRing.build(dict.fromkeys(states, PartitionState.ACTIVE))
    assert sum(ring.owned_keys.values()) == 2**32
    for partition in states:
        ranges = owned_ranges(ring, partition)
        assert sum(last - first + 1 for first, last in ranges) == ring.owned_keys[partition]
        assert set(everyone.lookup(np.array(ranges, np.uint32).reshape(-1))) == {partition}
    for key in keys:
        (owner,) = everyone.lookup(np.array([key], np.uint32))
        assert any(first <= key <= last for first, last in owned_ranges(ring, int(owner)))


def test_an_empty_ring_owns_nothing():
    ring = PartitionRing.build({})
    assert ring.owned_keys == {}
    assert ring.partitions == ring.active_partitions == ()
    assert ring.subring([0]).partitions == ()


@given(st.dictionaries(st.integers(0, 6), st.sampled_from(STATES), max_size=5), st.sets(st.integers(0, 8)))
def test_a_subring_is_the_ring_of_these_partitions(states, chosen):
    built = PartitionRing.build({p: state for p, state in states.items() if p in chosen})
    cut = PartitionRing.build(states).subring(chosen)
    assert cut.tokens.tolist() == built.tokens.tolist()
    assert cut.partition_of.tolist() == built.partition_of.tolist()
    assert cut.active.tolist() == built.active.tolist()
    assert cut.partitions == built.partitions == tuple(sorted(chosen & states.keys()))


def test_views_share_no_array_that_can_be_written():
    ring = PartitionRing.build({0: PartitionState.ACTIVE})
    with pytest.raises(ValueError, match="read-only"):
        ring.tokens[0] = 1


@pytest.mark.parametrize(
    ("others", "expected"),
    [({}, 2), ({2: PartitionState.INACTIVE}, 1), ({1: PartitionState.PENDING, 2: PartitionState.PENDING}, 0)],
)
def test_a_key_of_a_partition_that_is_not_active_goes_to_the_next_token(others, expected):
    ring = PartitionRing.build({**dict.fromkeys(range(3), PartitionState.ACTIVE), **others})
    key = int(partition_tokens(2)[123]) - 10  # what dskit's ring answers for it
    assert ring.lookup(np.array([key], np.uint32)).tolist() == [expected]
