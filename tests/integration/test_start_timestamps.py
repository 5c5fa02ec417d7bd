"""A real Prometheus judges what start timestamps become, and sends its own."""

from __future__ import annotations

import http.server
import itertools
import random
import threading
import time
from pathlib import Path

import cramjam
import pytest

from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.series_limits import SeriesLimits
from mimir_ingest.wire import symbolized
from tests.support.blocks import both_kinds
from tests.support.histograms import STALE_BITS, Row, bits, filled, from_bits, put_histogram, stored
from tests.support.program import Program
from tests.support.prometheus import run_prometheus
from tests.support.protobuf_schema import ReadResponse, WriteRequest
from tests.support.remote_read import RE, bits_of, compressed, labels_of, read_request

pytestmark = pytest.mark.peer

NOW_MS = 1_790_000_000_000
RANGE_MS = 7_200_000
V2 = {"Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request", "Content-Encoding": "snappy"}
ROWS = [
    Row(3, 0, False, 0.001, 1.0, 3.0, bits(2.5), (), ((0, 1.0), (1, 1.0))),
    Row(0, 0, True, 0.0, 0.0, 1.5, bits(1.0), ((2, 0.5),), ((7, 1.0),)),
    Row(-53, 0, False, 0.0, 0.0, 2.0, bits(3.0), (), ((0, 1.0), (2, 1.0)), (1.0, 2.0)),
    Row(0, 0, False, 0.0, 0.0, 0.0, STALE_BITS, (), ()),
]


def requests(seed: int) -> tuple[list[bytes], set[tuple[str, int]]]:
    """Return bodies of remote write 2.0 whose samples are mostly in order and whose starts are all sorts.

    And the (series, ms) of all samples in them.
    """
    rng, times, bodies, sent_at = random.Random(seed), dict.fromkeys(range(12), NOW_MS), [], set()
    for _ in range(60):
        request = WriteRequest(symbols=[b"", b"__name__", *(b"s%d" % i for i in times)])
        for series in rng.sample(sorted(times), 6):
            one = request.timeseries_rw2.add(labels_refs=[1, 2 + series])
            last = times[series]
            at = last + rng.choice([1, 2, 15_000, 15_000, 15_000, 0, -5_000])
            start = rng.choice([0, NOW_MS - 9_000, last, last + 1, at - 1, at, at + 1, at - 10_000])
            if series < 6:
                value = rng.choice([0.0, 1.5, 7.0, from_bits(STALE_BITS)])
                one.samples.add(value=value, timestamp=at, start_timestamp=start)
            else:
                sent = one.histograms.add(start_timestamp=start)
                put_histogram(sent, at, ROWS[rng.choice([series % 3, series % 3, series % 3, 3])])
            times[series] = max(at, last)
            sent_at.add((f"s{series}", at))
        bodies.append(request.SerializeToString())
    return bodies, sent_at


def ours(bodies: list[bytes]) -> dict:
    head = Head("t")
    for offset, body in enumerate(bodies):
        batch = symbolized.decode(body).batch
        head.append(
            batch,
            offset=offset,
            newest_ms=NOW_MS + RANGE_MS,
            range_ms=RANGE_MS,
            limits=SeriesLimits(),
            window_ms=0,
        )
    found: dict = {}
    for answer in head.view([]).select([], 0, NOW_MS + RANGE_MS):
        for labels, points in both_kinds(answer):
            found.setdefault(labels["__name__"], {}).update(points)
    return found


def theirs(client) -> dict:
    query = read_request((NOW_MS - RANGE_MS, NOW_MS + RANGE_MS, [(RE, "__name__", ".+")]))
    answer = client.post("/api/v1/read", content=compressed(query), headers={"Content-Encoding": "snappy"})
    assert answer.status_code == 200, answer.text
    found: dict = {}
    for series in ReadResponse.FromString(bytes(cramjam.snappy.decompress_raw(answer.content))).results[0].timeseries:
        points = found.setdefault(labels_of(series)["__name__"], {})
        points.update((s.timestamp, bits_of([s.value])[0]) for s in series.samples)
        points.update((h.timestamp, filled(stored(_row(h)))) for h in series.histograms)
    return found


