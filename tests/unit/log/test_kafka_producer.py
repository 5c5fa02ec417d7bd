"""The byte gate lets in what fits, first come first, and loses no room to cancelled waiters."""

import asyncio

import pytest

from mimir_ingest.log.kafka_producer import ByteGate


async def test_what_does_not_fit_waits_its_turn():
    gate, entered = ByteGate(100), []

    async def enter(name: str, size: int) -> None:
        await gate.enter(size)
        entered.append(name)

    await enter("a", 60)
    waiting = [asyncio.create_task(enter(name, size)) for name, size in (("b", 50), ("c", 10), ("d", 40))]
    await asyncio.sleep(0)
    assert entered == ["a"], "c would fit, but b came first"
    gate.leave(60)
    await asyncio.wait_for(asyncio.gather(*waiting), 60)
    assert entered == ["a", "b", "c", "d"]


async def test_one_over_the_limit_passes_alone():
    gate = ByteGate(100)
    await gate.enter(500)
    waiting = asyncio.create_task(gate.enter(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.leave(500)
    await asyncio.wait_for(waiting, 60)


@pytest.mark.parametrize("turn_has_come", [False, True])
async def test_a_cancelled_waiter_takes_no_room(turn_has_come):
    gate = ByteGate(100)
    await gate.enter(100)
    waiting = asyncio.create_task(gate.enter(100))
    await asyncio.sleep(0)
    if turn_has_come:
        gate.leave(100)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    if not turn_has_come:
        gate.leave(100)
    await asyncio.wait_for(gate.enter(100), 60)
