"""The ring store in SQLite keeps the contract, between processes and beside the embedded log in one file."""

import asyncio
import sqlite3
import subprocess

import pytest

from mimir_ingest.log import sqlite_store
from mimir_ingest.log.embedded import EmbeddedLog
from partitions.errors import RingUnavailable
from partitions.kv.contract import RingRecord
from partitions.kv.sqlite import NULL_KEPT_MS, PAGE_BYTES, SUPERSEDED_KEPT_MS, SqliteRingStore
from tests.contract.ring_store_contract import RingPlace, RingStoreContract, newest, read_all, record
from tests.support.ring_stores import SHARED_KEY, spawn


class SqlitePlace(RingPlace):
    def __init__(self, path):
        super().__init__()
        self.path = path

    @property
    def recipe(self):
        return {"kind": "sqlite", "path": str(self.path)}

    def make(self):
        return SqliteRingStore(self.path)


@pytest.fixture
async def place(tmp_path):
    place = SqlitePlace(tmp_path / "deep" / sqlite_store.FILE_NAME)
    yield place
    await place.close()


class TestSqliteRingStore(RingStoreContract):
    pass


async def wait_for(children: list[subprocess.Popen[bytes]]) -> list[list[int]]:
    """Return the positions that each child printed, at their end."""
    outputs = [(await asyncio.to_thread(child.communicate))[0] for child in children]
    assert [child.returncode for child in children] == [0] * len(children)
    return [[int(line) for line in output.split()] for output in outputs]


async def test_processes_append_at_the_same_time_and_each_record_has_its_own_position(place):
    store = await place.open()
    children = [spawn("append", place.recipe, name, 50) for name in ("left", "right")]
    position, seen = 0, []
    while newest(seen) != {(SHARED_KEY, "left"): b"49", (SHARED_KEY, "right"): b"49"}:
        found, position = await store.read(position, max_wait_s=30)
        assert found
        seen += found
    left, right = await wait_for(children)
    assert sorted(left + right) == list(range(1, 101))
    for name in ("left", "right"):
        numbers = [int(r.value) for r in seen if r.writer == name]
        assert numbers == sorted(set(numbers)), "a record was seen twice or out of order"


async def test_a_killed_process_leaves_what_it_was_told_is_stored(place):
    store = await place.open()
    child = spawn("append", place.recipe, "child", 100_000)
    acknowledged = [await asyncio.to_thread(child.stdout.readline) for _ in range(30)][-1]
    child.kill()
    child.communicate()
    value = newest(await read_all(store))[(SHARED_KEY, "child")]
    assert int(value) + 1 >= int(acknowledged)
    assert await store.append([record(0)]) == int(value) + 2


@pytest.mark.parametrize("ring_first", [False, True])
async def test_ring_and_embedded_log_share_a_file_whoever_makes_it(place, ring_first):
    log = EmbeddedLog(place.path.parent, partitions=2)
    if ring_first:
        store = await place.open()
        await log.start()
    else:
        await log.start()
        store = await place.open()

    async def produce():
        return [await log.append(n % 2, b"t", b"x" * 3000, 0, timeout_s=60) for n in range(60)]

    async def heartbeat():
        return [await store.append([record(n)]) for n in range(60)]

    offsets, positions = await asyncio.gather(produce(), heartbeat())
    assert sorted(offsets) == sorted([*range(30)] * 2)
    assert positions == list(range(1, 61))
    assert newest(await read_all(store)) == {("partition/1", "a"): b"59"}
    await log.close()
    connection = sqlite3.connect(place.path)
    assert connection.execute("PRAGMA page_size").fetchone()[0] == PAGE_BYTES == sqlite_store.PAGE_BYTES
    assert connection.execute("PRAGMA auto_vacuum").fetchone()[0] == 2
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    connection.close()


async def test_stores_that_start_at_the_same_time_on_no_file_make_one_ring(place):
    stores = await asyncio.gather(*(place.open() for _ in range(8)))
    await asyncio.gather(*(store.append([record(n, key=f"k/{n}")]) for n, store in enumerate(stores)))
    assert len(await read_all(stores[0])) == 8


async def test_a_lock_held_for_too_long_fails_an_append_and_reads_go_on(place):
    store = await place.open()
    await store.append([record(0)])
    impatient = SqliteRingStore(place.path, lock_timeout_s=0.1)
    await impatient.start()
    blocker = sqlite3.connect(place.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(RingUnavailable, match="another process holds its lock") as caught:
        await impatient.append([record(1)])
    assert caught.value.retriable
    assert await read_all(impatient) == [record(0)]
    waiting = asyncio.create_task(store.append([record(2)]))
    await asyncio.sleep(0.1)
    blocker.execute("COMMIT")
    blocker.close()
    assert await waiting == 2
    await impatient.close()


async def test_nulls_are_kept_for_a_day_and_go_with_later_ones(place):
    now_ms = 1_000_000
    store = SqliteRingStore(place.path, clock_ms=lambda: now_ms)
    await store.start()
    await store.append([record(0), RingRecord("partition/1", "b", None)])
    now_ms += NULL_KEPT_MS
    await store.append([RingRecord("partition/1", "c", None)])
    assert [r.writer for r in await read_all(store)] == ["a", "b", "c"]
    now_ms += 1
    await store.append([RingRecord("partition/1", "d", None)])
    assert [r.writer for r in await read_all(store)] == ["a", "c", "d"]
    await store.close()


async def test_what_a_null_took_back_does_not_return_when_the_null_goes(place):
    now_ms = 1_000_000
    store = SqliteRingStore(place.path, clock_ms=lambda: now_ms)
    await store.start()
    await store.append([record(0, writer="b")])
    await store.append([RingRecord("partition/1", "b", None)])
    now_ms += NULL_KEPT_MS + 1
    await store.append([RingRecord("partition/1", "c", None)])
    assert [r.writer for r in await read_all(store)] == ["c"]
    await store.close()


async def test_superseded_records_are_kept_for_minutes_and_go_with_the_next_one(place):
    now_ms = 1_000_000
    store = SqliteRingStore(place.path, clock_ms=lambda: now_ms)
    await store.start()
    await store.append([record(0), record(0, writer="b")])
    await store.append([record(1)])
    now_ms += SUPERSEDED_KEPT_MS
    await store.append([record(2)])
    assert [(r.writer, r.value) for r in await read_all(store)] == [("a", b"0"), ("b", b"0"), ("a", b"1"), ("a", b"2")]
    now_ms += 1
    await store.append([record(3)])
    assert [(r.writer, r.value) for r in await read_all(store)] == [("b", b"0"), ("a", b"2"), ("a", b"3")]
    await store.close()


async def test_tables_of_another_version_are_refused(place):
    await (await place.open()).close()
    connection = sqlite3.connect(place.path, isolation_level=None)
    connection.execute("UPDATE ring SET tables_version = 2")
    connection.close()
    with pytest.raises(RingUnavailable, match="have version 2, this program knows 1") as caught:
        await place.open()
    assert not caught.value.retriable


async def test_a_directory_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RingUnavailable, match="cannot create the directory"):
        await SqliteRingStore(tmp_path / "file" / "log.sqlite").start()
