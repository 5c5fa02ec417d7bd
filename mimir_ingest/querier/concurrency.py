"""Running reads side by side so that none is left behind when the outcome is known."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterable
from typing import Any, TypeVar

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
