"""Native histograms from the push to blocks: a real Prometheus, sent the same, is the judge of answers and files."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from mimir_ingest.model.histograms import GAUGE, NO_RESET, RESET, RESET_UNKNOWN
from mimir_ingest.tsdb.block_reader import open_files
from tests.support.blocks import read_files
from tests.support.histograms import Row, as_rows, filled, stored
from tests.support.native_series import batches, make_series
from tests.support.program import Program
from tests.support.prometheus import run_prometheus

LENGTH, STEP_MS = 160, 15_000
EVER = (-(1 << 62), 1 << 62)

INSTANT = [
    '{__name__=~"latency_.*"}',
    "latency_integer[40m]",
    "latency_float[40m]",
    "latency_custom[40m]",
    "latency_gauge[40m]",
    "latency_ended[40m]",
    "latency_mixed[40m]",
    "rate(latency_integer[10m])",
    "increase(latency_float[20m])",
    "sum(rate(latency_custom[10m]))",
    "histogram_quantile(0.9, sum(rate(latency_integer[10m])))",
    "histogram_quantile(0.5, latency_custom)",
    "histogram_fraction(0.5, 2, rate(latency_float[30m]))",
    "histogram_count(latency_lower) - histogram_sum(latency_lower)",
    "avg(latency_gauge)",
    "delta(latency_gauge[10m])",
    "count_over_time(latency_mixed[40m])",
    "resets(latency_integer[40m])",
    "resets(latency_float[40m])",
    "changes(latency_ended[40m])",
    "sum({__name__=~'latency_(integer|lower)'})",
    "sum_over_time(latency_gauge[5m])",
]
RANGE = [
    "rate(latency_integer[5m])",
    "latency_ended",
    "sum(latency_custom)",
    "latency_mixed",
    "increase(latency_lower[5m])",
]


def comparable(data):
    """A result in an order and a precision that allow comparison; numbers within 1e-12 are equal."""

    def number(text):
        value = float(text)
        return str(text) if math.isnan(value) or math.isinf(value) else f"{value:.12e}"

    def point(pair):
        t, value = pair
        if isinstance(value, str):
            return t, number(value)
        buckets = [(rule, *map(number, rest)) for rule, *rest in value.get("buckets", [])]
        return t, number(value["count"]), number(value["sum"]), buckets

    rows = []
    for row in data["result"]:
        kinds = {k: [point(row[k])] for k in ("value", "histogram") if k in row}
        kinds |= {k: [point(p) for p in row[k]] for k in ("values", "histograms") if k in row}
        rows.append((json.dumps(row["metric"], sort_keys=True), kinds))
    return sorted(rows, key=lambda row: row[0])


def answers(get, end_ms):
    """All answers of a server."""
    found = {}
    for query in INSTANT:
        found[query] = get("query", query=query, time=end_ms / 1000)
    for query in RANGE:
        found[f"{query} over time"] = get(
            "query_range", query=query, start=end_ms / 1000 - 2400, end=end_ms / 1000, step=30
        )
    return found


def getter(http, prefix):
    def get(path, **parameters):
        answer = http.get(f"{prefix}/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return get


@pytest.fixture(scope="module")
def pushed():
    """Series of the last forty minutes."""
    first = (int(time.time() * 1000) - LENGTH * STEP_MS) // 1000 * 1000
    return make_series(first, LENGTH, STEP_MS)


@pytest.fixture(scope="module")
def judge(prometheus_bin: Path, tmp_path_factory, pushed):
    """A Prometheus that was sent the same: (get, client, folder)."""
    folder = tmp_path_factory.mktemp("judge")
    flags = (
        "--web.enable-remote-write-receiver",
        "--web.enable-admin-api",
        "--enable-feature=native-histograms,promql-experimental-functions",
    )
    with run_prometheus(prometheus_bin, folder, *flags) as client:
        for one in batches(pushed, 10):
            headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
            answer = client.post("/api/v1/write", content=one, headers=headers)
            assert answer.status_code == 204, answer.text
        yield getter(client, ""), client, folder


def expected_rows(pushed) -> dict[str, list[tuple[int, Row]]]:
    return {
        json.dumps(labels, sort_keys=True): [(t, stored(v)) for t, v in samples if isinstance(v, Row)]
        for labels, samples in pushed
    }


def block_rows(folders) -> dict[str, list[tuple[int, Row]]]:
    """Histograms of blocks by series; checks that hints fit."""
    found: dict[str, list[tuple[int, Row]]] = {}
    for folder in folders:
        reader = open_files(read_files(folder))
        assert reader.verify() == []
        samples = reader.select([], *EVER)
        histograms = samples.histograms
        if histograms is None:
            # The block of a range that began a moment ago may hold floats only.
            continue
        rows = as_rows(histograms.values)
        for i, labels in enumerate(samples.labels.to_dicts()):
            own = range(histograms.offsets[i], histograms.offsets[i + 1])
            key = json.dumps(labels, sort_keys=True)
            hints = {rows[j].reset_hint for j in own if rows[j].sum_bits != stored_stale}
            assert hints <= ({GAUGE} if "gauge" in key else {RESET_UNKNOWN, RESET, NO_RESET})
            kept = [(int(histograms.timestamps[j]), filled(rows[j])._replace(reset_hint=0)) for j in own]
            found.setdefault(key, []).extend(kept)
    return {key: sorted(rows, key=lambda pair: pair[0]) for key, rows in found.items()}


stored_stale = 0x7FF0000000000002


@pytest.mark.peer
def test_answers_equal_those_of_a_prometheus_before_and_after_a_flush(tmp_path, pushed, judge, prometheus_bin):
    end_ms = pushed[0][1][-1][0]
    wanted = answers(judge[0], end_ms)
    with Program(tmp_path / "program", "-ingest-storage.embedded.partitions=2").start() as program:
        for one in batches(pushed, 5):
            answer = program.push(one)
            assert answer.status_code == 200, answer.text
        ours = getter(program.http, "/prometheus")
        for moment in ("from the head", "from blocks"):
            for query, found in answers(ours, end_ms).items():
                assert comparable(found["data"]) == comparable(wanted[query]["data"]), (query, moment)
                assert found.get("warnings") == wanted[query].get("warnings"), (query, moment)
            assert program.http.post("/ingester/flush?wait=true").status_code == 204
        reading = f"remote_read: [{{url: {program.url}/prometheus/api/v1/read, read_recent: true}}]\n"
        with run_prometheus(prometheus_bin, tmp_path, config=reading) as reader:
            # An empty Prometheus that reads from here.
            for query in INSTANT:
                found = getter(reader, "")("query", query=query, time=end_ms / 1000)
                assert comparable(found["data"]) == comparable(wanted[query]["data"]), query
        blocks = sorted(p.parent for p in (tmp_path / "program").rglob("meta.json"))
        assert len(blocks) >= 2
        assert block_rows(blocks) == expected_rows(pushed)


@pytest.mark.peer
def test_blocks_of_a_prometheus_are_read(pushed, judge):
    _, client, folder = judge
    name = client.post("/api/v1/admin/tsdb/snapshot").json()["data"]["name"]
    blocks = [p.parent for p in (folder / "data/snapshots" / name).rglob("meta.json")]
    assert blocks
    assert block_rows(blocks) == expected_rows(pushed)


SCRAPE = """
global: {{scrape_interval: 1s, scrape_native_histograms: true}}
scrape_configs:
- job_name: self
  static_configs: [{{targets: ["{target}"]}}]
