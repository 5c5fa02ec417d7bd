"""A real Prometheus sends all it can by remote write 1.0 and 2.0, and is the judge of what arrived.

Metadata by 2.0: Prometheus 3.14 writes none of what it scrapes to its WAL, whatever its features (its storage has an
option for it that no flag sets), and 2.0 sends what the WAL has. So a scraped series comes with the type and unit that
`type-and-unit-labels` gives it. What Prometheus itself received by 2.0 it does write, and sends on with the help text.
"""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cramjam
import httpx
import pytest

from tests.support.histograms import Row, bits, put_histogram
from tests.support.program import Program
from tests.support.prometheus import run_prometheus
from tests.support.protobuf_schema import WriteRequest

pytestmark = pytest.mark.peer

EXPOSED = """\
# HELP jobs Jobs done.
# TYPE jobs counter
jobs_total {jobs} # {{trace_id="{jobs}"}} 0.5 {now:.3f}
jobs_created {began:.3f}
# HELP temperature_celsius How warm it is.
# TYPE temperature_celsius gauge
# UNIT temperature_celsius celsius
temperature_celsius 21
# HELP wait_seconds How long it took.
# TYPE wait_seconds histogram
# UNIT wait_seconds seconds
wait_seconds_bucket{{le="1.0"}} 1 # {{trace_id="short{jobs}"}} 0.5 {now:.3f}
wait_seconds_bucket{{le="+Inf"}} 2
wait_seconds_count 2
wait_seconds_sum 3
# EOF
"""
CONFIG = """
global: {{scrape_interval: 1s}}
storage: {{exemplars: {{max_exemplars: 10000}}}}
scrape_configs:
- job_name: jobs
  static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
remote_write:
- url: {url}/api/v1/push
  name: first
  headers: {{X-Scope-OrgID: first}}
  send_exemplars: true
  send_native_histograms: true
  metadata_config: {{send_interval: 1s}}
  queue_config: {{batch_send_deadline: 100ms}}
- url: {url}/api/v1/push
  name: second
  headers: {{X-Scope-OrgID: second}}
  protobuf_message: io.prometheus.write.v2.Request
  send_exemplars: true
  send_native_histograms: true
  queue_config: {{batch_send_deadline: 100ms}}
"""
FEATURES = "metadata-wal-records,type-and-unit-labels,exemplar-storage,st-storage,xor2-encoding,histograms-st-encoding"
TENANTS = ("first", "second")
API = "/api/v1"
V2 = {"Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request", "Content-Encoding": "snappy"}
FORWARDED_ROW = Row(3, 0, False, 0.001, 1.0, 3.0, bits(2.5), (), ((0, 1.0), (1, 1.0)))
COUNTER, HISTOGRAM = 1, 3


class Target(http.server.BaseHTTPRequestHandler):
    """OpenMetrics of a process that began some seconds before the test."""

    began = 0.0

    def do_GET(self) -> None:
        text = EXPOSED.format(jobs=int(10 * (time.time() - self.began)), began=self.began, now=time.time())
        self.send_response(200)
        self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def forwarded(at_ms: int) -> bytes:
    """A message that Prometheus receives and sends on: a counter and a native histogram and all they may carry."""
    symbols = [b"", b"__name__", b"sent_total", b"Things sent.", b"things", b"size_bytes", b"Sizes.", b"bytes"]
    request = WriteRequest(symbols=[*symbols, b"trace_id", b"%d" % at_ms])
    for name, kind, text, unit in ((2, COUNTER, 3, 4), (5, HISTOGRAM, 6, 7)):
        one = request.timeseries_rw2.add(labels_refs=[1, name])
        one.metadata.type, one.metadata.help_ref, one.metadata.unit_ref = kind, text, unit
        one.exemplars.add(labels_refs=[8, 9], value=0.5, timestamp=at_ms)
        if kind == COUNTER:
            one.samples.add(value=7.0, timestamp=at_ms)
        else:
            put_histogram(one.histograms.add(), at_ms, FORWARDED_ROW)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory, prometheus_bin: Path) -> Iterator[tuple[Program, httpx.Client, int]]:
    """Our program and the Prometheus that sends to it, once its first samples have arrived; and when."""
    flags = (f"--enable-feature={FEATURES}", "--web.enable-remote-write-receiver")
    folder = tmp_path_factory.mktemp("senders")
    Target.began = round(time.time() - 60, 3)
    with (
        Program(folder / "program", "-ingester.max-global-exemplars-per-user=10000", multitenancy=True).start() as ours,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Target) as target,
    ):
        threading.Thread(target=target.serve_forever, daemon=True).start()
        config = CONFIG.format(port=target.server_port, url=ours.url)
        with run_prometheus(prometheus_bin, folder, *flags, config=config) as prometheus:
            scrapes = 'count_over_time(up{job="jobs"}[1m]) > 2'
            until(lambda: data(prometheus, f"{API}/query", query=scrapes)["result"])
            # Metadata that is in the WAL behind its series' first samples goes with those that come next.
            for _ in range(2):
                at_ms = time.time_ns() // 1_000_000
                answer = prometheus.post("/api/v1/write", content=forwarded(at_ms), headers=V2)
                assert answer.status_code == 204, answer.text
                time.sleep(1)
            for tenant in TENANTS:
                until(lambda tenant=tenant: has_arrived(ours, prometheus, tenant, at_ms))
            yield ours, prometheus, at_ms
        target.shutdown()


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def data(client: httpx.Client, path: str, tenant: str = "", **parameters: object):
    answer = client.get(path, params=parameters, headers={"X-Scope-OrgID": tenant} if tenant else {})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def exemplars(client: httpx.Client, prefix: str, tenant: str, end_ms: int) -> list:
    return data(client, f"{prefix}/query_exemplars", tenant, query='{__name__=~".+"}', end=end_ms / 1000)


