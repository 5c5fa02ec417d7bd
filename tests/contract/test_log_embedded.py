"""The embedded log keeps the contract, and its own promises about disks, locks and space."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3

import pytest

from mimir_ingest.errors import LogUnavailable
from mimir_ingest.log import sqlite_store
from mimir_ingest.log.embedded import EmbeddedLog
from tests.contract.log_contract import MANY, PARTITIONS, LogContract, LogPlace, put, read_all


class EmbeddedPlace(LogPlace):
    def __init__(self, directory):
        super().__init__()
        self.directory = directory

    @property
    def recipe(self):
        return {"kind": "embedded", "directory": str(self.directory), "partitions": PARTITIONS}

    async def drop_below(self, log, partition, offset):
        await log.trim(partition, offset)

    async def recreate(self):
        shutil.rmtree(self.directory)


@pytest.fixture
async def place(tmp_path):
    place = EmbeddedPlace(tmp_path / "deep" / "log")
    yield place
    await place.close()


def connect(place: EmbeddedPlace) -> sqlite3.Connection:
    return sqlite3.connect(place.directory / sqlite_store.FILE_NAME, isolation_level=None)


class TestEmbeddedLog(LogContract):
    pass


async def test_partitions_can_be_added_but_never_go(place):
    log = await place.open()
    await put(log, 2, b"a")
    wider = EmbeddedLog(place.directory, partitions=PARTITIONS + 2)
    await wider.start()
    assert await log.partitions() == list(range(PARTITIONS + 2))
    assert await put(log, 4, b"b") == [0]
    await wider.close()
    narrower = EmbeddedLog(place.directory, partitions=1)
    await narrower.start()
    assert await narrower.partitions() == list(range(PARTITIONS + 2))
    assert [record.value for record in await read_all(narrower, 2)] == [b"a"]
    await narrower.close()


async def test_stamps_do_not_follow_a_clock_that_is_set_back(place):
    times = iter([1000, 5000, 3000, 3001, 6000])
    log = EmbeddedLog(place.directory, clock_ms=lambda: next(times))
    await log.start()
    await put(log, 0, b"a", b"b", b"c", b"d", b"e")
    await log.close()
    assert [r.timestamp_ms for r in await read_all(await place.open(), 0)] == [1000, 5000, 5000, 5000, 6000]


async def test_a_trimmed_log_gives_its_space_back(place):
    log = await place.open()
    blob = bytes(range(256)) * 8 + b"".join(n.to_bytes(4, "big") * 3 for n in range(300_000))
    sizes = []
    for _ in range(3):
        await asyncio.gather(*(log.append(0, b"t", blob + b"%d" % n, 0, timeout_s=60) for n in range(40)))
        await log.trim(0, await log.end_offset(0))
        with connect(place) as connection:
            sizes.append(connection.execute("PRAGMA page_count").fetchone()[0] * sqlite_store.PAGE_BYTES)
            assert connection.execute("SELECT count(*) FROM records").fetchone()[0] == 0
        connection.close()
    assert max(sizes) < 160 << 20
    assert await put(log, 0, b"x") == [120]


async def test_an_interrupted_trim_is_finished_by_the_next_one(place):
    log = await place.open()
    await put(log, 0, *(b"%d" % number for number in range(20)))
    connection = connect(place)
    connection.execute("UPDATE partitions SET start_offset = 9 WHERE partition = 0")
    await log.trim(0, 10)
    assert connection.execute("SELECT count(*) FROM records").fetchone()[0] == 10
    connection.close()
    assert [record.value for record in await read_all(log, 0, 10)] == [b"%d" % number for number in range(10, 20)]


async def test_the_write_ahead_log_stays_bounded_under_load(place):
    log = await place.open()
    blob = b"".join(n.to_bytes(4, "big") * 2 for n in range(130_000))
    sizes = []
    for _ in range(15):
        await asyncio.gather(*(log.append(0, b"t", blob, 0, timeout_s=60) for _ in range(10)))
        sizes.append((place.directory / f"{sqlite_store.FILE_NAME}-wal").stat().st_size)
    stored = (place.directory / sqlite_store.FILE_NAME).stat().st_size
    assert stored > 40 << 20, "the records compress too well to prove anything"
    assert max(sizes) < 64 << 20
    assert len(await read_all(await place.open(), 0, max_bytes=MANY)) == 150


async def test_the_write_ahead_log_stays_bounded_under_many_small_appends(place):
    log = await place.open()
    sizes = []
    for number in range(800):
        await put(log, number % 3, b"x")
        sizes.append((place.directory / f"{sqlite_store.FILE_NAME}-wal").stat().st_size)
    assert max(sizes) < 24 << 20


async def test_a_full_disk_fails_appends_with_advice_and_they_work_again_with_space(place, monkeypatch):
    log = await place.open()
    await put(log, 0, b"before")
    real = sqlite_store.connect
    limited = []

    def connect_with_little_space(*arguments, **named):
        connection = real(*arguments, **named)
        connection.execute("PRAGMA max_page_count=20")
        limited.append(connection)
        return connection

    await log.close()
    monkeypatch.setattr(sqlite_store, "connect", connect_with_little_space)
    log = await place.open()
    big = b"".join(n.to_bytes(4, "big") for n in range(500_000))
    with pytest.raises(LogUnavailable, match="free some space") as caught:
        await log.append(0, b"t", big, 0, timeout_s=60)
    assert caught.value.retriable
    assert limited
    assert await put(log, 0, b"small") == [1]
    monkeypatch.setattr(sqlite_store, "connect", real)
    with pytest.raises(LogUnavailable):
        await log.append(0, b"t", big, 0, timeout_s=60)
    assert await log.append(0, b"t", big, 0, timeout_s=60) == 2
    assert [len(record.value) for record in await read_all(log, 0)] == [6, 5, len(big)]


async def test_an_append_that_waits_for_a_lock_in_vain_is_withdrawn(place):
    log = await place.open()
    connection = connect(place)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogUnavailable, match=r"within 1\.5 s: another process holds its lock"):
        await log.append(0, b"t", b"late", 0, timeout_s=1.5)
    assert await log.read(0, 0, max_bytes=MANY, max_wait_s=0.1) == []
    waiting = asyncio.create_task(log.append(0, b"t", b"patient", 0, timeout_s=60))
    await asyncio.sleep(0.2)
    connection.execute("ROLLBACK")
    connection.close()
    assert await waiting == 0
    assert [record.value for record in await read_all(log, 0)] == [b"patient"]


async def test_more_than_may_wait_is_refused_at_once(place):
    log = EmbeddedLog(place.directory, max_buffered_bytes=1000)
    await log.start()
    connection = connect(place)
    connection.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(log.append(0, b"t", b"x" * 900, 0, timeout_s=60))
    await asyncio.sleep(0.05)
    with pytest.raises(LogUnavailable, match="900 bytes already wait"):
        await log.append(0, b"t", b"x" * 101, 0, timeout_s=60)
    connection.execute("ROLLBACK")
    connection.close()
    assert await waiting == 0
    assert await log.append(0, b"t", b"x" * 1000, 0, timeout_s=60) == 1
    await log.close()


async def test_a_damaged_database_is_named_with_what_to_do(place):
    log = await place.open()
    await put(log, 0, *(bytes(range(256)) * 64 for _ in range(50)))
    await log.close()
    file = place.directory / sqlite_store.FILE_NAME
    content = bytearray(file.read_bytes())
    for page in range(2, len(content) // sqlite_store.PAGE_BYTES):
        content[page * sqlite_store.PAGE_BYTES : page * sqlite_store.PAGE_BYTES + 512] = b"\xff" * 512
    file.write_bytes(content)
    with pytest.raises(LogUnavailable, match=r"damaged.*move the directory away"):
        await read_all(await place.open(), 0)


async def test_a_file_that_is_no_database_is_named_with_what_to_do(place):
    place.directory.mkdir(parents=True)
    (place.directory / sqlite_store.FILE_NAME).write_bytes(b"something else, for sure\n" * 1000)
    with pytest.raises(LogUnavailable, match="not an SQLite database"):
        await place.open()


async def test_a_path_that_cannot_be_a_directory_is_named(place):
    place.directory.parent.mkdir(parents=True)
    place.directory.write_text("a file")
    with pytest.raises(LogUnavailable, match=r"cannot create.*ingest-storage\.embedded\.path"):
        await place.open()


async def test_a_schema_of_a_later_program_is_refused(place):
    await (await place.open()).close()
    with connect(place) as connection:
        connection.execute("UPDATE topic SET schema_version = 2")
    connection.close()
    with pytest.raises(LogUnavailable, match="schema version 2, this program knows 1"):
        await place.open()


async def test_logs_that_are_opened_at_the_same_moment_agree_on_the_topic(place):
    logs = await asyncio.gather(*(place.open() for _ in range(8)))
    assert len({log.topic_id for log in logs}) == 1


async def test_a_bug_while_writing_fails_that_group_and_the_writer_goes_on(place, monkeypatch):
    log = await place.open()
    await put(log, 0, b"before")

    def broken(*_, **__):
        raise ValueError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_store, "insert_records", broken)
        with pytest.raises(LogUnavailable, match="a bug"):
            await log.append(0, b"t", b"lost", 0, timeout_s=60)
    assert await put(log, 0, b"after") == [1]
    assert [record.value for record in await read_all(log, 0)] == [b"before", b"after"]


async def test_a_commit_that_fails_acknowledges_nothing_and_gives_its_offsets_again(place, monkeypatch):
    log = await place.open()
    await put(log, 0, b"before")
    real = sqlite_store.insert_records

    def fails_at_its_commit(connection, packed, *, now_ms):
        given = real(connection, packed, now_ms=now_ms)
        connection.execute("ROLLBACK")  # the COMMIT that follows then fails
        return given

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_store, "insert_records", fails_at_its_commit)
        results = await asyncio.gather(
            *(log.append(0, b"t", b"lost", 0, timeout_s=60) for _ in range(5)), return_exceptions=True
        )
    assert all(isinstance(result, LogUnavailable) for result in results)
    assert await put(log, 0, b"after") == [1]
    assert [record.value for record in await read_all(log, 0)] == [b"before", b"after"]


async def test_every_connection_that_may_write_syncs_its_commits(place):
    await place.open()
    connection = sqlite_store.connect(place.directory, busy_timeout_s=1.0)
    settings = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    connection.close()
    assert settings == {"journal_mode": "wal", "synchronous": 2}
