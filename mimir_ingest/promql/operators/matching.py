"""Vector matching: the series of two vectors joined by their labels, one-to-one or many-to-one.

Every pair of series that may meet becomes a row; all rows are computed at once, at all steps. Rules that hold at each
step (one side unique, results unique) are then checked on the rows. Source: Prometheus 3.14 `promql/engine.go`
`VectorBinop`, `resultMetric`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mimir_ingest.errors import QueryError
from mimir_ingest.kernels.rows import find_conflict
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.promql.nodes import TRIM_OPERATORS, Cardinality, VectorMatching
from mimir_ingest.promql.operators.base import (
    METADATA_LABELS,
    Evaluation,
    filled_rows,
    format_labels,
    row_labels,
    unique_rows,
)
from mimir_ingest.promql.operators.native_binary import Combined, Operand, annotate, combine
from mimir_ingest.promql.operators.sets import matched_labels, present_by_signature, signatures
from mimir_ingest.promql.plan_nodes import Binary
from mimir_ingest.promql.values import HistogramCells, VectorBlock, join_cells

_ARITHMETIC = frozenset(("+", "-", "*", "/", "%", "^", "atan2"))

Compute = Callable[[str, np.ndarray, np.ndarray], tuple[np.ndarray, "np.ndarray | None"]]


@dataclass(frozen=True, slots=True)
class _Sides:
    """Two vectors, the "many" side first (the left one, if both are "one")."""

    many: VectorBlock
    one: VectorBlock
    many_ids: np.ndarray
    one_ids: np.ndarray
    """int64[n] and int64[m]: signature of each series."""
    count: int
    swapped: bool
    """Whether `many` is the right operand."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of the result: series of both sides that meet. Arrays are parallel."""

    many: np.ndarray
    one: np.ndarray
    """int64[r]: series of each side, -1 where a fill value stands in."""
    ids: np.ndarray
    """int64[r]: signature."""
    present: np.ndarray
    """bool[r, steps]."""


def match_vectors(
    evaluation: Evaluation, node: Binary, lhs: VectorBlock, rhs: VectorBlock, compute: Compute
) -> VectorBlock:
    """Evaluate an arithmetic or comparison operator between two vectors."""
    matching = node.matching
    sides = _sides(lhs, rhs, matching)
    refused = _one_side_conflict(sides, matching)
    if refused is not None:
        # Steps come one after another: an error of an earlier step's result is the one to tell.
        if not refused[0]:
            raise refused[1]
        sides = _before(sides, refused[0])
    rows = _matched_rows(evaluation, sides)
    if matching.fill_right is not None:
        rows = _join(rows, _used(_filled_one(evaluation, sides)))
    done = _compute(evaluation, node, sides, rows, compute)
    rows = replace(rows, present=done.present)
    if matching.fill_left is not None:
        more = _used(_filled_many(sides, rows))
        added = _compute(evaluation, node, sides, more, compute)
        rows, done = _join(rows, replace(more, present=added.present)), _stack(done, added)
    annotate(evaluation, node, done.notes)
    labels = _result_labels(evaluation, node, sides, rows)
    _check_results(rows, labels, matching, sides.count)
    if refused is not None:
        raise refused[1]
    drop_name = np.full(len(rows.ids), node.return_bool)
    if done.keep is None:
        result = VectorBlock(labels, done.values, rows.present, drop_name, done.histograms)
    elif node.return_bool:
        result = VectorBlock(labels, done.keep.astype(np.float64), rows.present, drop_name)
    else:
        result = VectorBlock(labels, done.values, rows.present & done.keep, drop_name, done.histograms)
    return unique_rows(filled_rows(result))


def _sides(lhs: VectorBlock, rhs: VectorBlock, matching: VectorMatching) -> _Sides:
    """Order the operands; steps at which one of them is empty, and nothing fills it, are left out altogether."""
    left_ids, right_ids, count = signatures(lhs.labels, rhs.labels, matching)
    if matching.fill_left is None and matching.fill_right is None:
        both = lhs.present.any(axis=0) & rhs.present.any(axis=0)
        if not both.all():
            lhs = replace(lhs, present=lhs.present & both)
            rhs = replace(rhs, present=rhs.present & both)
    if matching.card is Cardinality.ONE_TO_MANY:
        return _Sides(rhs, lhs, right_ids, left_ids, count, True)
    return _Sides(lhs, rhs, left_ids, right_ids, count, False)


