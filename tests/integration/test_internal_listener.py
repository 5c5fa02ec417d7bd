"""A real Prometheus on both sides: it reads an ingester's heads, and what it sends is read by our decoder."""

from __future__ import annotations

import time

import httpx
import pytest

from mimir_ingest.model.samples import SampleBudget
from mimir_ingest.wire.read_frames import FrameReader
from tests.integration.test_remote_read import INSTANT, RANGE, STEP_MS, as_read, make_series
from tests.support import remote_write
from tests.support.blocks import to_python
from tests.support.peers import pick_free_port
from tests.support.program import Program
from tests.support.prometheus import run_prometheus
from tests.support.remote_read import RE, compressed, read_request

LENGTH = 1000
FLAGS = [
    "-distributor.ingestion-rate-limit=1e9",
    "-distributor.ingestion-burst-size=1000000000",
    "-ingester.out-of-order-time-window=24h",
]


def answers(client: httpx.Client, prefix: str, last_s: int) -> list:
    """Return the results of all queries, rows in an order that allows comparison."""
    found = []
    for query in INSTANT:
        answer = client.get(f"{prefix}/api/v1/query", params={"query": query, "time": last_s})
        found.append(answer.json()["data"]["result"])
    for query in RANGE:
        params = {"query": query, "start": last_s - 3600, "end": last_s, "step": 60}
        found.append(client.get(f"{prefix}/api/v1/query_range", params=params).json()["data"]["result"])
    return [sorted(rows, key=lambda row: sorted(row["metric"].items())) for rows in found]


@pytest.mark.peer
def test_a_prometheus_pointed_at_the_internal_listener_answers_as_the_tenants_listener_does(tmp_path, prometheus_bin):
    last_ms = (int(time.time()) - 60) * 1000
    series = make_series(last_ms - LENGTH * STEP_MS)
    port = pick_free_port()
    with Program(tmp_path / "program", f"-server.grpc-listen-port={port}", *FLAGS).start() as program:
        for some in range(0, len(series), 14):
            assert program.push(remote_write.body(series[some : some + 14])).status_code == 200
        config = f"""
scrape_configs: []
remote_read:
  - url: http://127.0.0.1:{port}/api/v1/read
    read_recent: true
    headers:
      X-Scope-OrgID: anonymous
"""
        (tmp_path / "prometheus").mkdir()
        with run_prometheus(prometheus_bin, tmp_path / "prometheus", config=config) as prometheus:
            wanted = answers(program.http, "/prometheus", last_ms // 1000)
            assert answers(prometheus, "", last_ms // 1000) == wanted
            assert sum(map(len, wanted)) > 100
        # What is for processes is not for tenants, and the other way round.
        inside = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-Scope-OrgID": "anonymous"})
        assert len(inside.get("/api/v1/series").json()["data"]) == len(series)
        lags = inside.get("/api/v1/ingestion_lag").json()["data"]
        assert [lag["next_offset"] for lag in lags] == [lag["end_offset"] for lag in lags]
        for path in ("/api/v1/read", "/api/v1/series", "/api/v1/metadata"):
            assert program.http.get(path).status_code == 404
        for path in ("/prometheus/api/v1/query", "/api/v1/push", "/ready", "/metrics", "/ingester/flush"):
            assert inside.post(path).status_code == 404
        inside.close()
        told = program.http.get("/api/v1/ingestion_lag").json()["data"]
        assert [(row["records_behind"], row["oldest_pending_sample"]) for row in told["partitions"]] == [
            (0, None)
        ] * len(lags)


@pytest.mark.peer
def test_the_streamed_answer_of_a_prometheus_is_read_bit_for_bit(tmp_path, prometheus_bin):
    last_ms = (int(time.time()) - 60) * 1000
    series = make_series(last_ms - LENGTH * STEP_MS)
    with run_prometheus(prometheus_bin, tmp_path, "--web.enable-remote-write-receiver") as prometheus:
        headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
        # At once: what is an hour older than the newest sample is out of bounds for a later request.
        assert prometheus.post("/api/v1/write", content=remote_write.body(series), headers=headers).status_code == 204
        for first, last in ((0, 2**61), (last_ms - 600_000, last_ms - 300_000)):
            body = compressed(read_request((first, last, [(RE, "__name__", ".+")]), accepted=[1]))
            answer = prometheus.post("/api/v1/read", content=body, headers=headers)
            assert answer.headers["content-type"].startswith("application/x-streamed-protobuf")
            reader = FrameReader(budget=SampleBudget(0), start_ms=first, end_ms=last + 1)
            for at in range(0, len(answer.content), 10_000):
                reader.feed(answer.content[at : at + 10_000])
            inside = [(labels, [s for s in samples if first <= s[0] <= last]) for labels, samples in series]
            assert to_python(reader.finish()) == as_read([row for row in inside if row[1]])
