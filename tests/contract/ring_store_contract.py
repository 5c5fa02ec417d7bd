"""What every ring store must do. A subclass gives the fixture `place`; see `RingPlace`."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod

import pytest

from partitions.errors import RingPositionLost, RingUnavailable
from partitions.kv.contract import RingRecord, RingStore


class RingPlace(ABC):
    """Where one test's ring is; opens any number of stores of it."""

    def __init__(self) -> None:
        self._opened: list[RingStore] = []

    @abstractmethod
    def make(self) -> RingStore:
        """Return a store that is not started."""

    async def open(self) -> RingStore:
        """Return a started store, closed at the end of the test."""
        store = self.make()
        self._opened.append(store)
        await store.start()
        return store

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


def record(number: int, *, key: str = "partition/1", writer: str = "a") -> RingRecord:
    return RingRecord(key, writer, b"%d" % number)


async def read_all(store: RingStore, position: int = 0) -> list[RingRecord]:
    """Read from a position to the end."""
    end = await store.end()
    records: list[RingRecord] = []
    while position < end:
        found, position = await store.read(position, max_wait_s=5)
        records += found
    return records


def newest(records: list[RingRecord]) -> dict[tuple[str, str], bytes | None]:
    """Return the newest value of each key and writer."""
    return {(r.key, r.writer): r.value for r in records}


class RingStoreContract:
    """The suite."""

    async def test_records_come_back_in_order_also_nulls_and_odd_names(self, place):
        store, other = await place.open(), await place.open()
        records = [
            RingRecord("partition/0", "ingester-zone-a-0", b"{}"),
            RingRecord("owner/a b/ü\t/0", "writer with spaces", bytes(range(256))),
            RingRecord("instance/ingester/x\ty", "z/é", b""),
            RingRecord("partition/0", "another", None),
            RingRecord("election/tenant/cluster", "a", random.Random(1).randbytes(100_000)),
            RingRecord("election/tenant/a/b\tc\0d\nü", "a", b"{}"),
        ]
        assert await store.end() == 0
        assert await store.append(records) == await store.end() == await other.end()
        assert await read_all(store) == records
        assert await read_all(other) == records

    async def test_a_name_that_no_store_can_keep_is_refused_before_it_is_stored(self, place):
        for key, writer in (("", "a"), ("k", ""), ("k", "a\tb"), ("k", "a\n")):
            with pytest.raises(ValueError, match="printable writer"):
                RingRecord(key, writer, b"")

    async def test_who_has_read_to_the_position_of_an_append_has_seen_its_records(self, place):
        store, other = await place.open(), await place.open()
        position = 0
        for number in range(10):
            appended = await store.append([record(number), record(number, key="partition/2")])
            seen: list[RingRecord] = []
            while position < appended:
                found, position = await other.read(position, max_wait_s=60)
                seen += found
            assert seen == [record(number), record(number, key="partition/2")]

    async def test_a_reader_that_starts_later_sees_the_newest_record_of_each_key_and_writer(self, place):
        store = await place.open()
        for number in range(20):
            await store.append([record(number, writer="a"), record(number, writer="b", key=f"partition/{number % 3}")])
        await store.append([RingRecord("partition/2", "b", None)])
        late = await place.open()
        assert newest(await read_all(late)) == {
            ("partition/1", "a"): b"19",
            ("partition/0", "b"): b"18",
            ("partition/1", "b"): b"19",
            ("partition/2", "b"): None,
        }

    async def test_positions_grow_and_go_on_after_a_restart(self, place):
        store = await place.open()
        first = await store.append([record(0)])
        second = await store.append([record(1)])
        assert 0 < first < second == await store.end()
        again = await place.open()
        await store.close()
        assert await again.end() == second
        assert await again.append([record(2, key="partition/2")]) > second
        assert newest(await read_all(again))[("partition/1", "a")] == b"1"
        assert await read_all(again, second) == [record(2, key="partition/2")]

    async def test_an_append_of_nothing_gives_the_end(self, place):
        store = await place.open()
        position = await store.append([record(0)])
        assert await store.append([]) == position

    async def test_a_read_at_the_end_returns_nothing_after_its_wait(self, place):
        store = await place.open()
        assert await store.read(0, max_wait_s=0.2) == ([], 0)
        end = await store.append([record(0)])
        assert await store.read(end, max_wait_s=0.2) == ([], end)
        assert await store.read(end, max_wait_s=0.0) == ([], end)

    async def test_a_waiting_read_wakes_for_appends_of_its_own_store_and_of_others(self, place):
        store, other = await place.open(), await place.open()
        position = 0
        for number, writer in enumerate((store, other, store)):
            reading = asyncio.create_task(store.read(position, max_wait_s=30))
            await asyncio.sleep(0.1)
            assert not reading.done()
            await writer.append([record(number)])
            found, position = await asyncio.wait_for(reading, 60)
            assert found == [record(number)]

    async def test_a_cancelled_read_loses_nothing(self, place):
        store, other = await place.open(), await place.open()
        position, seen = 0, []
        for number in range(20):
            reading = asyncio.create_task(store.read(position, max_wait_s=30))
            await asyncio.sleep(number * 0.001)
            await other.append([record(number, key=f"partition/{number}")])
            reading.cancel()
            [outcome] = await asyncio.gather(reading, return_exceptions=True)
            if not isinstance(outcome, asyncio.CancelledError):
                found, position = outcome
                seen += found
        seen += await read_all(store, position)
        assert seen == [record(number, key=f"partition/{number}") for number in range(20)]

    async def test_the_same_position_can_be_read_again(self, place):
        store = await place.open()
        await store.append([record(0, key="k")])
        middle = await store.append([record(1, key="l")])
        await store.append([record(2, key="m")])
        for _ in range(2):
            assert [r.key for r in await read_all(store, 0)] == ["k", "l", "m"]
            assert [r.key for r in await read_all(store, middle)] == ["m"]

    async def test_a_position_past_the_end_is_lost(self, place):
        store = await place.open()
        end = await store.append([record(0)])
        with pytest.raises(RingPositionLost) as caught:
            await store.read(end + 5, max_wait_s=60)
        assert (caught.value.position, caught.value.end) == (end + 5, end)
        assert caught.value.retriable
        assert await read_all(store) == [record(0)]

    async def test_concurrent_appends_are_all_stored_in_an_order_of_their_own(self, place):
        store, other = await place.open(), await place.open()
        appends = [
            (store if number % 2 else other).append([record(number, key=f"partition/{number}")]) for number in range(40)
        ]
        positions = await asyncio.gather(*appends)
        assert len(set(positions)) == 40
        seen = await read_all(store)
        assert seen == await read_all(other)
        in_order = sorted(range(40), key=lambda number: positions[number])
        assert seen == [record(number, key=f"partition/{number}") for number in in_order]

    async def test_a_closed_store_says_so_and_closing_twice_is_fine(self, place):
        store = await place.open()
        waiting = asyncio.create_task(store.read(0, max_wait_s=5))
        await asyncio.sleep(0.1)
        await store.close()
        await store.close()
        [outcome] = await asyncio.gather(waiting, return_exceptions=True)
        assert outcome == ([], 0) or isinstance(outcome, RingUnavailable)
        for call in (store.append([record(0)]), store.read(0, max_wait_s=0.1), store.end()):
            with pytest.raises(RingUnavailable, match="not open"):
                await call
