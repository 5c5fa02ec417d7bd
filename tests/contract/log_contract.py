"""What every partition log must do. A subclass gives the fixture `place`; see `LogPlace`."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pytest

from mimir_ingest.errors import LogUnavailable, OffsetOutOfRange, RecordTooLarge
from mimir_ingest.log.contract import PartitionLog, Record
from tests.support.log_child import open_log

PARTITIONS = 3
VERSION_COLUMNAR, VERSION_CONTROL = 0x4D490001, 0x4D490002
MANY = 1 << 30


class LogPlace(ABC):
    """Where one test's topic is; opens any number of logs on it."""

    def __init__(self) -> None:
        self._opened: list[PartitionLog] = []

    @property
    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """What `open_log` needs, also in another process."""

    @abstractmethod
    async def drop_below(self, log: PartitionLog, partition: int, offset: int) -> None:
        """Make the log's start move, as trimming or retention does."""

    @abstractmethod
    async def recreate(self) -> None:
        """Remove the topic, so that the next log opened creates it again under the same name."""

    async def open(self) -> PartitionLog:
        """Return a started log of PARTITIONS partitions, closed at the end of the test."""
        log = open_log(self.recipe)
        self._opened.append(log)
        await log.start()
        return log

    async def close(self) -> None:
        for log in self._opened:
            await log.close()

    def spawn(self, name: str, partition: int, count: int) -> subprocess.Popen[bytes]:
        """Start a process that appends `count` records, and prints each acknowledgement."""
        root = Path(__file__).parents[2]
        command = [sys.executable, "-m", "tests.support.log_child"]
        command += [json.dumps(self.recipe), name, str(partition), str(count)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root)


async def put(log: PartitionLog, partition: int, *values: bytes, version: int = 0) -> list[int]:
    """Append values one after the other; return their offsets."""
    return [await log.append(partition, b"tenant", value, version, timeout_s=60) for value in values]


async def read_all(
    log: PartitionLog, partition: int, next_offset: int = 0, *, max_bytes: int = 1 << 20
) -> list[Record]:
    """Read from an offset to the end, and check what every read promises."""
    end = await log.end_offset(partition)
    records: list[Record] = []
    while next_offset < end:
        got = await log.read(partition, next_offset, max_bytes=max_bytes, max_wait_s=60)
        assert got, f"nothing at {next_offset}, although the end is {end}"
        assert [record.offset for record in got] == list(range(next_offset, next_offset + len(got)))
        assert {record.partition for record in got} == {partition}
        records += got
        next_offset = got[-1].offset + 1
    return records


