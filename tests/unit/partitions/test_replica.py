from hypothesis import given
from hypothesis import strategies as st

from partitions.codec import encode
from partitions.kv.contract import RingRecord
from partitions.merge import join
from partitions.model import OwnerDesc, OwnerState, PartitionDesc, PartitionState, RingDesc, Version
from partitions.replica import Replica
from tests.support.ring import WRITERS, partition, partition_values


def record(entry, writer):
    return RingRecord(entry.key, writer, encode(entry))


def null(entry, writer):
    return RingRecord(entry.key, writer, None)


def replica_of(*records):
    replica = Replica()
    assert replica.apply(records) == []
    return replica


def owner_value(state, ms, writer="a"):
    return OwnerDesc("i-0", 0, state, ms, Version(ms, 0, writer))


ACTIVE, GONE = owner_value(OwnerState.ACTIVE, 1), owner_value(OwnerState.DELETED, 2, "b")


@given(st.lists(st.tuples(st.sampled_from(WRITERS), partition_values), max_size=20), st.data())
def test_after_compaction_a_late_reader_sees_what_running_readers_see(writes, data):
    """Each writer's record holds the whole entry as it knows it: here, all before it or only its own and some."""
    log, known = [], {}
    for writer, value in writes:
        seen = data.draw(st.integers(0, len(log)), "read up to")
        for earlier in log[:seen]:
            value = join(value, earlier[1])
        known[writer] = join(known.get(writer, value), value)
        log.append((writer, known[writer]))
    running = replica_of(*(record(value, writer) for writer, value in log))
    newest = {writer: at for at, (writer, _) in enumerate(log)}
    late = replica_of(*(record(value, writer) for at, (writer, value) in enumerate(log) if newest[writer] == at))
    assert late.desc == running.desc
    assert running.lacking() == []


def test_a_batch_and_single_records_make_the_same_document():
    records = [record(ACTIVE, "a"), record(GONE, "b"), null(ACTIVE, "a"), null(GONE, "b"), record(ACTIVE, "c")]
    single = Replica()
    for each in records:
        single.apply([each])
    assert single.desc == replica_of(*records).desc
    assert list(single.desc.entries.values()) == [ACTIVE]


def test_a_document_that_did_not_change_is_the_same_object():
    replica = replica_of(record(ACTIVE, "a"))
    desc = replica.desc
    replica.apply([record(ACTIVE, "b")])
    assert replica.desc is desc


def test_a_tombstone_goes_with_its_last_record_and_not_before():
    replica = replica_of(record(ACTIVE, "a"), record(GONE, "b"), null(ACTIVE, "a"))
    assert replica.desc.entries == {GONE.key: GONE}
    assert replica.desc.owners == ()
    replica.apply([null(GONE, "b")])
    assert replica.desc == RingDesc()
    assert replica.slots == {}
    assert replica.lacking() == []


def test_an_older_record_that_comes_late_undoes_nothing_and_is_found():
    newer = partition(0, PartitionState.ACTIVE)
    older = PartitionDesc(0, PartitionState.PENDING, 0, Version(0, 1, "a"))
    replica = replica_of(record(newer, "a"), record(older, "a"))
    assert replica.desc.entries == {newer.key: newer}
    assert replica.lacking() == [newer]
    replica.apply([record(newer, "b")])
    assert replica.lacking() == []


def test_a_null_that_meets_a_live_value_undoes_nothing_and_is_found():
    replica = replica_of(record(ACTIVE, "a"), null(ACTIVE, "a"))
    assert replica.desc.owners == (ACTIVE,)
    assert replica.lacking() == [ACTIVE]
    assert replica.lacking() == [ACTIVE], "asking does not mend it"


def test_a_record_that_cannot_be_read_is_told_and_what_it_replaced_is_found():
    replica = replica_of(record(ACTIVE, "a"))
    (unread,) = replica.apply([RingRecord(ACTIVE.key, "a", b"?")])
    assert unread.key == ACTIVE.key
    assert replica.desc.owners == (ACTIVE,)
    assert replica.lacking() == [ACTIVE]


def test_kinds_of_later_versions_are_left_alone():
    replica = replica_of(RingRecord("ha/tenant/cluster", "a", b"x"), RingRecord("ha/tenant/cluster", "a", None))
    assert replica.desc == RingDesc()
    assert replica.lacking() == []


def test_what_was_read_stays_as_it_was():
    replica = replica_of(record(ACTIVE, "a"))
    before = replica.desc
    replica.apply([record(GONE, "b")])
    assert before.owners == (ACTIVE,)
    assert replica.desc.owners == ()
