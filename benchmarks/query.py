"""Queries: latency over HTTP, one at a time and eight at once, beside the peers.

    python -m benchmarks.query [--series 20000] [--repeat 9] [--only sum_by_rate] [--new-connections]
    python -m benchmarks.query --scale 1000,10000,50000,200000 [--rounds 240]

All systems run at the same time and are measured in turns, over connections that stay open unless
`--new-connections`. Every system holds the same hour of 15 s samples, 5,000 series a metric, and as many series of
buckets; no result cache is used. A query's floor is decoding what it reads and one pass over it, in this process, in
the same run.

`--scale` asks this project alone for a sum of rates over all series, of which there are more and more.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from typing import NamedTuple

from benchmarks.client import Request, latencies_ms
from benchmarks.floor import floor_ms, segments_of
from benchmarks.ingest import send, wait_queryable
from benchmarks.systems import System, installed, mimir_ingest
from benchmarks.workload import METRICS, BucketWorkload, Workload

_LOOKBACK_MS = 300_000
_TURNS, _SECONDS = 4, 1.0
"""How often a system is measured, and how long in all: short queries many times."""


class Query(NamedTuple):
    """A query, and how many series it reads: all of a metric, all of the workload's, or one."""

    kind: str
    expression: str
    reads: str = "metric"


QUERIES = {
    "instant_count_all": Query("instant", 'count({__name__=~"http_requests_.*"})', "all"),
    "instant_sum_by": Query("instant", "sum by (status_code) (http_requests_0_total)"),
    "instant_sum_by_rate": Query("instant", "sum by (status_code) (rate(http_requests_0_total[5m]))"),
    "range_one_series": Query("range", 'http_requests_0_total{pod="frontend-application-00000000-00000"}', "one"),
    "sum_by_rate": Query("range", "sum by (status_code) (rate(http_requests_0_total[5m]))"),
    "histogram_quantile": Query(
        "range", "histogram_quantile(0.9, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))"
    ),
    "topk_max_over_time": Query("range", "topk(5, max_over_time(http_requests_1_total[10m]))"),
    "join_of_rates": Query(
        "range",
        "sum(rate(http_requests_0_total[5m]) / on(pod, instance) group_left() rate(http_requests_0_total[5m]))",
    ),
    "avg_by_regexp": Query("range", 'avg by (method) (http_requests_2_total{namespace=~"team-0[0-4].*"})'),
    "avg_quantile_over_time": Query("range", "avg(quantile_over_time(0.9, http_requests_3_total[10m]))"),
}

_SCALED = 'sum by (status_code) (rate({__name__=~"http_requests_.*"}[5m]))'


class Figures(NamedTuple):
    """What one query takes of one system."""

    alone_ms: float
    together_ms: float
    cpu_ms: float


def request_of(system: System, query: Query, load: Workload, *, fresh: bool = False) -> Request:
    """Return the request that asks a system for the workload's hour, or its end."""
    start_s, end_s = load.start_ms // 1000, load.end_ms // 1000
    if query.kind == "instant":
        url = system.url("/api/v1/query", query=query.expression, time=end_s, nocache=1)
    else:
        url = system.url("/api/v1/query_range", query=query.expression, start=start_s, end=end_s, step=15, nocache=1)
    return Request(url, fresh=fresh)


def fill(system: System, loads: list[tuple[Workload, list[bytes]]]) -> None:
    """Start a system and load it; it is to be stopped, whatever happens."""
    system.start()
    for load, bodies in loads:
        # One connection: a peer refuses a round that overtakes the one before.
        send(system, bodies, 1)
        wait_queryable(system, load)


def in_turns(systems: list[System], query: Query, load: Workload, options: argparse.Namespace) -> dict[str, Figures]:
    """Return medians of a query alone and of eight at once, and the CPU of a request alone, by system.

    All systems run, one is measured at a time, and each several times: what else the machine does hits all alike.
    """
    least, seconds = math.ceil(options.repeat / _TURNS), _SECONDS / _TURNS
    requests = [(s, request_of(s, query, load, fresh=options.new_connections)) for s in systems]
    alone: dict[str, list[float]] = {s.name: [] for s in systems}
    together: dict[str, list[float]] = {s.name: [] for s in systems}
    cpu_s = dict.fromkeys(alone, 0.0)
    for _ in range(_TURNS):
        for system, request in requests:
            latencies_ms(request, at_once=1, least=1, seconds=0)
            began_s = system.cpu_seconds()
            alone[system.name] += latencies_ms(request, at_once=1, least=least, seconds=seconds)
            cpu_s[system.name] += system.cpu_seconds() - began_s
            together[system.name] += latencies_ms(request, at_once=8, least=2 * least, seconds=seconds)
    return {
        name: Figures(statistics.median(times), statistics.median(together[name]), cpu_s[name] / len(times) * 1000)
        for name, times in alone.items()
    }


