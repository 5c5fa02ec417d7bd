"""Checkpoints as objects, and the paths of everything."""

from __future__ import annotations

import pytest

from mimir_ingest.bucket import layout
from mimir_ingest.bucket.checkpoints import CheckpointStore, find_superseded
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import InvariantViolated, StoreUnavailable


def test_checkpoints_are_kept_by_cut_offset(bucket: Bucket) -> None:
    store = CheckpointStore(bucket, "topic-x", 3)
    assert store.list() == []
    assert store.read(5) is None
    for offset in (900, 5, 12_345_678_901_234):
        store.write(offset, f"at {offset}".encode())
    CheckpointStore(bucket, "topic-x", 11).write(1, b"other")
    bucket.write_atomic("__mimir_cluster/ingest-storage/topic-x/3/readme", b"")
    assert store.list() == [5, 900, 12_345_678_901_234]
    assert store.read(900) == b"at 900"
    assert store.exists(5)
    store.delete(5)
    assert not store.exists(5)
    assert store.list() == [900, 12_345_678_901_234]
    assert CheckpointStore(bucket, "topic-x", 11).list() == [1]
    assert CheckpointStore(bucket, "topic-y", 3).list() == []


HOUR_MS = 3_600_000


def test_the_newest_checkpoints_stay_and_the_first_of_each_day_for_eight_days() -> None:
    every_two_hours = {offset: offset * 2 * HOUR_MS for offset in range(300)}
    kept = sorted(every_two_hours.keys() - set(find_superseded(every_two_hours)))
    assert kept == [*range(204, 289, 12), 296, 297, 298, 299]


def test_what_stays_is_the_same_whether_checkpoints_come_one_by_one_or_are_looked_at_once() -> None:
    written: dict[int, int] = {}
    for offset in range(0, 900, 3):
        written[offset] = offset * HOUR_MS // 3
        for gone in find_superseded(written):
            del written[gone]
    hours = [offset // 3 for offset in sorted(written)]
    assert hours == [*range(120, 289, 24), 296, 297, 298, 299]


def test_a_few_checkpoints_all_stay() -> None:
    assert find_superseded({1: 0, 2: 1, 3: 2, 4: 3}) == []
    assert find_superseded({}) == []
    assert find_superseded({1: 0, 2: 1, 3: 2, 4: 3, 5: 4}) == []
    assert find_superseded({1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5}) == [2]


def test_publishing_reads_back_and_drops_what_is_superseded(bucket: Bucket) -> None:
    store = CheckpointStore(bucket, "topic-x", 3)
    for offset in range(10, 100, 10):
        store.publish(offset, f"at {offset}".encode())
    # All of one day (or two, at midnight): the first of a day stays besides the newest.
    kept = store.list()
    assert kept[0] == 10
    assert kept[-4:] == [60, 70, 80, 90]
    assert len(kept) in (5, 6)
    assert store.read(90) == b"at 90"


def test_a_checkpoint_that_reads_back_differently_is_an_error(tmp_path) -> None:
    class Forgetful(Bucket):
        def write_atomic(self, path: str, data: bytes) -> None:
            super().write_atomic(path, data[:-1])

    with pytest.raises(StoreUnavailable, match="reads back differently"):
        CheckpointStore(Forgetful(str(tmp_path)), "topic-x", 3).publish(1, b"content")


def test_a_checkpoint_s_path_is_the_documented_one() -> None:
    path = layout.checkpoint_file("topic-x", 3, 42)
    assert path == "__mimir_cluster/ingest-storage/topic-x/3/00000000000000000042.checkpoint"
    assert layout.parse_checkpoint_name(path.rsplit("/", 1)[1]) == 42


@pytest.mark.parametrize("name", ["42.checkpoint", "00000000000000000042", "0000000000000000004x.checkpoint", ""])
def test_other_names_are_no_checkpoints(name: str) -> None:
    assert layout.parse_checkpoint_name(name) is None


@pytest.mark.parametrize("tenant", ["", ".", "..", "a/b", "__mimir_cluster"])
def test_names_that_would_leave_the_tenant_s_folder_are_refused(tenant: str) -> None:
    with pytest.raises(InvariantViolated):
        layout.block_folder(tenant, "01ARYZ6S41TSV4RRFFQ69G5FAV")


@pytest.mark.parametrize("topic_id", ["", "..", "a/b"])
def test_names_that_would_leave_the_topic_s_folder_are_refused(topic_id: str) -> None:
    with pytest.raises(InvariantViolated):
        layout.checkpoint_folder(topic_id, 0)


def test_block_paths_are_mimir_s() -> None:
    ulid = "01ARYZ6S41TSV4RRFFQ69G5FAV"
    assert layout.meta_file("team-a", ulid) == f"team-a/{ulid}/meta.json"
    assert layout.block_file("team-a", ulid, "chunks/000001") == f"team-a/{ulid}/chunks/000001"
