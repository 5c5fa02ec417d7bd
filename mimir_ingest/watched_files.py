"""Files that are read again when they change: certificates and credentials, renewed by others while a process runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence

import structlog

from mimir_ingest.config.errors import ConfigError

_log = structlog.get_logger()
_State = tuple[tuple[int, int, int] | None, ...]


class WatchedFiles:
    """Looks at files every period and calls `reload`, in a thread, when one of them is another than before.

    A reload that fails (ConfigError) is logged, what was loaded stays in force, and the next change is tried again.
    """

    def __init__(self, files: Sequence[str], reload: Callable[[], None], *, period_s: float) -> None:
        self._files, self._reload, self._period_s = tuple(files), reload, period_s
        self._seen = self._look()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Watch until `close`."""
        if self._files:
            self._task = asyncio.create_task(self._run(), name="watched files")

    async def close(self) -> None:
        """Stop watching. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def check(self) -> bool:
        """Reload if a file has changed; return whether one had."""
        found = self._look()
        if found == self._seen:
            return False
        self._seen = found
        try:
            self._reload()
        except ConfigError as error:
            _log.error("changed files refused, what was loaded stays in force", err=str(error))
        else:
            _log.info("files loaded again", files=", ".join(self._files))
        return True

    def _look(self) -> _State:
        found = []
        for path in self._files:
            try:
                status = os.stat(path)
            except OSError:
                found.append(None)
            else:
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            await asyncio.to_thread(self.check)
