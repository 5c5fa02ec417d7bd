"""Compile every kernel module, or load it from the cache, with a callback for progress."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

import mimir_ingest.kernels as package


def modules() -> list[str]:
    """Return the names of all kernel modules, in import order."""
    names = [m.name for m in pkgutil.iter_modules(package.__path__)]
    return [n for n in names if n not in ("warm",) and not n.startswith("_")]


def warm(progress: Callable[[str, int, int], None] | None = None) -> int:
    """Import (and so compile) every kernel module.

    `progress(module, done, total)` is called before each module, and once more at the end. Returns the module count.
    """
    names = modules()
    for done, name in enumerate(names):
        if progress:
            progress(name, done, len(names))
        importlib.import_module(f"mimir_ingest.kernels.{name}")
    if progress and names:
        progress(names[-1], len(names), len(names))
    return len(names)
