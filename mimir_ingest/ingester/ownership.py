"""Makes an ingester consume what it should: the shell around `ownership_plan` and `drain`.

    ring changes, or a second passes ─► plan ─► consume · tell the partition lifecycler · give up · append cut records
    now and then                     ─► look at what nobody owns ─► adopt it until it is shipped

The owner entry of a new partition is made by the partition lifecycler, from `own`, once it has caught up. One that was
handed over is still consumed for a while, for readers whose view of the ring is a little older.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from mimir_ingest.errors import IngestError
from mimir_ingest.ingester.consumer import PartitionConsumer
from mimir_ingest.ingester.drain import DrainProbe, Inactive, is_fenced, needs_cut_record, observe_inactive
from mimir_ingest.ingester.ownership_plan import (
    Consumed,
    OwnershipKnobs,
    OwnershipPlan,
    find_ownerless,
    is_adopter,
    plan_ownership,
)
from mimir_ingest.ingester.service import Ingester
from mimir_ingest.log.contract import PartitionLog
from partitions.errors import PartitionError
from partitions.lifecycle import leave
from partitions.watch import RingWatcher

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class OwnershipPace:
    """How often and how long; none of it decides content."""

    look_s: float = 1.0
    """Between two looks when the ring does not change. why: catching up and draining tell nobody."""
    linger_s: float = 10.0
    """How long a partition that was handed over is still served. why: older views of the ring are not used longer."""
    adopt_period_s: float = 60.0
    """Between two looks at partitions that nobody owns, and how long one has to be so before it is adopted."""


class Ownership:
    """Owns the task that decides what an ingester consumes, from `start` to `close`.

    Parameters
    ----------
    watcher : RingWatcher
        Started before, closed after.
    ingester : Ingester
        Started before, closed after; nobody else calls its `own`.
    now_ms, monotonic_s : clocks
    """

    def __init__(
        self,
        watcher: RingWatcher,
        ingester: Ingester,
        partition_log: PartitionLog,
        probe: DrainProbe,
        *,
        knobs: OwnershipKnobs,
        pace: OwnershipPace | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watcher = watcher
        self._ingester = ingester
        self._log = partition_log
        self._probe = probe
        self._knobs = knobs
        self._pace = pace or OwnershipPace()
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self.on_change: Callable[[], None] = lambda: None
        """Called when what `own` returns has changed: the partition lifecycler's `poke`."""
        self.waits_for: str | None = None
        """Why partitions are not owned as they should be at the moment, as a sentence for people, or None."""
        self._own: frozenset[int] = frozenset()
        self._expected: frozenset[int] = frozenset()
        self._seen = watcher.desc
        self._begun = asyncio.Event()
        self._inactive: dict[int, Inactive] = {}
        self._lingering: dict[int, float] = {}
        self._adopted: set[int] = set()
        self._ownerless_since: dict[int, float] = {}
        self._drained: set[int] = set()
        self._flushes: dict[int, int] = {}
        self._adopt_due_s = 0.0
        self._task: asyncio.Task[None] | None = None

    # --- for others -------------------------------------------------------------------------------------------------

    def own(self) -> frozenset[int]:
        """Return the partitions that this instance is, or is to be, registered for: it can answer for them.

        A lease ends with its partition; one that an id names is created again.
        """
        if self._knobs.own_partition is not None:
            return self._own
        return self._own & self._watcher.desc.partitions.keys()

    def expected(self) -> frozenset[int]:
        """Return the partitions that this instance is to be registered for, caught up or not."""
        return self._expected

    def needed(self) -> frozenset[int]:
        """Return the partitions that must stay in the ring: nobody owns them, and they may hold what is in no block."""
        desc = self._watcher.desc
        return frozenset(p for p in desc.partitions if not desc.owners_of(p)) - self._drained

    def fenced(self, partition: int) -> bool:
        """Tell whether a partition was INACTIVE so long that nothing is acknowledged to it any more."""
        return is_fenced(self._inactive, partition, self._monotonic_s())

    async def start(self) -> None:
        """Wait until the ring has this instance, then decide in the background; `wait_begun` tells when it began."""
        desc = self._watcher.desc
        while self._knobs.instance not in desc.instances("ingester"):
            desc = await self._watcher.changed(desc)
        self._task = asyncio.create_task(self._run(), name="partition-ownership")

    async def wait_begun(self) -> None:
        """Return once what is to be owned at first is being consumed."""
        await self._begun.wait()

    async def close(self) -> None:
        """Decide nothing any more; what is consumed goes on. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            try:
                await self._decide()
                self._begun.set()
                if self._monotonic_s() >= self._adopt_due_s:
                    self._adopt_due_s = self._monotonic_s() + self._pace.adopt_period_s
                    await self._look_for_ownerless()
                self.waits_for = None
            except (IngestError, PartitionError) as error:
                self.waits_for = error.message
                log.warning("partitions could not be owned as they should; it is tried again", reason=error.message)
            except Exception as error:  # outermost wrapper of the task
                self.waits_for = f"unexpected error: {error!r}"
                log.exception("deciding on partitions failed; it is tried again")
            await self._pause()

    async def _pause(self) -> None:
        """Wait until it is time for another look, or the ring changes; not less than a moment, for that is often."""
        await asyncio.sleep(self._pace.look_s / 5)
        try:
            async with asyncio.timeout(self._pace.look_s):
                await self._watcher.changed(self._seen)
        except TimeoutError:
            return
        except PartitionError:  # the watcher is closed
            await asyncio.sleep(self._pace.look_s)

    # --- owning -----------------------------------------------------------------------------------------------------

    async def _decide(self) -> None:
        desc, now_s = self._watcher.desc, self._monotonic_s()
        self._seen = desc
        self._inactive = observe_inactive(self._inactive, desc, now_s)
        consumers = {p: c for p in self._ingester.owned if (c := self._ingester.consumer(p)) is not None}
        consumed = {p: _consumed(c) for p, c in consumers.items()}
        plan = plan_ownership(desc, self._knobs, consumed, self._now_ms())
        self._lingering = {p: until for p, until in self._lingering.items() if until > now_s}
        await self._consume(plan.consume | self._lingering.keys() | self._adopted)
        self._adopted.clear()
        self._expected = plan.consume - plan.ship
        if plan.own != self._own:
            self._own = plan.own
            self.on_change()
        if plan.release:
            await self._release(plan, now_s)
        await self._append_cut_records(consumers, consumed, plan, now_s)

    async def _consume(self, partitions: frozenset[int]) -> None:
        if partitions == self._ingester.owned and self._begun.is_set():
            return
        if partitions and max(partitions) not in await self._log.partitions():
            await self._log.add_partitions(max(partitions) + 1)
        gone = self._ingester.owned - partitions
        if gone or partitions - self._ingester.owned:
            log.info(
                "partitions change hands",
                begins=sorted(partitions - self._ingester.owned),
                ends=sorted(gone),
                consumes=len(partitions),
            )
        await self._ingester.own(partitions)
        self._flushes = {p: offset for p, offset in self._flushes.items() if p in partitions}

    async def _release(self, plan: OwnershipPlan, now_s: float) -> None:
        """Remove owner entries; what others own now is served a little longer."""
        self._lingering |= dict.fromkeys(plan.release & self._ingester.owned, now_s + self._pace.linger_s)
        await self._watcher.change(
            lambda desc: leave(desc, self._knobs.instance, self._now_ms(), partitions=plan.release)
        )
        log.info("partitions were given up", partitions=sorted(plan.release))

    async def _append_cut_records(
        self,
        consumers: dict[int, PartitionConsumer],
        consumed: dict[int, Consumed],
        plan: OwnershipPlan,
        now_s: float,
    ) -> None:
        """Have what is on its way out shipped now, and not when the partition was idle for an hour."""
        for partition, consumer in consumers.items():
            state = consumer.state
            if state is None or not consumed[partition].caught_up:
                continue
            if needs_cut_record(
                fenced=partition in plan.ship or is_fenced(self._inactive, partition, now_s),
                next_offset=state.next_offset,
                unshipped=consumed[partition].unshipped,
                settled=state.settled,
                last_flush_offset=self._flushes.get(partition),
            ):
                self._flushes[partition] = await consumer.append_flush(None)
                log.info("a partition on its way out is cut", partition=partition, offset=self._flushes[partition])

    # --- what nobody owns -------------------------------------------------------------------------------------------

    async def _look_for_ownerless(self) -> None:
        """Find partitions that nobody owns; adopt, for as long as that takes, what of them is in no block."""
        desc, now_s = self._watcher.desc, self._monotonic_s()
        topic = set(await self._log.partitions())
        ownerless = find_ownerless(desc, topic, self._knobs, self._now_ms()) - self._ingester.owned
        self._ownerless_since = {p: self._ownerless_since.get(p, now_s) for p in ownerless}
        nowhere = desc.partitions.keys() - topic  # in the ring alone: there are no records of it
        self._drained = (self._drained & ownerless) | nowhere
        timeout_ms = self._knobs.heartbeat_timeout_ms
        for partition in sorted(ownerless):
            mine = is_adopter(desc, partition, self._knobs.instance, self._now_ms(), timeout_ms)
            if mine or partition in desc.partitions:
                await self._look_at(partition, adopt=mine and self._ownerless_for(partition, now_s))

    def _ownerless_for(self, partition: int, now_s: float) -> bool:
        return now_s - self._ownerless_since[partition] >= self._pace.adopt_period_s

    async def _look_at(self, partition: int, *, adopt: bool) -> None:
        try:
            drain = await self._probe.probe(partition)
        except IngestError as error:
            log.warning("a partition that nobody owns cannot be judged", partition=partition, reason=error.message)
            self._drained.discard(partition)
            return
        if drain.drained:
            self._drained.add(partition)
            return
        self._drained.discard(partition)
        if adopt:
            log.warning(
                "a partition that nobody owns has records that are in no block; they are shipped now",
                partition=partition,
                cut_offset=drain.cut_offset,
                end_offset=drain.end_offset,
            )
            self._adopted.add(partition)


def _consumed(consumer: PartitionConsumer) -> Consumed:
    state = consumer.state
    if state is None or not consumer.caught_up:
        return Consumed(caught_up=False, unshipped=True)
    return Consumed(caught_up=True, unshipped=bool(state.held_count or state.applied_since_cut) or not state.settled)
