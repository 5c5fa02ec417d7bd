"""Stopping work whose client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from mimir_ingest.api.errors import Receive

WATCH_AFTER_S = 0.1
"""Work that takes no longer is not watched. why: the task that waits for the client costs 0.05 ms."""

_Result = TypeVar("_Result")


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


async def unless_gone(receive: Receive, work: Awaitable[_Result]) -> _Result:
    """Return the work's result; cancel it, and raise ClientGone, once the client has closed the connection.

    The request's body must have been read: what is left of it is thrown away.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False
    watcher: asyncio.Task[None] | None = None

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    def begin() -> None:
        nonlocal watcher
        watcher = asyncio.create_task(watch())

    timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, begin)
    try:
        return await work
    except asyncio.CancelledError:
        # As with a time-out of asyncio: what is cancelled from elsewhere as well stays cancelled.
        if gone and task.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()
