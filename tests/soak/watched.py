"""The program with a thread that writes down what it has in memory.

`python tests/soak/watched.py FILE SECONDS TRACE -flags…`

A line of JSON every so many seconds: resident memory, glibc's arenas and mapped blocks, Python's objects by type, and,
where TRACE is 1 (slow), the places whose allocations have grown most.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import resource
import sys
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path

MIB = 1 << 20


class _MallInfo(ctypes.Structure):
    _names = "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names]


def native_memory() -> dict[str, int]:
    """Return what glibc has of the system (bytes): in arenas, of that in use, in blocks mapped alone; and arenas."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return {}
    libc.mallinfo2.restype = _MallInfo
    main = libc.mallinfo2()  # `arena`, `uordblks` of all arenas since glibc 2.33
    file, at = ctypes.c_char_p(), ctypes.c_size_t()
    libc.open_memstream.restype = ctypes.c_void_p
    stream = ctypes.c_void_p(libc.open_memstream(ctypes.byref(file), ctypes.byref(at)))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    text = (file.value or b"").decode()
    libc.free(file)
    arenas = len(re.findall(r"<heap nr=", text))
    return {"arenas": arenas, "arena": main.arena, "used": main.uordblks, "free": main.fordblks, "mapped": main.hblkhd}


def resident_bytes() -> int:
    """Return this process's resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def anonymous_bytes() -> int:
    """Return the part of it that is no file's."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) << 10
    return 0


def objects() -> Counter[str]:
    """Return how many objects of each type the collector knows."""
    return Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())


def _grown(first: tracemalloc.Snapshot | None, now: tracemalloc.Snapshot) -> list[str]:
    if first is None:
        return []
    return [
        f"{stat.size_diff >> 10:+} KiB {stat.count_diff:+} {' < '.join(str(f) for f in reversed(stat.traceback))}"
        for stat in now.compare_to(first, "traceback")[:25]
    ]


def _watch(report: Path, seconds: float, trace: bool) -> None:
    began, first = time.monotonic(), None
    with report.open("a", encoding="utf-8") as out:
        while True:
            time.sleep(seconds)
            gc.collect()
            found = objects()
            line = {
                "at_s": round(time.monotonic() - began),
                "rss": resident_bytes() // MIB,
                "anonymous": anonymous_bytes() // MIB,
                **{name: size if name == "arenas" else size // MIB for name, size in native_memory().items()},
                "blocks": sys.getallocatedblocks(),
                "objects": sum(found.values()),
                "threads": threading.active_count(),
                "files": len(os.listdir("/proc/self/fd")),
                "types": dict(found.most_common(40)),
            }
            if trace:
                snapshot = tracemalloc.take_snapshot()
                line["traced"] = tracemalloc.get_traced_memory()[0] // MIB
                line["grown"] = _grown(first, snapshot)
                if first is None and line["at_s"] >= 300:
                    first = snapshot
            out.write(json.dumps(line) + "\n")
            out.flush()


def main() -> None:
    """Run the program."""
    report, seconds, trace, *flags = sys.argv[1:]
    if trace == "1":
        tracemalloc.start(6)
    threading.Thread(target=_watch, args=(Path(report), float(seconds), trace == "1"), daemon=True).start()
    from mimir_ingest.cli import main as run

    run(flags)


if __name__ == "__main__":
    main()
