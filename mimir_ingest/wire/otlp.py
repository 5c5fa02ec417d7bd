"""OTLP metrics: a decompressed body to columns.

Each resource's points become series, and one `target_info` more that says what else is known of the resource. The
request is read into tables (`otlp_tables`), JSON as protobuf (`otlp_json`); metrics are judged one by one, data points
in columns. Source: spec ingest-storage 8.9.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from mimir_ingest.model.histograms import Histograms
from mimir_ingest.model.labels import METRIC_NAME, encode_label_bytes
from mimir_ingest.wire.data_points import DataPoints
from mimir_ingest.wire.otlp_exemplars import check_ids
from mimir_ingest.wire.otlp_histograms import Natives, from_explicit, from_exponential
from mimir_ingest.wire.otlp_json import transcode
from mimir_ingest.wire.otlp_labels import OtlpSettings, PointLabels, attribute_texts, info_labels
from mimir_ingest.wire.otlp_names import UnusableName
from mimir_ingest.wire.otlp_points import (
    EXPONENTIALS,
    SUMMARIES,
    AddedPairs,
    Metrics,
    PointTimes,
    Temporality,
    Values,
    classic_values,
    judge_metrics,
    number_values,
    point_times,
    summary_values,
)
from mimir_ingest.wire.otlp_rows import TargetInfo, make_batch
from mimir_ingest.wire.otlp_sets import label_sets
from mimir_ingest.wire.otlp_tables import RequestTables, read_request
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
    tables = read_request(transcode(body) if json else body)
    check_ids(tables)
    points = tables.points
    resources = _resources(tables)
    scopes = _scope_labels(tables, settings, resources)
    metrics = judge_metrics(tables, settings, scopes)
    times = point_times(tables, metrics, settings)
    sets, shape_of, refused = label_sets(tables, scopes, metrics.usable[points.metric])
    values, natives, errors = _converted(tables, metrics, times, settings, shape_of, refused)
    infos, info_errors = _target_infos(tables, settings, resources, times)
    batch, point_of, facts = make_batch(tables, metrics, times, sets, values, natives, infos)
    texts = _joined(_texts(tables, metrics, errors, info_errors))
    made = len(natives.points) + sum(len(one.points) for one in values)
    return DecodedWrite(
        batch,
        batch.exemplar_count,
        batch.histogram_count,
        False,
        False,
        facts,
        DataPoints(
            point_of,
            len(points.number),
            len(points.number) - made,
            len(metrics.errors),
            texts,
            _array_lengths(tables),
        ),
    )


def _resources(tables: RequestTables) -> list[dict[str, str]]:
    """Return the attributes of each resource."""
    offsets = tables.attribute_offsets[0].tolist()
    return [attribute_texts(tables.attributes.pairs(a, b)) for a, b in itertools.pairwise(offsets)]


def _scope_labels(
    tables: RequestTables, settings: OtlpSettings, resources: Sequence[dict[str, str]]
) -> list[PointLabels | UnusableName]:
    """Return what the labels of each scope's data points have alike."""
    offsets, string = tables.attribute_offsets[1].tolist(), tables.string
    labels: list[PointLabels | UnusableName] = []
    rows = zip(
        tables.scope_resources.tolist(),
        tables.scopes.rows.tolist(),
        tables.schema_urls.tolist(),
        itertools.pairwise(offsets),
        strict=True,
    )
    for resource, places, schema_url, attributes in rows:
        scope = (string(*places[:2]), string(*places[2:]), string(*schema_url))
        try:
            labels.append(PointLabels(settings, resources[resource], scope, tables.attributes.pairs(*attributes)))
        except UnusableName as error:
            labels.append(error)
    return labels


