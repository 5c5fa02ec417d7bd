"""Turns: so many work at a time, and the others come one after another."""

import asyncio

from mimir_ingest.querier.concurrency import Slots


async def test_slots_are_taken_at_once_while_there_are_some_and_then_in_order():
    slots, order = Slots(2), []
    assert slots.take()
    assert slots.take()
    assert not slots.take()

    async def work(name: int) -> None:
        await slots.wait()
        order.append(name)

    tasks = [asyncio.create_task(work(name)) for name in range(3)]
    await asyncio.sleep(0)
    assert order == []
    slots.give_back()
    assert not slots.take()  # it is the first waiting one's
    for _ in range(2):
        slots.give_back()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2]
    slots.give_back()
    assert slots.take()
    assert not slots.take()


async def test_who_gives_up_waiting_takes_no_slot_and_holds_up_nobody():
    for granted in (False, True):
        slots = Slots(1)
        assert slots.take()
        first, second = (asyncio.create_task(slots.wait()) for _ in range(2))
        await asyncio.sleep(0)
        if granted:  # it is given to the first one, which goes before it knows
            slots.give_back()
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        if not granted:
            slots.give_back()
        await asyncio.wait_for(second, 60)
        assert not slots.take()
        slots.give_back()
        assert slots.take()
