"""What the downscale endpoints of an ingester do (spec: ingest storage, section 7); the HTTP routes stand on it.

    /ingester/prepare-partition-downscale   GET      await partition_downscale(partition)
                                            POST     await prepare_partition_downscale(partition)
                                            DELETE   await cancel_partition_downscale(partition)
    /ingester/prepare-shutdown              GET      shutdown_prepared()
                                            POST     prepare_shutdown()
    /ingester/unregister-on-shutdown        GET      unregister_on_shutdown
                                            PUT      unregister_on_shutdown = …
                                            DELETE   reset_unregister_on_shutdown()

`partition` is None for what the instance owns: the partition of the number at the end of its id, or its leases
(`lease_downscale`). Refusals carry `http_status` and the text of the answer's body. What a shutdown then does is
`membership`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Gauge

from mimir_ingest.errors import IngestError
from mimir_ingest.ingester.drain import Drain, DrainProbe
from mimir_ingest.ingester.lease_downscale import (
    InstanceDownscale,
    deactivate,
    describe_instance,
    reactivate,
    stay,
    withdraw,
)
from mimir_ingest.ingester.ownership_plan import OwnershipKnobs
from mimir_ingest.ingester.shutdown_marker import ShutdownMarker
from partitions.errors import PartitionDoesNotExist
from partitions.model import PartitionState, RingDesc
from partitions.watch import RingWatcher

_PROBE_S = 3.0
"""why: the rollout operator allows 5 s for the answer, and needs only the time in it."""


@dataclass(frozen=True, slots=True)
class PartitionDownscale:
    """How far a partition is on its way out."""

    partition: int
    state: PartitionState
    timestamp_s: int
    """When it became INACTIVE (Unix seconds); 0 if it is not."""
    fenced: bool = False
    """Whether it was INACTIVE so long that nothing more is acknowledged to it."""
    drain: Drain | None = None
    """What is left to ship; None while it is not INACTIVE, and when that could not be told."""
    drain_error: str | None = None
    """Why it could not be told."""

    @property
    def drained(self) -> bool:
        """Whether the partition and its owners may go now."""
        return self.fenced and self.drain is not None and self.drain.drained

    def to_json(self) -> dict[str, int | str | bool | None]:
        """Return the body of an answer: Mimir's `timestamp`, and how far the drain is."""
        body: dict[str, int | str | bool | None] = {
            "timestamp": self.timestamp_s,
            "partition": self.partition,
            "state": self.state.name,
        }
        if self.state is not PartitionState.INACTIVE:
            return body
        body |= {"fenced": self.fenced, "drained": self.drained}
        if self.drain is None:
            return body | {"drain_error": self.drain_error}
        return body | {"log_end_offset": self.drain.end_offset, "cut_offset": self.drain.cut_offset}


class Downscale:
    """State of the endpoints of one ingester. Used from one event loop.

    Parameters
    ----------
    knobs : who the instance is, and whether its partition is that of its id or it has leases
    fenced : tells whether nothing is acknowledged to a partition any more
    unregister_by_default : `ingester.ring.unregister_on_shutdown`
    requested : gauge `cortex_ingester_prepare_shutdown_requested`
    """

    def __init__(
        self,
        watcher: RingWatcher,
        marker: ShutdownMarker,
        probe: DrainProbe,
        *,
        knobs: OwnershipKnobs,
        fenced: Callable[[int], bool],
        unregister_by_default: bool,
        requested: Gauge,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._watcher = watcher
        self._marker = marker
        self._probe = probe
        self._knobs = knobs
        self._fenced = fenced
        self._unregister_by_default = unregister_by_default
        self._requested = requested
        self._now_ms = now_ms
        self.unregister_on_shutdown = unregister_by_default
        """Whether the instance leaves its ring when the process stops."""
        self.leaving = False
        """Whether a shutdown ships everything and gives up all partitions, and no partition is created at the start."""

    def load(self) -> None:
        """Take up a shutdown that was prepared before the process started. Raises OSError."""
        if self._marker.exists():
            self._prepare()

    # --- one partition ----------------------------------------------------------------------------------------------

    async def partition_downscale(self, partition: int | None = None) -> PartitionDownscale | InstanceDownscale:
        """Return how far a partition, or the instance with its leases, is on its way out.

        Raises PartitionDoesNotExist.
        """
        number = self._number(partition)
        if number is None:
            return describe_instance(self._watcher.desc, self._knobs.instance)
        return await self._describe(self._watcher.desc, number)

    async def prepare_partition_downscale(self, partition: int | None = None) -> PartitionDownscale | InstanceDownscale:
        """Make a partition INACTIVE, or have the instance's leases taken over; what is so keeps its time.

        Raises DownscaleRefused (PENDING), StateChangeLocked, PartitionDoesNotExist, RingUnavailable.
        """
        number, me, timeout_ms = self._number(partition), self._knobs.instance, self._knobs.heartbeat_timeout_ms
        if number is None:
            desc = await self._watcher.change(lambda desc: withdraw(desc, me, self._now_ms(), timeout_ms))
            return describe_instance(desc, me)
        desc = await self._watcher.change(lambda desc: deactivate(desc, number, self._now_ms()))
        return await self._describe(desc, number)

    async def cancel_partition_downscale(self, partition: int | None = None) -> PartitionDownscale | InstanceDownscale:
        """Make an INACTIVE partition ACTIVE again, or give the instance leases again.

        Raises as `prepare_partition_downscale`.
        """
        number, me = self._number(partition), self._knobs.instance
        if number is None:
            desc = await self._watcher.change(lambda desc: stay(desc, me, self._now_ms()))
            return describe_instance(desc, me)
        desc = await self._watcher.change(lambda desc: reactivate(desc, number, self._now_ms()))
        return await self._describe(desc, number)

    def _number(self, partition: int | None) -> int | None:
        return self._knobs.own_partition if partition is None else partition

    async def _describe(self, desc: RingDesc, number: int) -> PartitionDownscale:
        partition = desc.partitions.get(number)
        if partition is None:
            raise PartitionDoesNotExist(number)
        if partition.state is not PartitionState.INACTIVE:
            return PartitionDownscale(number, partition.state, 0)
        since_s = partition.state_timestamp_ms // 1000
        # The fence first: what is drained behind it stays so.
        fenced = self._fenced(number)
        try:
            async with asyncio.timeout(_PROBE_S):
                drain = await self._probe.probe(number)
        except IngestError as error:
            return PartitionDownscale(number, partition.state, since_s, fenced, drain_error=error.message)
        except TimeoutError:
            late = f"log and bucket did not answer within {_PROBE_S:g} s"
            return PartitionDownscale(number, partition.state, since_s, fenced, drain_error=late)
        return PartitionDownscale(number, partition.state, since_s, fenced, drain)

    # --- the whole instance -----------------------------------------------------------------------------------------

    def shutdown_prepared(self) -> bool:
        """Whether the marker is there. Raises OSError."""
        return self._marker.exists()

    def prepare_shutdown(self) -> None:
        """Make the next shutdown the last one: everything is shipped, all partitions and the ring are left.

        Survives a restart of the process. Raises OSError.
        """
        self._marker.create(self._now_ms())
        self._prepare()

    def _prepare(self) -> None:
        self.leaving = self.unregister_on_shutdown = True
        self._requested.set(1)

    def reset_unregister_on_shutdown(self) -> None:
        """Go back to what is configured."""
        self.unregister_on_shutdown = self._unregister_by_default

    def finish_shutdown(self) -> None:
        """Remove the marker: what it asked for is done. Raises OSError."""
        self._marker.remove()