def metadata(program: Program, tenant: str) -> dict[str, list[dict[str, str]]]:
    return data(program.http, "/prometheus/api/v1/metadata", tenant)


def has_arrived(ours: Program, prometheus: httpx.Client, tenant: str, at_ms: int) -> bool:
    newest = ours.query("timestamp(sent_total)", at_ms=at_ms, tenant=tenant)
    if not newest or float(newest[0]["value"][1]) < at_ms / 1000 or "temperature_celsius" not in metadata(ours, tenant):
        return False
    return exemplars(ours.http, f"/prometheus{API}", tenant, at_ms) == exemplars(prometheus, API, "", at_ms)


@pytest.mark.parametrize("tenant", TENANTS)
def test_samples_and_native_histograms_are_those_that_prometheus_has(sent, tenant):
    ours, prometheus, at_ms = sent
    for query in (
        "jobs_total[1m]",
        "wait_seconds_bucket[1m]",
        "temperature_celsius",
        "size_bytes[1m]",
        "sent_total[1m]",
    ):
        wanted = data(prometheus, f"{API}/query", query=query, time=at_ms / 1000)["result"]
        assert wanted
        found = data(ours.http, f"/prometheus{API}/query", tenant, query=query, time=at_ms / 1000)["result"]
        assert without_zeros(found) == without_zeros(wanted), query


def without_zeros(result: list[dict]) -> list[dict]:
    """A result without the zeros that stand where counting began: Prometheus keeps starts beside its samples."""
    kept = []
    for row in sorted(result, key=lambda row: sorted(row["metric"].items())):
        values = [point for point in row.get("values", []) if point[1] != "0"]
        histograms = [point for point in row.get("histograms", []) if point[1]["count"] != "0"]
        kept.append((row["metric"], row.get("value"), values, histograms))
    return kept


def test_counting_begins_with_a_zero_at_the_start_that_came_by_2_0(sent):
    ours, _, at_ms = sent
    (jobs,) = ours.query("jobs_total[5m]", at_ms=at_ms, tenant="second")
    assert jobs["values"][0] == [Target.began, "0"]


@pytest.mark.parametrize("tenant", TENANTS)
def test_exemplars_are_those_that_prometheus_has(sent, tenant):
    ours, prometheus, at_ms = sent
    wanted = exemplars(prometheus, API, "", at_ms)
    assert {series["seriesLabels"]["__name__"] for series in wanted} == {
        "jobs_total",
        "sent_total",
        "size_bytes",
        "wait_seconds_bucket",
    }
    assert exemplars(ours.http, f"/prometheus{API}", tenant, at_ms) == wanted


def test_metadata_by_1_0_is_that_of_the_targets(sent):
    ours, prometheus, _ = sent
    wanted = data(prometheus, f"{API}/metadata")
    assert wanted["wait_seconds"] == [{"type": "histogram", "help": "How long it took.", "unit": "seconds"}]
    assert metadata(ours, "first") == wanted


def test_metadata_by_2_0_is_what_prometheus_has_in_its_wal_and_labels(sent):
    ours, _, _ = sent
    found = metadata(ours, "second")
    assert {name: found[name] for name in ("jobs_total", "temperature_celsius", "wait_seconds")} == {
        "jobs_total": [{"type": "counter", "help": "", "unit": ""}],
        "temperature_celsius": [{"type": "gauge", "help": "", "unit": "celsius"}],
        "wait_seconds": [{"type": "histogram", "help": "", "unit": "seconds"}],
    }
    assert {"type": "counter", "help": "Things sent.", "unit": "things"} in found["sent_total"]
    assert {"type": "histogram", "help": "Sizes.", "unit": "bytes"} in found["size_bytes"]


def test_prometheus_takes_every_answer_for_a_success(sent):
    _, prometheus, _ = sent
    text = prometheus.get("/metrics").text
    for kind in ("samples", "histograms", "exemplars", "metadata"):
        counters = [line for line in text.splitlines() if line.startswith(f"prometheus_remote_storage_{kind}_")]
        assert all(line.endswith(" 0") for line in counters if "_failed_total{" in line or "_retried_total{" in line)
        sent_by = [line for line in counters if line.startswith(f"prometheus_remote_storage_{kind}_total{{")]
        assert len(sent_by) == 2
        assert not any(line.endswith(" 0") for line in sent_by), kind
