"""Follows the ring store, keeps the newest view of the ring, and changes it.

    store ─► read ─► Replica (join) ─► desc, ring        swapped whole; who holds one keeps it unchanged
    change ─► edit(desc) ─► stamp ─► append ─► own record read back ─► does the join show it? else edit again

While the store does not answer, the view stays and `confirmed_s` grows old; whoever must not act on an old view looks
at that. A store that was made anew, or has lost its end, is read again from its start and gets back what is missing in
it. See architecture, section 6; decisions are in `merge`, `replica` and `upkeep`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from partitions.clock import HybridClock
from partitions.codec import encode
from partitions.errors import RingConflict, RingPositionLost, RingUnavailable
from partitions.kv.contract import RingRecord, RingStore
from partitions.merge import shows, stamp
from partitions.model import Entry, RingDesc, Version
from partitions.replica import Replica
from partitions.ring import PartitionRing
from partitions.upkeep import plan_upkeep

CONFIRM_S = 1.0
"""How often an unchanged view is confirmed; a tenth of the distributors' fence."""
TIMEOUT_S = 10.0
"""How long a refresh or a change waits for the view to contain what was written."""
_ATTEMPTS = 10
# why: each attempt fails only because somebody else changed the same register meanwhile.
_BACK_OFF_S = (0.1, 2.0)
_STALLED_S = 10.0
# why: an open reader that gets nothing for so long, although there is something, is replaced.
_FORGOTTEN_S = 3600.0
# why: nulls are kept for some hours only; after a longer silence some may be missed, so the store is read anew.
_UPKEEP_S = 60.0

