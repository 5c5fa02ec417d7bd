"""Checkpoints as objects, and the paths of everything."""

from __future__ import annotations

import pytest

from mimir_ingest.bucket import layout
from mimir_ingest.bucket.checkpoints import CheckpointStore, list_checkpointed_partitions
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import InvariantViolated


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
    assert list_checkpointed_partitions(bucket, "topic-x") == [3, 11]
    assert list_checkpointed_partitions(bucket, "topic-y") == []


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
