"""Sums and averages of series that have native histograms.

Source: Prometheus 3.14 `promql/engine.go` `aggregation`.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels.aggregate import GROUP, fold_rows
from mimir_ingest.kernels.native_columns import ABSENT
from mimir_ingest.kernels.native_fold import AVERAGE, COMPACT, MIXED, fold_histograms
from mimir_ingest.kernels.native_merge import COLLISION, INCOMPATIBLE, RECONCILED
from mimir_ingest.model.labels import METRIC_NAME
from mimir_ingest.promql import annotations as texts
from mimir_ingest.promql.native import cells_of, columns_of, run_items, workspaces
from mimir_ingest.promql.operators.base import Evaluation
from mimir_ingest.promql.plan_nodes import Aggregate
from mimir_ingest.promql.values import HistogramCells, VectorBlock


def fold_groups(
    evaluation: Evaluation,
    node: Aggregate,
    block: VectorBlock,
    groups: np.ndarray,
    values: np.ndarray,
    present: np.ndarray,
) -> HistogramCells | None:
    """Fold the groups that have histograms at a step; `values` and `present`, the fold of the floats, are changed.

    `groups` is int64[n], the group of each series.
    """
    here = np.ascontiguousarray(block.histogram_present)
    concerned = np.empty(present.shape, bool)
    fold_rows(groups, np.ascontiguousarray(block.values), here, GROUP, np.empty(values.shape), concerned)
    if not concerned.any():
        return None
    series, steps = np.nonzero(block.present & concerned[groups])
    keys = groups[series] * present.shape[1] + steps
    order = np.argsort(keys, kind="stable")
    series, steps, keys = series[order], steps[order], keys[order]
    items, begins = np.unique(keys, return_index=True)
    spans = np.stack((begins, np.append(begins[1:], len(keys))), axis=1)
    members = block.histograms.index[series, steps]
    columns = columns_of(block.histograms.rows)
    works, failed = workspaces([columns], 2), np.empty(len(items), np.int64)
    operand, mode = block.points, COMPACT | (AVERAGE if node.op == "avg" else 0)
    rows, flags = run_items(
        lambda output: fold_histograms(columns, members, spans, mode, works, output, failed),
        len(items),
        evaluation.check,
        lambda weight: evaluation.limit_samples(weight - operand),  # it is freed as the result comes about
        spans[:, 1] - spans[:, 0],
    )
    _annotate(evaluation, node, block, flags, series[failed[failed >= 0]])
    hit = flags & ABSENT == 0
    at = np.divmod(items, present.shape[1])
    present[at] = hit
    values[at] = 0.0
    index = np.full(values.shape, -1, np.int64)
    index[at[0][hit], at[1][hit]] = np.arange(len(rows))
    return cells_of(index, rows)


def _annotate(
    evaluation: Evaluation, node: Aggregate, block: VectorBlock, flags: np.ndarray, misfits: np.ndarray
) -> None:
    """Add what the flags stand for; `misfits` are the series whose schema did not fit their group's."""
    annotations, pos = evaluation.annotations, node.child.pos
    for name in sorted(set(block.labels.take(np.unique(misfits)).strings(METRIC_NAME))) if len(misfits) else ():
        annotations.warn(texts.mixed_schemas(name), pos)
    if (flags & RECONCILED).any():
        annotations.inform(texts.reconciled_bounds("aggregation"), pos)
    if (flags & MIXED).any():
        annotations.warn(texts.MIXED_AGGREGATION, pos)
    done = flags & (ABSENT | INCOMPATIBLE) == 0
    if (flags[done] & COLLISION).any():
        annotations.warn(texts.conflicting_resets("aggregation"), pos)