def floors(names: list[str], load: Workload, repeat: int) -> dict[str, float]:
    """Return each query's floor (ms)."""
    segments = segments_of(load, load.series)
    counts = {"all": load.series, "metric": load.series // METRICS, "one": 1}
    first_ms = {"instant": load.end_ms - _LOOKBACK_MS + 1, "range": load.start_ms - _LOOKBACK_MS}
    return {
        name: floor_ms(segments, counts[q.reads], first_ms[q.kind], load.end_ms + 1, repeat)
        for name, q in QUERIES.items()
        if name in names
    }


def compare(names: list[str], options: argparse.Namespace) -> None:
    """Measure every installed system and print a row a query."""
    load = _workload(Workload, options.series, options.rounds)
    buckets = _workload(BucketWorkload, options.series // METRICS, options.rounds)
    loads = [(one, list(one.bodies())) for one in (load, buckets)]
    systems = installed()
    try:
        for system in systems:
            fill(system, loads)
        time.sleep(2)
        measured = {name: in_turns(systems, QUERIES[name], load, options) for name in names}
        peaks = {system.name: system.peak_memory_mib() for system in systems}
    finally:
        for system in systems:
            system.stop()
    floor = floors(names, load, options.repeat)
    print(
        f"{load.series} series and {buckets.series} buckets, {load.rounds} samples of 15 s each; "
        "median ms alone / eight at once / CPU ms a request"
    )
    print(
        f"{'':24}"
        + "".join(f"{s.name:>28}" for s in systems)
        + f"{'alone':>9}{'eight':>8}{'floor ms':>10}{'x floor':>9}"
    )
    for name in names:
        row = measured[name]
        own = row.pop("mimir-ingest")
        alone = own.alone_ms / min((f.alone_ms for f in row.values()), default=math.nan)
        together = own.together_ms / min((f.together_ms for f in row.values()), default=math.nan)
        print(
            f"{name:24}"
            + "".join(f"{f.alone_ms:>10.2f} /{f.together_ms:>8.2f} /{f.cpu_ms:>6.2f}" for f in (own, *row.values()))
            + f"{alone:>8.2f}x{together:>7.2f}x{floor[name]:>10.1f}{own.alone_ms / floor[name]:>9.1f}"
        )
    print("alone, eight: mimir-ingest's time / the faster peer's")
    print("peak memory: " + ", ".join(f"{name} {peak:.0f} MiB" for name, peak in peaks.items()))


def scale(sizes: list[int], options: argparse.Namespace) -> None:
    """Ask for a sum of rates over more and more series; print a row a size."""
    print(f"{_SCALED}, {options.rounds} samples of 15 s a series")
    print(f"{'series':>9}{'samples':>12}{'median ms':>11}{'CPU ms':>9}{'CPU ns a sample':>17}{'peak MiB':>10}")
    for size in sizes:
        load = _workload(Workload, size, options.rounds)
        system = mimir_ingest(["-querier.max-samples=1000000000"])
        system.start()
        try:
            send(system, list(load.bodies()), 1)
            wait_queryable(system, load)
            time.sleep(2)
            loaded = system.peak_memory_mib()
            request = request_of(system, Query("range", _SCALED, "all"), load)
            latencies_ms(request, at_once=1, least=1, seconds=0)
            cpu = system.cpu_seconds()
            times = latencies_ms(request, at_once=1, least=options.repeat, seconds=0)
            cpu = (system.cpu_seconds() - cpu) / options.repeat
            print(
                f"{size:>9}{load.samples:>12}{statistics.median(times):>11.1f}{cpu * 1000:>9.0f}"
                f"{cpu / load.samples * 1e9:>17.1f}{system.peak_memory_mib():>10.0f} ({loaded:.0f} before)"
            )
        finally:
            system.stop()


def _workload(kind: type[Workload], series: int, rounds: int) -> Workload:
    step_ms = 15_000
    start_ms = (int(time.time()) - rounds * step_ms // 1000) * 1000
    return kind(series, 2000, rounds, step_ms, start_ms)


def main() -> None:
    """Compare systems, or measure this one at several sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=240)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--only", action="append", choices=sorted(QUERIES))
    parser.add_argument("--new-connections", action="store_true", help="one for each request")
    parser.add_argument("--scale", help="numbers of series, comma-separated")
    options = parser.parse_args()
    if options.scale:
        scale([int(size) for size in options.scale.split(",")], options)
    else:
        compare(options.only or list(QUERIES), options)


if __name__ == "__main__":
    main()
