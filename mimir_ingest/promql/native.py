"""Native histograms between columns and kernels: room for results, run until all are done.

Kernels write histograms of a size that is not known before; they stop when their room is full and go on in new room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mimir_ingest.kernels.native_buckets import weigh_histograms
from mimir_ingest.kernels.native_columns import Native, Output, Workspace, make_columns, make_workspace
from mimir_ingest.model.histograms import Histograms
from mimir_ingest.promql.values import HistogramCells

_LEAST_BUCKETS, _MOST_BUCKETS = 1 << 12, 1 << 21
"""Room of one output: 2 M buckets take 24 MB, about 10 ms of work."""
_MOST_MEMBERS = 1 << 17
"""Histograms that one call looks at, but for a single item with more: about 30 ms of work."""


def columns_of(histograms: Histograms) -> Native:
    """Return the columns as kernels take them: contiguous and writable."""
    return Native(*(np.require(getattr(histograms, name), None, ("C", "W")) for name in Native._fields))


def weigh(histograms: Histograms, *, in_vector: bool = False) -> np.ndarray:
    """Return int64[n]: how many samples each histogram counts for, by the memory Prometheus gives it.

    `in_vector`: as an element of a vector and not as a point of a series; half of them are one more there.
    """
    weights = np.empty(len(histograms), np.int64)
    weigh_histograms(columns_of(histograms), 8 if in_vector else 0, weights)
    return weights


def cells_of(index: np.ndarray, rows: Histograms) -> HistogramCells:
    """Return cells with their weights."""
    return HistogramCells(index, rows, weigh(rows))


def workspaces(columns: Sequence[Native], count: int) -> tuple[Workspace, ...]:
    """Return `count` workspaces that hold any sum of rows of the columns, which have at most so many buckets a side."""
    indexes = [c.bucket_index for c in columns if len(c.bucket_index)]
    spread = max(int(i.max()) for i in indexes) - min(int(i.min()) for i in indexes) + 1 if indexes else 0
    buckets = sum(len(i) for i in indexes)
    customs = max((int(np.diff(c.custom_offsets).max(initial=0)) for c in columns), default=0)
    return tuple(make_workspace(min(spread, buckets), customs) for _ in range(count))


def run_items(
    step: Callable[[Output], int],
    items: int,
    check: Callable[[], None],
    weigh_more: Callable[[int], None],
    members: np.ndarray | None = None,
) -> tuple[Histograms, np.ndarray]:
    """Run a kernel until all of `items` are done; return (the histograms, flags of all items, int64[items]).

    Parameters
    ----------
    step : callable
        Runs the kernel with an Output and returns the number of items done.
    items : int
    check : callable
        Called between the parts of the work.
    weigh_more : callable
        Told how many samples the results so far count for; may raise.
    members : int64[items], optional
        How many histograms each item is made of; 1 if not given.
    """
    flags = np.zeros(items, np.int64)
    parts: list[Histograms] = []
    size, done, weight = _LEAST_BUCKETS, 0, 0
    reached = None if members is None else np.cumsum(members)
    while done < items:
        check()
        rows = min(items - done, size)
        if reached is not None:
            limit = (reached[done - 1] if done else 0) + _MOST_MEMBERS
            rows = min(rows, max(1, int(np.searchsorted(reached, limit, "right")) - done))
        columns = make_columns(rows, size, size)
        output = Output(columns, np.array((done, 0), np.int64), flags)
        before, done = done, step(output)
        # A single histogram may be larger than all the room.
        size = 2 * size if done == before else min(2 * size, _MOST_BUCKETS)
        if output.cursor[1]:
            parts.append(_trimmed(columns, int(output.cursor[1])))
            weight += int(weigh(parts[-1]).sum())
            weigh_more(weight)
    return Histograms.concat(parts), flags


def _trimmed(columns: Native, rows: int) -> Histograms:
    """Return the first `rows` of the columns without the room behind them."""
    buckets, customs = int(columns.bucket_offsets[2 * rows]), int(columns.custom_offsets[rows])
    return Histograms(
        schema=columns.schema[:rows].copy(),
        reset_hint=columns.reset_hint[:rows].copy(),
        is_float=np.ones(rows, bool),
        zero_threshold=columns.zero_threshold[:rows].copy(),
        zero_count=columns.zero_count[:rows].copy(),
        count=columns.count[:rows].copy(),
        sum=columns.sum[:rows].copy(),
        bucket_offsets=columns.bucket_offsets[: 2 * rows + 1].copy(),
        bucket_index=columns.bucket_index[:buckets].copy(),
        bucket_count=columns.bucket_count[:buckets].copy(),
        custom_offsets=columns.custom_offsets[: rows + 1].copy(),
        custom_values=columns.custom_values[:customs].copy(),
    )
