"""The ring in a Kafka topic of its own: one partition, compacted, so Kafka keeps the newest record of each key.

A record's Kafka key is `<entry key> TAB <writer>`, its value the entry, or none. A position is an offset. A producer
(acks=all, idempotent) is replaced after any error: one refused record leaves aiokafka's sequence numbers ahead of the
broker's, and an unacknowledged one would be delivered after an outage, when its writer has long sent something newer.

The topic is created on first use. One that exists is taken only if compaction alone cleans it and it has one partition:
retention would forget entries that nobody changes, and a second partition has no order with the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import aiokafka.errors as kafka_errors
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from partitions.errors import RingPositionLost, RingUnavailable
from partitions.kv.contract import RingRecord, RingStore

TOPIC_SETTINGS = {"cleanup.policy": "compact", "segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1"}
"""Of a created topic: a segment can be compacted ten minutes after its first record, and is before it is a tenth."""
FETCH_MAX_WAIT_S = 0.5
# why: how long a broker holds back an empty fetch; a new record ends it at once, but so long may a move of the
# consumer take.
_METADATA_MAX_AGE_MS = 10_000
_SEPARATOR = "\t"
_REFUSALS = (
    kafka_errors.AuthenticationFailedError,
    kafka_errors.SaslAuthenticationFailed,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.InvalidTopicError,
    kafka_errors.InvalidReplicationFactorError,
    kafka_errors.InvalidConfigurationError,
    kafka_errors.PolicyViolationError,
    ssl.SSLCertVerificationError,
)

log = structlog.get_logger()
Result = TypeVar("Result")


class KafkaRingStore(RingStore):
    """See `RingStore`. Owns a consumer, a producer and their tasks from `start` to `close`.

    Parameters
    ----------
    addresses : seed brokers, `host:port`, comma-separated
    topic : name of the ring's topic
    topic_flag : flag of this program that names it
    client_arguments : TLS and SASL, as keyword arguments of aiokafka's clients
    client_id : sent to Kafka with every request
    timeout_s : time for each answer, and for an append to be acknowledged
    """

    def __init__(
        self,
        addresses: str,
        topic: str,
        *,
        topic_flag: str = "-ingest-storage.kafka.ring-topic",
        client_arguments: Mapping[str, Any] | None = None,
        client_id: str = "mimir-ingest-ring",
        timeout_s: float = 10.0,
    ) -> None:
        self._topic, self._topic_flag = topic, topic_flag
        self._timeout_s = timeout_s
        self._arguments: dict[str, Any] = {
            **(client_arguments or {}),
            "bootstrap_servers": addresses.replace(" ", ""),
            "client_id": client_id,
            "request_timeout_ms": int(timeout_s * 1000),
            "metadata_max_age_ms": _METADATA_MAX_AGE_MS,
        }
        self._partition = TopicPartition(topic, 0)
        self._open = False
        self._consumer: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None
        self._lookup: AIOKafkaConsumer | None = None
        self._appending = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """See RingStore. Creates the topic if there is none, and judges one that exists."""
        with self._renamed_errors("opening it"):
            async with asyncio.timeout(self._timeout_s * 2):
                admin = AIOKafkaAdminClient(**self._arguments)
                try:
                    await admin.start()
                    await self._ensure_topic(admin)
                finally:
                    await _quietly(admin.close())
        self._open = True

    async def close(self) -> None:
        """See RingStore."""
        self._open = False
        for client in (self._consumer, self._lookup):
            if client is not None:
                self._let_go(client.stop())
        self._drop_producer()
        self._consumer = self._lookup = None
        if self._closing:
            await asyncio.wait(self._closing)

    async def append(self, records: Sequence[RingRecord]) -> int:
        """See RingStore. Cancelled, some may be stored."""
        async with self._appending:
            self._check_open()
            sent: list[asyncio.Future[Any]] = []
            try:
                with self._renamed_errors("appending"):
                    async with asyncio.timeout(self._timeout_s):
                        if self._producer is None:
                            self._producer = await self._start_client(self._new_producer())
                        for record in records:
                            key = f"{record.key}{_SEPARATOR}{record.writer}".encode()
                            sent.append(await self._producer.send(self._topic, record.value, key=key, partition=0))
                        offsets = [(await future).offset for future in sent]
            except BaseException:
                for future in sent:
                    future.add_done_callback(lambda done: done.cancelled() or done.exception())
                self._drop_producer()
                raise
        if not offsets:
            return await self.end()
        if min(offsets) < 0:
            raise RingUnavailable("Kafka stored ring records before, but does not know their offsets any more")
        return max(offsets) + 1

    async def read(self, position: int, *, max_wait_s: float) -> tuple[list[RingRecord], int]:
        """See RingStore."""
        self._check_open()
        try:
            with self._renamed_errors("reading"):
                consumer = self._consumer
                if consumer is None:
                    consumer = self._consumer = await self._consumer_at(position)
                elif position != await consumer.position(self._partition):
                    consumer.seek(self._partition, position or await self._start_offset(consumer))
                found = await consumer.getmany(self._partition, timeout_ms=int(max_wait_s * 1000))
                self._check_open()
                next_position = await consumer.position(self._partition)
            return [_decode(record) for record in found.get(self._partition, ())], next_position
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # aiokafka moves on past records that it never handed out, after an error inside a batch
            consumer, self._consumer = self._consumer, None
            if consumer is not None:
                self._let_go(consumer.stop())
            if isinstance(error.__cause__, kafka_errors.OffsetOutOfRangeError):
                raise RingPositionLost(position=position, end=await self.end()) from error
            raise

    async def end(self) -> int:
        """See RingStore."""

        async def ask(client: AIOKafkaConsumer) -> int:
            return (await client.end_offsets([self._partition]))[self._partition]

        return await self._ask("finding its end", ask)

    async def _ensure_topic(self, admin: AIOKafkaAdminClient) -> None:
        if self._topic not in await admin.list_topics():
            await self._create_topic(admin)
        [described] = await admin.describe_topics([self._topic])
        while [partition["leader"] for partition in described["partitions"]] in ([], [-1]):
            await asyncio.sleep(0.1)
            [described] = await admin.describe_topics([self._topic])
        if (count := len(described["partitions"])) != 1:
            raise RingUnavailable(
                f"Kafka topic {self._topic} has {count} partitions, the ring's topic has to have one; set another "
                f"{self._topic_flag}, or delete the topic while nothing runs",
                retriable=False,
            )
        try:
            settings = await _read_settings(admin, ConfigResource(ConfigResourceType.TOPIC, self._topic))
        except KafkaError as error:
            log.warning("the ring topic's settings cannot be read", topic=self._topic, reason=str(error))
            return
        if (policy := settings.get("cleanup.policy", "compact")) != "compact":
            raise RingUnavailable(
                f"Kafka topic {self._topic} has cleanup.policy={policy}, which loses the ring; set it to compact "
                f"(kafka-configs.sh --alter --entity-type topics --entity-name {self._topic} "
                "--add-config cleanup.policy=compact)",
                retriable=False,
            )

    async def _create_topic(self, admin: AIOKafkaAdminClient) -> None:
        """Create the topic; that another process was faster is fine."""
        brokers = [broker["node_id"] for broker in (await admin.describe_cluster())["brokers"]]
        try:
            settings = await _read_settings(admin, ConfigResource(ConfigResourceType.BROKER, str(brokers[0])))
            replicas = int(settings["default.replication.factor"])
        except KafkaError:  # why: describing a broker takes a right on the whole cluster
            replicas = min(3, len(brokers))
        wanted = {**TOPIC_SETTINGS, **({"min.insync.replicas": "2"} if replicas >= 3 else {})}
        topic = NewTopic(self._topic, num_partitions=1, replication_factor=replicas, topic_configs=wanted)
        answer = await admin.create_topics([topic])
        for _, code, message in answer.topic_errors:
            error = kafka_errors.for_code(code)
            if error is kafka_errors.TopicAlreadyExistsError:
                return
            if code:
                raise error(message)
        log.info("created the ring's Kafka topic", topic=self._topic, replicas=replicas, **wanted)

    async def _consumer_at(self, position: int) -> AIOKafkaConsumer:
        consumer = await self._start_client(self._new_consumer())
        try:
            consumer.assign([self._partition])
            consumer.seek(self._partition, position or await self._start_offset(consumer))
        except BaseException:
            self._let_go(consumer.stop())
            raise
        return consumer

    async def _start_offset(self, consumer: AIOKafkaConsumer) -> int:
        return (await consumer.beginning_offsets([self._partition]))[self._partition]

    async def _ask(self, doing: str, ask: Callable[[AIOKafkaConsumer], Awaitable[Result]]) -> Result:
        """Ask over a client of its own: the reader's would answer only after its long poll."""
        async with self._looking:
            self._check_open()
            try:
                with self._renamed_errors(doing):
                    async with asyncio.timeout(self._timeout_s):
                        if self._lookup is None:
                            self._lookup = await self._start_client(self._new_consumer())
                        return await ask(self._lookup)
            except asyncio.CancelledError:
                raise
            except BaseException:
                lookup, self._lookup = self._lookup, None
                if lookup is not None:
                    self._let_go(lookup.stop())
                raise

    async def _start_client(self, client: Any) -> Any:
        try:
            await client.start()
            self._check_open()
        except BaseException:
            self._let_go(client.stop())
            raise
        return client

    def _new_producer(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(acks="all", enable_idempotence=True, **self._arguments)

    def _new_consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=int(FETCH_MAX_WAIT_S * 1000),
            **self._arguments,
        )

    def _drop_producer(self) -> None:
        """Let go of the producer without delivering what it still holds.

        Its `stop` first delivers everything, which must not happen here; so this reaches into its accumulator (aiokafka
        0.14), and keeps a request that is under way from queueing its batch again.
        """
        producer, self._producer = self._producer, None
        if producer is None:
            return
        accumulator = producer._message_accumulator
        for batch in [batch for batches in accumulator._batches.values() for batch in batches]:
            batch._drain_waiter.add_done_callback(lambda waiter: waiter.cancelled() or waiter.exception())
        accumulator.reenqueue = lambda batch: None
        accumulator.fail_all(kafka_errors.ProducerClosed())

        async def release() -> None:
            stopping = asyncio.ensure_future(_quietly(producer.stop()))
            for _ in range(2):
                if (await asyncio.wait([stopping], timeout=1.0))[0]:
                    return
                await _quietly(producer.client.close())
            stopping.cancel()
            await asyncio.wait([stopping])

        self._let_go(release())

    def _let_go(self, closing: Awaitable[Any]) -> None:
        task = asyncio.create_task(_quietly(closing), name="ring-kafka-close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _check_open(self) -> None:
        if not self._open:
            raise RingUnavailable("the ring store is not open")

    @contextmanager
    def _renamed_errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except kafka_errors.ConsumerStoppedError as error:
            raise RingUnavailable("the ring store is closed") from error
        except (KafkaError, OSError, TimeoutError) as error:
            text = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
            raise RingUnavailable(
                f"the ring in topic {self._topic} of Kafka at {self._arguments['bootstrap_servers']}: {doing}: {text}",
                retriable=not isinstance(error, _REFUSALS),
            ) from error


async def _read_settings(admin: AIOKafkaAdminClient, of: ConfigResource) -> dict[str, str]:
    """Return the settings of a topic or a broker."""
    [answer] = await admin.describe_configs([of])
    code, message, _, _, entries = answer.resources[0]
    if code:
        raise kafka_errors.for_code(code)(message)
    return {entry[0]: entry[1] for entry in entries}


def _decode(record: Any) -> RingRecord:
    key, separator, writer = (record.key or b"").decode(errors="replace").rpartition(_SEPARATOR)
    if not separator or not key or not writer:
        raise RingUnavailable(
            f"offset {record.offset} of Kafka topic {record.topic} holds no record of a ring (its key is "
            f"{record.key!r}): another program writes to the topic",
            retriable=False,
        )
    return RingRecord(key, writer, record.value)


async def _quietly(closing: Awaitable[Any]) -> None:
    """Wait for a client of aiokafka to close; what it still complains about does not matter any more."""
    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        await closing
