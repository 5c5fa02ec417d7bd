"""Look into a partition log: what `mimir-ingest log inspect` prints. Reads only; works on every log of the contract."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from mimir_ingest.errors import LogError, LogUnavailable
from mimir_ingest.log.contract import PartitionLog, Record
from mimir_ingest.wire.record import VERSION_COLUMNAR, VERSION_CONTROL, decode, decode_control

_READ_BYTES = 16 << 20
_VERSION_NAMES = {VERSION_COLUMNAR: "columnar", VERSION_CONTROL: "control"}


async def inspect_log(
    log: PartitionLog, *, group: str, partition: int | None, offset: int | None, limit: int, timeout_s: float
) -> list[str]:
    """Return a table of partitions, or of one partition's records.

    Parameters
    ----------
    log : not started; it is started and closed here
    group : consumer group whose positions are shown
    partition : the partition whose records are listed; None lists the partitions
    offset : first record; negative counts from the end, None is the oldest one there
    limit : how many records
    timeout_s : time that starting and each answer may take

    Raises LogUnavailable when the log does not answer in time, LogError for a partition or offset that is not there.
    """
    try:
        try:
            async with asyncio.timeout(timeout_s):
                await log.start()
                known = await log.partitions()
            if partition is None:
                return await _partition_lines(log, known, group, timeout_s)
            if partition not in known:
                raise LogError(f"there is no partition {partition}; the log has {', '.join(map(str, known))}")
            return await _record_lines(log, partition, offset, limit, timeout_s)
        except TimeoutError:
            raise LogUnavailable(f"the log did not answer within {timeout_s:g} s") from None
    finally:
        await log.close()


async def _partition_lines(log: PartitionLog, partitions: list[int], group: str, timeout_s: float) -> list[str]:
    rows = [("PARTITION", "START", "END", "RECORDS", "COMMITTED", "LAG")]
    for partition in partitions:
        async with asyncio.timeout(timeout_s):
            start, end = await log.start_offset(partition), await log.end_offset(partition)
            committed = await log.committed(group, partition)
        position = ("-", "-") if committed is None else (str(committed), str(max(end - committed, 0)))
        rows.append((str(partition), str(start), str(end), str(end - start), *position))
    return [f"topic {log.topic_id}, committed positions of group {group}", "", *_table(rows)]


async def _record_lines(
    log: PartitionLog, partition: int, offset: int | None, limit: int, timeout_s: float
) -> list[str]:
    async with asyncio.timeout(timeout_s):
        start, end = await log.start_offset(partition), await log.end_offset(partition)
    next_offset = start if offset is None else max(end + offset, start) if offset < 0 else offset
    rows = [("OFFSET", "TIME", "TENANT", "VERSION", "BYTES", "CONTENT")]
    while len(rows) <= limit and next_offset < end:
        async with asyncio.timeout(timeout_s):
            records = await log.read(partition, next_offset, max_bytes=_READ_BYTES, max_wait_s=timeout_s)
        rows += [_row(record) for record in records[: limit + 1 - len(rows)]]
        next_offset = records[-1].offset + 1 if records else end
    return _table(rows)


def _row(record: Record) -> tuple[str, ...]:
    when = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
    return (
        str(record.offset),
        f"{when:%Y-%m-%dT%H:%M:%S}.{record.timestamp_ms % 1000:03d}Z",
        record.key.decode("utf-8", "backslashreplace") or "-",
        _VERSION_NAMES.get(record.version, str(record.version)),
        str(len(record.value)),
        describe(record),
    )


def describe(record: Record) -> str:
    """Say what a record holds; one that cannot be decoded says why."""
    try:
        if record.version == VERSION_CONTROL:
            return str(decode_control(record.value))
        batch = decode(record.version, record.value).batch
    except LogError as error:
        return f"cannot be read: {error.message}"
    return f"{batch.series_count} series, {batch.sample_count} samples, {len(batch.metadata)} metadata"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
