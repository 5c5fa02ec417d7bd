"""Blocks and checkpoints are a function of the log: equal bytes at any pace, over any crash, from any start."""

from __future__ import annotations

import json
import random
import shutil

import pytest

from mimir_ingest.bucket.discover import BlockCatalog
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import RecordVersionUnsupported
from mimir_ingest.ingester.settings import PartitionSettings
from tests.reference.head import bits
from tests.reference.partition import PlainPartition
from tests.support.blocks import both_kinds
from tests.support.partition_log import (
    SETTINGS,
    START_MS,
    Owner,
    data_record,
    files_of,
    flush_record,
    random_log,
    settings_record,
)

SEEDS = range(6)


def one_pass(folder, records, **options) -> Owner:
    """Read a log at once, in one life."""
    owner = Owner(Bucket(str(folder / "bucket")), folder / "local", **options)
    owner.consume(records)
    return owner


def published(owner: Owner) -> dict[tuple[int, str, int], dict]:
    """(cut offset, tenant, range's start) → series → time → bits, as read from the bucket's blocks."""
    catalog = BlockCatalog(owner.bucket)
    found = {}
    for tenant in catalog.tenants():
        catalog.refresh(tenant)
        assert not catalog.corrupt(tenant)
        for block in catalog.blocks(tenant, 0, 1 << 60):
            samples = catalog.open(block).select([], 0, 1 << 60)
            start = block.min_time_ms // SETTINGS.range_ms * SETTINGS.range_ms
            assert block.max_time_ms <= start + SETTINGS.range_ms
            place = (block.file.partition_range.cut_offset, tenant, start)
            assert place not in found
            found[place] = {tuple(sorted(labels.items())): each for labels, each in both_kinds(samples)}
    return found


@pytest.mark.parametrize("seed", range(12))
def test_every_cut_takes_what_the_plain_partition_says(tmp_path, seed):
    records, plain_records = random_log(seed)
    plain = PlainPartition(SETTINGS.range_ms, SETTINGS.grace_ms, SETTINGS.cut_max_samples, SETTINGS.idle_ms)
    for record in plain_records:
        plain.consume(*record)
    owner = one_pass(tmp_path, records)
    assert owner.cuts == [offset for offset, _ in plain.cuts]
    assert len(owner.cuts) > 4
    wanted = {
        (offset, tenant, start): {k: {t: bits(v) for t, v in s.items()} for k, s in series.items()}
        for offset, blocks in plain.cuts
        for (tenant, start), series in blocks.items()
    }
    assert published(owner) == wanted
    held = {}
    for tenant in owner.state.heads:
        for answer in owner.state.view(tenant, []).select([], 0, 1 << 60):
            for labels, samples in both_kinds(answer):
                held[tenant, tuple(sorted(labels.items()))] = samples
    left = {(t, k): {at: bits(v) for at, v in s.items()} for t, h in plain.heads.items() for k, s in h.samples.items()}
    assert held == {k: s for k, s in left.items() if s}


@pytest.mark.parametrize("seed", SEEDS)
def test_any_pace_and_any_layout_in_memory_give_the_same_bytes(tmp_path, seed):
    records, _ = random_log(seed)
    first = one_pass(tmp_path / "a", records)
    wanted = files_of(tmp_path / "a" / "bucket")
    assert first.uploaded
    for batch, seal in ((1, 1), (7, 3), (40, 30)):
        folder = tmp_path / str(batch)
        owner = Owner(Bucket(str(folder / "bucket")), folder / "local", seal_samples=seal)
        owner.consume(records, batch=batch)
        assert files_of(folder / "bucket") == wanted


@pytest.mark.parametrize("seed", SEEDS)
def test_restarts_and_lost_disks_give_the_same_bytes_and_publish_nothing_twice(tmp_path, seed):
    records, _ = random_log(seed)
    wanted_owner = one_pass(tmp_path / "a", records)
    wanted = files_of(tmp_path / "a" / "bucket")
    rng = random.Random(seed)
    owner = Owner(Bucket(str(tmp_path / "b" / "bucket")), tmp_path / "b" / "local", seal_samples=5)
    at = 0
    while at < records[-1].offset + 1:
        at += rng.randrange(1, 30)
        owner.consume(records, until=at, batch=rng.choice([1, 5, 100]))
        match rng.choice(["run", "snapshot", "snapshot and crash", "crash", "lose the disk"]):
            case "snapshot":
                owner.snapshot()
            case "snapshot and crash":
                owner.snapshot()
                owner.crash()
            case "crash":
                owner.crash()
            case "lose the disk":
                owner.crash()
                shutil.rmtree(tmp_path / "b" / "local", ignore_errors=True)
    owner.consume(records)
    assert files_of(tmp_path / "b" / "bucket") == wanted
    assert owner.uploaded == wanted_owner.uploaded


