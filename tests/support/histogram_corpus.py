"""Native histograms of every awkward kind, and expressions over them: what the engine and Prometheus are compared on.

Samples are few and small enough for one chunk a layout, so that what Prometheus reads back is known (`as_stored`).
"""

from __future__ import annotations

import math
import random

import cramjam

from tests.support import protobuf_schema
from tests.support.native_values import HINT_NUMBERS
from tests.support.query_corpus import STALE
from tests.support.series_notation import GAUGE, UNKNOWN_RESET, HistogramValue

START_MS = 1_700_000_000_000
SAMPLES = 100
INTERVAL_MS = 30_000
_CUSTOM = -53

Value = float | HistogramValue
Series = tuple[dict[str, str], list[tuple[int, Value]]]


def make_series() -> list[Series]:
    """Return counters and gauges, exponential and custom, whole and fractional, with resets, gaps and mixtures."""
    random.seed(20261123)
    series: list[Series] = []
    for i in range(4):
        labels = {"instance": f"host{i}:80", "job": ("api", "db")[i % 2]}
        series += [
            ({"__name__": "requests", **labels}, _counter(i, schema=(0, 0, 2, -1)[i])),
            ({"__name__": "latency", **labels}, _fractions(i)),
            ({"__name__": "queue", **labels}, _gauge(i)),
            ({"__name__": "sizes", **labels}, _custom(i, changing=i == 3)),
            ({"__name__": "weight", **labels}, _numbers(i)),
        ]
    series += [
        ({"__name__": "mixture", "kind": "floats and histograms"}, _alternating()),
        ({"__name__": "mixture", "kind": "schemas"}, _schemas()),
        ({"__name__": "mixture", "kind": "exponential and custom"}, _incompatible()),
        ({"__name__": "odd", "kind": "nan"}, _with_nan()),
        ({"__name__": "odd", "kind": "zero bucket"}, _zero_buckets()),
        ({"__name__": "odd", "kind": "infinite"}, _infinite()),
        ({"__name__": "odd", "kind": "empty"}, [(at, HistogramValue()) for at in _times(2)]),
        ({"__name__": "target_info", "instance": "host0:80", "job": "api", "version": "v1"}, _ones()),
    ]
    for bound in ("0.5", "1", "4", "+Inf"):
        series.append(({"__name__": "queue", "instance": "host0:80", "job": "api", "le": bound}, _ones()))
    return series


def _times(index: int) -> list[int]:
    """Return scrape times with jitter; every third series misses some."""
    out = []
    for k in range(SAMPLES):
        if index % 3 == 2 and k % 23 in (5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17):
            continue
        out.append(START_MS + k * INTERVAL_MS + random.randrange(-80, 80) + index * 311)
    return out


def _ones() -> list[tuple[int, Value]]:
    return [(START_MS + k * INTERVAL_MS, 1.0) for k in range(SAMPLES)]


def _numbers(index: int) -> list[tuple[int, Value]]:
    values = (2.0, -0.5, 0.0, math.inf)
    return [(at, values[index] if k % 7 else 1.5) for k, at in enumerate(_times(0))]


def _whole(schema: int, positive: dict[int, float], negative: dict[int, float], zero: float, total: float, **more):
    count = sum(positive.values()) + sum(negative.values()) + zero
    return HistogramValue(
        schema=schema, count=count, sum=total, zero_count=zero, positive=dict(positive), negative=dict(negative), **more
    )


def _counter(index: int, schema: int) -> list[tuple[int, Value]]:
    positive, negative = dict.fromkeys(range(-2, 6), 0.0), dict.fromkeys((1, 2, 5), 0.0)
    zero = total = 0.0
    out: list[tuple[int, Value]] = []
    for k, at in enumerate(_times(index)):
        if index == 1 and k % 37 == 36:
            positive, negative = dict.fromkeys(positive, 0.0), dict.fromkeys(negative, 0.0)
            zero = total = 0.0
        for side in (positive, negative):
            for bucket in side:
                side[bucket] += random.choice((0, 0, 1, 3))
        zero += random.choice((0, 1))
        total += random.uniform(-1, 6)
        value: Value = _whole(schema, positive, negative, zero, total, zero_threshold=0.001 * (index % 2 + 1))
        if index == 3 and k in (40, 71):
            value = HistogramValue(sum=STALE)
        out.append((at, value))
    return out


