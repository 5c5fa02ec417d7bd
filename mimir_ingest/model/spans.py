"""Work on many items of known sizes, a bounded amount at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import numpy as np

from mimir_ingest.errors import QueryError

Check = Callable[[], None]
"""Raises QueryError if nobody waits for the work any more, or its time is over."""


def bounded_spans(offsets: np.ndarray, size: int, check: Check | None = None) -> Iterator[tuple[int, int]]:
    """Yield (first, last) that cover all items: as many as are `size` large at most, or a single one.

    `offsets` is int64[n + 1]: item i has the size `offsets[i + 1] - offsets[i]`. `check` is called before each span.
    """
    first, n = 0, len(offsets) - 1
    while first < n:
        if check is not None:
            check()
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + size, side="right")) - 1)
        yield first, last
        first = last


def even_spans(count: int, size: int, check: Check | None = None) -> Iterator[tuple[int, int]]:
    """Yield (first, last) that cover `count` items, `size` at a time; `check` is called before each span."""
    for first in range(0, count, size):
        if check is not None:
            check()
        yield first, min(first + size, count)


@contextlib.contextmanager
def while_wanted() -> Iterator[Check]:
    """Give a check for work in threads that raises QueryError (canceled) once the block was left."""
    left = threading.Event()

    def check() -> None:
        if left.is_set():
            raise QueryError("the read was given up", error_type="canceled")

    try:
        yield check
    finally:
        left.set()