remote_write:
- url: {url}/api/v1/push
  send_native_histograms: true
  protobuf_message: {message}
  queue_config: {{batch_send_deadline: 200ms}}
"""


@pytest.mark.peer
@pytest.mark.parametrize("message", ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"])
def test_what_a_prometheus_scrapes_and_sends_arrives(tmp_path, prometheus_bin, judge, message):
    """It scrapes the other Prometheus, which has native histograms of its own."""
    target = f"{judge[1].base_url.host}:{judge[1].base_url.port}"
    name = "prometheus_http_request_duration_seconds"
    with Program(tmp_path / "program", "-ingest-storage.embedded.partitions=1").start() as program:
        config = SCRAPE.format(target=target, url=program.url, message=message)
        with run_prometheus(prometheus_bin, tmp_path, config=config) as sender:
            theirs, ours = getter(sender, ""), getter(program.http, "/prometheus")
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                judge[0]("query", query="1")
                at = time.time() - 3  # older samples have been sent
                answers = [
                    get("query", query=query, time=at)["data"]["result"]
                    for get in (theirs, ours)
                    for query in (f"sum(count_over_time({name}[1h]))", f"sum(rate({name}[10s]))")
                ]
                if all(answers) and answers[0] == answers[2] and int(answers[2][0]["value"][1]) >= 20:
                    break
                time.sleep(0.3)
            assert all(answers), answers
            for query in (
                f"{name}[1h]",
                f"histogram_count({name})",
                f"histogram_quantile(0.9, sum(rate({name}[10s])))",
            ):
                wanted, found = (get("query", query=query, time=at)["data"] for get in (theirs, ours))
                assert wanted["result"]
                assert comparable(found) == comparable(wanted), query
