"""Influx line protocol over HTTP: what is stored, and statuses without bodies."""

from __future__ import annotations

import gzip

import pytest

from mimir_ingest.api.influx import InfluxEdge
from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.errors import LogUnavailable
from tests.support.memory_log import MemoryLog
from tests.support.push_target import NOW_MS, PushTarget

EDGE = InfluxEdge(max_bytes=1000, now_ms=lambda: NOW_MS)
STORED = [(0, [(b"__name__", b"cpu_load"), (b"__proxy_source__", b"influx"), (b"host", b"a")], [(NOW_MS, 0.5)])]


@pytest.mark.parametrize("encoding", ["", "gzip", "x-gzip"])
async def test_lines_are_stored_and_answered_with_nothing(encoding):
    async with PushTarget(edge=EDGE) as target:
        body = b"cpu,host=a load=0.5 %d" % (NOW_MS // 1000)
        body = gzip.compress(body) if encoding else body
        answer = await target.post(body, "?precision=s", Content_Encoding=encoding)
        assert (answer.status_code, answer.content) == (204, b"")
        assert "X-Read-Consistency-Offsets" in answer.headers
        assert target.stored() == STORED
        assert target.counters("cortex_distributor_requests_in") == {
            "cortex_distributor_requests_in_total{version=influx}": 1
        }
        sizes = "cortex_distributor_influx_uncompressed_request_body_size_bytes_count"
        assert target.counters("cortex_distributor_influx_requests", sizes) == {
            "cortex_distributor_influx_requests_total": 1,
            sizes: 1,
        }


@pytest.mark.parametrize(
    ("body", "query", "headers"),
    [
        (b"cpu", "", {}),
        (b"cpu load=1", "?precision=fortnight", {}),
        (b"cpu load=1", "", {"Content_Encoding": "gzip"}),
        (gzip.compress(b"cpu load=1", mtime=0)[:-9], "", {"Content_Encoding": "gzip"}),
        (b"cpu load=1", "", {"Content_Encoding": "br"}),
        (b"cpu load=1" + b" " * 1000, "", {}),
        (gzip.compress(b"cpu load=1" + b" " * 100_000, mtime=0), "", {"Content_Encoding": "gzip"}),
        (b"cpu,a=b,a=c load=1", "", {}),
    ],
)
async def test_what_cannot_be_stored_is_a_400_without_a_body(body, query, headers):
    async with PushTarget(edge=EDGE) as target:
        answer = await target.post(body, query, **headers)
        assert (answer.status_code, answer.content) == (400, b"")
        assert target.stored() == []


async def test_a_log_that_fails_is_503_and_a_rate_429():
    log = MemoryLog()
    log.failures[0] = LogUnavailable("no broker")
    async with PushTarget(edge=EDGE, log=log) as target:
        answer = await target.post(b"cpu load=1")
        assert (answer.status_code, answer.content) == (503, b"")
        assert "Retry-After" in answer.headers
    async with PushTarget(DistributorLimits(ingestion_rate=1, ingestion_burst_size=1), edge=EDGE) as target:
        assert (await target.post(b"cpu load=1,idle=2")).status_code == 429
