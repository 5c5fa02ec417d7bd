"""Waiting until an offset of a partition was consumed: strong read consistency's half at the owner (spec, section 6.2).

The consumer tells how far it is, readers wait for the offset that they have to see. Offsets in requests are the last
ones wanted (`last_offset`), the consumer's is the first one not yet applied (`next_offset`).
"""

from __future__ import annotations

import asyncio

from partitions.errors import OffsetWaitTimeout, ReaderNotRunning


class OffsetWatch:
    """How far one partition was consumed. For one event loop; any number of waiters.

    Parameters
    ----------
    partition : number of the partition, for messages
    next_offset : first offset that is not yet consumed
    """

    def __init__(self, partition: int, next_offset: int = 0) -> None:
        self._partition = partition
        self._next_offset = next_offset
        self._failure: str | None = None
        self._waiters: dict[asyncio.Future[None], int] = {}
        self._lowest = 0

    @property
    def next_offset(self) -> int:
        """First offset that is not yet consumed."""
        return self._next_offset

    @property
    def waiting(self) -> int:
        """Number of readers that wait."""
        return len(self._waiters)

    def advance(self, next_offset: int) -> None:
        """Everything below `next_offset` was consumed and can be read; also, the consumer runs (again)."""
        self._failure = None
        self._next_offset = next_offset
        if not self._waiters or next_offset <= self._lowest:
            return
        for waiter, last_offset in list(self._waiters.items()):
            if last_offset < next_offset and not waiter.done():
                waiter.set_result(None)
        self._find_lowest()

    def fail(self, reason: str) -> None:
        """The consumer stopped: who waits, or comes for what was not consumed, is refused until the next `advance`."""
        self._failure = reason
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(ReaderNotRunning(partition=self._partition, reason=reason))

    async def wait(self, last_offset: int, *, timeout_s: float) -> None:
        """Return once `last_offset` was consumed; at once for a negative one. Cancelled, it leaves nothing behind.

        Parameters
        ----------
        last_offset : int
            Offset that has to be seen.
        timeout_s : float
            How long to wait; 0 is for ever.

        Raises
        ------
        OffsetWaitTimeout
            It did not come in time.
        ReaderNotRunning
            The consumer has stopped, or stops meanwhile.
        """
        if last_offset < self._next_offset:
            return
        if self._failure is not None:
            raise ReaderNotRunning(partition=self._partition, reason=self._failure)
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = last_offset
        self._find_lowest()
        try:
            async with asyncio.timeout(timeout_s or None):
                await waiter
        except TimeoutError:
            raise OffsetWaitTimeout(
                partition=self._partition, last_offset=last_offset, next_offset=self._next_offset, timeout_s=timeout_s
            ) from None
        finally:
            del self._waiters[waiter]
            self._find_lowest()

    def _find_lowest(self) -> None:
        self._lowest = min((o for w, o in self._waiters.items() if not w.done()), default=0)
