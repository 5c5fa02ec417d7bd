"""Status pages answer as section 3 of the HTTP API says, in HTML, JSON, YAML and text."""

import gzip
import platform

import httpx
import pytest
import yaml
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from mimir_ingest.api.build_info import build_info
from mimir_ingest.api.config import config_router
from mimir_ingest.api.index import IndexGroup, IndexLink, index_router, standard_groups
from mimir_ingest.api.metrics import accepts_gzip, metrics_router
from mimir_ingest.api.ready import ready_router
from mimir_ingest.api.runtime_config import runtime_config_router
from mimir_ingest.api.services import services_router
from mimir_ingest.api.status import status_router
from mimir_ingest.config.runtime import RuntimeConfigWatcher
from mimir_ingest.config.settings import load
from mimir_ingest.errors import TenantError
from mimir_ingest.obs.metrics import ProcessMetrics, RuntimeConfigMetrics, ServerMetrics, new_registry
from mimir_ingest.obs.services import ServiceRegistry, ServiceState


def client(*routers, prefix=""):
    app = FastAPI(openapi_url=None)
    for router in routers:
        app.include_router(router, prefix=prefix)
    app.add_exception_handler(TenantError, lambda _request, err: PlainTextResponse(err.message, err.http_status))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


def running(*names):
    services = ServiceRegistry()
    for name in names:
        services.set_state(name, ServiceState.STARTING)
        services.set_state(name, ServiceState.RUNNING)
    return services


async def test_the_index_lists_groups_by_weight_then_name_with_relative_links():
    groups = [
        IndexGroup("Zebra", 4, (IndexLink("Z", "z"),)),
        *standard_groups({"ingester"}, runtime_config=True),
        IndexGroup("Ingester", 4, (IndexLink("<Tenants>", "ingester/tenants", dangerous=True),)),
    ]
    async with client(
        index_router(groups, push_path="/m/api/v1/push", query_path="/m/prometheus"), prefix="/m"
    ) as http:
        answer = await http.get("/m/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = answer.text
    assert "<title>Grafana Mimir Admin</title>" in page
    assert "<h1>Grafana Mimir Admin</h1>" in page
    names = ["Overview", "Current config", "Current runtime config", "Ingester", "Zebra", "Metrics", "Dangerous"]
    order = [page.index(f"<h2>{name}</h2>") for name in names]
    assert order == sorted(order)
    assert "&lt;Tenants&gt;" in page
    assert 'href="/' not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert '<form method="post" action="ingester/flush">' in page
    assert "/m/api/v1/push" in page


async def test_static_files_are_served_and_nothing_else():
    async with client(index_router([], push_path=None, query_path=None)) as http:
        sheet, icon = await http.get("/static/pages.css"), await http.get("/static/icon.svg")
        assert (sheet.status_code, sheet.headers["content-type"]) == (200, "text/css; charset=utf-8")
        assert (icon.status_code, icon.headers["content-type"]) == (200, "image/svg+xml")
        assert "@import" not in sheet.text
        assert "url(" not in sheet.text
        for path in (
            "/static/none.css",
            "/static/..%2f..%2ferrors.py",
            "/static/%2e%2e",
            "/static/.hidden",
            "/static/" + "x" * 999,
        ):
            assert (await http.get(path)).status_code == 404


OWN_NUMBER = {"partition_ring": {"ownership": "instance-id"}}
"""What another target than all implies."""


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?mode=diff", {"target": "read,write", "ingester": OWN_NUMBER}),
        ("", None),
        ("?mode=other", None),
        ("?mode=defaults", "all"),
    ],
)
async def test_config_is_yaml_with_three_views(query, expected):
    async with client(config_router(load(["-target=read,write"], {})[0].effective)) as http:
        answer = await http.get(f"/config{query}")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    tree = yaml.safe_load(answer.text)
    if isinstance(expected, dict):
        assert tree == expected
    else:
        assert tree["target"] == (expected or "read,write")
        assert len(tree) > 30


async def test_config_without_changes_is_an_empty_map():
    async with client(config_router(load([], {})[0].effective)) as http:
        assert (await http.get("/config?mode=diff")).text == "{}\n"


def one_tenant(request):
    tenant = request.headers.get("x-scope-orgid")
    if not tenant:
        raise TenantError("no org id")
    return tenant


def watcher(files, text=""):
    metrics = RuntimeConfigMetrics.create(CollectorRegistry())
    return RuntimeConfigWatcher(
        files=files, period_s=10, defaults=load([], {})[0].limits, metrics=metrics, read_text=lambda _: text
    )


async def test_runtime_config_does_not_exist_without_a_file():
    async with client(runtime_config_router(watcher(""), one_tenant)) as http:
        assert (await http.get("/runtime_config")).status_code == 404
        assert (await http.get("/api/v1/user_limits")).status_code == 404


