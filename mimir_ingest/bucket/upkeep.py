"""The bucket's part in a process: usable before anything relies on it, and rid of what writers that died left there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from mimir_ingest.bucket.layout import CLUSTER_FOLDER
from mimir_ingest.bucket.publish import PARTIAL_MIN_AGE_MS, delete_partial_blocks
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import StorageError, StoreUnavailable

CLEAN_INTERVAL_S = 12 * 3600.0
"""why: leftovers are removed at 48 hours; a listing of all blocks costs a request a thousand of them."""

FIRST_BACKOFF_S, MAX_BACKOFF_S = 1.0, 30.0
"""Between two looks at a bucket that does not answer."""

_log = structlog.get_logger()


class BucketUpkeep:
    """Owns the task that cleans, if this process `cleans`. `start`, then `close`; several may clean the same bucket."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        now_ms: Callable[[], int],
        cleans: bool = True,
        interval_s: float = CLEAN_INTERVAL_S,
        first_backoff_s: float = FIRST_BACKOFF_S,
    ) -> None:
        self._bucket, self._now_ms, self._interval_s = bucket, now_ms, interval_s
        self._cleans, self._first_backoff_s = cleans, first_backoff_s
        self._task: asyncio.Task[None] | None = None
        self.waits_for: str | None = None
        """What keeps the bucket from being used, as a sentence for people, or None."""

    async def start(self) -> None:
        """Check in the background that the bucket can be used, then clean.

        A local folder is checked at once, for nothing but people can mend it: raises StoreUnavailable if it cannot be
        written. A store that does not answer is waited for: samples are safe in the log meanwhile.
        """
        if self._bucket.is_local:
            await asyncio.to_thread(self._bucket.check)
        else:
            self.waits_for = f"{self._bucket.url} has not answered yet"
        self._task = asyncio.create_task(self._run(), name="bucket-upkeep")

    async def close(self) -> None:
        """Stop cleaning. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        await self._wait()
        while self._cleans:
            try:
                await self.clean()
            except StorageError as error:
                _log.warning("the bucket was not cleaned; it is tried again later", err=error.message)
            await asyncio.sleep(self._interval_s)

    async def _wait(self) -> None:
        """Return once the bucket answers."""
        backoff = self._first_backoff_s
        while self.waits_for is not None:
            try:
                await asyncio.to_thread(self._bucket.check)
                self.waits_for = None
            except StoreUnavailable as error:
                self.waits_for = error.message
                _log.error("the bucket cannot be used; it is tried again", err=error.message)
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, MAX_BACKOFF_S)

    async def clean(self) -> None:
        """Remove temporary files and incomplete blocks that nobody has written to for 48 hours."""
        before_ms = self._now_ms() - PARTIAL_MIN_AGE_MS
        files = await asyncio.to_thread(self._bucket.delete_leftovers, written_before_ms=before_ms)
        blocks = 0
        for name in await asyncio.to_thread(self._bucket.list):
            tenant = name.rstrip("/")
            if name.endswith("/") and tenant != CLUSTER_FOLDER:
                # A thread a tenant: what is cancelled waits for one tenant's listing only.
                gone = await asyncio.to_thread(delete_partial_blocks, self._bucket, tenant, now_ms=self._now_ms())
                blocks += len(gone)
        if files or blocks:
            _log.info("the bucket was cleaned", temporary_files=files, incomplete_blocks=blocks)
