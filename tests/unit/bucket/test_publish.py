"""Publication: in order, once, whole; and what a crash leaves is completed or removed, never read."""

from __future__ import annotations

import time

import pytest

from mimir_ingest.bucket.discover import BlockCatalog
from mimir_ingest.bucket.layout import block_file
from mimir_ingest.bucket.publish import (
    PARTIAL_MIN_AGE_MS,
    delete_partial_blocks,
    find_missing_files,
    find_partial_blocks,
    publish_block,
)
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import BlockCorrupt, StoreUnavailable
from mimir_ingest.tsdb.block_reader import open_files
from mimir_ingest.tsdb.block_writer import BuiltBlock
from tests.support.blocks import build, make_samples, sample_series, to_python

SAMPLES = make_samples(sample_series(12, 250))
BUILT = build(SAMPLES, segment_bytes=8_000)
PATHS = list(BUILT.files)
EVER = (-(2**62), 2**62)


class _Dying:
    """A bucket whose process dies at a write, before or after it took effect."""

    def __init__(self, bucket: Bucket, write: int, *, after: bool) -> None:
        self._bucket, self._left, self._after = bucket, write, after
        self.written: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._bucket, name)

    def write_atomic(self, path: str, data: bytes) -> None:
        if self._left == 0 and not self._after:
            raise KeyboardInterrupt
        self._bucket.write_atomic(path, data)
        self.written.append(path)
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1


def _blocks(bucket: Bucket) -> list[str]:
    catalog = BlockCatalog(bucket)
    catalog.refresh("team-a")
    return [block.ulid for block in catalog.blocks("team-a", *EVER)]


def _read(bucket: Bucket) -> list:
    catalog = BlockCatalog(bucket)
    catalog.refresh("team-a")
    (block,) = catalog.blocks("team-a", *EVER)
    return to_python(catalog.open(block).select([], *EVER))


def test_a_block_is_published_once_and_read_back(bucket: Bucket) -> None:
    assert publish_block(bucket, "team-a", BUILT)
    assert _read(bucket) == to_python(SAMPLES)
    assert not publish_block(bucket, "team-a", BUILT)
    assert find_missing_files(bucket, "team-a", BUILT) == []


def test_files_are_written_in_order_with_meta_json_last(bucket: Bucket) -> None:
    recorder = _Dying(bucket, 1000, after=True)
    publish_block(recorder, "team-a", BUILT)
    assert recorder.written == [block_file("team-a", BUILT.ulid, path) for path in PATHS]
    assert PATHS[-1] == "meta.json"
    assert len(PATHS) > 4


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("write", range(len(PATHS)))
def test_a_death_at_any_write_leaves_no_half_block_and_a_retry_completes_it(
    bucket: Bucket, write: int, after: bool
) -> None:
    with pytest.raises(KeyboardInterrupt):
        publish_block(_Dying(bucket, write, after=after), "team-a", BUILT)
    whole = after and write == len(PATHS) - 1
    assert _blocks(bucket) == ([BUILT.ulid] if whole else [])
    assert publish_block(bucket, "team-a", BUILT) != whole
    assert _read(bucket) == to_python(SAMPLES)


@pytest.mark.parametrize("path", ["chunks/000001", "index"])
def test_a_block_that_has_lost_a_file_is_completed_though_its_meta_json_is_there(bucket: Bucket, path: str) -> None:
    publish_block(bucket, "team-a", BUILT)
    bucket.delete(block_file("team-a", BUILT.ulid, path))
    assert publish_block(bucket, "team-a", BUILT)
    assert find_missing_files(bucket, "team-a", BUILT) == []


@pytest.mark.parametrize("path", ["meta.json", "tombstones"])
def test_a_published_block_whose_small_files_were_replaced_is_left_alone(bucket: Bucket, path: str) -> None:
    publish_block(bucket, "team-a", BUILT)
    bucket.write_atomic(block_file("team-a", BUILT.ulid, path), b"by somebody else")
    assert not publish_block(bucket, "team-a", BUILT)
    assert bucket.read(block_file("team-a", BUILT.ulid, path)) == b"by somebody else"


