"""An ingester's life in the rings.

    JOINING ─► consumes ─► caught up ─► ACTIVE ─► registered as an owner ─► ready
    LEAVING ─► everything shipped ─► owner entries removed ─► out of the ring ─► shutdown marker removed

Leaving for good (the shutdown marker) takes each of these steps only after the one before has succeeded, so a query
finds a partition either with its owner or whole in blocks; what failed is taken up by the next start. A plain stop
ships if that is configured, keeps the owner entries, and leaves the ring as configured. Nothing here decides; it calls
what does, in this order. Source: spec ingest-storage 5.3, 5.9 and 7.
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

_log = structlog.get_logger()


class IngesterMembership:
    """One ingester in the rings, from `start` to `leave`. Used from one event loop.

    Parameters
    ----------
    watcher : RingWatcher
        Started before, closed after.
    ingester : Ingester
        Started and closed here.
    flush_on_shutdown : `blocks_storage.tsdb.flush_blocks_on_shutdown`
    """

    def __init__(
        self,
        watcher: RingWatcher,
        ingester: Ingester,
        *,
        instance: InstanceLifecycler,
        partitions: PartitionLifecycler,
        ownership: Ownership,
        downscale: Downscale,
        flush_on_shutdown: bool,
    ) -> None:
        self._watcher, self._ingester = watcher, ingester
        self._instance, self._partitions = instance, partitions
        self._ownership, self.downscale = ownership, downscale
        self._flush_on_shutdown = flush_on_shutdown
        self._joining: asyncio.Task[None] | None = None
        self._registered = False
        self._left = False
        ownership.on_change = partitions.poke

    async def start(self) -> None:
        """Register as JOINING and begin to consume; the rest happens once everything is caught up.

        Raises OSError for a shutdown marker that cannot be looked at, LogUnavailable.
        """
        self.downscale.load()
        self._partitions.knobs = replace(self._partitions.knobs, create_partition=not self.downscale.leaving)
        await self._ingester.start()
        await self._instance.start(InstanceState.JOINING)
        await self._ownership.start()
        self._joining = asyncio.create_task(self._join(), name="ingester-join")

    async def _join(self) -> None:
        # A partition that is stopped for good must not keep the others from being owned.
        await self._ingester.wait_caught_up()
        with _logged("the instance could not be made ACTIVE; the next heartbeat does it"):
            await self._instance.switch(InstanceState.ACTIVE)
        self._partitions.start()

    def ready_reason(self) -> str | None:
        """Return why queries and writes cannot rely on this ingester yet, or None."""
        reason = self._ingester.ready_reason()
        if reason is not None or self._registered:
            return reason
        entry = self._instance.registered
        if entry is None:
            return "this instance is not in the ring"
        if entry.state is not InstanceState.ACTIVE:
            return f"this instance is {entry.state.name} in the ring"
        waiting = sorted(self._ownership.own() - set(self._watcher.desc.owned_by(entry.id)))
        if waiting and not self.downscale.leaving:
            return f"this instance is not yet registered as an owner of partition {waiting[0]}"
        self._registered = True
        return None

    async def shut_down(self) -> None:
        """Ship everything, leave the ring, close the ingester (spec 7.5, `/ingester/shutdown`)."""
        self._flush_on_shutdown = self.downscale.unregister_on_shutdown = True
        await self.leave()

    async def leave(self) -> None:
        """Stop: ship what is to be shipped, give up what is to be given up, close the ingester. Idempotent.

        Whatever cannot be shipped stays in the log. With the shutdown marker a bucket that does not answer is waited
        for, as long as that takes.
        """
        if self._left:
            return
        self._left = True
        joining, self._joining = self._joining, None
        if joining is not None:
            joining.cancel()
            await asyncio.wait([joining])
        with _logged("the instance could not be made LEAVING"):
            if joining is not None:
                await self._instance.switch(InstanceState.LEAVING)
        await self._ownership.close()
        for_good = self.downscale.leaving
        ships = for_good or (self._flush_on_shutdown and self._ingester.ready_reason() is None)
        shipped = await self._ship() if ships else False
        self._partitions.remove_owner_on_shutdown = for_good and shipped
        await self._partitions.close()
        if for_good:
            await self._leave_for_good(shipped)
        else:
            await self._instance.close(unregister=self.downscale.unregister_on_shutdown)
        await self._ingester.close()

    async def _ship(self) -> bool:
        """Cut and ship everything held; return whether nothing is left."""
        try:
            await self._ingester.flush(None, wait=True)
        except IngestError as error:
            _log.error("not everything was shipped; the log still has it", err=error.message)
            return False
        return True

    async def _leave_for_good(self, shipped: bool) -> None:
        """Leave the ring and remove the marker, if nothing is left to do before."""
        me = self._instance.registered
        done = shipped and me is not None and not self._watcher.desc.owned_by(me.id)
        await self._instance.close(unregister=done)
        if not done or self._instance.registered is not None:
            _log.error("this instance could not leave for good; its next start takes that up")
            return
        with _logged("the marker of the prepared shutdown could not be removed"):
            self.downscale.finish_shutdown()


@contextlib.contextmanager
def _logged(message: str) -> Iterator[None]:
    try:
        yield
    except (IngestError, PartitionError, OSError) as error:
        _log.warning(message, err=str(error))
