"""Strong reads, presented offsets, greatest delays: what waits, for what, and what the answer says it saw."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from mimir_ingest.api.ingestion_lag import ingestion_lag_router
from mimir_ingest.api.middleware import Router
from mimir_ingest.api.query import QueryApi
from mimir_ingest.api.query_routes import query_routes
from mimir_ingest.api.read import ReadApplication
from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.config.settings import load
from mimir_ingest.errors import LogUnavailable, OwnerError, PartitionsUnreadable, QueryError
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.obs.query_metrics import QueryMetrics
from mimir_ingest.querier.consistency import Level, ReadConsistency
from mimir_ingest.querier.reading import Reading
from partitions.model import OwnerState, PartitionState
from tests.support.blocks import to_python
from tests.support.read_cluster import NOW_MS, Cluster, until
from tests.support.remote_read import EQ, compressed, read_chunks, read_request

M = (Matcher(MatchType.EQUAL, "__name__", "m"),)
EVER = (0, 1 << 50)
STRONG = ReadConsistency(Level.STRONG)


class GatedLog:
    """A log of which one reader gets nothing while its gate is closed."""

    def __init__(self, log) -> None:
        self._log = log
        self.gate = asyncio.Event()
        self.gate.set()

    def __getattr__(self, name):
        return getattr(self._log, name)

    async def read(self, *args, **bounds):
        await self.gate.wait()
        records = await self._log.read(*args, **bounds)
        await self.gate.wait()
        return records


def row(partition: int, second: int):
    return [({"__name__": "m", "p": str(partition)}, [(NOW_MS + 1000 * second, 1.0)])]


@pytest.fixture(params=[60.0])
async def cluster(request, tmp_path):
    """Two zones; `log_a` and `log_b` are what their ingesters read. A strong read may take as long as the parameter."""
    async with Cluster(tmp_path, partitions=2) as cluster:
        for p in range(2):
            await cluster.set_partition(p)
        cluster.log_a, cluster.log_b = GatedLog(cluster.log), GatedLog(cluster.log)
        await cluster.add_node("ingester-a", [0, 1], zone="a", log=cluster.log_a, strong_read_timeout_s=request.param)
        await cluster.add_node("ingester-b", [0, 1], zone="b", log=cluster.log_b, strong_read_timeout_s=request.param)
        yield cluster
        for log in (cluster.log_a, cluster.log_b):
            log.gate.set()


IN_VAIN = pytest.mark.parametrize("cluster", [0.4], indirect=True, ids=["in vain"])


async def seconds(querier, consistency=None, **options) -> dict[str, list[int]]:
    """Return the times of each partition's series, in seconds since NOW_MS."""
    reading = Reading(consistency) if consistency else Reading()
    samples = await querier.select("a", M, *EVER, reading=reading, **options)
    return {labels["p"]: [(t - NOW_MS) // 1000 for t, _ in points] for labels, points in to_python(samples)}


@pytest.mark.parametrize("near", [False, True])
async def test_a_strong_read_waits_for_all_that_was_acknowledged_and_an_eventual_one_for_nothing(cluster, near):
    querier = await cluster.querier(local=cluster.nodes["ingester-a"] if near else None)
    await cluster.consumed(0, await cluster.push(row(0, 0), partition=0))
    cluster.log_a.gate.clear()
    cluster.log_b.gate.clear()
    await asyncio.sleep(0.1)
    await cluster.push(row(0, 1), partition=0)
    assert await seconds(querier) == {"0": [0]}
    strong = asyncio.create_task(seconds(querier, STRONG))
    await asyncio.sleep(0.1)
    assert not strong.done()
    cluster.log_a.gate.set()
    cluster.log_b.gate.set()
    assert await strong == {"0": [0, 1]}


@IN_VAIN
async def test_a_strong_read_goes_on_to_an_owner_that_is_not_behind_and_else_fails_in_mimirs_words(cluster):
    querier = await cluster.querier(zones=["a"])
    cluster.log_a.gate.clear()
    await asyncio.sleep(0.1)
    await cluster.consumed(0, await cluster.push(row(0, 0), partition=0), nodes=["ingester-b"])
    assert await seconds(querier, STRONG) == {"0": [0]}
    cluster.log_b.gate.clear()
    await asyncio.sleep(0.1)
    await cluster.push(row(0, 1), partition=0)
    with pytest.raises(OwnerError) as error:
        await seconds(querier, STRONG)
    assert error.value.error_id == "read-consistency"
    assert error.value.message.endswith(
        "wait for read consistency: wait strong read consistency timeout exceeded: context deadline exceeded"
    )
    value = cluster.registry.get_sample_value
    labels = {"component": "query-frontend", "with_offset": "false", "topic": ""}
    assert value("cortex_ingest_storage_strong_consistency_requests_total", labels) == 2


async def test_presented_offsets_are_waited_for_and_no_others(cluster):
    querier = await cluster.querier()
    await cluster.consumed(0, await cluster.push(row(0, 0), partition=0))
    first = await cluster.push(row(1, 0), partition=1)
    await cluster.consumed(1, first)
    cluster.log_a.gate.clear()
    cluster.log_b.gate.clear()
    await asyncio.sleep(0.1)
    second = await cluster.push(row(1, 1), partition=1)
    assert await seconds(querier, ReadConsistency(offsets={1: first})) == {"0": [0], "1": [0]}
    assert await seconds(querier, ReadConsistency(offsets={1: -1})) == {"0": [0], "1": [0]}
    mine = asyncio.create_task(seconds(querier, ReadConsistency(offsets={1: second})))
    await asyncio.sleep(0.1)
    assert not mine.done()
    cluster.log_a.gate.set()
    cluster.log_b.gate.set()
    assert await mine == {"0": [0], "1": [0, 1]}


async def test_an_offset_past_the_logs_end_and_a_partition_that_never_was_are_the_clients_errors(cluster):
    querier = await cluster.querier()
    offset = await cluster.push(row(0, 0), partition=0)
    with pytest.raises(QueryError, match="offset 1 of partition 0 is past the end of the log, which is 1") as error:
        await seconds(querier, ReadConsistency(offsets={0: offset + 1}))
    assert error.value.http_status == 400
    with pytest.raises(QueryError, match="partition 9 does not exist") as error:
        await seconds(querier, ReadConsistency(offsets={9: 0}))
    assert error.value.http_status == 400
    assert await seconds(querier, ReadConsistency(offsets={9: -1, 0: offset})) == {"0": [0]}


async def test_an_offset_of_a_partition_that_is_gone_is_satisfied_by_its_last_checkpoint(cluster):
    querier = await cluster.querier()
    offset = await cluster.push(row(1, 0), partition=1)
    await cluster.consumed(1, offset)
    assert await seconds(querier) == {"1": [0]}
    for name in cluster.nodes:
        await cluster.own(name, [1], OwnerState.DELETED)
    await cluster.set_partition(1, PartitionState.DELETED)
    await until(lambda: 1 not in querier._heads._ring.desc.partitions)
    demand = ReadConsistency(offsets={1: offset})
    with pytest.raises(PartitionsUnreadable, match="partition 1: it is not in the ring, and not all of it is in the"):
        await seconds(querier, demand)
    for node in cluster.nodes.values():
        await node.ingester.flush(None, wait=True, partitions=[1])
    reading = Reading(demand)
    assert (await querier.select("a", M, *EVER, reading=reading)).sample_count == 1
    assert reading.seen[1] >= offset
    with pytest.raises(QueryError, match="past the end of the log"):
        await seconds(querier, ReadConsistency(offsets={1: 99}))


async def test_a_partition_that_this_process_has_not_heard_of_is_looked_up_before_it_is_refused(cluster):
    querier = await cluster.querier()
    offset = await cluster.push(row(0, 0), partition=0)
    view = querier._heads._ring
    refreshed = []
    plain = view.refresh

    async def refresh():
        refreshed.append(True)
        await plain()

    view.refresh = refresh
    await seconds(querier, ReadConsistency(offsets={0: offset}))
    assert not refreshed
    with pytest.raises(QueryError):
        await seconds(querier, ReadConsistency(offsets={7: 0}))
    assert refreshed


async def test_a_greatest_delay_refuses_owners_that_are_further_behind(cluster):
    querier = await cluster.querier(zones=["a"])
    await cluster.consumed(0, await cluster.push(row(0, 0), partition=0))
    assert await seconds(querier, ReadConsistency(max_delay_s=60.0)) == {"0": [0]}
    cluster.log_a.gate.clear()
    cluster.log_b.gate.clear()
    await asyncio.sleep(0.1)
    await cluster.push(row(0, 1), partition=0)
    await asyncio.sleep(0.3)
    with pytest.raises(OwnerError, match=r"partition reader is lagging behind more than the allowed max delay$"):
        await seconds(querier, ReadConsistency(max_delay_s=0.2))
    assert await seconds(querier) == {"0": [0]}


async def test_ends_of_the_log_that_cannot_be_known_fail_the_strong_read_only(cluster, monkeypatch):
    querier = await cluster.querier()
    await cluster.consumed(0, await cluster.push(row(0, 0), partition=0))

    async def down(partition):
        raise LogUnavailable("no broker")

    monkeypatch.setattr(cluster.log, "end_offset", down)
    with pytest.raises(LogUnavailable, match="wait for last produced offsets of topic 'ingest': no broker"):
        await seconds(querier, STRONG)
    assert await seconds(querier) == {"0": [0]}


# --- at the HTTP edge -----------------------------------------------------------------------------------------------


def edge(cluster, querier, **overrides) -> httpx.AsyncClient:
    """Return a client of the query API."""
    limits = load([], {})[0].limits.overridden(overrides)
    tenants = TenantResolver()
    application = FastAPI()
    api = QueryApi(querier, limits_for=lambda tenant: limits, now_ms=lambda: cluster.now_ms)
    application.include_router(
        ingestion_lag_router(querier, tenant_of=tenants.tenant_of, now_ms=lambda: cluster.now_ms)
    )
    metrics = QueryMetrics.create(CollectorRegistry())
    read = ReadApplication(
        querier, tenants=tenants, limits_for=lambda tenant: limits, now_ms=lambda: cluster.now_ms, metrics=metrics
    )
    application.mount("/read", read)
    routed = Router(query_routes(api, prefix="/prometheus", tenants=tenants, metrics=metrics), fallback=application)
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(routed), base_url="http://test", headers={"X-Scope-OrgID": "a"}
    )


QUERIES = [
    ("query", {"query": "m", "time": NOW_MS / 1000}),
    ("query_range", {"query": "m", "start": NOW_MS / 1000, "end": NOW_MS / 1000 + 1, "step": 1}),
    ("series", {"match[]": "m"}),
    ("labels", {"match[]": "m"}),
    ("label/p/values", {"match[]": "m"}),
    ("metadata", {}),
]


@pytest.mark.parametrize(("path", "params"), QUERIES, ids=[path for path, _ in QUERIES])
async def test_every_query_answers_with_the_offsets_that_it_saw_if_it_names_consistency(cluster, path, params):
    offset = await cluster.push(row(0, 0), partition=0)
    await cluster.consumed(0, offset)
    async with edge(cluster, await cluster.querier()) as client:
        path = f"/prometheus/api/v1/{path}"
        plain = await client.get(path, params=params)
        assert plain.status_code == 200
        assert "x-read-consistency-offsets" not in plain.headers
        for headers in (
            {"X-Read-Consistency": "strong"},
            {"X-Read-Consistency": "eventual"},
            {"X-Read-Consistency-Offsets": f"v1=0:{offset}"},
            {"X-Read-Consistency-Max-Delay": "1m"},
        ):
            answer = await client.get(path, params=params, headers=headers)
            assert answer.headers["x-read-consistency-offsets"] == f"v1=0:{offset},1:-1"
            assert answer.json() == plain.json()
        wrong = await client.get(path, params=params, headers={"X-Read-Consistency-Offsets": "v1=0"})
        assert wrong.status_code == 400
        late = await client.get(path, params=params, headers={"X-Read-Consistency-Offsets": f"v1=0:{offset + 1}"})
        assert (late.status_code, late.json()["errorType"]) == (400, "bad_data")
        partial = await client.get(path, params={**params, "partial_response": "maybe"})
        assert partial.status_code == 400


async def test_remote_read_takes_and_gives_offsets(cluster):
    offset = await cluster.push(row(0, 0), partition=0)
    body = compressed(read_request((NOW_MS, NOW_MS + 1, [(EQ, "__name__", "m")]), accepted=[1]))
    querier = await cluster.querier()
    async with edge(cluster, querier) as client:
        answer = await client.post("/read/", content=body, headers={"X-Read-Consistency-Offsets": f"v1=0:{offset}"})
        assert answer.headers["x-read-consistency-offsets"] == f"v1=0:{offset},1:-1"
        [[(labels, points)]] = read_chunks(answer.content, 1)
        assert (labels, len(points)) == ({"__name__": "m", "p": "0"}, 1)
        samples = compressed(read_request((NOW_MS, NOW_MS + 1, [(EQ, "__name__", "m")])))
        answer = await client.post("/read/", content=samples, headers={"X-Read-Consistency": "strong"})
        assert answer.headers["x-read-consistency-offsets"] == f"v1=0:{offset},1:-1"
        answer = await client.post("/read/", content=body, headers={"X-Read-Consistency-Offsets": "v1=0:5"})
        assert answer.status_code == 400


@IN_VAIN
async def test_the_tenants_default_makes_queries_strong(cluster):
    cluster.log_a.gate.clear()
    cluster.log_b.gate.clear()
    await asyncio.sleep(0.1)
    await cluster.push(row(0, 0), partition=0)
    querier = await cluster.querier()
    async with edge(cluster, querier, ingest_storage_read_consistency="strong") as client:
        failed = await client.get("/prometheus/api/v1/series", params={"match[]": "m"})
        assert failed.status_code == 500
        assert "wait strong read consistency timeout exceeded" in failed.json()["error"]
        headers = {"X-Read-Consistency": "eventual"}
        eventual = await client.get("/prometheus/api/v1/series", params={"match[]": "m"}, headers=headers)
        assert eventual.json() == {"status": "success", "data": []}


async def test_a_partial_response_warns(cluster):
    await cluster.consumed(0, await cluster.push(row(0, 0), partition=0))
    await cluster.push(row(1, 0), partition=1)
    for name in cluster.nodes:
        await cluster.own(name, [1], OwnerState.DELETED)
    querier = await cluster.querier()
    async with edge(cluster, querier) as client:
        for path, params in QUERIES:
            path = f"/prometheus/api/v1/{path}"
            refused = await client.get(path, params=params)
            assert refused.json()["status"] == "error"
            assert "partition 1: too many unhealthy instances in the ring" in refused.json()["error"]
            answer = await client.get(path, params={**params, "partial_response": "true"})
            assert answer.status_code == 200
            if not path.endswith("metadata"):
                assert "partition 1 is missing" in answer.json()["warnings"][0]


async def test_the_lag_of_every_owner_is_told(cluster):
    await cluster.consumed(0, await cluster.push(row(0, 0), partition=0))
    cluster.log_a.gate.clear()
    await asyncio.sleep(0.1)
    for second in (1, 2):
        offset = await cluster.push(row(0, second), partition=0)
    await cluster.consumed(0, offset, nodes=["ingester-b"])
    cluster.now_ms += 7000
    querier = await cluster.querier(local=cluster.nodes["ingester-b"])
    cluster.nodes["ingester-a"].ingester._log = cluster.log  # measuring is not reading
    async with edge(cluster, querier) as client:
        answer = await client.get("/api/v1/ingestion_lag")
        assert answer.status_code == 200
        data = json.loads(answer.text)["data"]
        first, second = data["partitions"]
        assert (first["records_behind"], first["seconds_behind"]) == (2, 7.0)
        assert first["oldest_pending_sample"] == NOW_MS / 1000 + 1
        assert [(o["instance"], o["records_behind"]) for o in first["owners"]] == [("ingester-a", 2), ("ingester-b", 0)]
        assert (second["partition"], second["records_behind"], second["oldest_pending_sample"]) == (1, 0, None)
        assert data["unreachable"] == {}
        await cluster.nodes["ingester-a"].listener.stop()
        data = (await client.get("/api/v1/ingestion_lag")).json()["data"]
        assert [o["instance"] for o in data["partitions"][0]["owners"]] == ["ingester-b"]
        assert "did not answer" in data["unreachable"]["ingester-a"]
        assert (await client.get("/api/v1/ingestion_lag", headers={"X-Scope-OrgID": ""})).status_code == 401
