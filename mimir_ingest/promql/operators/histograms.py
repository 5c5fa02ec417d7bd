"""Functions of histograms, classic and native: `histogram_quantile`, `histogram_quantiles`, `histogram_fraction`.

Source: Prometheus 3.14 `promql/functions.go`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mimir_ingest.kernels import buckets
from mimir_ingest.model.labels import METRIC_NAME, LabelFrame
from mimir_ingest.promql import annotations as texts
from mimir_ingest.promql.annotations import Annotation, MonotonicityRepair, wrapped_int64
from mimir_ingest.promql.nodes import PosRange
from mimir_ingest.promql.number_text import format_open_metrics, parse_float
from mimir_ingest.promql.operators.aggregates import members_of
from mimir_ingest.promql.operators.base import Evaluation, filled_rows, unique_rows
from mimir_ingest.promql.operators.native_statistics import native_fraction, native_quantile
from mimir_ingest.promql.operators.sets import present_by_signature
from mimir_ingest.promql.plan_nodes import Call, Text
from mimir_ingest.promql.values import Steps, VectorBlock

_BUCKET_LABEL = "le"
_INT64_BITS = 64
"""After as many steps nothing is left of a sum that is doubled at each."""


@dataclass(frozen=True, slots=True)
class _Histograms:
    """The classic histograms of a vector."""

    labels: LabelFrame
    """k label sets, without `le`."""
    members: np.ndarray
    bounds: np.ndarray
    uppers: np.ndarray
    """Buckets of each histogram (see `kernels.buckets.quantile_buckets`)."""
    values: np.ndarray
    present: np.ndarray
    """float64[n, steps], bool[n, steps]: the buckets' series."""
    there: np.ndarray
    """bool[k, steps]: where a histogram has any bucket and no native one has the same labels."""
    native: VectorBlock | None
    """The native histograms; None: there are none."""

    @property
    def cells_each(self) -> int:
        """Cells of the buckets of one histogram, on average."""
        return self.values.size // max(1, self.labels.n)


@dataclass(frozen=True, slots=True)
class _Repairs:
    """What had to be made monotonic of k classic histograms."""

    where: np.ndarray
    """bool[k, steps]"""
    extremes: np.ndarray
    """float64[k, 3] (see `kernels.buckets.quantile_buckets`)."""


def histogram_quantile(evaluation: Evaluation, node: Call, steps: Steps) -> VectorBlock:
    """Evaluate `histogram_quantile(q, v)`."""
    quantiles = evaluation.scalar(node.args[0], steps)
    found = _histograms(evaluation, evaluation.vector(node.args[1], steps), node.args[1].pos)
    _warn_quantiles(evaluation, quantiles, node.args[0].pos)
    result, repairs = _quantile(evaluation, found, quantiles, node.args[1].pos)
    _note_repairs(evaluation, found, [repairs], steps, node.args[1].pos)
    return evaluation.drop_name(result)


def histogram_quantiles(evaluation: Evaluation, node: Call, steps: Steps) -> VectorBlock:
    """Evaluate `histogram_quantiles(v, label, q...)`: a series a quantile, which stands in a label."""
    block, label = evaluation.vector(node.args[0], steps), node.args[1]
    assert isinstance(label, Text)
    quantiles = [evaluation.scalar(arg, steps) for arg in node.args[2:]]
    for arg, values in zip(node.args[2:], quantiles, strict=True):
        _warn_quantiles(evaluation, values, arg.pos)
    found = _histograms(evaluation, block, node.args[0].pos)
    parts, repairs = [], []
    for q in quantiles:
        part, repaired = _quantile(evaluation, found, q, node.args[0].pos)
        parts.extend(_labelled(evaluation.drop_name(part), label.value, q))
        repairs.append(repaired)
    _note_repairs(evaluation, found, repairs, steps, node.args[0].pos)
    return unique_rows(VectorBlock.concat(parts))


def _labelled(block: VectorBlock, label: str, quantiles: np.ndarray) -> list[VectorBlock]:
    """Return the block with the quantile in a label, a block a distinct quantile."""
    parts = []
    for q in np.unique(quantiles):
        at = np.isnan(quantiles) if np.isnan(q) else quantiles == q
        labels = block.labels.with_column(label, np.zeros(block.labels.n, np.int32), [format_open_metrics(float(q))])
        parts.append(filled_rows(VectorBlock(labels, block.values, block.present & at, block.drop_name)))
    return parts or [block]


