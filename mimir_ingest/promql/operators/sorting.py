"""Order of instant vectors: `sort`, `sort_desc`, `sort_by_label`, `sort_by_label_desc`, and of rankings.

Only an instant query has an order; in a range query these functions pass their argument through, with a warning.
"""

from __future__ import annotations

import itertools
import re

import numpy as np

from mimir_ingest.kernels.go_sort import go_sort_numbers
from mimir_ingest.promql import annotations as texts
from mimir_ingest.promql.operators.base import Evaluation, filled_rows
from mimir_ingest.promql.operators.go_sort import go_sorted
from mimir_ingest.promql.plan_nodes import Call, Text
from mimir_ingest.promql.values import Steps, VectorBlock

SORTS = frozenset(("sort", "sort_desc", "sort_by_label", "sort_by_label_desc"))
"""Names of the functions that `sort_series` evaluates."""

_CHUNKS = re.compile(r"[0-9]+|[^0-9]+")


def sort_series(evaluation: Evaluation, node: Call, steps: Steps) -> VectorBlock:
    """Evaluate a sort function."""
    block = evaluation.vector(node.args[0], steps)
    if node.name in ("sort", "sort_desc") and block.histograms is not None:
        block = filled_rows(block.where(block.float_present))
    if not steps.at_once:
        if steps.count:
            evaluation.annotations.warn(texts.SORT_IN_RANGE_QUERY, node.pos)
        return block
    if node.name in ("sort", "sort_desc"):
        block = block.take(block.present[:, 0])
        return block.take(go_order(evaluation, block.values[:, 0], descending=node.name == "sort_desc"))
    labels = [arg.value for arg in node.args[1:] if isinstance(arg, Text)]
    return block.take(_label_order(evaluation, block, labels, descending=node.name == "sort_by_label_desc"))


def go_order(evaluation: Evaluation, values: np.ndarray, *, descending: bool) -> np.ndarray:
    """Return the order of float64[n] by value, NaN last, with equal values as Go's `sort.Sort` leaves them."""
    order = np.lexsort((-values if descending else values, np.isnan(values)))
    inorder = values[order]
    if not (np.isnan(inorder[-1:]).any() or (inorder[1:] == inorder[:-1]).any()):
        return order  # Nothing is equal: there is one order.
    evaluation.check()
    order = np.empty(len(values), np.int64)
    go_sort_numbers(-values if descending else values.copy(), order)
    return order


def _label_order(evaluation: Evaluation, block: VectorBlock, labels: list[str], *, descending: bool) -> np.ndarray:
    """Return the order by some labels' values, digits as numbers, then by the whole label sets."""
    rank = np.empty(block.labels.n, np.int64)
    rank[block.labels.sort_order()] = np.arange(block.labels.n)
    columns = [block.labels.strings(label) for label in labels]
    sign = -1 if descending else 1
    compared = evaluation.watched(itertools.repeat(None))

    def compare(a: int, b: int) -> int:
        next(compared)
        for column in columns:
            if column[a] != column[b]:
                return -sign if natural_before(column[a], column[b]) else sign
        return sign * (int(rank[a]) - int(rank[b]))

    # An empty value comes neither before nor after any other (see natural_before): the algorithm decides.
    return go_sorted(block.labels.n, lambda a, b: compare(a, b) < 0)


def natural_before(a: str, b: str) -> bool:
    """Whether `a` comes before `b`: runs of digits compare as numbers, all else as text.

    Source: `facette/natsort` as of 2018-12-10, which Prometheus 3.14 uses; nothing comes before anything if `a` is "".
    """
    left, right = _CHUNKS.findall(a), _CHUNKS.findall(b)
    for i, chunk in enumerate(left):
        if i >= len(right):
            return False
        other = right[i]
        x, y = _as_int64(chunk), _as_int64(other)
        numbers = x is not None and y is not None
        if (x == y) if numbers else (chunk == other):
            if i == len(left) - 1:
                return True
            if i == len(right) - 1:
                return False
            continue
        return x < y if numbers else chunk.encode("utf-8", "surrogateescape") < other.encode("utf-8", "surrogateescape")
    return False


def _as_int64(text: str) -> int | None:
    if not text.isascii() or not text.isdigit() or len(text) > 4000:
        return None
    number = int(text)
    return number if number < 1 << 63 else None
