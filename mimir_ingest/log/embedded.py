"""The embedded partition log: one SQLite database in a directory, shared by any number of local processes.

Durable on return (WAL, synchronous=FULL, group commit); see `sqlite_store` for the tables and `group_commit` for the
writer thread. Reads run in a few threads with connections of their own. A reader at the end takes records appended by
this process from memory; it notices other processes' appends by `PRAGMA data_version`, polled while somebody waits.

Deviation from the contract's letter: a record trimmed by another process may still be read here until this process
notices, at the latest when it next waits.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from mimir_ingest.errors import LogUnavailable, OffsetOutOfRange, RecordTooLarge
from mimir_ingest.log import sqlite_store as store
from mimir_ingest.log.contract import PartitionLog, Record
from mimir_ingest.log.group_commit import GroupCommitter, Outcome, PendingAppend, PendingTask
from mimir_ingest.log.tail_cache import TailCache

POLL_S = 0.02
# why: how late another process's append may be seen. One poll costs about 10 µs, and more after each commit: this
# process's own count as changes, too.
TRIM_RECORDS = 256
# why: records deleted in a transaction; appends of the same process wait for at most one such step.
_KEPT_FREE_PAGES = 4096
# why: 64 MiB of pages stay in the file for reuse; past that, and a quarter of the file, they go back to the disk.
_RELEASED_PAGES = 512
_TASK_TIMEOUT_S = 30.0
_START_ATTEMPTS = 20

Result = TypeVar("Result")


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class EmbeddedLog(PartitionLog):
    """See `PartitionLog`. Owns a writer thread, reader threads and their connections from `start` to `close`.

    Parameters
    ----------
    directory : where the database is, or will be made
    partitions : partitions to have at least; those that exist are never removed
    max_record_bytes : largest value (bytes)
    max_buffered_bytes : values that may wait to be durable (bytes); past that an append fails at once; 0 is no limit
    tail_cache_bytes : newest values kept in memory for readers at the end, per partition (bytes)
    reader_threads : reads of the disk at a time
    clock_ms : wall clock (ms since the Unix epoch)
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        partitions: int = 1,
        max_record_bytes: int = 15_983_616,
        max_buffered_bytes: int = 1 << 30,
        tail_cache_bytes: int = 32 << 20,
        reader_threads: int = 2,
        clock_ms: Callable[[], int] = _wall_clock_ms,
    ) -> None:
        self._directory = Path(directory)
        self._partition_count = partitions
        self._max_record_bytes = max_record_bytes
        self._max_buffered_bytes = max_buffered_bytes
        self._tail_cache_bytes = tail_cache_bytes
        self._threads = ThreadPoolExecutor(reader_threads + 1, thread_name_prefix="log-reader")
        self._clock_ms = clock_ms
        self._topic_id = ""
        self._open = False
        self._buffered_bytes = 0
        self._ranges: dict[int, store.PartitionRange] = {}
        self._tails: dict[int, TailCache] = {}
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self._poll_timer: asyncio.TimerHandle | None = None
        self._seen_version = -1
        self._looked_s = -math.inf
        self._idle: list[sqlite3.Connection] = []

    async def start(self) -> None:
        """See PartitionLog. Raises LogUnavailable when the directory or database cannot be used, with what to do."""
        self._loop = asyncio.get_running_loop()
        for attempt in range(_START_ATTEMPTS):
            try:
                await self._in_thread(store.create_database, self._directory, partitions=self._partition_count)
                break
            except LogUnavailable as error:
                cause = error.__cause__
                if not isinstance(cause, sqlite3.Error) or not store.is_busy(cause) or attempt + 1 == _START_ATTEMPTS:
                    raise
                await asyncio.sleep(0.05)
        self._poll_connection = store.connect(self._directory, busy_timeout_s=0)
        with store.renamed_errors(self._directory):
            self._topic_id = store.read_topic_id(self._poll_connection)
        self._committer = GroupCommitter(
            self._directory,
            deliver=lambda outcome: self._loop.call_soon_threadsafe(self._on_outcome, outcome),
            clock_ms=self._clock_ms,
            checkpoint_threads=self._threads,
        )
        self._committer.start()
        self._open = True
        self._refresh()

    async def close(self) -> None:
        """See PartitionLog."""
        if not self._open:
            self._threads.shutdown(wait=False)
            return
        self._open = False
        if self._poll_timer is not None:
            self._poll_timer.cancel()
        self._wake(list(self._waiters), LogUnavailable("the embedded log is closed"))
        await asyncio.shield(asyncio.to_thread(self._release))

    def _release(self) -> None:
        self._committer.close()
        self._threads.shutdown()
        for connection in (*self._idle, self._poll_connection):
            connection.close()

    @property
    def topic_id(self) -> str:
        """See PartitionLog; made when the database was created."""
        return self._topic_id

    @property
    def max_record_bytes(self) -> int:
        """See PartitionLog."""
        return self._max_record_bytes

    async def partitions(self) -> list[int]:
        """See PartitionLog."""
        self._refresh()
        return sorted(self._ranges)

    async def add_partitions(self, total: int) -> None:
        """See PartitionLog."""
        self.check_growth(total)
        await self._run_task(lambda connection: store.add_partitions(connection, total))
        self._refresh()

    async def append(self, partition: int, key: bytes, value: bytes, version: int, *, timeout_s: float) -> int:
        """See PartitionLog. Cancelled or late, a record that is not yet in a transaction is withdrawn."""
        if len(value) > self._max_record_bytes:
            raise RecordTooLarge(f"a record of {len(value)} bytes is over the limit of {self._max_record_bytes} bytes")
        self._range(partition)
        if self._max_buffered_bytes and self._buffered_bytes + len(value) > self._max_buffered_bytes:
            raise LogUnavailable(
                f"{self._buffered_bytes} bytes already wait to be written to the embedded log, "
                f"the limit is {self._max_buffered_bytes}; the disk is too slow, or stuck"
            )
        self._buffered_bytes += len(value)
        pending = PendingAppend(partition, key, value, version, self._loop.create_future())
        self._committer.submit(pending)
        return await self._settled(pending.future, timeout_s)

    async def read(self, partition: int, next_offset: int, *, max_bytes: int, max_wait_s: float) -> list[Record]:
        """See PartitionLog."""
        deadline = self._loop.time() + max_wait_s
        while True:
            if (tail := self._tails.get(partition)) and (records := tail.take(next_offset, max_bytes=max_bytes)):
                await asyncio.sleep(0)  # a reader that always finds something must not keep the loop to itself
                return records
            span = self._range(partition)
            if next_offset != span.next_offset or self._loop.time() >= min(deadline, self._looked_s + POLL_S):
                # At the end, a reader need not look for others' appends more often than one that waits.
                self._refresh()
                span = self._range(partition)
            if not span.start_offset <= next_offset <= span.next_offset:
                raise OffsetOutOfRange(
                    partition=partition,
                    offset=next_offset,
                    start_offset=span.start_offset,
                    end_offset=span.next_offset,
                )
            if next_offset < span.next_offset:
                records, _ = await self._in_connection(store.read_records, partition, next_offset, max_bytes=max_bytes)
                return records
            if not await self._changed(partition, deadline - self._loop.time()):
                return []

    async def start_offset(self, partition: int) -> int:
        """See PartitionLog."""
        self._refresh()
        return self._range(partition).start_offset

    async def end_offset(self, partition: int) -> int:
        """See PartitionLog."""
        self._refresh()
        return self._range(partition).next_offset

    async def offset_for_timestamp(self, partition: int, timestamp_ms: int) -> int:
        """See PartitionLog."""
        self._range(partition)
        return await self._in_connection(store.find_timestamp, partition, timestamp_ms)

    async def commit(self, group: str, partition: int, next_offset: int) -> None:
        """See PartitionLog."""
        self._range(partition)
        await self._run_task(lambda connection: store.write_position(connection, group, partition, next_offset))

    async def committed(self, group: str, partition: int) -> int | None:
        """See PartitionLog."""
        self._range(partition)
        return await self._in_connection(store.read_position, group, partition)

    async def trim(self, partition: int, before_offset: int) -> None:
        """Drop records below `before_offset`, a step at a time. Interrupted, the next trim deletes what was left."""
        self._range(partition)
        start = await self._run_task(lambda connection: store.raise_start(connection, partition, before_offset))
        if partition in self._tails:
            self._tails[partition].drop_below(start)
        while await self._run_task(
            lambda connection: store.delete_trimmed(connection, partition, max_records=TRIM_RECORDS)
        ):
            pass
        while True:
            free, pages = await self._in_connection(store.free_pages)
            if free < _KEPT_FREE_PAGES or free * 4 < pages:
                return
            await self._run_task(lambda connection: store.release_pages(connection, pages=_RELEASED_PAGES))

    def _range(self, partition: int) -> store.PartitionRange:
        if not self._open:
            raise LogUnavailable("the embedded log is not open")
        if (span := self._ranges.get(partition)) is None:
            self._refresh()
            if (span := self._ranges.get(partition)) is None:
                raise LogUnavailable(
                    f"the embedded log has no partition {partition}, it has {len(self._ranges)}; "
                    "raise -ingest-storage.embedded.partitions"
                )
        return span

    def _refresh(self) -> None:
        """Learn what any process committed; wakes readers. Cheap when nothing changed."""
        if not self._open:
            raise LogUnavailable("the embedded log is not open")
        try:
            version = self._poll_connection.execute("PRAGMA data_version").fetchone()[0]
            self._looked_s = self._loop.time()
            if version == self._seen_version:
                return
            ranges = store.read_ranges(self._poll_connection)
        except sqlite3.Error as error:
            if store.is_busy(error):
                return
            raise store.describe_error(error, self._directory) from error
        self._seen_version = version
        grown = [p for p, span in ranges.items() if p in self._ranges and span != self._ranges[p]]
        self._ranges = ranges
        for partition in grown:
            if partition in self._tails:
                self._tails[partition].drop_below(ranges[partition].start_offset)
        self._wake(grown)

    def _on_outcome(self, outcome: Outcome) -> None:
        """Take over what the writer thread did with a group."""
        for item in outcome.items:
            if isinstance(item, PendingAppend):
                self._buffered_bytes -= len(item.value)
            if outcome.error is not None and not item.future.done():
                error = LogUnavailable(outcome.error.message)
                error.__cause__ = outcome.error
                item.future.set_exception(error)
        for future, result in outcome.done:
            if not future.done():
                future.set_result(result)
        for record in outcome.records:
            tail = self._tails.get(record.partition)
            if tail is None:
                tail = self._tails[record.partition] = TailCache(max_bytes=self._tail_cache_bytes)
            tail.extend(record)
            span = self._ranges[record.partition]
            if record.offset >= span.next_offset:
                self._ranges[record.partition] = store.PartitionRange(span.start_offset, record.offset + 1)
        self._wake({record.partition for record in outcome.records})

    async def _changed(self, partition: int, timeout_s: float) -> bool:
        """Wait for something new in the partition; False when the time is over."""
        if timeout_s <= 0:
            return False
        waiter = self._loop.create_future()
        waiters = self._waiters.setdefault(partition, [])
        waiters.append(waiter)
        if self._poll_timer is None:
            self._poll_timer = self._loop.call_later(POLL_S, self._poll)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
            return True
        except TimeoutError:
            return False
        finally:
            if waiter in waiters:
                waiters.remove(waiter)

    def _poll(self) -> None:
        self._poll_timer = None
        try:
            self._refresh()
        except LogUnavailable as error:
            self._wake(list(self._waiters), error)
        if any(self._waiters.values()):
            self._poll_timer = self._loop.call_later(POLL_S, self._poll)

    def _wake(self, partitions: set[int] | list[int], error: LogUnavailable | None = None) -> None:
        for partition in partitions:
            waiters = self._waiters.get(partition, [])
            for waiter in waiters:
                if waiter.done():
                    continue
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)
            waiters.clear()

    async def _run_task(self, run: Callable[[sqlite3.Connection], Result]) -> Result:
        if not self._open:
            raise LogUnavailable("the embedded log is not open")
        task = PendingTask(run, self._loop.create_future())
        self._committer.submit(task)
        return await self._settled(task.future, _TASK_TIMEOUT_S)

    async def _settled(self, future: asyncio.Future[Result], timeout_s: float) -> Result:
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            why = "another process holds its lock" if self._committer.waits_for_lock else "the disk is too slow"
            raise LogUnavailable(f"the embedded log did not write within {timeout_s:g} s: {why}") from None

    async def _in_connection(self, run: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """Run a function of `sqlite_store` in a reader thread with a connection of its own."""
        if not self._open:
            raise LogUnavailable("the embedded log is not open")
        return await self._in_thread(self._with_connection, run, *arguments, **named)

    async def _in_thread(self, run: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        return await self._loop.run_in_executor(self._threads, lambda: run(*arguments, **named))

    def _with_connection(self, run: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        with store.renamed_errors(self._directory):
            connection = self._idle.pop() if self._idle else store.connect(self._directory, busy_timeout_s=5.0)
            try:
                result = run(connection, *arguments, **named)
            except sqlite3.Error:
                connection.close()
                raise
            except BaseException:
                self._idle.append(connection)
                raise
            self._idle.append(connection)
            return result
