"""Blocks of cuts, from the checkpoints in the bucket."""

import pytest

from mimir_ingest.bucket.checkpoints import CheckpointStore
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import StoreUnavailable
from mimir_ingest.ingester.checkpoint import KIND, VERSION, PartitionFacts
from mimir_ingest.ingester.cut import BlockRef, CutSummary
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.querier import checkpoint_cuts
from mimir_ingest.querier.checkpoint_cuts import CheckpointCuts
from mimir_ingest.tsdb.columns_file import encode_columns


class CountingBucket(Bucket):
    """Counts reads."""

    reads = 0

    def read_range(self, *args):
        self.reads += 1
        return super().read_range(*args)


def block(tenant: str, number: int) -> BlockRef:
    return BlockRef(tenant, f"{number:026d}", 0, 10)


def write(bucket: Bucket, partition: int, *cuts: CutSummary) -> None:
    facts = PartitionFacts("topic", partition, cuts[-1].cut_offset, 0, 0, PartitionSettings(), cuts)
    data = encode_columns(KIND, VERSION, {**facts.to_json(), "tenants": []}, {})
    CheckpointStore(bucket, "topic", partition).write(cuts[-1].cut_offset, data)


FIRST = CutSummary(10, 0, (block("a", 1), block("b", 2)))
SECOND = CutSummary(20, 0, (block("a", 3),))


@pytest.fixture
def bucket(tmp_path) -> CountingBucket:
    return CountingBucket(str(tmp_path))


@pytest.fixture
def cuts(bucket) -> CheckpointCuts:
    return CheckpointCuts(bucket, lambda: "topic", kept=2)


async def test_a_tenants_blocks_of_all_cuts_up_to_the_offset_are_found(bucket, cuts):
    write(bucket, 0, FIRST, SECOND)
    write(bucket, 3, FIRST)
    [one, other] = await cuts.of("a", {0: 20, 3: 10})
    assert (one.partition, one.cut_offset, one.blocks) == (0, 20, (block("a", 1), block("a", 3)))
    assert (other.partition, other.blocks) == (3, (block("a", 1),))
    assert [cut.blocks for cut in await cuts.of("c", {0: 20})] == [()]


async def test_a_checkpoint_that_was_superseded_is_replaced_by_a_later_one_without_its_later_cuts(bucket, cuts):
    write(bucket, 0, FIRST, SECOND)
    [cut] = await cuts.of("a", {0: 10})
    assert (cut.cut_offset, cut.blocks) == (10, (block("a", 1),))


async def test_a_checkpoint_is_read_once(bucket, cuts):
    write(bucket, 0, FIRST)
    for _ in range(3):
        await cuts.of("a", {0: 10})
    assert bucket.reads == 1


async def test_what_is_kept_is_bounded_and_read_again(bucket, cuts):
    for p in range(3):
        write(bucket, p, FIRST)
    for p in range(3):
        await cuts.of("a", {p: 10})
    assert len(cuts._cuts) == 2
    assert bucket.reads == 3
    await cuts.of("a", {0: 10})
    assert bucket.reads == 4


async def test_without_a_checkpoint_the_read_fails_and_is_tried_again_the_next_time(bucket, cuts):
    with pytest.raises(StoreUnavailable, match="no checkpoint of partition 0 covers its cut at offset 10"):
        await cuts.of("a", {0: 10})
    write(bucket, 0, FIRST)
    assert len(await cuts.of("a", {0: 10})) == 1


async def test_a_damaged_checkpoint_is_passed_over(bucket, cuts):
    write(bucket, 0, FIRST)
    write(bucket, 0, FIRST, SECOND)
    store = CheckpointStore(bucket, "topic", 0)
    store.write(10, b"\0" + store.read(10)[1:])
    [cut] = await cuts.of("a", {0: 10})
    assert cut.blocks == (block("a", 1),)


async def test_a_long_header_is_read_whole(bucket, cuts, monkeypatch):
    monkeypatch.setattr(checkpoint_cuts, "_FRONT_BYTES", 50)
    write(bucket, 0, FIRST, SECOND)
    [cut] = await cuts.of("a", {0: 20})
    assert cut.blocks == (block("a", 1), block("a", 3))
    assert bucket.reads == 2
