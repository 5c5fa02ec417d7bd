"""Readers wait until an offset of a partition was consumed."""

import asyncio

import pytest

from partitions.errors import OffsetWaitTimeout, ReaderNotRunning
from partitions.offsets import OffsetWatch


def waiting_for(watch, *offsets, timeout_s=0.0):
    return [asyncio.create_task(watch.wait(offset, timeout_s=timeout_s)) for offset in offsets]


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_was_consumed_and_negative_offsets_return_at_once():
    watch = OffsetWatch(3, 10)
    for offset in (9, 0, -1, -2):
        await watch.wait(offset, timeout_s=0.001)
    await OffsetWatch(0).wait(-1, timeout_s=0.001)
    assert watch.waiting == 0


async def test_each_waiter_wakes_when_its_own_offset_was_consumed():
    watch = OffsetWatch(0, 10)
    tasks = waiting_for(watch, 12, 10, 10, 30)
    await settle()
    assert watch.waiting == 4
    for next_offset, done in (
        (10, []),
        (11, [1, 2]),
        (12, [1, 2]),
        (13, [0, 1, 2]),
        (30, [0, 1, 2]),
        (40, [0, 1, 2, 3]),
    ):
        watch.advance(next_offset)
        await settle()
        assert [number for number, task in enumerate(tasks) if task.done()] == done
        assert watch.next_offset == next_offset
    await asyncio.gather(*tasks)
    assert watch.waiting == 0


async def test_a_wait_ends_after_its_time_with_what_was_wanted_and_what_there_is():
    watch = OffsetWatch(7, 5)
    with pytest.raises(OffsetWaitTimeout) as caught:
        await watch.wait(8, timeout_s=0.01)
    assert (caught.value.partition, caught.value.last_offset, caught.value.next_offset) == (7, 8, 5)
    assert caught.value.message.endswith(
        "wait for read consistency: wait strong read consistency timeout exceeded: context deadline exceeded"
    )
    assert caught.value.retriable
    assert watch.waiting == 0
    watch.advance(9)
    await watch.wait(8, timeout_s=0.01)


async def test_a_cancelled_wait_leaves_nothing_behind():
    watch = OffsetWatch(0)
    first, second = waiting_for(watch, 4, 5)
    await settle()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert watch.waiting == 1
    watch.advance(6)
    await second


async def test_a_failed_consumer_refuses_all_who_wait_and_who_come_until_it_runs_again():
    watch = OffsetWatch(2, 10)
    tasks = waiting_for(watch, 10, 11)
    await settle()
    watch.fail("the topic is gone")
    for task in tasks:
        with pytest.raises(ReaderNotRunning, match=r"partition 2: .* is not running \(the topic is gone\)"):
            await task
    with pytest.raises(ReaderNotRunning):
        await watch.wait(10, timeout_s=1)
    await watch.wait(9, timeout_s=1)
    watch.advance(10)
    [task] = waiting_for(watch, 10)
    await settle()
    watch.advance(11)
    await task


async def test_an_advance_and_a_failure_of_one_moment_are_told_apart():
    watch = OffsetWatch(0)
    one, two = waiting_for(watch, 0, 1)
    await settle()
    watch.advance(1)
    watch.fail("stopped")
    await one
    with pytest.raises(ReaderNotRunning):
        await two
