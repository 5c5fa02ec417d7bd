"""Exemplars from the push to the query, as a real Prometheus answers that was sent the same."""

from __future__ import annotations

import time
from pathlib import Path

import cramjam
import pytest

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
