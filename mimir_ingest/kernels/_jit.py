"""The one place where compile options live (rules: docs/internals.md, "Kernels").

`kernel(signature)` compiles at import, from the on-disk cache when it is warm; a call with other types is a
`TypeError`, never a silent second compilation. `inline` marks helpers that are compiled into their callers.

The cache directory's name contains a hash of the module's source and of the sibling kernel modules that it imports,
because numba itself only watches the module that defines a function: an edited helper would leave its callers on the
old code.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numba
from numba import config as numba_config
from numba import types

_HERE = Path(__file__).parent

u8_in = types.Array(types.uint8, 1, "C", readonly=True)
"""Signature type of input bytes: takes writable arrays and views over `bytes` alike."""
u8_out = types.Array(types.uint8, 1, "C")
i8_in = types.Array(types.int8, 1, "C", readonly=True)
i8_out = types.Array(types.int8, 1, "C")
i32_in = types.Array(types.int32, 1, "C", readonly=True)
i32_out = types.Array(types.int32, 1, "C")
i64_in = types.Array(types.int64, 1, "C", readonly=True)
i64_out = types.Array(types.int64, 1, "C")
u32_in = types.Array(types.uint32, 1, "C", readonly=True)
u32_out = types.Array(types.uint32, 1, "C")
u64_in = types.Array(types.uint64, 1, "C", readonly=True)
u64_out = types.Array(types.uint64, 1, "C")
f64_in = types.Array(types.float64, 1, "C", readonly=True)
f64_out = types.Array(types.float64, 1, "C")
f64_2d_in = types.Array(types.float64, 2, "C", readonly=True)
f64_2d_out = types.Array(types.float64, 2, "C")
bool_in = types.Array(types.boolean, 1, "C", readonly=True)
bool_out = types.Array(types.boolean, 1, "C")
bool_2d_in = types.Array(types.boolean, 2, "C", readonly=True)
bool_2d_out = types.Array(types.boolean, 2, "C")
i64, i32, u64, u32, u8, f64, boolean = (
    types.int64,
    types.int32,
    types.uint64,
    types.uint32,
    types.uint8,
    types.float64,
    types.boolean,
)


DEFERRED = ("native_", "histogram_", "exemplar_", "ha_", "go_", "read_", "symbolized", "otlp_")
"""Beginnings of the names of modules whose kernels are made at their first call. why: most processes never see a native
histogram, a sender's replica, remote read or remote write 2.0, and these take longer to compile than all others
together."""

_making = threading.RLock()


def cache_root() -> Path:
    """Return the directory of compiled kernels: `MIMIR_INGEST_KERNEL_CACHE`, else inside the environment, else temp."""
    configured = os.environ.get("MIMIR_INGEST_KERNEL_CACHE")
    if configured:
        return Path(configured)
    root = Path(sys.prefix) / "var" / "cache" / "mimir-ingest" / "kernels"
    try:
        root.mkdir(parents=True, exist_ok=True)
        if os.access(root, os.W_OK):
            return root
    except OSError:
        pass
    return Path(tempfile.gettempdir()) / f"mimir-ingest-kernels-{os.getuid()}"


@cache
def _sources(module: str) -> frozenset[str]:
    """Names of `module` and of the sibling kernel modules it imports, transitively."""
    text = (_HERE / f"{module}.py").read_text()
    found = {module}
    for sibling in re.findall(r"from mimir_ingest\.kernels\.(\w+) import", text):
        if sibling not in found:
            found |= _sources(sibling)
    return frozenset(found)


@cache
def _cache_dir(module: str) -> str:
    digest = hashlib.sha256()
    for name in sorted(_sources(module)):
        digest.update((_HERE / f"{name}.py").read_bytes())
    return str(cache_root() / f"{module}-{digest.hexdigest()[:12]}")


def has_cache(module: str) -> bool:
    """Whether anything of a kernel module, as its source stands, is in the cache."""
    return os.path.isdir(_cache_dir(module))


def is_deferred(module: str) -> bool:
    """Whether a kernel module's kernels are made at their first call and not at import."""
    return module.startswith(DEFERRED)


class Deferred:
    """A kernel that is compiled, or loaded from the cache, when it is called first. Any thread may call it."""

    def __init__(self, function: Callable, make: Callable[[], Callable]) -> None:
        functools.update_wrapper(self, function)
        self._make = make
        self._made: Callable | None = None

    def load(self) -> Callable:
        """Make the kernel unless it is made."""
        with _making:
            if self._made is None:
                self._made = self._make()
        return self._made

    def __call__(self, *arguments: object) -> object:
        """Run it."""
        return (self._made or self.load())(*arguments)


def kernel(signature: object, *, boundscheck: bool = False) -> Callable[[Callable], Callable]:
    """Compile a hot loop with an explicit signature; in a deferred module, at its first call.

    Parameters
    ----------
    signature : numba signature
        For example `i64(u8_in, i64_out)`.
    boundscheck : bool
        True for kernels that walk bytes from outside; an access past an array then raises `IndexError`.
    """

    def decorate(function: Callable) -> Callable:
        module = function.__module__.rsplit(".", 1)[1]

        def make() -> Callable:
            numba_config.CACHE_DIR = _cache_dir(module)
            return numba.njit(
                [signature], cache=True, nogil=True, error_model="numpy", boundscheck=boundscheck, fastmath=False
            )(function)

        return Deferred(function, make) if is_deferred(module) else make()

    return decorate


def inline(function: Callable) -> Callable:
    """Mark a helper that is compiled into the kernels calling it."""
    return numba.njit(nogil=True, error_model="numpy", fastmath=False)(function)


def inline_checked(function: Callable) -> Callable:
    """As `inline`, with bounds checks: for helpers that touch bytes from outside (the flag is not inherited)."""
    return numba.njit(nogil=True, error_model="numpy", fastmath=False, boundscheck=True)(function)