@pytest.mark.parametrize("seed", SEEDS)
def test_a_new_owner_starts_from_the_newest_checkpoint_and_is_exact(tmp_path, seed):
    records, _ = random_log(seed)
    one_pass(tmp_path / "a", records)
    wanted = files_of(tmp_path / "a" / "bucket")
    old = Owner(Bucket(str(tmp_path / "b" / "bucket")), tmp_path / "b" / "local")
    old.consume(records, until=records[len(records) // 2].offset)
    cut = old.cuts[-1]
    trimmed = [r for r in records if r.offset >= cut]
    new = Owner(Bucket(str(tmp_path / "b" / "bucket")), tmp_path / "c")
    new.start(trimmed[0].offset, trimmed[-1].offset + 1)
    assert new.state.next_offset == cut
    new.consume(trimmed)
    assert files_of(tmp_path / "b" / "bucket") == wanted


@pytest.mark.parametrize("seed", SEEDS)
def test_an_owner_that_lags_behind_another_publishes_nothing(tmp_path, seed):
    records, _ = random_log(seed)
    behind = Owner(Bucket(str(tmp_path / "bucket")), tmp_path / "behind")
    behind.consume(records, until=records[30].offset)
    ahead = Owner(Bucket(str(tmp_path / "bucket")), tmp_path / "ahead")
    ahead.consume(records)
    wanted = files_of(tmp_path / "bucket")
    uploaded = behind.uploaded
    behind.consume(records)
    assert behind.uploaded == uploaded
    assert files_of(tmp_path / "bucket") == wanted
    assert behind.cuts[-1] == ahead.cuts[-1]


def test_a_block_that_was_merged_and_deleted_is_not_published_again(tmp_path):
    rows = [({"__name__": "m", "i": str(i)}, [(START_MS + 1000 * i, 1.0)]) for i in range(5)]
    records = [data_record(0, "a", rows, at_ms=START_MS), flush_record(1, at_ms=START_MS)]
    owner = one_pass(tmp_path, records)
    bucket = owner.bucket
    catalog = BlockCatalog(bucket)
    catalog.refresh("a")
    (block,) = catalog.blocks("a", 0, 1 << 60)
    merged_ulid = "01ZZZZZZZZZZZZZZZZZZZZZZZZ"
    meta = {**block.file.document, "ulid": merged_ulid, "compaction": {"level": 2, "sources": [block.ulid]}}
    bucket.write_atomic(f"a/{merged_ulid}/meta.json", json.dumps(meta).encode())
    for path in [p for p in files_of(tmp_path / "bucket") if block.ulid in p]:
        bucket.delete(path)
    owner.shipper()._checkpoints.delete(2)
    again = Owner(bucket, tmp_path / "again")
    again.consume(records)
    assert again.cuts == [2]
    assert again.uploaded == 0
    assert not [p for p in files_of(tmp_path / "bucket") if block.ulid in p]
    assert again.state.cuts[-1].blocks[0].ulid == block.ulid


def test_a_week_pushed_at_once_is_bounded_by_the_most_samples_held(tmp_path):
    week = 7 * 24 * 3600
    settings = PartitionSettings(range_ms=7_200_000, grace_ms=3_600_000, cut_max_samples=3000)
    records = [
        data_record(
            i,
            "a",
            [
                ({"__name__": "m", "i": str(s)}, [((i * 20 + j) * 60_000, float(j)) for j in range(20)])
                for s in range(5)
            ],
            at_ms=week * 1000,
        )
        for i in range(week // 60 // 20)
    ]
    owner = Owner(Bucket(str(tmp_path / "bucket")), tmp_path / "local", settings=settings)
    owner.consume(records, batch=50)
    assert owner.most_held < 3000 + 100
    catalog = BlockCatalog(owner.bucket)
    catalog.refresh("a")
    stored = sum(b.file.sample_count for b in catalog.blocks("a", 0, 1 << 60))
    assert stored + owner.state.held_count == week // 60 * 5


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    records, _ = random_log(1)
    owner = one_pass(tmp_path, records)
    newest = sorted((tmp_path / "bucket").rglob(f"*{owner.cuts[-1]}*"))[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(bytes(data))
    facts, _ = owner.shipper().newest()
    assert facts.next_offset == owner.cuts[-2]


def test_new_settings_begin_with_a_cut_and_hold_from_there_on(tmp_path):
    rows = [({"__name__": "m"}, [(START_MS, 1.0)])]
    later = [({"__name__": "m"}, [(START_MS + 1000 * i, 1.0) for i in range(1, 50)])]
    records = [
        data_record(0, "a", rows, at_ms=START_MS),
        settings_record(1, {"cut_max_samples": 10, "range_ms": 120_000}, at_ms=START_MS),
        settings_record(2, {"cut_max_samples": 0}, at_ms=START_MS),
        data_record(3, "a", later, at_ms=START_MS),
    ]
    owner = one_pass(tmp_path, records)
    assert owner.cuts == [2, 4]
    heir = Owner(owner.bucket, tmp_path / "heir")
    heir.start(0, 4)
    assert (heir.state.settings.cut_max_samples, heir.state.settings.range_ms) == (10, 120_000)
    assert heir.state.settings.grace_ms == SETTINGS.grace_ms


def test_a_setting_of_a_later_version_stops_the_reader(tmp_path):
    records = [settings_record(0, {"no_such_setting": 1}, at_ms=START_MS)]
    with pytest.raises(RecordVersionUnsupported, match="no_such_setting"):
        one_pass(tmp_path, records)
