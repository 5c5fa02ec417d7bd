"""How many samples Prometheus holds at a time while it evaluates an operator, for `stats` and `-querier.max-samples`.

It walks over the steps: what the operands have at all steps is held, the result so far, and the operands' samples of
the step once more. Functions of range vectors go over one series after the other. See `docs/decisions/0011`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mimir_ingest.promql.native import weigh
from mimir_ingest.promql.plan_nodes import (
    Aggregate,
    Binary,
    Call,
    InfoJoin,
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


class Holding(enum.Enum):
    """How the samples of an operator's result come to be held."""

    STEPS = "step by step, beside the operands, which then are let go of"
    INSTEAD = "in the place of the operands, step by step"
    OWN = "as the operator says itself, or just as those of its only operand"


def holding_of(node: PlanNode) -> Holding:
    """Return how the samples of a node's result come to be held."""
    match node:
        case Aggregate():
            return Holding.STEPS if node.op == "count_values" else Holding.INSTEAD
        case Call():
            return Holding.OWN if node.name in _RELABELLING or _reads_windows(node) else Holding.STEPS
        case InstantSelect():
            return Holding.OWN if node.smoothed else Holding.STEPS
        case InfoJoin() | Negate() | Plus() | StepInvariant():
            return Holding.OWN
    return Holding.STEPS


def most_beside(node: PlanNode, operands: Sequence[Value], result: Value, points: int) -> int:
    """Return the most samples that are held beside those of the operands: the result so far, and a step's operands.

    `points` is what the result counts for.
    """
    if not isinstance(node, Aggregate | Binary | Call):
        return points
    if isinstance(node, Call) and node.args and isinstance(node.args[0], InstantSelect) and not operands:
        operands = (result,)  # `timestamp` reads the selector's samples itself
    steps = _steps_of(result)
    if not operands or not steps or any(_steps_of(operand) != steps for operand in operands):
        return points
    return most_at_a_step(operands, result)


def most_at_a_step(operands: Sequence[Value], result: Value) -> int:
    """Return the most samples of the result up to a step and of the operands at it; all have the same steps."""
    gathered = sum(_elements_by_step(operand) for operand in operands)
    by_step = np.broadcast_to(_points_by_step(result), _steps_of(result))
    return int(np.max(np.cumsum(by_step) + gathered, initial=0))


def _reads_windows(node: Call) -> bool:
    return any(isinstance(arg, RangeSelect | Subquery) for arg in node.args)


def points_of(value: Value) -> int:
    """Return how many samples a value counts for, over all steps."""
    return value.points if isinstance(value, VectorBlock) else len(value)


def _steps_of(value: Value) -> int:
    return value.values.shape[1] if isinstance(value, VectorBlock) else len(value)


def _points_by_step(value: Value) -> int | np.ndarray:
    """Return the samples at each step: int64[steps], or the number if it is the same at all of them."""
    if isinstance(value, VectorBlock) and value.histograms is not None:
        weights = weigh(value.histograms.rows, in_vector=True)
        return replace(value, histograms=replace(value.histograms, weights=weights)).points_by_step
    return _elements_by_step(value)


def _elements_by_step(value: Value) -> int | np.ndarray:
    """Do the same with a histogram counted as one: what Prometheus gathers of an operand are elements of a vector."""
    if not isinstance(value, VectorBlock):
        return 1
    if np.count_nonzero(value.present) == value.present.size:
        return len(value.present)
    return np.count_nonzero(value.present, axis=0)
