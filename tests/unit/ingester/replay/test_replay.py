"""Replay of a partition against a bucket: blocks that are the same, missing, damaged, merged, foreign; trimmed logs."""

import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import LogError, LogUnavailable, MemoryBudgetExceeded, StoreUnavailable
from mimir_ingest.ingester.cut import build_blocks
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.ingester.replay.judge import largest_block_bytes
from mimir_ingest.ingester.replay.plan import LogPlace
from mimir_ingest.ingester.replay.report import Verdict
from mimir_ingest.ingester.replay.run import ReplayRequest, replay_partition
from mimir_ingest.ingester.settings import PartitionSettings
from tests.support.partition_log import (
    NO_LIMITS,
    START_MS,
    TOPIC,
    Owner,
    data_record,
    files_of,
    flush_record,
    random_log,
    settings_record,
)
from tests.support.recorded_log import RecordedLog

ASK = ReplayRequest(3, None, None, ship=False, memory_limit_bytes=0, timeout_s=5)
SMALL_CUTS = {"range_ms": 60_000, "grace_ms": 30_000, "cut_max_samples": 400}


class Scene:
    """A log, and the bucket that an owner of the partition has filled from it."""

    def __init__(self, tmp_path: Path, seed: int = 1, length: int = 150) -> None:
        records, _ = random_log(seed, length)
        first = settings_record(0, SMALL_CUTS, at_ms=records[0].timestamp_ms)
        self.records = [first, *(replace(r, offset=r.offset + 1) for r in records)]
        self.folder = tmp_path / "bucket"
        self.bucket = Bucket(str(self.folder))
        self.owner = Owner(self.bucket, tmp_path / "local", settings=PartitionSettings())
        self.owner.consume(self.records)
        self.files = files_of(self.folder)

    def log(self, start_offset: int = 0) -> RecordedLog:
        return RecordedLog(self.records, topic_id=TOPIC, start_offset=start_offset)

    async def replay(self, log=None, bucket=None, **changes):
        request = replace(ASK, **changes)
        return await replay_partition(
            log or self.log(), bucket or self.bucket, request, default_record_settings=lambda tenant, count: NO_LIMITS
        )

    def blocks(self) -> list[Path]:
        return sorted(meta.parent for meta in self.folder.glob("[!_]*/*/meta.json"))

    def checkpoints(self) -> list[int]:
        return [int(path.stem) for path in sorted(self.folder.rglob("*.checkpoint"))]


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


@pytest.mark.parametrize("seed", range(4))
async def test_what_an_owner_has_shipped_is_what_a_replay_builds(tmp_path, seed):
    scene = Scene(tmp_path, seed)
    report = await scene.replay()
    assert report.is_sound
    assert len(report.blocks) == report.count(Verdict.SAME) == len(scene.blocks()) > 5
    assert report.cut_offsets == scene.owner.cuts
    assert report.records == len(scene.records)
    assert report.not_cut_samples == scene.owner.state.held_count
    assert files_of(scene.folder) == scene.files


async def test_a_replay_from_any_offset_compares_the_cuts_that_hold_it_and_later_ones(scene):
    cuts = scene.owner.cuts
    for first in (1, cuts[0], cuts[2] - 1, cuts[-1] - 1):
        report = await scene.replay(first=LogPlace(offset=first))
        assert report.is_sound
        assert report.cut_offsets == [cut for cut in cuts if cut > first]
    report = await scene.replay(first=LogPlace(offset=cuts[1]), end=LogPlace(offset=cuts[3]))
    assert report.cut_offsets == cuts[2:4]


async def test_times_name_the_first_record_stamped_then(scene):
    stamped = scene.records[60]
    first = next(r.offset for r in scene.records if r.timestamp_ms >= stamped.timestamp_ms)
    report = await scene.replay(first=LogPlace(time_ms=stamped.timestamp_ms))
    assert report.plan.from_offset == first
    assert report.is_sound


