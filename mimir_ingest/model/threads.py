"""Work of one query, spread over a few threads.

Kernels release the GIL, so parts of a large read or of a large vector are worked on side by side. The process has one
small pool for all queries; the thread that asks works, too, and never waits for a free one: with many queries at once
each has its own thread and no more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")

_HELPERS = (
    1 if len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)) > 1 else 0
)
"""why: two threads halve the time of a query that is alone; more would only move the time of others."""

_pool = ThreadPoolExecutor(max(1, _HELPERS), thread_name_prefix="query-helper")


def spread(work: Callable[[_Item], None], items: Sequence[_Item], helpers: int = _HELPERS) -> None:
    """Call `work` once for each item, in up to `1 + helpers` threads, in the order of the items in each.

    Raises what a call raises, the caller's own first; items not yet begun are left out then. No call is running any
    more when this returns or raises.
    """
    waiting = iter(items)  # threads take from it one at a time: `next` of a list's or range's iterator holds the GIL

    def drain() -> None:
        try:
            for item in waiting:
                work(item)
        except BaseException:
            for _ in waiting:
                pass
            raise

    futures = [_pool.submit(drain) for _ in range(min(helpers, len(items) - 1))]
    try:
        drain()
    except BaseException:
        _ended(futures)
        raise
    for future in _ended(futures):
        future.result()


def _ended(futures: list[Future[None]]) -> list[Future[None]]:
    """Wait for the futures that run, take back the others; return those that ran."""
    ran = [future for future in futures if not future.cancel()]
    for future in ran:
        future.exception()
    return ran
