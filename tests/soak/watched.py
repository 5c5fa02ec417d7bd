"""The program with a thread that writes down what it has in memory.

`python tests/soak/watched.py FILE SECONDS TRACE -flags…`

A line of JSON every so many seconds: resident memory, glibc's arenas and mapped blocks, SQLite's, Python's objects by
type, what each attribute of the program's classes holds, how full each cache is, and, where TRACE is 1 (slow), the
places whose allocations have grown most.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
import gc
import itertools
import json
import os
import re
import resource
import sys
import threading
import time
import traceback
import tracemalloc
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

MIB = 1 << 20
_OURS = "mimir_ingest", "partitions"
_Cache = type(functools.lru_cache(lambda: None))


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


def _attributes(one: object) -> Iterator[tuple[str, object]]:
    yield from getattr(one, "__dict__", {}).items()
    for kind in type(one).__mro__:
        names = kind.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            with contextlib.suppress(AttributeError):
                yield name, getattr(one, name)


def _extent(value: object) -> tuple[int, int]:
    """Return (items of a container, bytes of arrays and texts in it)."""
    if isinstance(value, np.ndarray):
        return 0, 0 if value.base is not None else value.nbytes
    if isinstance(value, (bytes, bytearray, str)):
        return 0, len(value)
    if isinstance(value, Mapping):
        inner = list(itertools.chain.from_iterable(list(value.items())))
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        inner = list(value)
    else:
        return 0, 0
    flat = (part for one in inner for part in (one if isinstance(one, tuple) else (one,)))
    held = (_extent(part)[1] for part in flat if isinstance(part, (np.ndarray, bytes, bytearray, str)))
    return len(inner) // (2 if isinstance(value, Mapping) else 1), sum(held)


def owned() -> dict[str, list[int]]:
    """Return what attributes of our classes, globals of our modules and caches of our functions hold.

    By name: [owners, items, bytes]; of a cache, [1, entries, how many there may be (-1 for any number)].
    """
    found: dict[str, list[int]] = {}

    def add(name: str, value: object) -> None:
        try:
            items, size = _extent(value)
        except RuntimeError:  # it changed meanwhile
            return
        if items or size:
            row = found.setdefault(name, [0, 0, 0])
            row[0], row[1], row[2] = row[0] + 1, row[1] + items, row[2] + size

    for one in gc.get_objects():
        kind = type(one)
        if kind is _Cache:
            if str(one.__module__).startswith(_OURS):
                info = one.cache_info()
                limit = -1 if info.maxsize is None else info.maxsize
                found[f"{one.__module__}.{one.__qualname__}()"] = [1, info.currsize, limit]
        elif str(kind.__module__).startswith(_OURS):
            for name, value in _attributes(one):
                add(f"{kind.__module__}.{kind.__qualname__}.{name}", value)
    for name, module in list(sys.modules.items()):
        if name.startswith(_OURS):
            for attribute, value in list(vars(module).items()):
                if not attribute.startswith("__"):
                    add(f"{name}:{attribute}", value)
    return found


def sqlite_bytes() -> int:
    """Return what SQLite has of malloc: page caches and statements."""
    library = ctypes.util.find_library("sqlite3")
    if library is None:
        return 0
    used = ctypes.CDLL(library).sqlite3_memory_used
    used.restype = ctypes.c_int64
    return used()


def _grown(first: tracemalloc.Snapshot | None, now: tracemalloc.Snapshot) -> list[str]:
    if first is None:
        return []
    return [
        f"{stat.size_diff >> 10:+} KiB {stat.count_diff:+} {' < '.join(str(f) for f in reversed(stat.traceback))}"
        for stat in now.compare_to(first, "traceback")[:25]
    ]


def in_a_copy(look: Callable[[], dict[str, object]]) -> dict[str, object]:
    """Return what a look at all objects finds in a copy of the process, made for that.

    why: `gc.get_objects` holds all there is, also tuples that other threads have begun. CPython cannot finish those:
    "SystemError: bad argument to internal function", which the program answers with a 500.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with open(writing, "w", encoding="utf-8") as out:
                json.dump(look(), out)
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as found:
        text = found.read()
    os.waitpid(child, 0)
    return json.loads(text)


def _census() -> dict[str, object]:
    found = objects()
    return {"objects": sum(found.values()), "types": dict(found.most_common(80)), "owned": owned()}


def _watch(report: Path, seconds: float, trace: bool) -> None:
    began, first = time.monotonic(), None
    with report.open("a", encoding="utf-8") as out:
        while True:
            time.sleep(seconds)
            gc.collect()
            line = {
                "at_s": round(time.monotonic() - began),
                "rss": resident_bytes() // MIB,
                "anonymous": anonymous_bytes() // MIB,
                **{name: size if name == "arenas" else size // MIB for name, size in native_memory().items()},
                "blocks": sys.getallocatedblocks(),
                "sqlite": sqlite_bytes() // MIB,
                "threads": threading.active_count(),
                "files": len(os.listdir("/proc/self/fd")),
                **in_a_copy(_census),
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
