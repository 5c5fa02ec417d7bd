"""Several ingesters behind real listeners, and queriers that find them through a ring: the read path of a cluster.

Everything runs on one event loop; the log is embedded, the ring in memory. Listeners can be told to misbehave.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from mimir_ingest.api.internal import build_internal_application
from mimir_ingest.api.server import HttpServer
from mimir_ingest.bucket.discover import BlockCatalog
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.ingester.drain import DrainProbe
from mimir_ingest.ingester.service import Ingester
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.log.embedded import EmbeddedLog
from mimir_ingest.obs.metrics import IngesterMetrics, StrongReadMetrics
from mimir_ingest.obs.querier_metrics import HeadReadMetrics, IngesterClientMetrics, OffsetLookupMetrics
from mimir_ingest.querier.checkpoint_cuts import CheckpointCuts
from mimir_ingest.querier.demands import Demands
from mimir_ingest.querier.ingester_client import IngesterClient
from mimir_ingest.querier.owner import LocalOwner
from mimir_ingest.querier.owners import PartitionOwners
from mimir_ingest.querier.ring_view import RingView
from mimir_ingest.querier.service import Querier, QueryLimits
from mimir_ingest.wire.record import VERSION_COLUMNAR, RecordSettings, encode_columnar
from partitions.kv.memory import MemoryRing, MemoryRingStore
from partitions.model import Entry, InstanceDesc, InstanceState, OwnerDesc, OwnerState, PartitionDesc, PartitionState
from partitions.watch import RingWatcher
from tests.support.batches import write_batch

NOW_MS = 1_700_000_040_000
SETTINGS = PartitionSettings(range_ms=60_000, grace_ms=30_000)
LIMITS = RecordSettings(max_series=0, out_of_order_window_ms=0, creation_grace_ms=600_000)
QUERY_LIMITS = QueryLimits(max_samples=1_000_000, timeout_s=20, lookback_ms=300_000, subquery_step_ms=60_000)


async def until(condition, timeout_s: float = 120) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 (the conditions have no event)
            await asyncio.sleep(0.005)


class Listener:
    """An internal listener whose answers can be spoilt."""

    def __init__(self, application) -> None:
        self._application = application
        self.fault: str | None = None
        """None, `hang`, `cut` (the connection breaks after the first piece), `garble`, `lie` (of its offsets)."""
        self.before: Callable[[], Awaitable[None]] | None = None
        """What happens before the next request is handled, once."""
        self.requests = 0
        self.abandoned = 0
        """Requests that their client closed while they hung."""

    async def __call__(self, scope, receive, send) -> None:
        self.requests += 1
        before, self.before = self.before, None
        if before is not None:
            await before()
        fault = self.fault
        if fault == "hang":
            while (await receive())["type"] != "http.disconnect":
                pass
            self.abandoned += 1
            return
        pieces = 0

        async def spoilt(message) -> None:
            nonlocal pieces
            if message["type"] == "http.response.start" and fault == "lie":
                headers = [(n, v) for n, v in message["headers"] if n != b"x-read-consistency-offsets"]
                message = {**message, "headers": [*headers, (b"x-read-consistency-offsets", b"v1=")]}
            if message["type"] == "http.response.body":
                pieces += 1
                body = bytes(message.get("body", b""))
                if fault == "garble" and body:
                    message = {**message, "body": body[:-1] + bytes([body[-1] ^ 1])}
                if fault == "cut":
                    await send({**message, "body": body[: max(1, len(body) // 2)], "more_body": True})
                    raise ConnectionError("cut")
            await send(message)

        await self._application(scope, receive, spoilt)

    async def start(self) -> int:
        """Serve on a free port; return it."""
        self._server = HttpServer(host="127.0.0.1", port=0, idle_timeout_s=60, graceful_timeout_s=0)
        port = self._server.listen()
        await self._server.serve(self)
        return port

    async def stop(self) -> None:
        """Break every connection, as a process that is killed does."""
        self._server.abort()
        await self._server.stop()


@dataclass
class Node:
    """One ingester's process."""

    id: str
    zone: str
    ingester: Ingester
    listener: Listener
    port: int


