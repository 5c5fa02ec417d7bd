"""Series and expressions with which the engine is compared with a real Prometheus: floats of every awkward kind."""

from __future__ import annotations

import math
import random
import struct

STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
START_MS = 1_700_000_000_000
SAMPLES = 240
INTERVAL_MS = 15_000

Series = tuple[dict[str, str], list[tuple[int, float]]]


def make_series() -> list[Series]:
    """Return counters with resets and gaps, gauges with NaN and infinities, stale series, and classic histograms."""
    random.seed(20261123)
    series: list[Series] = []
    for i in range(12):
        labels = {"job": ("api", "db", "web")[i % 3], "instance": f"host{i % 4}:80", "code": ("200", "500")[i % 2]}
        series.append(({"__name__": "requests_total", "cpu": str(i), **labels}, _counter(i)))
        series.append(({"__name__": "temperature", "sensor": f"s{i}", **labels}, _gauge(i)))
        if i < 4:
            series.append(({"__name__": "limit", "instance": labels["instance"]}, _steady(10.0 * i + 1)))
            series.append(
                (
                    {
                        "__name__": "target_info",
                        "version": f"v{i % 2}",
                        "instance": labels["instance"],
                        "job": labels["job"],
                    },
                    _steady(1.0),
                )
            )
    for i in range(4):
        for bound in ("0.1", "0.5", "1", "2.5", "+Inf"):
            labels = {"__name__": "latency_bucket", "instance": f"host{i}:80", "le": bound}
            series.append((labels, _bucket(i, bound)))
    series.append(({"__name__": "latency_bucket", "instance": "host0:80", "le": "odd"}, _steady(3.0)))
    return series


def make_odd_series() -> list[Series]:
    """Return classic histograms whose bounds are NaN or written as only Go reads them, and irregular scrapes."""
    rng = random.Random(20261124)
    series: list[Series] = []
    for job, bounds in (("api", ("2", "NaN", "0x1p-1", "1_0", "infinity")), ("db", ("1.", "+Inf", "2e0", "_1"))):
        for k, bound in enumerate(bounds):
            labels = {"__name__": "odd_bucket", "job": job, "le": bound}
            series.append((labels, [(START_MS + at, float(k * at)) for at in range(0, 3_600_000, 60_000)]))
    for job in ("api", "db"):
        at, scrapes = START_MS, []
        while at < START_MS + 3_600_000:
            scrapes.append((at, rng.choice((5e-324, -1e308, 1.7e308, 1e16, -1e16, 1.0, 3.0, -0.0))))
            at += 1 + int(rng.expovariate(1 / 40_000))
        series.append(({"__name__": "odd_gauge", "job": job}, scrapes))
    return series


