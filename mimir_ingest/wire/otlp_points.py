"""OTLP data points to series, a function a kind of metric. Source: spec ingest-storage 8.9 ("Types", "Start time")."""

from __future__ import annotations

import bisect
import enum
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from mimir_ingest.model.labels import encode_label_bytes
from mimir_ingest.model.numbers import format_plain
from mimir_ingest.wire.otlp_labels import OtlpSettings, PointLabels, label_pair, name_pair
from mimir_ingest.wire.otlp_names import UnusableName, unit_name
from mimir_ingest.wire.otlp_rows import Rows, UnusablePoint, from_explicit, from_exponential
from mimir_ingest.wire.otlp_text import value_text

UNKNOWN, COUNTER, GAUGE, HISTOGRAM, SUMMARY = 0, 1, 2, 3, 5
"""Metadata types, by number (model.batch.METRIC_TYPES)."""

START_WITHIN_MS = 300_000
"""A start that lies further before its sample does not become a zero."""

MAX_EXEMPLAR_RUNES = 128
"""Characters of an exemplar's labels (OpenMetrics); with more of them its attributes are left out."""

_DELTA = pb.AGGREGATION_TEMPORALITY_DELTA
_STALE_FLAG = pb.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
_INFINITE_LE = label_pair("le", "+Inf")


class Temporality(enum.Enum):
    """What becomes of a metric's data points."""

    CUMULATIVE = enum.auto()
    DELTA = enum.auto()
    """Added up where they are stored."""
    RAW_DELTA = enum.auto()
    """Stored as they are."""


class UnusableMetric(ValueError):
    """A metric of which no data point can be converted."""


@dataclass(slots=True)
class Conversion:
    """What a request has become so far, and what could not be converted."""

    settings: OtlpSettings
    rows: Rows = field(default_factory=Rows)
    received: int = 0
    """Data points seen."""
    unconverted: int = 0
    unconverted_metrics: int = 0
    errors: dict[str, None] = field(default_factory=dict)
    """Texts, in order, each once."""
    metadata: dict[tuple[int, str, str, str], None] = field(default_factory=dict)
    """(type, family, help, unit), each once."""

    def fail(self, error: Exception) -> None:
        """Note that a metric could not be converted, or not wholly."""
        self.unconverted_metrics += 1
        self.errors.setdefault(str(error))


def points_of(metric: pb.Metric) -> tuple[str | None, list]:
    """Return the kind of a metric, None for one that is not known, and its data points."""
    kind = metric.WhichOneof("data")
    return kind, list(getattr(metric, kind).data_points) if kind else []


def convert_metric(into: Conversion, metric: pb.Metric, kind: str | None, points: list, labels: PointLabels) -> None:
    """Add the series and the metadata of one metric; what cannot be converted is counted."""
    first = into.received
    into.received += len(points)
    try:
        name, metadata_type, temporality = _judge(into.settings, metric, kind, points)
    except (UnusableMetric, UnusableName) as error:
        into.unconverted += len(points)
        into.fail(error)
        return
    into.metadata.setdefault((metadata_type, name, metric.description, unit_name(metric.unit)))
    series = _Series(into, labels, name, temporality)
    convert = _converter(into.settings, metric, kind)
    failed = None
    for number, point in enumerate(points, first):
        try:
            convert(series, number, point)
        except (UnusablePoint, UnusableName) as error:
            into.unconverted += 1
            failed = failed or error
    if failed is not None:
        into.fail(failed)


