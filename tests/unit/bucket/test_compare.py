"""A block in the bucket against the same block in memory."""

from __future__ import annotations

import pytest

from mimir_ingest.bucket import compare
from mimir_ingest.bucket.compare import find_differences
from mimir_ingest.bucket.layout import block_file
from mimir_ingest.bucket.publish import publish_block
from mimir_ingest.bucket.store import Bucket
from tests.support.blocks import build, make_samples, sample_series

BUILT = build(make_samples(sample_series(3, 20)))


@pytest.fixture(autouse=True)
def _pieces_smaller_than_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_PIECE_BYTES", 100)


def test_a_published_block_has_no_differences_whatever_lies_beside_it(bucket: Bucket) -> None:
    assert find_differences(bucket, "team-a", BUILT) == [f"{path} is missing" for path in BUILT.files]
    publish_block(bucket, "team-a", BUILT)
    bucket.write_atomic(block_file("team-a", BUILT.ulid, "deletion-mark.json"), b"{}")
    assert find_differences(bucket, "team-a", BUILT) == []


@pytest.mark.parametrize("path", BUILT.files)
def test_the_first_byte_that_differs_is_found_wherever_it_is(tmp_path, path: str) -> None:
    bucket = Bucket(str(tmp_path))
    publish_block(bucket, "team-a", BUILT)
    data = BUILT.files[path]
    for place in sorted({0, 1, 99, 100, 101, len(data) // 2, len(data) - 1} & set(range(len(data)))):
        content = bytearray(data)
        content[place] ^= 0x80
        content[-1] ^= 0x01
        bucket.write_atomic(block_file("team-a", BUILT.ulid, path), bytes(content))
        assert find_differences(bucket, "team-a", BUILT) == [f"{path} differs from byte {place} on"]


def test_lengths_are_told(bucket: Bucket) -> None:
    publish_block(bucket, "team-a", BUILT)
    size = len(BUILT.files["index"])
    bucket.write_atomic(block_file("team-a", BUILT.ulid, "index"), BUILT.files["index"] + b"more")
    assert find_differences(bucket, "team-a", BUILT) == [f"index has {size + 4} bytes, it should have {size}"]
