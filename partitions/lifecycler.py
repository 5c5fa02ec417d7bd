"""Shells that keep a process's own entries in the ring: its instance, and the partitions that it owns.

    InstanceLifecycler    PENDING ─► JOINING ─► ACTIVE ─► LEAVING ─► gone, or kept as LEAVING; a heartbeat now and then
    PartitionLifecycler   every few seconds, and at once when the ring changes: lifecycle.step ─► RingWatcher.change

Both only report and retry: while the ring store does not answer, the process goes on with what it knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import replace

import structlog

from partitions import edits
from partitions.errors import PartitionError, RingUnavailable
from partitions.lifecycle import LifecycleKnobs, leave, step
from partitions.model import Entry, InstanceDesc, InstanceState, OwnerDesc, PartitionDesc, RingDesc
from partitions.watch import RingWatcher

RETRY_S = 1.0
"""Pause after a change of the ring that failed."""
POLL_S = 5.0
"""How often the partitions are looked at when nothing changes (spec, section 4.4)."""
OWNED_PARTITION, OTHER_PARTITIONS = "owned-partition", "other-partitions"
"""Kinds of reconciles, values of the label `type` of cortex_partition_ring_lifecycler_reconciles_total."""

log = structlog.get_logger()


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


def _ignore(*_: object) -> None:
    """Take no notice."""


class InstanceLifecycler:
    """Keeps one process's entry in an instance ring, from `start` to `close`.

    Parameters
    ----------
    watcher : RingWatcher
        Started before, closed after.
    me : InstanceDesc
        Ring, id, address and zone; times, version and flags are not looked at.
    heartbeat_period_s : float
        `ring.heartbeat_period`; 0 is none.
    forget_after_ms : int
        Silence (ms) after which this process removes others of the ring with its own heartbeat; 0 is never.
    now_ms : callable
        Wall clock (ms since the Unix epoch).
    on_heartbeat : callable
        Told after each heartbeat whether it reached the ring.
    """

    def __init__(
        self,
        watcher: RingWatcher,
        me: InstanceDesc,
        *,
        heartbeat_period_s: float = 15.0,
        forget_after_ms: int = 0,
        now_ms: Callable[[], int] = _wall_clock_ms,
        on_heartbeat: Callable[[bool], None] = _ignore,
    ) -> None:
        self._watcher = watcher
        self._me = me
        self._heartbeat_period_s = heartbeat_period_s
        self._forget_after_ms = forget_after_ms
        self._now_ms = now_ms
        self._on_heartbeat = on_heartbeat
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> InstanceState:
        """The state that this process says it is in."""
        return self._me.state

    @property
    def registered(self) -> InstanceDesc | None:
        """The entry as the ring has it; None if it has none."""
        return self._watcher.desc.instances(self._me.ring).get(self._me.id)

    async def start(self, state: InstanceState = InstanceState.PENDING) -> None:
        """Register in a state, then keep the heartbeat going; waits for a ring store that does not answer."""
        self._me = replace(self._me, state=state)
        while True:
            if await self._beat():
                break
            await asyncio.sleep(RETRY_S)
        self._task = asyncio.create_task(self._run(), name=f"ring-heartbeat-{self._me.ring}")

    async def switch(self, state: InstanceState) -> None:
        """Change the state; returns once the ring shows it.

        Raises RingUnavailable or RingConflict when that fails now; the next heartbeat carries the state all the same.
        """
        self._me = replace(self._me, state=state)
        await self._change()

    async def close(self, *, unregister: bool) -> None:
        """End the heartbeat; take the entry out of the ring, or leave it as it is. Idempotent; never fails for long."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        if unregister:
            try:
                await self._watcher.change(
                    lambda desc: edits.unregister_instance(desc, self._me.ring, self._me.id, self._now_ms())
                )
            except PartitionError as error:
                log.warning("the instance stays in the ring, which could not be changed", reason=error.message)

    async def _run(self) -> None:
        pause_s = self._heartbeat_period_s or None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    if not await self._forgotten():
                        return
                    log.warning("this instance was forgotten, it registers again", ring=self._me.ring, id=self._me.id)
            reached = await self._beat()
            pause_s = self._heartbeat_period_s or None
            if not reached:
                await asyncio.sleep(RETRY_S)
                pause_s = 0.0

    async def _forgotten(self) -> bool:
        """Wait until the ring does not have this instance; False when there will be no newer view."""
        try:
            while self.registered is not None:
                await self._watcher.changed(self._watcher.desc)
        except RingUnavailable:
            return False
        return True

    async def _beat(self) -> bool:
        try:
            await self._change()
        except PartitionError as error:
            log.warning("a heartbeat did not reach the ring", ring=self._me.ring, reason=error.message)
            self._on_heartbeat(False)
            return False
        self._on_heartbeat(True)
        return True

    async def _change(self) -> None:
        def edit(desc: RingDesc) -> list[Entry]:
            now_ms = self._now_ms()
            silent = edits.forget_silent(desc, self._me.ring, self._forget_after_ms, now_ms)
            return [*(entry for entry in silent if entry.id != self._me.id), *edits.heartbeat(desc, self._me, now_ms)]

        await self._watcher.change(edit)


