from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partitions import edits
from partitions.errors import NoActivePartition
from partitions.go_rand import uint32s
from partitions.model import PartitionState, RingDesc
from partitions.ring import PartitionRing
from partitions.shuffle_shard import WriteShards, read_shard, seed, shard
from tests.support.ring import edited, partition

ACTIVE, PENDING, INACTIVE = PartitionState.ACTIVE, PartitionState.PENDING, PartitionState.INACTIVE
MINUTE_MS = 60_000
NOW_MS = 1_800_000_000_000


def minutes_old(ages):
    """Partitions by number, of a state and an age in minutes, and their ring."""
    partitions = {n: partition(n, state, NOW_MS - age * MINUTE_MS) for n, (state, age) in ages.items()}
    return PartitionRing.build({n: p.state for n, p in partitions.items()}), partitions


SIX = minutes_old({1: (ACTIVE, 60), 2: (ACTIVE, 90)} | dict.fromkeys(range(3, 7), (ACTIVE, 360)))


@pytest.mark.parametrize(
    ("tenant", "size", "lookback_min", "later_min", "expected"),
    [  # shards that dskit's ring computes for these tenants and partitions
        ("user-1", 3, 1, 0, {2, 3, 5}),
        ("user-1", 4, 1, 0, {1, 2, 3, 5}),
        ("user-1", 3, 80, 0, {2, 3, 5}),
        ("user-1", 3, 100, 0, {2, 3, 5, 6}),
        ("user-2", 3, 1, 0, {1, 4, 6}),
        ("user-2", 3, 80, 0, {1, 2, 4, 6}),
        ("user-2", 3, 80, 5, {1, 2, 4, 6}),
        ("user-2", 3, 80, 30, {1, 4, 6}),
        ("user-2", 3, 62, 0, {1, 2, 4, 6}),
        ("user-2", 3, 62, 5, {1, 4, 6}),
        ("user-2", 3, 100, 0, {1, 2, 4, 5, 6}),
        ("user-2", 3, 100, 60, {1, 4, 6}),
        ("user-2", 3, 720, 30, {1, 2, 3, 4, 5, 6}),
    ],
)
def test_shards_are_those_of_the_reference(tenant, size, lookback_min, later_min, expected):
    found = shard(*SIX, tenant, size, lookback_ms=lookback_min * MINUTE_MS, now_ms=NOW_MS + later_min * MINUTE_MS)
    assert found == expected


def test_the_seed_is_the_start_of_the_md5_with_its_sign():
    assert seed("a") == 0x0CC175B9C0F1B6A8  # as md5sum prints it
    assert seed("user-1") == 0xD6D7705392BC7AF6 - (1 << 64)


def placed(ages, draws):
    """A ring of one token a partition, right behind the tenant's draws: the n-th draw finds `draws[n]` first.

    From the first draw on, the ring's order is 2, 1, 0.
    """
    tokens = list(islice(uint32s(seed("user-1")), len(draws)))
    rows = sorted((token + 1, number) for token, number in zip(tokens, draws, strict=True) if number in ages)
    partitions = {n: partition(n, state, NOW_MS - age * MINUTE_MS) for n, (state, age) in ages.items()}
    ring = PartitionRing(
        np.array([token for token, _ in rows], np.uint32),
        np.array([number for _, number in rows], np.int32),
        np.array([partitions[number].state is ACTIVE for _, number in rows]),
    )
    return ring, partitions


OLD, NEW = 120, 30


@pytest.mark.parametrize(
    ("ages", "size", "expected"),
    [
        ({0: (ACTIVE, OLD), 1: (ACTIVE, OLD), 2: (ACTIVE, OLD)}, 1, {2}),
        ({0: (ACTIVE, OLD), 1: (ACTIVE, OLD), 2: (ACTIVE, OLD)}, 2, {2, 0}),
        ({0: (ACTIVE, OLD), 1: (ACTIVE, OLD), 2: (ACTIVE, OLD)}, 9, {0, 1, 2}),
        ({0: (ACTIVE, OLD), 1: (ACTIVE, OLD), 2: (INACTIVE, NEW)}, 2, {2, 0, 1}),
        ({0: (ACTIVE, OLD), 1: (ACTIVE, OLD), 2: (INACTIVE, OLD)}, 2, {0, 1}),
        ({0: (ACTIVE, OLD), 1: (ACTIVE, OLD), 2: (ACTIVE, NEW)}, 2, {2, 0, 1}),
        ({0: (ACTIVE, OLD), 1: (ACTIVE, OLD), 2: (PENDING, NEW)}, 2, {0, 1}),
        ({0: (ACTIVE, OLD), 1: (ACTIVE, OLD)}, 2, {0, 1}),
    ],
    ids=["one", "two", "more than there are", "on its way out", "out", "on its way in", "pending", "gone"],
)
def test_a_shard_with_an_hour_of_lookback(ages, size, expected):
    ring, partitions = placed(ages, [2, 0, 1])
    assert shard(ring, partitions, "user-1", size, lookback_ms=60 * MINUTE_MS, now_ms=NOW_MS) == expected


