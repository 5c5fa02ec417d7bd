"""OTLP requests made by the protobuf library, as awkward as senders make them; one a question of translation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

NOW_MS = 1_700_000_000_000
CUMULATIVE, DELTA = 2, 1
STALE_FLAG = 1

Attributes = Mapping[str, Any]


def any_value(value: object) -> dict[str, Any]:
    """Return an AnyValue in protobuf's JSON."""
    match value:
        case None:
            return {}
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": value}
        case float():
            return {"doubleValue": str(value).replace("inf", "Infinity").replace("nan", "NaN")}
        case bytes():
            return {"bytesValue": value.hex()}  # hex digits are base64, too
        case list():
            return {"arrayValue": {"values": [any_value(item) for item in value]}}
        case dict():
            return {"kvlistValue": {"values": attributes(value)}}
    return {"stringValue": value}


def attributes(pairs: Attributes) -> list[dict[str, Any]]:
    """Return attributes in protobuf's JSON."""
    return [{"key": key, "value": any_value(value)} for key, value in pairs.items()]


def point(values: Attributes | None = None, *, at_ms: int = NOW_MS, **fields: Any) -> dict[str, Any]:
    """Return a data point with these attributes."""
    return {"attributes": attributes(values or {}), "timeUnixNano": at_ms * 1_000_000, **fields}


def gauge(name: str, *points: dict[str, Any], unit: str = "") -> dict[str, Any]:
    """Return a gauge; without points, one of value 1."""
    return {"name": name, "unit": unit, "gauge": {"dataPoints": list(points) or [point(asDouble=1)]}}


def total(name: str, *points: dict[str, Any], unit: str = "", monotonic: bool = True, temporality: int = CUMULATIVE):
    """Return a sum; without points, one of value 1."""
    found = list(points) or [point(asInt=1)]
    return {
        "name": name,
        "unit": unit,
        "sum": {"dataPoints": found, "isMonotonic": monotonic, "aggregationTemporality": temporality},
    }


def histogram(name: str, *points: dict[str, Any], unit: str = "", kind: str = "histogram", temporality=CUMULATIVE):
    """Return a histogram of either kind."""
    return {"name": name, "unit": unit, kind: {"dataPoints": list(points), "aggregationTemporality": temporality}}


def summary(name: str, *points: dict[str, Any]) -> dict[str, Any]:
    """Return a summary."""
    return {"name": name, "summary": {"dataPoints": list(points)}}


def request(
    *metrics: dict[str, Any], resource: Attributes | None = None, scope: Mapping[str, Any] | None = None, **more: Any
) -> ExportMetricsServiceRequest:
    """Return a request of one resource and scope."""
    scoped = {"metrics": list(metrics), "scope": scope or {}, **more}
    tree = {"resourceMetrics": [{"resource": {"attributes": attributes(resource or {})}, "scopeMetrics": [scoped]}]}
    return json_format.ParseDict(tree, ExportMetricsServiceRequest())


SERVICE = {"service.name": "shop", "service.namespace": "eu", "service.instance.id": "i-1"}

_NAMES = (
    "http.server.duration",
    "0digit",
    "a__b___c",
    "_private",
    "__name",
    "with:colon",
    "größe.über",
    "requests.total",
    "requests_total_more",
    "ratio",
    "cpu ratio",
    "bytes",
    "disk.bytes.read",
    "trailing.",
    ".leading",
    "a.-.b",
    "UPPER.Case",
    "seconds",
    "x_seconds",
    "x.per_second",
    "totaltotal",
    "mytotal",
    "total",
)
_UNITS = (
    *("", "1", "s", "ms", "By", "KiBy", "By/s", "{req}", "{req}/s", "1/s", "m/s", " By ", "Cel", "%", "widgets", "a-b"),
    *("m/{x}", "/s", "s/", "foo/bar", "_u_", "a__b", "requests/min", "TiBy", "{a}b", "per", "s/s"),
)


