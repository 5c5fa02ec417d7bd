"""The OpenTelemetry SDK exports over OTLP/HTTP to the program; every instrument is asked for by query."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest
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
_KINDS = (Counter, UpDownCounter, Histogram, ObservableCounter, ObservableUpDownCounter, ObservableGauge)
ALL_CUMULATIVE = dict.fromkeys(_KINDS, AggregationTemporality.CUMULATIVE)
ALL_DELTA = dict.fromkeys(_KINDS, AggregationTemporality.DELTA)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    flags = (
        "-distributor.otel-metric-suffixes-enabled=true",
        "-distributor.otel-promote-resource-attributes=host.name,missing",
        "-ingest-storage.read-consistency=strong",
        "-distributor.otel-created-timestamp-zero-ingestion-enabled=true",
    )
    with Program(tmp_path_factory.mktemp("otlp"), *flags).start() as running:
        yield running


class Sender:
    """A meter and what sends its state."""

    def __init__(self, program: Program, temporality: dict, compression: Compression = Compression.NoCompression):
        self.reader = InMemoryMetricReader(preferred_temporality=temporality)
        exponential = View(instrument_name="payload", aggregation=ExponentialBucketHistogramAggregation())
        self.provider = MeterProvider([self.reader], RESOURCE, views=[exponential])
        self.meter = self.provider.get_meter("lib", "1.0")
        endpoint = f"{program.url}/otlp/v1/metrics"
        self.exporter = OTLPMetricExporter(endpoint, timeout=20, compression=compression)

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
        program, "last_over_time(growth_total[1m]) - on(job, instance, host_name) min_over_time(growth_total[1m])"
    )
    assert list(found.values()) == [15]
    assert list(_values(program, "count_over_time(growth_total[1m])").values()) == [4]
    quantile = _values(program, "histogram_quantile(0.5, rate(growth_latency_seconds_bucket[1m]))")
    assert list(quantile.values()) == [pytest.approx(1.5)]
    native = _values(
        program, "histogram_count(payload) - histogram_count(payload offset 1h) or histogram_count(payload)"
    )
    assert list(native.values()) == [9]
    assert math.isclose(*_values(program, "histogram_sum(payload)").values(), 15)


def test_deltas_are_refused_by_number_and_the_rest_is_stored(program: Program) -> None:
    sender = Sender(program, ALL_DELTA)
    sender.meter.create_counter("delta").add(1)
    sender.meter.create_gauge("beside.delta").set(4)
    assert sender.send() is MetricExportResult.SUCCESS
    assert list(_values(program, "beside_delta").values()) == [4]
    assert _values(program, "delta_total") == {}