@pytest.mark.parametrize(
    ("ages", "size", "expected"),
    [
        ({0: (ACTIVE, OLD), 1: (ACTIVE, OLD), 2: (ACTIVE, OLD)}, 1, {2}),
        ({0: (ACTIVE, OLD), 1: (ACTIVE, OLD), 2: (INACTIVE, OLD)}, 1, {2, 1}),
        ({0: (ACTIVE, OLD), 1: (ACTIVE, OLD), 2: (PENDING, OLD)}, 1, {2, 1}),
        ({0: (ACTIVE, OLD), 1: (ACTIVE, OLD), 2: (ACTIVE, NEW)}, 1, {2, 1}),
        ({0: (INACTIVE, OLD), 1: (PENDING, OLD), 2: (PENDING, OLD)}, 0, {0, 1, 2}),
    ],
    ids=["settled", "out, not removed", "pending", "on its way in", "all"],
)
def test_a_read_takes_every_partition_that_it_meets_and_that_is_not_settled(ages, size, expected):
    ring, partitions = placed(ages, [2, 0, 1])
    assert read_shard(ring, partitions, "user-1", size, lookback_ms=60 * MINUTE_MS, now_ms=NOW_MS) == expected


def test_a_read_with_no_end_of_its_lookback_takes_all_partitions():
    assert read_shard(*SIX, "user-1", 1, lookback_ms=0, now_ms=NOW_MS) == set(range(1, 7))


def test_a_draw_that_equals_a_token_goes_to_the_next_one():
    draw = next(uint32s(seed("user-1")))
    ring = PartitionRing(np.array([draw, draw + 1], np.uint32), np.array([0, 1], np.int32), np.array([True, True]))
    partitions = {number: partition(number, ACTIVE) for number in (0, 1)}
    assert shard(ring, partitions, "user-1", 1) == {1}


def slow_shard(ring, partitions, tenant, size):
    """The specification's walk, step by step, for writes."""
    if size <= 0 or size >= len(partitions):
        size = len(partitions)
    result, excluded, draws = set(), set(), uint32s(seed(tenant))
    tokens, numbers = ring.tokens.tolist(), ring.partition_of.tolist()
    while len(result) < size:
        draw = next(draws)
        start = next((i for i, token in enumerate(tokens) if token > draw), 0)
        found = False
        for i in range(len(tokens)):
            number = numbers[(start + i) % len(tokens)]
            if number in result or number in excluded:
                continue
            if partitions[number].state is ACTIVE:
                result.add(number)
                found = True
                break
            excluded.add(number)
        if not found:
            break
    return result


@settings(max_examples=40)
@given(
    st.dictionaries(st.integers(0, 9), st.sampled_from([ACTIVE, ACTIVE, PENDING, INACTIVE]), max_size=8),
    st.text(max_size=8),
    st.integers(-1, 9),
)
def test_a_write_shard_is_the_walk_of_the_specification_and_holds_active_partitions_only(states, tenant, size):
    ring, partitions = minutes_old({n: (state, 0) for n, state in states.items()})
    found = shard(ring, partitions, tenant, size)
    assert found == slow_shard(ring, partitions, tenant, size)
    active = list(states.values()).count(ACTIVE)
    assert len(found) == (active if size <= 0 else min(size, active))
    assert all(states[number] is ACTIVE for number in found)


@pytest.mark.parametrize("size", [3, 6, 9])
def test_one_changed_partition_changes_a_shard_by_at_most_one(size):
    states = (
        dict.fromkeys(range(20), ACTIVE) | dict.fromkeys(range(20, 23), INACTIVE) | dict.fromkeys((23, 24), PENDING)
    )
    changes = [{25: ACTIVE}, {23: ACTIVE}, {0: INACTIVE}, {0: None}, {20: None}]
    for change in changes:
        changed = {n: state for n, state in (states | change).items() if state is not None}
        before, after = (minutes_old({n: (state, 0) for n, state in each.items()}) for each in (states, changed))
        for tenant in range(50):
            was, now = shard(*before, str(tenant), size), shard(*after, str(tenant), size)
            assert len(now - was) <= 1
            assert len(was - now) <= 1


