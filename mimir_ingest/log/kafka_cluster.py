"""Everything asked of Kafka besides records: connections, the topic, offsets, groups' positions.

One aiokafka client, made anew from the seed addresses whenever it stops answering. Every operation is retried with
back-off within its own time and fails with LogUnavailable. What waiting cannot mend (a wrong password, a topic that
must not be created) is a LogUnavailable whose `retriable` is false.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import aiokafka.errors as kafka_errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import CreatePartitionsRequest, DescribeConfigsRequest
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

from mimir_ingest.errors import LogUnavailable
from mimir_ingest.log.kafka_protocol import (
    NO_ERROR,
    NO_LEADER,
    NO_SUCH_TOPIC,
    CreateTopicRequest,
    TopicDescription,
    TopicMetadataRequest,
    describe_topic,
)

EARLIEST, LATEST = -2, -1
"""Timestamps that ListOffsets takes for a partition's start and end."""
METADATA_MAX_AGE_MS = 10_000
# why: Mimir's clients refresh metadata at this constant rate.
_RETRY_S = 0.1
_RESOURCE_TOPIC, _RESOURCE_BROKER = 2, 4
_REFUSALS = (
    kafka_errors.AuthenticationFailedError,
    kafka_errors.SaslAuthenticationFailed,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.InvalidTopicError,
    kafka_errors.InvalidPartitionsError,
    kafka_errors.InvalidReplicationFactorError,
    kafka_errors.InvalidConfigurationError,
    kafka_errors.PolicyViolationError,
    kafka_errors.IncompatibleBrokerVersion,
)

Result = TypeVar("Result")


def describe_error(doing: str, error: BaseException) -> LogUnavailable:
    """Return the error to raise for one of aiokafka's or of the connection."""
    text = str(error) or type(error).__name__
    renamed = LogUnavailable(f"Kafka: {doing}: {text}")
    renamed.retriable = not isinstance(error, (*_REFUSALS, ssl.SSLCertVerificationError, NotImplementedError))
    return renamed


@contextmanager
def renamed_errors(doing: str) -> Iterator[None]:
    """Raise errors of aiokafka and of sockets as LogUnavailable."""
    try:
        yield
    except (KafkaError, OSError, TimeoutError, NotImplementedError) as error:
        raise describe_error(doing, error) from error


def raise_for_code(code: int, detail: str | None = None) -> None:
    """Raise aiokafka's error of a code in an answer; 0 is none."""
    if code:
        error = kafka_errors.for_code(code)
        raise error(detail) if detail else error()


