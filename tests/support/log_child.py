"""A process that appends to a log until it is killed: `python -m tests.support.log_child <json> <partition> <count>`.

Value number `i` is the text `<name>-<i>`. Each line printed is `i offset` of an acknowledged append.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from mimir_ingest.log.contract import PartitionLog


def open_log(recipe: dict[str, Any]) -> PartitionLog:
    """Return the log that a recipe describes, not started."""
    if recipe["kind"] == "embedded":
        from mimir_ingest.log.embedded import EmbeddedLog

        return EmbeddedLog(recipe["directory"], partitions=recipe["partitions"])
    from mimir_ingest.log.kafka import KafkaLog

    return KafkaLog(recipe["addresses"], recipe["topic"], linger_s=0.0, fetch_max_wait_s=1.0)


async def append_for_ever(recipe: dict[str, Any], name: str, partition: int, count: int) -> None:
    """Append one record after the other."""
    log = open_log(recipe)
    await log.start()
    for number in range(count):
        offset = await log.append(partition, b"child", f"{name}-{number}".encode(), 0, timeout_s=30)
        print(number, offset, flush=True)
    await log.close()


if __name__ == "__main__":
    asyncio.run(append_for_ever(json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
