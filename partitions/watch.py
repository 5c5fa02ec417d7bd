"""Follows the ring store, keeps the newest view of the ring, and changes it.

    store ─► follow ─► desc, ring                        swapped whole; who holds one keeps it unchanged
    change ─► edit(desc) ─► stamp ─► append ─► own record read back ─► does the join show it? else edit again

While the store does not answer, the view stays and `confirmed_s` grows old; whoever must not act on an old view looks
at that. See architecture, section 6; decisions are in `merge`, `replica` and `upkeep`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping

import structlog

from partitions.clock import HybridClock
from partitions.codec import encode
from partitions.errors import RingConflict, RingUnavailable
from partitions.follow import Expected, RingFollower
from partitions.kv.contract import RingRecord, RingStore
from partitions.merge import stamp
from partitions.model import Entry, RingDesc, Version
from partitions.ring import PartitionRing
from partitions.upkeep import plan_upkeep

TIMEOUT_S = 10.0
"""How long a refresh or a change waits for the view to contain what was written."""
ATTEMPTS = 10
# why: each attempt fails only because somebody else changed the same register meanwhile.
UPKEEP_S, UPKEEP_PAUSE_S = 60.0, 1.0
"""How often the store is tidied, and the least time between two rounds when something is lacking in it."""

log = structlog.get_logger()


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class RingWatcher:
    """One process's view of the ring. Owns the store from `start` to `close`; used from one event loop.

    Parameters
    ----------
    store : RingStore
        Not started, and nobody else's.
    writer : str
        Name that this process writes under: its instance id.
    now_ms : callable
        Wall clock (ms since the Unix epoch).
    monotonic_s : callable
        Clock of `confirmed_s` (s).
    heartbeat_timeout_ms : int
        Age of a heartbeat (ms) above which upkeep takes an instance for dead; 0 is never.
    members : callable, optional
        The document that has the writers' instances, when they are kept in another store.
    """

    def __init__(
        self,
        store: RingStore,
        *,
        writer: str,
        now_ms: Callable[[], int] = _wall_clock_ms,
        monotonic_s: Callable[[], float] = time.monotonic,
        heartbeat_timeout_ms: int = 60_000,
        members: Callable[[], RingDesc] | None = None,
    ) -> None:
        self._writer = writer
        self._now_ms = now_ms
        self._heartbeat_timeout_ms = heartbeat_timeout_ms
        self._members = members or (lambda: self.desc)
        self._clock = HybridClock(writer)
        self._ring = PartitionRing.build({})
        self._states: Mapping = {}
        self._follower = RingFollower(store, monotonic_s=monotonic_s, publish=self._on_desc)
        self._changing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def desc(self) -> RingDesc:
        """The newest document: immutable, replaced when something changes."""
        return self._follower.desc

    @property
    def ring(self) -> PartitionRing:
        """The tokens of the newest document's partitions: immutable, replaced when a partition changes."""
        return self._ring

    @property
    def confirmed_s(self) -> float:
        """Monotonic time (s) of the newest question for the store's end that the view is known to contain; renewed
        about every second; -inf before the first time.
        """
        return self._follower.confirmed_s

    @property
    def writer(self) -> str:
        """Name that this process writes under."""
        return self._writer

    @property
    def slots(self) -> Mapping[str, Mapping[str, Entry]]:
        """What the store holds, by key and writer, tombstones included; for pages that show it."""
        return self._follower.replica.slots

    @property
    def waits_for(self) -> str | None:
        """Why the view is not confirmed at the moment, as a sentence for people, or None."""
        return self._follower.waits_for

    async def start(self) -> None:
        """Open the store and read it to its end; waits with back-off for one that is down. Cancellable.

        Raises RingUnavailable for what waiting cannot mend.
        """
        following = asyncio.create_task(self._follower.run(), name="ring-watcher")
        self._tasks.append(following)
        first = asyncio.ensure_future(self._follower.reach(0))
        try:
            await asyncio.wait([following, first], return_when=asyncio.FIRST_COMPLETED)
        finally:
            first.cancel()
        if following.done():
            await self.close()
            following.result()
        following.add_done_callback(self._on_end)
        self._tasks.append(asyncio.create_task(self._keep_up(), name="ring-upkeep"))

    async def close(self) -> None:
        """Stop following and close the store. Waiting calls raise RingUnavailable. Idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._follower.close()

    async def refresh(self, *, timeout_s: float = TIMEOUT_S) -> RingDesc:
        """Return a view that contains everything the store held when this was called; `confirmed_s` is renewed.

        Raises RingUnavailable when the store does not answer in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._follower.refresh()
        except TimeoutError:
            raise RingUnavailable(f"the ring store was not read to its end within {timeout_s:g} s") from None
        return self.desc

    async def change(self, edit: Callable[[RingDesc], Iterable[Entry]], *, timeout_s: float = TIMEOUT_S) -> RingDesc:
        """Change the ring; return the newest view once the own records were read back and the join showed the change.

        Where others' newer versions win, `edit` is called again with the newer document. Changes of one watcher are
        made one after the other. Cancelled or failed, a change may still appear later.

        Parameters
        ----------
        edit : callable
            Takes the newest document, returns the entries as they should be; their versions are not looked at. What it
            raises, refusals, goes to the caller, and nothing is written.
        timeout_s : float
            For each attempt.

        Raises
        ------
        RingUnavailable
            The store does not answer in time.
        RingConflict
            Others won every time.
        """
        async with self._changing:
            for _ in range(ATTEMPTS):
                desc = await self.refresh(timeout_s=timeout_s)
                version = self._clock.next(self._now_ms(), desc.newest)
                wanted = {entry.key: entry for entry in edit(desc)}
                stamped = [stamp(desc.entries.get(key), entry, version) for key, entry in wanted.items()]
                if await self._append([entry for entry in stamped if entry is not None], version, timeout_s):
                    return self.desc
        raise RingConflict(f"others changed the ring {ATTEMPTS} times while this change was tried")

    async def wait_for(self, predicate: Callable[[RingDesc], bool], timeout_s: float) -> RingDesc:
        """Return the first view for which the predicate holds. Raises TimeoutError, and RingUnavailable when closed."""
        async with asyncio.timeout(timeout_s):
            while not predicate(self.desc):
                await self._follower.moved()
            return self.desc

    async def changed(self, seen: RingDesc) -> RingDesc:
        """Return the newest view once it is another one than `seen`. Raises RingUnavailable when closed."""
        while self.desc is seen:
            await self._follower.moved()
        return self.desc

    async def upkeep(self) -> int:
        """Repair and tidy the store now, which also happens every minute; return the number of records written.

        Raises RingUnavailable.
        """
        async with self._changing:
            await self.refresh()
            replica = self._follower.replica
            records = plan_upkeep(
                replica, self._writer, self._now_ms(), self._heartbeat_timeout_ms, members=self._members()
            )
            if records:
                await self._follower.append(records)
            return len(records)

    async def _append(self, entries: list[Entry], version: Version, timeout_s: float) -> bool:
        """Write a change's entries; return whether the join showed them when they were read back."""
        if not entries:
            return True
        records = [RingRecord(entry.key, self._writer, encode(entry)) for entry in entries]
        unread = {(record.key, record.value) for record in records}
        expected = self._follower.expected = Expected(self._writer, version, entries, unread)
        try:
            async with asyncio.timeout(timeout_s):
                await self._follower.reach(await self._follower.append(records))
        except TimeoutError:
            raise RingUnavailable(f"a change of the ring was not read back within {timeout_s:g} s") from None
        finally:
            self._follower.expected = None
        if (
            expected.shown is None
        ):  # another process of this name wrote the same entries, and its records took the place
            expected.judge(self.desc)
        return bool(expected.shown)

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(UPKEEP_S):
                    await self._follower.due.wait()
            self._follower.due.clear()
            with contextlib.suppress(RingUnavailable):  # why: the next round does it
                await self.upkeep()

    def _on_desc(self, desc: RingDesc) -> None:
        if desc.states != self._states:
            self._states = desc.states
            self._ring = PartitionRing.build(desc.states)

    def _on_end(self, following: asyncio.Task[None]) -> None:
        if not following.cancelled() and (error := following.exception()) is not None:
            self._follower.waits_for = f"the ring watcher ended with {type(error).__name__}: {error}"
            log.error("the ring watcher ended", exc_info=error)
