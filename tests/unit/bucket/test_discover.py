"""The catalog: which blocks there are, readers over them, bounded caches."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mimir_ingest.bucket.discover import IDLE_S, BlockCatalog
from mimir_ingest.bucket.layout import block_file, meta_file
from mimir_ingest.bucket.publish import publish_block
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import BlockCorrupt, BlockNotFound, StoreUnavailable
from mimir_ingest.tsdb.block_meta import decode_meta, encode_meta
from mimir_ingest.tsdb.block_writer import BuiltBlock
from tests.support.blocks import build, make_samples, to_python

EVER = (-(2**62), 2**62)


def _block(start: int, *, value: float = 1.0) -> BuiltBlock:
    return build(make_samples([({"a": f"{i}"}, [(start + t, value) for t in range(10)]) for i in range(3)]))


BLOCKS = [_block(start) for start in (0, 100, 200)]


@pytest.fixture
def filled(bucket: Bucket) -> Bucket:
    for block in BLOCKS:
        publish_block(bucket, "team-a", block)
    return bucket


def _listed(catalog: BlockCatalog, start_ms: int = EVER[0], end_ms: int = EVER[1], tenant: str = "team-a") -> list[str]:
    return [block.ulid for block in catalog.blocks(tenant, start_ms, end_ms)]


def test_blocks_are_listed_by_tenant_and_time(filled: Bucket) -> None:
    publish_block(filled, "team-b", BLOCKS[0])
    filled.write_atomic("__mimir_cluster/ingest-storage/x", b"")
    filled.write_atomic("team-a/markers/x", b"")
    catalog = BlockCatalog(filled)
    assert catalog.tenants() == ["team-a", "team-b"]
    assert _listed(catalog) == []
    catalog.refresh("team-a")
    first, second, third = (block.ulid for block in BLOCKS)
    assert _listed(catalog) == [first, second, third]
    assert _listed(catalog, 0, 1) == [first]
    assert _listed(catalog, 10, 100) == []
    assert _listed(catalog, 9, 101) == [first, second]
    assert _listed(catalog, 209, 300) == [third]
    assert _listed(catalog, tenant="team-b") == []


def test_a_block_says_where_it_comes_from(filled: Bucket) -> None:
    catalog = BlockCatalog(filled)
    catalog.refresh("team-a")
    block = catalog.blocks("team-a", *EVER)[1]
    assert (block.tenant, block.min_time_ms, block.max_time_ms, block.start_offset) == ("team-a", 100, 110, 7)
    assert block.sources == (block.ulid,)
    document = {**block.file.document}
    del document["mimir_ingest"]
    document["compaction"] = {"level": 2, "sources": ["01ARYZ6S41TSV4RRFFQ69G5FAV", block.ulid]}
    filled.write_atomic(meta_file("team-a", block.ulid), encode_meta(document))
    catalog = BlockCatalog(filled)
    catalog.refresh("team-a")
    merged = catalog.blocks("team-a", *EVER)[1]
    assert merged.start_offset == -1
    assert merged.sources == ("01ARYZ6S41TSV4RRFFQ69G5FAV", block.ulid)


def test_a_new_block_appears_and_a_deleted_one_goes_with_the_next_refresh(filled: Bucket) -> None:
    catalog = BlockCatalog(filled)
    catalog.refresh("team-a")
    listed = catalog.blocks("team-a", *EVER)
    catalog.open(listed[0])
    for path in BLOCKS[0].files:
        filled.delete(block_file("team-a", BLOCKS[0].ulid, path))
    new = _block(300)
    publish_block(filled, "team-a", new)
    catalog.refresh("team-a")
    assert _listed(catalog) == [BLOCKS[1].ulid, BLOCKS[2].ulid, new.ulid]
    with pytest.raises(BlockNotFound):
        catalog.open(listed[0])


def test_a_block_marked_for_deletion_is_still_read(filled: Bucket) -> None:
    filled.write_atomic(block_file("team-a", BLOCKS[0].ulid, "deletion-mark.json"), b'{"version": 1}')
    filled.write_atomic(f"team-a/markers/{BLOCKS[0].ulid}-deletion-mark.json", b'{"version": 1}')
    catalog = BlockCatalog(filled)
    catalog.refresh("team-a")
    assert BLOCKS[0].ulid in _listed(catalog)


def test_a_folder_without_meta_json_or_with_one_that_is_none_is_no_block(filled: Bucket) -> None:
    filled.delete(meta_file("team-a", BLOCKS[0].ulid))
    filled.write_atomic(meta_file("team-a", BLOCKS[1].ulid), b"{")
    filled.write_atomic(meta_file("team-a", BLOCKS[2].ulid), BLOCKS[1].files["meta.json"])
    catalog = BlockCatalog(filled)
    catalog.refresh("team-a")
    assert _listed(catalog) == []
    corrupt = catalog.corrupt("team-a")
    assert set(corrupt) == {BLOCKS[1].ulid, BLOCKS[2].ulid}
    assert "ulid is" in corrupt[BLOCKS[2].ulid]
    filled.write_atomic(meta_file("team-a", BLOCKS[1].ulid), BLOCKS[1].files["meta.json"])
    catalog.refresh("team-a")
    assert _listed(catalog) == [BLOCKS[1].ulid]


def test_a_reader_is_opened_once_for_all_threads(filled: Bucket) -> None:
    catalog = BlockCatalog(filled)
    catalog.refresh("team-a")
    block = catalog.blocks("team-a", *EVER)[0]
    with ThreadPoolExecutor(8) as pool:
        readers = list(pool.map(lambda _: catalog.open(block), range(32)))
    assert len({id(reader) for reader in readers}) == 1
    assert len(to_python(readers[0].select([], *EVER))) == 3


def test_open_blocks_are_bounded_least_recently_used_first_out(filled: Bucket) -> None:
    catalog = BlockCatalog(filled)
    catalog.refresh("team-a")
    first, second, third = catalog.blocks("team-a", *EVER)
    size = catalog.open(first).memory_bytes
    small = BlockCatalog(filled, open_blocks_bytes=2 * size + size // 2)
    small.refresh("team-a")
    opened = {block.ulid: small.open(block) for block in (first, second)}
    assert small.open(first) is opened[first.ulid]
    small.open(third)
    assert small.open(first) is opened[first.ulid]
    assert small.open(second) is not opened[second.ulid]
    tiny = BlockCatalog(filled, open_blocks_bytes=1)
    assert len(to_python(tiny.open(first).select([], *EVER))) == 3


def test_meta_json_is_read_once_a_block(filled: Bucket) -> None:
    reads: list[str] = []
    lock = threading.Lock()

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(filled, name)

        def read(self, path: str) -> bytes:
            with lock:
                reads.append(path)
            return filled.read(path)

    catalog = BlockCatalog(Counting())
    catalog.refresh("team-a")
    catalog.refresh("team-a")
    assert sorted(reads) == sorted(meta_file("team-a", block.ulid) for block in BLOCKS)


def test_the_old_list_stays_when_the_store_does_not_answer(filled: Bucket) -> None:
    class Failing:
        down = False

        def __getattr__(self, name: str) -> object:
            return getattr(filled, name)

        def list(self, folder: str = "") -> list[str]:
            if self.down:
                raise StoreUnavailable("down")
            return filled.list(folder)

    bucket = Failing()
    catalog = BlockCatalog(bucket)
    catalog.refresh("team-a")
    before = _listed(catalog)
    bucket.down = True
    with pytest.raises(StoreUnavailable):
        catalog.refresh("team-a")
    assert _listed(catalog) == before != []


def test_a_corrupt_index_is_named_with_its_block(filled: Bucket) -> None:
    filled.write_atomic(block_file("team-a", BLOCKS[0].ulid, "index"), BLOCKS[0].files["index"][:-1])
    catalog = BlockCatalog(filled)
    catalog.refresh("team-a")
    with pytest.raises(BlockCorrupt, match=f"block team-a/{BLOCKS[0].ulid}: index: TOC"):
        catalog.open(catalog.blocks("team-a", *EVER)[0])


def test_a_block_without_a_tombstones_file_is_read(filled: Bucket) -> None:
    filled.delete(block_file("team-a", BLOCKS[0].ulid, "tombstones"))
    catalog = BlockCatalog(filled)
    catalog.refresh("team-a")
    block = catalog.blocks("team-a", *EVER)[0]
    assert len(to_python(catalog.open(block).select([], *EVER))) == 3
    assert decode_meta(filled.read(meta_file("team-a", block.ulid))) == block.file.document


def test_lists_and_readers_that_nobody_asks_for_go_after_an_hour(filled: Bucket) -> None:
    publish_block(filled, "team-b", BLOCKS[0])
    now = [0.0]
    catalog = BlockCatalog(filled, clock=lambda: now[0])
    for tenant in ("team-a", "team-b"):
        catalog.refresh(tenant)
    idle, asked = catalog.blocks("team-a", *EVER)[0], catalog.blocks("team-b", *EVER)[0]
    idle_reader, asked_reader = catalog.open(idle), catalog.open(asked)
    now[0] = IDLE_S / 2
    assert _listed(catalog, tenant="team-b")
    assert catalog.open(asked) is asked_reader
    now[0] = IDLE_S - 1
    catalog.refresh("team-c")
    assert [catalog.is_listed(tenant) for tenant in ("team-a", "team-b")] == [True, True]
    now[0] = IDLE_S + 100
    catalog.refresh("team-c")
    assert [catalog.is_listed(tenant) for tenant in ("team-a", "team-b")] == [False, True]
    assert catalog.open(asked) is asked_reader
    assert catalog.open(idle) is not idle_reader
    catalog.refresh("team-a")
    assert _listed(catalog) == [block.ulid for block in BLOCKS]


def test_how_long_lists_and_readers_stay_can_be_set_and_readers_may_stay_for_ever(filled: Bucket) -> None:
    now = [0.0]
    catalog = BlockCatalog(filled, list_idle_s=1, open_idle_s=0, clock=lambda: now[0])
    catalog.refresh("team-a")
    block = catalog.blocks("team-a", *EVER)[0]
    reader = catalog.open(block)
    now[0] = 59.0
    catalog.refresh("team-b")
    assert catalog.is_listed("team-a"), "a list is kept for a minute at least, for who has refreshed it"
    now[0] = 100 * IDLE_S
    catalog.refresh("team-b")
    assert not catalog.is_listed("team-a")
    assert catalog.open(block) is reader


def test_tenants_without_blocks_leave_nothing_behind_however_they_are_forgotten(tmp_path: Path) -> None:
    now = [0.0]
    catalog = BlockCatalog(Bucket(str(tmp_path)), list_idle_s=1, clock=lambda: now[0])

    def ask(names: Iterable[str]) -> None:
        for tenant in names:
            catalog.refresh(tenant)
            now[0] += 1  # most lists are idle for long enough, and dropped, before they are forgotten
        for tenant in names:
            catalog.forget_empty(tenant)

    ask([f"warm-{i}" for i in range(100)])
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        ask([f"tenant-{i}" for i in range(500)])
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 25_000