def _judge(settings: OtlpSettings, metric: pb.Metric, kind: str | None, points: list) -> tuple[str, int, Temporality]:
    """Return a metric's name, the type for its metadata, and what becomes of its temporality."""
    if kind is None:
        raise UnusableMetric(
            f"could not get aggregation temporality for {metric.name} as it has unsupported metric type Empty"
        )
    temporality = Temporality.CUMULATIVE
    if kind in ("sum", "histogram", "exponential_histogram"):
        stated = getattr(metric, kind).aggregation_temporality
        if stated == _DELTA and settings.native_delta_ingestion:
            temporality = Temporality.RAW_DELTA
        elif stated == _DELTA and settings.accumulate_deltas:
            temporality = Temporality.DELTA
        elif stated != pb.AGGREGATION_TEMPORALITY_CUMULATIVE:
            raise UnusableMetric(f'invalid temporality and type combination for metric "{metric.name}"')
    counter = kind == "sum" and metric.sum.is_monotonic
    name_kind = "counter" if counter else "gauge" if kind == "gauge" else "other"
    name = settings.metric_name(metric.name, metric.unit, name_kind)
    if not points:
        raise UnusableMetric(f"empty data points. {metric.name} is dropped")
    known = {"gauge": GAUGE, "sum": COUNTER if counter else GAUGE, "summary": SUMMARY}.get(kind, HISTOGRAM)
    return name, UNKNOWN if temporality is Temporality.RAW_DELTA else known, temporality


class _Series:
    """Adds rows of one metric."""

    __slots__ = ("_bounds", "_les", "bucket", "count", "into", "labels", "pair", "sum", "temporality")

    def __init__(self, into: Conversion, labels: PointLabels, name: str, temporality: Temporality) -> None:
        self.into, self.labels, self.pair = into, labels, name_pair(name)
        self.sum, self.count, self.bucket = (name_pair(name + suffix) for suffix in ("_sum", "_count", "_bucket"))
        self.temporality = temporality
        self._bounds: list[float] = []
        self._les: list[bytes] = []

    def les(self, bounds: list[float]) -> list[bytes]:
        """Return the pairs of `le`; points of a metric mostly have the same bounds."""
        if bounds != self._bounds:
            self._bounds, self._les = bounds, [label_pair("le", format_plain(bound)) for bound in bounds]
        return self._les

    @property
    def delta(self) -> bool:
        """Whether the points are to be added up."""
        return self.temporality is Temporality.DELTA

    def start_ms(self, point, timestamp_ms: int) -> int:
        """Return the time from which a point counts, where a sample before it belongs; else 0."""
        start = point.start_time_unix_nano // 1_000_000
        match self.temporality:
            case Temporality.DELTA if point.start_time_unix_nano < point.time_unix_nano:
                # At least a millisecond, or the growth of a shorter interval had nothing to be seen against.
                return min(start, timestamp_ms - 1) if start else 0
            case Temporality.CUMULATIVE if self.into.settings.created_timestamp_zero_ingestion:
                return start if timestamp_ms - START_WITHIN_MS <= start < timestamp_ms else 0
        return 0

    def add_exemplars(self, point, row_of: Callable[[float], int]) -> None:
        """Add a point's exemplars, each to the row that `row_of` gives for its value."""
        for exemplar in point.exemplars:
            value = float(exemplar.as_int) if exemplar.HasField("as_int") else exemplar.as_double
            timestamp_ms = exemplar.time_unix_nano // 1_000_000
            self.into.rows.exemplars.append((row_of(value), timestamp_ms, value, _exemplar_labels(exemplar)))


def _exemplar_labels(exemplar: pb.Exemplar) -> bytes:
    """Return label bytes: trace and span, and attributes if they fit."""
    labels = {
        name: value.hex()
        for name, value in (("trace_id", exemplar.trace_id), ("span_id", exemplar.span_id))
        if any(value)
    }
    attributes = [(pair.key, value_text(pair.value)) for pair in exemplar.filtered_attributes]
    if sum(len(name) + len(value) for name, value in (*labels.items(), *attributes)) <= MAX_EXEMPLAR_RUNES:
        labels |= {name: value for name, value in attributes if value}
    return encode_label_bytes(labels)


def _gauge(series: _Series, number: int, point: pb.NumberDataPoint) -> None:
    _number(series, number, point, counter=False)


def _counter(series: _Series, number: int, point: pb.NumberDataPoint) -> None:
    row = _number(series, number, point, counter=True)
    series.add_exemplars(point, lambda value: row)


