"""The embedded log's one writer thread: it takes whatever is queued, and one transaction makes all of it durable.

    append ─► queue ─► [ pack outside the lock ─► BEGIN IMMEDIATE ─► insert ─► COMMIT = fsync ] ─► futures, one wake-up

While a group is in its fsync the next one gathers, so the number of fsyncs follows the disk and not the appends.
Another process's lock is retried with short random pauses (SQLite's own back-off sleeps up to 100 ms and starves the
less busy process) for as long as somebody still waits for an item of the group. An item whose future is done before
its transaction starts is left out.

Checkpoints are two-staged, so that an append never waits for the bulk of one: past `CHECKPOINT_BYTES` a helper thread
moves the pages while the writer goes on; then the writer moves the few that came meanwhile, between two groups, which
lets the next group start the write-ahead log from its beginning again.
"""

from __future__ import annotations

import asyncio
import queue
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from mimir_ingest.errors import LogUnavailable
from mimir_ingest.log import sqlite_store as store
from mimir_ingest.log.contract import Record

GROUP_BYTES = 32 * 1024 * 1024
# why: bounds one transaction, and with it the time the lock is held and the write-ahead log's growth.
CHECKPOINT_BYTES = 16 * 1024 * 1024
# why: some 150 columnar records; smaller costs an fsync of the database more often, larger a longer recovery.
_SMALLEST_COMMIT_BYTES = 3 * store.PAGE_BYTES
# why: what a commit of one small record adds to the write-ahead log.
_RETRY_S = (0.0005, 0.003)
_WARN_AFTER_S = 1.0

log = structlog.get_logger()


@dataclass(slots=True)
class PendingAppend:
    """One append that waits to be durable. The future gets its offset."""

    partition: int
    key: bytes
    value: bytes
    version: int
    future: asyncio.Future[int]


@dataclass(slots=True)
class PendingTask:
    """Anything else that writes: called inside the transaction, the future gets its result."""

    run: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]


@dataclass(slots=True)
class Outcome:
    """What became of a group; handed to the event loop."""

    items: list[PendingAppend | PendingTask]
    """The whole group, also what was left out."""
    done: list[tuple[asyncio.Future[Any], Any]]
    records: list[Record]
    error: LogUnavailable | None


class GroupCommitter:
    """Owns the writer thread and its connection. `submit` and `close` are for the event loop's thread."""

    def __init__(
        self,
        directory: Path,
        *,
        deliver: Callable[[Outcome], None],
        clock_ms: Callable[[], int],
        checkpoint_threads: Executor,
    ) -> None:
        self._directory = directory
        self._deliver = deliver
        self._clock_ms = clock_ms
        self._checkpoint_threads = checkpoint_threads
        self._queue: queue.SimpleQueue[PendingAppend | PendingTask | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._unmoved_bytes = 0
        self._bulk: Future[None] | None = None
        self._failing = False
        self.waits_for_lock = False
        """Another process has held the lock for a while; for the text of time-outs."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, item: PendingAppend | PendingTask) -> None:
        """Queue an item; its future is resolved on the event loop."""
        self._queue.put(item)

    def close(self) -> None:
        """Write what is queued, end the thread, close the connection. Blocks."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            group, ended = self._collect()
            if group:
                self._deliver(self._commit(group))
                self._checkpoint_when_due()
        if self._bulk is not None:
            self._bulk.exception()
        self._drop_connection()

    def _collect(self) -> tuple[list[PendingAppend | PendingTask], bool]:
        """Wait for the first item and take what came with it; the flag says that the end was in it."""
        group: list[PendingAppend | PendingTask] = []
        size = 0
        item = self._queue.get()
        while item is not None:
            group.append(item)
            size += len(item.value) if isinstance(item, PendingAppend) else 0
            if size >= GROUP_BYTES:
                return group, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[PendingAppend | PendingTask]) -> Outcome:
        try:
            return self._write(group)
        except (sqlite3.Error, LogUnavailable) as error:
            renamed = error if isinstance(error, LogUnavailable) else store.describe_error(error, self._directory)
            if not self._failing:
                log.error("the embedded log cannot be written", reason=renamed.message)
            self._failing = True
        except (
            Exception
        ) as error:  # outermost wrapper of the thread: without it, no append would ever be answered again
            log.exception("the embedded log cannot be written after an unexpected error")
            renamed = LogUnavailable(f"the embedded log failed: {type(error).__name__}: {error}")
        self._drop_connection()
        return Outcome(group, [], [], renamed)

    def _write(self, group: list[PendingAppend | PendingTask]) -> Outcome:
        packed = {
            id(item): store.pack(item.partition, item.key, item.value, item.version)
            for item in group
            if isinstance(item, PendingAppend) and not item.future.done()
        }
        if not self._begin(group):
            return Outcome(group, [], [], None)
        assert self._connection is not None
        appends = [item for item in group if id(item) in packed and not item.future.done()]
        tasks = [item for item in group if isinstance(item, PendingTask) and not item.future.done()]
        rows = [packed[id(item)] for item in appends]
        given = store.insert_records(self._connection, rows, now_ms=self._clock_ms())
        results = [(item.future, item.run(self._connection)) for item in tasks]
        self._connection.execute("COMMIT")
        if self._failing:
            log.info("the embedded log can be written again")
        self._failing = False
        self._unmoved_bytes += _SMALLEST_COMMIT_BYTES + sum(len(row.value) for row in rows)
        records = [
            Record(item.partition, offset, stamp_ms, item.key, item.value, item.version)
            for item, (offset, stamp_ms) in zip(appends, given, strict=True)
        ]
        offsets = [(item.future, record.offset) for item, record in zip(appends, records, strict=True)]
        return Outcome(group, offsets + results, records, None)

    def _begin(self, group: list[PendingAppend | PendingTask]) -> bool:
        """Take the write lock; False if nobody waits for anything in the group any more."""
        if self._connection is None:
            self._connection = store.connect(self._directory, busy_timeout_s=0)
        since = time.monotonic()
        try:
            while not all(item.future.done() for item in group):
                try:
                    self._connection.execute("BEGIN IMMEDIATE")
                    return True
                except sqlite3.OperationalError as error:
                    if not store.is_busy(error):
                        raise
                if not self.waits_for_lock and time.monotonic() - since > _WARN_AFTER_S:
                    self.waits_for_lock = True
                    log.warning("another process holds the embedded log's lock", path=str(self._directory))
                time.sleep(random.uniform(*_RETRY_S))
            return False
        finally:
            self.waits_for_lock = False

    def _checkpoint_when_due(self) -> None:
        if self._bulk is None:
            if self._unmoved_bytes >= CHECKPOINT_BYTES:
                self._bulk = self._checkpoint_threads.submit(self._checkpoint_bulk)
            return
        if not self._bulk.done() or self._connection is None:
            return
        error = self._bulk.exception()
        try:
            if error is not None:
                raise error
            store.checkpoint(self._connection)
            self._unmoved_bytes = 0
        except (sqlite3.Error, LogUnavailable) as failed:
            log.warning("a checkpoint of the embedded log failed, it is tried again", reason=str(failed))
        self._bulk = None

    def _checkpoint_bulk(self) -> None:
        connection = store.connect(self._directory, busy_timeout_s=0)
        try:
            store.checkpoint(connection)
        finally:
            connection.close()

    def _drop_connection(self) -> None:
        """Close the connection, whatever state it is in; an open transaction is rolled back by that."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
