"""The watcher keeps a view of the ring, says how old it is, and changes the ring."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from partitions import edits, follow, watch
from partitions.codec import encode
from partitions.errors import (
    PartitionDoesNotExist,
    RingConflict,
    RingPositionLost,
    RingUnavailable,
    TransitionNotAllowed,
)
from partitions.kv.contract import RingRecord
from partitions.kv.memory import MemoryRing
from partitions.model import InstanceDesc, InstanceState, PartitionDesc, PartitionState, RingDesc, Version
from partitions.watch import RingWatcher
from tests.support.ring_stores import UnsteadyRingStore

PENDING, ACTIVE, INACTIVE = PartitionState.PENDING, PartitionState.ACTIVE, PartitionState.INACTIVE
NOW_MS = 1_700_000_000_000


def create(partition):
    return lambda desc: edits.create_partition(desc, partition, NOW_MS)


def switch(partition, state):
    return lambda desc: edits.change_state(desc, partition, state, NOW_MS)


def written(partition, state, version, *, writer):
    """A record as another process would have written it."""
    entry = PartitionDesc(partition, state, NOW_MS, version, lock_version=version)
    return RingRecord(entry.key, writer, encode(entry))


async def until(holds):
    """Let others run until something holds."""
    for _ in range(6000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never held")


class Clock:
    """Monotonic time that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def ring():
    """A ring in memory, and a function that starts watchers of it."""
    return MemoryRing()


@pytest.fixture
async def watched(ring):
    started = []

    async def start(writer="a", *, skew_ms=0, **options):
        store = UnsteadyRingStore(ring)
        watcher = RingWatcher(store, writer=writer, now_ms=lambda: NOW_MS + skew_ms, **options)
        started.append(watcher)
        await watcher.start()
        return watcher, store

    yield start
    for watcher in started:
        await watcher.close()


async def test_a_watcher_starts_with_everything_that_is_in_the_store(ring, watched):
    first, _ = await watched("a")
    assert first.desc == RingDesc()
    assert first.ring.active_partitions == ()
    await first.change(create(3))
    await first.change(switch(3, ACTIVE))
    second, _ = await watched("b")
    assert second.desc == first.desc
    assert second.desc.partitions[3].state is ACTIVE
    assert second.ring.active_partitions == (3,)


async def test_a_change_is_in_the_own_view_when_it_returns_and_soon_in_others(watched):
    one, _ = await watched("a")
    other, _ = await watched("b")
    desc = await one.change(create(0))
    assert desc is one.desc
    assert desc.partitions[0] == PartitionDesc(0, PENDING, NOW_MS, Version(NOW_MS, 0, "a"), False, 0, desc.newest)
    assert (await other.wait_for(lambda desc: 0 in desc.partitions, 60)) == one.desc


async def test_views_are_swapped_and_never_edited(watched):
    watcher, _ = await watched()
    before, ring_before = watcher.desc, watcher.ring
    await watcher.change(create(0))
    await watcher.change(switch(0, ACTIVE))
    assert before == RingDesc()
    assert len(ring_before.tokens) == 0
    ring = watcher.ring
    await watcher.change(lambda desc: edits.add_owner(desc, "i-0", 0, NOW_MS))
    assert watcher.ring is ring, "an owner is no reason to build the tokens again"
    assert watcher.desc is not before


async def test_what_an_edit_refuses_is_raised_and_nothing_is_written(ring, watched):
    watcher, _ = await watched()
    await watcher.change(create(0))
    end = ring.next_position
    with pytest.raises(PartitionDoesNotExist):
        await watcher.change(switch(1, ACTIVE))
    await watcher.change(switch(0, INACTIVE))
    with pytest.raises(TransitionNotAllowed):
        await watcher.change(switch(0, PENDING))
    assert ring.next_position == end + 1


async def test_an_edit_that_changes_nothing_writes_nothing(ring, watched):
    watcher, _ = await watched()
    desc = await watcher.change(create(0))
    end = ring.next_position
    assert await watcher.change(create(0)) is desc
    assert await watcher.change(lambda desc: [desc.partitions[0]]) is desc
    assert ring.next_position == end


