"""Plain-Python decoder of OTLP metrics over the protobuf library: one data point at a time, no columns."""

from __future__ import annotations

import bisect
import itertools
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from mimir_ingest.model.batch import STALE_NAN_BITS
from mimir_ingest.model.labels import encode_label_bytes
from mimir_ingest.model.numbers import format_plain
from mimir_ingest.wire.otlp_labels import IDENTIFYING, OtlpSettings, identity_labels, promoted_labels
from mimir_ingest.wire.otlp_names import UnusableName, unit_name
from mimir_ingest.wire.otlp_text import value_text

INFO_INTERVAL_NS = 150_000_000_000


class Refused(ValueError):
    """The bytes are no request."""


class Unusable(ValueError):
    """A metric or data point that becomes nothing."""


@dataclass
class Row:
    """One series of the batch."""

    labels: bytes
    point: int
    delta: bool = False
    floats: list[tuple[int, int, int]] = field(default_factory=list)
    """(ms, bits of the value, start in ms)."""
    histograms: list[tuple] = field(default_factory=list)
    """(ms, start in ms, the histogram)."""
    exemplars: list[tuple[int, int, bytes]] = field(default_factory=list)
    """(ms, bits of the value, label bytes)."""


@dataclass
class Request:
    """What a request becomes."""

    settings: OtlpSettings
    rows: list[Row] = field(default_factory=list)
    metadata: dict[tuple[int, str, str, str], None] = field(default_factory=dict)
    errors: dict[str, None] = field(default_factory=dict)
    received: int = 0
    unconverted: int = 0
    unconverted_metrics: int = 0
    infos_left: int = 100_000
    lengths: dict[str, list[int]] = field(default_factory=dict)

    def fail(self, error: Exception, points: int) -> None:
        self.unconverted_metrics += 1
        self.unconverted += points
        self.errors.setdefault(str(error))

    def error_text(self) -> str | None:
        text = "otlp parse error: " + "\n".join(self.errors)
        return text.encode()[:1024].decode("utf-8", "ignore") if self.errors else None


def decode(body: bytes, settings: OtlpSettings) -> Request:
    """Decode a request. Raises Refused."""
    try:
        request = ExportMetricsServiceRequest.FromString(body)
    except DecodeError as error:
        raise Refused(str(error)) from error
    into = Request(settings)
    resources = request.resource_metrics
    for scope in (scope for one in resources for scope in one.scope_metrics):
        for metric in scope.metrics:
            kind = metric.WhichOneof("data")
            points = getattr(metric, kind).data_points if kind and kind != "summary" else []
            for exemplar in (exemplar for point in points for exemplar in point.exemplars):
                if len(exemplar.trace_id) not in (0, 16) or len(exemplar.span_id) not in (0, 8):
                    raise Refused("an id has another size")
    into.lengths = {
        "resource_metrics": [len(resources)],
        "scope_metrics": [len(one.scope_metrics) for one in resources],
        "metrics": [len(scope.metrics) for one in resources for scope in one.scope_metrics],
    }
    for one in resources:
        _resource(into, one)
    return into


def _texts(attributes: Iterable) -> dict[str, str]:
    texts: dict[str, str] = {}
    for pair in attributes:
        texts.setdefault(pair.key, value_text(pair.value))
    return texts


def _resource(into: Request, resource_metrics: pb.ResourceMetrics) -> None:
    resource = _texts(resource_metrics.resource.attributes)
    times: list[int] = []
    for scope in resource_metrics.scope_metrics:
        labels: Labels | UnusableName
        try:
            labels = Labels(into.settings, resource, scope)
        except UnusableName as error:
            labels = error
        for metric in scope.metrics:
            kind = metric.WhichOneof("data")
            points = list(getattr(metric, kind).data_points) if kind else []
            times += [point.time_unix_nano for point in points]
            first = into.received
            into.received += len(points)
            try:
                if isinstance(labels, UnusableName):
                    raise labels
                made = Metric(into, labels, metric, kind, points)
            except (Unusable, UnusableName) as error:
                into.fail(error, len(points))
                continue
            made.add(points, first)
    if times:
        try:
            _target_info(into, resource, min(times), max(times))
        except UnusableName as error:
            into.errors.setdefault(str(error))