def _fractions(index: int) -> list[tuple[int, Value]]:
    buckets = dict.fromkeys(range(index, index + 6), 0.0)
    total, out = 0.0, []
    for at in _times(index + 1):
        for bucket in buckets:
            buckets[bucket] += random.choice((0.0, 0.25, 0.1, 1.7))
        total += random.random() * 3
        out.append((at, _whole(3, buckets, {}, 0.0, total, zero_threshold=2.0**-128)))
    return out


def _gauge(index: int) -> list[tuple[int, Value]]:
    out = []
    for k, at in enumerate(_times(index)):
        buckets = {b: float(random.randrange(0, 9)) for b in range(-1, 4)}
        hint = UNKNOWN_RESET if index == 2 and k > 60 else GAUGE
        out.append((at, _whole(1, buckets, {2: float(k % 4)}, 1.0, random.uniform(-5, 20), hint=hint)))
    return out


def _custom(index: int, *, changing: bool) -> list[tuple[int, Value]]:
    total, counts, out = 0.0, [0.0] * 5, []
    bounds = ((0.5, 1.0, 2.5, 10.0), (0.5, 1.0, 2.5, 10.0), (-1.0, 1.0, 10.0, 20.0), (0.5, 1.0, 2.5, 10.0))[index]
    for k, at in enumerate(_times(index)):
        if changing and k == 50:
            bounds = (0.5, 2.5, 5.0, 10.0)
        counts = [c + random.choice((0, 1, 2)) for c in counts]
        total += random.uniform(0, 5)
        out.append((at, _whole(_CUSTOM, dict(enumerate(counts)), {}, 0.0, total, custom_values=bounds)))
    return out


def _alternating() -> list[tuple[int, Value]]:
    out: list[tuple[int, Value]] = []
    for k, at in enumerate(_times(0)):
        if k % 20 < 12:
            buckets = {0: float(k), 1: float(k * 2), 3: 1.0}
            out.append((at, _whole(0, buckets, {}, 0.0, k * 1.5)))
        else:
            out.append((at, k * 0.75))
    return out


