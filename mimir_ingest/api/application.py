"""All routes of one process, put together.

Instrument ─► StripPrefix ─► CleanPath ─► Only ─► Authenticate ─► Router ─┬─► push, queries, remote read (bare ASGI)
                                                                          └─► Gzip ─► FastAPI: all others

`Only` is there where operators have a listener of their own, `Authenticate` where there are credentials.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CollectorRegistry

from mimir_ingest import __version__
from mimir_ingest.api.access import Authenticate, Only, tenant_paths
from mimir_ingest.api.all_user_stats import all_user_stats_router
from mimir_ingest.api.build_info import build_info
from mimir_ingest.api.cardinality import cardinality_router
from mimir_ingest.api.config import config_router
from mimir_ingest.api.credentials import CredentialChecker
from mimir_ingest.api.errors import Application, RetryAfter
from mimir_ingest.api.federated_limits import limits_of_all
from mimir_ingest.api.ha_tracker import ha_tracker_router
from mimir_ingest.api.index import index_router, standard_groups
from mimir_ingest.api.influx import InfluxEdge
from mimir_ingest.api.ingester import downscale_router, ingester_router
from mimir_ingest.api.ingestion_lag import ingestion_lag_router
from mimir_ingest.api.instance_ring import instance_ring_router
from mimir_ingest.api.instrument import Instrument, RouteNames, route_name
from mimir_ingest.api.metrics import metrics_router
from mimir_ingest.api.middleware import CleanPath, Gzip, Route, Router, StripPrefix, plain_routing
from mimir_ingest.api.otlp import OtlpEdge
from mimir_ingest.api.partition_ring import partition_ring_router
from mimir_ingest.api.profiles import Profiles, profiles_router
from mimir_ingest.api.push import PushApplication
from mimir_ingest.api.query import QueryApi
from mimir_ingest.api.query_routes import query_routes
from mimir_ingest.api.read import ReadApplication
from mimir_ingest.api.ready import ready_router
from mimir_ingest.api.remote_write import RemoteWriteEdge
from mimir_ingest.api.ring_store import ring_store_router
from mimir_ingest.api.runtime_config import runtime_config_router
from mimir_ingest.api.services import services_router
from mimir_ingest.api.status import status_router
from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.api.tenants import METRICS_PATH, tenants_router, tsdb_metrics
from mimir_ingest.config.runtime import RuntimeConfigWatcher
from mimir_ingest.config.settings import Settings
from mimir_ingest.distributor.ha_tracker import HaTracker
from mimir_ingest.distributor.service import Distributor
from mimir_ingest.errors import IngestError
from mimir_ingest.ingester.downscale import Downscale
from mimir_ingest.ingester.membership import Membership
from mimir_ingest.ingester.service import Ingester
from mimir_ingest.obs.metrics import ServerMetrics
from mimir_ingest.obs.querier_metrics import QuerierRequestMetrics
from mimir_ingest.obs.query_metrics import QueryMetrics
from mimir_ingest.obs.services import ReadySince, ServiceRegistry
from mimir_ingest.querier.all_ingesters import AllIngesters
from mimir_ingest.querier.federation import FederatedQuerier
from mimir_ingest.querier.service import Querier
from mimir_ingest.wire.otlp_labels import OtlpSettings
from partitions.model import RingDesc
from partitions.watch import RingWatcher

PUSH_PATH = "/api/v1/push"
OTLP_PATH = "/otlp/v1/metrics"
MAX_FORM_BYTES = 1 << 20
"""Of requests to pages and control endpoints; 413 over it."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """What the routes are about; a component that the process does not run is None, and has no routes."""

    settings: Settings
    services: ServiceRegistry
    registry: CollectorRegistry
    credentials: CredentialChecker | None
    """None asks nobody for credentials."""
    runtime: RuntimeConfigWatcher
    watcher: RingWatcher
    ring_store: str
    """Where the rings are kept, for people."""
    distributor: Distributor | None
    ha_tracker: HaTracker | None
    otlp_settings: Callable[[str], OtlpSettings]
    """How a tenant's OTLP metrics are translated."""
    ingester: Ingester | None
    membership: Membership | None
    """The ingester's life in the ring; it and its downscale are there with the ingester."""
    downscale: Downscale | None
    querier: Querier | None
    all_ingesters: AllIngesters | None
    """Where the distributor's statistics come from."""
    now_ms: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Applications:
    """The ASGI applications of a process's listeners."""

    http: Application
    """The tenants' routes; without `admin` the operators' too."""
    admin: Application | None
    """The operators' routes, where `server.admin_listen_port` gives them a listener."""