async def test_runtime_config_shows_overrides():
    watched = watcher("x", "overrides: {team-a: {ingestion_rate: 50000}}")
    async with client(runtime_config_router(watched, one_tenant)) as http:
        assert (await http.get("/runtime_config")).text == "runtime config file doesn't exist"
        watched.load()
        diff = await http.get("/runtime_config?mode=diff")
        assert diff.headers["content-type"] == "text/plain; charset=utf-8"
        assert yaml.safe_load(diff.text) == {"overrides": {"team-a": {"ingestion_rate": 50000}}}
        full = yaml.safe_load((await http.get("/runtime_config?mode=defaults")).text)
        assert full["overrides"]["team-a"]["max_global_series_per_user"] == 150000
        assert (await http.get("/api/v1/user_limits")).status_code == 401
        limits = (await http.get("/api/v1/user_limits", headers={"X-Scope-OrgID": "team-a"})).json()
    assert (limits["ingestion_rate"], limits["ingestion_burst_size"], len(limits)) == (50000, 200000, 12)
    assert limits["compactor_blocks_retention_period_seconds"] == 0


async def test_services_are_html_or_json_by_accept():
    services = running("querier", "api")
    services.set_state("ingester", ServiceState.STARTING)
    async with client(services_router(services)) as http:
        page = await http.get("/services", headers={"Accept": "text/html"})
        data = (await http.get("/services", headers={"Accept": "text/html, application/json"})).json()
    assert "<h1>Services' status</h1>" in page.text
    assert "Current time:" in page.text
    assert data["services"] == [
        {"name": "api", "status": "Running"},
        {"name": "ingester", "status": "Starting"},
        {"name": "querier", "status": "Running"},
    ]
    assert data["now"].endswith("Z")


async def test_ready_answers_any_method():
    services, reasons = running("api"), [None]
    async with client(ready_router(services, lambda: reasons[0])) as http:
        for method in ("GET", "HEAD", "POST", "DELETE"):
            answer = await http.request(method, "/ready")
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain")
        assert (await http.get("/ready")).content == b"ready"
        reasons[0] = "waiting for 15s after being ready"
        answer = await http.get("/ready")
        assert (answer.status_code, answer.text) == (503, "Ingester not ready: waiting for 15s after being ready\n")
        services.stopping = True
        assert (await http.get("/ready")).text == "Application is stopping\n"


@pytest.fixture
def registry():
    made = new_registry()
    ProcessMetrics.create(made, version="1.2", revision="abc", branch="main")
    ServerMetrics.create(made).request_duration_seconds.labels("GET", "ready", "200", "false").observe(0.1)
    return made


async def test_metrics_are_text_or_openmetrics_by_accept(registry):
    async with client(metrics_router(registry)) as http:
        text = await http.get("/metrics")
        openmetrics = await http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert (await http.post("/metrics")).status_code == 200
    assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.text.endswith("# EOF\n")
    families = {family.name: family for family in parse_text(text.text)}
    assert {"process_cpu_seconds", "cortex_build_info", "cortex_request_duration_seconds"} <= families.keys()
    (info,) = families["cortex_build_info"].samples
    assert (info.value, info.labels["version"], info.labels["branch"]) == (1, "1.2", "main")
    assert not [name for name in families if name.endswith("_created")]
    assert {family.name for family in parse_openmetrics(openmetrics.text)} == families.keys()


@pytest.mark.parametrize("name", ["process_cpu_seconds_total", "process_cpu_seconds"])
async def test_metrics_can_be_restricted_to_families(registry, name):
    async with client(metrics_router(registry)) as http:
        answer = await http.get("/metrics", params=[("name[]", name), ("name[]", "cortex_request_duration_seconds")])
    families = {family.name: family for family in parse_text(answer.text)}
    assert families.keys() == {"process_cpu_seconds", "cortex_request_duration_seconds"}
    assert len(families["cortex_request_duration_seconds"].samples) > 10


async def test_metrics_are_compressed_when_accepted(registry):
    async with client(metrics_router(registry)) as http:
        async with http.stream("GET", "/metrics", headers={"Accept-Encoding": "gzip"}) as answer:
            body = b"".join([part async for part in answer.aiter_raw()])
        plain = await http.get("/metrics", headers={"Accept-Encoding": "identity"})
    assert answer.headers["content-encoding"] == "gzip"
    assert b"cortex_build_info" in gzip.decompress(body)
    assert "content-encoding" not in plain.headers


@pytest.mark.parametrize(
    ("header", "accepted"),
    [("gzip", True), ("deflate, GZIP;q=0.5", True), ("*", True), ("gzip;q=0", False), ("", False), ("gzip;q=x", False)],
)  # fmt: skip
def test_gzip_is_negotiated(header, accepted):
    assert accepts_gzip(header) is accepted


async def test_build_information_and_stubs_are_at_the_top_and_under_the_prefix():
    info = build_info(version="1.2", revision="", branch="main", features={"ruler_config_api": True})
    async with client(status_router(info, prometheus_prefix="/prometheus/")) as http:
        for base in ("", "/prometheus"):
            data = (await http.get(f"{base}/api/v1/status/buildinfo")).json()
            assert data == {
                "status": "success",
                "data": {
                    "application": "Grafana Mimir",
                    "version": "1.2",
                    "branch": "main",
                    "goVersion": f"python{platform.python_version()}",
                    "features": {"ruler_config_api": "true"},
                },
            }
            for stub in ("config", "flags"):
                assert (await http.get(f"{base}/api/v1/status/{stub}")).json() == {"status": "success", "data": {}}
