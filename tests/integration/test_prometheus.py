"""A real Prometheus scrapes real targets, sends to us over either log, and is the judge of our answers."""

import json
import math
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.support.peers import pick_free_port
from tests.support.program import Program

INSTANT = [
    "up",
    "count({__name__=~'.+'}) by (job)",
    "sum by (job) (scrape_samples_scraped)",
    "rate(prometheus_http_requests_total[20s])",
    "sum by (le) (increase(prometheus_http_request_duration_seconds_bucket[20s]))",
    "histogram_quantile(0.9, sum by (le, handler) (rate(prometheus_http_request_duration_seconds_bucket[20s])))",
    "topk(3, scrape_samples_scraped)",
    "go_goroutines / on(instance, job) group_left() up",
    "max_over_time(go_goroutines[20s]) - min_over_time(go_goroutines[20s])",
    "absent(nosuchmetric)",
    "label_replace(up, 'host', '$1', 'instance', '(.*):.*')",
    "count_values('v', go_goroutines)",
    "avg_over_time(go_memstats_alloc_bytes[20s]) > bool 1",
    "quantile by (job) (0.5, go_gc_duration_seconds)",
    "deriv(process_resident_memory_bytes[20s])",
    "max_over_time(rate(prometheus_http_requests_total[5s])[10s:2s])",
    "up offset 5s",
    "stddev(scrape_duration_seconds)",
    "{job='prometheus',__name__=~'prometheus_tsdb_head.*'}",
    "go_info",
]
RANGE = ["up", "rate(prometheus_http_requests_total[10s])", "sum by (job) (scrape_samples_scraped)", "go_goroutines"]


class Prometheus:
    """A process with a configuration file; `query` gives the API's data."""

    def __init__(self, binary, directory: Path, config: str, *flags: str):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "prometheus.yml").write_text(config)
        self.port = pick_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory, self.config = directory, config
        self.command = [
            str(binary),
            f"--config.file={directory}/prometheus.yml",
            f"--web.listen-address=127.0.0.1:{self.port}",
            *(flags or [f"--storage.tsdb.path={directory}/data"]),
        ]

    def __enter__(self):
        (self.directory / "prometheus.yml").write_text(self.config.replace("$SELF", f"127.0.0.1:{self.port}"))
        self.log = open(self.directory / "log", "ab")
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/-/ready").status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError((self.directory / "log").read_text()[-2000:])

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
        self.log.close()

    def get(self, path, **params):
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=params, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


