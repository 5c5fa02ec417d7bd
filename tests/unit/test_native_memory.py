"""What glibc keeps."""

import asyncio
import platform
import subprocess
import sys

import pytest

from mimir_ingest import native_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc")

_HOLES = """
import sys, threading
import numpy as np
from pathlib import Path
from mimir_ingest import native_memory

def anonymous():
    text = Path("/proc/self/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Anonymous:")) // 1024

before = anonymous()
buffers = [np.ones(8_000) for _ in range(2_000)]  # 128 MB below the threshold of blocks mapped alone
full = anonymous()
kept = buffers[::50]
del buffers
holes = anonymous()
native_memory.trim()
print(before, full, holes, anonymous())
"""

_ARENAS = """
import ctypes, re, threading
from mimir_ingest import native_memory
if {limited}:
    assert native_memory.limit_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
all_here = threading.Barrier(8)
def work():
    all_here.wait()
    libc.malloc(1000)
    all_here.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in threads], [t.join() for t in threads]
libc.malloc_stats()
"""


def _run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_holes_between_what_is_in_use_are_returned():
    before, full, holes, after = map(int, _run(_HOLES).stdout.split())
    assert full - before > 100
    assert holes - before > 60, "the C library returned them by itself: the trim is not needed"
    assert after - before < 30


@pytest.mark.parametrize(("limited", "most"), [(True, native_memory.ARENAS), (False, 100)])
def test_threads_share_few_arenas(limited, most):
    arenas = _run(_ARENAS.format(limited=limited)).stderr.count("Arena ")
    assert arenas <= most
    assert limited or arenas > native_memory.ARENAS


async def test_memory_is_trimmed_until_it_ends(monkeypatch):
    calls, enough = [], asyncio.Event()
    loop = asyncio.get_running_loop()

    def trim():
        calls.append(1)
        if len(calls) == 3:
            loop.call_soon_threadsafe(enough.set)
        return True

    monkeypatch.setattr(native_memory, "trim", trim)
    async with native_memory.trimming(0):
        await asyncio.wait_for(enough.wait(), 60)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "native memory"]
