"""What the process's threads do: their stacks, looked at once or for a while (spec http-api.md 3.11).

A profile of the processor gives each thread's time on it since the last look to the stack that the thread has now; it
needs Linux's `/proc`. A profile of the wall counts every thread at every look. Kernels that released the GIL stand as
the frame that called them.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from mimir_ingest.wire.pprof import Frame, Stack

CPU_PERIOD_S = 0.01
WALL_PERIOD_S = 1 / 99

_TASKS = Path("/proc/self/task")


def thread_stacks() -> list[tuple[threading.Thread, Stack]]:
    """Return the stack of every thread that Python knows, but for the one that asks."""
    me, frames = threading.get_ident(), sys._current_frames()
    threads = [t for t in threading.enumerate() if t.ident != me and t.ident in frames]
    return [(thread, _stack(frames[thread.ident])) for thread in threads if thread.ident is not None]


def task_stacks() -> list[tuple[str, Stack]]:
    """Return the names and stacks of the running event loop's tasks; a task that waits is where it waits."""
    return [(task.get_name(), tuple(map(_frame, reversed(task.get_stack())))) for task in asyncio.all_tasks()]


def sample_cpu(seconds: float, stopped: threading.Event) -> dict[Stack, tuple[int, int]]:
    """Return, by stack, looks at which a thread had been on the processor, and for how long (ns); blocks so long.

    Less is returned once `stopped` is set. Raises OSError where the system does not tell threads' times.
    """
    looks: Counter[Stack] = Counter()
    spent: Counter[Stack] = Counter()
    known = {thread.native_id: _on_cpu_ns(thread) for thread, _ in thread_stacks()}
    for _ in _looks(seconds, CPU_PERIOD_S, stopped):
        for thread, stack in thread_stacks():
            now_ns = _on_cpu_ns(thread)
            took_ns = now_ns - known.get(thread.native_id, now_ns)
            known[thread.native_id] = now_ns
            if took_ns > 0:
                looks[stack] += 1
                spent[stack] += took_ns
    return {stack: (count, spent[stack]) for stack, count in looks.items()}


def sample_wall(seconds: float, stopped: threading.Event) -> dict[Stack, tuple[int, int]]:
    """Return, by stack, at how many looks a thread had it, and for how long that was (ns); blocks so long."""
    looks: Counter[Stack] = Counter()
    for _ in _looks(seconds, WALL_PERIOD_S, stopped):
        looks.update(stack for _, stack in thread_stacks())
    return {stack: (count, int(count * WALL_PERIOD_S * 1e9)) for stack, count in looks.items()}


def _looks(
    seconds: float, period_s: float, stopped: threading.Event, now_s: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """Yield once a period until the time is over; looks that come too late are left out."""
    until_s = now_s() + seconds
    while (left_s := until_s - now_s()) > 0 and not stopped.wait(min(period_s, left_s)):
        yield


def _on_cpu_ns(thread: threading.Thread) -> int:
    """Return how long a thread was on the processor (ns); 0 for one that has just ended."""
    try:
        return int((_TASKS / str(thread.native_id) / "schedstat").read_bytes().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        if not _TASKS.exists():
            raise
        return 0


def _stack(innermost: FrameType) -> Stack:
    frames, frame = [], innermost
    while frame is not None:
        frames.append(_frame(frame))
        frame = frame.f_back
    return tuple(frames)


def _frame(frame: FrameType) -> Frame:
    code = frame.f_code
    return Frame(code.co_qualname, code.co_filename, frame.f_lineno or 0)