async def test_a_change_sees_what_was_written_before_it_began(ring, watched):
    one, _ = await watched("a")
    other, other_store = await watched("b")
    await one.change(create(0))
    other_store.delay_s = 0.05
    await one.change(switch(0, INACTIVE))
    with pytest.raises(TransitionNotAllowed):
        await other.change(switch(0, PENDING))


async def test_a_change_that_lost_is_tried_again_on_the_newer_document(ring, watched):
    watcher, _ = await watched()
    await watcher.change(create(0))
    seen = []

    def activate(desc):
        seen.append(desc.partitions[0].state)
        if len(seen) == 1:  # somebody whose clock is ahead writes between this edit and its append
            ring.put(written(0, INACTIVE, Version(NOW_MS + 5000, 0, "z"), writer="z"))
        return edits.change_state(desc, 0, ACTIVE, NOW_MS)

    desc = await watcher.change(activate)
    assert seen == [PENDING, INACTIVE]
    assert desc.partitions[0].state is ACTIVE
    assert desc.partitions[0].state_version == Version(NOW_MS + 5000, 1, "a")


async def test_a_change_that_others_undo_afterwards_is_not_made_twice(ring, watched):
    watcher, store = await watched()
    await watcher.change(create(0))
    calls = []
    append = store._inner.append

    async def append_then_somebody_else(records):
        position = await append(records)
        if records[0].writer == "a":
            newest = Version(NOW_MS + 9, 0, "z")
            ring.put(written(0, INACTIVE, newest, writer="z"))
            ring.wake()
        return position

    store._inner.append = append_then_somebody_else

    def activate(desc):
        calls.append(desc)
        return edits.change_state(desc, 0, ACTIVE, NOW_MS)

    desc = await watcher.change(activate)
    assert len(calls) == 1
    assert desc.partitions[0].state is INACTIVE


async def test_a_change_that_always_loses_ends_in_a_conflict(ring, watched):
    watcher, _ = await watched()
    await watcher.change(create(0))

    def contested(desc):
        state = desc.partitions[0].state
        newer = Version(desc.newest.ms + 1000, 0, "z")
        ring.put(written(0, state, newer, writer="z"))
        return edits.change_state(desc, 0, ACTIVE if state is not ACTIVE else INACTIVE, NOW_MS)

    with pytest.raises(RingConflict, match="10 times") as caught:
        await watcher.change(contested)
    assert caught.value.retriable


async def test_several_entries_change_together(watched):
    watcher, _ = await watched()
    desc = await watcher.change(
        lambda desc: [*edits.create_partition(desc, 0, NOW_MS), *edits.add_owner(desc, "i-0", 0, NOW_MS)]
    )
    assert desc.partitions[0].state_version == desc.owners_of(0)[0].version


async def test_watchers_with_skewed_clocks_agree_and_no_change_is_lost(watched):
    watchers = []
    for number, skew_ms in enumerate((-3_600_000, 0, 1, 7_200_000)):
        watcher, store = await watched(f"w{number}", skew_ms=skew_ms)
        store.delay_s = 0.001 * number
        watchers.append(watcher)
    await watchers[0].change(create(0))

    def toggle(desc):
        return edits.change_state(desc, 0, INACTIVE if desc.partitions[0].state is ACTIVE else ACTIVE, NOW_MS)

    async def work(number, watcher):
        for round_number in range(8):
            await watcher.change(toggle)
            await watcher.change(create(100 * (number + 1) + round_number))
            await watcher.change(lambda desc: edits.lock(desc, 100 * (number + 1), True, NOW_MS))

    await asyncio.gather(*(work(number, watcher) for number, watcher in enumerate(watchers)))
    views = [await watcher.refresh() for watcher in watchers]
    assert all(view == views[0] for view in views)
    assert len(views[0].partitions) == 1 + 4 * 8
    assert sum(partition.locked for partition in views[0].partitions.values()) == 4
    late, _ = await watched("late")
    assert late.desc == views[0]