class LogContract:
    """The suite."""

    async def test_records_come_back_as_they_were_appended_in_order(self, place):
        log = await place.open()
        versions = [0, 1, 2, VERSION_COLUMNAR, VERSION_CONTROL, 0xFFFFFFFF]
        for number, version in enumerate(versions):
            key, value = bytes([0, 255, number]), bytes(range(256)) * number
            assert await log.append(1, key, value, version, timeout_s=60) == number
        records = await read_all(log, 1)
        assert [record.version for record in records] == versions
        assert [record.key for record in records] == [bytes([0, 255, n]) for n in range(6)]
        assert [record.value for record in records] == [bytes(range(256)) * n for n in range(6)]

    async def test_another_log_on_the_same_topic_reads_the_same(self, place):
        log, other = await place.open(), await place.open()
        values = [random.Random(n).randbytes(n * 700) for n in range(20)]
        await put(log, 0, *values)
        assert [record.value for record in await read_all(other, 0)] == values
        assert await read_all(other, 0) == await read_all(log, 0)
        assert other.topic_id == log.topic_id

    async def test_partitions_are_numbered_from_zero_and_apart(self, place):
        log = await place.open()
        assert await log.partitions() == list(range(PARTITIONS))
        await put(log, 0, b"a", b"b")
        await put(log, 2, b"c")
        assert [await log.end_offset(partition) for partition in range(PARTITIONS)] == [2, 0, 1]
        assert [record.value for record in await read_all(log, 2)] == [b"c"]

    async def test_partitions_can_be_added_and_every_open_log_uses_them(self, place):
        log, other = await place.open(), await place.open()
        await put(other, 0, b"a")
        await log.add_partitions(PARTITIONS + 2)
        for one in (log, other):
            assert await one.partitions() == list(range(PARTITIONS + 2))
        waiting = asyncio.create_task(log.read(PARTITIONS + 1, 0, max_bytes=MANY, max_wait_s=30))
        assert await put(other, PARTITIONS + 1, b"b", b"c") == [0, 1]
        assert (await asyncio.wait_for(waiting, 60))[0].value == b"b"
        assert [record.value for record in await read_all(other, PARTITIONS + 1)] == [b"b", b"c"]
        assert [await other.end_offset(partition) for partition in range(PARTITIONS + 2)] == [1, 0, 0, 0, 2]
        await log.add_partitions(1)
        assert await other.partitions() == list(range(PARTITIONS + 2))

    async def test_logs_may_add_partitions_at_the_same_time(self, place):
        logs = [await place.open() for _ in range(3)]
        await asyncio.gather(*(log.add_partitions(PARTITIONS + 1 + number // 2) for number, log in enumerate(logs)))
        for partition in (PARTITIONS, PARTITIONS + 1):
            assert [await put(log, partition, b"x") for log in logs] == [[0], [1], [2]]

    async def test_a_log_refuses_to_grow_beyond_reason(self, place):
        log = await place.open()
        with pytest.raises(LogUnavailable) as caught:
            await log.add_partitions(20_231_105)
        assert not caught.value.retriable
        assert await log.partitions() == list(range(PARTITIONS))

    async def test_a_partition_that_is_not_there_fails_as_unavailable(self, place):
        log = await place.open()
        with pytest.raises(LogUnavailable, match="no partition 7"):
            await log.append(7, b"tenant", b"x", 0, timeout_s=2)

    async def test_concurrent_appends_each_get_an_offset_of_their_own(self, place):
        log, other = await place.open(), await place.open()
        values = [f"{number}".encode() * 50 for number in range(200)]
        appends = [
            (log if number % 2 else other).append(0, b"tenant", value, 1, timeout_s=60)
            for number, value in enumerate(values)
        ]
        offsets = await asyncio.gather(*appends)
        assert sorted(offsets) == list(range(200))
        stored = {record.offset: record.value for record in await read_all(log, 0)}
        assert [stored[offset] for offset in offsets] == values

    async def test_a_read_keeps_to_its_bytes_but_gives_at_least_one_record(self, place):
        log, other = await place.open(), await place.open()
        await put(log, 0, b"a" * 1000, b"b" * 1000, b"c" * 900_000, b"d" * 1000, b"e" * 1000)
        for reader in (log, other):
            assert [len(r.value) for r in await reader.read(0, 0, max_bytes=1, max_wait_s=60)] == [1000]
            assert [len(r.value) for r in await reader.read(0, 0, max_bytes=2500, max_wait_s=60)] == [1000, 1000]
            assert [len(r.value) for r in await reader.read(0, 2, max_bytes=5000, max_wait_s=60)] == [900_000]
            assert [len(r.value) for r in await reader.read(0, 3, max_bytes=MANY, max_wait_s=60)] == [1000, 1000]
            assert len(await read_all(reader, 0, max_bytes=1)) == 5

    async def test_a_read_at_the_end_returns_nothing_after_its_wait(self, place):
        log = await place.open()
        assert await log.read(0, 0, max_bytes=MANY, max_wait_s=0.2) == []
        await put(log, 0, b"a")
        assert await log.read(0, 1, max_bytes=MANY, max_wait_s=0.2) == []
        assert await log.read(0, 1, max_bytes=MANY, max_wait_s=0.0) == []

    async def test_a_waiting_read_wakes_for_appends_of_its_own_log_and_of_others(self, place):
        log, other = await place.open(), await place.open()
        for offset, writer in enumerate((log, other, log)):
            reading = asyncio.create_task(log.read(0, offset, max_bytes=MANY, max_wait_s=30))
            await asyncio.sleep(0.1)
            assert not reading.done()
            await put(writer, 0, b"x")
            assert [record.offset for record in await asyncio.wait_for(reading, 60)] == [offset]

    async def test_readers_of_a_partition_do_not_disturb_each_other(self, place):
        log = await place.open()
        values = [f"{number:06d}".encode() * 100 for number in range(60)]

        async def follow(first: int) -> list[bytes]:
            seen, next_offset = [], first
            while next_offset < 60:
                for record in await log.read(0, next_offset, max_bytes=2000, max_wait_s=60):
                    seen.append(record.value)
                    next_offset = record.offset + 1
            return seen

        await put(log, 0, *values[:30])
        readers = [asyncio.create_task(follow(first)) for first in (0, 7, 30, 7)]
        await put(log, 0, *values[30:])
        assert await asyncio.gather(*readers) == [values, values[7:], values[30:], values[7:]]

    async def test_a_read_past_the_end_is_out_of_range(self, place):
        log = await place.open()
        await put(log, 0, b"a", b"b")
        for offset in (3, 1000):
            with pytest.raises(OffsetOutOfRange) as caught:
                await log.read(0, offset, max_bytes=MANY, max_wait_s=60)
            assert (caught.value.start_offset, caught.value.end_offset) == (0, 2)

    async def test_a_read_below_the_start_is_out_of_range_and_the_rest_stays(self, place):
        log, other = await place.open(), await place.open()
        await put(log, 0, *(b"%d" % number for number in range(10)))
        await place.drop_below(log, 0, 6)
        for reader in (log, other):
            assert (await reader.start_offset(0), await reader.end_offset(0)) == (6, 10)
            with pytest.raises(OffsetOutOfRange) as caught:
                await reader.read(0, 5, max_bytes=MANY, max_wait_s=60)
            assert (caught.value.start_offset, caught.value.end_offset) == (6, 10)
            assert [record.value for record in await read_all(reader, 0, 6)] == [b"6", b"7", b"8", b"9"]
            assert await reader.offset_for_timestamp(0, 0) == 6

    async def test_offsets_go_on_after_everything_was_dropped(self, place):
        log = await place.open()
        await put(log, 0, b"a", b"b", b"c")
        await place.drop_below(log, 0, 3)
        assert (await log.start_offset(0), await log.end_offset(0)) == (3, 3)
        await log.close()
        again = await place.open()
        assert (await again.start_offset(0), await again.end_offset(0)) == (3, 3)
        assert await put(again, 0, b"d") == [3]
        assert [record.value for record in await read_all(again, 0, 3)] == [b"d"]

    async def test_stamps_never_decrease_and_can_be_looked_up(self, place):
        log = await place.open()
        for number in range(12):
            await put(log, 0, b"%d" % number)
            await asyncio.sleep(0.004)
        stamps = [record.timestamp_ms for record in await read_all(log, 0)]
        assert stamps == sorted(stamps)
        assert stamps[0] > 1_700_000_000_000
        for wanted in {0, stamps[0], stamps[5], stamps[5] + 1, stamps[-1], stamps[-1] + 1, stamps[-1] + 10**9}:
            expected = next((offset for offset, stamp in enumerate(stamps) if stamp >= wanted), 12)
            assert await log.offset_for_timestamp(0, wanted) == expected
        assert await log.offset_for_timestamp(1, 0) == 0

    async def test_positions_are_kept_by_group_and_partition(self, place):
        log = await place.open()
        await put(log, 0, b"a", b"b")
        assert await log.committed("group", 0) is None
        await log.commit("group", 0, 2)
        await log.commit("group", 1, 0)
        await log.commit("other", 0, 1)
        await log.commit("group", 0, 1)
        other = await place.open()
        found = [
            await other.committed(group, partition) for group, partition in (("group", 0), ("group", 1), ("other", 0))
        ]
        assert found == [1, 0, 1]
        assert await other.committed("group", 2) is None

    async def test_a_cancelled_read_loses_nothing(self, place):
        log = await place.open()
        reading = asyncio.create_task(log.read(0, 0, max_bytes=MANY, max_wait_s=30))
        await asyncio.sleep(0.1)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await put(log, 0, *(b"%d" % number for number in range(50)))
        for pause_s in (0.0, 0.0005, 0.002, 0.01):
            reading = asyncio.create_task(log.read(0, 0, max_bytes=60, max_wait_s=30))
            await asyncio.sleep(pause_s)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        assert [record.value for record in await read_all(log, 0)] == [b"%d" % number for number in range(50)]

    async def test_a_cancelled_append_is_stored_at_most_once_and_later_ones_work(self, place):
        log = await place.open()
        for number in range(20):
            appending = asyncio.create_task(log.append(0, b"tenant", b"cancelled-%d" % number, 0, timeout_s=60))
            await asyncio.sleep(number * 0.0004)
            appending.cancel()
            await asyncio.gather(appending, return_exceptions=True)
            await put(log, 0, b"kept-%d" % number)
        values = [record.value for record in await read_all(log, 0)]
        assert len(values) == len(set(values))
        assert [value for value in values if value.startswith(b"kept")] == [b"kept-%d" % n for n in range(20)]

    async def test_what_was_appended_is_there_after_a_restart(self, place):
        log = await place.open()
        await put(log, 0, b"a", b"b")
        topic_id = log.topic_id
        await log.close()
        again = await place.open()
        assert again.topic_id == topic_id
        assert [record.value for record in await read_all(again, 0)] == [b"a", b"b"]
        assert await put(again, 0, b"c") == [2]

    async def test_a_topic_made_again_under_its_name_has_another_id(self, place):
        log = await place.open()
        await put(log, 0, b"a")
        topic_id = log.topic_id
        await log.close()
        await place.recreate()
        again = await place.open()
        assert again.topic_id
        assert again.topic_id != topic_id
        assert await again.end_offset(0) == 0

    async def test_a_record_over_the_limit_is_refused_and_one_at_the_limit_is_taken(self, place):
        log = await place.open()
        assert log.max_record_bytes == 15_983_616
        largest = random.Random(1).randbytes(log.max_record_bytes)
        with pytest.raises(RecordTooLarge, match="15983617"):
            await log.append(0, b"tenant", largest + b"x", 0, timeout_s=60)
        assert await log.end_offset(0) == 0
        assert await log.append(0, b"tenant", largest, VERSION_COLUMNAR, timeout_s=60) == 0
        other = await place.open()
        assert [record.value == largest for record in await read_all(other, 0)] == [True]

    async def test_a_closed_log_says_so_and_closing_twice_is_fine(self, place):
        log = await place.open()
        waiting = asyncio.create_task(log.read(0, 0, max_bytes=MANY, max_wait_s=5))
        await asyncio.sleep(0.1)
        await log.close()
        await log.close()
        [outcome] = await asyncio.gather(waiting, return_exceptions=True)
        assert outcome == [] or isinstance(outcome, LogUnavailable)
        with pytest.raises(LogUnavailable):
            await log.append(0, b"tenant", b"x", 0, timeout_s=1)
        with pytest.raises(LogUnavailable):
            await log.read(0, 0, max_bytes=MANY, max_wait_s=1)

    async def test_closing_keeps_what_was_accepted(self, place):
        log = await place.open()
        appends = [asyncio.create_task(log.append(0, b"t", b"%d" % number, 0, timeout_s=60)) for number in range(30)]
        await asyncio.sleep(0.05)
        await log.close()
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        again = await place.open()
        stored = {record.offset: record.value for record in await read_all(again, 0)}
        acknowledged = {outcome: b"%d" % n for n, outcome in enumerate(outcomes) if isinstance(outcome, int)}
        assert acknowledged.items() <= stored.items()

    async def test_two_processes_append_to_one_partition_and_a_third_reads_along(self, place):
        log = await place.open()
        children = [place.spawn(name, 0, 60) for name in ("left", "right")]
        seen: list[Record] = []
        mine = 0
        while len(seen) - mine < 120:
            got = await log.read(0, len(seen), max_bytes=MANY, max_wait_s=30)
            assert [record.offset for record in got] == list(range(len(seen), len(seen) + len(got)))
            seen += got
            mine = sum(record.value == b"mine" for record in seen)
            if mine < 20:
                await put(log, 0, b"mine")
        for child in children:
            lines = child.communicate()[0].decode().split("\n")[:-1]
            assert child.returncode == 0
            name = seen[int(lines[0].split()[1])].value.rsplit(b"-")[0]
            offsets = [int(line.split()[1]) for line in lines]
            assert [seen[offset].value for offset in offsets] == [b"%s-%d" % (name, n) for n in range(60)]
        stamps = [record.timestamp_ms for record in seen]
        assert stamps == sorted(stamps)

    @pytest.mark.parametrize("after", [1, 40, 150])
    async def test_kill_9_loses_nothing_acknowledged_and_stores_nothing_twice(self, place, after):
        log = await place.open()
        child = place.spawn("child", 0, 100_000)
        lines = [await asyncio.to_thread(child.stdout.readline) for _ in range(after)]
        child.kill()
        lines += child.communicate()[0].splitlines(keepends=True)
        acknowledged = [tuple(map(int, line.split())) for line in lines if line.endswith(b"\n")]
        assert len(acknowledged) >= after
        await put(log, 0, b"after")
        values = [record.value for record in await read_all(log, 0)]
        assert values.pop() == b"after"
        assert values == [b"child-%d" % number for number in range(len(values))]
        assert [values[offset] for _, offset in acknowledged] == [b"child-%d" % number for number, _ in acknowledged]