def _converted(
    tables: RequestTables,
    metrics: Metrics,
    times: PointTimes,
    settings: OtlpSettings,
    shape_of: np.ndarray,
    refused: dict[int, UnusableName],
) -> tuple[list[Values], Natives, dict[int, Exception]]:
    """Return what data points become, and why others cannot become anything, by data point."""
    points = tables.points
    errors: dict[int, Exception] = {
        point: refused[int(shape_of[point])] for point in np.flatnonzero(np.isin(shape_of, list(refused))).tolist()
    }
    labelled = shape_of >= 0
    labelled[list(errors)] = False
    numbers, explicit, exponential, summaries = (
        np.flatnonzero(labelled[a:b]) + a for a, b in itertools.pairwise(points.bounds)
    )
    added = AddedPairs(metrics.pairs)
    values = [number_values(points, metrics, numbers)] if len(numbers) else []
    natives = Natives(np.empty(0, np.int64), Histograms.empty())
    gauges = metrics.temporality[points.metric] == Temporality.RAW_DELTA
    if points.bounds[EXPONENTIALS] < points.bounds[SUMMARIES]:
        at = np.arange(points.bounds[EXPONENTIALS], points.bounds[SUMMARIES])
        at = at[metrics.usable[points.metric[at]]]
        natives, unusable = from_exponential(tables, at, gauges[at], times.stale[at])
        kept = np.flatnonzero(np.isin(natives.points, exponential))
        if len(kept) < len(natives.points):
            natives = Natives(natives.points[kept], natives.values.take(kept))
        errors |= unusable
    if len(explicit) and settings.convert_histograms_to_nhcb:
        natives = natives.joined(from_explicit(tables, explicit, gauges[explicit], times.stale[explicit]))
    elif len(explicit):
        values.append(classic_values(tables, metrics, explicit, added))
    if len(summaries):
        values.append(summary_values(tables, metrics, summaries, added))
    return values, natives, errors


def _target_infos(
    tables: RequestTables, settings: OtlpSettings, resources: Sequence[dict[str, str]], times: PointTimes
) -> tuple[list[TargetInfo], dict[int, UnusableName]]:
    """Return the series `target_info` of all resources that have one, and why others have none, by resource."""
    resource = tables.scope_resources[tables.metric_scopes[tables.points.metric]]
    earliest = np.full(len(resources), np.iinfo(np.uint64).max, np.uint64)
    latest = np.zeros(len(resources), np.uint64)
    np.minimum.at(earliest, resource, times.ns)
    np.maximum.at(latest, resource, times.ns)
    infos: list[TargetInfo] = []
    errors: dict[int, UnusableName] = {}
    left = MAX_INFO_SAMPLES
    for number in np.unique(resource).tolist():
        try:
            labels = info_labels(settings, resources[number])
        except UnusableName as error:
            errors[number] = error
            continue
        if labels is not None:
            at = _info_times_ms(int(earliest[number]), int(latest[number]), left)
            left -= len(at) - 1
            before = encode_label_bytes({name: value for name, value in labels.items() if name < METRIC_NAME})
            behind = encode_label_bytes({name: value for name, value in labels.items() if name > METRIC_NAME})
            infos.append(TargetInfo(number, before + behind, len(before), at))
    return infos, errors


def _texts(
    tables: RequestTables, metrics: Metrics, errors: dict[int, Exception], info_errors: dict[int, UnusableName]
) -> list[str]:
    """Return why data points could not be converted, each text once, in the order of the request.

    Of a metric the first data point's reason counts; it is noted with the metric's errors.
    """
    for point in sorted(errors, key=lambda point: tables.points.number[point]):
        metrics.errors.setdefault(int(tables.points.metric[point]), errors[point])
    resource_of = tables.scope_resources[tables.metric_scopes]
    found = [(int(resource_of[metric]), 0, metric, str(error)) for metric, error in metrics.errors.items()]
    found += [(resource, 1, 0, str(error)) for resource, error in info_errors.items()]
    return list(dict.fromkeys(text for *_, text in sorted(found)))


def _array_lengths(tables: RequestTables) -> dict[str, list[int]]:
    return {
        "resource_metrics": [tables.resource_count],
        "scope_metrics": np.bincount(tables.scope_resources, minlength=tables.resource_count).tolist(),
        "metrics": np.bincount(tables.metric_scopes, minlength=len(tables.scope_resources)).tolist(),
    }


def _info_times_ms(earliest_ns: int, latest_ns: int, most: int) -> Sequence[int]:
    """Return the times of `target_info`: from the earliest point on, and the latest; of many the last `most`."""
    skipped = max(-((earliest_ns - latest_ns) // INFO_INTERVAL_NS) - most, 0)
    spaced = range(earliest_ns + skipped * INFO_INTERVAL_NS, latest_ns, INFO_INTERVAL_NS)
    return [ns // 1_000_000 for ns in (*spaced, latest_ns)]


def _joined(errors: Sequence[str]) -> str | None:
    """Return Mimir's text, at most 1024 bytes of it; None without errors."""
    if not errors:
        return None
    text = "otlp parse error: " + "\n".join(errors)
    return text.encode()[:_MAX_ERROR_BYTES].decode("utf-8", "ignore")
