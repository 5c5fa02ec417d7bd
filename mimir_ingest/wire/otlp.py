"""OTLP metrics: a decompressed body to columns.

Each resource's points become series, and one `target_info` more that says what else is known of the resource.
Source: spec ingest-storage 8.9. A cold path beside remote write: the protobuf library decodes, label sets that repeat
are made once, and everything goes into columns at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics

from mimir_ingest.model.batch import MetadataColumns
from mimir_ingest.wire.data_points import DataPoints
from mimir_ingest.wire.otlp_body import parse_protobuf
from mimir_ingest.wire.otlp_json import parse_json
from mimir_ingest.wire.otlp_labels import OtlpSettings, PointLabels, attribute_texts, info_labels, name_pair
from mimir_ingest.wire.otlp_names import UnusableName
from mimir_ingest.wire.otlp_points import Conversion, convert_metric, points_of
from mimir_ingest.wire.remote_write_v1 import DecodedWrite

INFO_INTERVAL_NS = 150_000_000_000
"""Between samples of `target_info`. why: half of the lookback, so that a query finds one at every time."""

MAX_INFO_SAMPLES = 100_000
"""Samples of `target_info` in a request, besides the newest of each resource. why: two points that lie years apart ask
for millions; those nearest to the newest point stay."""

_MAX_ERROR_BYTES = 1024


def decode(body: bytes, settings: OtlpSettings, *, json: bool) -> DecodedWrite:
    """Decode an `ExportMetricsServiceRequest`. The caller has bounded its size.

    Raises
    ------
    InvalidRequest
        The body is none. Metrics that cannot be converted are no such error: `DataPoints` tells of them.
    """
    request = parse_json(body) if json else parse_protobuf(body)
    into = Conversion(settings)
    left = MAX_INFO_SAMPLES
    for resource_metrics in request.resource_metrics:
        left -= _add_resource(into, resource_metrics, left)
    batch = into.rows.batch(_metadata(into.metadata))
    return DecodedWrite(
        batch,
        batch.exemplar_count,
        batch.histogram_count,
        False,
        False,
        into.rows.histogram_facts(),
        DataPoints(
            np.array(into.rows.points, np.int64),
            into.received,
            into.unconverted,
            into.unconverted_metrics,
            _joined(into.errors) if into.errors else None,
            _array_lengths(request),
        ),
    )


def _array_lengths(request: ExportMetricsServiceRequest) -> dict[str, list[int]]:
    resources = request.resource_metrics
    return {
        "resource_metrics": [len(resources)],
        "scope_metrics": [len(one.scope_metrics) for one in resources],
        "metrics": [len(scope.metrics) for one in resources for scope in one.scope_metrics],
    }


def _add_resource(into: Conversion, resource_metrics: ResourceMetrics, most: int) -> int:
    """Add a resource's series; return how many samples of `target_info` but the newest it took, at most `most`."""
    resource = attribute_texts(resource_metrics.resource.attributes)
    times: list[int] = []
    for scope_metrics in resource_metrics.scope_metrics:
        labels: PointLabels | UnusableName
        try:
            labels = PointLabels(into.settings, resource, scope_metrics.scope, scope_metrics.schema_url)
        except UnusableName as error:
            labels = error
        for metric in scope_metrics.metrics:
            kind, points = points_of(metric)
            if points:
                of_metric = [point.time_unix_nano for point in points]
                times += (min(of_metric), max(of_metric))
            if isinstance(labels, UnusableName):
                into.received += len(points)
                into.unconverted += len(points)
                into.fail(labels)
            else:
                convert_metric(into, metric, kind, points, labels)
    if not times:
        return 0
    try:
        info = info_labels(into.settings, resource)
    except UnusableName as error:
        into.errors.setdefault(str(error))
        return 0
    if info is None:
        return 0
    at = _info_times_ms(min(times), max(times), most)
    into.rows.add_ones(info.named(name_pair("target_info")), at)
    return len(at) - 1


def _info_times_ms(earliest_ns: int, latest_ns: int, most: int) -> Sequence[int]:
    """Return the times of `target_info`: from the earliest point on, and the latest; of many the last `most`."""
    skipped = max(-((earliest_ns - latest_ns) // INFO_INTERVAL_NS) - most, 0)
    spaced = range(earliest_ns + skipped * INFO_INTERVAL_NS, latest_ns, INFO_INTERVAL_NS)
    return [ns // 1_000_000 for ns in (*spaced, latest_ns)]


def _joined(errors: Iterable[str]) -> str:
    """Return Mimir's text, at most 1024 bytes of it."""
    text = "otlp parse error: " + "\n".join(errors)
    return text.encode()[:_MAX_ERROR_BYTES].decode("utf-8", "ignore")


def _metadata(items: Iterable[tuple[int, str, str, str]]) -> MetadataColumns:
    items = list(items)
    strings = [text.encode() for item in items for text in item[1:]]
    offsets = np.cumsum([0, *map(len, strings)], dtype=np.int64)
    types = np.array([item[0] for item in items], np.uint8)
    return MetadataColumns(types, np.frombuffer(b"".join(strings), np.uint8), offsets)
