"""The ring in an SQLite database: two tables, for any number of processes of one machine.

The database is the embedded log's own file, opened independently of it (WAL, synchronous=FULL); whoever comes first
makes the file, so its layout (page size, auto-vacuum) is set here as there.

Tables
    ring           one row: the tables' version and the position that the next record gets. Positions come from here
                   and never from the largest one stored.
    ring_records   by position: the newest record of each key and writer; older ones for ten minutes at least, and then
                   until the next one comes; nulls for a day at least, and then until the next null comes
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from partitions.errors import RingPositionLost, RingUnavailable
from partitions.kv.contract import RingRecord, RingStore

TABLES_VERSION = 1
PAGE_BYTES = 16384
# why: the embedded log's, see mimir_ingest/log/sqlite_store.py; a file's page size is fixed by its first table.
POLL_S = 0.05
# why: how late another process's record may be seen; one poll costs about 10 µs.
NULL_KEPT_MS = 24 * 3600 * 1000
# why: Kafka's default of delete.retention.ms.
SUPERSEDED_KEPT_MS = 600_000
# why: as the Kafka topic's segment.ms; a running reader has long read a record that is older.
_RETRY_S = (0.0005, 0.003)
# why: SQLite's own back-off sleeps up to 100 ms and starves the less busy process.

_TABLES = (
    "CREATE TABLE IF NOT EXISTS ring (tables_version INTEGER NOT NULL, next_position INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS ring_records (
        position INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        writer TEXT NOT NULL,
        value BLOB,
        written_ms INTEGER NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS ring_slots ON ring_records (key, writer, position)",
)
_DELETE_NULLS = """
    DELETE FROM ring_records AS record WHERE EXISTS (
        SELECT 1 FROM ring_records AS newer
        WHERE newer.key = record.key AND newer.writer = record.writer AND newer.position >= record.position
        AND newer.value IS NULL AND newer.written_ms < ?
    )"""
# why: a null goes together with all that it took back, or that would return.

Result = TypeVar("Result")


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class SqliteRingStore(RingStore):
    """See `RingStore`. Owns three connections and two threads from `start` to `close`.

    Parameters
    ----------
    path : the database file; it and its directory are made when missing
    lock_timeout_s : time that an append waits for other processes' transactions
    clock_ms : wall clock (ms since the Unix epoch); decides only how long nulls are kept
    """

    def __init__(
        self, path: Path | str, *, lock_timeout_s: float = 10.0, clock_ms: Callable[[], int] = _wall_clock_ms
    ) -> None:
        self._path = Path(path)
        self._lock_timeout_s = lock_timeout_s
        self._clock_ms = clock_ms
        self._threads: tuple[ThreadPoolExecutor, ThreadPoolExecutor] | None = None
        self._connections: list[sqlite3.Connection] = []
        self._seen_version = -1
        self._seen_end = 0
        self._news = asyncio.Event()

    async def start(self) -> None:
        """See RingStore."""
        if self._threads is not None:
            return
        with self._renamed_errors():
            self._connections = await asyncio.to_thread(self._connect)
        self._poller, self._reader, self._writer = self._connections
        self._threads = (ThreadPoolExecutor(1, "ring-reader"), ThreadPoolExecutor(1, "ring-writer"))

    async def close(self) -> None:
        """See RingStore; an append that has its transaction is finished."""
        threads, self._threads = self._threads, None
        self._news.set()
        if threads is None:
            return

        def release() -> None:
            for thread in threads:
                thread.shutdown()
            for connection in self._connections:
                connection.close()

        await asyncio.shield(asyncio.to_thread(release))

    async def append(self, records: Sequence[RingRecord]) -> int:
        """See RingStore; all or nothing. Cancelled, it may still happen."""
        end = await self._in_thread(1, lambda: self._write(records))
        self._news.set()
        return end

    async def read(self, position: int, *, max_wait_s: float) -> tuple[list[RingRecord], int]:
        """See RingStore."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + max_wait_s
        end = await self.end()
        while end == position and loop.time() < deadline_s:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(POLL_S, deadline_s - loop.time())):
                    await self._news.wait()
            if self._changed():
                end = await self.end()
        if position > end:
            raise RingPositionLost(position=position, end=end)
        if position == end:
            return [], position
        return await self._in_thread(0, lambda: self._select(position))

    async def end(self) -> int:
        """See RingStore."""
        self._check_open()
        with self._renamed_errors():
            end = _read_end(self._poller)
        if end != self._seen_end:
            self._seen_end = end
            self._news.set()
        return end

    def _changed(self) -> bool:
        """Return whether any connection but the poller's has committed something since the last call."""
        self._check_open()
        with self._renamed_errors():
            version = self._poller.execute("PRAGMA data_version").fetchone()[0]
        changed, self._seen_version = version != self._seen_version, version
        return changed

    def _select(self, position: int) -> tuple[list[RingRecord], int]:
        connection = self._reader
        connection.execute("BEGIN")
        try:
            end = _read_end(connection)
            rows = connection.execute(
                "SELECT key, writer, value FROM ring_records WHERE position >= ? ORDER BY position", (position,)
            ).fetchall()
            return [RingRecord(*row) for row in rows], end
        finally:
            connection.execute("COMMIT")

    def _write(self, records: Sequence[RingRecord]) -> int:
        connection = self._writer
        self._retry_busy(lambda: connection.execute("BEGIN IMMEDIATE"))
        try:
            end = _read_end(connection)
            now_ms = self._clock_ms()
            rows = [(end + n, r.key, r.writer, r.value, now_ms) for n, r in enumerate(records)]
            connection.executemany("INSERT INTO ring_records VALUES (?, ?, ?, ?, ?)", rows)
            connection.execute("UPDATE ring SET next_position = ?", (end + len(records),))
            connection.executemany(
                "DELETE FROM ring_records WHERE key = ? AND writer = ? AND position < ? AND written_ms < ?",
                [(r.key, r.writer, end, now_ms - SUPERSEDED_KEPT_MS) for r in records],
            )
            if any(record.value is None for record in records):
                connection.execute(_DELETE_NULLS, (now_ms - NULL_KEPT_MS,))
            connection.execute("COMMIT")
            return end + len(records)
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _retry_busy(self, run: Callable[[], object]) -> None:
        """Run until no other connection holds the lock that it wants."""
        until_s = time.monotonic() + self._lock_timeout_s
        while True:
            try:
                run()
                return
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > until_s:
                    raise
            time.sleep(random.uniform(*_RETRY_S))

    def _connect(self) -> list[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RingUnavailable(
                f"cannot create the directory {self._path.parent}: {error.strerror}", retriable=False
            ) from error
        self._retry_busy(self._create)
        opened: list[sqlite3.Connection] = []
        try:
            for _ in range(3):
                connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
                opened.append(connection)
                self._retry_busy(lambda: opened[-1].execute("PRAGMA synchronous=FULL"))
        except BaseException:
            for connection in opened:
                connection.close()
            raise
        return opened

    def _create(self) -> None:
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        try:
            connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            for statement in _TABLES:
                connection.execute(statement)
            if connection.execute("SELECT count(*) FROM ring").fetchone()[0] == 0:
                connection.execute("INSERT INTO ring VALUES (?, 0)", (TABLES_VERSION,))
            version = connection.execute("SELECT tables_version FROM ring").fetchone()[0]
            if version != TABLES_VERSION:
                raise RingUnavailable(
                    f"the ring tables in {self._path} have version {version}, this program knows {TABLES_VERSION}",
                    retriable=False,
                )
            connection.execute("COMMIT")
        finally:
            connection.close()  # an open transaction is rolled back by that

    async def _in_thread(self, number: int, run: Callable[[], Result]) -> Result:
        self._check_open()
        assert self._threads is not None
        with self._renamed_errors():
            return await asyncio.get_running_loop().run_in_executor(self._threads[number], run)

    def _check_open(self) -> None:
        if self._threads is None:
            raise RingUnavailable("the ring store is not open")

    @contextmanager
    def _renamed_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            reason = "another process holds its lock" if _is_busy(error) else str(error)
            raise RingUnavailable(f"the ring in {self._path}: {reason}") from error


def _read_end(connection: sqlite3.Connection) -> int:
    return connection.execute("SELECT next_position FROM ring").fetchone()[0]


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
