"""The query engine with a storage in memory, as a target of promqltest scripts."""

from __future__ import annotations

import numpy as np

from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.samples import SeriesSamples
from mimir_ingest.promql.engine import evaluate
from mimir_ingest.promql.parser import parse_expr
from mimir_ingest.promql.plan import plan_query
from mimir_ingest.promql.plan_nodes import Select
from mimir_ingest.promql.values import Matrix, QueryResult, Scalar, String, Vector
from tests.support.promqltest import Answer, Labels, Sample

LOOKBACK_MS = 300_000


class EngineTarget:
    """Holds floats only: native histograms cannot be stored yet, so they are left out when a script loads them."""

    def __init__(self, *, delayed_name_removal: bool = True, type_and_unit_labels: bool = False) -> None:
        self._delayed_name_removal = delayed_name_removal
        self._type_and_unit_labels = type_and_unit_labels
        self._series: dict[tuple[tuple[str, str], ...], dict[int, float]] = {}

    def clear(self) -> None:
        """Forget all samples."""
        self._series = {}

    def append(self, labels: Labels, samples: list[Sample]) -> None:
        """Store the floats among the samples of one series."""
        floats = {s.at_ms: s.value for s in samples if isinstance(s.value, float)}
        if floats:
            self._series.setdefault(tuple(sorted(labels.items())), {}).update(floats)

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
                "delayed_name_removal": self._delayed_name_removal,
                "type_and_unit_labels": self._type_and_unit_labels,
                **options,
            },
        )

    def _read(self, select: Select) -> SeriesSamples:
        picked: list[dict[str, str]] = []
        offsets, timestamps, values = [0], [], []
        for key, samples in self._series.items():
            labels = dict(key)
            if all(m.matches(labels.get(m.name, "")) for m in select.matchers):
                found = sorted((t, v) for t, v in samples.items() if select.start_ms <= t < select.end_ms)
                if found:
                    picked.append(labels)
                    timestamps.extend(t for t, _ in found)
                    values.extend(v for _, v in found)
                    offsets.append(len(timestamps))
        return SeriesSamples(
            LabelFrame.from_dicts(picked),
            np.array(offsets, np.int64),
            np.array(timestamps, np.int64),
            np.array(values, np.float64),
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
            case Vector(labels=labels, values=values):
                return Answer(vector=list(zip(labels.to_dicts(), values.tolist(), strict=True)), **notes)
            case Matrix() as matrix:
                return Answer(matrix=list(zip(matrix.labels.to_dicts(), _points(matrix), strict=True)), **notes)


def _points(matrix: Matrix) -> list[list[tuple[int, float]]]:
    """Return the (time, value) pairs of each series."""
    pairs = list(zip(matrix.timestamps.tolist(), matrix.values.tolist(), strict=True))
    return [pairs[a:b] for a, b in zip(matrix.offsets[:-1].tolist(), matrix.offsets[1:].tolist(), strict=True)]