def build_applications(parts: Endpoints) -> Applications:
    """Return the ASGI applications of a process."""
    settings = parts.settings
    tenants = TenantResolver(
        multitenancy_enabled=settings.multitenancy_enabled,
        no_auth_tenant=settings.no_auth_tenant,
        federation_enabled=settings.tenant_federation.enabled,
        max_tenants=settings.tenant_federation.max_tenants,
    )
    prometheus = "/" + settings.api.prometheus_http_prefix.strip("/")
    is_tenant_path = tenant_paths(prometheus)
    queried = None
    if parts.querier is not None:
        queried = QueryMetrics.create(parts.registry, statistics=parts.settings.frontend.query_stats_enabled)
    routes = _bare_routes(parts, tenants, prometheus, queried)
    routers = _routers(parts, tenants, prometheus, queried)
    served: Application = Router(routes, fallback=Gzip(_pages(routers)))
    if parts.credentials is not None:
        served = Authenticate(served, parts.credentials.identify, tenants=tenants, is_tenant_path=is_tenant_path)
    server = settings.server
    prefix = server.http_path_prefix.rstrip("/")
    paths = [route.path for route in routes] + [route.path for router in routers for route in router.routes]
    names = RouteNames(prefix + path for path in paths)
    metrics = ServerMetrics.create(parts.registry)
    querier = None if parts.querier is None else QuerierRequestMetrics.create(parts.registry)
    queries = [route_name(prefix + path) for path in paths if path.startswith(f"{prometheus}/api/v1/")]
    debug = "debug" if server.log_level == "debug" else None
    log_level = "info" if server.log_request_at_info_level_enabled else debug

    def around(application: Application) -> Application:
        reached: Application = CleanPath(application)
        if prefix:
            reached = StripPrefix(reached, prefix)
        return Instrument(reached, metrics, names, log_level=log_level, querier=querier, querier_routes=queries)

    if not server.admin_listen_port:
        return Applications(around(served), None)
    return Applications(
        around(Only(served, is_tenant_path)), around(Only(served, lambda path: not is_tenant_path(path)))
    )


def _bare_routes(
    parts: Endpoints, tenants: TenantResolver, prometheus: str, queried: QueryMetrics | None
) -> list[Route]:
    """Return the routes that FastAPI would only slow down."""
    routes = []
    post = frozenset({"POST"})
    if parts.distributor is not None:
        hints = parts.settings.distributor.retry_after_header
        retry_after = RetryAfter(
            enabled=hints.enabled, min_backoff_s=hints.min_backoff.seconds, max_backoff_s=hints.max_backoff.seconds
        )
        remote_write = RemoteWriteEdge(max_bytes=parts.settings.distributor.max_recv_msg_size)
        push = PushApplication(parts.distributor, remote_write, tenants=tenants, retry_after=retry_after)
        routes.append(Route(PUSH_PATH, post, push))
        options = parts.settings.distributor
        otlp = OtlpEdge(
            max_bytes=options.max_otlp_request_size,
            settings_for=parts.otlp_settings,
            translation_headers=parts.settings.api.otlp_translation_headers_enabled,
        )
        metrics = PushApplication(parts.distributor, otlp, tenants=tenants, retry_after=retry_after)
        routes.append(Route(OTLP_PATH, post, metrics))
        if options.influx_endpoint_enabled:
            influx = InfluxEdge(max_bytes=options.max_influx_request_size, now_ms=parts.now_ms)
            lines = PushApplication(parts.distributor, influx, tenants=tenants, retry_after=retry_after)
            routes.append(Route(f"{PUSH_PATH}/influx/write", post, lines))
    if parts.ingester is not None:
        routes.append(Route(METRICS_PATH, frozenset({"GET"}), tsdb_metrics(parts.ingester, tenants=tenants)))
    if parts.querier is not None and queried is not None:
        limits_for, querier = limits_of_all(parts.runtime.for_tenant), parts.querier
        federated = FederatedQuerier(querier, max_concurrent=parts.settings.tenant_federation.max_concurrent)
        read = ReadApplication(
            querier,
            tenants=tenants,
            limits_for=limits_for,
            now_ms=parts.now_ms,
            metrics=queried,
            federated=federated,
        )
        routes.append(Route(f"{prometheus}/api/v1/read", post, read))
        api = QueryApi(querier, limits_for=limits_for, now_ms=parts.now_ms)
        of_many = QueryApi(federated, limits_for=limits_for, now_ms=parts.now_ms)
        routes += query_routes(api, prefix=prometheus, tenants=tenants, metrics=queried, federated=of_many)
    return routes