def histogram_fraction(evaluation: Evaluation, node: Call, steps: Steps) -> VectorBlock:
    """Evaluate `histogram_fraction(lower, upper, v)`."""
    lower, upper = (np.ascontiguousarray(evaluation.scalar(arg, steps)) for arg in node.args[:2])
    found = _histograms(evaluation, evaluation.vector(node.args[2], steps), node.args[2].pos)
    values = np.empty(found.there.shape)
    for at in evaluation.pieces(len(values), found.cells_each):
        bounds = found.bounds[at.start : at.stop + 1]
        buckets.fraction_buckets(
            found.members, bounds, found.uppers, found.values, found.present, lower, upper, values[at]
        )
    result = VectorBlock(found.labels, values, found.there, np.zeros(len(values), bool))
    if found.native is not None:
        named = evaluation.delayed_name_removal
        native = native_fraction(evaluation, found.native, lower, upper, node.args[2].pos, named=named)
        result = filled_rows(VectorBlock.concat([native, result]))
    return evaluation.drop_name(result)


def _histograms(evaluation: Evaluation, block: VectorBlock, pos: PosRange) -> _Histograms:
    """Group a vector's buckets into histograms; a series whose `le` is no number is warned of and left out.

    Where a native histogram has the labels of a classic one, neither counts, with a warning.
    """
    native = None
    if block.histograms is not None:
        native = filled_rows(block.where(block.histogram_present))
        block = filled_rows(block.of_numbers(block.values, block.float_present))
    column = block.labels.column(_BUCKET_LABEL)
    codes, texts_of = column if column is not None else (np.full(block.labels.n, -1, np.int32), ())
    parsed = [parse_float(text) for text in texts_of]
    # The extra last entry stands for series without the label, whose code is -1.
    uppers = np.array([*(np.nan if p is None else p for p in parsed), np.nan])[codes]
    valid = np.array([*(p is not None for p in parsed), False])[codes]
    if not valid.all():
        _warn_labels(evaluation, block.take(~valid & block.present.any(axis=1)), pos)
        block, uppers = block.take(valid), uppers[valid]
    bare = block.labels.drop([_BUCKET_LABEL])
    ids, first = bare.group_ids()
    by_bound = np.lexsort((uppers, _runs(uppers, ids), ids))
    members, bounds = members_of(ids[by_bound], len(first))
    members = by_bound[members]
    there = present_by_signature(evaluation, block, ids, len(first))
    labels = bare.take(first)
    if native is not None:
        native, there = _without_conflicts(evaluation, native, labels, there, pos)
    return _Histograms(
        labels,
        members,
        bounds,
        uppers[members],
        np.ascontiguousarray(block.values),
        np.ascontiguousarray(block.present),
        there,
        native,
    )


