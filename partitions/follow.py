"""Reads the ring store as it grows, and keeps the newest document of it, confirmed about every second.

    open ─► end? ─► read up to it ─► publish, confirm ─► read what comes, for a second ─► end? ─► …

Faults: a store that does not answer is asked again with back-off, and opened anew after a few failures; one that gives
nothing although there is something is opened anew; one that ends before it was read to (made anew, or a broker lost its
newest records) is read from its start, and what it lacks is `due` to be written again; one that was not read for an
hour is read from its start by a new replica, because nulls may have come and gone. Meanwhile the document stays, and
`confirmed_s` tells its age.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from partitions.errors import RingPositionLost, RingUnavailable
from partitions.kv.contract import RingRecord, RingStore
from partitions.merge import shows
from partitions.model import Entry, RingDesc, Version
from partitions.replica import Replica

CONFIRM_S = 1.0
"""How often an unchanged document is confirmed; a tenth of the distributors' fence."""
BACK_OFF_S = (0.1, 2.0)
REOPEN_AFTER = 3
"""Failures in a row after which the store is closed and opened. why: that makes a topic again that was deleted."""
STALLED_S = 10.0
# why: more than a request's own time-out, and short against what waits for a view.
FORGOTTEN_S = 3600.0
# why: stores keep nulls for a day; a reader that may have missed some must not go on with what they took back.

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class Expected:
    """Own records that somebody waits to be read back."""

    writer: str
    version: Version
    stamped: list[Entry]
    unread: set[tuple[str, bytes | None]]
    """Key and value of the records not read back yet."""
    shown: bool | None = None
    """Whether the join showed the entries when the last of their records was read."""

    def judge(self, desc: RingDesc) -> None:
        """Look whether the document shows the entries."""
        self.shown = all(shows(desc.entries.get(entry.key), entry, self.version) for entry in self.stamped)


