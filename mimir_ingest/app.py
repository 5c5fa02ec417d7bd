"""The composition root: builds the components of one process, starts them in order, stops them in reverse.

    start   HTTP listener ─► runtime configuration ─► bucket ─► log ─► ingester ─► distributor ─► own metrics
    stop    not ready ─► shutdown delay ─► HTTP listener ─► own metrics ─► distributor ─► ingester ─► log ─► bucket

The listener comes first, so that `/ready` can say what is being waited for. A component that fails stops the process
with its cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
import uvloop

from mimir_ingest import __version__, wiring
from mimir_ingest.api.application import Endpoints, build_application
from mimir_ingest.api.server import HttpServer
from mimir_ingest.bucket.discover import BlockCatalog
from mimir_ingest.bucket.upkeep import BucketUpkeep
from mimir_ingest.config.runtime import RuntimeConfigWatcher
from mimir_ingest.config.settings import Settings
from mimir_ingest.distributor.plan import record_settings
from mimir_ingest.distributor.service import Distributor
from mimir_ingest.errors import IngestError, StoreUnavailable
from mimir_ingest.ingester.service import Ingester
from mimir_ingest.log.contract import PartitionLog
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.obs.metrics import (
    DistributorMetrics,
    IngesterMetrics,
    ProcessMetrics,
    RuntimeConfigMetrics,
    WriterMetrics,
    new_registry,
)
from mimir_ingest.obs.self_monitoring import run_self_monitoring
from mimir_ingest.obs.services import ServiceRegistry, ServiceState
from mimir_ingest.querier.service import Querier
from mimir_ingest.wire import snappy
from mimir_ingest.wire.record import VERSION_V0, encode_mimir
from partitions.model import PartitionState
from partitions.ring import PartitionRing

BLOCK_LIST_MAX_AGE_S = 60.0
"""How old a tenant's list of blocks may be when a query reads it. why: blocks of this program's own cuts are asked for
by name, so age only delays blocks that others upload; a listing of a bucket costs one request a thousand blocks."""

_log = structlog.get_logger()


def now_ms() -> int:
    """Return the wall clock, ms since the Unix epoch."""
    return time.time_ns() // 1_000_000


def run(settings: Settings, *, leave: Callable[[IngestError | None], None] = lambda error: None) -> None:
    """Serve until SIGTERM or SIGINT. Raises IngestError with the cause when a component fails.

    `leave` is called with that cause, or None, once everything is closed. It may end the process: returning waits for
    every thread, and one that asks a store that does not answer takes minutes.
    """

    async def serve() -> None:
        try:
            await Process(settings).run()
        except IngestError as error:
            leave(error)
            raise
        leave(None)

    uvloop.run(serve())


class Process:
    """One process with all its components. Lives from `run` to its return."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self.registry = new_registry()
        ProcessMetrics.create(self.registry, version=__version__, revision="", branch="")
        self.services = ServiceRegistry(on_change=_report_state)
        self.runtime = RuntimeConfigWatcher(
            files=settings.runtime_config.file,
            period_s=settings.runtime_config.period.seconds,
            defaults=settings.limits,
            metrics=RuntimeConfigMetrics.create(self.registry),
        )
        self.log: PartitionLog = wiring.make_log(settings.ingest_storage)
        self.services.explain("log", lambda: self.log.waits_for)
        self.bucket = wiring.make_bucket(settings.blocks_storage)
        self._bucket_upkeep = BucketUpkeep(self.bucket, now_ms=now_ms)
        self._ring = PartitionRing.build({})
        limits_for = wiring.distributor_limits(self.runtime.for_tenant)
        catalog = BlockCatalog(self.bucket)
        distributor_metrics = DistributorMetrics.create(self.registry)
        self.distributor = Distributor(
            self.log,
            ring=lambda: self._ring,
            limits_for=limits_for,
            metrics=distributor_metrics,
            writer_metrics=WriterMetrics.create(self.registry),
            options=wiring.distributor_options(settings),
            instance_limits=wiring.instance_limits(settings),
            now_ms=now_ms,
        )
        self.ingester = Ingester(
            self.log,
            self.bucket,
            catalog=catalog,
            metrics=IngesterMetrics.create(self.registry, discarded_samples=distributor_metrics.discarded_samples),
            default_record_settings=lambda tenant: record_settings(
                limits_for(tenant), partitions=len(self._ring.active_partitions)
            ),
            **wiring.ingester_options(settings),
        )
        self.querier = Querier(
            ingester=self.ingester,
            catalog=catalog,
            limits=wiring.query_limits(settings),
            max_concurrent=settings.querier.max_concurrent,
            block_list_max_age_s=BLOCK_LIST_MAX_AGE_S,
        )
        self._http = HttpServer(
            build_application(self._endpoints()),
            host=settings.server.http_listen_address,
            port=settings.server.http_listen_port,
            idle_timeout_s=settings.server.http_server_idle_timeout.seconds,
            graceful_timeout_s=settings.server.graceful_shutdown_timeout.seconds,
            tls=wiring.server_tls(settings),
        )

    def _endpoints(self) -> Endpoints:
        return Endpoints(
            settings=self._settings,
            services=self.services,
            registry=self.registry,
            runtime=self.runtime,
            distributor=self.distributor,
            ingester=self.ingester,
            querier=self.querier,
            now_ms=now_ms,
        )

    async def run(self) -> None:
        """Start everything, wait for a signal or a failure, stop everything. Raises the failure."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._request_stop)
        for name in ("server", "runtime-config", "bucket", "log", "distributor", "ingester", "querier"):
            self.services.set_state(name, ServiceState.NEW)
        starting: asyncio.Task | None = None
        try:
            self.services.set_state("server", ServiceState.STARTING)
            port = await self._http.start()
            self.services.set_state("server", ServiceState.RUNNING)
            starting = asyncio.create_task(self._serve_components(port), name="components")
            stopping = asyncio.create_task(self._stop.wait(), name="wait for a signal")
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            self.services.stopping = True
            if self._stop.is_set() and self._settings.shutdown_delay.seconds:
                await asyncio.sleep(self._settings.shutdown_delay.seconds)
        finally:
            self.services.set_state("server", ServiceState.STOPPING)
            await self._http.stop()
            self.services.set_state("server", ServiceState.TERMINATED)
            if starting is not None:
                starting.cancel()
                await asyncio.wait([starting])
        if not starting.cancelled() and starting.exception() is not None:
            raise starting.exception()
        _log.info("stopped")

    async def _serve_components(self, port: int) -> None:
        """Start the components in order, serve until cancelled or until one of them fails, stop them in reverse."""
        async with contextlib.AsyncExitStack() as stack:
            enter = stack.enter_async_context
            await enter(self._running("runtime-config", self.runtime.start, self.runtime.close))
            await enter(self._running("bucket", self._start_bucket, self._bucket_upkeep.close))
            await enter(self._running("log", self.log.start, self.log.close))
            partitions = await self.log.partitions()
            self._ring = PartitionRing.build(dict.fromkeys(partitions, PartitionState.ACTIVE))
            await enter(self._running("ingester", self.ingester.start, self._stop_ingester))
            await self.ingester.own(partitions)
            await enter(self._running("distributor", self.distributor.start, self.distributor.close))
            await enter(self._running("querier", _nothing, _nothing))
            _log.info("running", target=self._settings.target, partitions=len(partitions))
            self._announce(port)
            if self._settings.self_monitoring.enabled:
                await self._write_own_metrics(port)
            await asyncio.Future()

    async def _start_bucket(self) -> None:
        try:
            await self._bucket_upkeep.start()
        except StoreUnavailable as error:
            backend = self._settings.blocks_storage.backend
            key = "blocks_storage.filesystem.dir" if backend == "filesystem" else f"blocks_storage.{backend}"
            raise StoreUnavailable(f"blocks have no place to go: {error.message}; see {key}") from error

    async def _stop_ingester(self) -> None:
        """Stop consuming; first cut and ship everything held, if that is configured and can be done."""
        if self._settings.blocks_storage.tsdb.flush_blocks_on_shutdown and self.ingester.ready_reason() is None:
            try:
                await self.ingester.flush(None, wait=True)
            except IngestError as error:
                _log.error("not everything was shipped; the log still has it", err=error.message)
        await self.ingester.close()

    async def _write_own_metrics(self, port: int) -> None:
        monitoring = self._settings.self_monitoring
        await run_self_monitoring(
            self.registry,
            self._push_own,
            tenant=monitoring.tenant if self._settings.multitenancy_enabled else self._settings.no_auth_tenant,
            target={"job": "mimir-ingest", "instance": f"{wiring.instance_id(self._settings)}:{port}"},
            interval_s=monitoring.interval.seconds,
            now_ms=now_ms,
        )

    async def _push_own(self, tenant: str, batch: WriteBatch) -> None:
        """Store a batch of this program's own, the way a sender's request is stored."""
        body = snappy.compress(encode_mimir(batch, VERSION_V0))
        with self.distributor.admit(tenant, len(body)) as push:
            await push.run(body)

    @contextlib.asynccontextmanager
    async def _running(
        self, name: str, start: Callable[[], Awaitable[None]], close: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[None]:
        """Start a component, record its states, and close it whatever happens."""
        self.services.set_state(name, ServiceState.STARTING)
        try:
            await start()
        except asyncio.CancelledError:
            self.services.set_state(name, ServiceState.STOPPING)
            await close()
            self.services.set_state(name, ServiceState.TERMINATED)
            raise
        except BaseException:
            self.services.set_state(name, ServiceState.FAILED)
            await close()
            raise
        self.services.set_state(name, ServiceState.RUNNING)
        try:
            yield
        finally:
            # The ingester may have been shut down by a request.
            stopped = self.services.states()[name] is ServiceState.TERMINATED
            if not stopped:
                self.services.set_state(name, ServiceState.STOPPING)
            await close()
            if not stopped:
                self.services.set_state(name, ServiceState.TERMINATED)

    def _request_stop(self) -> None:
        if self._stop.is_set():
            _log.warning("stopped at once; whatever was acknowledged is in the log")
            sys.stdout.flush()
            os._exit(1)  # why: an exception would still wait for every thread and task
        _log.info("stopping: finishing requests, then closing the log; once more ends at once")
        self._stop.set()

    def _announce(self, port: int) -> None:
        settings = self._settings
        scheme = "https" if settings.server.http_tls_config.cert_file else "http"
        base = f"{scheme}://localhost:{port}{settings.server.http_path_prefix.rstrip('/')}"
        monitoring = settings.self_monitoring
        lines = [
            f"push to   {base}/api/v1/push   (remote write)",
            f"query at  {base}{settings.api.prometheus_http_prefix}   (a Prometheus data source in Grafana)",
            f"look at   {base}/",
        ]
        if settings.multitenancy_enabled:
            lines.append("tenants are told apart by the header X-Scope-OrgID (-auth.multitenancy-enabled=false: none)")
        if monitoring.enabled and settings.multitenancy_enabled:
            lines.append(
                f"try       curl -H 'X-Scope-OrgID: {monitoring.tenant}' "
                f"'{base}{settings.api.prometheus_http_prefix}/api/v1/query?query=up'"
            )
        elif monitoring.enabled:
            lines.append(f"try       curl '{base}{settings.api.prometheus_http_prefix}/api/v1/query?query=up'")
        print("\n".join(lines), flush=True)


async def _nothing() -> None:
    """Start or close a component that holds nothing."""


def _report_state(name: str, state: ServiceState) -> None:
    say = _log.debug if state is ServiceState.NEW else _log.info
    say("service state changed", service=name, state=str(state))
