"""The first process gives the ring the log's partitions; later ones only what the configuration adds."""

from partitions.bootstrap import first_partitions
from partitions.edits import remove_partition
from partitions.merge import join_entries
from partitions.model import PartitionState, RingDesc

NOW_MS = 1_700_000_000_000


def states(entries):
    return {entry.id: entry.state for entry in entries}


def test_an_empty_ring_gets_all_partitions_of_the_log_active_at_once():
    found = first_partitions(RingDesc(), [0, 1, 2], 0, NOW_MS)
    assert states(found) == dict.fromkeys((0, 1, 2), PartitionState.ACTIVE)


def test_a_ring_that_ever_had_a_partition_gets_only_what_is_configured_and_as_pending():
    desc = join_entries(RingDesc(), first_partitions(RingDesc(), [0, 1], 0, NOW_MS))
    assert first_partitions(desc, [0, 1, 2], 0, NOW_MS) == []
    assert first_partitions(desc, [0, 1, 2], 2, NOW_MS) == []
    assert states(first_partitions(desc, [0, 1, 2], 3, NOW_MS)) == {2: PartitionState.PENDING}


def test_a_removed_partition_is_not_brought_back_by_a_restart_unless_the_configuration_asks_for_it():
    desc = join_entries(RingDesc(), first_partitions(RingDesc(), [0], 0, NOW_MS))
    desc = join_entries(desc, remove_partition(desc, 0, NOW_MS + 1))
    assert first_partitions(desc, [0], 0, NOW_MS) == []
    assert states(first_partitions(desc, [0], 1, NOW_MS)) == {0: PartitionState.PENDING}
