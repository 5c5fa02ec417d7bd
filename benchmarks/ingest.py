"""Ingest: samples a CPU-second, memory and push latency, from HTTP to queryable, beside the peers.

    python -m benchmarks.ingest [--series 20000] [--per-request 2000] [--rounds 120] [--connections 2]

Every system gets the same bodies. The clock for CPU stops when the last sample of the last series is queryable.
"""

from __future__ import annotations

import argparse
import http.client
import json
import queue
import statistics
import threading
import time
import urllib.parse

from benchmarks.systems import System, installed
from benchmarks.workload import Workload


def send(system: System, bodies: list[bytes], connections: int) -> list[float]:
    """Post all bodies in order over some connections; return the latency (s) of each request."""
    waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    for body in bodies:
        waiting.put(body)
    latencies: list[float] = []
    failures: list[str] = []
    url = urllib.parse.urlsplit(system.push_url)
    headers = {
        "Content-Encoding": "snappy",
        "Content-Type": "application/x-protobuf",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
    }

    def worker() -> None:
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
        while not failures:
            try:
                body = waiting.get_nowait()
            except queue.Empty:
                break
            began = time.perf_counter()
            connection.request("POST", url.path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
            latencies.append(time.perf_counter() - began)
            if answer.status // 100 != 2:
                failures.append(f"{answer.status} {text[:200]!r}")
        connection.close()

    threads = [threading.Thread(target=worker) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"{system.name}: {failures[0]}")
    return latencies


def wait_queryable(system: System, load: Workload, timeout_s: float = 120) -> None:
    """Return when the last round of every series can be queried."""
    expression = f"count(count_over_time({load.selector}[1s]))"
    deadline = time.monotonic() + timeout_s
    seen = "nothing"
    while time.monotonic() < deadline:
        result = json.loads(system.get("/api/v1/query", query=expression, time=f"{load.end_ms / 1000:.3f}"))["data"][
            "result"
        ]
        if result:
            seen = result[0]["value"][1]
            if int(float(seen)) == load.series:
                return
        time.sleep(0.25)
    raise RuntimeError(f"{system.name}: {seen} of {load.series} series are queryable after {timeout_s} s")


def measure(system: System, load: Workload, bodies: list[bytes], connections: int) -> dict[str, float]:
    """Run one system over the workload; return its figures."""
    system.start()
    try:
        idle = system.cpu_seconds()
        began = time.perf_counter()
        latencies = sorted(send(system, bodies, connections))
        sent = time.perf_counter() - began
        wait_queryable(system, load)
        cpu = system.cpu_seconds() - idle
        return {
            "samples_per_cpu_second": load.samples / cpu,
            "cpu_seconds": cpu,
            "wall_seconds": sent,
            "peak_memory_mib": system.peak_memory_mib(),
            "latency_ms_median": statistics.median(latencies) * 1000,
            "latency_ms_p99": latencies[int(len(latencies) * 0.99)] * 1000,
        }
    finally:
        system.stop()


def main() -> None:
    """Measure every installed system and print figures and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=20_000)
    parser.add_argument("--per-request", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--connections", type=int, default=2)
    options = parser.parse_args()
    step_ms = 15_000
    start_ms = int(time.time()) * 1000 - options.rounds * step_ms
    load = Workload(options.series, options.per_request, options.rounds, step_ms, start_ms)
    bodies = list(load.bodies())
    print(
        f"{load.series} series x {load.rounds} rounds = {load.samples} samples in {len(bodies)} requests "
        f"({sum(map(len, bodies)) / len(bodies) / 1024:.0f} KiB each, compressed), {options.connections} connections"
    )
    figures = {s.name: measure(s, load, bodies, options.connections) for s in installed()}
    own = figures["mimir-ingest"]
    print(f"\n{'':18}{'samples/CPU-s':>15}{'CPU s':>9}{'wall s':>9}{'peak MiB':>10}{'median ms':>11}{'p99 ms':>9}")
    for name, row in figures.items():
        print(
            f"{name:18}{row['samples_per_cpu_second']:>15,.0f}{row['cpu_seconds']:>9.2f}{row['wall_seconds']:>9.2f}"
            f"{row['peak_memory_mib']:>10.0f}{row['latency_ms_median']:>11.1f}{row['latency_ms_p99']:>9.1f}"
        )
    for name, row in figures.items():
        if name != "mimir-ingest":
            print(
                f"mimir-ingest / {name}: samples a CPU-second "
                f"{own['samples_per_cpu_second'] / row['samples_per_cpu_second']:.2f}x, "
                f"memory {own['peak_memory_mib'] / row['peak_memory_mib']:.2f}x, "
                f"median latency {own['latency_ms_median'] / row['latency_ms_median']:.2f}x"
            )


if __name__ == "__main__":
    main()
