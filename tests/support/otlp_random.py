"""Random OTLP requests: every type, every kind of attribute, names and units as awkward as they come.

Every data point has the attribute `number` with one of its own, so that no two of them are one series by accident; a
few are sent twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tests.support.otlp_corpus import CUMULATIVE, DELTA, NOW_MS, STALE_FLAG, attributes, request

# Behind a character of several bytes stands another: Prometheus cuts such a one in halves when it drops a suffix.
_PIECES = (
    *("a", "B", "http", "9", ".", "-", "_", "__", " ", ":", "/", "%", "ü.", "日.", "{x}"),
    *("total", "ratio", "seconds", "second", "per", "bytes", "_total", "milliseconds", "percent", "count", "sum"),
)
_UNITS = (
    *("", "1", "%", "s", "ms", "us", "ns", "min", "h", "d", "By", "KiBy", "MiBy", "GiBy", "TiBy", "KBy", "MBy", "GBy"),
    *("TBy", "m", "V", "A", "J", "W", "g", "Cel", "Hz", "{req}", "By/s", "{req}/s", "1/s", "m/h", "x/w", "x/mo", "/y"),
    *("s/", " s ", "s / m", "a/b/c", "{a}/{b}", "b{a}", "ü", "9", "per_s", "_", "__", "1/1", "%/s", "S", "by", ":"),
)
_KEYS = (
    *("a", "a.b", "a_b", "a-b", "A", "a.B", "_x", "__x", "__", "9z", "9_z", "ü", "le", "quantile", "job", "instance"),
    *("__name__", "host.name", "cloud.region", "otel_scope_name", "otel.scope.name", "x y", "x__y", "x..y", "trace_id"),
    *("service.name", "_", "name", "version"),
)
_TEXTS = ("", "v", "ü", "日本", 'q"\\\n', "x" * 100, "a;b", "\u2028", "<&>", " ", "0")
_NUMBERS = (0.0, -0.0, 1.0, -1.5, 1e21, 1e-7, 123456789.125, 5e-324, 1.7976931348623157e308, float("inf"), float("nan"))


NUMBER = "number"


def numbers(request: ExportMetricsServiceRequest) -> set[str]:
    """Return the numbers of a random request's data points, as labels have them."""
    found = set()
    for resource in request.resource_metrics:
        for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
            for point in getattr(metric, metric.WhichOneof("data")).data_points:
                found |= {str(pair.value.int_value) for pair in point.attributes if pair.key == NUMBER}
    return found


