"""The OpenTelemetry SDK exports over OTLP/HTTP to the program; every instrument is asked for by query."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    MeterProvider,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, MetricExportResult
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

from tests.support.program import Program

RESOURCE = Resource(
    {"service.name": "shop", "service.namespace": "eu", "service.instance.id": "i-1", "host.name": "h", "k": "v"}
)
TENANT = {"X-Scope-OrgID": "sdk"}
_KINDS = (Counter, UpDownCounter, Histogram, ObservableCounter, ObservableUpDownCounter, ObservableGauge)
ALL_CUMULATIVE = dict.fromkeys(_KINDS, AggregationTemporality.CUMULATIVE)
ALL_DELTA = dict.fromkeys(_KINDS, AggregationTemporality.DELTA)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    flags = (
        "-distributor.otel-metric-suffixes-enabled=true",
        "-distributor.otel-promote-resource-attributes=host.name,missing",
        "-distributor.otel-created-timestamp-zero-ingestion-enabled=true",
    )
    with Program(tmp_path_factory.mktemp("otlp"), *flags, multitenancy=True).start() as running:
        running.http.headers.update(TENANT)
        # The first query of a native histogram compiles its kernels.
        running.http.timeout = 150
        yield running


class Sender:
    """A meter and what sends its state."""

    def __init__(self, program: Program, temporality: dict, compression: Compression = Compression.NoCompression):
        self.reader = InMemoryMetricReader(preferred_temporality=temporality)
        exponential = View(instrument_name="payload", aggregation=ExponentialBucketHistogramAggregation())
        self.provider = MeterProvider([self.reader], RESOURCE, views=[exponential])
        self.meter = self.provider.get_meter("lib", "1.0")
        endpoint = f"{program.url}/otlp/v1/metrics"
        self.exporter = OTLPMetricExporter(endpoint, headers=TENANT, timeout=20, compression=compression)

    def send(self) -> MetricExportResult:
        return self.exporter.export(self.reader.get_metrics_data())


def _values(program: Program, expression: str) -> dict[str, object]:
    """Return each sample's value or histogram, by its labels without those of the resource."""
    answer = program.query(expression, at_ms=time.time_ns() // 1_000_000)
    found = {}
    for one in answer:
        metric = one["metric"]
        assert (metric.pop("job"), metric.pop("instance"), metric.pop("host_name")) == ("eu/shop", "i-1", "h")
        value = float(one["value"][1]) if "value" in one else one["histogram"][1]
        found[",".join(f"{name}={value}" for name, value in sorted(metric.items()))] = value
    return found


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_every_instrument_is_there_by_its_prometheus_name(program: Program, compression: Compression) -> None:
    sender = Sender(program, ALL_CUMULATIVE, compression)
    meter, way = sender.meter, {"way": compression.value}

    def observe(value: float):
        return lambda options: [Observation(value, way)]

    meter.create_counter("http.requests", unit="{request}").add(3, way)
    meter.create_up_down_counter("queue.length").add(-2, way)
    meter.create_histogram("http.duration", unit="s").record(7, way)
    meter.create_histogram("payload", unit="By").record(1000, way)
    meter.create_gauge("temperature", unit="Cel").set(21.5, way)
    meter.create_observable_counter("cpu.time", [observe(1.25)], unit="s")
    meter.create_observable_up_down_counter("threads", [observe(9)])
    meter.create_observable_gauge("load", [observe(0.5)], unit="1")
    assert sender.send() is MetricExportResult.SUCCESS
    found = _values(program, f'{{way="{compression.value}",__name__!~".+_bucket"}}')
    by = f",way={compression.value}"
    payload = found.pop(f"__name__=payload_bytes{by}")
    assert found == {
        f"__name__=http_requests_total{by}": 3,
        f"__name__=queue_length{by}": -2,
        f"__name__=http_duration_seconds_count{by}": 1,
        f"__name__=http_duration_seconds_sum{by}": 7,
        f"__name__=temperature_celsius{by}": 21.5,
        f"__name__=cpu_time_seconds_total{by}": 1.25,
        f"__name__=threads{by}": 9,
        f"__name__=load_ratio{by}": 0.5,
    }
    assert (payload["count"], payload["sum"]) == ("1", "1000")
    ((_, low, high, _),) = payload["buckets"]
    assert float(low) <= 1000 <= float(high)
    buckets = _values(program, f'http_duration_seconds_bucket{{way="{compression.value}"}}')
    assert {key.partition("le=")[2].partition(",")[0]: value for key, value in buckets.items()} == {
        **dict.fromkeys(("0", "5"), 0),
        **dict.fromkeys(
            ("10", "25", "50", "75", "100", "250", "500", "750", "1000", "2500", "5000", "7500", "10000"), 1
        ),
        "+Inf": 1,
    }
    (info,) = program.query("target_info", at_ms=time.time_ns() // 1_000_000)
    assert info["metric"] == {
        "__name__": "target_info",
        "job": "eu/shop",
        "instance": "i-1",
        "host_name": "h",
        "k": "v",
        **{key: value for key, value in info["metric"].items() if key.startswith("telemetry_sdk_")},
    }
    types = program.http.get("/prometheus/api/v1/metadata").json()["data"]
    assert {name: items[0]["type"] for name, items in types.items()} == {
        "http_requests_total": "counter",
        "queue_length": "gauge",
        "http_duration_seconds": "histogram",
        "payload_bytes": "histogram",
        "temperature_celsius": "gauge",
        "cpu_time_seconds_total": "counter",
        "threads": "gauge",
        "load_ratio": "gauge",
    }


def test_growth_is_seen_from_the_first_export_on(program: Program) -> None:
    sender = Sender(program, ALL_CUMULATIVE)
    counter = sender.meter.create_counter("growth")
    latency = sender.meter.create_histogram("growth.latency", unit="s", explicit_bucket_boundaries_advisory=[1, 2, 4])
    exponential = sender.meter.create_histogram("payload")
    for _ in range(3):
        counter.add(5)
        for value in (0.5, 1.5, 3):
            latency.record(value)
            exponential.record(value)
        time.sleep(0.05)
        assert sender.send() is MetricExportResult.SUCCESS
    # From the zero at the start on: nothing of the first export is lost, and nothing else.
    found = _values(
        program, "last_over_time(growth_total[1h]) - on(job, instance, host_name) min_over_time(growth_total[1h])"
    )
    assert list(found.values()) == [15]
    assert list(_values(program, "count_over_time(growth_total[1h])").values()) == [4]
    quantile = _values(program, "histogram_quantile(0.5, rate(growth_latency_seconds_bucket[1h]))")
    assert list(quantile.values()) == [pytest.approx(1.5)]
    native = _values(
        program, "histogram_count(payload) - histogram_count(payload offset 1d) or histogram_count(payload)"
    )
    assert list(native.values()) == [9]
    assert math.isclose(*_values(program, "histogram_sum(payload)").values(), 15)


def test_deltas_are_added_up_from_the_first_export_on(program: Program) -> None:
    sender = Sender(program, ALL_DELTA)
    counter = sender.meter.create_counter("delta")
    level = sender.meter.create_up_down_counter("delta.level")
    for i in range(3):
        counter.add(5)
        level.add(1 - i)
        time.sleep(0.05)
        assert sender.send() is MetricExportResult.SUCCESS
    growth = "last_over_time(delta_total[1h]) - on(job, instance, host_name) min_over_time(delta_total[1h])"
    assert list(_values(program, growth).values()) == [15]
    assert list(_values(program, "delta_level").values()) == [0]
    # One more where the first delta began; the others began where one ended.
    assert list(_values(program, "count_over_time(delta_total[1h])").values()) == [4]
    types = program.http.get("/prometheus/api/v1/metadata").json()["data"]
    assert [types[name][0]["type"] for name in ("delta_total", "delta_level")] == ["counter", "gauge"]


STEP_S, EXPORTS = 240, 36
EQUAL = {
    "rate of a counter": "rate(both_requests_total{T}[20m])",
    "increase of a counter": "increase(both_requests_total{T}[17m])",
    "increase of an observed counter": "increase(both_cpu_seconds_total{T}[20m])",
    "resets of a counter": "resets(both_requests_total{T}[20m])",
    "an up-down counter": "both_queue{T}",
    "an observed up-down counter": "both_threads{T}",
    "a gauge": "both_load{T}",
    "quantile of a classic histogram": "histogram_quantile(0.9, rate(both_duration_seconds_bucket{T}[20m]))",
    "sum of a classic histogram": "increase(both_duration_seconds_sum{T}[20m])",
    "quantile of a native histogram": "histogram_quantile(0.9, rate(payload{T}[20m]))",
    "count of a native histogram": "histogram_count(increase(payload{T}[20m]))",
    "sum of a native histogram": "histogram_sum(increase(payload{T}[20m]))",
}


class BothWays:
    """One meter whose state goes out both ways, as exported at chosen times."""

    def __init__(self) -> None:
        self.readers = {
            "delta": InMemoryMetricReader(preferred_temporality=ALL_DELTA),
            "cumulative": InMemoryMetricReader(preferred_temporality=ALL_CUMULATIVE),
        }
        exponential = View(instrument_name="payload", aggregation=ExponentialBucketHistogramAggregation())
        self.meter = MeterProvider([*self.readers.values()], RESOURCE, views=[exponential]).get_meter("lib")

    def bodies(self, *, began_s: int, before_s: int, now_s: int) -> list[bytes]:
        """Collect; return requests whose points have these times, and the temporality as an attribute."""
        made = []
        for name, reader in self.readers.items():
            message = encode_metrics(reader.get_metrics_data())
            for metric in message.resource_metrics[0].scope_metrics[0].metrics:
                for point in getattr(metric, metric.WhichOneof("data")).data_points:
                    point.attributes.add(key="T").value.string_value = name
                    point.time_unix_nano = now_s * 10**9
                    point.start_time_unix_nano = (before_s if name == "delta" else began_s) * 10**9
            made.append(message.SerializeToString())
        return made


def test_every_instrument_is_equal_both_ways_over_ranges_a_cut_and_a_kill(program: Program) -> None:
    # A tenant of its own: one that has samples of now takes none that are two hours old.
    tenant, both, rng = "both", BothWays(), random.Random(1)
    meter, state = both.meter, {"cpu": 0.0, "threads": 0}
    requests, queue = meter.create_counter("both.requests"), meter.create_up_down_counter("both.queue")
    duration, payload = meter.create_histogram("both.duration", unit="s"), meter.create_histogram("payload")
    load = meter.create_gauge("both.load")
    meter.create_observable_counter("both.cpu", [lambda options: [Observation(state["cpu"])]], unit="s")
    meter.create_observable_up_down_counter("both.threads", [lambda options: [Observation(state["threads"])]])
    # Over two hours, so that the exports of any run pass from one block range to the next.
    began_s = int(time.time()) - (EXPORTS + 1) * STEP_S
    for i in range(EXPORTS):
        state["cpu"] += rng.random()
        state["threads"] += rng.randrange(-2, 3)
        load.set(rng.random())
        requests.add(rng.randrange(10))
        queue.add(rng.randrange(-3, 4))
        for _ in range(20):
            duration.record(rng.lognormvariate(3, 2))
            payload.record(rng.lognormvariate(0, 2))
        times = {"began_s": began_s, "before_s": began_s + i * STEP_S, "now_s": began_s + (i + 1) * STEP_S}
        for body in both.bodies(**times):
            answer = program.http.post(
                "/otlp/v1/metrics",
                content=body,
                headers={"Content-Type": "application/x-protobuf", "X-Scope-OrgID": tenant},
            )
            assert (answer.status_code, answer.content) == (200, b"")
        if i == EXPORTS // 3:
            assert program.http.post("/ingester/flush", params={"wait": "true"}).status_code == 204
        if i == EXPORTS * 2 // 3:
            program.kill()
            program.start()
    span = {"start_ms": began_s * 1000, "end_ms": (began_s + EXPORTS * STEP_S) * 1000, "step_s": 111, "tenant": tenant}
    for what, expression in EQUAL.items():
        ways = [
            program.query_range(expression.replace("{T}", f'{{T="{name}"}}'), **span)
            for name in ("delta", "cumulative")
        ]
        (one,), (other,) = ways
        assert [t for t, _ in one["values"]] == [t for t, _ in other["values"]], what
        assert len(one["values"]) > 60, what
        found, wanted = ([float(value) for _, value in each["values"]] for each in (one, other))
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9, nan_ok=True), what
