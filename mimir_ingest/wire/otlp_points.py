"""OTLP data points to rows: series with a sample each. Source: spec ingest-storage 8.9 ("Types", "Start time").

Data points are in the order of `otlp_tables.Points`, one kind after another; rows in the order of the request.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mimir_ingest.model.numbers import format_plain
from mimir_ingest.wire.otlp_labels import OtlpSettings, label_pair, name_pair
from mimir_ingest.wire.otlp_names import UnusableName, unit_name
from mimir_ingest.wire.otlp_tables import (
    COUNT,
    EXPONENTIAL,
    FLAGS,
    GAUGE,
    MARKED,
    START,
    SUM,
    SUMMARY,
    TIME,
    VALUE,
    Lists,
    Points,
    RequestTables,
    bounds_of,
    read_doubles,
    read_quantiles,
)

_UNKNOWN_TYPE, _COUNTER_TYPE, _GAUGE_TYPE, _HISTOGRAM_TYPE, _SUMMARY_TYPE = 0, 1, 2, 3, 5
"""Metadata types, by number (model.batch.METRIC_TYPES)."""

START_WITHIN_MS = 300_000
"""A start that lies further before its sample does not become a zero."""

_STALE_FLAG = 1
_STATED_DELTA, _STATED_CUMULATIVE = 1, 2
_AS_INT, _SUM_FIELD = 6, 5
_MS = np.uint64(1_000_000)

NUMBERS, HISTOGRAMS, EXPONENTIALS, SUMMARIES = range(4)
"""Kinds of data points."""


class Temporality(enum.IntEnum):
    """What becomes of a metric's data points."""

    CUMULATIVE = 0
    DELTA = 1
    """Added up where they are stored."""
    RAW_DELTA = 2
    """Stored as they are."""


class UnusableMetric(ValueError):
    """A metric of which no data point can be converted."""


@dataclass(slots=True)
class Metrics:
    """What was found out about each metric of a request."""

    usable: np.ndarray
    """bool[n]."""
    temporality: np.ndarray
    """int64[n]: Temporality."""
    first_pair: np.ndarray
    """int64[n]: first of the metric's pairs of `__name__`: of its sum, count and buckets, as far as it has them."""
    pairs: list[bytes] = field(default_factory=list)
    errors: dict[int, Exception] = field(default_factory=dict)
    """By metric."""
    metadata: dict[tuple[int, str, str, str], None] = field(default_factory=dict)
    """(type, family, help, unit), each once."""


_ENDINGS = {GAUGE: ("",), SUM: ("",), EXPONENTIAL: ("",), SUMMARY: ("", "_sum", "_count")}
_CLASSIC, _CUSTOM = ("_sum", "_count", "_bucket"), ("",)


def judge_metrics(tables: RequestTables, settings: OtlpSettings, scopes: Sequence[object]) -> Metrics:
    """Judge the metrics of a request; those of a scope that is an UnusableName are not usable."""
    n = len(tables.metrics)
    made = Metrics(np.zeros(n, bool), np.zeros(n, np.int64), np.zeros(n, np.int64))
    sizes = np.bincount(tables.points.metric, minlength=n).tolist()
    rows = zip(
        tables.metrics.tolist(),
        tables.metric_scopes.tolist(),
        tables.temporality.tolist(),
        tables.monotonic.tolist(),
        sizes,
        strict=True,
    )
    string = tables.string
    for number, ((kind, *places), scope, stated, monotonic, size) in enumerate(rows):
        name, unit = string(*places[:2]), string(*places[4:])
        try:
            if isinstance(scopes[scope], UnusableName):
                raise scopes[scope]
            temporality = _temporality(settings, name, kind, stated)
            family, metadata_type = _named(settings, name, unit, kind, kind == SUM and monotonic)
            if not size:
                raise UnusableMetric(f"empty data points. {name} is dropped")
        except (UnusableMetric, UnusableName) as error:
            made.errors[number] = error
            continue
        if temporality is Temporality.RAW_DELTA:
            metadata_type = _UNKNOWN_TYPE
        made.usable[number], made.temporality[number] = True, temporality
        made.metadata.setdefault((metadata_type, family, string(*places[2:4]), unit_name(unit)))
        made.first_pair[number] = len(made.pairs)
        endings = _ENDINGS.get(kind) or (_CUSTOM if settings.convert_histograms_to_nhcb else _CLASSIC)
        made.pairs += [name_pair(family + ending) for ending in endings]
    return made