class RandomOtlp:
    """Makes requests out of one seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._points = 0

    def requests(self, count: int) -> Iterator[ExportMetricsServiceRequest]:
        """Yield so many requests."""
        for _ in range(count):
            metrics = [self._metric() for _ in range(self._chance.choice((1, 1, 2)))]
            yield request(
                *metrics,
                resource=self._resource(),
                scope=self._scope(),
                schemaUrl=self._chance.choice(("", "https://schema/1")),
            )

    def _resource(self) -> dict[str, Any]:
        chance, found = self._chance, {}
        for key in ("service.name", "service.namespace", "service.instance.id"):
            if chance.random() < 0.6:
                found[key] = chance.choice(("shop", "eu", "", "ü/x", 5, True))
        return self._shuffled(found | self._attributes(4))

    def _scope(self) -> dict[str, Any]:
        chance = self._chance
        return {
            "name": chance.choice(("", "lib", "ü.lib")),
            "version": chance.choice(("", "1.0")),
            "attributes": attributes(self._attributes(2)),
        }

    def _attributes(self, most: int) -> dict[str, Any]:
        keys = self._chance.sample(_KEYS, self._chance.randint(0, most))
        return {key: self._value(2) for key in keys}

    def _shuffled(self, pairs: dict[str, Any]) -> dict[str, Any]:
        items = list(pairs.items())
        self._chance.shuffle(items)
        return dict(items)

    def _value(self, depth: int) -> object:
        chance = self._chance
        match chance.randrange(11 if depth else 8):
            case 0:
                return chance.choice((True, False, None))
            case 1:
                return chance.choice((0, -1, 2**63 - 1, -(2**63), 10**15, chance.randrange(1000)))
            case 2:
                return chance.choice(_NUMBERS)
            case 3:
                return chance.choice((b"", b"\x01\x02\x03", b"\x00" * 6))
            case 8 | 9:
                return [self._value(depth - 1) for _ in range(chance.randrange(3))]
            case 10:
                return {chance.choice(_KEYS): self._value(depth - 1) for _ in range(chance.randrange(3))}
        return chance.choice(_TEXTS)

    def _metric(self) -> dict[str, Any]:
        chance = self._chance
        kind = chance.choice(("gauge", "sum", "sum", "histogram", "exponentialHistogram", "summary"))
        make = {"gauge": self._number, "sum": self._number, "summary": self._summary, "histogram": self._histogram}
        points = [make.get(kind, self._exponential)() for _ in range(chance.choice((0, 1, 1, 2, 3)))]
        if points and chance.random() < 0.1:
            points.append(points[0])
        data: dict[str, Any] = {"dataPoints": points}
        if kind not in ("gauge", "summary"):
            data["aggregationTemporality"] = chance.choice((CUMULATIVE, CUMULATIVE, CUMULATIVE, CUMULATIVE, DELTA))
        if kind == "sum":
            data["isMonotonic"] = chance.random() < 0.6
        name = "".join(chance.choice(_PIECES) for _ in range(chance.randint(1, 4)))
        return {"name": name, "unit": chance.choice(_UNITS), "description": chance.choice(_TEXTS), kind: data}

    def _point(self, **fields: Any) -> dict[str, Any]:
        chance = self._chance
        self._points += 1
        # Of a second, so that no resource asks for more than a few samples of target_info.
        at_ms = NOW_MS + chance.randrange(1000)
        at_ns = at_ms * 1_000_000 + chance.randrange(1_000_000)
        start_ns = chance.choice((0, at_ns, at_ns - 10**10, at_ns - 10**12, at_ns + 10**9))
        flags = chance.choice((0, 0, 0, 2))
        if chance.random() < 0.1:
            # Prometheus leaves out the exemplars of a point without a value, which no SDK sends.
            flags, fields = STALE_FLAG, fields | {"exemplars": []}
        return {
            "attributes": attributes(self._shuffled(self._attributes(5) | {NUMBER: self._points})),
            "timeUnixNano": at_ns,
            "startTimeUnixNano": start_ns,
            "flags": flags,
            **{name: value for name, value in fields.items() if value != []},
        }

    def _number(self) -> dict[str, Any]:
        chance = self._chance
        value: dict[str, Any] = chance.choice(
            ({"asInt": chance.choice((0, -5, 2**63 - 1, -(2**53) - 1))}, {"asDouble": str(chance.choice(_NUMBERS))}, {})
        )
        return self._point(**_proto_numbers(value), exemplars=self._exemplars())

    def _exemplars(self) -> list[dict[str, Any]]:
        chance = self._chance
        found = []
        # By value and by time, which Prometheus relies on.
        values = sorted(chance.choice((-1.0, 0.0, 0.5, 1.0, 2.0, 3.5, 1e9)) for _ in range(chance.choice((0, 0, 1, 3))))
        for number, value in enumerate(values):
            one: dict[str, Any] = {"timeUnixNano": (NOW_MS + number) * 1_000_000, "asDouble": value}
            if value == int(value) and chance.random() < 0.5:
                one |= {"asInt": int(one.pop("asDouble"))}
            if chance.random() < 0.7:
                one["traceId"] = chance.choice(("AAECAwQFBgcICQoLDA0ODw==", "AAAAAAAAAAAAAAAAAAAAAA=="))
            if chance.random() < 0.7:
                one["spanId"] = "AAECAwQFBgc="
            # Distinct, so that none counts as a repetition of the one before.
            extra = {NUMBER: self._points * 10 + number} | {
                key: chance.choice(("", "v", "ü", "x" * chance.choice((40, 60, 130))))
                for key in chance.sample(_KEYS, 2)
            }
            one["filteredAttributes"] = attributes(extra if chance.random() < 0.8 else {NUMBER: extra[NUMBER]})
            found.append(one)
        return found

    def _histogram(self) -> dict[str, Any]:
        chance = self._chance
        bounds = sorted(chance.sample((-1.0, 0.0, 0.005, 0.5, 1.0, 2.5, 1e6, 1e21, 1.5e-7), chance.randint(0, 4)))
        counts = [chance.choice((0, 0, 1, 3, 10**6)) for _ in range(len(bounds) + 1)]
        if not bounds and chance.random() < 0.5:
            counts = []
        fields: dict[str, Any] = {"count": sum(counts), "bucketCounts": counts, "explicitBounds": bounds}
        if chance.random() < 0.8:
            fields["sum"] = chance.choice((0.0, 3.5, -2.0))
        if chance.random() < 0.5:
            fields |= {"min": -1.0, "max": 9.0}
        return self._point(**fields, exemplars=self._exemplars())

    def _exponential(self) -> dict[str, Any]:
        chance = self._chance
        sides = {}
        scale = chance.randint(-4, 20) if chance.random() < 0.9 else chance.randint(-10, -5)
        for side in ("positive", "negative"):
            if chance.random() < 0.7:
                # Prometheus misplaces a bucket behind an empty one when it lowers the resolution.
                kinds = (0, 0, 0, 1, 2, 7) if scale <= 8 else (1, 2, 7)
                counts = [chance.choice(kinds) for _ in range(chance.choice((0, 1, 3, 8, 40)))]
                sides[side] = {"offset": chance.choice((0, 1, -1, -3, 7, -1000, 1000)), "bucketCounts": counts}
        zeros = chance.choice((0, 3))
        total = zeros + sum(sum(side["bucketCounts"]) for side in sides.values())
        fields: dict[str, Any] = {"scale": scale, "zeroCount": zeros, "count": total, **sides}
        if chance.random() < 0.8:
            fields["sum"] = chance.choice((0.0, 3.5, -2.0))
        if chance.random() < 0.5:
            fields |= {"min": -1.0, "max": 9.0}
        if chance.random() < 0.3:
            fields["zeroThreshold"] = chance.choice((0.0, 1e-10, 0.5))
        return self._point(**fields, exemplars=self._exemplars())

    def _summary(self) -> dict[str, Any]:
        chance = self._chance
        quantiles = [
            {"quantile": q, "value": chance.choice((0.0, 1.5, -3.0))}
            for q in chance.sample((0.0, 0.25, 0.5, 0.99, 0.999, 1.0), chance.randint(0, 4))
        ]
        return self._point(count=chance.choice((0, 7)), sum=chance.choice((0.0, 3.5)), quantileValues=quantiles)


def _proto_numbers(value: dict[str, Any]) -> dict[str, Any]:
    names = {"inf": "Infinity", "nan": "NaN"}
    return {key: names.get(number, number) for key, number in value.items()}
