"""How many samples Prometheus holds at a time while it evaluates an operator, for `stats` and `-querier.max-samples`.

It walks over the steps: what the operands have at all steps is held, the result so far, and the operands' samples of
the step once more. Found by comparing `peakSamples` of Prometheus 3.14; see `docs/decisions/0011`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mimir_ingest.promql.plan_nodes import (
    Aggregate,
    Binary,
    Call,
    InstantSelect,
    Negate,
    PlanNode,
    Plus,
    RangeSelect,
    StepInvariant,
    Subquery,
)
from mimir_ingest.promql.values import VectorBlock

Value = VectorBlock | np.ndarray

_RELABELLING = frozenset(("label_join", "label_replace"))


def takes_over(node: PlanNode) -> bool:
    """Whether a node's result takes the place of its operand, so that the two are never held side by side.

    Aggregations free what they have read, step by step.
    """
    match node:
        case Aggregate():
            return node.op != "count_values"
        case Call():
            return node.name in _RELABELLING
    return isinstance(node, Negate | Plus | StepInvariant)


def most_at_a_step(node: PlanNode, operands: Sequence[Value], result: Value) -> int:
    """Return the most samples that are held beside those of the operands: the result so far, and a step's operands."""
    if not isinstance(node, Aggregate | Binary | Call) or _reads_windows(node):
        return points_of(result)
    if isinstance(node, Call) and node.args and isinstance(node.args[0], InstantSelect) and not operands:
        operands = (result,)  # `timestamp` reads the selector's samples itself
    steps = _steps_of(result)
    if not operands or not steps or any(_steps_of(operand) != steps for operand in operands):
        return points_of(result)
    gathered = sum(_elements_by_step(operand) for operand in operands)
    return int(np.max(np.cumsum(np.broadcast_to(_points_by_step(result), steps)) + gathered))


def _reads_windows(node: PlanNode) -> bool:
    return isinstance(node, Call) and any(isinstance(arg, RangeSelect | Subquery) for arg in node.args)


def points_of(value: Value) -> int:
    """Return how many samples a value counts for, over all steps."""
    return value.points if isinstance(value, VectorBlock) else len(value)


def _steps_of(value: Value) -> int:
    return value.values.shape[1] if isinstance(value, VectorBlock) else len(value)


def _points_by_step(value: Value) -> int | np.ndarray:
    """Return the samples at each step: int64[steps], or the number if it is the same at all of them."""
    if isinstance(value, VectorBlock) and value.histograms is not None:
        return value.points_by_step
    return _elements_by_step(value)


def _elements_by_step(value: Value) -> int | np.ndarray:
    """Do the same with a histogram counted as one: what Prometheus gathers of an operand are elements of a vector."""
    if not isinstance(value, VectorBlock):
        return 1
    if np.count_nonzero(value.present) == value.present.size:
        return len(value.present)
    return np.count_nonzero(value.present, axis=0)
