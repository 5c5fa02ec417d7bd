"""OTLP: CPU a data point, from HTTP to queryable, protobuf and JSON, beside Prometheus's receiver.

    python -m benchmarks.otlp [--points 1000] [--rounds 40]

Every request has all points: two fifths counters, one fifth each gauges, classic histograms of eleven buckets, and
exponential ones of 160. Both get the same bodies.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator

from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from benchmarks.systems import System, mimir_ingest, prometheus

ENCODINGS = ("application/x-protobuf", "application/json")
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
STEP_MS = 1000


def request(points: int, turn: int, at_ms: int) -> ExportMetricsServiceRequest:
    """Return the request of a round."""
    made = ExportMetricsServiceRequest()
    resource = made.resource_metrics.add()
    for key, value in (("service.name", "shop"), ("service.instance.id", "1"), ("host.name", "h")):
        resource.resource.attributes.add(key=key).value.string_value = value
    metrics = resource.scope_metrics.add().metrics
    requests, memory, latency, payload = (
        metrics.add(name=name) for name in ("requests", "memory", "latency", "payload")
    )
    requests.sum.is_monotonic = True
    for data in (requests.sum, latency.histogram, payload.exponential_histogram):
        data.aggregation_temporality = 2
    for i in range(points // 5):
        for number, data in enumerate(
            (requests.sum, requests.sum, memory.gauge, latency.histogram, payload.exponential_histogram)
        ):
            point = data.data_points.add(time_unix_nano=at_ms * 1_000_000)
            for key, value in (("route", f"/api/{i}"), ("method", "GET"), ("zone", f"eu-{number}"), ("code", "200")):
                point.attributes.add(key=key).value.string_value = value
            if data is latency.histogram:
                point.bucket_counts.extend([turn] * (len(BOUNDS) + 1))
                point.explicit_bounds.extend(BOUNDS)
                point.count, point.sum = turn * (len(BOUNDS) + 1), turn * 1.5
            elif data is payload.exponential_histogram:
                point.scale, point.count, point.sum = 3, 160 * turn, 1.5 * turn
                point.positive.bucket_counts.extend([turn] * 160)
            else:
                point.as_double = turn * (1 + i % 17)
    return made


def bodies(points: int, rounds: int, encoding: str, end_ms: int) -> Iterator[bytes]:
    """Yield the requests of all rounds; the last one's points have the time `end_ms`."""
    for turn in range(1, rounds + 1):
        message = request(points, turn, end_ms - (rounds - turn) * STEP_MS)
        binary = encoding == ENCODINGS[0]
        yield message.SerializeToString() if binary else json_format.MessageToJson(message, indent=None).encode()


def send(system: System, url: str, sent: list[bytes], encoding: str, turn: int, at_ms: int) -> None:
    """Send bodies and wait until the counters of the last one, round `turn`, are there."""
    for body in sent:
        urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": encoding}), timeout=60).read()
    deadline = time.monotonic() + 60
    query = f'count({{__name__=~"requests.*"}} == {turn})'
    while time.monotonic() < deadline:
        if json.loads(system.get("/api/v1/query", query=query, time=at_ms / 1000))["data"]["result"]:
            return
        time.sleep(0.05)
    raise RuntimeError(f"{system.name} lacks the last samples")


def main() -> None:
    """Print a line a system and encoding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    paths = {"mimir-ingest": "/otlp/v1/metrics", "prometheus": "/api/v1/otlp/v1/metrics"}
    for encoding in ENCODINGS:
        for system in filter(None, (mimir_ingest(), prometheus())):
            if system.name == "prometheus":
                system.command.append("--web.enable-otlp-receiver")
            end_ms = int(time.time() * 1000)
            sent = list(bodies(options.points, options.rounds, encoding, end_ms))
            url = urllib.parse.urljoin(system.push_url, paths[system.name])
            try:
                system.start()
                # The first round makes what is made once.
                send(system, url, sent[:1], encoding, 1, end_ms - (options.rounds - 1) * STEP_MS)
                began = system.cpu_seconds()
                send(system, url, sent[1:], encoding, options.rounds, end_ms)
                used = system.cpu_seconds() - began
            finally:
                system.stop()
            points = options.points // 5 * 5 * (options.rounds - 1)
            print(f"{encoding:24} {system.name:14} {used * 1e6 / points:6.1f} µs a data point", flush=True)


if __name__ == "__main__":
    main()
