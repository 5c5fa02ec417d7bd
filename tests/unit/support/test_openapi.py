"""The description that requests are made up from names every route that the program serves."""

import itertools
from types import SimpleNamespace

from prometheus_client import CollectorRegistry

from mimir_ingest.api import application
from mimir_ingest.api.internal import build_internal_application
from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.app import Process
from mimir_ingest.assembly import assemble
from mimir_ingest.config.settings import load
from mimir_ingest.obs.query_metrics import QueryMetrics
from tests.support.openapi import LEFT_OUT, document, internal_document

ANY_METHOD = {"/metrics", "/ready", "/debug/pprof/{profile}"}


def operations(described):
    return {(path, method.upper()) for path, methods in described["paths"].items() for method in methods}


async def test_every_route_that_the_program_serves_is_described(tmp_path):
    runtime = tmp_path / "runtime.yaml"
    runtime.write_text("{}")
    flags = [
        f"-ingest-storage.embedded.path={tmp_path}/log",
        f"-blocks-storage.filesystem.dir={tmp_path}/blocks",
        f"-runtime-config.file={runtime}",
        "-distributor.influx-endpoint-enabled=true",
        "-distributor.ha-tracker.enable=true",
    ]
    settings = load(flags, {})[0]
    process = Process(settings)
    parts = assemble(settings, process.registry, process._modules, http_port=1, internal_port=2)
    endpoints, tenants = process._endpoints(parts), TenantResolver()
    queried = QueryMetrics.create(CollectorRegistry())
    routes = application._bare_routes(endpoints, tenants, "/prometheus", queried)
    routers = application._routers(endpoints, tenants, "/prometheus", queried)
    routes += [route for router in routers for route in router.routes]
    methods = {(route.path.replace("{profile:path}", "/{profile}"), m) for route in routes for m in route.methods}
    served = {(path, "GET") if path in ANY_METHOD else (path, method) for path, method in methods}
    described = operations(document())
    assert len(served) > 50
    assert served - LEFT_OUT == described
    assert served > LEFT_OUT


def test_every_route_of_the_internal_listener_is_described():
    router = build_internal_application(SimpleNamespace(), max_samples=0, timeout_s=1)._application
    routes = [*itertools.chain(*router._exact.values()), *router._fallback.routes]
    served = {(route.path, method) for route in routes for method in route.methods}
    assert served == operations(internal_document())