def ours(program, path, **params):
    answer = program.http.get(f"/prometheus/api/v1/{path}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def raw(query, at_s):
    """All raw float samples of the last ten minutes, by label set."""
    data = query("query", query='{__name__=~".+"}[10m]', time=at_s)["result"]
    return {json.dumps(r["metric"], sort_keys=True): r.get("values", []) for r in data if r.get("values")}


def comparable(result):
    """A result in an order and a precision that allow comparison; values within 1e-12 are equal."""
    if result["resultType"] in ("scalar", "string"):
        return result

    def number(text):
        value = float(text)
        return text if math.isnan(value) or math.isinf(value) else f"{value:.12e}"

    rows = []
    for row in result["result"]:
        points = [row["value"]] if "value" in row else row["values"]
        rows.append((json.dumps(row["metric"], sort_keys=True), [(t, number(v)) for t, v in points]))
    return sorted(rows)


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def log_flags(request, tmp_path):
    """Flags that choose the partition log."""
    if request.param == "embedded":
        return ["-ingest-storage.embedded.partitions=2"]
    broker = request.getfixturevalue("kafka_broker")
    topic = f"prometheus-{tmp_path.name}"
    return [f"-ingest-storage.kafka.address={broker.address}", f"-ingest-storage.kafka.topic={topic}"]


@pytest.mark.peer
def test_every_series_of_a_real_prometheus_arrives_and_all_answers_are_equal(
    tmp_path, log_flags, prometheus_bin, promtool_bin
):
    flags = [*log_flags, "-distributor.ingestion-rate-limit=1e9"]
    with Program(tmp_path / "program", *flags).start() as program:
        config = f"""
global: {{scrape_interval: 1s, external_labels: {{}}}}
scrape_configs:
  - job_name: prometheus
    static_configs: [{{targets: ['$SELF']}}]
  - job_name: mimir-ingest
    static_configs: [{{targets: ['127.0.0.1:{program.port}']}}]
  - job_name: gone
    static_configs: [{{targets: ['127.0.0.1:1']}}]
remote_write:
  - url: {program.url}/api/v1/push
    queue_config: {{batch_send_deadline: 200ms, max_samples_per_send: 500}}
"""
        with Prometheus(prometheus_bin, tmp_path / "sender", config) as prometheus:
            time.sleep(25)
            at_s = int(time.time()) - 3
            wait_for_arrival(program, prometheus, at_s)
            check_equal(program, prometheus, at_s)
            assert program.http.post("/ingester/flush", params={"wait": "true"}).status_code == 204
            check_equal(program, prometheus, at_s)
            check_blocks(tmp_path, program, promtool_bin, prometheus_bin, prometheus, at_s)


def wait_for_arrival(program, prometheus, at_s):
    """Return once as many samples have come as were scraped; each connection of the sender is late by its own time."""

    def counts(ask):
        return {labels: len(samples) for labels, samples in raw(ask, at_s).items()}

    deadline = time.monotonic() + 120
    while counts(lambda *a, **k: ours(program, *a, **k)) != counts(prometheus.get):
        assert time.monotonic() < deadline, f"not all until {at_s} arrived\n{program.log_tail()}"
        time.sleep(0.2)


def check_equal(program, prometheus, at_s):
    theirs, mine = raw(prometheus.get, at_s), raw(lambda *a, **k: ours(program, *a, **k), at_s)
    assert len(theirs) > 200
    assert mine.keys() == theirs.keys()
    assert mine == theirs
    for expression in INSTANT:
        expected = comparable(prometheus.get("query", query=expression, time=at_s))
        assert comparable(ours(program, "query", query=expression, time=at_s)) == expected, expression
    for expression in RANGE:
        window = {"start": at_s - 15, "end": at_s, "step": 1}
        expected = comparable(prometheus.get("query_range", query=expression, **window))
        assert comparable(ours(program, "query_range", query=expression, **window)) == expected, expression
    window = {"start": at_s - 15, "end": at_s}
    selector = {"match[]": '{job="prometheus"}', **window}
    expected = sorted(map(str, prometheus.get("series", **selector)))
    assert sorted(map(str, ours(program, "series", **selector))) == expected
    assert set(ours(program, "labels", **selector)) == set(prometheus.get("labels", **selector))
    assert ours(program, "label/job/values", **window) == prometheus.get("label/job/values", **window)


def check_blocks(tmp_path, program, promtool, prometheus_bin, prometheus, at_s):
    """promtool reads our blocks, and a Prometheus started on them answers like the sender."""
    tenant = program.directory / "data" / "blocks" / "anonymous"
    blocks = [p.parent for p in tenant.glob("*/meta.json")]
    assert blocks
    copy = tmp_path / "blocks"
    subprocess.run(["cp", "-r", tenant, copy], check=True)
    (copy / "wal").mkdir()  # promtool dump wants the folder, even empty
    for block in blocks:
        analyzed = subprocess.run(
            [promtool, "tsdb", "analyze", copy, block.name], capture_output=True, text=True, check=False
        )
        assert analyzed.returncode == 0, analyzed.stderr
        assert "Total Series" in analyzed.stdout
    dumped = subprocess.run([promtool, "tsdb", "dump", copy], capture_output=True, text=True, check=True)
    assert dumped.stdout.count("\n") > 1000
    storage = [f"--storage.tsdb.path={copy}", "--storage.tsdb.retention.time=1y"]
    with Prometheus(prometheus_bin, tmp_path / "reader", "global: {}\n", *storage) as reader:
        theirs, mine = raw(prometheus.get, at_s), raw(reader.get, at_s)
        assert mine == theirs
        for expression in INSTANT:
            expected = comparable(prometheus.get("query", query=expression, time=at_s))
            assert comparable(reader.get("query", query=expression, time=at_s)) == expected, expression