def _row(one) -> Row:
    sides = []
    for spans, deltas, counts in (
        (one.negative_spans, one.negative_deltas, one.negative_counts),
        (one.positive_spans, one.positive_deltas, one.positive_counts),
    ):
        at, indexes = 0, []
        for span in spans:
            at += span.offset
            indexes += range(at, at + span.length)
            at += span.length
        sides.append(tuple(zip(indexes, map(float, list(counts) or itertools.accumulate(deltas)), strict=True)))
    return Row(
        one.schema,
        0,
        one.HasField("count_float"),
        one.zero_threshold,
        float(one.zero_count_int or one.zero_count_float),
        float(one.count_int or one.count_float),
        bits(one.sum),
        *sides,
        tuple(one.custom_values),
    )


def test_a_start_becomes_the_zero_that_prometheus_makes_of_it(prometheus_bin: Path, tmp_path: Path) -> None:
    bodies, sent_at = requests(1)
    flags = (
        "--web.enable-remote-write-receiver",
        "--enable-feature=created-timestamp-zero-ingestion",
        "--storage.tsdb.retention.time=100y",
    )
    with run_prometheus(prometheus_bin, tmp_path, *flags) as client:
        for body in bodies:
            answer = client.post("/api/v1/write", content=bytes(cramjam.snappy.compress_raw(body)), headers=V2)
            assert answer.status_code in (204, 400), answer.text
        wanted = theirs(client)
    found = ours(bodies)
    assert found == wanted
    zeros = {(name, at) for name, points in found.items() for at in points} - sent_at
    assert len(zeros) > 40
    assert {name for name, _ in zeros} == set(found)


class Target(http.server.BaseHTTPRequestHandler):
    """What Prometheus scrapes: OpenMetrics with created timestamps; `began` and `jobs` are the test's to set."""

    began = 0.0
    jobs = 0

    def do_GET(self) -> None:
        text = (
            "# HELP jobs Jobs done.\n# TYPE jobs counter\n"
            f"jobs_total {self.jobs}\njobs_created {self.began:.3f}\n# EOF\n"
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


SENDER = """
global: {{scrape_interval: 1s}}
scrape_configs:
- job_name: jobs
  static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
remote_write:
- url: {url}/api/v1/push
  protobuf_message: io.prometheus.write.v2.Request
  queue_config: {{batch_send_deadline: 100ms}}
"""


def test_a_prometheus_sends_when_its_counters_began_and_nothing_of_them_is_lost(
    prometheus_bin: Path, tmp_path: Path
) -> None:
    flags = (
        "--enable-feature=st-storage,xor2-encoding",
        "--storage.tsdb.retention.time=100y",
    )
    with (
        Program(tmp_path / "program").start() as program,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Target) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Target.began, Target.jobs = round(time.time() - 7, 3), 5
        config = SENDER.format(port=server.server_port, url=program.url)
        with run_prometheus(prometheus_bin, tmp_path, *flags, config=config):
            assert _first_two(program, "0", "5") == Target.began
            # Another process in its place, which has done as much.
            Target.began = round(time.time(), 3)
            assert _newest_zero(program) == Target.began
            now_ms = time.time_ns() // 1_000_000
            (resets,) = program.query("resets(jobs_total[5m])", at_ms=now_ms)
            assert resets["value"][1] == "1"
        server.shutdown()


def _samples(program: Program) -> list[tuple[float, str]]:
    (series,) = program.query("jobs_total[5m]", at_ms=time.time_ns() // 1_000_000) or [{"values": []}]
    return [(float(at), value) for at, value in series["values"]]


def _first_two(program: Program, first: str, second: str) -> float:
    """Return the time of the first sample, once there are two, of these values."""
    samples = _until(lambda: _samples(program), lambda found: len(found) > 1)
    assert [value for _, value in samples[:2]] == [first, second]
    return samples[0][0]


def _newest_zero(program: Program) -> float:
    """Return the time of the second sample of zero, once there is one."""
    zeros = _until(
        lambda: [at for at, value in _samples(program) if value == "0"],
        lambda found: len(found) > 1,
    )
    return zeros[1]


def _until(ask, holds):
    deadline = time.monotonic() + 120
    while not holds(found := ask()):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found
