"""Queries: latency over HTTP, one at a time and eight at once, beside the peers.

    python -m benchmarks.query [--series 20000] [--repeat 9] [--only sum_by_rate]

Every system holds the same hour of 15 s samples, 5,000 series a metric; no result cache is used.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import math
import statistics
import time

from benchmarks.ingest import send, wait_queryable
from benchmarks.systems import System, installed
from benchmarks.workload import Workload

QUERIES = {
    "instant_count_all": ("instant", 'count({__name__=~"http_requests_.*"})'),
    "instant_sum_by": ("instant", "sum by (status_code) (http_requests_0_total)"),
    "instant_sum_by_rate": ("instant", "sum by (status_code) (rate(http_requests_0_total[5m]))"),
    "range_one_series": ("range", 'http_requests_0_total{pod="frontend-application-00000000-00000"}'),
    "sum_by_rate": ("range", "sum by (status_code) (rate(http_requests_0_total[5m]))"),
    "topk_max_over_time": ("range", "topk(5, max_over_time(http_requests_1_total[10m]))"),
    "join_of_rates": (
        "range",
        "sum(rate(http_requests_0_total[5m]) / on(pod, instance) group_left() rate(http_requests_0_total[5m]))",
    ),
    "avg_by_regexp": ("range", 'avg by (method) (http_requests_2_total{namespace=~"team-0[0-4].*"})'),
    "avg_quantile_over_time": ("range", "avg(quantile_over_time(0.9, http_requests_3_total[10m]))"),
}


def ask(system: System, kind: str, expression: str, start_s: int, end_s: int) -> float:
    """Send one query; return its latency in ms."""
    began = time.perf_counter()
    if kind == "instant":
        system.get("/api/v1/query", query=expression, time=end_s, nocache=1)
    else:
        system.get("/api/v1/query_range", query=expression, start=start_s, end=end_s, step=15, nocache=1)
    return (time.perf_counter() - began) * 1000


def measure(system: System, names: list[str], load: Workload, bodies: list[bytes], repeat: int) -> dict[str, tuple]:
    """Load a system, then return per query (median ms alone, median ms of eight at once, CPU ms a request)."""
    system.start()
    try:
        send(system, bodies, 2)
        wait_queryable(system, load)
        time.sleep(2)
        start_s = load.start_ms // 1000
        end_s = start_s + (load.rounds - 1) * load.step_ms // 1000
        figures = {}
        for name in names:
            kind, expression = QUERIES[name]
            ask(system, kind, expression, start_s, end_s)
            cpu = system.cpu_seconds()
            alone = [ask(system, kind, expression, start_s, end_s) for _ in range(repeat)]
            cpu = (system.cpu_seconds() - cpu) / repeat * 1000
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                together = list(pool.map(lambda _: ask(system, kind, expression, start_s, end_s), range(16)))  # noqa: B023
            figures[name] = (statistics.median(alone), statistics.median(together), cpu)
        return figures
    finally:
        system.stop()


def main() -> None:
    """Measure every installed system and print a row a query."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--only", action="append", choices=sorted(QUERIES))
    options = parser.parse_args()
    names = options.only or list(QUERIES)
    rounds, step_ms = 240, 15_000
    start_ms = (int(time.time()) - rounds * step_ms // 1000) * 1000
    load = Workload(options.series, 2000, rounds, step_ms, start_ms)
    bodies = list(load.bodies())
    systems = installed()
    figures = {s.name: measure(s, names, load, bodies, options.repeat) for s in systems}
    print(f"{load.series} series, 1 h of 15 s samples; median ms alone / eight at once / CPU ms a request")
    print(f"{'':24}" + "".join(f"{s.name:>28}" for s in systems) + f"{'alone / faster peer':>22}")
    for name in names:
        row = f"{name:24}" + "".join(
            f"{alone:>12.1f} /{together:>7.1f} /{cpu:>5.0f}"
            for alone, together, cpu in (f[name] for f in figures.values())
        )
        fastest = min((f[name][0] for s, f in figures.items() if s != "mimir-ingest"), default=math.nan)
        print(row + f"{figures['mimir-ingest'][name][0] / fastest:>21.2f}x")


if __name__ == "__main__":
    main()
