"""A real Prometheus without data answers PromQL from our remote read; both response types give what was pushed."""

from __future__ import annotations

import json
import random
import struct
import time

import cramjam
import pytest

from tests.support import remote_write
from tests.support.program import Program
from tests.support.prometheus import run_prometheus
from tests.support.remote_read import (
    EQ,
    NEQ,
    NRE,
    RE,
    SAMPLES,
    STREAMED_XOR_CHUNKS,
    compressed,
    read_chunks,
    read_frames,
    read_request,
    read_samples,
)

STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
STEP_MS = 15_000
LENGTH = 1000
READ = "/prometheus/api/v1/read"

INSTANT = [
    "up",
    "count({__name__=~'.+'})",
    "sum by (job) (rate(requests_total[5m]))",
    "requests_total{job!='job-1', instance=~'host-[0-3]'}",
    "requests_total{zone!~'.+'}",
    "histogram_quantile(0.9, sum by (le) (rate(latency_bucket[10m])))",
    "topk(3, gauge)",
    "gauge offset 10m",
    "max_over_time(gauge[30m]) - min_over_time(gauge[30m])",
    "max_over_time(rate(requests_total[2m])[20m:1m])",
    "absent(nosuchmetric)",
    "requests_total / on (instance, job) group_left (zone) up",
    "gauge{zone='ü'}",
    "stops",
    "count_over_time(stops[1h])",
    "{instance='host-1'}",
]
RANGE = ["up", "sum by (job) (rate(requests_total[5m]))", "gauge", "stops", "gauge @ end()"]


def make_series(first_ms):
    """Series with counters that reset, a gauge of many shapes, a histogram, and one with staleness markers."""
    series = []
    for i in range(8):
        own = {"job": f"job-{i % 3}", "instance": f"host-{i}"}
        if i % 4 == 0:
            own["zone"] = "ü"
        times = [first_ms + 37 * i + j * STEP_MS for j in range(LENGTH)]
        series += [
            ({"__name__": "up", **own}, [(t, float(j % 17 != 0)) for j, t in enumerate(times)]),
            ({"__name__": "requests_total", **own}, [(t, float(j * (i + 1) % 2500)) for j, t in enumerate(times)]),
            ({"__name__": "gauge", **own}, [(t, (j * 7919 + i) % 1000 / 7 - 50) for j, t in enumerate(times)]),
            (
                {"__name__": "stops", **own},
                [(t, STALE if j % 50 == 49 else float(j)) for j, t in enumerate(times) if j % 50 < 30 or j % 50 == 49],
            ),
        ]
        for k, le in enumerate(["0.1", "1", "+Inf"]):
            bucket = {"__name__": "latency_bucket", "le": le, **own}
            series.append((bucket, [(t, float(j * (k + 1))) for j, t in enumerate(times)]))
    return series


def as_read(series):
    """What a client must find: series in label order with the bits of each value."""
    rows = [
        (labels, [(t, struct.unpack("<Q", struct.pack("<d", v))[0]) for t, v in samples]) for labels, samples in series
    ]
    return sorted(rows, key=lambda row: [(n.encode(), v.encode()) for n, v in sorted(row[0].items())])


def ask(program, *queries, accepted):
    """Send a request; return each query's series."""
    headers = {
        "Content-Encoding": "snappy",
        "Content-Type": "application/x-protobuf",
        "X-Prometheus-Remote-Read-Version": "0.1.0",
    }
    body = compressed(read_request(*queries, accepted=accepted))
    response = program.http.post(READ, content=body, headers=headers)
    assert response.status_code == 200, response.text
    if accepted and accepted[0] == STREAMED_XOR_CHUNKS:
        assert response.headers["content-type"].startswith("application/x-streamed-protobuf")
        return read_chunks(response.content, len(queries))
    assert response.headers["content-encoding"] == "snappy"
    return read_samples(bytes(cramjam.snappy.decompress_raw(response.content)))


def comparable(data):
    """A result in an order that allows comparison; values are compared as printed."""
    return sorted(
        (json.dumps(row["metric"], sort_keys=True), row.get("value"), row.get("values")) for row in data["result"]
    )


def get(client, path, **params):
    answer = client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    assert not answer.json().get("warnings"), answer.text
    return answer.json()["data"]


def check_both_forms(program, series, first_ms, last_ms):
    """Every bit of what was pushed comes back, by range and by matchers."""
    everything = (RE, "__name__", ".+")
    inner = (first_ms + 100 * STEP_MS, first_ms + 500 * STEP_MS)  # both are times of samples of host-0
    queries = [
        (first_ms, last_ms, [everything]),
        (*inner, [(EQ, "__name__", "stops"), (NEQ, "job", "job-1"), (NRE, "instance", "host-[67]")]),
        (last_ms + 1, last_ms + 3_600_000, [everything]),
    ]
    chosen = [
        (labels, [(t, v) for t, v in samples if inner[0] <= t <= inner[1]])
        for labels, samples in series
        if labels["__name__"] == "stops" and labels["job"] != "job-1" and labels["instance"] not in ("host-6", "host-7")
    ]
    expected = [as_read(series), as_read(chosen), []]
    for accepted in ([], [SAMPLES], [STREAMED_XOR_CHUNKS, SAMPLES]):
        assert ask(program, *queries, accepted=accepted) == expected


