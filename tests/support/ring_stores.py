"""Ring stores by recipe, also in other processes, and one whose answers can be delayed or made to fail.

As a program, `python -m tests.support.ring_stores <mode> <recipe> <writer> …`:

    append <count>              values 0 to count - 1 under one key; prints the position after each
    contend <skew ms> <count>   a watcher that toggles partition 0, which others toggle too, and creates partitions of
                                its own, from 100 times its number on; prints [version of the toggle, created] after
                                each round. The number is the last character of the writer's name.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import structlog

from partitions import edits, follow
from partitions.errors import RingUnavailable
from partitions.kv.contract import RingRecord, RingStore
from partitions.kv.memory import MemoryRing, MemoryRingStore
from partitions.model import Entry, PartitionState, RingDesc, partition_key
from partitions.watch import RingWatcher

SHARED_KEY = "partition/7"
SHARED_PARTITION = 0


def open_ring_store(recipe: dict[str, Any]) -> RingStore:
    """Return the store that a recipe describes, not started."""
    if recipe["kind"] == "sqlite":
        from partitions.kv.sqlite import SqliteRingStore

        return SqliteRingStore(recipe["path"])
    from partitions.kv.kafka import KafkaRingStore

    return KafkaRingStore(recipe["addresses"], recipe["topic"])


def spawn(mode: str, recipe: dict[str, Any], *arguments: object) -> subprocess.Popen[bytes]:
    """Start this module as a process."""
    command = [sys.executable, "-m", "tests.support.ring_stores", mode, json.dumps(recipe), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])


@contextmanager
def hurried_watchers() -> Iterator[None]:
    """Watchers that try again, and confirm their view, within milliseconds."""
    with mock.patch.object(follow, "BACK_OFF_S", (0.001, 0.002)), mock.patch.object(follow, "CONFIRM_S", 0.005):
        yield


class UnsteadyRingStore(RingStore):
    """A memory store that can be told to fail, and to answer late."""

    def __init__(self, ring: MemoryRing) -> None:
        self._inner = MemoryRingStore(ring)
        self.down = False
        """Everything fails while set."""
        self.lose_answers = False
        """Appends happen, and fail all the same, while set."""
        self.delay_s = 0.0
        """Time before each answer."""

    async def start(self) -> None:
        await self._before()
        await self._inner.start()

    async def close(self) -> None:
        await self._inner.close()

    async def append(self, records: Sequence[RingRecord]) -> int:
        await self._before()
        position = await self._inner.append(records)
        if self.lose_answers:
            raise RingUnavailable("the answer was lost")
        await asyncio.sleep(self.delay_s)
        return position

    async def read(self, position: int, *, max_wait_s: float) -> tuple[list[RingRecord], int]:
        await self._before()
        found = await self._inner.read(position, max_wait_s=max_wait_s)
        await self._before()
        return found

    async def end(self) -> int:
        await self._before()
        return await self._inner.end()

    async def _before(self) -> None:
        await asyncio.sleep(self.delay_s)
        if self.down:
            raise RingUnavailable("the store is down")


async def append_values(recipe: dict[str, Any], writer: str, count: str) -> None:
    """Append one record after the other."""
    store = open_ring_store(recipe)
    await store.start()
    for number in range(int(count)):
        print(await store.append([RingRecord(SHARED_KEY, writer, b"%d" % number)]), flush=True)
    await store.close()


async def contend(recipe: dict[str, Any], writer: str, skew_ms: str, count: str) -> None:
    """Change the ring against others."""

    def now_ms() -> int:
        return time.time_ns() // 1_000_000 + int(skew_ms)

    def toggle(desc: RingDesc) -> list[Entry]:
        if SHARED_PARTITION not in desc.partitions:
            return edits.create_partition(desc, SHARED_PARTITION, now_ms())
        is_active = desc.partitions[SHARED_PARTITION].state is PartitionState.ACTIVE
        state = PartitionState.INACTIVE if is_active else PartitionState.ACTIVE
        return edits.change_state(desc, SHARED_PARTITION, state, now_ms())

    watcher = RingWatcher(open_ring_store(recipe), writer=writer, now_ms=now_ms)
    await watcher.start()
    for number in range(int(count)):
        await watcher.change(toggle)
        version = watcher.slots[partition_key(SHARED_PARTITION)][writer].state_version
        own = 100 * int(writer[-1]) + number
        await watcher.change(lambda desc, own=own: edits.create_partition(desc, own, now_ms()))
        print(json.dumps([version, own]), flush=True)
    await watcher.close()


MODES = {"append": append_values, "contend": contend}

if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(MODES[sys.argv[1]](json.loads(sys.argv[2]), *sys.argv[3:]))
