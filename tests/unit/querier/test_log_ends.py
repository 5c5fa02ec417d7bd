import asyncio

import pytest

from mimir_ingest.errors import LogUnavailable
from mimir_ingest.querier.log_ends import LogEnds
from tests.support.memory_log import MemoryLog


class SlowLog(MemoryLog):
    """Answers a lookup when told; counts them."""

    def __init__(self) -> None:
        super().__init__(partitions=3)
        self.asked: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def end_offset(self, partition: int) -> int:
        self.asked.append(partition)
        end = await super().end_offset(partition)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return end

    async def put(self, partition: int) -> None:
        await self.append(partition, b"t", b"", 1, timeout_s=1)


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_ends_are_looked_up_and_remembered():
    log = SlowLog()
    await log.put(1)
    ends = LogEnds(log)
    assert await ends.lookup([2, 1, 1]) == {1: 1, 2: 0}
    assert (ends.known(1), ends.known(2), ends.known(0)) == (1, 0, 0)


async def test_callers_share_the_lookup_that_begins_after_they_came():
    log = SlowLog()
    ends = LogEnds(log)
    log.gate.clear()
    first = asyncio.create_task(ends.lookup([0]))
    await until(lambda: log.asked == [0])
    await log.put(0)
    later = [asyncio.create_task(ends.lookup([0])) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert log.asked == [0]
    log.gate.set()
    assert await first == {0: 0}
    assert await asyncio.gather(*later) == [{0: 1}] * 5
    assert log.asked == [0, 0]


async def test_a_caller_that_leaves_does_not_take_the_lookup_from_the_others():
    log = SlowLog()
    ends = LogEnds(log)
    log.gate.clear()
    one, other = asyncio.create_task(ends.lookup([0])), asyncio.create_task(ends.lookup([0]))
    await until(lambda: log.asked == [0])
    one.cancel()
    log.gate.set()
    assert await other == {0: 0}


async def test_a_lookup_that_fails_fails_its_callers_and_not_the_next():
    log = SlowLog()
    ends = LogEnds(log)
    log.error = LogUnavailable("no broker")
    with pytest.raises(LogUnavailable):
        await ends.lookup([0, 1])
    log.error = None
    assert await ends.lookup([0, 1]) == {0: 0, 1: 0}
