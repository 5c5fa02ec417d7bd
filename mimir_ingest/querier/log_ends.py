"""Where partitions of the log end, asked on demand: one request of a partition at a time, shared by who waits for it.

A lookup that was under way when a caller came may miss what the caller has to see, so callers join the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

from mimir_ingest.log.contract import PartitionLog


class LogEnds:
    """Coalesced lookups of end offsets. Used from one event loop."""

    def __init__(
        self, partition_log: PartitionLog, on_lookup: Callable[[int, float, bool], None] = lambda *_: None
    ) -> None:
        """`on_lookup` is told of each request: the partition, how long it took (s), and whether it succeeded."""
        self._log, self._on_lookup = partition_log, on_lookup
        self._known: dict[int, int] = {}
        self._running: dict[int, asyncio.Task[int]] = {}
        self._next: dict[int, asyncio.Task[int]] = {}

    def known(self, partition: int) -> int:
        """Return an offset that the partition's end has reached; 0 if nothing is known. An end never goes back."""
        return self._known.get(partition, 0)

    async def lookup(self, partitions: Collection[int]) -> dict[int, int]:
        """Return partition → end offset, each asked for after this call began. Raises LogUnavailable."""
        wanted = sorted(set(partitions))
        tasks = [self._join(partition) for partition in wanted]
        # Shielded: another caller may wait for the same lookup.
        ends = await asyncio.gather(*(asyncio.shield(task) for task in tasks))
        return dict(zip(wanted, ends, strict=True))

    def _join(self, partition: int) -> asyncio.Task[int]:
        task = self._next.get(partition)
        if task is None:
            task = asyncio.create_task(self._ask(partition, self._running.get(partition)), name=f"end-{partition}")
            task.add_done_callback(_observe)
            self._next[partition] = task
        return task

    async def _ask(self, partition: int, before: asyncio.Task[int] | None) -> int:
        if before is not None:
            await asyncio.wait([before])
        task = self._running[partition] = self._next.pop(partition)
        began, succeeded = time.monotonic(), False
        try:
            end = await self._log.end_offset(partition)
            succeeded = True
        finally:
            self._on_lookup(partition, time.monotonic() - began, succeeded)
            if self._running.get(partition) is task:
                del self._running[partition]
        self._known[partition] = max(end, self.known(partition))
        return end


def _observe(task: asyncio.Task[int]) -> None:
    """Fetch the outcome, so that a failed lookup whose callers were all cancelled is no unseen exception."""
    if not task.cancelled():
        task.exception()