class KafkaCluster:
    """Created closed. `connect` before anything else; reconnects by itself afterwards."""

    def __init__(
        self,
        addresses: str,
        *,
        client_id: str,
        dial_timeout_s: float,
        request_timeout_s: float,
        security_arguments: dict[str, Any],
    ) -> None:
        self._addresses = addresses
        self._client_id = client_id
        self._dial_timeout_s = dial_timeout_s
        self._request_timeout_s = request_timeout_s
        self._security_arguments = security_arguments
        self._client: AIOKafkaClient | None = None
        self._connecting = asyncio.Lock()
        self._coordinators: dict[str, int] = {}

    async def connect(self) -> AIOKafkaClient:
        """Return the client, connected. One attempt; raises LogUnavailable."""
        async with self._connecting:
            if self._client is None:
                seed = await self.probe()
                client = AIOKafkaClient(
                    bootstrap_servers=seed,
                    client_id=self._client_id,
                    metadata_max_age_ms=METADATA_MAX_AGE_MS,
                    request_timeout_ms=int(self._request_timeout_s * 1000),
                    **self._security_arguments,
                )
                try:
                    with renamed_errors(f"connecting to {seed}"):
                        await client.bootstrap()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            return self._client

    async def close(self) -> None:
        """Close the connections. Idempotent; the next operation connects again."""
        client, self._client = self._client, None
        self._coordinators.clear()
        if client is not None:
            await client.close()

    async def probe(self) -> str:
        """Return the first seed address that lets us in, trying each for the dial timeout.

        Raises LogUnavailable with every address's own reason. aiokafka's clients keep such reasons to their log, and
        know no dial timeout.
        """
        reasons: list[LogUnavailable] = []
        for host, port, _ in collect_hosts(self._addresses.replace(" ", ""), randomize=False):
            try:
                with renamed_errors(f"connecting to {host}:{port}"):
                    async with asyncio.timeout(self._dial_timeout_s * 2):
                        connection = await create_conn(
                            host,
                            port,
                            client_id=self._client_id,
                            request_timeout_ms=int(self._dial_timeout_s * 1000),
                            **self._security_arguments,
                        )
                        await self._prove(connection)
                connection.close()
                return f"{host}:{port}"
            except LogUnavailable as reason:
                reasons.append(reason)
        refused = [reason for reason in reasons if not reason.retriable]
        error = LogUnavailable("; ".join(reason.message for reason in refused or reasons))
        error.retriable = not refused
        raise error from reasons[-1]

    async def _prove(self, connection: AIOKafkaConnection) -> None:
        """Ask something over a new connection. A broker that refuses a token answers later requests with nothing in
        them, or hangs up; aiokafka takes the refusal itself for a success.
        """
        try:
            if not (await connection.send(MetadataRequest([]))).brokers:
                raise kafka_errors.MetadataEmptyBrokerList("the broker names no brokers")
        except KafkaError as error:
            connection.close()
            if self._security_arguments.get("sasl_mechanism") == "OAUTHBEARER":
                raise kafka_errors.AuthenticationFailedError("authentication failed: the token was refused") from error
            raise

    async def describe_topic(self, topic: str, *, timeout_s: float) -> TopicDescription:
        """Return the topic's id and partitions."""

        async def run(client: AIOKafkaClient) -> TopicDescription:
            return await self._describe(client, topic)

        return await self._retried(f"reading the metadata of topic {topic}", run, timeout_s=timeout_s)

    async def create_topic(self, topic: str, *, partitions: int, settings: dict[str, str], timeout_s: float) -> None:
        """Create the topic with the broker's replication factor; one that exists is fine. Raises LogUnavailable."""

        async def run(client: AIOKafkaClient) -> None:
            request = CreateTopicRequest(
                topic,
                partitions=partitions,
                replication_factor=-1,
                settings=settings,
                timeout_ms=int(self._request_timeout_s * 1000),
            )
            answer = await client.send(self._any_node(client), request)
            for _, code, message in answer.topic_errors:
                if kafka_errors.for_code(code) is not kafka_errors.TopicAlreadyExistsError:
                    raise_for_code(code, message)

        await self._retried(f"creating topic {topic}", run, timeout_s=timeout_s)

    async def create_partitions(self, topic: str, *, total: int, timeout_s: float) -> None:
        """Make the topic have `total` partitions, placed by Kafka. Raises LogUnavailable, also if it has as many."""

        async def run(client: AIOKafkaClient) -> None:
            request = CreatePartitionsRequest([(topic, (total, None))], int(self._request_timeout_s * 1000), False)
            answer = await client.send(self._any_node(client), request)
            for _, code, message in answer.topic_errors:
                raise_for_code(code, message)

        await self._retried(f"adding partitions to topic {topic}", run, timeout_s=timeout_s)

    async def topic_settings(self, topic: str, *, timeout_s: float) -> dict[str, str]:
        """Return the topic's effective settings."""
        return await self._settings(_RESOURCE_TOPIC, topic, timeout_s=timeout_s)

    async def broker_settings(self, *, timeout_s: float) -> dict[str, str]:
        """Return one broker's settings."""
        return await self._settings(_RESOURCE_BROKER, "", timeout_s=timeout_s)

    async def list_offset(self, topic: str, partition: int, timestamp_ms: int, *, timeout_s: float) -> int:
        """Return the first offset stamped at or after `timestamp_ms` (or EARLIEST, LATEST); -1 if there is none."""

        async def run(client: AIOKafkaClient) -> int:
            description = await self._describe(client, topic)
            if partition not in description.leaders:
                raise kafka_errors.UnknownTopicOrPartitionError(f"there is no partition {partition}")
            if description.leaders[partition] < 0:
                raise kafka_errors.LeaderNotAvailableError
            request = OffsetRequest(-1, 0, [(topic, [(partition, timestamp_ms)])])
            answer = await client.send(description.leaders[partition], request)
            _, [(_, code, _, offset)] = answer.topics[0]
            raise_for_code(code)
            return offset

        return await self._retried(f"finding an offset of {topic}/{partition}", run, timeout_s=timeout_s)

    async def commit(self, group: str, topic: str, partition: int, next_offset: int, *, timeout_s: float) -> None:
        """Store a group's position without being a member of it."""
        request = OffsetCommitRequest(group, -1, "", -1, [(topic, [(partition, next_offset, "")])])

        async def run(client: AIOKafkaClient) -> None:
            answer = await self._ask_coordinator(client, group, request)
            _, [(_, code)] = answer.topics[0]
            raise_for_code(code)

        await self._retried(f"committing a position of group {group}", run, timeout_s=timeout_s)

    async def committed(self, group: str, topic: str, partition: int, *, timeout_s: float) -> int | None:
        """Return a group's position, or None."""
        request = OffsetFetchRequest(group, [(topic, [partition])])

        async def run(client: AIOKafkaClient) -> int | None:
            answer = await self._ask_coordinator(client, group, request)
            raise_for_code(getattr(answer, "error_code", 0))
            _, [(_, offset, _, code)] = answer.topics[0]
            raise_for_code(code)
            return offset if offset >= 0 else None

        return await self._retried(f"reading the position of group {group}", run, timeout_s=timeout_s)

    async def _describe(self, client: AIOKafkaClient, topic: str) -> TopicDescription:
        description = describe_topic(await client.send(self._any_node(client), TopicMetadataRequest(topic)))
        if description.error_code not in (NO_ERROR, NO_SUCH_TOPIC, NO_LEADER):
            raise_for_code(description.error_code)
        return description

    async def _settings(self, kind: int, name: str, *, timeout_s: float) -> dict[str, str]:
        async def run(client: AIOKafkaClient) -> dict[str, str]:
            node_id = self._any_node(client)
            request = DescribeConfigsRequest([(kind, name or str(node_id), None)])
            answer = await client.send(node_id, request)
            code, message, _, _, entries = answer.resources[0]
            raise_for_code(code, message)
            return {entry[0]: entry[1] for entry in entries}

        return await self._retried(f"reading the settings of {name or 'a broker'}", run, timeout_s=timeout_s)

    async def _ask_coordinator(self, client: AIOKafkaClient, group: str, request: Any) -> Any:
        if group not in self._coordinators:
            self._coordinators[group] = await client.coordinator_lookup(CoordinationType.GROUP, group)
        try:
            return await client.send(self._coordinators[group], request, group=ConnectionGroup.COORDINATION)
        except KafkaError:
            self._coordinators.pop(group, None)
            raise

    @staticmethod
    def _any_node(client: AIOKafkaClient) -> int:
        if (node_id := client.get_random_node()) is None:
            raise kafka_errors.NoBrokersAvailable
        return node_id

    async def _retried(
        self, doing: str, run: Callable[[AIOKafkaClient], Awaitable[Result]], *, timeout_s: float
    ) -> Result:
        reason: LogUnavailable | None = None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        client = await self.connect()
                        with renamed_errors(doing):
                            return await run(client)
                    except LogUnavailable as error:
                        if not error.retriable:
                            raise
                        reason = error
                    if isinstance(reason.__cause__, (OSError, kafka_errors.NodeNotReadyError)):
                        await self.close()
                    self._coordinators.clear()
                    await asyncio.sleep(_RETRY_S)
        except TimeoutError:
            text = reason.message if reason else f"Kafka: {doing}: no answer"
            raise LogUnavailable(f"{text} (gave up after {timeout_s:g} s)") from reason


async def close_quietly(closing: Awaitable[Any]) -> None:
    """Wait for a client of aiokafka to close; what it still complains about does not matter any more."""
    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        await closing
