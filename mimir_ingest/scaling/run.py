"""Carries out scaling procedures: looks, asks `plan` for the next step, does it, looks again.

Needs the ring store, the log and the bucket, and no process of the cluster; what has to be consumed and shipped, the
cluster's ingesters do. Interrupted at any point, the next run goes on from what it finds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mimir_ingest.errors import IngestError
from mimir_ingest.ingester.drain import FENCE_S, Drain, DrainProbe, Inactive, is_fenced, observe_inactive
from mimir_ingest.ingester.lease_downscale import deactivate, reactivate
from mimir_ingest.log.contract import PartitionLog
from mimir_ingest.scaling import plan
from mimir_ingest.wire.control import encode_flush
from mimir_ingest.wire.record import VERSION_CONTROL
from partitions.edits import create_partition
from partitions.model import RingDesc
from partitions.watch import RingWatcher

LOOK_S = 1.0
"""Between two looks while something is waited for."""
APPEND_TIMEOUT_S = 30.0

Tell = Callable[[str], None]


class ScalingRefused(IngestError):
    """The procedure would lose data or cannot be done; the message says why."""

    error_id = "scaling-refused"


class ScalingTimeout(IngestError):
    """It did not end in the time allowed; the message says what was waited for."""

    error_id = "scaling-timeout"
    retriable = True


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the procedures work on; all started."""

    watcher: RingWatcher
    log: PartitionLog
    heartbeat_timeout_ms: int
    numbered: bool | None
    """Whether ingesters own the partitions of their numbers; None: judged by the owners' ids."""

    def is_numbered(self, partition: int) -> bool:
        """Tell whether an ingester keeps this partition for as long as it runs."""
        return plan.looks_numbered(self.watcher.desc, partition) if self.numbered is None else self.numbered


async def run_downscale(
    cluster: Cluster,
    drains: DrainProbe,
    partition: int,
    *,
    wait_fixed_ms: int = 0,
    timeout_s: float | None = None,
    tell: Tell = lambda _: None,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    monotonic_s: Callable[[], float] = time.monotonic,
    look_s: float = LOOK_S,
) -> str:
    """Take a partition out of the ring without losing a sample; return what was done.

    Parameters
    ----------
    cluster, drains : where
    partition : number
    wait_fixed_ms : how long it has to be INACTIVE besides (ms), for readers that do not ask what is in blocks
    timeout_s : time allowed (s); None is no bound
    tell : told of each step, and of what is waited for

    Raises ScalingRefused, ScalingTimeout, RingUnavailable, LogUnavailable, StoreUnavailable. Cancelled at any point, it
    can be run again.
    """
    run = _Downscale(cluster, drains, partition, wait_fixed_ms, now_ms, monotonic_s)
    return await _run(run.step, tell, timeout_s, look_s)


async def run_upscale(
    cluster: Cluster,
    partitions: int,
    *,
    timeout_s: float | None = None,
    tell: Tell = lambda _: None,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    look_s: float = LOOK_S,
) -> str:
    """Have the partitions 0 to `partitions - 1` ACTIVE; return what was done. Raises as `run_downscale`."""

    async def step() -> plan.UpscaleStep:
        desc = await cluster.watcher.refresh()
        facts = plan.UpscaleFacts(
            desc=desc,
            partitions=partitions,
            topic_partitions=len(await cluster.log.partitions()),
            numbered=cluster.is_numbered(0),
        )
        return plan.plan_upscale(facts)

    async def act() -> plan.UpscaleStep:
        todo = await step()
        match todo:
            case plan.AddTopicPartitions(total):
                await cluster.log.add_partitions(total)
            case plan.Create(numbers):
                await cluster.watcher.change(
                    lambda desc: [e for number in numbers for e in create_partition(desc, number, now_ms())]
                )
            case plan.Reactivate(number):
                await cluster.watcher.change(lambda desc: reactivate(desc, number, now_ms()))
        return todo

    return await _run(act, tell, timeout_s, look_s)


