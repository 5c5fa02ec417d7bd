"""Load of every kind for a long time, and what it leaves in memory.

`python -m tests.soak.run --minutes 30 --report FILE`

Cuts come every minute and idle tenants are forgotten after one, so that half an hour passes through what a week does:
tenants and series that come and go, queries of all kinds, requests that fail, connections that break. A line a minute
is printed, as is every answer over 499; the slope of the second half is printed at the end. FILE gets what
`tests.soak.watched` saw, FILE.log the program's log.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cramjam
import httpx
import numpy as np

from tests.support import remote_write
from tests.support.program import Program
from tests.support.protobuf_schema import WriteRequest
from tests.support.remote_read import RE, STREAMED_XOR_CHUNKS, compressed, read_request

FLAGS = [
    "-distributor.ingestion-rate-limit=1e12",
    "-distributor.ingestion-burst-size=1000000000",
    "-ingester.max-global-series-per-user=0",
    "-ingester.max-global-exemplars-per-user=10000",
    "-ingester.native-histograms-ingestion-enabled=true",
    "-querier.cardinality-analysis-enabled=true",
    "-ingest-storage.retention-after-cut=20s",
    "-ingest-storage.snapshot-interval=45s",
    "-distributor.influx-endpoint-enabled=true",
    "-ingester.active-series-metrics-idle-timeout=1m",
    "-blocks-storage.bucket-store.bucket-index.idle-timeout=2m",
    "-blocks-storage.bucket-store.index-header.lazy-loading-idle-timeout=2m",
]
PUSH = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
STEADY = 4000
"""Series of the steady tenant."""


class Watched(Program):
    """The program under the eyes of `tests.soak.watched`."""

    def __init__(self, directory: Path, report: Path, *flags: str, every_s: float, trace: bool) -> None:
        super().__init__(directory, *flags, multitenancy=True)
        watched = [str(report.resolve()), str(every_s), str(int(trace))]
        self.command = [sys.executable, str(Path(__file__).with_name("watched.py")), *watched]
        self.log_path = Path(f"{report.resolve()}.log")


def now_ms() -> int:
    """Return the wall clock."""
    return time.time_ns() // 1_000_000


def show_failure(response: httpx.Response) -> None:
    """Print an answer that says that the program failed."""
    if response.status_code >= 500:
        text, asked = response.read().decode("utf-8", "replace"), response.request
        print(f"{time.ctime()} {response.status_code} to {asked.method} {asked.url}: {text[:2000]}", flush=True)


class Load:
    """Threads that do one thing over and over; what was answered is counted."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.answers: Counter[str] = Counter()
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def every(self, seconds: float, act: Callable[[httpx.Client, int], str]) -> None:
        """Call `act(client, turn)` every so many seconds until stopped; it names what came of it."""

        def run() -> None:
            turn = 0
            with httpx.Client(
                base_url=self.program.url, timeout=60, event_hooks={"response": [show_failure]}
            ) as client:
                while not self.stopping.wait(seconds):
                    try:
                        came = act(client, turn)
                    except (httpx.HTTPError, OSError) as error:
                        came = type(error).__name__
                    self.answers[f"{act.__name__} {came}"] += 1
                    turn += 1

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def stop(self) -> None:
        """Wait until all have ended."""
        self.stopping.set()
        for thread in self._threads:
            thread.join()


def _push(client: httpx.Client, tenant: str, series: list) -> str:
    answer = client.post("/api/v1/push", content=remote_write.body(series), headers={**PUSH, "X-Scope-OrgID": tenant})
    return str(answer.status_code)


def steady(client: httpx.Client, turn: int) -> str:
    """The same series, again and again."""
    now, came = now_ms(), ""
    values = np.random.default_rng(turn).random(STEADY)
    for first in range(0, STEADY, 2000):
        rows = [
            ({"__name__": f"steady_{i % 4}_total", "i": str(i), "job": f"job-{i % 50}"}, [(now, turn + values[i])])
            for i in range(first, first + 2000)
        ]
        came = _push(client, "steady", rows)
    return came


def churn(client: httpx.Client, turn: int) -> str:
    """Series that live for a minute."""
    now = now_ms()
    rows = [
        ({"__name__": "churn", "pod": f"pod-{now // 60_000}-{i}", "i": str(i)}, [(now, float(turn))])
        for i in range(400)
    ]
    return _push(client, "steady", rows)


def tenants(client: httpx.Client, turn: int) -> str:
    """A tenant that comes, is asked, and is never heard of again."""
    tenant = f"tenant-{turn}"
    came = _push(client, tenant, [({"__name__": "one", "i": str(i)}, [(now_ms(), 1.0)]) for i in range(20)])
    client.get("/prometheus/api/v1/query", params={"query": "count(one)"}, headers={"X-Scope-OrgID": tenant})
    return came


