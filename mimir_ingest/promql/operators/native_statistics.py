"""Functions of native histograms that give numbers: `histogram_count histogram_sum histogram_avg histogram_stddev …`,
and what `histogram_quantile` and `histogram_fraction` make of the native ones among their histograms.

Source: Prometheus 3.14 `promql/functions.go` `simpleHistogramFunc`, `resetHistograms`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mimir_ingest.kernels.native_quantile import (
    NAN_RESULT,
    NAN_SKEW,
    fraction_histograms,
    quantile_histograms,
    variance_histograms,
)
from mimir_ingest.model.histograms import Histograms
from mimir_ingest.model.labels import METRIC_NAME
from mimir_ingest.promql import annotations as texts
from mimir_ingest.promql.native import columns_of
from mimir_ingest.promql.nodes import PosRange
from mimir_ingest.promql.operators.base import HISTOGRAM_CELLS, Evaluation, filled_rows
from mimir_ingest.promql.plan_nodes import Call
from mimir_ingest.promql.values import Steps, VectorBlock


def _variance(evaluation: Evaluation, rows: Histograms) -> np.ndarray:
    values = np.empty(len(rows))
    columns, places = columns_of(rows), np.arange(len(rows))
    for at in evaluation.pieces(len(rows), HISTOGRAM_CELLS):
        variance_histograms(columns, places[at], values[at])
    return values


_STATISTICS: dict[str, Callable[[Evaluation, Histograms], np.ndarray]] = {
    "histogram_avg": lambda _, rows: rows.sum / rows.count,
    "histogram_count": lambda _, rows: rows.count,
    "histogram_stddev": lambda evaluation, rows: np.sqrt(_variance(evaluation, rows)),
    "histogram_stdvar": _variance,
    "histogram_sum": lambda _, rows: rows.sum,
}

STATISTICS = frozenset(_STATISTICS)
"""Names of the functions that `histogram_statistic` evaluates."""


def histogram_statistic(evaluation: Evaluation, node: Call, steps: Steps) -> VectorBlock:
    """Evaluate a function of one number a histogram; numbers give nothing."""
    block = evaluation.vector(node.args[0], steps)
    if block.histograms is None:
        return VectorBlock.empty(steps.count)
    block = filled_rows(block.where(block.histogram_present))
    with np.errstate(all="ignore"):
        statistic = _STATISTICS[node.name](evaluation, block.histograms.rows)
    values = np.zeros(block.values.shape)
    values[block.present] = statistic[block.histograms.index[block.present]]
    return evaluation.drop_name(block.of_numbers(values, block.present), names=(METRIC_NAME,))


def native_quantile(
    evaluation: Evaluation, block: VectorBlock, quantiles: np.ndarray, pos: PosRange, *, named: bool
) -> VectorBlock:
    """Return a quantile (float64[steps]) of every histogram of a block that holds nothing else.

    `named`: whether annotations tell the metric's name.
    """
    columns, cells = columns_of(block.histograms.rows), np.nonzero(block.present)
    found, flags = np.empty(len(cells[0])), np.empty(len(cells[0]), np.int64)
    rows = block.histograms.index[cells]
    for at in evaluation.pieces(len(rows), HISTOGRAM_CELLS):
        quantile_histograms(columns, rows[at], quantiles[cells[1][at]], found[at], flags[at])
    for flag, text in ((NAN_RESULT, texts.nan_result), (NAN_SKEW, texts.nan_skew)):
        _inform(evaluation, block, cells[0][flags == flag], text, pos, named=named)
    return _numbers(block, cells, found)


def native_fraction(
    evaluation: Evaluation, block: VectorBlock, lower: np.ndarray, upper: np.ndarray, pos: PosRange, *, named: bool
) -> VectorBlock:
    """Return the fraction between two bounds (float64[steps]) as `native_quantile` does a quantile."""
    columns, cells = columns_of(block.histograms.rows), np.nonzero(block.present)
    found, flags = np.empty(len(cells[0])), np.empty(len(cells[0]), np.int64)
    rows = block.histograms.index[cells]
    for at in evaluation.pieces(len(rows), HISTOGRAM_CELLS):
        steps = cells[1][at]
        fraction_histograms(columns, rows[at], lower[steps], upper[steps], found[at], flags[at])
    _inform(evaluation, block, cells[0][flags != 0], texts.nan_excluded, pos, named=named)
    return _numbers(block, cells, found)


def _numbers(block: VectorBlock, cells: tuple[np.ndarray, np.ndarray], found: np.ndarray) -> VectorBlock:
    values = np.zeros(block.values.shape)
    values[cells] = found
    return block.of_numbers(values, block.present)


def _inform(
    evaluation: Evaluation,
    block: VectorBlock,
    rows: np.ndarray,
    text: Callable[[str], str],
    pos: PosRange,
    *,
    named: bool,
) -> None:
    if not len(rows):
        return
    names = block.labels.take(np.unique(rows)).strings(METRIC_NAME) if named else [""]
    for name in sorted(set(names)):
        evaluation.annotations.inform(text(name), pos)
