"""The query engine with a storage in memory, as a target of promqltest scripts."""

from __future__ import annotations

import numpy as np

from mimir_ingest.model.histograms import HistogramSamples
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.samples import SeriesSamples
from mimir_ingest.promql.engine import evaluate
from mimir_ingest.promql.parser import parse_expr
from mimir_ingest.promql.plan import plan_query
from mimir_ingest.promql.plan_nodes import Select
from mimir_ingest.promql.values import Matrix, QueryResult, Scalar, String, Vector
from tests.support.native_values import as_stored, to_columns, to_values
from tests.support.promqltest import Answer, Labels, Sample
from tests.support.series_notation import HistogramValue

LOOKBACK_MS = 300_000


class EngineTarget:
    """Holds samples as they come; native histograms are read as a Prometheus would after storing them in chunks."""

    def __init__(self, *, delayed_name_removal: bool = True, type_and_unit_labels: bool = False) -> None:
        self.delayed_name_removal = delayed_name_removal
        self._type_and_unit_labels = type_and_unit_labels
        self._series: dict[tuple[tuple[str, str], ...], dict[int, float | HistogramValue]] = {}
        self._read_back: dict[tuple[tuple[str, str], ...], list[tuple[int, float | HistogramValue]]] = {}

    def clear(self) -> None:
        """Forget all samples."""
        self._series = {}
        self._read_back = {}

    def append(self, labels: Labels, samples: list[Sample]) -> None:
        """Store samples of one series."""
        if samples:
            key = tuple(sorted(labels.items()))
            self._series.setdefault(key, {}).update({s.at_ms: s.value for s in samples})
            self._read_back[key] = _stored(self._series[key])

    def instant(self, expr: str, at_ms: int) -> Answer:
        """Evaluate at one time."""
        return self.answer(expr, self.query(expr, at_ms, at_ms, 0))

    def range(self, expr: str, start_ms: int, end_ms_incl: int, step_ms: int) -> Answer:
        """Evaluate at every step."""
        return self.answer(expr, self.query(expr, start_ms, end_ms_incl, step_ms))

    def query(self, expr: str, start_ms: int, end_ms_incl: int, step_ms: int, **options) -> QueryResult:
        """Plan, read exactly what the plan asks for, and evaluate."""
        plan = plan_query(
            parse_expr(expr), start_ms=start_ms, end_ms=end_ms_incl, step_ms=step_ms, lookback_ms=LOOKBACK_MS
        )
        return evaluate(
            plan,
            [self._read(select) for select in plan.selects],
            **{
                "max_samples": 10_000_000,
                "delayed_name_removal": self.delayed_name_removal,
                "type_and_unit_labels": self._type_and_unit_labels,
                **options,
            },
        )

    def _read(self, select: Select) -> SeriesSamples:
        picked: list[dict[str, str]] = []
        offsets, timestamps, values = [0], [], []
        places, times, histograms = [0], [], []
        for key, samples in self._read_back.items():
            labels = dict(key)
            if not all(m.matches(labels.get(m.name, "")) for m in select.matchers):
                continue
            found = [(t, v) for t, v in samples if select.start_ms <= t < select.end_ms]
            if not found:
                continue
            picked.append(labels)
            for t, value in found:
                (times if isinstance(value, HistogramValue) else timestamps).append(t)
                (histograms if isinstance(value, HistogramValue) else values).append(value)
            offsets.append(len(timestamps))
            places.append(len(times))
        native = None
        if histograms:
            native = HistogramSamples(np.array(places, np.int64), np.array(times, np.int64), to_columns(histograms))
        return SeriesSamples(
            LabelFrame.from_dicts(picked),
            np.array(offsets, np.int64),
            np.array(timestamps, np.int64),
            np.array(values, np.float64),
            native,
        )

    def answer(self, expr: str, result: QueryResult) -> Answer:
        """Return a result as the runner wants it."""
        warnings, infos = result.annotations.render(expr)
        notes = {"warnings": warnings, "infos": infos}
        match result.value:
            case Scalar(value=value):
                return Answer(scalar=value, **notes)
            case String(value=value):
                return Answer(string=value, **notes)
            case Vector(labels=labels) as vector:
                return Answer(vector=list(zip(labels.to_dicts(), _values(vector), strict=True)), **notes)
            case Matrix() as matrix:
                return Answer(matrix=list(zip(matrix.labels.to_dicts(), _points(matrix), strict=True)), **notes)


def _stored(samples: dict[int, float | HistogramValue]) -> list[tuple[int, float | HistogramValue]]:
    """Return a series' samples by time, histograms as they are read back."""
    ordered = sorted(samples.items(), key=lambda item: item[0])
    if not any(isinstance(value, HistogramValue) for _, value in ordered):
        return ordered
    read = as_stored([value if isinstance(value, HistogramValue) else None for _, value in ordered])
    return [(t, value if stored is None else stored) for (t, value), stored in zip(ordered, read, strict=True)]


def _values(vector: Vector) -> list[float | HistogramValue]:
    """Return the value of each series."""
    values: list[float | HistogramValue] = vector.values.tolist()
    if vector.histograms is not None:
        index = vector.histograms.index
        for i in np.flatnonzero(index >= 0).tolist():
            values[i] = to_values(vector.histograms.rows, [int(index[i])])[0]
    return values


def _points(matrix: Matrix) -> list[list[tuple[int, float | HistogramValue]]]:
    """Return the (time, value) pairs of each series, by time."""
    pairs = list(zip(matrix.timestamps.tolist(), matrix.values.tolist(), strict=True))
    series = [pairs[a:b] for a, b in zip(matrix.offsets[:-1].tolist(), matrix.offsets[1:].tolist(), strict=True)]
    if matrix.histograms is None:
        return series
    points = matrix.histograms
    own = list(zip(points.timestamps.tolist(), to_values(points.histograms, points.rows.tolist()), strict=True))
    bounds = points.offsets.tolist()
    return [
        sorted([*floats, *own[a:b]], key=lambda pair: pair[0])
        for floats, a, b in zip(series, bounds[:-1], bounds[1:], strict=True)
    ]