def histograms(client: httpx.Client, turn: int) -> str:
    """Native histograms, exemplars and metadata."""
    to, now = WriteRequest(), now_ms()
    for i in range(100):
        row = to.timeseries.add()
        row.labels.add(name=b"__name__", value=b"native")
        row.labels.add(name=b"i", value=str(i).encode())
        counts = [1 + turn, 2 + turn, 3 + 2 * turn, 1]
        one = row.histograms.add(schema=1, count_int=sum(counts), sum=float(turn), timestamp=now)
        one.positive_spans.add(offset=0, length=len(counts))
        one.positive_deltas.extend(b - a for a, b in zip((0, *counts), counts, strict=False))
        exemplar = row.exemplars.add(value=1.0, timestamp=now)
        exemplar.labels.add(name=b"trace_id", value=f"{turn}-{i}".encode())
    to.metadata.add(type=3, metric_family_name=f"native_{turn % 500}".encode(), help=b"text")
    body = bytes(cramjam.snappy.compress_raw(to.SerializeToString()))
    answer = client.post("/api/v1/push", content=body, headers={**PUSH, "X-Scope-OrgID": "steady"})
    return str(answer.status_code)


QUERIES = [
    ("query", {"query": "count(steady_0_total)"}),
    ("query", {"query": 'sum by (job) (rate({__name__=~"steady_.*"}[2m]))'}),
    ("query", {"query": "topk(5, churn)"}),
    ("query", {"query": "histogram_quantile(0.9, sum(rate(native[2m])))"}),
    ("query_range", {"query": 'sum(rate({__name__=~"steady_.*"}[1m]))'}),
    ("query_range", {"query": "steady_1_total"}),
    ("query_range", {"query": 'steady_1_total{i="5"}'}),
    ("query_range", {"query": "steady_1_total / steady_1_total"}),
    ("query_range", {"query": "quantile_over_time(0.5, churn[1m])"}),
    ("query_range", {"query": "native"}),
    ("query_range", {"query": "sum(native)"}),
    ("query_range", {"query": 'label_replace(churn, "a", "$1", "pod", "(.*)")'}),
    ("query_exemplars", {"query": "native"}),
    ("series", {"match[]": "churn"}),
    ("labels", {}),
    ("label/pod/values", {}),
    ("metadata", {}),
    ("cardinality/label_names", {}),
    ("cardinality/label_values", {"label_names[]": "pod"}),
    ("cardinality/active_series", {"selector": "churn"}),
    ("format_query", {"query": "sum(a)/b"}),
    ("query", {"query": "sum("}),
    ("query", {"query": "churn + on (job) group_left churn"}),
    ("query_range", {"query": "up", "step": "0"}),
    ("nothing", {}),
]


def queries(client: httpx.Client, turn: int) -> str:
    """Queries of all kinds over the last ten minutes, good and bad; each text is asked for again and again."""
    path, parameters = QUERIES[turn % len(QUERIES)]
    end = time.time() - random.choice((0, 0, 0, 120))
    times = {"start": end - 600, "end": end, "step": "15"} if path != "query" else {"time": end}
    headers = {"X-Scope-OrgID": "steady"}
    if turn % 7 == 0:
        headers["Accept"] = "application/vnd.apache.arrow.stream"
    answer = client.get(f"/prometheus/api/v1/{path}", params={**times, **parameters}, headers=headers)
    return str(answer.status_code)


def new_queries(client: httpx.Client, turn: int) -> str:
    """A text that was never asked for before."""
    text = f'max(steady_{turn % 4}_total{{i=~"{turn}|{turn + 1}.*"}}) + {turn}'
    answer = client.get("/prometheus/api/v1/query", params={"query": text}, headers={"X-Scope-OrgID": "steady"})
    return str(answer.status_code)


def remote_read(client: httpx.Client, turn: int) -> str:
    """Remote read, both kinds of answer."""
    now = now_ms()
    accepted = [STREAMED_XOR_CHUNKS] if turn % 2 else []
    body = compressed(read_request((now - 300_000, now, [(RE, "__name__", "churn|native")]), accepted=accepted))
    answer = client.post("/prometheus/api/v1/read", content=body, headers={**PUSH, "X-Scope-OrgID": "steady"})
    return str(answer.status_code)