async def test_concurrent_changes_of_one_watcher_all_happen(watched):
    watcher, store = await watched()
    store.delay_s = 0.001
    await asyncio.gather(*(watcher.change(create(number)) for number in range(20)))
    assert list(watcher.desc.partitions) == list(range(20))


async def test_in_an_outage_the_view_stays_and_is_not_confirmed_and_calls_fail(watched, monkeypatch):
    monkeypatch.setattr(follow, "CONFIRM_S", 0.02)
    clock = Clock()
    watcher, store = await watched(monotonic_s=clock)
    await watcher.change(create(0))
    clock.now_s += 1
    await watcher.refresh()
    assert watcher.confirmed_s == clock.now_s
    with capture_logs() as lines:
        store.down = True
        await until(lambda: watcher.waits_for is not None)
        clock.now_s += 30
        with pytest.raises(RingUnavailable, match="the store is down") as caught:
            await watcher.refresh()
        assert caught.value.retriable
        with pytest.raises(RingUnavailable):
            await watcher.change(create(1))
        assert 0 in watcher.desc.partitions
        assert watcher.confirmed_s == clock.now_s - 30
        assert watcher.waits_for == "the store is down"
        store.down = False
        await until(lambda: watcher.waits_for is None)
    assert watcher.confirmed_s == clock.now_s
    assert [line["event"] for line in lines] == [
        "the ring store does not answer, waiting for it",
        "the ring store answers again",
    ]
    await watcher.change(create(1))


async def test_an_idle_view_is_confirmed_again_and_again(watched, monkeypatch):
    monkeypatch.setattr(follow, "CONFIRM_S", 0.01)
    clock = Clock()
    watcher, _ = await watched(monotonic_s=clock)
    for _ in range(3):
        clock.now_s += 1
        await until(lambda: watcher.confirmed_s == clock.now_s)


async def test_a_view_is_confirmed_for_the_time_of_asking_and_not_of_the_answer(watched):
    clock = Clock()
    watcher, store = await watched(monotonic_s=clock)
    store.delay_s = 0.05
    asked = asyncio.create_task(watcher.refresh())
    await asyncio.sleep(0.02)
    clock.now_s += 100
    await asked
    assert watcher.confirmed_s == 1000.0


async def test_a_refresh_contains_what_others_wrote_before_it(ring, watched):
    watcher, store = await watched()
    store.delay_s = 0.01
    for number in range(5):
        ring.put(written(number, ACTIVE, Version(NOW_MS, number, "z"), writer="z"))
        assert number in (await watcher.refresh()).partitions


async def test_refreshes_of_one_moment_share_a_request(watched):
    watcher, store = await watched()
    asked = 0
    end = store._inner.end

    async def counted():
        nonlocal asked
        asked += 1
        return await end()

    store._inner.end = counted
    store.delay_s = 0.02
    await asyncio.gather(*(watcher.refresh() for _ in range(50)))
    assert asked <= 3


async def test_a_start_waits_for_a_store_that_is_down_and_can_be_cancelled(ring, monkeypatch):
    monkeypatch.setattr(follow, "BACK_OFF_S", (0.01, 0.02))
    store = UnsteadyRingStore(ring)
    store.down = True
    watcher = RingWatcher(store, writer="a")
    starting = asyncio.create_task(watcher.start())
    await asyncio.sleep(0.05)
    assert not starting.done()
    assert watcher.waits_for == "the store is down"
    store.down = False
    await asyncio.wait_for(starting, 60)
    assert watcher.waits_for is None
    await watcher.close()

    store = UnsteadyRingStore(ring)
    store.down = True
    watcher = RingWatcher(store, writer="a")
    starting = asyncio.create_task(watcher.start())
    await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await watcher.close()


