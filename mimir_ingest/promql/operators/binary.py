"""Binary operators: arithmetic and comparisons on columns, between scalars and vectors; sets are in `sets`.

Source: Prometheus 3.14 `promql/engine.go` `VectorscalarBinop`, `scalarBinop`, `vectorElemBinop`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from mimir_ingest.errors import QueryError
from mimir_ingest.kernels import go_math
from mimir_ingest.kernels.native_pairs import NEGATE, apply_factors
from mimir_ingest.promql.native import columns_of, run_items, workspaces
from mimir_ingest.promql.nodes import SET_OPERATORS, TRIM_OPERATORS
from mimir_ingest.promql.operators.base import Evaluation, filled_rows
from mimir_ingest.promql.operators.matching import Compute, match_vectors
from mimir_ingest.promql.operators.native_binary import Operand, annotate, combine
from mimir_ingest.promql.operators.sets import combine_sets
from mimir_ingest.promql.plan_nodes import Binary
from mimir_ingest.promql.values import HistogramCells, Steps, VectorBlock

_COMPARE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def _go_pairs(operation: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def apply(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        left, right = np.broadcast_arrays(left, right)
        out = np.empty(left.shape)
        sides = (np.ascontiguousarray(side).reshape(-1) for side in (left, right))
        go_math.apply_pairs(operation, *sides, out.reshape(-1))
        return out

    return apply


_ARITHMETIC: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": _go_pairs(go_math.POW),
    "atan2": _go_pairs(go_math.ATAN2),
}


def apply_binary(evaluation: Evaluation, node: Binary, steps: Steps) -> VectorBlock | np.ndarray:
    """Evaluate a binary operation."""
    lhs, rhs = evaluation.evaluate(node.lhs, steps), evaluation.evaluate(node.rhs, steps)
    run = functools.partial(compute, run=evaluation.map_cells)
    left_vector, right_vector = isinstance(lhs, VectorBlock), isinstance(rhs, VectorBlock)
    if not left_vector and not right_vector:
        if node.op in TRIM_OPERATORS:
            raise QueryError(f'operator "{node.op}" not allowed for Scalar operations')
        return run(node.op, lhs, rhs)[0] if node.op in _ARITHMETIC else run(node.op, lhs, rhs)[1].astype(float)
    if left_vector and right_vector:
        if node.op in SET_OPERATORS:
            return combine_sets(evaluation, node, lhs, rhs)
        return match_vectors(evaluation, node, lhs, rhs, run)
    block = lhs if left_vector else rhs
    if block.histograms is not None or node.op in TRIM_OPERATORS:
        return _mixed_with_scalar(evaluation, node, lhs, rhs, run)
    return _with_scalar(evaluation, node, lhs, rhs, run)


def _at_once(work: Callable[..., np.ndarray], *operands: np.ndarray) -> np.ndarray:
    return work(*operands)


def compute(
    op: str, lhs: np.ndarray, rhs: np.ndarray, *, run: Callable[..., np.ndarray] = _at_once
) -> tuple[np.ndarray, np.ndarray | None]:
    """Apply an operator elementwise; return (values, keep), keep None where all are kept.

    A comparison's values are those of the left side. `run(work, *operands)` runs an elementwise function.
    """
    with np.errstate(all="ignore"):
        if op in _COMPARE:
            keep = run(_COMPARE[op], lhs, rhs)
            return np.broadcast_to(lhs, keep.shape), keep
        return run(_ARITHMETIC[op], lhs, rhs), None


def _with_scalar(evaluation: Evaluation, node: Binary, lhs, rhs, run: Compute) -> VectorBlock:
    """Apply an operator between a vector and a scalar, in either order."""
    swapped = not isinstance(lhs, VectorBlock)
    block = rhs if swapped else lhs
    values, keep = run(node.op, lhs if swapped else lhs.values, rhs.values if swapped else rhs)
    if keep is None:
        return evaluation.drop_name(VectorBlock(block.labels, values, block.present, block.drop_name))
    if node.return_bool:
        return evaluation.drop_name(VectorBlock(block.labels, keep.astype(np.float64), block.present, block.drop_name))
    return filled_rows(VectorBlock(block.labels, block.values, block.present & keep, block.drop_name))


def _mixed_with_scalar(evaluation: Evaluation, node: Binary, lhs, rhs, run: Compute) -> VectorBlock:
    """Apply an operator between a vector with histograms and a scalar, in either order."""
    swapped = not isinstance(lhs, VectorBlock)
    block = rhs if swapped else lhs
    vector = Operand(block.values, block.histograms)
    sides = (Operand(lhs), vector) if swapped else (vector, Operand(rhs))
    done = combine(evaluation, node.op, block.present, *sides, run)
    annotate(evaluation, node, done.notes)
    if done.keep is None:
        result = filled_rows(VectorBlock(block.labels, done.values, done.present, block.drop_name, done.histograms))
        return result if node.op in TRIM_OPERATORS else evaluation.drop_name(result)
    if node.return_bool:
        return evaluation.drop_name(filled_rows(block.of_numbers(done.keep.astype(np.float64), done.present)))
    return filled_rows(block.of_numbers(block.values, done.present & done.keep))


def negate(evaluation: Evaluation, node, steps: Steps) -> VectorBlock | np.ndarray:
    """Evaluate unary minus."""
    value = evaluation.evaluate(node.child, steps)
    if not isinstance(value, VectorBlock):
        return evaluation.map_cells(np.negative, value)
    cells = None
    if value.histograms is not None:
        columns, rows = columns_of(value.histograms.rows), np.arange(len(value.histograms.rows))
        works, factors = workspaces([columns], 3), np.full(len(rows), -1.0)
        negated, _ = run_items(
            lambda output: apply_factors(columns, rows, factors, NEGATE, works, output),
            len(rows),
            evaluation.check,
            lambda _: None,  # they take the place of those that were read
        )
        cells = HistogramCells(value.histograms.index, negated, value.histograms.weights)
    negative = VectorBlock(
        value.labels, evaluation.map_cells(np.negative, value.values), value.present, value.drop_name, cells
    )
    return evaluation.drop_name(negative, apart=True)