log = structlog.get_logger()
Edit = Callable[[RingDesc], Iterable[Entry]]


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(eq=False)
class _Pending:
    """A change that waits to be read back."""

    version: Version
    stamped: list[Entry]
    unread: set[tuple[str, bytes]] = field(default_factory=set)
    """Key and value of the records that were not read back yet."""
    shown: bool | None = None
    """Whether the join showed the change when its last record was read."""

    def judge(self, desc: RingDesc) -> None:
        """Look whether the document shows the change."""
        self.shown = all(shows(desc.entries.get(entry.key), entry, self.version) for entry in self.stamped)


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
    """

    def __init__(
        self,
        store: RingStore,
        *,
        writer: str,
        now_ms: Callable[[], int] = _wall_clock_ms,
        monotonic_s: Callable[[], float] = time.monotonic,
        heartbeat_timeout_ms: int = 60_000,
    ) -> None:
        self._store = store
        self._writer = writer
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._heartbeat_timeout_ms = heartbeat_timeout_ms
        self._clock = HybridClock(writer)
        self._replica = Replica()
        self._position = 0
        self._read_s = float("inf")
        self._catching_up = True
        self._desc = RingDesc()
        self._ring = PartitionRing.build({})
        self._confirmed_s = float("-inf")
        self._waits_for: str | None = None
        self._closed = False
        self._tasks: list[asyncio.Task[None]] = []
        self._moved = _Signal()
        self._pending: _Pending | None = None
        self._changing = asyncio.Lock()
        self._asking = asyncio.Lock()
        self._queued_end: asyncio.Task[tuple[float, int]] | None = None
        self._upkeep_due = asyncio.Event()

    @property
    def desc(self) -> RingDesc:
        """The newest document: immutable, replaced when something changes."""
        return self._desc

    @property
    def ring(self) -> PartitionRing:
        """The tokens of the newest document's partitions: immutable, replaced when a partition changes."""
        return self._ring

    @property
    def confirmed_s(self) -> float:
        """Monotonic time (s) at which the store ended where the view now ends or before; -inf before the first time."""
        return self._confirmed_s

    @property
    def writer(self) -> str:
        """Name that this process writes under."""
        return self._writer

    @property
    def slots(self) -> Mapping[str, Mapping[str, Entry]]:
        """What the store holds, by key and writer, tombstones included; for pages that show it."""
        return self._replica.slots

    @property
    def waits_for(self) -> str | None:
        """Why the view is not confirmed at the moment, as a sentence for people, or None."""
        return self._waits_for

    async def start(self) -> None:
        """Open the store and read it to its end; waits with back-off for one that is down. Cancellable.

        Raises RingUnavailable for what waiting cannot mend.
        """
        follower = asyncio.create_task(self._follow(), name="ring-watcher")
        self._tasks.append(follower)
        while self._confirmed_s == float("-inf"):
            moved = asyncio.ensure_future(self._moved.wait())
            try:
                await asyncio.wait([follower, moved], return_when=asyncio.FIRST_COMPLETED)
            finally:
                moved.cancel()
            if follower.done():
                await self.close()
                follower.result()
        follower.add_done_callback(self._on_end)
        self._tasks.append(asyncio.create_task(self._keep_up(), name="ring-upkeep"))

    async def close(self) -> None:
        """Stop following and close the store. Waiting calls raise RingUnavailable. Idempotent."""
        self._closed = True
        self._moved.set()
        tasks, self._tasks = self._tasks, []
        if self._queued_end is not None:
            tasks.append(self._queued_end)  # type: ignore[arg-type]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._store.close()

    async def refresh(self, *, timeout_s: float = TIMEOUT_S) -> RingDesc:
        """Return a view that contains everything the store held when this was called; `confirmed_s` is renewed.

        Raises RingUnavailable when the store does not answer in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                asked_s, end = await self._ask_end()
                while not self._contains(end):
                    await self._next_move()
        except TimeoutError:
            raise RingUnavailable(f"the ring store was not read to its end within {timeout_s:g} s") from None
        self._confirm(asked_s)
        return self._desc

    async def change(self, edit: Edit, *, timeout_s: float = TIMEOUT_S) -> RingDesc:
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
            for _ in range(_ATTEMPTS):
                desc = await self.refresh(timeout_s=timeout_s)
                version = self._clock.next(self._now_ms(), desc.newest)
                wanted = {entry.key: entry for entry in edit(desc)}
                stamped = [stamp(desc.entries.get(key), entry, version) for key, entry in wanted.items()]
                if await self._append([entry for entry in stamped if entry is not None], version, timeout_s):
                    return self._desc
        raise RingConflict(f"others changed the ring {_ATTEMPTS} times while this change was tried")

    async def wait_for(self, predicate: Callable[[RingDesc], bool], timeout_s: float) -> RingDesc:
        """Return the first view for which the predicate holds. Raises TimeoutError, and RingUnavailable when closed."""
        async with asyncio.timeout(timeout_s):
            while not predicate(self._desc):
                await self._next_move()
        return self._desc

    async def changed(self, seen: RingDesc) -> RingDesc:
        """Return the newest view once it is another one than `seen`. Raises RingUnavailable when closed."""
        while self._desc is seen:
            await self._next_move()
        return self._desc

    async def upkeep(self) -> int:
        """Repair and tidy the store now, which also happens every minute; return the number of records written.

        Raises RingUnavailable.
        """
        async with self._changing:
            await self.refresh()
            records = plan_upkeep(self._replica, self._writer, self._now_ms(), self._heartbeat_timeout_ms)
            if records:
                await self._store.append(records)
            return len(records)

    async def _append(self, entries: list[Entry], version: Version, timeout_s: float) -> bool:
        """Write a change's entries; return whether the join showed them when they were read back."""
        if not entries:
            return True
        records = [RingRecord(entry.key, self._writer, encode(entry)) for entry in entries]
        pending = _Pending(version, entries, {(record.key, record.value) for record in records})  # type: ignore[misc]
        self._pending = pending
        try:
            async with asyncio.timeout(timeout_s):
                end = await self._store.append(records)
                while not self._contains(end):
                    await self._next_move()
        except TimeoutError:
            raise RingUnavailable(f"a change of the ring was not read back within {timeout_s:g} s") from None
        finally:
            self._pending = None
        if pending.shown is None:  # another process of this name wrote the same entries, and theirs took the place
            pending.judge(self._desc)
        return bool(pending.shown)

    async def _follow(self) -> None:
        """Read for ever. Ends only before the first view, with what waiting cannot mend."""
        pause_s = _BACK_OFF_S[0]
        is_open = False
        while True:
            try:
                if not is_open:
                    await self._store.start()
                    is_open = True
                await self._catch_up()
                pause_s = _BACK_OFF_S[0]
                await self._read(CONFIRM_S)
                continue
            except RingPositionLost as error:
                log.error("the ring store has lost records, it is read anew", reason=error.message)
                self._start_over(knowing=self._desc)
            except _Stalled as error:
                self._report(error.message)
                await self._store.close()
                is_open = False
            except RingUnavailable as error:
                if not error.retriable and self._confirmed_s == float("-inf"):
                    raise
                self._report(error.message)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _BACK_OFF_S[1])

    async def _catch_up(self) -> None:
        asked_s, end = await self._ask_end()
        heard_s = self._monotonic_s()
        while self._position < end:
            before = self._position
            await self._read(CONFIRM_S)
            if self._position > before:
                heard_s = self._monotonic_s()
            elif self._monotonic_s() - heard_s > _STALLED_S:
                raise _Stalled(f"the ring store ends at {end}, but gives nothing from {before} on")
        self._catching_up = False
        self._publish()
        self._confirm(asked_s)
        self._report(None)

    def _start_over(self, *, knowing: RingDesc) -> None:
        """Read from the start with a new replica; the view stays until that has caught up."""
        self._replica = Replica()
        self._replica.desc = knowing
        self._position = 0
        self._catching_up = True
        self._upkeep_due.set()

    async def _read(self, max_wait_s: float) -> None:
        records, position = await self._store.read(self._position, max_wait_s=max_wait_s)
        silent_s, self._read_s = self._monotonic_s() - self._read_s, self._monotonic_s()
        if self._position and silent_s > _FORGOTTEN_S:
            log.warning("the ring was not read for long, it is read anew", silent_s=round(silent_s))
            self._start_over(knowing=RingDesc())
            return
        after = 0
        if (pending := self._pending) is not None and pending.shown is None:
            for number, record in enumerate(records, start=1):
                if record.writer == self._writer and record.value is not None:
                    pending.unread.discard((record.key, record.value))
                if not pending.unread:
                    after = number
                    self._join(records[:after])
                    pending.judge(self._replica.desc)
                    break
        self._join(records[after:])
        self._position = position
        if not self._catching_up:
            self._publish()

    def _join(self, records: list[RingRecord]) -> None:
        for error in self._replica.apply(records):
            log.error("a record of the ring cannot be read and is passed over", reason=error.message)

    def _publish(self) -> None:
        """Swap the view."""
        desc = self._replica.desc
        if desc is not self._desc:
            if desc.states != self._desc.states:
                self._ring = PartitionRing.build(desc.states)
            self._desc = desc
        self._moved.set()

    def _contains(self, end: int) -> bool:
        return not self._catching_up and self._position >= end

    def _confirm(self, asked_s: float) -> None:
        self._confirmed_s = max(self._confirmed_s, asked_s)
        self._moved.set()

    async def _ask_end(self) -> tuple[float, int]:
        """Return the store's end, asked for after this call began, and when; callers of one moment share a request."""
        if self._queued_end is None:
            self._queued_end = asyncio.create_task(self._request_end(), name="ring-end")
            self._queued_end.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._queued_end)

    async def _request_end(self) -> tuple[float, int]:
        async with self._asking:
            self._queued_end = None  # who comes from now on needs a later answer
            asked_s = self._monotonic_s()
            return asked_s, await self._store.end()

    async def _next_move(self) -> None:
        if not self._closed:
            await self._moved.wait()
        if self._closed:
            raise RingUnavailable("the ring watcher is closed")

    async def _keep_up(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_UPKEEP_S):
                    await self._upkeep_due.wait()
            self._upkeep_due.clear()
            with contextlib.suppress(RingUnavailable):  # why: the next round does it
                await self.upkeep()

    def _on_end(self, follower: asyncio.Task[None]) -> None:
        if not follower.cancelled() and (error := follower.exception()) is not None:
            self._waits_for = f"the ring watcher ended with {type(error).__name__}: {error}"
            log.error("the ring watcher ended", exc_info=error)

    def _report(self, reason: str | None) -> None:
        """Log a change between answering and not answering, once each."""
        if reason is not None and self._waits_for is None:
            log.warning("the ring store does not answer, waiting for it", reason=reason)
        elif reason is None and self._waits_for is not None:
            log.info("the ring store answers again")
        self._waits_for = reason


class _Stalled(Exception):
    """The store's reader gives nothing, although there is something."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class _Signal:
    """Wakes everybody who waits at the moment."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self) -> None:
        """Wait for the next `set`."""
        await self._event.wait()
