"""What a request's consistency means in offsets, worked out once for all of its reads (spec ingest-storage 6.2).

    strong     view of the ring brought to the store's end ─► the tenant's partitions ─► their log ends, asked now
    offsets    exactly those that were presented, each at most the log's end

The owners do the waiting. A partition that is gone is satisfied by its last checkpoint: then its blocks are demanded.
"""

from __future__ import annotations

import time

from mimir_ingest.errors import IngestError, LogUnavailable, PartitionsUnreadable, QueryError
from mimir_ingest.ingester.drain import DrainProbe
from mimir_ingest.log.contract import PartitionLog
from mimir_ingest.obs.metrics import StrongReadMetrics
from mimir_ingest.obs.querier_metrics import OffsetLookupMetrics
from mimir_ingest.querier.checkpoint_cuts import CheckpointCuts
from mimir_ingest.querier.consistency import Level
from mimir_ingest.querier.log_ends import LogEnds
from mimir_ingest.querier.reading import Reading
from mimir_ingest.querier.ring_view import RingView
from partitions.errors import PartitionError

_COMPONENT = "query-frontend"
"""Mimir's name for where offsets are determined."""


class EndUnknown(LogUnavailable):
    """The log or the ring did not say what a strong read has to wait for."""

    error_id = "last-produced-offsets"


class Demands:
    """Fills in what readings have to contain. Used from one event loop."""

    def __init__(
        self,
        ring: RingView,
        partition_log: PartitionLog,
        *,
        topic: str,
        checkpoints: CheckpointCuts,
        drains: DrainProbe,
        metrics: StrongReadMetrics,
        lookups: OffsetLookupMetrics,
    ) -> None:
        self._ring, self._log, self._topic = ring, partition_log, topic
        self._ends = LogEnds(partition_log, lookups.looked_up)
        self._checkpoints, self._drains = checkpoints, drains
        self._metrics = metrics

    async def prepare(self, tenant: str, reading: Reading) -> None:
        """Fill in a reading; the second call does nothing.

        Raises QueryError (400) for offsets that do not exist, EndUnknown, PartitionsUnreadable, and what reading a
        checkpoint raises.
        """
        consistency = reading.consistency
        if reading.needs_preparing:
            began = time.monotonic()
            metrics = self._metrics
            metrics.requests.labels(_COMPONENT, "true" if consistency.offsets else "false", metrics.topic).inc()
            try:
                await self._prepare(tenant, reading)
            except (IngestError, PartitionError):
                metrics.failures.labels(_COMPONENT, metrics.topic).inc()
                raise
            finally:
                metrics.wait_duration_seconds.labels(_COMPONENT, metrics.topic).observe(time.monotonic() - began)
        reading.prepared = True

    async def _prepare(self, tenant: str, reading: Reading) -> None:
        presented = reading.consistency.offsets
        wanted: frozenset[int] = frozenset()
        try:
            strong = reading.consistency.level is Level.STRONG
            if strong or presented.keys() - self._ring.desc.partitions.keys():
                await self._ring.refresh()
            if strong:
                wanted = self._ring.partitions_of(tenant)
            here = frozenset(p for p in presented if p in self._ring.desc.partitions)
            doubted = {p for p in here if presented[p] >= self._ends.known(p)}
            ends = await self._ends.lookup((wanted - presented.keys()) | doubted)
        except (LogUnavailable, PartitionError) as error:
            raise EndUnknown(f"wait for last produced offsets of topic '{self._topic}': {error.message}") from error
        for partition in doubted:
            _check_exists(partition, presented[partition], ends[partition])
        reading.wait_offsets = {p: presented[p] + 1 if p in presented else end for p, end in ends.items()}
        reading.wait_offsets |= {p: presented[p] + 1 for p in here}
        reading.demanded = here
        for partition in presented.keys() - here:
            await self._satisfy_gone(tenant, reading, partition, presented[partition])

    async def _satisfy_gone(self, tenant: str, reading: Reading, partition: int, last_offset: int) -> None:
        """Demand the blocks of a partition that is not in the ring."""
        if last_offset < 0:
            return
        if partition not in await self._log.partitions():
            raise QueryError(f"partition {partition} does not exist", error_type="bad_data")
        drain = await self._drains.probe(partition)
        _check_exists(partition, last_offset, drain.end_offset)
        if not drain.drained:
            raise PartitionsUnreadable({partition: "it is not in the ring, and not all of it is in the bucket"})
        if drain.cut_offset is not None:
            reading.handed_over += await self._checkpoints.of(tenant, {partition: drain.cut_offset})
        reading.saw({partition: drain.end_offset})


def _check_exists(partition: int, last_offset: int, end_offset: int) -> None:
    if last_offset >= end_offset:
        raise QueryError(
            f"offset {last_offset} of partition {partition} is past the end of the log, which is {end_offset}",
            error_type="bad_data",
        )
