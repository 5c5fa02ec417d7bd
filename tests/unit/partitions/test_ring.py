import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partitions.errors import NoActivePartition
from partitions.model import PartitionState
from partitions.ring import PartitionRing
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
