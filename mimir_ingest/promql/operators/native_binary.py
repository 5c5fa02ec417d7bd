"""Binary operators between numbers and native histograms, element by element.

Source: Prometheus 3.14 `promql/engine.go` `vectorElemBinop`, `VectorBinop`, `handleVectorBinopError`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mimir_ingest.kernels.native_columns import ABSENT, Output
from mimir_ingest.kernels.native_merge import COLLISION, INCOMPATIBLE, RECONCILED
from mimir_ingest.kernels.native_pairs import DIVIDE, MULTIPLY, TRIM_LOWER, TRIM_UPPER, apply_factors, combine_pairs
from mimir_ingest.kernels.native_resets import compare_rows
from mimir_ingest.model.histograms import Histograms
from mimir_ingest.promql import annotations as texts
from mimir_ingest.promql.native import cells_of, columns_of, run_items, workspaces
from mimir_ingest.promql.nodes import TRIM_OPERATORS
from mimir_ingest.promql.operators.base import HISTOGRAM_CELLS, Evaluation
from mimir_ingest.promql.plan_nodes import Binary
from mimir_ingest.promql.values import HistogramCells

_FLOAT_FLOAT, _FLOAT_HISTOGRAM, _HISTOGRAM_FLOAT, _HISTOGRAM_HISTOGRAM, _LAYOUT, _COLLISION, _RECONCILED = range(1, 8)
"""What is to be told of an element; only the last one of a step is."""
_KINDS = {
    _FLOAT_FLOAT: ("float", "float"),
    _FLOAT_HISTOGRAM: ("float", "histogram"),
    _HISTOGRAM_FLOAT: ("histogram", "float"),
    _HISTOGRAM_HISTOGRAM: ("histogram", "histogram"),
}
_BY_FACTOR = {"*": MULTIPLY, "/": DIVIDE, "</": TRIM_UPPER, ">/": TRIM_LOWER}
_SIGNS = {"+": 1, "-": -1}
_NAMES = {"+": "addition", "-": "subtraction"}


@dataclass(frozen=True, slots=True)
class Operand:
    """One side: float64[r, steps] (or [steps]), and which of its elements are histograms."""

    values: np.ndarray
    histograms: HistogramCells | None = None


@dataclass(frozen=True, slots=True)
class Combined:
    """The elements of a result."""

    values: np.ndarray
    """float64[r, steps]."""
    present: np.ndarray
    """bool[r, steps]: elements for which the operator is defined."""
    keep: np.ndarray | None = None
    """bool[r, steps]: where a comparison holds; None for other operators."""
    histograms: HistogramCells | None = None
    notes: np.ndarray | None = None
    """int8[r, steps]: what is to be told."""


class _Elements:
    """The result in the making."""

    def __init__(self, shape: tuple[int, ...], here: np.ndarray) -> None:
        self.present = here.copy()
        self.notes = np.zeros(shape, np.int8)
        self.index = np.full(shape, -1, np.int64)
        self.parts: list[Histograms] = []
        self._rows = 0

    def refuse(self, at: np.ndarray, note: int) -> None:
        """Leave the elements `at` (a mask) out, and say why."""
        self.present[at] = False
        self.notes[at] = note

    def put(self, at: tuple[np.ndarray, np.ndarray], rows: Histograms) -> None:
        """Set the elements at (rows, steps) to histograms."""
        self.index[at] = self._rows + np.arange(len(rows))
        self._rows += len(rows)
        self.parts.append(rows)


def combine(
    evaluation: Evaluation,
    op: str,
    here: np.ndarray,
    left: Operand,
    right: Operand,
    compute: Callable[[str, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]],
) -> Combined:
    """Apply an operator to the elements of `here`, bool[r, steps]; `compute` does so for numbers."""
    lhs, rhs = _mask(left, here), _mask(right, here)
    elements = _Elements(here.shape, here)
    numbers = here & ~lhs & ~rhs
    if op in TRIM_OPERATORS:
        values, keep = np.zeros(here.shape), None
        elements.refuse(numbers, _FLOAT_FLOAT)
    else:
        values, keep = compute(op, left.values, right.values)
        values = np.broadcast_to(values, here.shape).copy()
        keep = None if keep is None else np.broadcast_to(keep, here.shape).copy()
    _with_number(evaluation, op, lhs & ~rhs, left, right, elements)
    if op == "*":
        _with_number(evaluation, op, rhs & ~lhs, right, left, elements)
    else:
        elements.refuse(rhs & ~lhs, _FLOAT_HISTOGRAM)
    both = lhs & rhs
    if op in ("==", "!="):
        _compare(evaluation, op, both, left, right, elements, keep)
    elif op in _SIGNS:
        _add(evaluation, op, both, left, right, elements)
    else:
        elements.refuse(both, _HISTOGRAM_HISTOGRAM)
    values[elements.index >= 0] = 0.0
    cells = cells_of(elements.index, Histograms.concat(elements.parts)) if elements.parts else None
    return Combined(values, elements.present, keep, cells, elements.notes)


def _mask(operand: Operand, here: np.ndarray) -> np.ndarray:
    return np.zeros_like(here) if operand.histograms is None else here & (operand.histograms.index >= 0)


def _with_number(
    evaluation: Evaluation, op: str, at: np.ndarray, histograms: Operand, numbers: Operand, elements: _Elements
) -> None:
    """Multiply, divide or trim histograms by numbers, where that is defined."""
    if op not in _BY_FACTOR:
        elements.refuse(at, _HISTOGRAM_FLOAT)
        return
    cells = np.nonzero(at)
    if not len(cells[0]):
        return
    columns, rows = columns_of(histograms.histograms.rows), histograms.histograms.index[cells]
    factors = np.broadcast_to(numbers.values, at.shape)[cells]
    works = workspaces([columns], 3)

    def step(output: Output) -> int:
        return apply_factors(columns, rows, factors, _BY_FACTOR[op], works, output)

    elements.put(cells, run_items(step, len(rows), evaluation.check, evaluation.limit_samples)[0])


def _add(evaluation: Evaluation, op: str, at: np.ndarray, left: Operand, right: Operand, elements: _Elements) -> None:
    """Add or subtract histograms."""
    cells = np.nonzero(at)
    if not len(cells[0]):
        return
    columns = columns_of(left.histograms.rows), columns_of(right.histograms.rows)
    pairs = np.stack((left.histograms.index[cells], right.histograms.index[cells]), axis=1)
    works = workspaces(columns, 3)

    def step(output: Output) -> int:
        return combine_pairs(*columns, pairs, _SIGNS[op], works, output)

    rows, flags = run_items(step, len(pairs), evaluation.check, evaluation.limit_samples)
    for flag, note in ((RECONCILED, _RECONCILED), (COLLISION, _COLLISION), (INCOMPATIBLE, _LAYOUT)):
        flagged = flags & flag != 0
        elements.notes[cells[0][flagged], cells[1][flagged]] = note
    hit = flags & ABSENT == 0
    elements.present[cells] = hit
    elements.put((cells[0][hit], cells[1][hit]), rows)


def _compare(
    evaluation: Evaluation,
    op: str,
    at: np.ndarray,
    left: Operand,
    right: Operand,
    elements: _Elements,
    keep: np.ndarray,
) -> None:
    """Compare histograms; the result is the left one."""
    cells = np.nonzero(at)
    if not len(cells[0]):
        return
    columns = columns_of(left.histograms.rows), columns_of(right.histograms.rows)
    rows, others = left.histograms.index[cells], right.histograms.index[cells]
    equal = np.empty(len(rows), bool)
    for part in evaluation.pieces(len(rows), HISTOGRAM_CELLS):
        compare_rows(*columns, rows[part], others[part], equal[part])
    keep[cells] = equal == (op == "==")
    used, places = np.unique(rows, return_inverse=True)
    elements.index[cells] = places
    elements.parts.append(left.histograms.rows.take(used))


def annotate(evaluation: Evaluation, node: Binary, notes: np.ndarray | None) -> None:
    """Tell, of each step, what is to be told of the last element that anything is to be told of."""
    if notes is None or not notes.any():
        return
    some = notes != 0
    last = len(notes) - 1 - np.argmax(some[::-1], axis=0)
    told = np.unique(notes[last, np.arange(notes.shape[1])][some.any(axis=0)])
    annotations, pos = evaluation.annotations, node.pos
    for note in told.tolist():
        if note in _KINDS:
            left, right = _KINDS[note]
            annotations.inform(texts.incompatible_types(left, node.op, right), pos)
        elif note == _LAYOUT:
            annotations.warn(texts.incompatible_layouts(node.op), pos)
        elif note == _COLLISION:
            annotations.warn(texts.conflicting_resets(_NAMES[node.op]), pos)
        else:
            annotations.inform(texts.reconciled_bounds(_NAMES[node.op]), pos)