async def test_a_start_fails_with_what_waiting_cannot_mend(ring):
    class Refusing(UnsteadyRingStore):
        async def start(self):
            raise RingUnavailable("the topic is not compacted", retriable=False)

    watcher = RingWatcher(Refusing(ring), writer="a")
    with pytest.raises(RingUnavailable, match="not compacted"):
        await watcher.start()
    await watcher.close()


async def test_a_change_whose_answer_was_lost_fails_and_may_appear_and_later_ones_win(watched):
    watcher, store = await watched()
    await watcher.change(create(0))
    store.lose_answers = True
    with pytest.raises(RingUnavailable, match="the answer was lost"):
        await watcher.change(switch(0, ACTIVE))
    store.lose_answers = False
    await watcher.wait_for(lambda desc: desc.partitions[0].state is ACTIVE, 60)
    desc = await watcher.change(switch(0, INACTIVE))
    assert desc.partitions[0].state is INACTIVE


async def test_a_store_that_was_made_anew_gets_back_what_the_watchers_know(ring, watched, monkeypatch):
    monkeypatch.setattr(follow, "CONFIRM_S", 0.02)
    monkeypatch.setattr(watch, "UPKEEP_PAUSE_S", 0.02)
    watcher, _ = await watched("a")
    heartbeat = InstanceDesc("ingester", "a", InstanceState.ACTIVE)
    await watcher.change(lambda desc: edits.heartbeat(desc, heartbeat, NOW_MS))
    for number in range(3):
        await watcher.change(create(number))
    await watcher.change(lambda desc: edits.remove_partition(desc, 2, NOW_MS))
    known = watcher.desc
    ring.lose()
    with capture_logs() as lines:
        await watcher.wait_for(lambda _: ring.next_position > 0, 60)
        await watcher.refresh()
    assert "the ring store has lost records, it is read anew" in [line["event"] for line in lines]
    assert watcher.desc == known
    late, _ = await watched("late")
    assert late.desc == known
    assert late.desc.entries["partition/2"].deleted


async def test_while_a_store_is_read_anew_the_old_view_stays(ring, watched, monkeypatch):
    monkeypatch.setattr(follow, "CONFIRM_S", 0.02)
    watcher, store = await watched("a")
    await watcher.change(create(0))
    descs = []
    original = store._inner.read

    async def slow(position, *, max_wait_s):
        if position == 0 and ring.next_position:
            descs.append(watcher.desc)
        return await original(position, max_wait_s=max_wait_s)

    store._inner.read = slow
    clock_jump = RingPositionLost(position=9, end=1)

    async def lost(position, *, max_wait_s):
        store._inner.read = slow
        raise clock_jump

    store._inner.read = lost
    await until(lambda: descs)
    assert all(0 in desc.partitions for desc in descs)


async def test_after_a_long_silence_the_store_is_read_anew_without_what_was_deleted_meanwhile(ring, watched):
    clock = Clock()
    watcher, _ = await watched("a", monotonic_s=clock)
    await watcher.change(create(0))
    await watcher.change(lambda desc: edits.remove_partition(desc, 0, NOW_MS))
    await watcher.change(create(1))
    assert "partition/0" in watcher.desc.entries
    for position in [at for at, record in ring._records.items() if record.key == "partition/0"]:
        del ring._records[position]  # its null came and went
    clock.now_s += 4000
    await watcher.wait_for(lambda desc: "partition/0" not in desc.entries, 60)
    assert list(watcher.desc.partitions) == [1]


async def test_a_reader_that_gives_nothing_although_there_is_something_is_opened_again(ring, watched, monkeypatch):
    monkeypatch.setattr(follow, "STALLED_S", 0.05)
    monkeypatch.setattr(follow, "CONFIRM_S", 0.02)
    watcher, store = await watched("a")
    opened = []
    read, start = store._inner.read, store._inner.start

    empty = asyncio.Event()

    async def nothing(position, *, max_wait_s):
        empty.set()
        await asyncio.sleep(max_wait_s)
        return [], position

    async def start_again():
        opened.append(True)
        store._inner.read = read
        await start()

    store._inner.read, store._inner.start = nothing, start_again
    await empty.wait()
    ring.put(written(0, ACTIVE, Version(NOW_MS, 0, "z"), writer="z"))
    await watcher.wait_for(lambda desc: 0 in desc.partitions, 60)
    assert opened == [True]