def _target_info(into: Request, resource: Mapping[str, str], earliest: int, latest: int) -> None:
    if all(key in IDENTIFYING for key in resource):
        return
    left_out = () if into.settings.keep_identifying_resource_attributes else IDENTIFYING
    labels = _joined(into.settings, [pair for pair in resource.items() if pair[0] not in left_out])
    labels |= identity_labels(resource)
    if labels.get("job") or labels.get("instance"):
        spaced = range(earliest, latest, INFO_INTERVAL_NS)
        spaced = spaced[max(len(spaced) - into.infos_left, 0) :]
        into.infos_left -= len(spaced)
        at = [ns // 1_000_000 for ns in (*spaced, latest)]
        row = Row(_label_bytes(labels | {"__name__": "target_info"}), -1)
        row.floats = [(ms, _bits(1.0), 0) for ms in at]
        into.rows.append(row)


def _joined(settings: OtlpSettings, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for key, value in sorted(pairs, key=lambda pair: pair[0]):
        if key != "__name__":
            name = settings.label_name(key)
            labels[name] = f"{labels[name]};{value}" if labels.get(name) else value
    return labels


def _label_bytes(labels: Mapping[str, str]) -> bytes:
    return encode_label_bytes({name: value for name, value in labels.items() if value})


class Labels:
    """Labels of one scope's data points. Raises UnusableName."""

    def __init__(self, settings: OtlpSettings, resource: Mapping[str, str], scope: pb.ScopeMetrics) -> None:
        self.settings, self.behind, self.over = settings, promoted_labels(settings, resource), {}
        if settings.promote_scope_metadata and scope.scope.name:
            for pair in scope.scope.attributes:
                self.over[settings.label_name(f"otel_scope_{pair.key}")] = value_text(pair.value)
            self.over |= {
                "otel_scope_name": scope.scope.name,
                "otel_scope_version": scope.scope.version,
                "otel_scope_schema_url": scope.schema_url,
            }
        self.over |= identity_labels(resource)

    def of(self, attributes: Iterable) -> dict[str, str]:
        labels = _joined(self.settings, [(pair.key, value_text(pair.value)) for pair in attributes])
        for name, value in self.behind.items():
            labels[name] = labels.get(name) or value
        return labels | self.over


class Metric:
    """One metric that can be converted. Raises Unusable, UnusableName."""

    def __init__(self, into: Request, labels: Labels, metric: pb.Metric, kind: str | None, points: list) -> None:
        settings, self.into, self.labels, self.kind = into.settings, into, labels, kind
        if kind is None:
            raise Unusable(
                f"could not get aggregation temporality for {metric.name} as it has unsupported metric type Empty"
            )
        stated = getattr(getattr(metric, kind), "aggregation_temporality", pb.AGGREGATION_TEMPORALITY_CUMULATIVE)
        self.raw = stated == pb.AGGREGATION_TEMPORALITY_DELTA and settings.native_delta_ingestion
        self.delta = stated == pb.AGGREGATION_TEMPORALITY_DELTA and settings.accumulate_deltas and not self.raw
        if stated != pb.AGGREGATION_TEMPORALITY_CUMULATIVE and not self.raw and not self.delta:
            raise Unusable(f'invalid temporality and type combination for metric "{metric.name}"')
        self.counter = kind == "sum" and metric.sum.is_monotonic
        name_kind = "counter" if self.counter else "gauge" if kind == "gauge" else "other"
        self.name = settings.metric_name(metric.name, metric.unit, name_kind)
        if not points:
            raise Unusable(f"empty data points. {metric.name} is dropped")
        known = {"gauge": 2, "sum": 1 if self.counter else 2, "summary": 5}.get(kind, 3)
        into.metadata.setdefault((0 if self.raw else known, self.name, metric.description, unit_name(metric.unit)))

    def add(self, points: list, first: int) -> None:
        """Add the rows of data points."""
        failed: list[Exception] = []
        for number, point in enumerate(points, first):
            try:
                self._add(point, number)
            except (Unusable, UnusableName) as error:
                failed.append(error)
        if failed:
            self.into.fail(failed[0], len(failed))

    def _add(self, point, number: int) -> None:
        self.point, self.number, self.ms = point, number, point.time_unix_nano // 1_000_000
        self.stale = bool(point.flags & 1)
        match self.kind:
            case "gauge" | "sum":
                value = float(point.as_int) if point.HasField("as_int") else point.as_double
                row = self._float({}, value, self._start() if self.counter else 0)
                if self.kind == "sum":
                    self._exemplars([row], [])
            case "summary":
                self._float({"__name__": f"{self.name}_sum"}, point.sum, self._start())
                self._float({"__name__": f"{self.name}_count"}, float(point.count), self._start())
                for at in point.quantile_values:
                    self._float({"quantile": format_plain(at.quantile)}, at.value, 0)
            case "histogram" if not self.into.settings.convert_histograms_to_nhcb:
                self._classic()
            case "histogram":
                counts = [float(count) for count in point.bucket_counts]
                filled = {i: count for i, count in enumerate(counts) if count}
                listed = _listed(filled, min(filled), len(counts) - 1) if filled else []
                self._native(-53, 0.0, 0.0, [], listed, tuple(point.explicit_bounds))
            case _:
                self._exponential()

    def _row(self, labels: Mapping[str, str]) -> Row:
        row = Row(
            _label_bytes(self.labels.of(self.point.attributes) | {"__name__": self.name} | labels),
            self.number,
            self.delta,
        )
        self.into.rows.append(row)
        return row

    def _float(self, labels: Mapping[str, str], value: float, start: int) -> Row:
        row = self._row(labels)
        row.floats = [(self.ms, STALE_NAN_BITS if self.stale else _bits(value), start)]
        return row

    def _classic(self) -> None:
        point, start = self.point, self._start()
        if point.HasField("sum"):
            self._float({"__name__": f"{self.name}_sum"}, point.sum, start)
        self._float({"__name__": f"{self.name}_count"}, float(point.count), start)
        bounds = list(point.explicit_bounds)[: len(point.bucket_counts)]
        sums = [float(total % 2**64) for total in itertools.accumulate(point.bucket_counts)]
        values = [*zip(map(format_plain, bounds), sums, strict=False), ("+Inf", float(point.count))]
        bucket = {"__name__": f"{self.name}_bucket"}
        self._exemplars([self._float(bucket | {"le": le}, value, start) for le, value in values], bounds)

    def _exponential(self) -> None:
        point = self.point
        if point.scale < -4:
            raise Unusable(f"cannot convert exponential to native histogram. Scale must be >= -4, was {point.scale}")
        down = max(point.scale - 8, 0)
        sides = []
        for side in (point.negative, point.positive):
            filled: dict[int, float] = {}
            for i, count in enumerate(side.bucket_counts):
                if count:
                    number = ((i + side.offset) >> down) + 1
                    filled[number] = filled.get(number, 0.0) + float(count)
            if filled and not -(2**31) <= min(filled) <= max(filled) < 2**31:
                raise Unusable(
                    f"cannot convert exponential to native histogram. No bucket has the number {max(filled)}"
                )
            last = min(((side.offset + len(side.bucket_counts) - 1) >> down) + 1, 2**31 - 1)
            sides.append(_listed(filled, (side.offset >> down) + 1, last) if side.bucket_counts else [])
        self._native(min(point.scale, 8), 1e-128, float(point.zero_count), *sides, ())

    def _native(self, schema: int, threshold: float, zeros: float, negative, positive, bounds) -> None:
        row, total = self._row({}), STALE_NAN_BITS if self.stale else _bits(self.point.sum)
        held = (schema, 3 if self.raw else 0, threshold, zeros, float(self.point.count), total)
        row.histograms = [(self.ms, self._start(), (*held, negative, positive, bounds))]
        self._exemplars([row], [])

    def _start(self) -> int:
        point, start = self.point, self.point.start_time_unix_nano // 1_000_000
        if self.delta:
            return min(start, self.ms - 1) if start and point.start_time_unix_nano < point.time_unix_nano else 0
        zero = self.into.settings.created_timestamp_zero_ingestion and not self.raw
        return start if zero and self.ms - 300_000 <= start < self.ms else 0

    def _exemplars(self, rows: Sequence[Row], bounds: Sequence[float]) -> None:
        for exemplar in self.point.exemplars:
            value = float(exemplar.as_int) if exemplar.HasField("as_int") else exemplar.as_double
            labels = {
                name: text.hex()
                for name, text in (("trace_id", exemplar.trace_id), ("span_id", exemplar.span_id))
                if any(text)
            }
            more = [(pair.key, value_text(pair.value)) for pair in exemplar.filtered_attributes]
            if sum(len(name) + len(text) for name, text in (*labels.items(), *more)) <= 128:
                labels |= {name: text for name, text in more if text}
            row = rows[bisect.bisect_left(bounds, value)]
            row.exemplars.append((exemplar.time_unix_nano // 1_000_000, _bits(value), encode_label_bytes(labels)))


def _listed(filled: Mapping[int, float], first: int, last: int) -> list[tuple[int, float]]:
    """Return the buckets that are listed, of `first` to `last`: the last one, and empty ones in gaps of one or two."""
    numbers = sorted({*filled, last}) if first <= last else sorted(filled)
    listed: list[tuple[int, float]] = []
    before = first - 1
    for number in numbers:
        if number - before - 1 <= 2:
            listed += [(gap, 0.0) for gap in range(before + 1, number)]
        listed.append((number, filled.get(number, 0.0)))
        before = number
    return listed


def _bits(value: float) -> int:
    return struct.unpack("<Q", struct.pack("<d", value))[0]