def refused(client: httpx.Client, turn: int) -> str:
    """Pushes that are wrong in some way."""
    headers = {**PUSH, "X-Scope-OrgID": "steady"}
    old = remote_write.body([({"__name__": "steady_0_total", "i": "0"}, [(now_ms() - 86_400_000, 1.0)])])
    invalid = remote_write.body([({"__name__": f"bad name {turn}"}, [(now_ms(), 1.0)])])
    bodies = [random.randbytes(2000), old, invalid, old[:20]]
    client.post("/otlp/v1/metrics", content=random.randbytes(500), headers={"X-Scope-OrgID": "steady"})
    client.post("/api/v1/push/influx/write", content=f"m,i={turn} v=1", headers={"X-Scope-OrgID": "steady"})
    return str(client.post("/api/v1/push", content=bodies[turn % 4], headers=headers).status_code)


def pages(client: httpx.Client, turn: int) -> str:
    """What operators look at."""
    paths = (
        "/metrics",
        "/config",
        "/ingester/tenants",
        "/ready",
        "/services",
        "/distributor/all_user_stats",
        "/nowhere",
    )
    return str(client.get(paths[turn % len(paths)]).status_code)


def broken(client: httpx.Client, turn: int) -> str:
    """A connection that ends in the middle: of a head, of a body, of an answer; or is not HTTP."""
    query = urllib.parse.quote("sum by (i) (steady_1_total)")
    texts = [
        b"GET /prometheus/api/v1/labels HTTP/1.1\r\nHost: x\r\nX-Sc",
        b"POST /api/v1/push HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: steady\r\nContent-Length: 100000\r\n\r\n"
        + b"x" * 5000,
        f"GET /prometheus/api/v1/query?query={query} HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: steady\r\n\r\n".encode(),
        random.randbytes(100),
    ]
    host = urllib.parse.urlsplit(str(client.base_url))
    with socket.create_connection((host.hostname, host.port), timeout=10) as connection:
        connection.sendall(texts[turn % 4])
        if turn % 3 == 0:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    return "sent"


def slope(points: list[tuple[float, float]]) -> float:
    """Return the least-squares slope of (x, y)."""
    x, y = np.array(points, float).T
    return float(np.polyfit(x, y, 1)[0]) if len(points) > 2 else float("nan")


def report_lines(report: Path) -> list[dict]:
    """Return what was seen so far."""
    if not report.exists():
        return []
    return [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]


def fast_cuts(program: Program) -> None:
    """Have the partition cut every minute, and forget tenants as soon."""
    settings = ["range_ms=60000", "grace_ms=1000", "idle_ms=60000"]
    command = [str(Path(sys.executable).parent / "mimir-ingest"), "log", "set-partition-settings", "--partition=0"]
    subprocess.run([*command, *settings], cwd=program.directory, check=True, timeout=120)


def soak(program: Program, report: Path, minutes: float) -> None:
    """Load the program; print a line a minute."""
    load = Load(program)
    for seconds, act in (
        (5.0, steady),
        (10.0, churn),
        (3.0, tenants),
        (10.0, histograms),
        (0.3, queries),
        (1.0, new_queries),
        (5.0, remote_read),
        (1.0, refused),
        (2.0, pages),
        (0.5, broken),
    ):
        load.every(seconds, act)
    shown, end = 0, time.monotonic() + 60 * minutes
    while time.monotonic() < end and program.process.poll() is None:
        time.sleep(5)
        for line in report_lines(report)[shown:]:
            shown += 1
            print({k: v for k, v in line.items() if k not in ("types", "grown", "owned")}, flush=True)
    load.stop()
    print(dict(sorted(load.answers.items())))


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--every", type=float, default=60, help="seconds between two looks")
    parser.add_argument("--trace", action="store_true", help="also trace allocations; slow")
    parser.add_argument("--slow-cuts", action="store_true", help="keep the built-in cut settings")
    given = parser.parse_args()
    for stale in (given.report, Path(f"{given.report}.log")):
        stale.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, contextlib.ExitStack() as stack:
        program = Watched(Path(folder), given.report, *FLAGS, every_s=given.every, trace=given.trace)
        stack.enter_context(program).start(timeout_s=600)
        if not given.slow_cuts:
            fast_cuts(program)
        soak(program, given.report, given.minutes)
        program.stop()
    seen = report_lines(given.report)
    late = seen[len(seen) // 2 :]
    for key in ("rss", "anonymous", "used", "free", "objects"):
        per_minute = slope([(line["at_s"] / 60, line[key]) for line in late])
        print(f"{key}: {late[0][key]} to {late[-1][key]}, {per_minute:+.2f} a minute in the second half")


if __name__ == "__main__":
    os.nice(5)
    main()
