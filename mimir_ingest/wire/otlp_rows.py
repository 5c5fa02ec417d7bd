"""The batch of an OTLP request: rows of its data points in the order of the request, `target_info` behind a resource's.

A row is a series, of a data point with one sample. Source: spec ingest-storage 8.9 ("Types").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mimir_ingest.kernels.hashing import xxh64_spans
from mimir_ingest.model.batch import SOURCE_OTLP, STALE_NAN_BITS, MetadataColumns, WriteBatch
from mimir_ingest.model.exemplars import Exemplars
from mimir_ingest.model.histograms import HistogramSamples
from mimir_ingest.wire.histograms import HistogramFacts
from mimir_ingest.wire.otlp_exemplars import read_exemplars
from mimir_ingest.wire.otlp_histograms import Natives
from mimir_ingest.wire.otlp_labels import name_pair
from mimir_ingest.wire.otlp_points import Metrics, PointTimes, Values, runs
from mimir_ingest.wire.otlp_sets import LabelSets
from mimir_ingest.wire.otlp_tables import SUM, Points, RequestTables, bounds_of

_INFO_PAIR = name_pair("target_info")


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """The series `target_info` of a resource."""

    resource: int
    labels: bytes
    """Label bytes without the name."""
    name_at: int
    """Where the name goes in them."""
    timestamps_ms: Sequence[int]


@dataclass(slots=True, eq=False)
class Layout:
    """Which rows each data point and resource has."""

    first: np.ndarray
    """int64[points]: first row of each."""
    infos: np.ndarray
    """int64[infos]: row of each `target_info`."""
    rows: int


def lay_out(tables: RequestTables, sizes: np.ndarray, infos: Sequence[TargetInfo]) -> Layout:
    """Return the rows of data points that have `sizes` (int64[points]) of them, and of `target_info`."""
    points = tables.points
    n = len(sizes)
    resource = tables.scope_resources[tables.metric_scopes[points.metric]]
    in_order = np.empty(n + 1, np.int64)
    in_order[points.number] = sizes
    in_order[n] = 0
    before = np.cumsum(in_order) - in_order
    has_info = np.zeros(tables.resource_count, np.int64)
    has_info[[info.resource for info in infos]] = 1
    infos_before = np.cumsum(has_info) - has_info
    ends = np.zeros(tables.resource_count, np.int64)
    np.add.at(ends, resource, sizes)
    at = np.cumsum(ends) + infos_before
    return Layout(
        before[points.number] + infos_before[resource],
        at[[info.resource for info in infos]],
        int(sizes.sum()) + len(infos),
    )


@dataclass(slots=True, eq=False)
class _Rows:
    """Columns of rows, and of their samples."""

    set_of: np.ndarray
    name_of: np.ndarray
    added: np.ndarray
    point_of: np.ndarray
    sizes: np.ndarray
    """int64[rows]: float samples."""
    deltas: np.ndarray

    @classmethod
    def empty(cls, rows: int) -> _Rows:
        """Return rows of nothing."""
        return cls(*(np.full(rows, -1, np.int64) for _ in range(4)), np.zeros(rows, np.int64), np.zeros(rows, bool))

    def fill(
        self,
        at: np.ndarray,
        of: np.ndarray,
        points: Points,
        times: PointTimes,
        name_of: np.ndarray,
        added: np.ndarray | int,
    ) -> None:
        """Fill the rows `at` of the data points `of` (int64[k] each)."""
        self.set_of[at], self.point_of[at], self.deltas[at] = of, points.number[of], times.deltas[of]
        self.name_of[at], self.added[at] = name_of, added


def make_batch(
    tables: RequestTables,
    metrics: Metrics,
    times: PointTimes,
    sets: LabelSets,
    values: Sequence[Values],
    natives: Natives,
    infos: Sequence[TargetInfo],
) -> tuple[WriteBatch, np.ndarray, HistogramFacts | None]:
    """Return the batch, the data point of each row (int64[rows], -1 for none), and facts about native histograms."""
    points = tables.points
    n = len(points.number)
    sizes = np.zeros(n, np.int64)
    for one in values:
        sizes[one.points] = one.sizes
    sizes[natives.points] = 1
    layout = lay_out(tables, sizes, infos)
    rows = _Rows.empty(layout.rows)
    places = []
    for one in values:
        of, place, _ = runs(one.sizes)
        at = layout.first[one.points][of] + place
        rows.fill(at, one.points[of], points, times, one.name_of, one.added)
        rows.sizes[at] = 1
        places.append((one, of, at))
    at = layout.first[natives.points]
    rows.fill(at, natives.points, points, times, metrics.first_pair[points.metric[natives.points]], -1)
    pairs = [*metrics.pairs, _INFO_PAIR] if infos else metrics.pairs
    rows.set_of[layout.infos], rows.name_of[layout.infos] = n + np.arange(len(infos)), len(pairs) - 1
    rows.sizes[layout.infos] = [len(info.timestamps_ms) for info in infos]
    sample_offsets = bounds_of(rows.sizes)
    timestamps, starts = np.zeros((2, sample_offsets[-1]), np.int64)
    floats = np.ones(sample_offsets[-1])
    for one, of, at in places:
        sample, point = sample_offsets[at], one.points[of]
        timestamps[sample] = times.ms[point]
        starts[sample] = np.where(one.counting, times.starts[point], 0)
        floats[sample] = one.values
        floats.view(np.uint64)[sample[times.stale[point]]] = STALE_NAN_BITS
    for info, row in zip(infos, layout.infos.tolist(), strict=True):
        timestamps[sample_offsets[row] : sample_offsets[row + 1]] = info.timestamps_ms
    labels, label_offsets = sets.extended([(info.labels, info.name_at) for info in infos]).rows(
        pairs, rows.set_of, rows.name_of, rows.added
    )
    hashes = np.empty(layout.rows, np.uint64)
    xxh64_spans(labels, label_offsets, hashes)
    histograms, facts = _histograms(natives, layout, times)
    batch = WriteBatch(
        labels,
        label_offsets,
        hashes,
        sample_offsets,
        timestamps,
        floats,
        _metadata(metrics.metadata),
        SOURCE_OTLP,
        histograms,
        _exemplars(tables, values, natives, layout),
        starts if starts.any() else None,
        rows.deltas if rows.deltas.any() else None,
    )
    return batch, rows.point_of, facts


def _histograms(
    natives: Natives, layout: Layout, times: PointTimes
) -> tuple[HistogramSamples | None, HistogramFacts | None]:
    if not len(natives.points):
        return None, None
    rows = layout.first[natives.points]
    order = np.argsort(rows)
    if (order[1:] < order[:-1]).any():
        natives = Natives(natives.points[order], natives.values.take(order))
    starts = times.starts[natives.points]
    samples = HistogramSamples(
        bounds_of(np.bincount(rows, minlength=layout.rows)),
        times.ms[natives.points],
        natives.values,
        starts if starts.any() else None,
    )
    return samples, natives.facts()


def _exemplars(tables: RequestTables, values: Sequence[Values], natives: Natives, layout: Layout) -> Exemplars | None:
    """Return the exemplars: of sums, of native histograms, of the buckets of classic ones."""
    points = tables.points
    if not len(points.exemplar_points):
        return None
    first = np.full(len(points.number), -1, np.int64)
    first[natives.points] = layout.first[natives.points]
    bounds: dict[int, np.ndarray] = {}
    for one in values:
        at = layout.first[one.points]
        if one.bounds is not None:
            offsets = one.bounds.offsets
            # Behind the buckets with bounds there is that of infinity.
            first[one.points] = at + one.sizes - np.diff(offsets) - 1
            for i in np.flatnonzero(np.isin(one.points, points.exemplar_points)).tolist():
                bounds[int(one.points[i])] = one.bounds.values[offsets[i] : offsets[i + 1]]
        else:
            counted = tables.metrics[points.metric[one.points], 0] == SUM
            first[one.points[counted]] = at[counted]
    return read_exemplars(tables, first, bounds.get, layout.rows)


def _metadata(items: Iterable[tuple[int, str, str, str]]) -> MetadataColumns:
    items = list(items)
    strings = [text.encode() for item in items for text in item[1:]]
    types = np.array([item[0] for item in items], np.uint8)
    sizes = np.array([len(text) for text in strings], np.int64)
    return MetadataColumns(types, np.frombuffer(b"".join(strings), np.uint8), bounds_of(sizes))