def _pages(routers: list[APIRouter]) -> FastAPI:
    pages = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        title="mimir-ingest",
        version=__version__,
        max_body_size=MAX_FORM_BYTES,
    )
    plain_routing(pages)
    pages.add_exception_handler(IngestError, _text_error)
    pages.add_exception_handler(Exception, _internal_error)
    for router in routers:
        pages.include_router(router)
    return pages


def _routers(
    parts: Endpoints, tenants: TenantResolver, prometheus: str, queried: QueryMetrics | None
) -> list[APIRouter]:
    settings = parts.settings
    prefix = settings.server.http_path_prefix.rstrip("/")
    info = build_info(version=__version__, revision="", branch="")
    names = {"distributor": parts.distributor, "ingester": parts.ingester, "querier": parts.querier}
    running = frozenset(name for name, component in names.items() if component is not None)
    routers = [
        index_router(
            standard_groups(running, runtime_config=parts.runtime.configured, ha_tracker=parts.ha_tracker is not None),
            push_path=prefix + PUSH_PATH if parts.distributor else None,
            query_path=prefix + prometheus if parts.querier else None,
        ),
        config_router(settings.effective),
        runtime_config_router(parts.runtime, tenants.tenant_of),
        services_router(parts.services),
        ready_router(parts.services, _ingester_reason(parts)),
        status_router(info, prometheus_prefix=prometheus),
        *_ring_routers(parts),
    ]
    if (tracker := parts.ha_tracker) is not None:
        routers.append(
            ha_tracker_router(view=lambda: tracker.desc, limits_for=parts.runtime.for_tenant, now_ms=parts.now_ms)
        )
    if parts.ingester is not None and parts.membership is not None and parts.downscale is not None:
        routers.append(ingester_router(parts.ingester, parts.membership, parts.services))
        routers.append(downscale_router(parts.downscale, parts.services))
        routers.append(tenants_router(parts.ingester, limits_for=parts.runtime.for_tenant, now_ms=parts.now_ms))
    if parts.all_ingesters is not None:
        routers.append(all_user_stats_router(parts.all_ingesters, now_ms=parts.now_ms))
    if parts.querier is not None and queried is not None:
        routers.append(
            cardinality_router(
                parts.querier,
                prefix=prometheus,
                tenants=tenants,
                limits_for=parts.runtime.for_tenant,
                metrics=queried,
                sharding=settings.frontend.shard_active_series_queries,
            )
        )
        routers.append(ingestion_lag_router(parts.querier, tenant_of=tenants.tenant_of, now_ms=parts.now_ms))
    profiles = Profiles(max_seconds=settings.server.http_server_write_timeout.seconds)
    routers.append(profiles_router(profiles, instrumented=settings.server.register_instrumentation))
    if settings.server.register_instrumentation:
        routers.append(metrics_router(parts.registry))
    return routers


def _ring_routers(parts: Endpoints) -> list[APIRouter]:
    """Return the pages of the rings; every process watches these."""
    settings, watcher = parts.settings, parts.watcher

    def view() -> RingDesc:
        return watcher.desc

    routers = [
        instance_ring_router(
            f"/{ring}/ring",
            ring,
            view=view,
            change=watcher.change,
            heartbeat_timeout_ms=timeout.ms,
            now_ms=parts.now_ms,
        )
        for ring, timeout in (
            ("distributor", settings.distributor.ring.heartbeat_timeout),
            ("ingester", settings.ingester.ring.heartbeat_timeout),
        )
    ]
    timeout_ms = settings.ingester.ring.heartbeat_timeout.ms
    return [
        *routers,
        partition_ring_router(view=view, change=watcher.change, now_ms=parts.now_ms),
        ring_store_router(store=parts.ring_store, view=view, heartbeat_timeout_ms=timeout_ms, now_ms=parts.now_ms),
    ]


def _ingester_reason(parts: Endpoints) -> ReadySince | None:
    if parts.membership is None:
        return None
    return ReadySince(parts.membership.ready_reason, min_ready=parts.settings.ingester.ring.min_ready_duration)


def _text_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, IngestError)
    return PlainTextResponse(
        f"{error.message}\n", status_code=error.http_status, headers={"X-Content-Type-Options": "nosniff"}
    )


def _internal_error(request: Request, error: Exception) -> Response:
    _log.error("request failed", path=request.scope["path"], err=repr(error), exc_info=error)
    return PlainTextResponse("internal error\n", status_code=500, headers={"X-Content-Type-Options": "nosniff"})