def _runs(uppers: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return int64[n]: ascending numbers of the stretches of a histogram's buckets that are sorted apart.

    A bucket whose bound is NaN stays where it is, and none passes it: it is neither less nor greater than another.
    """
    odd = np.isnan(uppers)
    if not odd.any():
        return np.zeros(len(uppers), np.int64)
    order = np.argsort(ids, kind="stable")
    runs = np.empty(len(uppers), np.int64)
    runs[order] = 2 * np.cumsum(odd[order]) - odd[order]
    return runs


def _without_conflicts(
    evaluation: Evaluation, native: VectorBlock, labels: LabelFrame, there: np.ndarray, pos: PosRange
) -> tuple[VectorBlock, np.ndarray]:
    """Return native histograms, and where classic ones of these labels are, without those that meet at a step."""
    ids, _ = LabelFrame.concat([labels, native.labels]).group_ids()
    row_of = np.full(int(ids.max(initial=-1)) + 1, -1, np.int64)
    row_of[ids[: labels.n]] = np.arange(labels.n)
    classic = row_of[ids[labels.n :]]
    met = native.present & there[classic] & (classic >= 0)[:, None] if labels.n else np.zeros_like(native.present)
    if not met.any():
        return native, there
    conflicting = np.flatnonzero(met.any(axis=1))
    named = evaluation.delayed_name_removal
    names = native.labels.take(conflicting).strings(METRIC_NAME) if named else [""]
    for name in sorted(set(names)):
        evaluation.annotations.warn(texts.mixed_histograms(name), pos)
    there = there.copy()
    for row in conflicting.tolist():
        there[classic[row]] &= ~met[row]
    return native.where(native.present & ~met), there


def _warn_labels(evaluation: Evaluation, block: VectorBlock, pos: PosRange) -> None:
    names = block.labels.strings(METRIC_NAME) if evaluation.delayed_name_removal else [""] * block.labels.n
    for label, name in sorted(set(zip(block.labels.strings(_BUCKET_LABEL), names, strict=True))):
        evaluation.annotations.warn(texts.bad_bucket_label(label, name), pos)


def _warn_quantiles(evaluation: Evaluation, quantiles: np.ndarray, pos: PosRange) -> None:
    for q in np.unique(quantiles[~((quantiles >= 0) & (quantiles <= 1))]):
        evaluation.annotations.warn(texts.invalid_quantile(float(q)), pos)


def _quantile(
    evaluation: Evaluation, found: _Histograms, quantiles: np.ndarray, pos: PosRange
) -> tuple[VectorBlock, _Repairs]:
    """Compute one quantile of all histograms."""
    values, repaired = np.empty(found.there.shape), np.empty(found.there.shape, bool)
    extremes = np.empty((len(values), 3))
    for at in evaluation.pieces(len(values), found.cells_each):
        buckets.quantile_buckets(
            found.members,
            found.bounds[at.start : at.stop + 1],
            found.uppers,
            found.values,
            found.present,
            np.ascontiguousarray(quantiles),
            values[at],
            repaired[at],
            extremes[at],
        )
    repairs = _Repairs(repaired & found.there, extremes)
    result = VectorBlock(found.labels, values, found.there, np.zeros(len(values), bool))
    if found.native is None:
        return result, repairs
    named = evaluation.delayed_name_removal
    native = native_quantile(evaluation, found.native, quantiles, pos, named=named)
    return filled_rows(VectorBlock.concat([native, result])), repairs


def _note_repairs(
    evaluation: Evaluation, found: _Histograms, repairs: list[_Repairs], steps: Steps, pos: PosRange
) -> None:
    """Say what had to be repaired for some quantiles of the same histograms, each of which is repaired once a step."""
    repaired = np.any([r.where for r in repairs], axis=0)
    rows = np.flatnonzero(repaired.any(axis=1))
    by_name: dict[str, list[int]] = {}
    names = found.labels.take(rows).strings(METRIC_NAME) if evaluation.delayed_name_removal else [""] * len(rows)
    for row, name in zip(rows.tolist(), names, strict=True):
        by_name.setdefault(name, []).append(row)
    for name, members in by_name.items():
        counts = np.count_nonzero(repaired[members], axis=0)
        extremes = np.concatenate([r.extremes[members] for r in repairs])
        at = np.flatnonzero(counts)
        repair = MonotonicityRepair(
            steps.start_ms + int(at[0]) * steps.step_ms,
            steps.start_ms + int(at[-1]) * steps.step_ms,
            float(extremes[:, buckets.LOWEST].min()),
            float(extremes[:, buckets.HIGHEST].max()),
            float(extremes[:, buckets.LARGEST_DROP].max()),
            doubled_sum(counts),
        )
        evaluation.annotations.add(Annotation("info", texts.forced_monotonicity(name), pos, repair))


def doubled_sum(counts: np.ndarray) -> int:
    """Return the number of repaired samples that Prometheus shows for int64[steps], those of each step.

    After each step but the first with any it adds its sum to itself, because a query's annotations and those of the
    function are the same objects (3.14, `promql/engine.go` `rangeEval`); so it overflows, here as there.
    """
    first = max(int(np.flatnonzero(counts)[0]), len(counts) - 1 - _INT64_BITS)
    total = int(counts[first])
    for count in counts[first + 1 :].tolist():
        total = 2 * (total + count)
    return wrapped_int64(total)