def names() -> Iterable[ExportMetricsServiceRequest]:
    """Names and units, for each kind of metric that has its own suffix."""
    for i, name in enumerate(_NAMES):
        for j, unit in enumerate(_UNITS):
            if i < 2 or j < 2 or (i + j) % 3 == 0:
                here = point({"n": name, "u": unit}, asInt=1)
                yield request(
                    gauge(name, here, unit=unit), total(name, here, unit=unit), total(name, here, monotonic=False)
                )


def labels() -> Iterable[ExportMetricsServiceRequest]:
    """Attributes, resources and scopes."""
    values = {
        "text": "ü",
        "int": -5,
        "bool": True,
        "none": None,
        "empty": "",
        "zero": 0.0,
        "half": 0.5,
        "big": 1e21,
        "tiny": 1.5e-7,
        "huge": 1e300,
        "inf": float("inf"),
        "nan": float("nan"),
        "bytes": b"\x01\x02\x03",
        "list": [1, "a<b>&", None, [2.5], {"z": 1, "a": "\u2028\t\x01"}],
        "map": {"b": [], "a": {}, "c": False},
        "nans": [float("nan")],
        "minus": -0.0,
        "million": 1e6,
        "long": 123456789012345678,
    }
    yield request(gauge("values", point(values, asDouble=1)))
    keys = ["a.b", "a-b", "a_b", "_x", "__y", "9z", "sp ace", "ü", "job", "instance", "le", "quantile", "__name__", "A"]
    keys += ["a..b", "a__b", "__name", "x_", "Z.z"]
    yield request(gauge("keys", point({key: f"v-{key}" for key in keys}, asDouble=1)), resource=SERVICE)
    yield request(gauge("joined", point({"a.b": "", "a-b": "second", "a_b": "third"}, asDouble=1)))
    yield request(
        histogram(
            "keys.h", point({key: f"v-{key}" for key in keys}, count=1, sum=1, bucketCounts=[1, 0], explicitBounds=[2])
        ),
        summary("keys.s", point({key: f"v-{key}" for key in keys}, count=1, quantileValues=[{"quantile": 0.5}])),
    )
    resources = [
        SERVICE,
        {"service.name": "only"},
        {"service.instance.id": "only"},
        {"service.namespace": "only"},
        {"service.name": "", "x": "1"},
        {"service.namespace": "", "service.name": "n", "x": "1"},
        {"service.name": 5, "host.name": "h", "k8s.pod-name": "p"},
        {"host.name": "h"},
        {"job": "mine", "x": "1"},
        {
            **SERVICE,
            "host.name": "h",
            "_odd": "o",
            "9": "nine",
            "host-name": "again",
            "cloud.region": "eu",
            "region": "x",
        },
        {**SERVICE, "instance": "other", "job": "other", "list": [1, 2]},
    ]
    for number, resource in enumerate(resources):
        yield request(gauge("of.resource", point({"n": number}, asDouble=1)), resource=resource)
        yield request(
            gauge("over.resource", point({"n": number, "host.name": "own", "cloud_region": ""}, asDouble=1)),
            resource=resource,
        )
    scopes = [
        {"name": "lib", "version": "1"},
        {"name": "lib"},
        {"version": "1"},
        {"name": "lib", "attributes": attributes({"a.b": 1, "name": "mine", "": "nothing"})},
    ]
    for number, scope in enumerate(scopes):
        here = point({"n": number, "otel_scope_name": "of the point"}, asDouble=1)
        yield request(gauge("of.scope", here), scope=scope, schemaUrl="https://schema/1")
    yield request(
        gauge("info", point(asDouble=1), point({"b": 1}, at_ms=NOW_MS - 400_000, asDouble=1)),
        resource={**SERVICE, "x": 1},
    )
    yield request(
        gauge("info2", point(asDouble=1), point({"b": 1}, at_ms=NOW_MS - 300_000, asDouble=1)),
        resource={"service.name": "x", "x": 1},
    )