async def test_upkeep_nulls_an_old_deletion_and_forgets_it(ring, watched):
    now_ms = NOW_MS
    watcher, _ = await watched("a")
    watcher._now_ms = lambda: now_ms
    await watcher.change(create(0))
    await watcher.change(lambda desc: edits.remove_partition(desc, 0, now_ms))
    assert await watcher.upkeep() == 0
    now_ms += 25 * 3600 * 1000
    assert await watcher.upkeep() == 1
    assert (await watcher.refresh()).entries == {}
    assert await watcher.upkeep() == 0
    late, _ = await watched("late")
    assert late.desc == RingDesc()
    await watcher.change(create(0))
    assert list((await late.refresh()).partitions) == [0]


async def test_a_record_that_cannot_be_read_is_said_and_passed_over(ring, watched):
    watcher, _ = await watched()
    with capture_logs() as lines:
        ring.put(RingRecord("partition/0", "z", b"no json"))
        await watcher.change(create(1))
    assert [line["event"] for line in lines] == ["a record of the ring cannot be read and is passed over"]
    assert list(watcher.desc.partitions) == [1]


async def test_closing_ends_what_waits(watched):
    watcher, _ = await watched()
    waiting = [
        asyncio.create_task(watcher.wait_for(lambda desc: False, 60)),
        asyncio.create_task(watcher.changed(watcher.desc)),
    ]
    await asyncio.sleep(0.01)
    await watcher.close()
    await watcher.close()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [RingUnavailable] * 2
    with pytest.raises(RingUnavailable):
        await watcher.refresh()
    with pytest.raises(RingUnavailable):
        await watcher.change(create(0))


async def test_waiting_for_a_view_that_does_not_come_times_out(watched):
    watcher, _ = await watched()
    with pytest.raises(TimeoutError):
        await watcher.wait_for(lambda desc: 9 in desc.partitions, 0.05)


async def test_changed_tells_of_the_next_view(watched):
    watcher, _ = await watched()
    seen = watcher.desc
    waiting = asyncio.create_task(watcher.changed(seen))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await watcher.change(create(0))
    assert 0 in (await asyncio.wait_for(waiting, 60)).partitions
    assert await watcher.changed(seen) is watcher.desc


async def test_a_cancelled_change_does_not_hold_up_the_next(watched):
    watcher, store = await watched()
    store.delay_s = 0.02
    for pause_s in (0.0, 0.01, 0.03, 0.05, 0.07):
        changing = asyncio.create_task(watcher.change(create(0)))
        await asyncio.sleep(pause_s)
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
    await watcher.change(create(1))
    assert 1 in watcher.desc.partitions


async def test_a_store_that_keeps_failing_is_opened_anew(ring, watched, monkeypatch):
    monkeypatch.setattr(follow, "CONFIRM_S", 0.02)
    monkeypatch.setattr(follow, "BACK_OFF_S", (0.01, 0.02))
    watcher, store = await watched("a")
    await watcher.change(create(0))
    end = store._inner.end
    start = store._inner.start

    async def broken():
        raise RingUnavailable("there is no such topic")

    async def start_again():
        store._inner.end = end
        await start()

    store._inner.end, store._inner.start = broken, start_again
    await until(lambda: watcher.waits_for == "there is no such topic")
    ring.lose()
    for number in range(5, 9):  # the new one is longer already than the old one was
        ring.put(written(number, ACTIVE, Version(NOW_MS + number, 0, "z"), writer="z"))
    await until(lambda: watcher.waits_for is None)
    await watcher.change(create(1))
    assert list(watcher.desc.partitions) == [0, 1, 5, 6, 7, 8]
    await watcher.upkeep()
    late, _ = await watched("late")
    assert late.desc == watcher.desc