def _temporality(settings: OtlpSettings, name: str, kind: int, stated: int) -> Temporality:
    """Return what becomes of a metric's temporality. Raises UnusableMetric."""
    if kind in (GAUGE, SUMMARY) or (kind and stated == _STATED_CUMULATIVE):
        return Temporality.CUMULATIVE
    if not kind:
        raise UnusableMetric(
            f"could not get aggregation temporality for {name} as it has unsupported metric type Empty"
        )
    if stated == _STATED_DELTA and settings.native_delta_ingestion:
        return Temporality.RAW_DELTA
    if stated == _STATED_DELTA and settings.accumulate_deltas:
        return Temporality.DELTA
    raise UnusableMetric(f'invalid temporality and type combination for metric "{name}"')


def _named(settings: OtlpSettings, name: str, unit: str, kind: int, counter: bool) -> tuple[str, int]:
    """Return the name of a metric's series, and the type for its metadata. Raises UnusableName."""
    name_kind = "counter" if counter else "gauge" if kind == GAUGE else "other"
    known = {GAUGE: _GAUGE_TYPE, SUM: _COUNTER_TYPE if counter else _GAUGE_TYPE, SUMMARY: _SUMMARY_TYPE}
    return settings.metric_name(name, unit, name_kind), known.get(kind, _HISTOGRAM_TYPE)


@dataclass(slots=True, eq=False)
class PointTimes:
    """Times and flags of all data points."""

    ns: np.ndarray
    """uint64[n]."""
    ms: np.ndarray
    """int64[n]."""
    starts: np.ndarray
    """int64[n] (ms): from when on a point counts, where a sample before it belongs; else 0."""
    stale: np.ndarray
    deltas: np.ndarray
    """bool[n]: staleness markers; to be added up."""