class RingFollower:
    """Owns the store, and the replica that is made of it. `run` is its one task.

    Parameters
    ----------
    store : RingStore
        Not started.
    monotonic_s : callable
        Clock of `confirmed_s` (s).
    publish : callable
        Told each new document; `desc` is what was published last.
    """

    def __init__(
        self, store: RingStore, *, monotonic_s: Callable[[], float], publish: Callable[[RingDesc], None]
    ) -> None:
        self._store = store
        self._monotonic_s = monotonic_s
        self._publish_desc = publish
        self.replica = Replica()
        """What was read; ahead of `desc` while it catches up."""
        self.desc = RingDesc()
        """The newest document that contains everything up to where it was read."""
        self.confirmed_s = float("-inf")
        """Monotonic time (s) of the newest question for the store's end that `desc` is known to contain."""
        self.waits_for: str | None = None
        """Why nothing is confirmed at the moment, as a sentence for people."""
        self.expected: Expected | None = None
        """Own records that are waited for."""
        self.due = asyncio.Event()
        """Set when the store lacks something that is known here."""
        self._position = 0
        self._read_s = float("inf")
        self._catching_up = True
        self._is_open = False
        self._closed = False
        self._moved = asyncio.Event()
        self._asking = asyncio.Lock()
        self._queued_end: asyncio.Task[tuple[float, int]] | None = None

    async def run(self) -> None:
        """Follow for ever. Raises RingUnavailable, before the first document only, for what waiting cannot mend."""
        pause_s, failures = BACK_OFF_S[0], 0
        while True:
            try:
                if not self._is_open:
                    await self._store.start()
                    self._is_open = True
                    if self._position:  # it may be another store by now, whose positions mean something else
                        self._start_over(self.desc)
                await self._catch_up()
                pause_s, failures = BACK_OFF_S[0], 0
                await self._read(CONFIRM_S)
                continue
            except RingPositionLost as error:
                log.error("the ring store has lost records, it is read anew", reason=error.message)
                self._start_over(self.desc)
            except RingUnavailable as error:
                if not error.retriable and self.confirmed_s == float("-inf"):
                    raise
                self._report(error.message)
                failures += 1
            if failures >= REOPEN_AFTER:
                await self._shut()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, BACK_OFF_S[1])

    async def close(self) -> None:
        """Close the store; who waits is told by RingUnavailable. Call it when `run` has ended. Idempotent."""
        self._closed = True
        self._wake()
        if self._queued_end is not None:
            self._queued_end.cancel()
            await asyncio.wait([self._queued_end])
        await self._store.close()

    async def append(self, records: list[RingRecord]) -> int:
        """Append to the store; return the position after the records. Raises RingUnavailable."""
        return await self._store.append(records)

    async def refresh(self) -> None:
        """Return once `desc` contains all that the store held when this was called. Raises RingUnavailable."""
        asked_s, end = await self._ask_end()
        await self.reach(end)
        self._confirm(asked_s)

    async def reach(self, position: int) -> None:
        """Return once `desc` contains everything below a position. Raises RingUnavailable when closed."""
        while self._catching_up or self._position < position:
            await self.moved()

    async def moved(self) -> None:
        """Wait until something was read or confirmed. Raises RingUnavailable when closed."""
        if not self._closed:
            await self._moved.wait()
        if self._closed:
            raise RingUnavailable("the ring watcher is closed")

    async def _catch_up(self) -> None:
        asked_s, end = await self._ask_end()
        heard_s = self._monotonic_s()
        while self._position < end:
            before = self._position
            await self._read(CONFIRM_S)
            if self._position != before:
                heard_s = self._monotonic_s()
            elif self._monotonic_s() - heard_s > STALLED_S:
                await self._shut()
                raise RingUnavailable(f"the ring store ends at {end}, but gives nothing from {before} on")
        self._catching_up = False
        self._publish()
        self._confirm(asked_s)
        self._report(None)

    async def _shut(self) -> None:
        """Close the store; the next round opens it again."""
        self._is_open = False
        await self._store.close()

    async def _read(self, max_wait_s: float) -> None:
        records, position = await self._store.read(self._position, max_wait_s=max_wait_s)
        silent_s, self._read_s = self._monotonic_s() - self._read_s, self._monotonic_s()
        if self._position and silent_s > FORGOTTEN_S:
            log.warning("the ring store was not read for long, it is read anew", silent_s=round(silent_s))
            self._start_over(RingDesc())
            return
        judged = self._find_last_expected(records)
        self._join(records[:judged])
        if judged and self.expected is not None:
            self.expected.judge(self.replica.desc)
        self._join(records[judged:])
        self._position = position
        if not self._catching_up:
            self._publish()

    def _find_last_expected(self, records: list[RingRecord]) -> int:
        """Return how many records there are up to the last one expected; 0 if that is not among them."""
        if (expected := self.expected) is None or expected.shown is not None:
            return 0
        for number, record in enumerate(records, start=1):
            if record.writer == expected.writer:
                expected.unread.discard((record.key, record.value))
                if not expected.unread:
                    return number
        return 0

    def _join(self, records: list[RingRecord]) -> None:
        for error in self.replica.apply(records):
            log.error("a record of the ring cannot be read and is passed over", reason=error.message)

    def _start_over(self, knowing: RingDesc) -> None:
        """Read from the start into a new replica; `desc` stays until that has caught up."""
        self.replica = Replica(knowing)
        self._position = 0
        self._catching_up = True

    def _publish(self) -> None:
        if self.replica.desc is not self.desc:
            self.desc = self.replica.desc
            self._publish_desc(self.desc)
        if self.replica.lacking():
            self.due.set()
        self._wake()

    def _confirm(self, asked_s: float) -> None:
        self.confirmed_s = max(self.confirmed_s, asked_s)
        self._wake()

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _ask_end(self) -> tuple[float, int]:
        """Return when the store was asked for its end, after this call began, and the end; calls share a request."""
        if self._queued_end is None:
            self._queued_end = asyncio.create_task(self._request_end(), name="ring-end")
            self._queued_end.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._queued_end)

    async def _request_end(self) -> tuple[float, int]:
        async with self._asking:
            self._queued_end = None  # who comes from now on needs a later answer
            asked_s = self._monotonic_s()
            return asked_s, await self._store.end()

    def _report(self, reason: str | None) -> None:
        """Log a change between answering and not answering, once each."""
        if reason is not None and self.waits_for is None:
            log.warning("the ring store does not answer, waiting for it", reason=reason)
        elif reason is None and self.waits_for is not None:
            log.info("the ring store answers again")
        self.waits_for = reason