async def test_a_block_removed_from_the_bucket_is_named_and_shipped_again_byte_for_byte(scene):
    gone = scene.blocks()[3]
    shutil.rmtree(gone)
    report = await scene.replay()
    assert not report.is_sound
    assert [b.ulid for b in report.blocks if b.verdict is Verdict.MISSING] == [gone.name]
    assert not gone.exists()
    report = await scene.replay(ship=True)
    assert report.is_sound
    assert [b.ulid for b in report.blocks if b.verdict is Verdict.SHIPPED] == [gone.name]
    assert files_of(scene.folder) == scene.files
    assert (await scene.replay()).count(Verdict.SAME) == len(scene.blocks())


async def test_an_empty_bucket_is_filled_with_the_same_blocks_and_a_checkpoint_to_go_on_from(tmp_path, scene):
    other = Bucket(str(tmp_path / "other"))
    report = await scene.replay(bucket=other, ship=True)
    assert report.is_sound
    assert report.count(Verdict.SHIPPED) == len(report.blocks)
    assert files_of(tmp_path / "other") == scene.files


@pytest.mark.parametrize("file", ["chunks/000001", "index", "meta.json", "tombstones"])
async def test_a_block_with_a_wrong_byte_is_reported_and_left_alone(scene, file):
    block = scene.blocks()[2]
    content = bytearray((block / file).read_bytes())
    content[len(content) // 2] ^= 1
    (block / file).write_bytes(content)
    for ship in (False, True):
        report = await scene.replay(ship=ship)
        (found,) = [b for b in report.blocks if not b.verdict.is_sound]
        assert (found.verdict, found.ulid) == (Verdict.DIFFERS, block.name)
        assert found.problems == (f"{file} differs from byte {len(content) // 2} on",)
    assert (block / file).read_bytes() == content


async def test_a_block_cut_short_is_reported_with_its_length_and_one_without_a_file_is_completed(scene):
    block, other = scene.blocks()[:2]
    size = (block / "index").stat().st_size
    (block / "index").write_bytes((block / "index").read_bytes()[:-1])
    (other / "chunks" / "000001").unlink()
    report = await scene.replay(ship=True)
    found = {b.ulid: (b.verdict, b.problems) for b in report.blocks if b.verdict is not Verdict.SAME}
    assert found == {
        block.name: (Verdict.DIFFERS, (f"index has {size - 1} bytes, it should have {size}",)),
        other.name: (Verdict.SHIPPED, ("chunks/000001 is missing",)),
    }


async def test_a_block_that_lives_on_in_a_merged_one_is_there(scene):
    first, second = scene.blocks()[:2]
    meta = json.loads((first / "meta.json").read_text())
    merged_ulid = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"
    document = meta | {
        "ulid": merged_ulid,
        "minTime": 0,
        "maxTime": 1 << 50,
        "compaction": {"level": 2, "sources": [first.name, second.name]},
    }
    merged = first.parent / merged_ulid
    merged.mkdir()
    (merged / "meta.json").write_text(json.dumps(document))
    assert first.parent == second.parent
    for block in (first, second):
        shutil.rmtree(block)
    report = await scene.replay(ship=True)
    assert report.is_sound
    found = {b.ulid: b.problems for b in report.blocks if b.verdict is Verdict.MERGED}
    assert found == {first.name: (merged_ulid,), second.name: (merged_ulid,)}
    assert not first.exists()


async def test_a_block_of_a_compared_cut_that_the_log_does_not_give_is_named(scene):
    block = scene.blocks()[0]
    foreign = block.parent / "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"
    shutil.copytree(block, foreign)
    meta = json.loads((foreign / "meta.json").read_text())
    meta |= {"ulid": foreign.name, "compaction": {"level": 1, "sources": [foreign.name]}}
    (foreign / "meta.json").write_text(json.dumps(meta))
    report = await scene.replay()
    assert [b.ulid for b in report.blocks if b.verdict is Verdict.UNEXPECTED] == [foreign.name]
    assert not report.is_sound


async def test_a_checkpoint_that_differs_is_named(scene):
    path = sorted(scene.folder.rglob("*.checkpoint"))[-1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    report = await scene.replay()
    assert report.checkpoint_problems == [f"the checkpoint at {int(path.stem)} differs"]
    assert not report.is_sound


async def test_a_trimmed_log_is_replayed_from_the_first_checkpoint_that_it_still_follows(scene):
    kept = scene.checkpoints()
    trimmed = kept[1] - 1
    report = await scene.replay(scene.log(trimmed))
    assert report.plan.checkpoint == kept[1]
    assert report.plan.unreachable is None
    assert report.is_sound
    assert report.cut_offsets == [cut for cut in scene.owner.cuts if cut > kept[1]]
    report = await scene.replay(scene.log(trimmed), first=LogPlace(offset=5))
    assert report.plan.unreachable == (5, kept[1])
    assert report.is_sound


async def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(scene):
    kept = scene.checkpoints()
    path = next(p for p in scene.folder.rglob("*.checkpoint") if int(p.stem) == kept[2])
    path.write_bytes(path.read_bytes()[:-40])
    report = await scene.replay(scene.log(kept[0]), first=LogPlace(offset=kept[2]))
    assert report.plan.checkpoint == kept[1]
    assert report.blocks
    assert all(b.verdict is Verdict.SAME for b in report.blocks)
    (problem,) = report.checkpoint_problems
    assert problem.startswith(f"the checkpoint at {kept[2]} cannot be read: ")


async def test_a_trimmed_log_without_a_checkpoint_is_compared_with_a_caution_and_never_shipped(scene):
    for path in scene.folder.rglob("*.checkpoint"):
        path.unlink()
    trimmed = scene.owner.cuts[1]
    report = await scene.replay(scene.log(trimmed))
    assert not report.plan.exact
    with pytest.raises(LogError, match="nothing is shipped"):
        await scene.replay(scene.log(trimmed), ship=True)


async def test_a_log_that_begins_past_every_checkpoint_is_refused(scene):
    with pytest.raises(LogError, match="nothing can be rebuilt"):
        await scene.replay(scene.log(scene.checkpoints()[-1] + 1))


async def test_more_memory_than_the_limit_is_never_taken(scene):
    with pytest.raises(MemoryBudgetExceeded, match="the limit is 0 MiB"):
        await scene.replay(memory_limit_bytes=10_000)
    assert (await scene.replay(memory_limit_bytes=64 << 20)).is_sound


@pytest.mark.parametrize(("series", "records"), [(20_000, 3), (50, 300)])
def test_building_a_block_takes_no_more_than_was_counted(series, records):
    rows = [({"__name__": "m_total", "instance": f"host-{i:06d}"}, []) for i in range(series)]
    state = PartitionState(TOPIC, 3, settings=PartitionSettings(), default_record_settings=lambda tenant: NO_LIMITS)
    for offset in range(records):
        at = START_MS + 1000 * offset
        rows = [(labels, [(at + j, i * 1.7 + j) for j in range(10)]) for i, (labels, _) in enumerate(rows)]
        state.apply([data_record(offset, "a", rows, at_ms=at)])
    request = state.apply([flush_record(records, at_ms=at)]).cut
    tracemalloc.start()
    try:
        for _, block in build_blocks(request):
            assert block.meta["stats"]["numSamples"] == series * records * 10
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert largest_block_bytes(request) / 3 < peak < largest_block_bytes(request)


async def test_a_broker_that_is_away_for_a_moment_is_waited_for_and_for_good_ends_it(scene):
    log = scene.log()
    log.silent_reads = 2
    assert (await scene.replay(log)).is_sound
    log.silent_reads = 10
    with pytest.raises(LogUnavailable, match="away"):
        await scene.replay(log, timeout_s=0.1)


class AbsentBucket(Bucket):
    """Does not answer some questions about sizes."""

    absent = 0

    def size(self, path):
        if self.absent:
            self.absent -= 1
            raise StoreUnavailable("the bucket is away")
        return super().size(path)


async def test_a_bucket_that_is_away_for_a_moment_is_asked_again(scene):
    bucket = AbsentBucket(str(scene.folder))
    bucket.absent = 1
    report = await scene.replay(bucket=bucket)
    assert report.is_sound
    assert len(report.blocks) == len(scene.blocks())
    bucket.absent = 99
    with pytest.raises(StoreUnavailable, match="away"):
        await scene.replay(bucket=bucket, timeout_s=0.1)


async def test_a_partition_that_is_not_there_is_named(scene):
    with pytest.raises(LogError, match="there is no partition 9; the log has 3"):
        await scene.replay(partition=9)
