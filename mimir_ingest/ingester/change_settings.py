"""Change a partition's settings: a control record that every owner reads at the same offset."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import fields

from mimir_ingest.errors import LogError, LogUnavailable, RecordCorrupt
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.log.contract import PartitionLog
from mimir_ingest.wire.record import VERSION_CONTROL, encode_settings


async def change_partition_settings(
    log: PartitionLog, partition: int, values: Mapping[str, int], *, timeout_s: float
) -> int:
    """Append the change to a log that is not started (it is started and closed here); return the record's offset.

    Raises RecordCorrupt or RecordVersionUnsupported for what no owner would take (one that is appended nevertheless
    stops the partition), LogError for a partition that is not there,
    LogUnavailable when the log does not answer in time.
    """
    known_names = [field.name for field in fields(PartitionSettings)]
    for name in values:
        if name not in known_names:
            raise RecordCorrupt(f"there is no partition setting {name}; there are {', '.join(known_names)}")
    PartitionSettings().changed(dict(values))
    try:
        async with asyncio.timeout(timeout_s):
            await log.start()
            known = await log.partitions()
            if partition not in known:
                raise LogError(f"there is no partition {partition}; the log has {', '.join(map(str, known))}")
            return await log.append(partition, b"", encode_settings(values), VERSION_CONTROL, timeout_s=timeout_s)
    except TimeoutError:
        raise LogUnavailable(f"the log did not answer within {timeout_s:g} s") from None
    finally:
        await log.close()