class _Downscale:
    """One run: what it has seen with its own clock, and whether it asked for a cut."""

    def __init__(
        self,
        cluster: Cluster,
        drains: DrainProbe,
        partition: int,
        wait_fixed_ms: int,
        now_ms: Callable[[], int],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._cluster, self._drains, self._partition = cluster, drains, partition
        self._wait_fixed_ms = wait_fixed_ms
        self._now_ms, self._monotonic_s = now_ms, monotonic_s
        self._inactive: dict[int, Inactive] = {}
        self._cut_for: Inactive | None = None

    async def step(self) -> plan.DownscaleStep:
        """Look, decide, act."""
        desc = await self._cluster.watcher.refresh()
        facts = await self._facts(desc)
        todo = plan.plan_downscale(facts)
        match todo:
            case plan.Deactivate():
                await self._deactivate()
            case plan.AppendCut():
                await self._cluster.log.append(
                    self._partition, b"", encode_flush(), VERSION_CONTROL, timeout_s=APPEND_TIMEOUT_S
                )
                self._cut_for = self._inactive[self._partition]
            case plan.Remove(judged):
                timeout_ms = self._cluster.heartbeat_timeout_ms
                try:
                    await self._cluster.watcher.change(
                        lambda desc: plan.removal(desc, judged, self._now_ms(), timeout_ms)
                    )
                except ValueError as error:
                    raise ScalingRefused(str(error)) from error
        return todo

    async def _facts(self, desc: RingDesc) -> plan.DownscaleFacts:
        number, now_s = self._partition, self._monotonic_s()
        self._inactive = observe_inactive(self._inactive, desc, now_s)
        seen = self._inactive.get(number)
        fenced = is_fenced(self._inactive, number, now_s)
        drain: Drain | None = await self._drains.probe(number) if fenced else None
        return plan.DownscaleFacts(
            desc=desc,
            partition=number,
            fence_left_s=0.0 if seen is None or fenced else seen.since_s + FENCE_S - now_s,
            drain=drain,
            cut_appended=seen is not None and self._cut_for == seen,
            wait_fixed_ms=self._wait_fixed_ms,
            numbered=self._cluster.is_numbered(number),
            heartbeat_timeout_ms=self._cluster.heartbeat_timeout_ms,
            now_ms=self._now_ms(),
        )

    async def _deactivate(self) -> None:
        """Make the partition INACTIVE; take that back if somebody did the same to the other ones just now."""
        desc = await self._cluster.watcher.change(lambda d: deactivate(d, self._partition, self._now_ms()))
        if not plan.other_active(desc, self._partition):
            await self._cluster.watcher.change(lambda d: reactivate(d, self._partition, self._now_ms()))
            raise ScalingRefused(f"partition {self._partition} is the last ACTIVE one now; it stays ACTIVE")


async def _run(act: Callable[[], Awaitable[object]], tell: Tell, timeout_s: float | None, look_s: float) -> str:
    """Act until done; tell what is new. Raises ScalingRefused, ScalingTimeout."""
    waiting_for = "the first look"
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                todo = await act()
                match todo:
                    case plan.Done(summary):
                        return summary
                    case plan.Refuse(reason):
                        raise ScalingRefused(reason)
                    case plan.Wait(reason, asks):
                        waiting_for = reason
                        tell(f"waiting for {reason}" + (f"\n  {asks}" if asks else ""))
                        await asyncio.sleep(look_s)
                    case _:
                        tell(describe(todo))
    except TimeoutError:
        raise ScalingTimeout(
            f"not done within {timeout_s:g} s: waiting for {waiting_for}; run it again to go on"
        ) from None


def describe(step: object) -> str:
    """Say in a sentence what a step did."""
    match step:
        case plan.Deactivate():
            return "the partition is INACTIVE: no new series go there"
        case plan.AppendCut():
            return "a record that cuts everything held was appended"
        case plan.Remove(judged):
            return f"partition {judged.id} was removed from the ring"
        case plan.AddTopicPartitions(total):
            return f"the log has {total} partitions"
        case plan.Create(numbers):
            return f"partitions {', '.join(map(str, numbers))} are in the ring, PENDING"
        case plan.Reactivate(number):
            return f"partition {number} is ACTIVE again"
    return ""