def _before(sides: _Sides, step: int) -> _Sides:
    """Return the operands at the first `step` steps."""
    many, one = (
        replace(block, present=block.present & (np.arange(block.present.shape[1]) < step))
        for block in (sides.many, sides.one)
    )
    return replace(sides, many=many, one=one)


def _one_side_conflict(sides: _Sides, matching: VectorMatching) -> tuple[int, QueryError] | None:
    """Return the first step at which two series of the "one" side have the same signature, and its error."""
    conflict = np.empty(3, np.int64)
    if _distinct(sides.one_ids):
        return None
    if not find_conflict(sides.one_ids, sides.count, np.ascontiguousarray(sides.one.present), conflict):
        return None
    series = sorted(format_labels(row_labels(sides.one.labels, int(row))) for row in conflict[1:])
    # The group is shown with the matching labels only; without `on` that is all but the ignored ones and the name.
    group = format_labels(row_labels(matched_labels(sides.one.labels, matching), int(conflict[2])))
    side = "left" if matching.card is Cardinality.ONE_TO_MANY else "right"
    error = QueryError(
        f"found duplicate series for the match group {group} on the {side} hand-side of the operation: "
        f"[{', '.join(series)}];many-to-many matching not allowed: matching labels must be unique on one side"
    )
    return int(conflict[0]), error


def _matched_rows(evaluation: Evaluation, sides: _Sides) -> _Rows:
    """Return a row for each pair of series with one signature."""
    by_signature = np.argsort(sides.one_ids, kind="stable")
    ordered = sides.one_ids[by_signature]
    first = np.searchsorted(ordered, sides.many_ids, "left")
    partners = np.searchsorted(ordered, sides.many_ids, "right") - first
    evaluation.reserve(int(partners.sum()), sides.many.values.shape[1])
    many = np.repeat(np.arange(len(sides.many_ids)), partners)
    ends = np.cumsum(partners)
    at = np.arange(len(many)) - np.repeat(ends - partners, partners) + np.repeat(first, partners)
    one = by_signature[at] if len(many) else np.empty(0, np.int64)
    if len(many) == len(sides.many_ids) and (partners == 1).all():
        here = sides.many.present
    else:
        here = sides.many.present[many]
    return _Rows(many, one, sides.many_ids[many], here & sides.one.present[one])


def _filled_one(evaluation: Evaluation, sides: _Sides) -> _Rows:
    """Return a row for each "many" series, present where no "one" series matches it."""
    there = present_by_signature(evaluation, sides.one, sides.one_ids, sides.count)[sides.many_ids]
    many = np.arange(len(sides.many_ids))
    return _Rows(many, np.full(len(many), -1), sides.many_ids, sides.many.present & ~there)


def _filled_many(sides: _Sides, matched: _Rows) -> _Rows:
    """Return a row for each "one" series, present where no row so far has its signature."""
    taken = np.zeros((sides.count, sides.one.present.shape[1]), bool)
    np.logical_or.at(taken, matched.ids, matched.present)
    one = np.arange(len(sides.one_ids))
    return _Rows(np.full(len(one), -1), one, sides.one_ids, sides.one.present & ~taken[sides.one_ids])


def _used(rows: _Rows) -> _Rows:
    """Return the rows that are ever present."""
    used = rows.present.any(axis=1)
    return _Rows(rows.many[used], rows.one[used], rows.ids[used], rows.present[used])


def _join(a: _Rows, b: _Rows) -> _Rows:
    """Return the rows of both."""
    return _Rows(
        np.concatenate((a.many, b.many)),
        np.concatenate((a.one, b.one)),
        np.concatenate((a.ids, b.ids)),
        np.concatenate((a.present, b.present)),
    )


def _compute(evaluation: Evaluation, node: Binary, sides: _Sides, rows: _Rows, compute: Compute) -> Combined:
    """Compute all rows at all steps."""
    # `fill_right` stands for the "one" side and `fill_left` for the "many" side, whichever operands these are.
    many = _operand(sides.many.values, rows.many, node.matching.fill_left)
    one = _operand(sides.one.values, rows.one, node.matching.fill_right)
    left, right = (one, many) if sides.swapped else (many, one)
    if sides.many.histograms is None and sides.one.histograms is None and node.op not in TRIM_OPERATORS:
        values, keep = compute(node.op, left, right)
        return Combined(values, rows.present, keep)
    cells = [_cells(side.histograms, at) for side, at in ((sides.many, rows.many), (sides.one, rows.one))]
    if sides.swapped:
        cells.reverse()
    return combine(evaluation, node.op, rows.present, Operand(left, cells[0]), Operand(right, cells[1]), compute)


