"""A process refuses a bucket that it cannot use, and removes what dead writers left, not what living ones write."""

import asyncio
import os

import pytest

from mimir_ingest.bucket.publish import PARTIAL_MIN_AGE_MS
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.bucket.upkeep import BucketUpkeep
from mimir_ingest.errors import StoreUnavailable

ULIDS = ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "01BX5ZZKBKACTAV9WEVGEMMVRY", "01BX5ZZKBKACTAV9WEVGEMMVS0"]
NOW_MS = 1_800_000_000_000


def write(path, *, age_ms):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, ((NOW_MS - age_ms) / 1000,) * 2)


async def test_old_leftovers_go_and_everything_else_stays(tmp_path):
    old, young = PARTIAL_MIN_AGE_MS + 1000, PARTIAL_MIN_AGE_MS - 1000
    partial, recent, whole = (tmp_path / "team-a" / ulid for ulid in ULIDS)
    write(partial / "index", age_ms=old)
    write(partial / "chunks" / "000001", age_ms=old)
    write(recent / "index", age_ms=young)
    write(whole / "index", age_ms=old)
    write(whole / "meta.json", age_ms=old)
    write(tmp_path / "team-b" / ".tmp-dead", age_ms=old)
    write(tmp_path / "team-b" / ".tmp-alive", age_ms=young)
    checkpoint = tmp_path / "__mimir_cluster" / "ingest-storage" / "topic" / "0" / f"{7:020d}.checkpoint"
    write(checkpoint, age_ms=old)
    await BucketUpkeep(Bucket(str(tmp_path)), now_ms=lambda: NOW_MS).clean()
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == sorted(
        [
            f"team-a/{ULIDS[1]}/index",
            f"team-a/{ULIDS[2]}/index",
            f"team-a/{ULIDS[2]}/meta.json",
            "team-b/.tmp-alive",
            str(checkpoint.relative_to(tmp_path)),
        ]
    )


async def test_start_creates_the_directory_and_close_ends_the_cleaning(tmp_path):
    upkeep = BucketUpkeep(Bucket(str(tmp_path / "new" / "bucket")), now_ms=lambda: NOW_MS)
    await upkeep.start()
    assert list((tmp_path / "new" / "bucket").iterdir()) == []
    await upkeep.close()
    await upkeep.close()


async def test_a_bucket_that_cannot_be_written_is_refused_at_start(tmp_path):
    (tmp_path / "file").write_text("")
    upkeep = BucketUpkeep(Bucket(str(tmp_path / "file" / "bucket")), now_ms=lambda: NOW_MS)
    with pytest.raises(StoreUnavailable, match="cannot be written: Not a directory"):
        await upkeep.start()
    await upkeep.close()


class Remote(Bucket):
    """A store that does not answer at first."""

    down = True

    @property
    def is_local(self):
        return False

    def check(self):
        if self.down:
            raise StoreUnavailable("s3://blocks: connection refused")


async def test_a_store_that_does_not_answer_is_waited_for_and_says_so(tmp_path):
    bucket = Remote(str(tmp_path))
    old = NOW_MS - PARTIAL_MIN_AGE_MS - 1000
    write(tmp_path / "team-a" / ULIDS[0] / "index", age_ms=old)
    upkeep = BucketUpkeep(bucket, now_ms=lambda: NOW_MS, first_backoff_s=0.01)
    await upkeep.start()
    async with asyncio.timeout(120):
        while upkeep.waits_for != "s3://blocks: connection refused":  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        bucket.down = False
        while (tmp_path / "team-a").exists():  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0.01)
    assert upkeep.waits_for is None
    await upkeep.close()