def _up_down(series: _Series, number: int, point: pb.NumberDataPoint) -> None:
    row = _number(series, number, point, counter=False)
    series.add_exemplars(point, lambda value: row)


def _number(series: _Series, number: int, point: pb.NumberDataPoint, *, counter: bool) -> int:
    timestamp_ms = point.time_unix_nano // 1_000_000
    value = float(point.as_int) if point.HasField("as_int") else point.as_double
    return series.into.rows.add(
        series.labels.of(point.attributes).named(series.pair),
        number,
        timestamp_ms,
        value,
        stale=bool(point.flags & _STALE_FLAG),
        start_ms=series.start_ms(point, timestamp_ms) if counter else 0,
        delta=series.delta,
    )


def _classic_histogram(series: _Series, number: int, point: pb.HistogramDataPoint) -> None:
    labels = series.labels.of(point.attributes)
    timestamp_ms, count = point.time_unix_nano // 1_000_000, float(point.count)
    sets, values = [labels.named(series.count)], [count]
    if point.HasField("sum"):
        sets.insert(0, labels.named(series.sum))
        values.insert(0, point.sum)
    before = len(sets)
    bounds = list(point.explicit_bounds)[: len(point.bucket_counts)]
    sets += [labels.named_with(series.bucket, "le", pair) for pair in series.les(bounds)]
    values += map(float, itertools.accumulate(point.bucket_counts[: len(bounds)]))
    sets.append(labels.named_with(series.bucket, "le", _INFINITE_LE))
    values.append(count)
    first = series.into.rows.add_all(
        sets,
        number,
        timestamp_ms,
        values,
        stale=bool(point.flags & _STALE_FLAG),
        start_ms=series.start_ms(point, timestamp_ms),
        delta=series.delta,
    )
    series.add_exemplars(point, lambda value: first + before + bisect.bisect_left(bounds, value))


def _custom_histogram(series: _Series, number: int, point: pb.HistogramDataPoint) -> None:
    gauge, stale = series.temporality is Temporality.RAW_DELTA, bool(point.flags & _STALE_FLAG)
    _native(series, number, point, from_explicit(point, gauge=gauge, stale=stale))


def _exponential(series: _Series, number: int, point: pb.ExponentialHistogramDataPoint) -> None:
    gauge, stale = series.temporality is Temporality.RAW_DELTA, bool(point.flags & _STALE_FLAG)
    _native(series, number, point, from_exponential(point, gauge=gauge, stale=stale))


def _native(series: _Series, number: int, point, histogram) -> None:
    timestamp_ms = point.time_unix_nano // 1_000_000
    row = series.into.rows.add_histogram(
        series.labels.of(point.attributes).named(series.pair),
        number,
        timestamp_ms,
        histogram,
        start_ms=series.start_ms(point, timestamp_ms),
        delta=series.delta,
    )
    series.add_exemplars(point, lambda value: row)


def _summary(series: _Series, number: int, point: pb.SummaryDataPoint) -> None:
    labels, rows = series.labels.of(point.attributes), series.into.rows
    timestamp_ms, stale = point.time_unix_nano // 1_000_000, bool(point.flags & _STALE_FLAG)
    start_ms = series.start_ms(point, timestamp_ms)
    for pair, value in ((series.sum, point.sum), (series.count, float(point.count))):
        rows.add(labels.named(pair), number, timestamp_ms, value, stale=stale, start_ms=start_ms)
    for at in point.quantile_values:
        pair = label_pair("quantile", format_plain(at.quantile))
        label_bytes = labels.named_with(series.pair, "quantile", pair)
        rows.add(label_bytes, number, timestamp_ms, at.value, stale=stale)


def _converter(settings: OtlpSettings, metric: pb.Metric, kind: str) -> Callable[[_Series, int, object], None]:
    match kind:
        case "gauge":
            return _gauge
        case "sum":
            return _counter if metric.sum.is_monotonic else _up_down
        case "summary":
            return _summary
        case "exponential_histogram":
            return _exponential
    return _custom_histogram if settings.convert_histograms_to_nhcb else _classic_histogram
