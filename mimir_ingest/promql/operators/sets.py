"""Set operators: `and`, `or`, `unless`, by the labels that vectors are matched on.

Source: Prometheus 3.14 `promql/engine.go` `VectorAnd`, `VectorOr`, `VectorUnless`.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels.aggregate import GROUP, fold_rows
from mimir_ingest.model.labels import METRIC_NAME, LabelFrame
from mimir_ingest.promql.nodes import VectorMatching
from mimir_ingest.promql.operators.base import Evaluation, filled_rows, fold_steps, unique_rows
from mimir_ingest.promql.plan_nodes import Binary
from mimir_ingest.promql.values import VectorBlock


def matched_labels(frame: LabelFrame, matching: VectorMatching) -> LabelFrame:
    """Return the labels by which series find each other, of each series."""
    if matching.on:
        return frame.keep(matching.labels)
    return frame.drop((METRIC_NAME, *matching.labels))


def signatures(lhs: LabelFrame, rhs: LabelFrame, matching: VectorMatching) -> tuple[np.ndarray, np.ndarray, int]:
    """Return int64[n] and int64[m], the signature of each series of both sides, and how many there are."""
    both = LabelFrame.concat([matched_labels(lhs, matching), matched_labels(rhs, matching)])
    ids, first = both.group_ids()
    return ids[: lhs.n], ids[lhs.n :], len(first)


def present_by_signature(evaluation: Evaluation, block: VectorBlock, ids: np.ndarray, count: int) -> np.ndarray:
    """Return bool[count, steps]: where any series of a signature is present."""
    shape = (count, block.present.shape[1])
    ones, present = np.empty(shape), np.empty(shape, bool)
    for at in evaluation.step_pieces(*block.present.shape):
        fold_steps(
            lambda *parts: fold_rows(ids, *parts[:2], GROUP, *parts[2:]), at, block.values, block.present, ones, present
        )
    return present


def combine_sets(evaluation: Evaluation, node: Binary, lhs: VectorBlock, rhs: VectorBlock) -> VectorBlock:
    """Evaluate a set operator."""
    left_ids, right_ids, count = signatures(lhs.labels, rhs.labels, node.matching)
    if node.op == "or":
        taken = present_by_signature(evaluation, lhs, left_ids, count)
        rest = filled_rows(rhs.where(rhs.present & ~taken[right_ids]))
        return unique_rows(VectorBlock.concat([lhs, rest]))
    there = present_by_signature(evaluation, rhs, right_ids, count)[left_ids]
    present = lhs.present & (there if node.op == "and" else ~there)
    return filled_rows(lhs.where(present))
