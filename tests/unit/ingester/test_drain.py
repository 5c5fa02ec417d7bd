"""When a partition is drained: from the log and the bucket alone, behind the fence."""

from __future__ import annotations

import numpy as np
import pytest

from mimir_ingest.ingester.drain import holds_samples, is_fenced, needs_cut_record, observe_inactive
from mimir_ingest.log.contract import Record
from mimir_ingest.model.batch import MetadataColumns, WriteBatch
from mimir_ingest.wire.record import VERSION_COLUMNAR, VERSION_V0, encode_columnar, encode_mimir
from partitions.merge import join_entries
from partitions.model import PartitionDesc, PartitionState, RingDesc, Version
from tests.support.partition_log import NO_LIMITS, START_MS, data_record, flush_record

ROWS = [({"__name__": "m"}, [(START_MS, 1.0)])]


def ring(*partitions: PartitionDesc) -> RingDesc:
    return join_entries(RingDesc(), partitions)


def inactive(number: int, ms: int) -> PartitionDesc:
    return PartitionDesc(number, PartitionState.INACTIVE, ms, Version(ms, 0, "a"))


def test_the_fence_counts_from_when_this_process_saw_the_change_whatever_the_clocks_say():
    before = observe_inactive({}, ring(inactive(1, 5)), 100.0)
    assert not is_fenced(before, 1, 119.9)
    again = observe_inactive(before, ring(inactive(1, 5), inactive(2, 5)), 119.0)
    assert is_fenced(again, 1, 120.0)
    assert not is_fenced(again, 2, 120.0)
    assert not is_fenced(again, 3, 120.0)


def test_a_partition_that_was_active_in_between_begins_the_fence_anew():
    first = observe_inactive({}, ring(inactive(1, 5)), 100.0)
    active = PartitionDesc(1, PartitionState.ACTIVE, 6, Version(6, 0, "a"))
    assert observe_inactive(first, ring(active), 101.0) == {}
    later = observe_inactive(first, ring(inactive(1, 7)), 119.0)
    assert not is_fenced(later, 1, 120.0)


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({}, True),
        ({"fenced": False}, False),
        ({"unshipped": False}, False),
        ({"settled": False}, False),
        ({"last_flush_offset": 7}, False),
        ({"last_flush_offset": 6}, True),
    ],
)
def test_a_cut_record_is_appended_once_for_what_is_not_shipped(changed, wanted):
    facts = {"fenced": True, "next_offset": 7, "unshipped": True, "settled": True, "last_flush_offset": None}
    assert needs_cut_record(**facts | changed) is wanted


def test_flushes_metadata_and_what_nobody_can_read_hold_no_samples():
    text = np.frombuffer(b"mhelps", np.uint8)
    metadata = WriteBatch.empty(MetadataColumns(np.ones(1, np.uint8), text, np.array([0, 1, 5, 6])))
    nothing = [
        flush_record(0, at_ms=START_MS),
        Record(3, 1, START_MS, b"a", encode_columnar(metadata, NO_LIMITS), VERSION_COLUMNAR),
        Record(3, 2, START_MS, b"a", encode_mimir(metadata, VERSION_V0), VERSION_V0),
        Record(3, 3, START_MS, b"a", b"\xff\xff", VERSION_COLUMNAR),
    ]
    assert not holds_samples(nothing)
    assert holds_samples([*nothing, data_record(4, "a", ROWS, at_ms=START_MS)])
    assert holds_samples([Record(3, 0, START_MS, b"a", b"", 77)])
