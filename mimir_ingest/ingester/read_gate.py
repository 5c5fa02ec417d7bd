"""Which partitions a read may be answered from, and what it has to wait for first (spec: ingest storage, section 6).

    eventual      what the owner has, at once; with a greatest delay, only if nothing older than that can be missing
    strong        once everything below the demanded offsets is applied, or an error after a while

Only the partitions that a read asks for have to be readable. Waiting takes no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Mapping

from mimir_ingest.errors import LogUnavailable, ReadConsistencyUnmet
from mimir_ingest.ingester.consumer import PartitionConsumer
from mimir_ingest.ingester.reader_health import explain_unreadable
from mimir_ingest.log.contract import PartitionLog
from mimir_ingest.model.frozen import frozen
from mimir_ingest.obs.metrics import StrongReadMetrics
from partitions.errors import OffsetWaitTimeout, PartitionError

_DOUBT_S = 0.5
"""why: what was acknowledged is applied within milliseconds; later, it is worth asking whether the offset exists."""

_LEAST_S = 0.001
"""why: 0 would be for ever."""

_COMPONENT = "partition-reader"


@frozen
class Demand:
    """What a read is to be answered from, and what it must contain."""

    partitions: Collection[int] | None = None
    """To read; None is all that are owned."""
    wait_offsets: Mapping[int, int] | None = None
    """Partition → first offset that need not be contained; those of others are passed over. None: eventual."""
    max_delay_s: float | None = None
    """Age (s) of the newest write that may be missing; counts for eventual reads only."""


ALL_OWNED = Demand()


class ReadGate:
    """Judges reads of the consumers in a mapping that its owner changes. Used from one event loop."""

    def __init__(
        self,
        consumers: Mapping[int, PartitionConsumer],
        partition_log: PartitionLog,
        *,
        timeout_s: float,
        metrics: StrongReadMetrics,
    ) -> None:
        self._consumers = consumers
        self._log = partition_log
        self._timeout_s = timeout_s
        self._metrics = metrics

    def at_hand(self, demand: Demand) -> list[PartitionConsumer] | None:
        """Return what `admit` does, None if that would wait or fail."""
        if demand.wait_offsets is not None:
            return None
        partitions = self._consumers if demand.partitions is None else demand.partitions
        asked = []
        for partition in sorted(partitions):
            consumer = self._consumers.get(partition)
            if consumer is None or not consumer.caught_up or consumer.failed is not None or consumer.state is None:
                return None
            if demand.max_delay_s is not None and consumer.delay_s() > demand.max_delay_s:
                return None
            asked.append(consumer)
        return asked

    async def admit(self, demand: Demand) -> list[PartitionConsumer]:
        """Return the consumers to read from, ascending, once they have what is demanded.

        Raises LogUnavailable for a partition that cannot be read here, ReadConsistencyUnmet.
        """
        wait_offsets = demand.wait_offsets
        partitions = self._consumers if demand.partitions is None else demand.partitions
        asked = [self._readable(p, wait_offsets) for p in sorted(partitions)]
        if wait_offsets is not None:
            await self._wait([(c, wait_offsets[c.partition]) for c in asked if c.partition in wait_offsets])
        elif demand.max_delay_s is not None:
            for consumer in asked:
                await self._check_delay(consumer, demand.max_delay_s)
        return asked

    def _readable(self, partition: int, wait_offsets: Mapping[int, int] | None) -> PartitionConsumer:
        consumer = self._consumers.get(partition)
        if consumer is None:
            raise LogUnavailable(f"the ingester cannot answer: partition {partition} is not owned here")
        reason = explain_unreadable(consumer.facts)
        if reason is None:
            return consumer
        if wait_offsets is None:
            raise LogUnavailable(f"the ingester cannot answer: {reason}")
        state = "Starting" if consumer.failed is None else "Failed"
        raise ReadConsistencyUnmet(
            f"{reason}: wait for read consistency: partition reader service is not running (state: {state})"
        )

    async def _wait(self, demanded: list[tuple[PartitionConsumer, int]]) -> None:
        began = time.monotonic()
        metrics = self._metrics
        metrics.requests.labels(_COMPONENT, "true", metrics.topic).inc()
        waits = [asyncio.create_task(self.wait_consumed(c, offset, self._timeout_s)) for c, offset in demanded]
        try:
            await asyncio.gather(*waits)
        except LogUnavailable:
            metrics.failures.labels(_COMPONENT, metrics.topic).inc()
            raise
        finally:
            for wait in waits:
                wait.cancel()
            metrics.wait_duration_seconds.labels(_COMPONENT, metrics.topic).observe(time.monotonic() - began)

    async def wait_consumed(self, consumer: PartitionConsumer, next_offset: int, timeout_s: float) -> None:
        """Return once the partition's records below `next_offset` can be queried; a time-out of 0 is none.

        Raises ReadConsistencyUnmet in time-out, when the partition is not consumed any more, and for an offset that the
        log does not have; LogUnavailable when the log does not tell.
        """
        offsets, last_offset = consumer.offsets, next_offset - 1
        doubt_s = min(_DOUBT_S, timeout_s) if timeout_s else _DOUBT_S
        try:
            with contextlib.suppress(OffsetWaitTimeout):
                return await offsets.wait(last_offset, timeout_s=doubt_s)
            end_offset = await self._log.end_offset(consumer.partition)
            if next_offset > end_offset:
                raise ReadConsistencyUnmet(
                    f"offset {last_offset} of partition {consumer.partition} is past the log's end {end_offset}"
                )
            await offsets.wait(last_offset, timeout_s=max(_LEAST_S, timeout_s - doubt_s) if timeout_s else 0.0)
        except PartitionError as error:
            raise ReadConsistencyUnmet(error.message) from error

    async def _check_delay(self, consumer: PartitionConsumer, max_delay_s: float) -> None:
        if consumer.delay_s() <= max_delay_s:
            return
        state = consumer.state
        if state is not None and state.next_offset >= await self._log.end_offset(consumer.partition):
            return
        raise ReadConsistencyUnmet(
            f"partition {consumer.partition}: enforce read consistency max delay: "
            "partition reader is lagging behind more than the allowed max delay"
        )