def check_prometheus(program, prometheus, at_s):
    for expression in INSTANT:
        theirs = get(prometheus, "/api/v1/query", query=expression, time=at_s)
        mine = get(program.http, "/prometheus/api/v1/query", query=expression, time=at_s)
        assert comparable(theirs) == comparable(mine), expression
    window = {"start": at_s - 7200, "end": at_s, "step": 60}
    for expression in RANGE:
        theirs = get(prometheus, "/api/v1/query_range", query=expression, **window)
        mine = get(program.http, "/prometheus/api/v1/query_range", query=expression, **window)
        assert comparable(theirs) == comparable(mine), expression
        assert theirs["result"], expression
    selector = {"match[]": "gauge", "start": at_s - 3600, "end": at_s}
    theirs = get(prometheus, "/api/v1/series", **selector)
    assert sorted(map(str, theirs)) == sorted(map(str, get(program.http, "/prometheus/api/v1/series", **selector)))
    assert len(theirs) == 8


def streamed_reads(prometheus):
    """How many streamed answers this Prometheus has read without an error."""
    wanted = ("prometheus_remote_read_client_queries_total{", 'code="200"', 'response_type="chunked"')
    lines = [line for line in prometheus.get("/metrics").text.splitlines() if all(part in line for part in wanted)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@pytest.mark.peer
def test_a_prometheus_without_data_answers_from_us_before_and_after_a_flush(tmp_path, prometheus_bin):
    last_ms = (int(time.time()) - 60) * 1000
    first_ms = last_ms - LENGTH * STEP_MS
    series = make_series(first_ms)
    flags = [
        "-distributor.ingestion-rate-limit=1e9",
        "-distributor.ingestion-burst-size=1000000000",
        "-ingester.out-of-order-time-window=24h",
    ]
    with Program(tmp_path / "program", *flags).start() as program:
        for some in range(0, len(series), 14):
            answer = program.push(remote_write.body(series[some : some + 14]))
            assert answer.status_code == 200, answer.text
        config = f"""
scrape_configs: []
remote_read:
  - url: {program.url}{READ}
    read_recent: true
"""
        (tmp_path / "prometheus").mkdir()
        with run_prometheus(prometheus_bin, tmp_path / "prometheus", config=config) as prometheus:
            check_both_forms(program, series, first_ms, last_ms)
            check_prometheus(program, prometheus, last_ms // 1000)
            assert program.http.post("/ingester/flush", params={"wait": "true"}).status_code == 204
            check_both_forms(program, series, first_ms, last_ms)
            check_prometheus(program, prometheus, last_ms // 1000)
            assert streamed_reads(prometheus) >= 2 * (len(INSTANT) + len(RANGE))


@pytest.mark.peer
def test_a_series_over_several_frames_reaches_a_prometheus_whole(tmp_path, prometheus_bin):
    count = 150_000
    last_ms = (int(time.time()) - 60) * 1000
    source = random.Random(7)
    samples = [(last_ms - 1000 * i, source.random()) for i in reversed(range(count))]
    limits = ["-distributor.ingestion-rate-limit=1e9", "-distributor.ingestion-burst-size=1000000000"]
    with Program(tmp_path / "program", *limits, "-ingester.out-of-order-time-window=72h").start() as program:
        assert program.push(remote_write.body([({"__name__": "noise"}, samples)])).status_code == 200
        body = read_request((last_ms - 1000 * count, last_ms, [(EQ, "__name__", "noise")]), accepted=[1])
        frames = read_frames(program.http.post(READ, content=compressed(body)).content)
        assert len(frames) > 1
        assert all(size < (1 << 20) + 2000 for size, _ in frames)
        config = f"remote_read:\n  - url: {program.url}{READ}\n    read_recent: true\n"
        (tmp_path / "prometheus").mkdir()
        with run_prometheus(prometheus_bin, tmp_path / "prometheus", config=config) as prometheus:
            data = get(prometheus, "/api/v1/query", query="noise[3d]", time=last_ms / 1000)
            assert streamed_reads(prometheus) == 1
        # Prometheus 3.14 takes each frame for a series of its own, also when a Prometheus sent them.
        assert [row["metric"] for row in data["result"]] == [{"__name__": "noise"}] * len(frames)
        assert [(round(t * 1000), float(v)) for row in data["result"] for t, v in row["values"]] == samples


@pytest.mark.peer
def test_a_prometheus_shows_our_refusal(tmp_path, prometheus_bin):
    now_ms = int(time.time()) * 1000
    with Program(tmp_path / "program", "-querier.max-samples=5").start() as program:
        samples = [(now_ms - 1000 * i, float(i)) for i in range(10, 0, -1)]
        assert program.push(remote_write.body([({"__name__": "m"}, samples)])).status_code == 200
        config = f"remote_read:\n  - url: {program.url}{READ}\n    read_recent: true\n"
        (tmp_path / "prometheus").mkdir()
        with run_prometheus(prometheus_bin, tmp_path / "prometheus", config=config) as prometheus:
            answer = prometheus.get("/api/v1/query", params={"query": "m[1m]", "time": now_ms / 1000})
            refusal = "400 Bad Request: query processing would load too many samples into memory in query execution"
            assert refusal in answer.text