class PartitionLifecycler:
    """Keeps an ingester's partitions in the ring as they should be, from `start` to `close`.

    Parameters
    ----------
    watcher : RingWatcher
        Started before, closed after.
    instance : str
        Own instance id.
    own : callable
        Returns the partitions that it owns now: caught up, so that it can answer for them. Call `poke` on a change.
    needed : callable
        Returns the partitions that must not be removed yet: the log holds records of them past their checkpoint.
    knobs : LifecycleKnobs
        Settings; may be replaced at any time.
    poll_s : float
        How often to look when nothing changes.
    now_ms : callable
        Wall clock (ms since the Unix epoch).
    on_reconcile : callable
        Told of each reconcile: its kind (OWNED_PARTITION or OTHER_PARTITIONS) and whether it succeeded.
    """

    def __init__(
        self,
        watcher: RingWatcher,
        instance: str,
        *,
        own: Callable[[], Collection[int]],
        needed: Callable[[], Collection[int]] = tuple,
        knobs: LifecycleKnobs | None = None,
        poll_s: float = POLL_S,
        now_ms: Callable[[], int] = _wall_clock_ms,
        on_reconcile: Callable[[str, bool], None] = _ignore,
    ) -> None:
        self._watcher = watcher
        self._instance = instance
        self._own = own
        self._needed = needed
        self.knobs = knobs or LifecycleKnobs()
        """Settings; taken up by the next step."""
        self.remove_owner_on_shutdown = False
        """Whether `close` takes the instance from the owners of its partitions."""
        self._poll_s = poll_s
        self._now_ms = now_ms
        self._on_reconcile = on_reconcile
        self._task: asyncio.Task[None] | None = None
        self._poked = asyncio.Event()

    def start(self) -> None:
        """Begin; the first step is made at once. Call it when the instance is ACTIVE in its ring."""
        self._task = asyncio.create_task(self._run(), name="partition-lifecycler")

    def poke(self) -> None:
        """Look at once: what `own` or `needed` returns has changed."""
        self._poked.set()

    async def reconcile(self) -> bool:
        """Make one step; return whether the ring is now as it should be. Costs nothing when it is already."""
        touched: set[str] = set()

        def edit(desc: RingDesc) -> list[Entry]:
            own = self._own()
            wanted = step(desc, self._instance, own, self.knobs, self._now_ms(), needed=self._needed())
            touched.update(OWNED_PARTITION if _number(entry) in own else OTHER_PARTITIONS for entry in wanted)
            return wanted

        failed: set[str] = set()
        if edit(self._watcher.desc):
            try:
                await self._watcher.change(edit)
            except PartitionError as error:
                log.warning("the partition ring could not be brought up to date", reason=error.message)
                failed = touched
        for kind in (OWNED_PARTITION, OTHER_PARTITIONS):
            self._on_reconcile(kind, kind not in failed)
        return not failed

    async def close(self) -> None:
        """Stop; give up the partitions if `remove_owner_on_shutdown` is set. Idempotent; never fails for long."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        if self.remove_owner_on_shutdown:
            try:
                await self._watcher.change(lambda desc: leave(desc, self._instance, self._now_ms()))
            except PartitionError as error:
                log.warning("the instance stays an owner, the ring could not be changed", reason=error.message)

    async def _run(self) -> None:
        while True:
            self._poked.clear()
            seen = self._watcher.desc
            if not await self.reconcile():
                await asyncio.sleep(min(RETRY_S, self._poll_s))
            waiting = [
                asyncio.ensure_future(self._watcher.changed(seen)),
                asyncio.ensure_future(self._poked.wait()),
            ]
            try:
                await asyncio.wait(waiting, timeout=self._poll_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()
                outcomes = await asyncio.gather(*waiting, return_exceptions=True)
            if isinstance(outcomes[0], RingUnavailable):  # the watcher is closed
                return


def _number(entry: Entry) -> int | None:
    """Return the partition that an entry is about."""
    if isinstance(entry, PartitionDesc):
        return entry.id
    return entry.partition if isinstance(entry, OwnerDesc) else None