def _schemas() -> list[tuple[int, Value]]:
    out: list[tuple[int, Value]] = []
    for k, at in enumerate(_times(0)):
        schema = (3, 1, -1, 2)[k // 25]
        buckets = {b: float(k + b) for b in range(1, 9, 1 + k // 25)}
        out.append((at, _whole(schema, buckets, {1: float(k)}, float(k), k * 2.0, zero_threshold=(0.0, 0.5)[k // 50])))
    return out


def _incompatible() -> list[tuple[int, Value]]:
    out: list[tuple[int, Value]] = []
    for k, at in enumerate(_times(0)):
        if k // 10 % 2:
            out.append((at, _whole(_CUSTOM, {0: float(k), 1: 2.0}, {}, 0.0, k * 1.0, custom_values=(1.0,))))
        else:
            out.append((at, _whole(0, {0: float(k), 1: 2.0}, {}, 0.0, k * 1.0)))
    return out


def _with_nan() -> list[tuple[int, Value]]:
    out: list[tuple[int, Value]] = []
    for k, at in enumerate(_times(0)):
        value = _whole(0, {0: float(k), 2: k * 3.0}, {}, 0.0, math.nan)
        out.append((at, HistogramValue(**{**vars(value), "count": value.count + (k if k > 40 else 0)})))
    return out


def _zero_buckets() -> list[tuple[int, Value]]:
    out: list[tuple[int, Value]] = []
    for k, at in enumerate(_times(0)):
        threshold = (0.001, 0.3, 2.0)[k // 34]
        buckets = {b: float(k + 1) for b in range(-3, 4)} if k < 34 else {b: float(k + 1) for b in range(2, 4)}
        out.append((at, _whole(0, buckets, {3: float(k)}, k * 2.0, k * 0.5, zero_threshold=threshold)))
    return out


def _infinite() -> list[tuple[int, Value]]:
    out: list[tuple[int, Value]] = []
    for k, at in enumerate(_times(0)):
        buckets = {1023: float(k), 1024: float(k), 1025: float(k // 2)}
        out.append((at, _whole(0, buckets, {1025: float(k // 3)}, 0.0, (math.inf, 1e308)[k % 2])))
    return out


def body(series: list[Series]) -> bytes:
    """Return a remote-write body of series with histograms: whole counts as integers."""
    request = protobuf_schema.WriteRequest()
    for labels, samples in series:
        row = kind = None
        for at, value in samples:
            # A receiver takes the floats of an entry before its histograms; so each run of a kind is an entry.
            if row is None or kind is not type(value):
                row, kind = request.timeseries.add(), type(value)
                for name, text in sorted(labels.items()):
                    row.labels.add(name=name.encode(), value=text.encode())
            if isinstance(value, HistogramValue):
                _fill(row.histograms.add(), at, value)
            else:
                row.samples.add(timestamp=at, value=value)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


def _fill(message, at: int, value: HistogramValue) -> None:
    counts = [*value.positive.values(), *value.negative.values(), value.zero_count, value.count]
    whole = all(count == int(count) for count in counts)
    message.timestamp, message.sum, message.schema = at, value.sum, value.schema
    message.zero_threshold, message.reset_hint = value.zero_threshold, HINT_NUMBERS[value.hint]
    message.custom_values.extend(value.custom_values)
    if whole:
        message.count_int, message.zero_count_int = int(value.count), int(value.zero_count)
    else:
        message.count_float, message.zero_count_float = value.count, value.zero_count
    for side in ("positive", "negative"):
        buckets = getattr(value, side)
        spans, last, before = getattr(message, f"{side}_spans"), None, 0
        for index in sorted(buckets):
            if last is not None and index == last + 1:
                spans[-1].length += 1
            else:
                spans.add(offset=index if last is None else index - last - 1, length=1)
            last = index
            if whole:
                getattr(message, f"{side}_deltas").append(int(buckets[index]) - before)
                before = int(buckets[index])
            else:
                getattr(message, f"{side}_counts").append(buckets[index])


_RANGES = ("requests[4m]", "latency[3m]", "queue[5m]", "sizes[4m]", "mixture[6m]", "odd[3m]", "sizes[7m:40s]")
_OVER_TIME = (
    *("rate", "increase", "delta", "irate", "idelta", "changes", "resets", "sum_over_time", "avg_over_time"),
    *("last_over_time", "first_over_time", "count_over_time", "present_over_time", "absent_over_time"),
    *("min_over_time", "max_over_time", "stddev_over_time", "stdvar_over_time", "mad_over_time", "deriv"),
    *("ts_of_first_over_time", "ts_of_last_over_time", "ts_of_max_over_time"),
)
_NAMES = ("requests", "latency", "queue", "sizes", "mixture", "odd")
_STATISTICS = ("histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev", "histogram_stdvar")
_OPERATORS = ("+", "-", "*", "/", "%", "^", "atan2", "==", "!=", "<", ">=", "</", ">/")
_PICK = ("1", "0", "-0.5", "2.5", "NaN", "-Inf", "+Inf")


def make_expressions() -> list[str]:
    """Return about 500 expressions, each valid for instant and range queries."""
    out = [f"{f}({r})" for f in _OVER_TIME for r in _RANGES]
    for f in ("rate", "increase", "delta"):
        ranges = [f"{name}[3m] {how}" for name in _NAMES for how in ("anchored", "smoothed")]
        out += [f"{f}({r})" for r in ranges] + [f"histogram_count({f}({r}))" for r in ranges]
    out += [f"{f}({name}[3m] anchored)" for f in ("changes", "resets") for name in _NAMES]
    out += [f"{name}{how}" for name in _NAMES for how in ("", " smoothed", " offset 90s")]
    for name in _NAMES:
        out += [f"{f}({name})" for f in _STATISTICS]
        out += [f"{f}(rate({name}[4m]))" for f in _STATISTICS]
        out += [f"{f}(sum({name}))" for f in _STATISTICS[:3]]
        out += [f"{f}(sum_over_time({name}[2m]))" for f in _STATISTICS[:3]]
        out += [f"histogram_quantile({q}, {name})" for q in (0, 0.1, 0.5, 0.77, 0.99, 1, 2, -1, "NaN")]
        out += [f"histogram_quantile(0.9, rate({name}[5m]))", f"histogram_quantiles({name}, 'q', 0.2, 0.9)"]
        out += [f"histogram_fraction({a}, {b}, {name})" for a, b in ((0, 1), (-1, 2.5), ("-Inf", 0.7), (3, 1))]
        out += [f"{op} by (job) ({name})" for op in ("sum", "avg", "count", "group", "min", "stddev", "max", "stdvar")]
        out += [f"{op}({name})" for op in ("sum", "avg", "count", "quantile by (job) (0.5, ", "topk(2, ")][:3]
        out += [f"quantile(0.5, {name})", f"topk(2, {name})", f"limitk(2, {name})", f"bottomk(1, {name})"]
        out += [f"limit_ratio(0.5, {name})", f"count_values('v', {name})", f"-{name}", f"abs({name})"]
        out += [f"absent({name})", f"timestamp({name})", f"{name} * on() group_left target_info", f"sgn({name})"]
        out += [f"clamp_min({name}, 3)", f"scalar({name})", f"label_replace({name}, 'x', '$1', 'job', '(.).*')"]
        for op in _OPERATORS:
            out += [f"{name} {op} {random_number(op, name)}", f"2 {op} {name}" if op not in ("</", ">/") else name]
        out += [f"{name} == bool 3", f"{name} {op} bool {name}" if (op := "==") else ""]
    for op in _OPERATORS:
        out += [
            f"requests {op} on(instance) latency",
            f"sizes {op} on(instance) weight",
            f"weight {op} on(instance) queue",
            f"requests {op} requests",
            f"sizes {op} on(job) group_left sum by (job) (sizes)",
            f"sizes {op} ignoring(instance) sum by (job) (weight)",
            f"rate(sizes[5m]) {op} on(instance) rate(sizes[10m])",
        ]
    out += [
        "requests and on(instance) (weight > 1)",
        "requests unless on(job) sizes{job='api'}",
        "requests or weight or sizes",
        "sum({__name__=~'requests|latency'})",
        "sum({__name__=~'requests|sizes'})",
        "avg({__name__=~'requests|weight'})",
        "sum by (job) ({__name__=~'requests|sizes|weight'})",
        "sum({__name__=~'weight|requests|sizes'})",
        "requests + on(instance) fill(0) sizes",
        "weight + on(instance) fill_right(1) fill_left(2) requests{instance='host1:80'}",
        "requests * on(instance) fill_left(2) weight{instance=~'host[01]:80'}",
        "info(requests)",
        "sum(rate(requests[4m] @ end()))",
        "requests @ end() offset 1m",
        "max_over_time(histogram_count(requests)[5m:30s])",
        "sum_over_time(rate(requests[2m])[5m:1m])",
        "avg_over_time(sum(sizes)[5m:1m])",
        "increase(requests[10m:90s])",
        "changes(requests[10m:45s])",
        "quantile_over_time(0.5, mixture[6m])",
        "predict_linear(mixture[6m], 60)",
        "double_exponential_smoothing(mixture[6m], 0.5, 0.5)",
        "histogram_quantile(0.5, sum by (job, le) (rate(queue[3m])))",
        "histogram_count(requests) / histogram_sum(requests)",
        "histogram_count(requests == requests)",
        "histogram_count(requests + on(instance) latency)",
        "histogram_sum(rate(mixture[5m]))",
        "histogram_count(increase(odd[5m]) >/ 1)",
        "label_join(requests, 'all', '/', 'job', 'instance')",
        "last_over_time(requests[5m]) - requests",
        "sizes - sizes offset 10m",
        "sizes + sizes offset 20m",
        "mixture + mixture offset 7m",
        "mixture - mixture offset 13m",
        "odd + odd offset 17m",
        "odd - odd offset 17m",
        "sum(odd)",
        "avg(odd)",
        "sum(mixture)",
        "requests * 1e300 * 1e300",
        "avg_over_time((requests * 1e305)[10m:1m])",
        "sum((requests * 1e307))",
        "sort(requests)",
        "-{__name__=~'requests|weight', instance='host0:80'}",
        "label_replace({__name__=~'requests|weight'}, '__name__', 'both', '', '')",
        "{__name__=~'requests|weight'} * 2",
        "rate({__name__=~'requests|weight'}[3m])",
        "count_values('v', requests * -Inf)",
        "count_values('v', sizes * -Inf)",
        "stddev by (job) (+(requests))",
        "start_timestamp(mixture)",
        "double_exponential_smoothing(sizes[3m], 1.2, 0.5)",
        "double_exponential_smoothing(mixture[3m], 0.5, 0)",
        "info(clamp_min(requests, 3), {__name__=~'.+_info', version!='v0'})",
        "histogram_count(requests smoothed + on(instance) latency smoothed)",
    ]
    return list(dict.fromkeys(out))


def random_number(op: str, name: str) -> str:
    """Return a number that an operator is tried with."""
    return _PICK[(len(op) * 5 + len(name) + ord(op[0])) % len(_PICK)]


INSTANT_ONLY = (
    "requests[2m] anchored",
    "requests[2m] smoothed",
    "weight[2m] anchored",
    "weight[4m] smoothed",
    "mixture[2m] anchored",
    "requests[2m]",
    "mixture[15m]",
    "sizes[5m:1m]",
    "avg((requests * 1e307))",
    "sort(mixture)",
    "sort_desc({__name__=~'requests|weight'})",
    "sort_by_label(requests, 'instance')",
    "topk(3, {__name__=~'requests|weight'})",
)
"""Expressions for instant queries only."""
