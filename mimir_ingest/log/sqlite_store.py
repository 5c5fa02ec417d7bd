"""The embedded log's database: schema and statements, synchronous, one connection at a time.

Tables
    topic       one row: the topic's id, made when the database is created, and the schema's version
    partitions  partition → start_offset, next_offset, last_timestamp_ms. Offsets come from here and never from the
                records, so that trimming everything cannot make an offset be given twice.
    records     id = partition << 48 | offset, which is the table's own key: one partition lies together, in order,
                without a second index. Timestamps never decrease with the offset, so a lookup by time is a binary
                search over this key. Offsets are dense from start_offset to next_offset.
    positions   a group's next_offset in a partition

Writers hold SQLite's write lock from `BEGIN IMMEDIATE` to the commit; WAL readers never wait for them. Values of
`SMALLEST_COMPRESSED_BYTES` and more are stored as an lz4 block if that saves anything; the codec is in the row.
Errors of sqlite3 leave this module as LogUnavailable, with what to do next.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cramjam

from mimir_ingest.errors import LogUnavailable, OffsetOutOfRange
from mimir_ingest.log.contract import Record

FILE_NAME = "log.sqlite"
SCHEMA_VERSION = 1
PAGE_BYTES = 16384
# why: CPU of append + read of a 518 kB columnar record, least of three runs of benchmarks/log_append.py: 490 µs with
# 4 KiB pages, 420 with 8, 416 with 16, 407 with 32, 363 with 64; but a commit of one small record writes three pages.
SMALLEST_COMPRESSED_BYTES = 1024
# why: below this a compressed value saves less than its share of a page.
CODEC_NONE, CODEC_LZ4 = 0, 1
# why: the same record packs in 185 µs to 12 % and unpacks in 84 µs with lz4; in 168 µs to 15 % and 165 µs with snappy.
# Without packing, SQLite's own checksums and copies cost more than that.
OFFSET_BITS = 48
_MAX_LZ4_RATIO = 256
"""No lz4 block holds more, whatever size it announces; that much is taken from memory before it is read."""

_SCHEMA = """
CREATE TABLE topic (id TEXT NOT NULL, schema_version INTEGER NOT NULL);
CREATE TABLE partitions (
    partition INTEGER PRIMARY KEY,
    start_offset INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    last_timestamp_ms INTEGER NOT NULL
);
CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    timestamp_ms INTEGER NOT NULL,
    version INTEGER NOT NULL,
    codec INTEGER NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL
);
CREATE TABLE positions (
    "group" TEXT NOT NULL,
    partition INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY ("group", partition)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class PackedRecord:
    """A record ready to be inserted."""

    partition: int
    version: int
    codec: int
    key: bytes
    value: bytes | cramjam.Buffer


@dataclass(frozen=True, slots=True)
class PartitionRange:
    """Offsets of one partition: records are [start_offset, next_offset)."""

    start_offset: int
    next_offset: int


def pack(partition: int, key: bytes, value: bytes, version: int) -> PackedRecord:
    """Compress a value where that pays."""
    if len(value) >= SMALLEST_COMPRESSED_BYTES:
        packed = cramjam.lz4.compress_block(value)
        if len(packed) < len(value):
            return PackedRecord(partition, version, CODEC_LZ4, key, packed)
    return PackedRecord(partition, version, CODEC_NONE, key, value)


def create_database(directory: Path, *, partitions: int) -> None:
    """Make the directory and the database, or add partitions to an existing one that has fewer. Safe to race."""
    with renamed_errors(directory):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LogUnavailable(
                f"cannot create the embedded log's directory {directory}: {error.strerror}; "
                "give this user write permission, or set another -ingest-storage.embedded.path"
            ) from error
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise LogUnavailable(
                f"the embedded log's directory {directory} is not writable by user id {os.geteuid()}; "
                "change its owner, or set another -ingest-storage.embedded.path"
            )
        connection = sqlite3.connect(directory / FILE_NAME, timeout=10.0, isolation_level=None)
        try:
            connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            _fill(connection, directory, partitions)
        finally:
            connection.close()
        for folder in (directory, directory.parent):
            _sync_directory(folder)


def _fill(connection: sqlite3.Connection, directory: Path, partitions: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'topic'").fetchone():
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute("INSERT INTO topic VALUES (?, ?)", (str(uuid.uuid4()), SCHEMA_VERSION))
        (version,) = _numbers(connection.execute("SELECT schema_version FROM topic"), "the topic's row")
        if version != SCHEMA_VERSION:
            raise LogUnavailable(
                f"{directory / FILE_NAME} has schema version {version}, this program knows {SCHEMA_VERSION}; "
                "start the program that wrote it, or set another -ingest-storage.embedded.path"
            )
        add_partitions(connection, partitions)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def add_partitions(connection: sqlite3.Connection, total: int) -> None:
    """Add partitions until there are `total`, inside the caller's transaction."""
    have = connection.execute("SELECT count(*) FROM partitions").fetchone()[0]
    connection.executemany("INSERT INTO partitions VALUES (?, 0, 0, 0)", [(p,) for p in range(have, total)])


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def connect(directory: Path, *, busy_timeout_s: float) -> sqlite3.Connection:
    """Open a connection for one thread at a time; commits are durable (WAL, synchronous=FULL)."""
    with renamed_errors(directory):
        uri = f"{(directory / FILE_NAME).absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(
            uri, uri=True, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("PRAGMA secure_delete=OFF")
        connection.execute("PRAGMA journal_size_limit=67108864")
        connection.execute("PRAGMA cache_size=-4096")
        return connection


def read_topic_id(connection: sqlite3.Connection) -> str:
    """Return the topic's id."""
    row = connection.execute("SELECT id FROM topic").fetchone()
    if row is None or not isinstance(row[0], str):
        raise _damaged("the topic's row")
    return row[0]


def read_ranges(connection: sqlite3.Connection) -> dict[int, PartitionRange]:
    """Return the offsets of every partition."""
    rows = connection.execute("SELECT partition, start_offset, next_offset FROM partitions").fetchall()
    if not all(isinstance(number, int) for row in rows for number in row):
        raise _damaged("a partition's row")
    return {partition: PartitionRange(start, end) for partition, start, end in rows}


def _range(connection: sqlite3.Connection, partition: int) -> tuple[int, int]:
    """Return a partition's start and end."""
    query = "SELECT start_offset, next_offset FROM partitions WHERE partition = ?"
    start, end = _numbers(connection.execute(query, (partition,)), f"the row of partition {partition}")
    return start, end


def _numbers(cursor: sqlite3.Cursor, what: str) -> tuple[int, ...]:
    """Return the next row, of whole numbers; in a damaged file it may be missing, or be of anything."""
    row = cursor.fetchone()
    if row is None or not all(isinstance(number, int) for number in row):
        raise _damaged(what)
    return row


def _damaged(what: str) -> sqlite3.DatabaseError:
    """Return the error of damage that SQLite does not see, as it would raise it."""
    error = sqlite3.DatabaseError(f"{what} is damaged")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def insert_records(
    connection: sqlite3.Connection, packed: Sequence[PackedRecord], *, now_ms: int
) -> list[tuple[int, int]]:
    """Insert inside the caller's transaction; return (offset, timestamp_ms) of each record, in order."""
    heads: dict[int, tuple[int, int]] = {}
    given: list[tuple[int, int]] = []
    rows: list[tuple[int, int, int, int, bytes, bytes | cramjam.Buffer]] = []
    for record in packed:
        if (head := heads.get(record.partition)) is None:
            query = "SELECT next_offset, last_timestamp_ms FROM partitions WHERE partition = ?"
            row = connection.execute(query, (record.partition,))
            offset, last_ms = _numbers(row, f"the row of partition {record.partition}")
            head = (offset, max(now_ms, last_ms))
        offset, stamp_ms = head
        given.append(head)
        row_id = record.partition << OFFSET_BITS | offset
        rows.append((row_id, stamp_ms, record.version, record.codec, record.key, record.value))
        heads[record.partition] = (offset + 1, stamp_ms)
    connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.executemany(
        "UPDATE partitions SET next_offset = ?, last_timestamp_ms = ? WHERE partition = ?",
        [(next_offset, stamp_ms, partition) for partition, (next_offset, stamp_ms) in heads.items()],
    )
    return given


def read_records(
    connection: sqlite3.Connection, partition: int, next_offset: int, *, max_bytes: int
) -> tuple[list[Record], PartitionRange]:
    """Return records from `next_offset` on (see PartitionLog.read) and the offsets they were read under."""
    connection.execute("BEGIN")
    try:
        start, end = _range(connection, partition)
        if not start <= next_offset <= end:
            raise OffsetOutOfRange(partition=partition, offset=next_offset, start_offset=start, end_offset=end)
        first = partition << OFFSET_BITS
        cursor = connection.execute(
            "SELECT id, timestamp_ms, version, codec, key, value FROM records WHERE id >= ? AND id < ? ORDER BY id",
            (first + next_offset, first + end),
        )
        records: list[Record] = []
        budget = max_bytes
        for row_id, stamp_ms, version, codec, key, stored in cursor:
            whole = isinstance(stamp_ms, int) and isinstance(version, int)
            if not (whole and isinstance(key, bytes) and isinstance(stored, bytes)):
                raise _damaged(f"record {row_id - first} of partition {partition}")
            value = stored
            if codec == CODEC_LZ4:
                value = _unpack(stored, f"record {row_id - first} of partition {partition}")
            if records and len(value) > budget:
                break
            budget -= len(value)
            records.append(Record(partition, row_id - first, stamp_ms, key, value, version))
            if budget <= 0:
                break
        cursor.close()
        return records, PartitionRange(start, end)
    finally:
        connection.execute("COMMIT")


def _unpack(stored: bytes, what: str) -> bytes:
    if int.from_bytes(stored[:4], "little") > _MAX_LZ4_RATIO * len(stored):
        raise _damaged(what)
    try:
        return bytes(cramjam.lz4.decompress_block(stored))
    except cramjam.DecompressionError as error:
        raise _damaged(what) from error


def find_timestamp(connection: sqlite3.Connection, partition: int, timestamp_ms: int) -> int:
    """Return the offset of the first record stamped at or after `timestamp_ms`, else the end offset."""
    connection.execute("BEGIN")
    try:
        low, high = _range(connection, partition)
        while low < high:
            middle = (low + high) // 2
            row_id = partition << OFFSET_BITS | middle
            row = connection.execute("SELECT timestamp_ms FROM records WHERE id = ?", (row_id,))
            (stamp_ms,) = _numbers(row, f"record {middle} of partition {partition}")
            if stamp_ms >= timestamp_ms:
                high = middle
            else:
                low = middle + 1
        return low
    finally:
        connection.execute("COMMIT")


def write_position(connection: sqlite3.Connection, group: str, partition: int, next_offset: int) -> None:
    """Store a group's position, inside the caller's transaction."""
    connection.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", (group, partition, next_offset))


def read_position(connection: sqlite3.Connection, group: str, partition: int) -> int | None:
    """Return a group's position, or None."""
    row = connection.execute(
        'SELECT next_offset FROM positions WHERE "group" = ? AND partition = ?', (group, partition)
    ).fetchone()
    return row[0] if row else None


def raise_start(connection: sqlite3.Connection, partition: int, before_offset: int) -> int:
    """Move a partition's start up to `before_offset`, at most to its end, in the caller's transaction; return it."""
    connection.execute(
        "UPDATE partitions SET start_offset = min(max(start_offset, ?), next_offset) WHERE partition = ?",
        (before_offset, partition),
    )
    return _range(connection, partition)[0]


def delete_trimmed(connection: sqlite3.Connection, partition: int, *, max_records: int) -> bool:
    """Delete up to `max_records` records below the start, in the caller's transaction; return whether some are left."""
    first = partition << OFFSET_BITS
    start, _ = _range(connection, partition)
    oldest = connection.execute("SELECT min(id) FROM records WHERE id >= ? AND id < ?", (first, first + start))
    if (row_id := oldest.fetchone()[0]) is None:
        return False
    end = min(row_id + max_records, first + start)
    connection.execute("DELETE FROM records WHERE id >= ? AND id < ?", (row_id, end))
    return end < first + start


def free_pages(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return (unused pages inside the file, all pages of the file)."""
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    return free, connection.execute("PRAGMA page_count").fetchone()[0]


def release_pages(connection: sqlite3.Connection, *, pages: int) -> None:
    """Give up to `pages` unused pages at the end of the file back to the file system."""
    connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()


def checkpoint(connection: sqlite3.Connection) -> int:
    """Move what it can from the write-ahead log into the database, disturbing nobody; return the frames left."""
    _, frames, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return frames - moved


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether another connection holds the lock that was wanted."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space there, writes then succeed again by themselves",
    sqlite3.SQLITE_BUSY: "another process holds its lock: find it with `fuser`, and end it if it hangs",
    sqlite3.SQLITE_LOCKED: "another connection holds its lock",
    sqlite3.SQLITE_READONLY: "it is read-only for this user: change the owner or mode of the directory and its files",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check that the directory exists and who owns it and its files",
    sqlite3.SQLITE_PERM: "this user may not open it: change the owner or mode of the directory and its files",
    sqlite3.SQLITE_CORRUPT: "it is damaged: stop all processes that use it and move the directory away; "
    "samples not yet shipped as blocks are in it, `sqlite3 log.sqlite .recover` can save what is readable",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database: move the file away, or set another "
    "-ingest-storage.embedded.path",
    sqlite3.SQLITE_IOERR: "the disk reports an error: look at the kernel's log",
}


def describe_error(error: sqlite3.Error, directory: Path) -> LogUnavailable:
    """Return the error to raise for one of sqlite3's, saying what to do."""
    advice = _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    text = f"the embedded log's database {directory / FILE_NAME} failed: {error}"
    return LogUnavailable(f"{text}; {advice}" if advice else text)


@contextmanager
def renamed_errors(directory: Path) -> Iterator[None]:
    """Raise sqlite3's errors as LogUnavailable."""
    try:
        yield
    except sqlite3.Error as error:
        raise describe_error(error, directory) from error
    except UnicodeDecodeError as error:  # sqlite3 cannot say what is wrong with a schema that is no text
        raise describe_error(_damaged("the schema"), directory) from error
