"""Whom to ask: this process first, then healthy owners in order, nobody twice."""

from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.querier.read_plan import plan_reads
from partitions.model import InstanceDesc

INSTANCES = [InstanceDesc("ingester", f"i{n}") for n in range(4)]
NUMBERS = st.integers(0, 5)
TARGETS = st.dictionaries(NUMBERS, st.lists(st.sampled_from(INSTANCES), unique=True, max_size=4))


def test_partitions_are_grouped_by_the_first_owner_that_was_not_tried():
    a, b, c, _ = INSTANCES
    targets = {0: (a, b), 1: (b, a), 2: (c,), 3: (), 4: (a, c)}
    groups, nobody = plan_reads(targets, range(5), local=(), tried=frozenset(), local_id="")
    assert groups == {"i0": {0, 4}, "i1": {1}, "i2": {2}}
    assert nobody == {3}
    tried = frozenset({("i0", 0), ("i2", 2), ("i0", 4)})
    groups, nobody = plan_reads(targets, [0, 2, 4], local=(), tried=tried, local_id="")
    assert groups == {"i1": {0}, "i2": {4}}
    assert nobody == {2}


def test_what_this_process_owns_it_is_asked_for_even_if_the_ring_takes_it_for_dead():
    a, b, *_ = INSTANCES
    groups, nobody = plan_reads({0: (a, b), 1: ()}, [0, 1], local=[0, 1], tried=frozenset(), local_id="me")
    assert (groups, nobody) == ({"me": {0, 1}}, frozenset())
    groups, nobody = plan_reads({0: (a, b)}, [0], local=[0], tried=frozenset({("me", 0)}), local_id="me")
    assert groups == {"i0": {0}}


@given(TARGETS, st.sets(NUMBERS), st.sets(st.tuples(st.sampled_from(["i0", "i1", "me"]), NUMBERS)), st.sets(NUMBERS))
def test_every_partition_is_asked_of_one_owner_that_was_not_tried_or_of_nobody(targets, partitions, tried, local):
    groups, nobody = plan_reads(targets, partitions, local=local, tried=frozenset(tried), local_id="me")
    asked = [(instance, p) for instance, parts in groups.items() for p in parts]
    assert sorted([p for _, p in asked] + list(nobody)) == sorted(partitions)
    assert not tried & set(asked)
    owners = {p: {i.id for i in found} for p, found in targets.items()}
    for instance, p in asked:
        assert p in local if instance == "me" else instance in owners[p]
    for p in nobody:
        assert all((i, p) in tried for i in owners.get(p, ()))
        assert p not in local or ("me", p) in tried
