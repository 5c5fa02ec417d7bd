"""The ring in memory: for one process, and for tests with several watchers of one `MemoryRing`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from partitions.errors import RingPositionLost, RingUnavailable
from partitions.kv.contract import RingRecord, RingStore


class MemoryRing:
    """What stores of one ring share; for one event loop.

    Parameters
    ----------
    superseded_kept : number of records that are kept although there is a newer one of their key and writer
    """

    def __init__(self, *, superseded_kept: int = 1000) -> None:
        self.next_position = 0
        """Position that the next record gets."""
        self.waiters: set[asyncio.Future[None]] = set()
        """Readers at the end."""
        self._superseded_kept = superseded_kept
        self._records: dict[int, RingRecord] = {}
        self._newest: dict[tuple[str, str], int] = {}
        self._superseded: deque[int] = deque()

    def put(self, record: RingRecord) -> None:
        """Add a record, and forget the one that was superseded longest ago, if enough are kept."""
        slot = (record.key, record.writer)
        if (before := self._newest.get(slot)) is not None:
            self._superseded.append(before)
        self._newest[slot] = self.next_position
        self._records[self.next_position] = record
        self.next_position += 1
        while len(self._superseded) > self._superseded_kept:
            del self._records[self._superseded.popleft()]

    def lose(self) -> None:
        """Forget everything, as a store that was made anew."""
        self._records.clear()
        self._newest.clear()
        self._superseded.clear()
        self.next_position = 0

    def since(self, position: int) -> list[RingRecord]:
        """Return the records at `position` and above, in order."""
        found: list[RingRecord] = []
        for at, record in reversed(self._records.items()):
            if at < position:
                break
            found.append(record)
        return found[::-1]

    def wake(self) -> None:
        """Let waiting readers look again."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)


class MemoryRingStore(RingStore):
    """See `RingStore`.

    Parameters
    ----------
    ring : what it shares with other stores; its own when None
    """

    def __init__(self, ring: MemoryRing | None = None) -> None:
        self._ring = ring or MemoryRing()
        self._open = False

    async def start(self) -> None:
        """See RingStore."""
        self._open = True

    async def close(self) -> None:
        """See RingStore."""
        self._open = False
        self._ring.wake()

    async def append(self, records: Sequence[RingRecord]) -> int:
        """See RingStore."""
        self._check_open()
        for record in records:
            self._ring.put(record)
        self._ring.wake()
        return self._ring.next_position

    async def read(self, position: int, *, max_wait_s: float) -> tuple[list[RingRecord], int]:
        """See RingStore."""
        self._check_open()
        if position > self._ring.next_position:
            raise RingPositionLost(position=position, end=self._ring.next_position)
        if position == self._ring.next_position and max_wait_s > 0:
            waiter = asyncio.get_running_loop().create_future()
            self._ring.waiters.add(waiter)
            try:
                await asyncio.wait([waiter], timeout=max_wait_s)
            finally:
                self._ring.waiters.discard(waiter)
            self._check_open()
        return self._ring.since(position), self._ring.next_position

    async def end(self) -> int:
        """See RingStore."""
        self._check_open()
        return self._ring.next_position

    def _check_open(self) -> None:
        if not self._open:
            raise RingUnavailable("the ring store is not open")
