"""An ingester's life in the ring, in the order that keeps every partition answerable and nothing lost.

    start   marker ─► instance JOINING ─► consume ─► caught up ─► instance ACTIVE ─► owner entries, partitions ACTIVE
    close   instance LEAVING ─► flush and ship ─► owner entries ─► instance entry ─► marker ─► consumers

With the shutdown marker each step of `close` needs the one before to have succeeded: an ingester that could not ship
everything stays an owner, and keeps the marker. Without it a stop keeps the owner entries, and unregisters as
configured. Source: spec, ingest storage, sections 4.4, 5.3, 5.9 and 7.2.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace

import structlog

from mimir_ingest.errors import IngestError
from mimir_ingest.ingester.downscale import Downscale
from mimir_ingest.ingester.ownership import Ownership
from mimir_ingest.ingester.service import Ingester
from partitions.errors import PartitionError
from partitions.lifecycler import InstanceLifecycler, PartitionLifecycler
from partitions.model import InstanceState
from partitions.watch import RingWatcher

log = structlog.get_logger()


class Membership:
    """Starts and stops what makes an ingester a member of the ring; owns none of the parts' decisions.

    Parameters
    ----------
    instance_id : id in the ingester ring
    watcher : started before, closed after
    ingester, instance, ownership, lifecycler : not started
    flush_on_shutdown : `blocks_storage.tsdb.flush_blocks_on_shutdown`: ship everything at a plain stop, too
    """

    def __init__(
        self,
        instance_id: str,
        watcher: RingWatcher,
        ingester: Ingester,
        *,
        instance: InstanceLifecycler,
        ownership: Ownership,
        lifecycler: PartitionLifecycler,
        downscale: Downscale,
        flush_on_shutdown: bool,
    ) -> None:
        self._instance_id = instance_id
        self._watcher = watcher
        self._ingester = ingester
        self._instance = instance
        self._ownership = ownership
        self._lifecycler = lifecycler
        self._downscale = downscale
        self._flush_on_shutdown = flush_on_shutdown
        self._joining: asyncio.Task[None] | None = None
        self._closed = False
        self._was_ready = False
        ownership.on_change = lifecycler.poke

    async def start(self) -> None:
        """Register and begin to consume; becoming an owner goes on in the background.

        Raises OSError for a marker that cannot be looked at, LogUnavailable.
        """
        self._downscale.load()
        self._lifecycler.knobs = replace(self._lifecycler.knobs, create_partition=not self._downscale.leaving)
        await self._ingester.start()
        await self._instance.start(InstanceState.JOINING)
        await self._ownership.start()
        self._joining = asyncio.create_task(self._join(), name="ingester-joining")

    async def _join(self) -> None:
        await self._ownership.wait_begun()
        # A partition that is stopped for good must not keep the others from being owned.
        await self._ingester.wait_caught_up()
        with _logged("the instance could not be made ACTIVE; the next heartbeat does it"):
            await self._instance.switch(InstanceState.ACTIVE)
        self._lifecycler.start()

    def ready_reason(self) -> str | None:
        """Return why the ingester cannot be relied on, or None: it answers, and the ring has said so."""
        reason = self._ingester.ready_reason()
        if reason is not None and self._ownership.waits_for is not None:
            return f"{reason} ({self._ownership.waits_for})"
        if reason is not None or self._was_ready:
            return reason
        registered = self._instance.registered
        if registered is None or registered.state is not InstanceState.ACTIVE:
            return f"instance {self._instance_id} is not ACTIVE in the ring yet"
        missing = self._ownership.expected() - set(self._watcher.desc.owned_by(self._instance_id))
        if missing and not self._downscale.leaving:
            return f"the ring does not show this instance as owner of partitions {sorted(missing)} yet"
        self._was_ready = True
        return None

    async def shut_down(self) -> None:
        """Ship everything, leave the instance ring, then close (spec 7.5, `/ingester/shutdown`)."""
        self._flush_on_shutdown = self._downscale.unregister_on_shutdown = True
        await self.close()

    async def close(self) -> None:
        """Stop in order. With the shutdown marker it waits for the bucket as long as that takes. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._joining is not None:
            self._joining.cancel()
            await asyncio.wait([self._joining])
        await self._ownership.close()
        with _logged("the instance could not be made LEAVING"):
            if self._joining is not None:
                await self._instance.switch(InstanceState.LEAVING)
        leaving = self._downscale.leaving
        ships = leaving or (self._flush_on_shutdown and self._ingester.ready_reason() is None)
        shipped = await self._ship() if ships else False
        self._lifecycler.remove_owner_on_shutdown = leaving and shipped
        await self._lifecycler.close()
        if leaving:
            await self._leave(shipped)
        else:
            await self._instance.close(unregister=self._downscale.unregister_on_shutdown)
        await self._ingester.close()

    async def _ship(self) -> bool:
        """Cut and ship everything held; return whether that worked."""
        try:
            await self._ingester.flush(None, wait=True)
        except IngestError as error:
            log.error("not everything was shipped; the log still has it", err=error.message)
            return False
        return True

    async def _leave(self, shipped: bool) -> None:
        """Leave the instance ring and remove the marker, if nothing is left to do."""
        gone = shipped and not self._watcher.desc.owned_by(self._instance_id)
        await self._instance.close(unregister=gone)
        if not gone or self._instance.registered is not None:
            log.error("the ingester could not leave for good; its next start takes it up", instance=self._instance_id)
            return
        with _logged("the marker of the prepared shutdown could not be removed"):
            self._downscale.finish_shutdown()


@contextlib.contextmanager
def _logged(message: str) -> Iterator[None]:
    try:
        yield
    except (PartitionError, OSError) as error:
        log.warning(message, reason=str(error))