def point_times(tables: RequestTables, metrics: Metrics, settings: OtlpSettings) -> PointTimes:
    """Return times and flags of all data points."""
    points = tables.points
    ns = points.column(TIME).view(np.uint64)
    start_ns = points.column(START).view(np.uint64)
    ms, starts = (ns // _MS).astype(np.int64), (start_ns // _MS).astype(np.int64)
    temporality = metrics.temporality[points.metric]
    deltas = temporality == Temporality.DELTA
    # At least a millisecond, or the growth of a shorter interval had nothing to be seen against.
    of_deltas = np.where((start_ns < ns) & (starts > 0), np.minimum(starts, ms - 1), 0)
    begun = (temporality == Temporality.CUMULATIVE) & settings.created_timestamp_zero_ingestion
    begun &= (ms - START_WITHIN_MS <= starts) & (starts < ms)
    starts = np.where(deltas, of_deltas, np.where(begun, starts, 0))
    numbers = slice(0, points.bounds[1])
    of_numbers = points.metric[numbers]
    counters = (tables.metrics[of_numbers, 0] == SUM) & tables.monotonic[of_numbers]
    starts[numbers][~counters] = 0
    return PointTimes(ns, ms, starts, points.column(FLAGS) & _STALE_FLAG != 0, deltas)


@dataclass(slots=True, eq=False)
class Values:
    """What the rows of some data points of one kind hold; arrays of n points, or of their rows back to back."""

    points: np.ndarray
    """int64[n]."""
    sizes: np.ndarray
    """int64[n]: rows of each."""
    values: np.ndarray
    """float64[rows]."""
    name_of: np.ndarray
    added: np.ndarray
    """int64[rows]: pair of each row's name, and of the label that it adds or -1."""
    counting: np.ndarray
    """bool[rows]: whether the point's start is the row's."""
    bounds: Lists | None = None
    """Bounds of the buckets of a classic histogram's points."""


def number_values(points: Points, metrics: Metrics, chosen: np.ndarray) -> Values:
    """Return the values of gauges and sums, `chosen` (int64[n]) among all data points."""
    rows = points.tables[NUMBERS].rows[chosen]
    bits = np.ascontiguousarray(rows[:, VALUE])
    values = np.where(rows[:, MARKED] == _AS_INT, bits.astype(np.float64), bits.view(np.float64))
    n = len(chosen)
    names = metrics.first_pair[points.metric[chosen]]
    return Values(chosen, np.ones(n, np.int64), values, names, np.full(n, -1), np.ones(n, bool))


def _floats(table_rows: np.ndarray, column: int) -> np.ndarray:
    """Return a column of float64 bits."""
    return np.ascontiguousarray(table_rows[:, column]).view(np.float64)


def counts_of(table_rows: np.ndarray, column: int) -> np.ndarray:
    """Return a column of uint64 as float64[n]."""
    return np.ascontiguousarray(table_rows[:, column]).view(np.uint64).astype(np.float64)


def runs(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each entry's run, its place in it, and where runs begin (int64[n + 1]), of runs of these sizes."""
    bounds = bounds_of(sizes)
    of = np.repeat(np.arange(len(sizes)), sizes)
    return of, np.arange(bounds[-1]) - bounds[of], bounds


class AddedPairs:
    """Pairs of labels that rows add, behind those of names."""

    def __init__(self, pairs: list[bytes]) -> None:
        self._pairs = pairs

    def of(self, label: str, numbers: np.ndarray) -> np.ndarray:
        """Return the pair of each number (int64[n])."""
        distinct, which = np.unique(np.ascontiguousarray(numbers).view(np.uint64), return_inverse=True)
        begin = len(self._pairs)
        self._pairs += [_number_pair(label, number) for number in distinct.view(np.float64).tolist()]
        return begin + which


@functools.lru_cache(10_000)
def _number_pair(label: str, number: float) -> bytes:
    return label_pair(label, format_plain(number))


def classic_values(tables: RequestTables, metrics: Metrics, chosen: np.ndarray, added: AddedPairs) -> Values:
    """Return the values of classic histograms: sum, where there is one, count, and buckets."""
    points = tables.points
    places = chosen - points.bounds[HISTOGRAMS]
    table = points.tables[HISTOGRAMS]
    rows = table.rows[places]
    counts, bounds = histogram_lists(tables)
    has_sum = (rows[:, MARKED] == _SUM_FIELD).astype(np.int64)
    begins, bound_begins = counts.offsets[places], bounds.offsets[places]
    buckets = np.minimum(counts.offsets[places + 1] - begins, bounds.offsets[places + 1] - bound_begins)
    sizes = has_sum + buckets + 2
    of, place, at = runs(sizes)
    first_pair = metrics.first_pair[points.metric[chosen]]
    values, pairs = counts_of(rows, COUNT)[of], np.full(len(of), -1)
    names = first_pair[of] + 2
    summed = at[:-1][has_sum > 0]
    values[summed] = _floats(rows, VALUE)[has_sum > 0]
    names[summed] -= 2
    names[at[:-1] + has_sum] -= 1
    bucket = place - has_sum[of] - 1
    of_bucket = (bucket >= 0) & (bucket < buckets[of])
    held, number = of[of_bucket], bucket[of_bucket]
    sums = np.zeros(len(counts.values) + 1, np.uint64)
    np.cumsum(counts.values, out=sums[1:])
    values[of_bucket] = (sums[begins[held] + number + 1] - sums[begins[held]]).astype(np.float64)
    own = bounds.values[bound_begins[held] + number]
    pairs[of_bucket] = added.of("le", own)
    pairs[at[1:] - 1] = added.of("le", np.full(len(chosen), np.inf))
    return Values(chosen, sizes, values, names, pairs, np.ones(len(of), bool), Lists(own, bounds_of(buckets)))


def histogram_lists(tables: RequestTables) -> tuple[Lists, Lists]:
    """Return the counts (uint64) and bounds (float64) of the explicit histograms' buckets."""
    table = tables.points.tables[HISTOGRAMS]
    counts = read_doubles(tables.data, table.children(6), len(table.rows))
    return Lists(counts.values.view(np.uint64), counts.offsets), read_doubles(
        tables.data, table.children(7), len(table.rows)
    )


def summary_values(tables: RequestTables, metrics: Metrics, chosen: np.ndarray, added: AddedPairs) -> Values:
    """Return the values of summaries: sum, count, and quantiles."""
    points = tables.points
    places = chosen - points.bounds[SUMMARIES]
    table = points.tables[SUMMARIES]
    rows, children = table.rows[places], table.children(6)
    begins = children.offsets(len(table.rows))
    quantiles, held = read_quantiles(tables.data, children)
    sizes = np.diff(begins)[places] + 2
    of, place, at = runs(sizes)
    names = metrics.first_pair[points.metric[chosen]][of]
    values, pairs = np.empty(len(of)), np.full(len(of), -1)
    values[at[:-1]], values[at[:-1] + 1] = _floats(rows, VALUE), counts_of(rows, COUNT)
    names[at[:-1]] += 1
    names[at[:-1] + 1] += 2
    of_quantile = place >= 2
    taken = begins[places[of[of_quantile]]] + place[of_quantile] - 2
    values[of_quantile] = held[taken]
    pairs[of_quantile] = added.of("quantile", quantiles[taken])
    return Values(chosen, sizes, values, names, pairs, ~of_quantile)
