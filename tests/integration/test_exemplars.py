"""Exemplars from the push to the query, as a real Prometheus answers that was sent the same."""

from __future__ import annotations

import random
import time
from pathlib import Path

import cramjam
import numpy as np
import pytest

from mimir_ingest.api.exemplars import exemplars_json
from mimir_ingest.ingester.exemplars import ExemplarStore
from mimir_ingest.ingester.partition import ReceivedExemplars
from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.series_limits import SeriesLimits
from mimir_ingest.wire import remote_write_v1
from tests.support.program import Program
from tests.support.prometheus import run_prometheus
from tests.support.protobuf_schema import WriteRequest

HEADERS = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}


def bodies(first_ms: int) -> list[bytes]:
    """Pushes over a minute: two series with exemplars, some of them repeated, and one without."""
    found = []
    for step in range(12):
        request = WriteRequest()
        for pod in ("a", "b", "c"):
            row = request.timeseries.add()
            for name, value in (("__name__", "requests_total"), ("pod", pod)):
                row.labels.add(name=name.encode(), value=value.encode())
            row.samples.add(value=float(step), timestamp=first_ms + step * 5000)
            if pod == "c":
                continue
            for i in range(step % 3):
                one = row.exemplars.add(value=step + i / 4, timestamp=first_ms + (step - step % 2) * 5000 + i)
                one.labels.add(name=b"trace_id", value=b"%s-%d" % (pod.encode(), step - step % 2))
        found.append(bytes(cramjam.snappy.compress_raw(request.SerializeToString())))
    return found


@pytest.mark.peer
def test_exemplars_are_answered_as_a_prometheus_answers_them(tmp_path: Path, prometheus_bin: Path):
    first_ms = (int(time.time()) - 120) * 1000
    flags = ("--web.enable-remote-write-receiver", "--enable-feature=exemplar-storage")
    end = first_ms / 1000 + 60
    requests = [
        {"query": "requests_total"},
        {"query": 'sum(rate(requests_total{pod="a"}[5m])) / sum(rate(requests_total{pod=~"b|c"}[5m]))'},
        {"query": "requests_total", "start": end - 40, "end": end - 20},
        {"query": "rate(nosuchmetric[5m])"},
        {"query": "requests_total", "start": end, "end": end - 1},
        {"query": "requests_total{"},
        {"query": "1"},
    ]
    ours_flags = ("-ingest-storage.embedded.partitions=2", "-ingester.max-global-exemplars-per-user=1000")
    with (
        run_prometheus(prometheus_bin, tmp_path, *flags) as judge,
        Program(tmp_path / "program", *ours_flags).start() as program,
    ):
        for body in bodies(first_ms):
            assert judge.post("/api/v1/write", content=body, headers=HEADERS).status_code == 204
            assert program.push(body).status_code == 200
        for parameters in requests:
            theirs = judge.get("/api/v1/query_exemplars", params=parameters)
            ours = program.http.get("/prometheus/api/v1/query_exemplars", params=parameters)
            if parameters["query"] == "1":
                # A difference of Mimir's: nothing to look for is no content.
                assert (ours.status_code, ours.content) == (204, b"")
                continue
            assert ours.status_code == theirs.status_code, parameters
            assert ours.json().get("data") == theirs.json().get("data"), parameters
            assert ours.json()["status"] == theirs.json()["status"]
        everything = program.http.get("/prometheus/api/v1/query_exemplars", params=requests[0]).json()["data"]
        taken = sum(len(series["exemplars"]) for series in everything)
        assert taken > 8
        metrics = program.http.get("/metrics").text
        assert f"cortex_ingester_ingested_exemplars_total {taken}.0\n" in metrics
        name = "cortex_distributor_query_duration_seconds_count"
        assert f'{name}{{method="Distributor.QueryExemplars",status_code="200"}} ' in metrics


WINDOW_MS = 30_000
CONFIG = "storage: {{exemplars: {{max_exemplars: {most}}}, tsdb: {{out_of_order_time_window: 30s}}}}\n"
TRACES = [b"a", b"b", b"c", b"d", b"\xc3\xa9" * 70, "\u65e5".encode() * 90]


def random_write(rng: random.Random, step: int, at_ms: int) -> bytes:
    """A push whose exemplars are early, late, repeated and of one time; some of a series that has no sample at all."""
    request = WriteRequest()
    for pod in rng.sample(range(5), 3):
        row = request.timeseries.add()
        for name, value in ((b"__name__", b"requests"), (b"pod", b"%d" % pod)):
            row.labels.add(name=name, value=value)
        if pod:
            row.samples.add(value=float(step), timestamp=at_ms)
        for _ in range(rng.randrange(5)):
            value = rng.choice([1.0, 2.0, 2.0, 3.0, -0.0, 0.0, float("inf"), float("nan")])
            late_ms = rng.choice([0, 0, 0, 1000, 1000, 5000, 29_000, 30_000, 31_000, -2000])
            one = row.exemplars.add(value=value, timestamp=at_ms - late_ms)
            one.labels.add(name=b"trace_id", value=rng.choice(TRACES))
    return request.SerializeToString()


class Taken:
    """What an ingester takes from the same pushes."""

    def __init__(self) -> None:
        self.limit, self.head = 0, Head("t")
        self.store = ExemplarStore(lambda _: self.limit)

    def push(self, body: bytes, offset: int, at_ms: int) -> None:
        batch = remote_write_v1.decode(body).batch
        self.head.append(
            batch,
            offset=offset,
            newest_ms=at_ms,
            range_ms=7_200_000,
            limits=SeriesLimits(),
            window_ms=WINDOW_MS,
        )
        known = np.ones(batch.series_count, bool)
        known[self.head.new_rows(batch)] = False
        self.store.add(0, ReceivedExemplars("t", batch, known, WINDOW_MS))

    def json(self) -> str:
        found = sorted(self.store.select("t", [], 0, 1 << 60, {0}), key=lambda series: series.labels["pod"])
        return f'{{"status":"success","data":{exemplars_json(found)}}}'


@pytest.mark.peer
def test_of_any_stream_the_exemplars_are_kept_that_a_prometheus_keeps(tmp_path: Path, prometheus_bin: Path):
    """Late ones, repeated ones, a full circle, and circles that become larger, smaller and nothing."""
    rng, ours = random.Random(7), Taken()
    flags = ("--web.enable-remote-write-receiver", "--enable-feature=exemplar-storage", "--web.enable-lifecycle")
    first_ms = (int(time.time()) - 900) * 1000
    seen = set()
    with run_prometheus(prometheus_bin, tmp_path, *flags, config=CONFIG.format(most=100)) as judge:
        for step in range(240):
            at_ms = first_ms + step * 2000
            if step % 30 == 0:
                ours.limit = [100, 12, 30, 1000, 5, 0, 40, 20][step // 30]
                (tmp_path / "prometheus.yml").write_text(CONFIG.format(most=ours.limit))
                assert judge.post("/-/reload").status_code == 200
            body = random_write(rng, step, at_ms)
            answer = judge.post("/api/v1/write", content=bytes(cramjam.snappy.compress_raw(body)), headers=HEADERS)
            assert answer.status_code == 204, answer.text
            ours.push(body, step, at_ms)
            if step % 5 == 4:
                wanted = judge.get("/api/v1/query_exemplars", params={"query": '{__name__=~".+"}'}).text
                assert ours.json() == wanted, step
                seen.add(wanted)
    assert len(seen) > 40