def test_a_larger_shard_contains_the_smaller_one():
    thirty = minutes_old(dict.fromkeys(range(30), (ACTIVE, 0)))
    shards = [shard(*thirty, "tenant-id", size) for size in range(1, 31)]
    assert all(small < large for small, large in pairwise(shards))


def test_tenants_share_few_partitions():
    ninety = minutes_old(dict.fromkeys(range(90), (ACTIVE, 0)))
    shards = [shard(*ninety, str(tenant), 3) for tenant in range(200)]
    pairs = [(a, b) for i, a in enumerate(shards) for b in shards[i + 1 :]]
    apart = sum(not a & b for a, b in pairs) / len(pairs)
    assert 0.88 < apart < 0.92  # 3 of 90 by chance: 0.902


LOOKBACK_MS = 60 * MINUTE_MS
event = st.tuples(st.sampled_from(["add", "activate", "deactivate", "reactivate", "remove", "grow"]), st.integers(0, 7))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.lists(event, max_size=25), st.sampled_from(["a", "tenant-2", "x"]), st.integers(1, 20))
def test_reads_find_every_partition_that_held_the_tenant_within_the_lookback(count, events, tenant, step_min):
    desc, now_ms, size = RingDesc(), NOW_MS, 1
    for number in range(count):
        desc = edited(desc, edits.create_partition(desc, number, now_ms), now_ms=now_ms)
        desc = edited(desc, edits.change_state(desc, number, ACTIVE, now_ms), now_ms=now_ms)
    now_ms += LOOKBACK_MS + MINUTE_MS
    written: list[tuple[int, frozenset[int]]] = []
    for what, number in events:
        state = desc.partitions[number].state if number in desc.partitions else None
        wanted = []
        match what, state:
            case "add", None:
                wanted = edits.create_partition(desc, number, now_ms)
            case ("activate", PartitionState.PENDING) | ("reactivate", PartitionState.INACTIVE):
                wanted = edits.change_state(desc, number, ACTIVE, now_ms)
            case "deactivate", PartitionState.ACTIVE:
                wanted = edits.change_state(desc, number, INACTIVE, now_ms)
            case "remove", PartitionState.INACTIVE:
                wanted = edits.remove_partition(desc, number, now_ms)
            case "grow", _:
                size += 1
        desc = edited(desc, wanted, now_ms=now_ms)
        ring = PartitionRing.build(desc.states)
        now_write = shard(ring, desc.partitions, tenant, size)
        written.append((now_ms, now_write))
        read = read_shard(ring, desc.partitions, tenant, size, lookback_ms=LOOKBACK_MS, now_ms=now_ms)
        as_reference = shard(ring, desc.partitions, tenant, size, lookback_ms=LOOKBACK_MS, now_ms=now_ms)
        needed = {p for at, shards in written if at >= now_ms - LOOKBACK_MS for p in shards} & desc.partitions.keys()
        assert needed <= read
        assert needed <= as_reference
        now_ms += step_min * MINUTE_MS


class TestWriteShards:
    def test_a_view_looks_up_in_the_shard_only_and_is_kept(self):
        shards = WriteShards(*SIX)
        view = shards.of("user-1", 3)
        assert view.active_partitions == (2, 3, 5)
        assert set(view.lookup(np.arange(0, 2**32, 2**22).astype(np.uint32)).tolist()) == {2, 3, 5}
        assert shards.of("user-1", 3) is view
        assert shards.of("user-1", 4).active_partitions == (1, 2, 3, 5)

    @pytest.mark.parametrize("size", [0, -1, 6, 7])
    def test_all_partitions_are_the_ring_itself(self, size):
        assert WriteShards(*SIX).of("user-1", size) is SIX[0]

    def test_the_least_recently_used_view_is_dropped(self):
        shards = WriteShards(*SIX, kept=2)
        first, second = shards.of("a", 1), shards.of("b", 1)
        shards.of("a", 1)
        shards.of("c", 1)
        assert shards.of("a", 1) is first
        assert shards.of("b", 1) is not second

    def test_without_an_active_partition_a_lookup_is_refused(self):
        shards = WriteShards(*minutes_old({0: (PENDING, 0), 1: (INACTIVE, 0)}))
        with pytest.raises(NoActivePartition):
            shards.of("a", 1).lookup(np.array([1], np.uint32))