class Cluster:
    """What a test drives. Enter it with `async with`."""

    def __init__(self, folder: Path, *, partitions: int = 3) -> None:
        self.folder = folder
        self.now_ms = NOW_MS
        self.log = EmbeddedLog(folder / "log", partitions=partitions, clock_ms=lambda: self.now_ms)
        self.bucket = Bucket(str(folder / "bucket"))
        self._ring = MemoryRing()
        self.watcher = self.make_watcher("test")
        self.nodes: dict[str, Node] = {}
        self._stack = contextlib.AsyncExitStack()

    def make_watcher(self, writer: str) -> RingWatcher:
        """Return another process's view of the ring."""
        return RingWatcher(MemoryRingStore(self._ring), writer=writer, now_ms=lambda: self.now_ms)

    async def __aenter__(self) -> Cluster:
        await self.log.start()
        self._stack.push_async_callback(self.log.close)
        await self.watcher.start()
        self._stack.push_async_callback(self.watcher.close)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    # --- the ring ---------------------------------------------------------------------------------------------------

    async def change(self, *entries: Entry) -> None:
        """Write entries into the ring."""
        await self.watcher.change(lambda desc: entries)

    async def set_partition(self, number: int, state: PartitionState = PartitionState.ACTIVE) -> None:
        """Write a partition's state."""
        await self.change(PartitionDesc(number, state, self.now_ms))

    async def own(self, node: str, partitions: Collection[int], state: OwnerState = OwnerState.ACTIVE) -> None:
        """Register (or remove) an owner."""
        await self.change(*(OwnerDesc(node, p, state, self.now_ms) for p in partitions))

    # --- processes --------------------------------------------------------------------------------------------------

    async def add_node(
        self, name: str, partitions: Collection[int], *, zone: str = "", log: EmbeddedLog | None = None, **options
    ) -> Node:
        """Start an ingester, wait until it has caught up, register it."""
        folder = self.folder / name
        ingester = Ingester(
            log or self.log,
            self.bucket,
            metrics=IngesterMetrics.create(CollectorRegistry()),
            default_record_settings=lambda _tenant: LIMITS,
            **{
                "partition_settings": SETTINGS,
                "snapshot_folder": folder,
                "snapshot_interval_s": 0.0,
                "retention_s": 0.0,
                "trim_delay_s": 3600.0,
                "fetch_max_wait_s": 0.05,
                "strong_read_timeout_s": 60.0,
                **options,
            },
        )
        await ingester.start()
        self._stack.push_async_callback(ingester.close)
        await ingester.own(partitions)
        await until(lambda: ingester.ready_reason() is None)
        listener = Listener(build_internal_application(ingester, max_samples=1_000_000, timeout_s=20))
        port = await listener.start()
        self._stack.push_async_callback(listener.stop)
        node = self.nodes[name] = Node(name, zone, ingester, listener, port)
        await self.change(
            InstanceDesc(
                "ingester",
                name,
                InstanceState.ACTIVE,
                f"127.0.0.1:{port}",
                zone,
                registered_ms=self.now_ms,
                heartbeat_ms=self.now_ms,
            ),
            *(OwnerDesc(name, p, OwnerState.ACTIVE, self.now_ms) for p in partitions),
        )
        return node

    async def querier(
        self,
        *,
        local: Node | None = None,
        hedge_s: float = 0.0,
        zones: Sequence[str] = (),
        shard_size: int = 0,
        limits: QueryLimits = QUERY_LIMITS,
        list_age_s: float = 3600.0,
    ) -> Querier:
        """Return a querier with a ring view, lists and caches of its own."""
        watcher = self.make_watcher("querier")
        await watcher.start()
        self._stack.push_async_callback(watcher.close)
        client = IngesterClient(IngesterClientMetrics.create(CollectorRegistry()))
        await client.start()
        self._stack.push_async_callback(client.close)
        ring = RingView(
            watcher,
            shard_size_of=lambda tenant: shard_size,
            lookback_ms=3_600_000,
            heartbeat_timeout_ms=60_000,
            preferred_zones=zones,
            now_ms=lambda: self.now_ms,
        )
        drains = DrainProbe(self.log, self.bucket)
        checkpoints = CheckpointCuts(self.bucket, lambda: self.log.topic_id)
        self.registry = CollectorRegistry()
        demands = Demands(
            ring,
            self.log,
            topic="ingest",
            checkpoints=checkpoints,
            drains=drains,
            metrics=StrongReadMetrics.create(self.registry),
            lookups=OffsetLookupMetrics.create(self.registry, topic="ingest"),
        )
        heads = PartitionOwners(
            ring,
            client,
            local_id=local.id if local else "querier-0",
            local=LocalOwner(local.ingester) if local else None,
            demands=demands,
            checkpoints=checkpoints,
            drains=drains,
            hedge_s=hedge_s,
            metrics=HeadReadMetrics.create(self.registry),
        )
        return Querier(
            heads=heads,
            catalog=BlockCatalog(self.bucket),
            limits=limits,
            max_concurrent=4,
            block_list_max_age_s=list_age_s,
        )

    # --- data -------------------------------------------------------------------------------------------------------

    async def push(self, rows: Iterable, *, partition: int = 0, tenant: str = "a") -> int:
        """Append a record; return its offset."""
        value = encode_columnar(write_batch(list(rows)), LIMITS)
        return await self.log.append(partition, tenant.encode(), value, VERSION_COLUMNAR, timeout_s=60)

    async def consumed(self, partition: int, offset: int, nodes: Collection[str] | None = None) -> None:
        """Wait until all (of these) owners of a partition have a record."""
        for node in self.nodes.values():
            if (nodes is None or node.id in nodes) and partition in node.ingester.owned:
                await node.ingester.wait_consumed(partition, offset + 1, 60)
