"""What the C library keeps of memory that was given back to it: little, and for a minute at most.

Buffers of numpy are taken and given back by many threads. glibc makes up to eight arenas a processor for them, and what
is free in one is of no use to another; holes below what is still in use are not returned to the system either. So the
resident memory of a process under an even load grows for hours. See docs/decisions/0026-native-memory.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from collections.abc import AsyncIterator

ARENAS = 2
"""why: numpy allocates while it holds the interpreter's lock, so threads hardly ever wait for an arena; SQLite and the
compressors do not hold it."""

TRIM_INTERVAL_S = 60.0
"""why: a pass takes some milliseconds, and 0.3 for each megabyte that it returns, in which whoever allocates waits;
pages that are wanted again cost about as much."""

_M_ARENA_MAX = -8
"""Number of the parameter in malloc.h."""


def limit_arenas() -> bool:
    """Have glibc use few arenas; call it before there are threads. Returns False where there is no glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, ARENAS) == 1


def trim() -> bool:
    """Return free pages to the system. Returns False where there is no glibc. Any thread."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is None:
        return False
    malloc_trim(ctypes.c_size_t(0))
    return True


@contextlib.asynccontextmanager
async def trimming(interval_s: float = TRIM_INTERVAL_S) -> AsyncIterator[None]:
    """Return free pages every `interval_s`, in a thread, until left."""

    async def run() -> None:
        available = True
        while available:
            available = await asyncio.to_thread(trim)
            await asyncio.sleep(interval_s)

    task = asyncio.create_task(run(), name="native memory")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
