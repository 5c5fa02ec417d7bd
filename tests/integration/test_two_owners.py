"""Two ingesters of one log and bucket that cut the same partitions at once: each block is stored once, in effect."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import suppress

import pytest

from mimir_ingest.bucket.store import Bucket
from mimir_ingest.log.embedded import EmbeddedLog
from tests.support.ingester_world import World, held, row
from tests.support.partition_log import files_of

PARTITIONS = 2
CUTS = 4


class RacingBucket(Bucket):
    """Two writers of an object meet there: neither goes on before both are about to write it, or a while has passed."""

    def __init__(self, url: str, meetings: dict[str, threading.Barrier], written: Counter) -> None:
        super().__init__(url)
        self._meetings, self._written = meetings, written

    def write_atomic(self, path, data):
        barrier = self._meetings.setdefault(path, threading.Barrier(2, timeout=0.5))
        with suppress(threading.BrokenBarrierError):  # the other one found it written, or wrote it before
            barrier.wait()
        self._written[path] += 1
        super().write_atomic(path, data)


async def fill(world: World, ingesters) -> list[tuple[str, int]]:
    """Push over some ranges, so that record time cuts; return (series, time) of all samples."""
    pushed = []
    for _ in range(CUTS):
        for i in range(3):
            world.clock.now_ms += 20_000
            for partition in range(PARTITIONS):
                at = world.clock.now_ms - 7 * i
                await world.push([row(2 * i + partition, at)], partition=partition)
                pushed.append((str(2 * i + partition), at))
    for ingester in ingesters:
        for partition in range(PARTITIONS):
            await ingester.wait_consumed(partition, await world.log.end_offset(partition), 60)
    await asyncio.gather(*(ingester.flush(None, wait=True) for ingester in ingesters))
    return pushed


@pytest.fixture
async def worlds(tmp_path):
    found = []
    for name in ("alone", "racing"):
        world = World(tmp_path / name)
        world.log = EmbeddedLog(tmp_path / name / "log", partitions=PARTITIONS, clock_ms=world.clock)
        await world.log.start()
        found.append(world)
    yield found
    for world in found:
        await world.log.close()


async def test_owners_that_race_for_every_object_leave_what_one_owner_leaves(worlds):
    alone, racing = worlds
    racing.log._topic_id = alone.log.topic_id  # the same log, as it were: block names hash the topic's identity
    meetings: dict[str, threading.Barrier] = {}
    written: Counter = Counter()
    async with alone.ingester() as ingester:
        pushed = await fill(alone, [ingester])
    url = racing.bucket.url
    one = racing.ingester(
        snapshot_folder=racing.folder / "a", bucket=RacingBucket(url, meetings, written), ship_concurrency=2
    )
    two = racing.ingester(
        snapshot_folder=racing.folder / "b", bucket=RacingBucket(url, meetings, written), ship_concurrency=2
    )
    async with one as first, two as second:
        assert await fill(racing, [first, second]) == pushed
        assert max(written.values()) >= 2
        stored = sorted((labels["i"], at) for s in racing.blocks().values() for labels, points in s for at, _ in points)
        assert stored == sorted(pushed)
        async with asyncio.timeout(120):
            while await held(first) or await held(second):  # noqa: ASYNC110 - letting go tells nobody
                await asyncio.sleep(0.02)
        assert first.cuts("a") == second.cuts("a")
    assert files_of(racing.folder / "bucket") == files_of(alone.folder / "bucket")