def make_ties() -> list[Series]:
    """Return many series of few values, at one time, some of them NaN, and labels that sort as numbers or lack."""
    rng = random.Random(20261125)
    series: list[Series] = []
    for size in (20, 60, 130, 700):
        values = {
            "few": [rng.choice((1.0, 2.0, 3.0)) for _ in range(size)],
            "nan": [rng.choice((math.nan, 1.0, 2.0, 5.0)) for _ in range(size)],
            "rising": [float(i // 3) for i in range(size)],
            "falling": [float(-i // 4) for i in range(size)],
            "saw": [float(i % 7) for i in range(size)],
        }
        for kind, column in values.items():
            for i, value in enumerate(column):
                labels = {"__name__": f"{kind}_{size}", "i": f"{i:03d}", "job": rng.choice("abc")}
                if number := rng.choice(("1", "01", "10", "2", "a1", "a01", "a10b", "", "")):
                    labels["n"] = number
                series.append((labels, [(START_MS, value)]))
    return series


def make_tied_expressions() -> list[str]:
    """Return instant queries whose order is that in which Go sorts equal things."""
    forms = (
        *("sort({})", "sort_desc({})", "sort_by_label({}, 'n')", "sort_by_label_desc({}, 'n', 'job')"),
        *("topk(15, {})", "bottomk(19, {})", "topk by (job) (40, {})", "bottomk(300, -{})", "limit_ratio(0.7, {})"),
        *("limitk(14, sort_by_label({}, 'n'))", "topk(18, sort_desc({}))", "limit_ratio(-0.5, limitk(30, {}))"),
    )
    names = [f"{kind}_{size}" for kind in ("few", "nan", "rising", "falling", "saw") for size in (20, 60, 130, 700)]
    return [form.format(name) for form in forms for name in names]


def _times(index: int) -> list[int]:
    """Return scrape times with jitter; every fifth series misses some."""
    out = []
    for k in range(SAMPLES):
        if index % 5 == 4 and k % 23 in (5, 6, 7, 8):
            continue
        out.append(START_MS + k * INTERVAL_MS + random.randrange(-40, 40) + index * 311)
    return out


def _counter(index: int) -> list[tuple[int, float]]:
    value, out = 0.0, []
    for k, at in enumerate(_times(index)):
        value = 0.0 if index % 3 == 1 and k % 70 == 69 else value + random.choice((0, 1, 3, 0.1, 7.25))
        out.append((at, STALE if index % 4 == 3 and k in (100, 160) else value))
    return out


def _gauge(index: int) -> list[tuple[int, float]]:
    odd = {3: math.nan, 5: math.inf, 7: -math.inf, 9: 1e300, 10: -0.0}
    out = []
    for k, at in enumerate(_times(index)):
        value = math.sin(k / 9 + index) * 10 + random.random()
        if k % 31 == 17 and index in odd:
            value = odd[index]
        out.append((at, round(value, 1) if index % 2 else value))
    return out


def _steady(value: float) -> list[tuple[int, float]]:
    return [(START_MS + k * INTERVAL_MS, value) for k in range(SAMPLES)]


def _bucket(index: int, bound: str) -> list[tuple[int, float]]:
    weight = {"0.1": 1, "0.5": 3, "1": 2 if index == 2 else 7, "2.5": 9, "+Inf": 10}[bound]
    return [(START_MS + k * INTERVAL_MS, float(weight * (k // 3) * (index + 1))) for k in range(SAMPLES)]


_OVER_TIME = (
    *("rate", "increase", "delta", "irate", "idelta", "deriv", "changes", "resets", "last_over_time"),
    *("avg_over_time", "sum_over_time", "min_over_time", "max_over_time", "count_over_time", "first_over_time"),
    *("present_over_time", "absent_over_time", "stddev_over_time", "stdvar_over_time", "mad_over_time"),
    *("ts_of_min_over_time", "ts_of_max_over_time", "ts_of_first_over_time", "ts_of_last_over_time"),
)
_MATH = (
    *("abs", "ceil", "floor", "exp", "sqrt", "ln", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan"),
    *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "deg", "rad", "sgn", "round", "timestamp"),
    *("minute", "hour", "month", "year", "day_of_week", "day_of_month", "day_of_year", "days_in_month"),
)
_AGGREGATIONS = ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"]
_OPERATORS = ["+", "-", "*", "/", "%", "^", "atan2", "==", "!=", "<", "<=", ">", ">="]
_RANGES = ("requests_total[2m]", "temperature[5m]", "requests_total[61s] offset 37s", "(temperature > 0)[4m:17s]")

INEXACT = ("exp", "ln", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh", "^", "stddev")
"""Words in an expression whose results depend on the mathematics library in the last digits."""


def make_expressions() -> list[str]:
    """Return about 450 expressions, each valid for instant and range queries."""
    out = [f"{f}({r})" for f in _OVER_TIME for r in _RANGES]
    out += [
        f"{f}({r})"
        for f in ("rate", "increase", "delta")
        for r in ("requests_total[2m] anchored", "temperature[3m] smoothed")
    ]
    out += [f"{f}(requests_total[90s] anchored)" for f in ("changes", "resets")]
    out += [f"{f}(temperature)" for f in _MATH]
    for aggregation in _AGGREGATIONS:
        out += [
            f"{aggregation}{by}(temperature)" for by in ("", " by (job)", " without (sensor, code)", " by (absent)")
        ]
    out += [f"{op}(3, temperature)" for op in ("topk", "bottomk", "limitk")]
    out += [f"{op} by (job) (2, temperature)" for op in ("topk", "bottomk", "limitk")]
    out += [f"limit_ratio({r}, requests_total)" for r in (0.5, -0.5, 0.1, 2)]
    out += [f"quantile({q}, temperature)" for q in (0, 0.3, 0.99, 1.5, -1, "NaN")]
    out += [f"quantile_over_time({q}, temperature[5m])" for q in (0.1, 0.9, 2)]
    out += [f"histogram_quantile({q}, latency_bucket)" for q in (0, 0.2, 0.5, 0.9, 1, 7)]
    out += [f"histogram_quantile({q}, sum by (le) (rate(latency_bucket[3m])))" for q in (0.5, 0.99)]
    out += ["histogram_fraction(0.2, 1.5, latency_bucket)", 'histogram_quantiles(latency_bucket, "q", 0.1, 0.9)']
    out += [
        "max_over_time(histogram_quantile(0.9, latency_bucket)[70m:1m])",
        "histogram_quantile(time() % 3 - 1, latency_bucket) + histogram_quantile(0.5, latency_bucket)",
        'histogram_quantiles(latency_bucket > 200 < 1500, "q", NaN, 0.5, 0.7)',
    ]
    for op in _OPERATORS:
        word = f"{op} bool" if op in ("==", "!=", "<", "<=", ">", ">=") else op
        out += [
            f"temperature {op} 3.5",
            f"3.5 {op} temperature",
            f"2 {word} time()",
            f"temperature {word} 2",
            f"temperature {op} ignoring(sensor, cpu) requests_total",
            f"temperature {word} on(instance) group_left limit",
            f"limit {op} on(instance) group_right requests_total",
            f"sum by (job)(temperature) {word} sum by (job)(requests_total)",
        ]
    out += [
        "temperature and on(instance) (limit > 5)",
        "temperature unless on(job) requests_total{job='api'}",
        "(temperature > 5) or (temperature < 0)",
        "limit or on(instance) requests_total",
        "temperature == temperature",
        "limit + on(instance) requests_total",
        "requests_total * on(job) group_left target_info",
        "requests_total * on(instance, job) group_left(version) target_info",
        "sum by (job)(temperature > 8) + fill(0) sum by (job)(requests_total)",
        "sum by (job)(temperature > 8) - fill_right(7) fill_left(1) sum by (job)(requests_total > 300)",
        "info(requests_total)",
        'info(requests_total, {version=~"v.+"})',
        "info(timestamp(requests_total offset 20m))",
        "info(timestamp(requests_total @ 1700000100 offset -2m))",
        "absent(nothing{a='b', c=~'d'})",
        "absent(temperature)",
        "absent_over_time(nothing[5m])",
        "scalar(limit{instance='host1:80'})",
        "scalar(limit)",
        "vector(time())",
        "time() - 5",
        "-temperature",
        "-(2 ^ 3)",
        "clamp(temperature, -2, 2.5)",
        "clamp_max(temperature, scalar(limit{instance='host0:80'}))",
        "clamp_min(temperature, NaN)",
        "clamp(temperature, 5, 1)",
        "clamp_max(temperature * 0, -0.0)",
        "clamp_min(temperature * -0, 0)",
        "round(temperature, 0.25)",
        "predict_linear(temperature[5m], 600)",
        "predict_linear(requests_total[5m] @ end(), 600)",
        "double_exponential_smoothing(temperature[5m], 0.3, 0.6)",
        "double_exponential_smoothing(temperature[5m], 1.3, 0.6)",
        "count_values('value', round(temperature))",
        "count_values without (sensor) ('code', round(temperature))",
        "label_replace(temperature, 'host', '$1-x', 'instance', '(.*):.*')",
        "label_replace(temperature, 'job', '', 'job', 'api')",
        "label_replace(requests_total, '__name__', 'other', 'job', '.*')",
        "label_join(temperature, 'all', '/', 'job', 'code', 'nope')",
        "label_join(temperature, 'sensor', '', 'nope')",
        "sum(rate(requests_total[2m] @ start())) by (job)",
        "temperature @ end() offset 1m",
        "timestamp(temperature @ 1700001000)",
        "timestamp(latency_bucket offset -1m @ start())",
        "timestamp(temperature @ end() offset 299s)",
        "timestamp(temperature offset 30s)",
        "max_over_time(sum by (job)(rate(requests_total[1m]))[5m:30s])",
        "avg_over_time(max_over_time(temperature[1m])[3m:])",
        "sum_over_time((temperature @ 1700002000)[2m:20s] offset 1m)",
        "rate(requests_total[2m:15s] @ 1700001500)",
        "{__name__=~'temp.*|limit', job!='api'}",
        "max_of(3, scalar(limit{instance='host0:80'})) + min_of(1, 2)",
        "topk(scalar(limit{instance='host0:80'}), temperature)",
        "start() - end() + step() + range()",
        "sum(sum_over_time(requests_total[1m]))",
        "temperature > bool on(instance) group_left() (limit / 5)",
        "requests_total * 2 % 7",
        "last_over_time(temperature[5m])",
        "rate(temperature[range()/40])",
        "rate(temperature[step() + 1m])",
        "sort(temperature)",
        "temperature smoothed",
        "timestamp(+temperature)",
        "absent(+nothing{a='b'})",
        "start_timestamp(temperature smoothed)",
        "sum_over_time(sort(temperature)[3m:])",
        "count_values without (instance) ('__name__', round(temperature))",
        "topk(1, limit_ratio(1, clamp_max(latency_bucket @ end(), 1)))",
        "scalar(vector(-0.0))",
    ]
    return out


INSTANT_ONLY = (
    "temperature[1m]",
    "requests_total{cpu='3'}[10m]",
    "temperature[2m:30s]",
    "'a string'",
    "sort(temperature)",
    "sort_desc(temperature)",
    "sort_by_label(temperature, 'sensor')",
    "sort_by_label_desc(temperature, 'job', 'sensor')",
    "3.25",
    "(requests_total * 2)[2m:1m]",
    "rate((temperature)[(0s + range()):step()])",
    "limit_ratio(0.5, temperature)",
    "sort_by_label(limit or target_info, 'job')",
    "sort_by_label_desc({__name__=~'limit|target_info'}, 'version', 'job')",
)
"""Expressions for instant queries: their type or their order is meant."""
