"""Aggregations that make new series: `sum avg min max count group stddev stdvar quantile count_values`."""

from __future__ import annotations

import functools

import numpy as np

from mimir_ingest.errors import QueryError
from mimir_ingest.kernels import aggregate
from mimir_ingest.model.labels import METRIC_NAME, LabelFrame, go_quote
from mimir_ingest.model.numbers import format_plain
from mimir_ingest.promql import annotations as texts
from mimir_ingest.promql.histogram_text import format_histograms
from mimir_ingest.promql.operators.base import HISTOGRAM_CELLS, Evaluation, filled_rows, fold_steps, unique_rows
from mimir_ingest.promql.operators.native_aggregates import fold_groups
from mimir_ingest.promql.operators.ranking import RANKINGS, rank_series
from mimir_ingest.promql.plan_nodes import Aggregate, PlanNode, Text
from mimir_ingest.promql.values import Steps, VectorBlock

_COUNTS = ("count", "group")
"""Aggregations to which a histogram is a value like any other."""
_FOLDS = {"count": aggregate.COUNT, "group": aggregate.GROUP, "max": aggregate.MAX, "min": aggregate.MIN}


def aggregate_series(evaluation: Evaluation, node: Aggregate, steps: Steps) -> VectorBlock:
    """Evaluate any aggregation."""
    if node.op == "count_values":
        return _count_values(evaluation, node, steps)
    param = None if node.param is None else evaluation.scalar(node.param, steps)
    block = evaluation.vector(node.child, steps)
    labels = grouped_labels(block.labels, node)
    groups, first = labels.group_ids()
    if node.op in RANKINGS:
        return rank_series(evaluation, node, block, groups, len(first), param, steps)
    shape = (len(first), steps.count)
    values, present = np.empty(shape), np.empty(shape, bool)
    if node.op == "quantile":
        _warn_quantiles(evaluation, param, node.param)
    here = block.present if node.op in _COUNTS else block.float_present
    for at in evaluation.step_pieces(*here.shape):
        fold = functools.partial(_fold, node.op, groups, None if param is None else param[at])
        fold_steps(fold, at, block.values, here, values, present)
    cells = None
    if block.histograms is not None and node.op in ("sum", "avg"):
        cells = fold_groups(evaluation, node, block, groups, values, present)
    elif block.histograms is not None and node.op not in _COUNTS and block.histogram_present.any():
        evaluation.annotations.inform(texts.ignored_in_aggregation(node.op), node.child.pos)
    drop_name = np.zeros(len(first), bool)
    if np.count_nonzero(block.drop_name):
        np.logical_or.at(drop_name, groups, block.drop_name)
    return filled_rows(VectorBlock(labels.take(first), values, present, drop_name, cells))


def grouped_labels(frame: LabelFrame, node: Aggregate) -> LabelFrame:
    """Return the labels by which series are grouped, of each series."""
    if node.without:
        return frame.drop((*node.grouping, METRIC_NAME))
    return frame.keep(node.grouping)


def _fold(
    op: str,
    groups: np.ndarray,
    param: np.ndarray | None,
    rows: np.ndarray,
    here: np.ndarray,
    values: np.ndarray,
    present: np.ndarray,
) -> None:
    """Aggregate `rows`, where they are `here`, by group into `values` and `present`."""
    if op == "sum":
        aggregate.sum_rows(groups, rows, here, values, present)
    elif op == "avg":
        aggregate.average_rows(groups, rows, here, values, present)
    elif op in ("stddev", "stdvar"):
        aggregate.variance_rows(groups, rows, here, values, present)
        if op == "stddev":
            np.sqrt(values, out=values, where=present)
    elif op == "quantile":
        members, bounds = members_of(groups, len(values))
        aggregate.quantile_rows(members, bounds, rows, here, np.ascontiguousarray(param), values, present)
    else:
        aggregate.fold_rows(groups, rows, here, _FOLDS[op], values, present)


def members_of(groups: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (members int64[n], bounds int64[count + 1]): group g has the rows `members[bounds[g]:bounds[g + 1]]`."""
    members = np.argsort(groups, kind="stable")
    return members, np.searchsorted(groups[members], np.arange(count + 1))


def _warn_quantiles(evaluation: Evaluation, quantiles: np.ndarray, node: PlanNode) -> None:
    """Warn of quantiles that are NaN, above 1, below 0: the outermost ones stand for all."""
    if not len(quantiles):
        return
    if np.isnan(quantiles).any():
        evaluation.annotations.warn(texts.invalid_quantile(float("nan")), node.pos)
        # Among NaN, only infinities still count as largest or smallest (Go's `math.Max`).
    numbers = quantiles[np.isinf(quantiles)] if np.isnan(quantiles).any() else quantiles
    if len(numbers) and numbers.max() > 1:
        evaluation.annotations.warn(texts.invalid_quantile(float(numbers.max())), node.pos)
    if len(numbers) and numbers.min() < 0:
        evaluation.annotations.warn(texts.invalid_quantile(float(numbers.min())), node.pos)


def _count_values(evaluation: Evaluation, node: Aggregate, steps: Steps) -> VectorBlock:
    """Count equal values: one series a group and value, the value in a label."""
    assert isinstance(node.param, Text)
    label = node.param.value
    if not label or any("\udc80" <= char <= "\udcff" for char in label):
        raise QueryError(f"invalid label name {go_quote(label)}")
    block = evaluation.vector(node.child, steps)
    labels = grouped_labels(block.labels, node)
    # The value's label replaces one of its name; `without` it, it goes again.
    keep_value = not (node.without and label in (METRIC_NAME, *node.grouping))
    groups, first = labels.drop([label]).group_ids()
    rows, columns = np.nonzero(block.present)
    strings, codes = _value_strings(evaluation, block, rows, columns)
    if not keep_value:
        codes = np.zeros_like(codes)
    pairs, at = np.unique(groups[rows] * max(1, len(strings)) + codes, return_inverse=True)
    # Twice: the counts stand there as integers, then as floats.
    evaluation.reserve(2 * len(pairs), steps.count)
    values = np.bincount(at * steps.count + columns, minlength=len(pairs) * steps.count)
    values = values.reshape(len(pairs), steps.count)
    frame = labels.drop([label]).take(first[pairs // max(1, len(strings))])
    if keep_value:
        frame = frame.with_column(label, pairs % max(1, len(strings)), strings)
    counts = values.astype(np.float64)
    return unique_rows(VectorBlock(frame, counts, values > 0, np.zeros(len(pairs), bool)))


def _value_strings(
    evaluation: Evaluation, block: VectorBlock, rows: np.ndarray, columns: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Return the distinct values of some cells as strings, and int64[cells], the one of each cell."""
    bits = block.values[rows, columns]
    bits[np.isnan(bits)] = np.nan
    distinct, codes = np.unique(bits.view(np.int64), return_inverse=True)
    strings = [format_plain(v) for v in evaluation.watched(distinct.view(np.float64).tolist())]
    if block.histograms is None:
        return strings, codes
    index = block.histograms.index[rows, columns]
    used, places = np.unique(index[index >= 0], return_inverse=True)
    known: dict[str, int] = {}
    own = []
    for at in evaluation.pieces(len(used), HISTOGRAM_CELLS):
        own.extend(known.setdefault(text, len(known)) for text in format_histograms(block.histograms.rows, used[at]))
    codes[index >= 0] = len(strings) + np.array(own, np.int64)[places]
    return [*strings, *known], codes
