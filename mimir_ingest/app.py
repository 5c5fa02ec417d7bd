"""The composition root: starts the parts of one process in order, and stops them in reverse.

    start   listeners ─► runtime configuration ─► ring ─► log ─► bucket ─► ingester ─► distributor ─► querier
    stop    not ready ─► shutdown delay ─► HTTP listener ─► own metrics ─► the rest in reverse

The listener comes first, so that `/ready` can say what is being waited for. A component that fails stops the process
with its cause. What a target needs is in `modules`, how it is built in `assembly`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import structlog
import uvloop

from mimir_ingest import __version__, native_memory, wiring
from mimir_ingest.api.application import Endpoints, build_applications
from mimir_ingest.api.internal import build_internal_application
from mimir_ingest.assembly import Parts, assemble, now_ms
from mimir_ingest.config.settings import Settings
from mimir_ingest.config.targets import components
from mimir_ingest.distributor.service import Distributor
from mimir_ingest.errors import IngestError, StoreUnavailable
from mimir_ingest.listening import Listeners
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.modules import start_order
from mimir_ingest.obs.metrics import ProcessMetrics, new_registry
from mimir_ingest.obs.self_monitoring import run_self_monitoring
from mimir_ingest.obs.services import ServiceRegistry, ServiceState
from mimir_ingest.ring_wiring import describe_ring_store
from mimir_ingest.wire import snappy
from mimir_ingest.wire.record import VERSION_V0, encode_mimir
from partitions.bootstrap import first_partitions
from partitions.errors import PartitionError
from partitions.model import InstanceState

_log = structlog.get_logger()


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
        except PartitionError as error:
            advice = ""
            if settings.ingest_storage.log == "embedded":
                advice = "; mend that, or set another -ingest-storage.embedded.path"
            cause = IngestError(f"{error.message}{advice}", error_id=error.error_id)
            leave(cause)
            raise cause from error
        leave(None)

    uvloop.run(serve())


class Process:
    """One process with all its components. Lives from `run` to its return."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._modules = start_order(components(settings.target))
        self._stop = asyncio.Event()
        self.registry = new_registry()
        ProcessMetrics.create(self.registry, version=__version__, revision="", branch="")
        self.services = ServiceRegistry(on_change=_report_state)
        self._listeners = Listeners(settings)

    async def run(self) -> None:
        """Start everything, wait for a signal or a failure, stop everything. Raises the failure."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._request_stop)
        for name in self._modules:
            self.services.set_state(name, ServiceState.NEW)
        starting: asyncio.Task | None = None
        try:
            self.services.set_state("server", ServiceState.STARTING)
            port, internal_port = self._listeners.listen(internal="internal-server" in self._modules)
            parts = assemble(self._settings, self.registry, self._modules, http_port=port, internal_port=internal_port)
            await self._listeners.serve(build_applications(self._endpoints(parts)))
            self.services.set_state("server", ServiceState.RUNNING)
            starting = asyncio.create_task(self._serve_components(parts, port), name="components")
            stopping = asyncio.create_task(self._stop.wait(), name="wait for a signal")
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            self.services.stopping = True
            if self._stop.is_set() and self._settings.shutdown_delay.seconds:
                await asyncio.sleep(self._settings.shutdown_delay.seconds)
        finally:
            self.services.set_state("server", ServiceState.STOPPING)
            await self._listeners.stop()
            self.services.set_state("server", ServiceState.TERMINATED)
            if starting is None:
                await self._listeners.stop_internal()
            else:
                starting.cancel()
                await asyncio.wait([starting])
        if not starting.cancelled() and starting.exception() is not None:
            raise starting.exception()
        _log.info("stopped")

    def _endpoints(self, parts: Parts) -> Endpoints:
        return Endpoints(
            settings=self._settings,
            services=self.services,
            registry=self.registry,
            credentials=self._listeners.credentials,
            runtime=parts.runtime,
            watcher=parts.watcher,
            ring_store=describe_ring_store(self._settings.ingest_storage),
            distributor=parts.distributor,
            ha_tracker=parts.ha_tracker,
            otlp_settings=wiring.otlp_settings(self._settings, parts.runtime.for_tenant),
            ingester=parts.ingester,
            membership=parts.membership,
            downscale=parts.downscale,
            querier=parts.querier,
            all_ingesters=parts.all_ingesters,
            now_ms=now_ms,
        )

    async def _serve_components(self, parts: Parts, port: int) -> None:
        """Start the components in order, serve until cancelled or until one of them fails, stop them in reverse."""
        self.services.explain("ring", lambda: parts.watcher.waits_for)
        if (log := parts.log) is not None:
            self.services.explain("log", lambda: log.waits_for)
        if (tracker := parts.ha_tracker) is not None:
            self.services.explain("distributor", lambda: tracker.waits_for)
        async with native_memory.trimming(), contextlib.AsyncExitStack() as stack:
            for name in self._modules:
                if name != "server":
                    start, close = self._life_of(name, parts)
                    await stack.enter_async_context(self._running(name, start, close))
            _log.info("running", target=self._settings.target, partitions=len(parts.watcher.desc.partitions))
            self._announce(port)
            if self._settings.self_monitoring.enabled and parts.distributor is not None:
                await self._write_own_metrics(parts, port)
            await asyncio.Future()

    def _life_of(self, name: str, parts: Parts) -> tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]:
        """Return how a module is started and closed."""
        match name:
            case "runtime-config":
                return parts.runtime.start, parts.runtime.close
            case "ring":
                return parts.watcher.start, parts.watcher.close
            case "log":
                return partial(self._start_log, parts), parts.log.close
            case "bucket":
                return partial(self._start_bucket, parts), parts.bucket_upkeep.close
            case "internal-server":
                return partial(self._serve_internal, parts), self._listeners.stop_internal
            case "ingester":
                return parts.membership.start, parts.membership.close
            case "distributor":
                return partial(self._start_distributor, parts), partial(self._stop_distributor, parts)
            case "querier":
                return parts.ingester_client.start, parts.ingester_client.close
            case _:
                return _nothing, _nothing

    async def _start_log(self, parts: Parts) -> None:
        """Open the log; where partitions are leased, the first process gives the ring its partitions."""
        await parts.log.start()
        settings = self._settings
        if parts.ingester is not None and settings.ingester.partition_ring.ownership == "leases":
            existing = await parts.log.partitions()
            storage = settings.ingest_storage
            wanted = storage.embedded.partitions if storage.log == "embedded" else 0
            await parts.watcher.change(lambda desc: first_partitions(desc, existing, wanted, now_ms()))

    async def _serve_internal(self, parts: Parts) -> None:
        querier = self._settings.querier
        await self._listeners.serve_internal(
            build_internal_application(
                parts.ingester, max_samples=querier.max_samples, timeout_s=querier.timeout.seconds
            )
        )

    async def _start_distributor(self, parts: Parts) -> None:
        """Read the elections, take pushes, then join the ring, by whose members tenants' rates are divided."""
        if parts.ha_tracker is not None:
            await parts.ha_tracker.start()
        await parts.ingester_client.start()
        await parts.distributor.start()
        await parts.distributor_instance.start(InstanceState.ACTIVE)

    async def _stop_distributor(self, parts: Parts) -> None:
        await parts.distributor_instance.close(unregister=True)
        await parts.distributor.close()
        await parts.ingester_client.close()
        if parts.ha_tracker is not None:
            await parts.ha_tracker.close()

    async def _start_bucket(self, parts: Parts) -> None:
        try:
            await parts.bucket_upkeep.start()
        except StoreUnavailable as error:
            backend = self._settings.blocks_storage.backend
            key = "blocks_storage.filesystem.dir" if backend == "filesystem" else f"blocks_storage.{backend}"
            raise StoreUnavailable(f"blocks have no place to go: {error.message}; see {key}") from error

    async def _write_own_metrics(self, parts: Parts, port: int) -> None:
        monitoring = self._settings.self_monitoring
        await run_self_monitoring(
            self.registry,
            partial(self._push_own, parts.distributor),
            tenant=monitoring.tenant if self._settings.multitenancy_enabled else self._settings.no_auth_tenant,
            target={"job": "mimir-ingest", "instance": f"{wiring.instance_id(self._settings)}:{port}"},
            interval_s=monitoring.interval.seconds,
            now_ms=now_ms,
        )

    async def _push_own(self, distributor: Distributor, tenant: str, batch: WriteBatch) -> None:
        """Store a batch of this program's own, the way a sender's request is stored."""
        body = snappy.compress(encode_mimir(batch, VERSION_V0))
        with distributor.admit(tenant, len(body)) as push:
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
        tls = settings.server.http_tls_config
        scheme = "https" if tls.cert_file or tls.cert else "http"
        base = f"{scheme}://localhost:{port}{settings.server.http_path_prefix.rstrip('/')}"
        monitoring = settings.self_monitoring
        lines = []
        if "distributor" in self._modules:
            lines.append(f"push to   {base}/api/v1/push   (remote write)")
        if "querier" in self._modules:
            lines.append(
                f"query at  {base}{settings.api.prometheus_http_prefix}   (a Prometheus data source in Grafana)"
            )
        admin_port = settings.server.admin_listen_port
        pages = (
            f"{scheme}://localhost:{admin_port}{settings.server.http_path_prefix.rstrip('/')}" if admin_port else base
        )
        lines.append(f"look at   {pages}/")
        if settings.multitenancy_enabled:
            lines.append("tenants are told apart by the header X-Scope-OrgID (-auth.multitenancy-enabled=false: none)")
        if not monitoring.enabled or "distributor" not in self._modules or "querier" not in self._modules:
            pass
        elif settings.multitenancy_enabled:
            lines.append(
                f"try       curl -H 'X-Scope-OrgID: {monitoring.tenant}' "
                f"'{base}{settings.api.prometheus_http_prefix}/api/v1/query?query=up'"
            )
        else:
            lines.append(f"try       curl '{base}{settings.api.prometheus_http_prefix}/api/v1/query?query=up'")
        print("\n".join(lines), flush=True)


async def _nothing() -> None:
    """Start or close a component that holds nothing."""


def _report_state(name: str, state: ServiceState) -> None:
    say = _log.debug if state is ServiceState.NEW else _log.info
    say("service state changed", service=name, state=str(state))
