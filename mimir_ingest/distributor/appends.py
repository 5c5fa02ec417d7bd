"""Records to the log, all partitions at once, and what the sender is told when the log refuses.

Appends are detached from the request: when the sender goes away or `remote_timeout_s` passes they go on, and are
bounded by `write_timeout_s` and the log's own buffer. Source: spec ingest-storage 2.2, 2.3, 2.5.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from mimir_ingest.distributor.messages import with_id
from mimir_ingest.errors import LogError, LogUnavailable, RecordTooLarge
from mimir_ingest.log.contract import PartitionLog
from mimir_ingest.obs.metrics import WriterMetrics


class RecordWriter:
    """Appends the records of requests. Used from one event loop.

    Parameters
    ----------
    version : version of the records' values
    max_record_bytes : largest value to write; the log may take less
    remote_timeout_s : how long a request waits for the log
    write_timeout_s : how long the log may go on trying
    """

    def __init__(
        self,
        log: PartitionLog,
        metrics: WriterMetrics,
        *,
        version: int,
        max_record_bytes: int,
        remote_timeout_s: float,
        write_timeout_s: float,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._metrics = log, metrics
        self._version, self._max_record_bytes = version, max_record_bytes
        self._remote_timeout_s, self._write_timeout_s = remote_timeout_s, write_timeout_s
        self._monotonic_s = monotonic_s
        self._appends: set[asyncio.Task[int]] = set()

    @property
    def max_record_bytes(self) -> int:
        """Size that records are to be split at: the setting, or what the log takes if that is less."""
        return min(self._max_record_bytes, self._log.max_record_bytes)

    async def drain(self) -> None:
        """Wait until every append has ended, at most `write_timeout_s`."""
        if self._appends:
            await asyncio.wait(self._appends, timeout=self._write_timeout_s)

    async def append(self, key: bytes, records: Sequence[tuple[int, bytes]], *, split_at: int) -> dict[int, int]:
        """Append (partition, value) records at once; return the last offset of each partition.

        `split_at` is the size at which they were split. Raises LogError.
        """
        started_s = self._monotonic_s()
        tasks = [self._start(partition, key, value) for partition, value in records]
        self._metrics.records_per_write_request.observe(len(tasks))
        done, waiting = await asyncio.wait(tasks, timeout=self._remote_timeout_s, return_when=asyncio.FIRST_EXCEPTION)
        partitions = [partition for partition, _ in records]
        failed = [(p, task.exception()) for p, task in zip(partitions, tasks, strict=True) if task in done]
        failed = [(p, error) for p, error in failed if error is not None]
        self._metrics.latency_seconds.labels("failure" if failed or waiting else "success").observe(
            self._monotonic_s() - started_s
        )
        if failed:
            # A server error wins, so that the sender tries again and the rest gets another chance.
            partition, error = min(failed, key=lambda f: isinstance(f[1], RecordTooLarge))
            raise self._error(partition, error, splits=self.max_record_bytes < split_at)
        if waiting:
            partition = next(p for p, task in zip(partitions, tasks, strict=True) if task in waiting)
            raise LogUnavailable(
                "send data to partitions: exceeded configured distributor remote timeout: "
                f"failed pushing to partition {partition}: context deadline exceeded",
                error_id="remote-timeout",
            )
        offsets: dict[int, int] = {}
        for partition, task in zip(partitions, tasks, strict=True):
            offsets[partition] = max(offsets.get(partition, -1), task.result())
        return offsets

    def _start(self, partition: int, key: bytes, value: bytes) -> asyncio.Task[int]:
        metrics = self._metrics
        metrics.produce_records_enqueued.inc()
        metrics.input_bytes.inc(len(value))
        task = asyncio.ensure_future(
            self._log.append(partition, key, value, self._version, timeout_s=self._write_timeout_s)
        )
        self._appends.add(task)

        def ended(task: asyncio.Task[int]) -> None:
            self._appends.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is None and not task.cancelled():
                metrics.sent_bytes.inc(len(value))
                return
            metrics.produce_records_failed.labels(_failure_reason(error)).inc()

        task.add_done_callback(ended)
        return task

    def _error(self, partition: int, error: BaseException, *, splits: bool) -> BaseException:
        """Return the error that the sender gets for one partition's failure.

        `splits`: the log takes smaller records than it did when these were made, so the request's next try differs.
        """
        where = f"send data to partitions: failed pushing to partition {partition}: "
        if isinstance(error, RecordTooLarge) and splits:
            return LogUnavailable(
                f"{where}{error}; the next try is split into smaller records", error_id=error.error_id
            )
        if isinstance(error, RecordTooLarge):
            text = (
                "the write request contains a timeseries or metadata item which is larger that the maximum allowed "
                f"size of {self.max_record_bytes} bytes"
            )
            return RecordTooLarge(where + with_id(text, error.error_id))
        if isinstance(error, LogError):
            return LogUnavailable(f"{where}{error}", error_id=error.error_id)
        return error


def _failure_reason(error: BaseException | None) -> str:
    """Return the `reason` label of a record that the log did not take."""
    if error is None:
        return "canceled"
    if isinstance(error, RecordTooLarge):
        return "record-too-large"
    return "timeout" if isinstance(error, LogUnavailable) else "other"