def _cells(cells: HistogramCells | None, rows: np.ndarray) -> HistogramCells | None:
    """Return the cells of each row; where a fill value stands in, there is a number."""
    if cells is None or not len(cells.index):
        return None
    return HistogramCells(np.where(rows[:, None] < 0, -1, cells.index[rows]), cells.rows, cells.weights)


def _stack(a: Combined, b: Combined) -> Combined:
    """Return the elements of both, one after the other."""
    notes = [np.zeros(c.present.shape, np.int8) if c.notes is None else c.notes for c in (a, b)]
    return Combined(
        np.concatenate((a.values, b.values)),
        np.concatenate((a.present, b.present)),
        None if a.keep is None else np.concatenate((a.keep, b.keep)),
        join_cells((a.histograms, b.histograms), (a.present.shape, b.present.shape)),
        np.concatenate(notes),
    )


def _distinct(ids: np.ndarray) -> bool:
    """Whether no signature occurs twice."""
    return int(np.bincount(ids).max(initial=0)) <= 1


def _is_identity(index: np.ndarray, size: int) -> bool:
    """Whether an index picks everything in order."""
    return len(index) == size and np.array_equal(index, np.arange(size))


def _operand(values: np.ndarray, index: np.ndarray, fill: float | None) -> np.ndarray:
    if _is_identity(index, len(values)):
        return values
    if not len(values):
        return np.full((len(index), values.shape[1]), np.nan if fill is None else fill)
    picked = values[index]
    if fill is not None:
        picked[index < 0] = fill
    return picked


def _result_labels(evaluation: Evaluation, node: Binary, sides: _Sides, rows: _Rows) -> LabelFrame:
    """Return the labels of each row: those of the "many" side, less what the operation changes."""
    matching = node.matching
    many = _labels_of(sides.many.labels, rows.many, sides.one.labels, rows.one, matching)
    dropped: set[str] = set()
    if node.op in _ARITHMETIC or (node.return_bool and not evaluation.delayed_name_removal):
        dropped.update(METADATA_LABELS)
    if matching.card is Cardinality.ONE_TO_ONE:
        dropped.update(n for n in many.names if (n in matching.labels) != matching.on)
    labels = many.drop(dropped)
    if not matching.include:
        return labels
    one = _labels_of(sides.one.labels, rows.one, sides.many.labels, rows.many, matching)
    for name in matching.include:
        column = one.column(name)
        codes, values = column if column is not None else (np.full(len(rows.ids), -1, np.int32), ())
        labels = labels.with_column(name, codes, values)
    return labels


def _labels_of(
    frame: LabelFrame, index: np.ndarray, other: LabelFrame, other_index: np.ndarray, matching: VectorMatching
) -> LabelFrame:
    """Return one side's labels of each row; where that side is filled, the other's matching labels."""
    filled = index < 0
    if not filled.any():
        return frame if _is_identity(index, frame.n) else frame.take(index)
    stand_ins = matched_labels(other, matching).take(other_index[filled])
    order = np.empty(len(index), np.int64)
    order[np.flatnonzero(~filled)] = np.arange(len(index) - filled.sum())
    order[np.flatnonzero(filled)] = len(index) - filled.sum() + np.arange(filled.sum())
    return LabelFrame.concat([frame.take(index[~filled]), stand_ins]).take(order)


def _check_results(rows: _Rows, labels: LabelFrame, matching: VectorMatching, count: int) -> None:
    """Raise QueryError if a signature (one-to-one) or a result (else) comes about twice at one step."""
    conflict = np.empty(3, np.int64)
    present = np.ascontiguousarray(rows.present)
    if matching.card is Cardinality.ONE_TO_ONE:
        if not _distinct(rows.ids) and find_conflict(rows.ids, count, present, conflict):
            raise QueryError(
                "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
            )
        return
    results, first = labels.group_ids()
    if len(first) == labels.n:
        return
    pairs = np.unique(results * count + rows.ids, return_inverse=True)[1]
    if find_conflict(pairs, int(pairs.max()) + 1, present, conflict):
        raise QueryError("multiple matches for labels: grouping labels must ensure unique matches")