def types() -> Iterable[ExportMetricsServiceRequest]:
    """Values of every type of metric."""
    stale = {"flags": STALE_FLAG}
    ids = {"traceId": "AAECAwQFBgcICQoLDA0ODw==", "spanId": "AAECAwQFBgc="}
    at = [{"timeUnixNano": (NOW_MS + i) * 1_000_000} for i in range(4)]
    # By value, which Prometheus relies on when it looks for their buckets.
    exemplars = [
        {"asDouble": 0.5, **ids, **at[0]},
        {"asDouble": 1.0, **ids, **at[1], "filteredAttributes": attributes({"long": "x" * 130})},
        {"asInt": 2, **ids, **at[2], "filteredAttributes": attributes({"a.b": "x"})},
        {"asDouble": 100.0, **at[3], "filteredAttributes": attributes({"long": "x" * 130, "a": "b"})},
    ]
    yield request(
        gauge(
            "g",
            point(asInt=-(2**53) - 1),
            point({"n": 1}, asDouble="NaN"),
            point({"n": 2}),
            point({"n": 3}, asInt=7, **stale),
        ),
        total("t", point(asDouble=1.5, exemplars=exemplars[:1]), point({"n": 3}, asInt=7, **stale)),
        total("ud", point(asDouble=-1.5, exemplars=exemplars[2:3]), monotonic=False),
        resource=SERVICE,
    )
    classic = {"count": 7, "sum": 3.5, "bucketCounts": [1, 2, 0, 4], "explicitBounds": [0.001, 1, 2.5]}
    yield request(
        histogram("h", point(**classic, exemplars=exemplars), unit="s"),
        histogram("h.stale", point(**classic, **stale)),
        histogram("h.no.sum", point(count=2, bucketCounts=[0, 2], explicitBounds=[1e6])),
        histogram("h.no.buckets", point(count=0, sum=0)),
        histogram("h.bounds", point(count=1, sum=1, bucketCounts=[1, 0, 0, 0], explicitBounds=[-1e-7, 0, 1e21])),
        resource=SERVICE,
    )
    for scale in (-4, 0, 3, 8, 9, 11, 20):
        sides = {
            "positive": {"offset": -3, "bucketCounts": [1, 0, 0, 2, 0, 0, 0, 0, 3, 0]},
            "negative": {"offset": 5, "bucketCounts": [0, 4, 4]},
        }
        if scale > 8:  # Prometheus misplaces a bucket behind an empty one when it lowers the resolution
            sides = {"positive": {"offset": -3, "bucketCounts": [1, 2, 3, 4, 2]}, "negative": {"bucketCounts": [1, 1]}}
        exponential = point(
            {"scale": scale}, count=16, zeroCount=2, sum=1, scale=scale, **sides, exemplars=exemplars[:2]
        )
        yield request(histogram("e", exponential, kind="exponentialHistogram"), resource=SERVICE)
    yield request(
        histogram(
            "e.stale", point(count=1, scale=1, positive={"bucketCounts": [1]}, **stale), kind="exponentialHistogram"
        ),
        histogram("e.empty", point(count=0, scale=1), kind="exponentialHistogram"),
        histogram("e.threshold", point(count=1, zeroCount=1, zeroThreshold=0.5), kind="exponentialHistogram"),
    )
    quantiles = [{"quantile": q, "value": q * 2} for q in (0, 0.5, 0.99, 1)]
    yield request(
        summary(
            "s",
            point(count=2, sum=3, quantileValues=quantiles),
            point({"n": 1}, count=2, quantileValues=quantiles, **stale),
        )
    )


def unusable() -> Iterable[ExportMetricsServiceRequest]:
    """What cannot be converted, beside something that can."""
    good = gauge("good", point(asDouble=1))
    yield request(good, {"name": "no.type"})
    yield request(good, {"name": "no.points", "gauge": {}})
    yield request(good, total("no.temporality", temporality=0))
    yield request(good, total("delta.sum", temporality=DELTA))
    yield request(good, histogram("delta.histogram", point(count=1, sum=1, bucketCounts=[1]), temporality=DELTA))
    yield request(good, histogram("coarse", point(scale=-5, count=1, zeroCount=1), kind="exponentialHistogram"))
