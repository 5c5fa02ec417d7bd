"""Running reads side by side, and work in threads, so that none is left behind when the outcome is known."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, TypeVar

from mimir_ingest.errors import QueryError
from mimir_ingest.model.spans import Check

_Result = TypeVar("_Result")


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
