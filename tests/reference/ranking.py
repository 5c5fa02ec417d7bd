"""The heap of topk and bottomk over (row, value) of one group at a step. Source: Go container/heap; Prometheus 3.14."""

from __future__ import annotations

import math
from collections.abc import Sequence


def _less(a: float, b: float, reverse: bool) -> bool:
    return math.isnan(a) or (a > b if reverse else a < b)


def keep(items: Sequence[tuple[int, float]], limit: int, kind: str) -> list[int]:
    """Return the rows kept, in the order of the heap; `kind` is `top`, `bottom` or `first`."""
    heap: list[tuple[int, float]] = []
    reverse = kind == "bottom"
    if limit < 1:
        return []
    for item in items:
        if len(heap) < limit:
            heap.append(item)
            at = len(heap) - 1
            while at and _less(heap[at][1], heap[(at - 1) // 2][1], reverse):
                heap[at], heap[(at - 1) // 2] = heap[(at - 1) // 2], heap[at]
                at = (at - 1) // 2
            continue
        worst, value = heap[0][1], item[1]
        better = value < worst if reverse else value > worst
        if kind == "first" or not (better or (math.isnan(worst) and not math.isnan(value))):
            continue
        heap[0] = item
        at = 0
        while limit > 1:
            children = [c for c in (2 * at + 1, 2 * at + 2) if c < len(heap)]
            if not children:
                break
            child = children[0]
            if len(children) == 2 and _less(heap[children[1]][1], heap[child][1], reverse):
                child = children[1]
            if not _less(heap[child][1], heap[at][1], reverse):
                break
            heap[at], heap[child] = heap[child], heap[at]
            at = child
    return [row for row, _ in heap]
