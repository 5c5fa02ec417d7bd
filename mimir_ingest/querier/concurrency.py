"""Running reads side by side, and work in threads, so that none is left behind when the outcome is known."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, TypeVar

from mimir_ingest.errors import QueryError
from mimir_ingest.model.spans import Check

_Result = TypeVar("_Result")


class Slots:
    """So many may work at a time; the others wait in order. Used from one event loop.

    As asyncio's semaphore, but that taking and giving back cost a call each where nobody waits.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a slot if one is free; those that wait come first."""
        if self._free <= 0 or self._waiting:
            return False
        self._free -= 1
        return True

    async def wait(self) -> None:
        """Take a slot once there is one; being cancelled takes none."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._next()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def give_back(self) -> None:
        """Let go of a slot; the next one that waits has it."""
        self._free += 1
        if self._waiting:
            self._next()

    def _next(self) -> None:
        while self._free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._free -= 1
                turn.set_result(None)


async def run_all(reads: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """Return the results in order; the first error, or being cancelled, cancels the rest and is raised."""
    coroutines = list(reads)
    if len(coroutines) == 1:
        return [await coroutines[0]]
    tasks = [asyncio.create_task(read) for read in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel_all(tasks)


async def cancel_all(tasks: Collection[asyncio.Task]) -> None:
    """Cancel what is still running and wait for its end."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen, so that asyncio does not report it


async def run_stoppable(work: Callable[[Callable[[], bool]], _Result]) -> _Result:
    """Run `work(stopped)` in a thread; being cancelled sets `stopped`, and is over when the thread has ended."""
    event = threading.Event()
    running = asyncio.ensure_future(asyncio.to_thread(work, event.is_set))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        event.set()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # seen, so that asyncio does not report it
        raise


async def run_until(deadline: float, work: Callable[[Check], _Result]) -> _Result:
    """Do the same with a function that raises QueryError when stopped, or after `deadline` (monotonic clock, s)."""

    def in_thread(stopped: Callable[[], bool]) -> _Result:
        def check() -> None:
            if stopped():
                raise QueryError("query was canceled in query execution", error_type="canceled")
            if time.monotonic() > deadline:
                raise QueryError("query timed out in query execution", error_type="timeout")

        return work(check)

    return await run_stoppable(in_thread)