@pytest.mark.parametrize("path", [path for path in PATHS if path not in ("meta.json", "tombstones")])
def test_a_block_that_does_not_verify_is_not_shipped(bucket: Bucket, path: str) -> None:
    data = bytearray(BUILT.files[path])
    data[len(data) // 2] ^= 1
    broken = BuiltBlock(BUILT.ulid, BUILT.meta, {**BUILT.files, path: bytes(data)})
    with pytest.raises(BlockCorrupt):
        publish_block(bucket, "team-a", broken)
    assert bucket.list() == []


def _partial(bucket: Bucket) -> None:
    with pytest.raises(KeyboardInterrupt):
        publish_block(_Dying(bucket, 3, after=False), "team-a", BUILT)


def test_parts_of_a_block_are_removed_after_48_hours_and_not_before(bucket: Bucket) -> None:
    _partial(bucket)
    now_ms = int(time.time() * 1000)
    assert delete_partial_blocks(bucket, "team-a", now_ms=now_ms + PARTIAL_MIN_AGE_MS - 60_000) == []
    assert bucket.exists(block_file("team-a", BUILT.ulid, "chunks/000001"))
    late_ms = now_ms + PARTIAL_MIN_AGE_MS + 60_000
    assert find_partial_blocks(bucket, "team-a", now_ms=late_ms) == [BUILT.ulid]
    assert delete_partial_blocks(bucket, "team-a", now_ms=late_ms) == [BUILT.ulid]
    assert bucket.list() == []


def test_whole_blocks_and_other_folders_are_never_taken_for_parts(bucket: Bucket) -> None:
    publish_block(bucket, "team-a", BUILT)
    bucket.write_atomic("team-a/markers/x", b"{}")
    bucket.write_atomic("team-a/bucket-index.json.gz", b"x")
    late_ms = int(time.time() * 1000) + 10 * PARTIAL_MIN_AGE_MS
    assert delete_partial_blocks(bucket, "team-a", now_ms=late_ms) == []
    assert _read(bucket) == to_python(SAMPLES)


def test_a_block_completed_while_its_parts_are_removed_is_whole_or_not_there(bucket: Bucket) -> None:
    """The publisher finishes after the clean-up looked, before it deletes the first file."""
    _partial(bucket)

    class Racing:
        def __getattr__(self, name: str) -> object:
            return getattr(bucket, name)

        def delete(self, path: str) -> None:
            bucket.delete(path)
            publish_block(bucket, "team-a", BUILT)

    late_ms = int(time.time() * 1000) + 2 * PARTIAL_MIN_AGE_MS
    assert delete_partial_blocks(Racing(), "team-a", now_ms=late_ms) == []
    assert _read(bucket) == to_python(SAMPLES)


def test_files_that_vanish_during_publication_are_written_again(bucket: Bucket) -> None:
    first_chunk = block_file("team-a", BUILT.ulid, PATHS[0])

    class Cleaning:
        def __init__(self, times: int) -> None:
            self.times = times

        def __getattr__(self, name: str) -> object:
            return getattr(bucket, name)

        def write_atomic(self, path: str, data: bytes) -> None:
            bucket.write_atomic(path, data)
            if path.endswith("index") and self.times:
                self.times -= 1
                bucket.delete(first_chunk)

    assert publish_block(Cleaning(1), "team-a", BUILT)
    assert _read(bucket) == to_python(SAMPLES)
    other = build(SAMPLES, cut_offset=99, segment_bytes=8_000)
    first_chunk = block_file("team-a", other.ulid, PATHS[0])
    with pytest.raises(StoreUnavailable, match="vanish"):
        publish_block(Cleaning(100), "team-a", other)
    assert _blocks(bucket) == [BUILT.ulid]


def test_the_published_files_are_the_built_ones(bucket: Bucket) -> None:
    publish_block(bucket, "team-a", BUILT)
    files = {path: bucket.read(block_file("team-a", BUILT.ulid, path)) for path in PATHS}
    assert files == BUILT.files
    assert open_files(files).verify() == []
