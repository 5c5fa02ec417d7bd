"""Compile kernel modules, or load them from the cache, with a callback for progress.

Modules that have nothing in the cache are compiled in processes of their own first, as many at a time as there are
processors, long ones first so that no processor idles at the end; then all are imported here. Some are not needed to
start (`_jit.DEFERRED`).
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pkgutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import mimir_ingest.kernels as package
from mimir_ingest.kernels._jit import Deferred, has_cache, is_deferred

Progress = Callable[[str, int, int], None]
_LOOK_S = 0.2


def modules() -> list[str]:
    """Return the names of the modules that have kernels; helpers alone leave nothing in the cache, ever."""
    return [m.name for m in pkgutil.iter_modules(package.__path__) if "\n@kernel(" in _source(m.name).read_text()]


def needed_at_start() -> list[str]:
    """Return the names of the kernel modules that are compiled when they are imported."""
    return [name for name in modules() if not is_deferred(name)]


def is_cold() -> bool:
    """Whether a module needed at start has nothing in the cache, so that importing it takes as long as compiling it."""
    return not all(map(has_cache, needed_at_start()))


def import_kernels(name: str) -> str:
    """Import one kernel module and make its kernels, which compiles what its cache lacks; return its name."""
    module = importlib.import_module(f"mimir_ingest.kernels.{name}")
    for value in vars(module).values():
        if isinstance(value, Deferred):
            value.load()
    return name


def end_with(parent: int) -> None:
    """End this process, whatever it does, soon after the one that started it (its id) has ended, however that did."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, name="end with the parent", daemon=True).start()


def _begin_compiling(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal interrupts this process, too: its parent ends it
    end_with(parent)


def warm(progress: Progress | None = None, *, names: Sequence[str]) -> int:
    """Make the kernels of some modules ready in this process.

    `progress(module, done, total)` is called after each module. Returns the number of modules.
    """
    cold = sorted(
        (name for name in names if not has_cache(name)), key=lambda name: _source(name).stat().st_size, reverse=True
    )
    done = 0

    def ready(name: str) -> None:
        nonlocal done
        done += 1
        if progress:
            progress(name, done, len(names))

    if len(cold) > 1:
        for name in _compile_in_processes(cold):
            ready(name)
    for name in names:
        import_kernels(name)
        if name not in cold or len(cold) == 1:
            ready(name)
    return len(names)


def _compile_in_processes(cold: Sequence[str]) -> Iterator[str]:
    """Give the names of modules as they are compiled. No process outlives this one or an interruption."""
    workers, spawn = min(len(cold), os.cpu_count() or 1), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _begin_compiling, (os.getpid(),)) as pool:
        try:
            for finished in as_completed([pool.submit(import_kernels, name) for name in cold]):
                yield finished.result()
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _source(name: str) -> Path:
    return Path(package.__path__[0], f"{name}.py")
