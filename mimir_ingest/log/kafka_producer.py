"""Appends to Kafka: one idempotent producer at a time, replaced when it cannot be trusted any more.

    append ─► byte gate ─► producer of the present generation ─► acknowledgement

A generation ends when the broker refuses a batch for good (one refused record leaves aiokafka's sequence numbers ahead
of the broker's, and every later send to that partition would fail), or when something was not acknowledged within the
write timeout (an idempotent producer of aiokafka retries for ever, and would deliver after an outage what its writers
have long sent again). Its pending sends fail with LogUnavailable; the next append starts a new generation.

The gate bounds what one produce request can carry: aiokafka puts one batch of every partition that has the same leader
into one request, and a broker drops the connection of a request over 100 MB (`socket.request.max.bytes`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import aiokafka.errors as kafka_errors
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from mimir_ingest.errors import LogUnavailable, RecordTooLarge
from mimir_ingest.log.kafka_cluster import close_quietly

IN_FLIGHT_BYTES = 64 << 20
_BACK_OFF_S = (0.1, 5.0)

log = structlog.get_logger()


class ByteGate:
    """Lets bytes pass while fewer than a limit are inside; one larger than the limit passes alone. First come first."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._inside_bytes = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, size: int) -> None:
        """Wait for room and take it. Cancelled, it takes nothing."""
        if self._queue or not self._fits(size):
            turn = asyncio.get_running_loop().create_future()
            self._queue.append((size, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.leave(size)
                raise
            return
        self._inside_bytes += size

    def leave(self, size: int) -> None:
        """Give room back."""
        self._inside_bytes -= size
        while self._queue and (self._queue[0][1].done() or self._fits(self._queue[0][0])):
            waiting, turn = self._queue.popleft()
            if not turn.done():
                self._inside_bytes += waiting
                turn.set_result(None)

    def _fits(self, size: int) -> bool:
        return self._inside_bytes == 0 or self._inside_bytes + size <= self._limit_bytes


class Generation:
    """One producer and what it has not yet delivered."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.producer = producer
        self.pending: dict[asyncio.Future[Any], float] = {}
        """Unacknowledged sends, oldest first, with the loop's time of sending."""
        self.refused: dict[int, int] = {}
        """Partition to the number of records in the batch that was refused as too large."""
        self.end_reason = ""

    async def abort(self) -> None:
        """Fail what is pending and let go of the producer, without trying to deliver.

        aiokafka's own `stop` first delivers everything, which is what must not happen here; so this reaches into its
        accumulator (0.14), and keeps a request that is still under way from queueing its batch again.
        """
        accumulator = self.producer._message_accumulator
        for batch in [batch for batches in accumulator._batches.values() for batch in batches]:
            batch._drain_waiter.add_done_callback(lambda waiter: waiter.cancelled() or waiter.exception())
        accumulator.reenqueue = lambda batch: None
        accumulator.fail_all(kafka_errors.ProducerClosed())
        stopping = asyncio.ensure_future(close_quietly(self.producer.stop()))
        for _ in range(2):
            if (await asyncio.wait([stopping], timeout=1.0))[0]:
                return
            await close_quietly(self.producer.client.close())
        stopping.cancel()
        await asyncio.wait([stopping])


class KafkaWriter:
    """Owns the producer. `append` from any number of tasks of one loop.

    Parameters
    ----------
    topic : topic to write to
    open_producer : connects a producer; raises LogUnavailable; called again, with back-off, until it succeeds
    write_timeout_s : time after which an unacknowledged record ends the generation
    max_buffered_bytes : bytes that may wait for acknowledgement; past that an append fails at once; 0 is no limit
    report : told of every success (None) and failure (its reason)
    """

    def __init__(
        self,
        topic: str,
        *,
        open_producer: Callable[[], Awaitable[AIOKafkaProducer]],
        write_timeout_s: float,
        max_buffered_bytes: int,
        report: Callable[[str | None], None],
    ) -> None:
        self._topic = topic
        self._open_producer = open_producer
        self._write_timeout_s = write_timeout_s
        self._max_buffered_bytes = max_buffered_bytes
        self._report = report
        self._buffered_bytes = 0
        self._gate = ByteGate(IN_FLIGHT_BYTES)
        self._opening: asyncio.Task[Generation] | None = None
        self._aborts: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._last_reason = ""

    async def append(
        self, partition: int, key: bytes, value: bytes, headers: list[tuple[str, bytes]], *, timeout_s: float
    ) -> int:
        """Send a record; return its offset. Raises LogUnavailable, RecordTooLarge (the broker's own limit)."""
        size = len(value)
        if self._max_buffered_bytes and self._buffered_bytes + size > self._max_buffered_bytes:
            raise LogUnavailable(
                f"{self._buffered_bytes} bytes already wait for Kafka's acknowledgement, "
                f"-ingest-storage.kafka.producer-max-buffered-bytes is {self._max_buffered_bytes}"
            )
        self._buffered_bytes += size
        unsent = size
        try:
            async with asyncio.timeout(timeout_s):
                await self._gate.enter(size)
                try:
                    generation = await self._generation()
                    future = await self._send(generation, partition, key, value, headers)
                except BaseException:
                    self._gate.leave(size)
                    raise
                unsent = 0  # from here on the acknowledgement gives the bytes back, not this call
                future.add_done_callback(lambda done: self._on_done(generation, partition, size, done))
                return await self._acknowledged(generation, partition, size, future)
        except TimeoutError:
            reason = f"not acknowledged within {timeout_s:g} s"
            self._report(reason)
            detail = f" ({self._last_reason})" if self._last_reason else ""
            raise LogUnavailable(f"Kafka: {reason}{detail}") from None
        finally:
            self._buffered_bytes -= unsent

    async def close(self) -> None:
        """Deliver what is pending, within the write timeout; then let go. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if (generation := self._present()) is not None:
            if generation.pending:
                await asyncio.wait(generation.pending, timeout=self._write_timeout_s)
            generation.end_reason = "the log is closed"
            await generation.abort()
        elif self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self._aborts:
            await asyncio.wait(self._aborts)

    async def _generation(self) -> Generation:
        if self._closed:
            raise LogUnavailable("the Kafka log is closed")
        if self._opening is None or (self._opening.done() and self._present() is None):
            self._opening = asyncio.create_task(self._open(), name="kafka-producer-open")
        return await asyncio.shield(self._opening)

    def _present(self) -> Generation | None:
        """Return the generation that is open, if one is."""
        opening = self._opening
        if opening is None or not opening.done() or opening.cancelled() or opening.exception() is not None:
            return None
        return opening.result()

    async def _open(self) -> Generation:
        pause_s = _BACK_OFF_S[0]
        while True:
            try:
                return Generation(await self._open_producer())
            except LogUnavailable as error:
                self._last_reason = error.message
                self._report(error.message)
                if not error.retriable:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _BACK_OFF_S[1])

    async def _send(
        self, generation: Generation, partition: int, key: bytes, value: bytes, headers: list[tuple[str, bytes]]
    ) -> asyncio.Future[Any]:
        try:
            known = await generation.producer.partitions_for(self._topic)
            if partition not in known:  # the topic may have grown since the metadata came
                await generation.producer.client.force_metadata_update()
                known = await generation.producer.partitions_for(self._topic)
            if partition not in known:
                raise LogUnavailable(f"Kafka: topic {self._topic} has no partition {partition}, it has {len(known)}")
            future = await generation.producer.send(
                self._topic, value=value, key=key, partition=partition, headers=headers
            )
        except (KafkaError, OSError) as error:
            raise self._end(generation, error) from error
        generation.pending[future] = asyncio.get_running_loop().time()
        self._watch(generation)
        return future

    async def _acknowledged(
        self, generation: Generation, partition: int, size: int, future: asyncio.Future[Any]
    ) -> int:
        try:
            offset = (await asyncio.shield(future)).offset
        except kafka_errors.MessageSizeTooLargeError as error:
            ended = self._end(generation, error)
            if generation.refused.get(partition) == 1:
                raise RecordTooLarge(
                    f"Kafka refused a record of {size} bytes: topic {self._topic} has a smaller max.message.bytes"
                ) from error
            raise ended from error
        except KafkaError as error:
            raise self._end(generation, error) from error
        if offset < 0:
            raise LogUnavailable("Kafka stored the record before, but does not know its offset any more")
        self._last_reason = ""
        self._report(None)
        return offset

    def _on_done(self, generation: Generation, partition: int, size: int, future: asyncio.Future[Any]) -> None:
        generation.pending.pop(future, None)
        self._buffered_bytes -= size
        self._gate.leave(size)
        if not future.cancelled() and isinstance(future.exception(), kafka_errors.MessageSizeTooLargeError):
            generation.refused[partition] = generation.refused.get(partition, 0) + 1

    def _end(self, generation: Generation, error: BaseException) -> LogUnavailable:
        """End a generation, unless it is already; return what its callers are told."""
        first = not generation.end_reason
        if first:
            generation.end_reason = str(error) or type(error).__name__
            self._last_reason = generation.end_reason
            self._report(generation.end_reason)
            log.warning("the Kafka producer is replaced", topic=self._topic, reason=generation.end_reason)
            if self._present() is generation:
                self._opening = None
            abort = asyncio.create_task(generation.abort(), name="kafka-producer-abort")
            self._aborts.add(abort)
            abort.add_done_callback(self._aborts.discard)
        return LogUnavailable(f"Kafka: the producer was replaced: {generation.end_reason}")

    def _watch(self, generation: Generation) -> None:
        """Keep a timer running while anything is pending."""
        if self._timer is None and generation.pending:
            loop = asyncio.get_running_loop()
            oldest = next(iter(generation.pending.values()))
            self._timer = loop.call_at(oldest + self._write_timeout_s, self._check_age, generation)

    def _check_age(self, generation: Generation) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        if generation.pending and next(iter(generation.pending.values())) + self._write_timeout_s <= now:
            self._end(generation, TimeoutError(f"nothing acknowledged for {self._write_timeout_s:g} s"))
            return
        self._watch(generation)
