"""The state of one evaluation, and what all operators share.

An operator is a function `(evaluation, node, steps) -> VectorBlock | float64[steps]`: it evaluates its operands through
`evaluation`, then all their series at all steps in a few kernel calls. Operators know no clock and do no I/O.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import numpy as np

from mimir_ingest.errors import InvariantViolated, QueryError
from mimir_ingest.kernels.rows import find_conflict, merge_index, merge_rows
from mimir_ingest.model.labels import METRIC_NAME, LabelFrame, go_quote
from mimir_ingest.model.samples import TOO_MANY_SAMPLES, SeriesSamples
from mimir_ingest.model.threads import spread
from mimir_ingest.promql.annotations import Annotations
from mimir_ingest.promql.operators.peak import Holding, holding_of, most_beside, points_of
from mimir_ingest.promql.plan_nodes import PlanNode, Shift
from mimir_ingest.promql.quoting import quote_name
from mimir_ingest.promql.values import HistogramCells, QueryStats, Steps, VectorBlock, count_true

METADATA_LABELS = (METRIC_NAME, "__type__", "__unit__")
"""Labels that describe a metric; whatever changes its values' meaning drops them."""

SAME_LABELSET = "vector cannot contain metrics with the same labelset"

_Item = TypeVar("_Item")

HISTOGRAM_CELLS = 64
"""How many cells a native histogram counts for in `Evaluation.pieces`: its buckets."""

Operator = Callable[["Evaluation", PlanNode, Steps], "VectorBlock | np.ndarray"]

_CELLS_PER_SAMPLE, _LEAST_CELLS = 4, 1 << 24
# why: a cell takes 9 bytes, a sample of Prometheus 16 and its slack; below 150 MB the limit need not bite.

_CHUNK_CELLS = 1 << 17
# why: 131,072 cells take about 10 ms in the slowest common kernel: a cancelled query stops that soon, and threads that
# share a vector end together.

_PIECE_CELLS, _LEAST_STEPS, _ITEMS = 1 << 21, 16, 1 << 12
# why: what is worked on cell by cell takes 1 to 50 ns each, so a deadline that passes is seen within 0.1 s; smaller
# vectors, which are most, are worked on in one go, without a copy. 16 steps are two lines of a cache.


class Evaluation:
    """One query being evaluated; holds its annotations and counts its samples.

    In one thread, but for the kernels that `run_chunks` spreads over several.
    """

    def __init__(
        self,
        *,
        data: Sequence[SeriesSamples],
        lookback_ms: int,
        operators: Mapping[type, Operator],
        max_samples: int,
        interrupted: Callable[[], str | None],
        instant: bool,
        delayed_name_removal: bool,
        type_and_unit_labels: bool,
        stats: QueryStats,
    ) -> None:
        self.data = data
        self.lookback_ms = lookback_ms
        self.instant = instant
        self.delayed_name_removal = delayed_name_removal
        self.type_and_unit_labels = type_and_unit_labels
        self.annotations = Annotations()
        self.stats = stats
        self._operators = operators
        self._max_samples = max_samples
        self._interrupted = interrupted
        self._held = 0
        self._operands: list[VectorBlock | np.ndarray] = []
        """Of the node that is being evaluated, as far as they are known."""

    def check(self) -> None:
        """Raise QueryError if the query's time is over or it was cancelled."""
        reason = self._interrupted()
        if reason == "timeout":
            raise QueryError("query timed out in expression evaluation", error_type="timeout")
        if reason is not None:
            raise QueryError("query was canceled in expression evaluation", error_type="canceled")

    def limit_samples(self, more: int) -> None:
        """Raise QueryError if `more` samples, which will be held at least, are too many beside those held."""
        if self._held + more > self._max_samples:
            raise QueryError(TOO_MANY_SAMPLES)

    def note_samples(self, more: int) -> None:
        """Take `more` samples beside those held into account; raise QueryError if that is over the limit."""
        self.stats.peak_samples = max(self.stats.peak_samples, self._held + more)
        self.limit_samples(more)

    def hold(self, more: int) -> None:
        """Hold `more` samples; raise QueryError if that is over the limit."""
        self.note_samples(more)
        self._held += more

    def hold_windows(self, longest: np.ndarray, last: np.ndarray, kept: np.ndarray) -> None:
        """Hold what windows over one series after the other leave behind, int64[n] `kept`.

        While a series is worked on, its `longest` window is held beside what those before it left; then its `last` one.
        Raises QueryError if that is over the limit.
        """
        left = np.cumsum(kept)
        left_before = left - kept
        most = np.maximum(left_before + longest, left if kept is last else left + last)
        self.note_samples(int(most.max(initial=0)))
        self._held += int(left[-1]) if len(left) else 0

    def release(self, samples: int) -> None:
        """Hold so many samples less."""
        self._held -= samples

    @contextmanager
    def counting_apart(self, steps: Steps, *, per_step: bool) -> Iterator[QueryStats]:
        """Count what is evaluated inside in statistics of its own; only the peak goes on."""
        outer = self.stats
        self.stats = QueryStats.by_step(steps) if per_step else QueryStats()
        try:
            yield self.stats
        finally:
            outer.peak_samples = max(outer.peak_samples, self.stats.peak_samples)
            self.stats = outer

    def reserve(self, rows: int, steps: int) -> None:
        """Raise QueryError before arrays of `rows * steps` cells are made, if that is out of proportion to the limit.

        Absent points take room here, but do not count as samples; so more cells than samples are allowed.
        """
        if rows * steps > max(_LEAST_CELLS, _CELLS_PER_SAMPLE * self._max_samples):
            raise QueryError(TOO_MANY_SAMPLES)

    def evaluate(self, node: PlanNode, steps: Steps) -> VectorBlock | np.ndarray:
        """Evaluate a node at all steps: a block, or float64[steps] for a scalar."""
        self.check()
        self.reserve(1, steps.count)
        held, outer = self._held, self._operands
        self._operands = []
        value = self._operators[type(node)](self, node, steps)
        operands, self._operands = self._operands, outer
        points = points_of(value)
        holding = holding_of(node)
        if holding is Holding.STEPS:
            self.note_samples(most_beside(node, operands, value, points))
        if holding is not Holding.OWN:
            self._held = held
            self.hold(points)
        outer.append(value)
        return value

    def vector(self, node: PlanNode, steps: Steps) -> VectorBlock:
        """Evaluate a node that is an instant vector; without any step (in a subquery) nothing is, and nothing fails."""
        if not steps.count:
            self._operands.append(VectorBlock.empty(0))
            return self._operands[-1]
        value = self.evaluate(node, steps)
        if not isinstance(value, VectorBlock):
            raise InvariantViolated(f"{type(node).__name__} at {node.pos} gave a scalar where a vector is due")
        return value

    def scalar(self, node: PlanNode, steps: Steps) -> np.ndarray:
        """Evaluate a node that is a scalar: float64[steps]."""
        value = self.evaluate(node, steps)
        if isinstance(value, VectorBlock):
            raise InvariantViolated(f"{type(node).__name__} at {node.pos} gave a vector where a scalar is due")
        return value

    def pieces(self, count: int, width: int = 1) -> Iterator[slice]:
        """Yield slices that cover `count` places of `width` cells each, one at least; raise as `check` before each."""
        size = max(1, _PIECE_CELLS // max(1, width))
        for first in range(0, max(1, count), size):
            self.check()
            yield slice(first, min(count, first + size))

    def step_pieces(self, rows: int, steps: int) -> Iterator[slice]:
        """Yield slices of the steps of `rows` rows, as `pieces`, for kernels that work along the rows."""
        for lines in self.pieces(-(-steps // _LEAST_STEPS), rows * _LEAST_STEPS):
            yield slice(lines.start * _LEAST_STEPS, min(steps, lines.stop * _LEAST_STEPS))

    def map_cells(self, work: Callable[..., np.ndarray], *operands: np.ndarray) -> np.ndarray:
        """Return `work(*operands)`, an elementwise function, worked out a piece at a time; raise as `check`.

        The operands broadcast to [rows, steps] or [steps].
        """
        shape = np.broadcast_shapes(*(operand.shape for operand in operands))
        if np.prod(shape) <= _PIECE_CELLS:
            self.check()
            return work(*operands)
        views = [np.atleast_2d(view) for view in np.broadcast_arrays(*operands)]
        rows, steps = views[0].shape
        out = None
        for across in self.pieces(rows, steps):
            for along in self.pieces(steps) if steps > _PIECE_CELLS else (slice(None),):
                part = work(*(view[across, along] for view in views))
                out = np.empty((rows, steps), part.dtype) if out is None else out
                out[across, along] = part
        return out.reshape(shape)

    def watched(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Yield the items, for loops in Python; raise as `check` every few thousand."""
        for number, item in enumerate(items):
            if number % _ITEMS == 0:
                self.check()
            yield item

    def run_chunks(self, rows: int, columns: int, work: Callable[[int, int], int], *, weight: int = 1) -> int:
        """Run `work(first, last)` over all rows, a bounded number of cells at a time, in a few threads.

        A cell takes `weight` times as long as a usual one. `work` returns how many points it made, which will be held.
        Returns the number of points. Raises QueryError between chunks: time is over, cancelled, too many samples.
        """
        size = max(1, _CHUNK_CELLS // max(1, columns * weight))
        if 0 < rows <= size:
            self.check()
            made = work(0, rows)
            self.limit_samples(made)
            return made
        lock, points = threading.Lock(), 0

        def chunk(first: int) -> None:
            nonlocal points
            self.check()
            made = work(first, min(rows, first + size))
            with lock:
                points += made
                self.limit_samples(points)

        spread(chunk, range(0, rows, size))
        return points

    def drop_name(
        self,
        block: VectorBlock,
        *,
        strict: bool = False,
        apart: bool = False,
        names: Sequence[str] = METADATA_LABELS,
    ) -> VectorBlock:
        """Return the block without metric names, or marked so; rows that then have equal labels are merged.

        `strict` and `apart` as in `unique_rows`; `names` are the labels to drop.
        """
        if self.delayed_name_removal:
            return replace(block, drop_name=np.ones(block.labels.n, bool))
        bare = block.relabelled(block.labels.drop(names))
        return unique_rows(bare, strict=strict, apart=apart) if _varies(block.labels, names) else bare


def fold_steps(
    kernel: Callable[..., object],
    at: slice,
    values: np.ndarray,
    present: np.ndarray,
    values_out: np.ndarray,
    present_out: np.ndarray,
) -> None:
    """Run `kernel(values, present, values_out, present_out)`, which takes whole arrays, over some steps of rows."""
    parts = [np.ascontiguousarray(column[:, at]) for column in (values_out, present_out)]
    kernel(np.ascontiguousarray(values[:, at]), np.ascontiguousarray(present[:, at]), *parts)
    for column, part in zip((values_out, present_out), parts, strict=True):
        if not np.may_share_memory(column, part):
            column[:, at] = part


def reference_times(shift: Shift, steps: Steps) -> np.ndarray:
    """Return int64[steps]: where a selector looks at each step (ms)."""
    if shift.at_ms is not None:
        return np.full(steps.count, shift.at_ms - shift.offset_ms, np.int64)
    return steps.times_ms - shift.offset_ms if shift.offset_ms else steps.times_ms


def unique_rows(block: VectorBlock, *, strict: bool = False, apart: bool = False) -> VectorBlock:
    """Merge rows of equal labels; raise QueryError if two are present at one step (or at all, if `strict`).

    `apart`: a number and a histogram may meet; all numbers are in one row then, and all histograms in another.
    """
    ids, first = block.labels.group_ids()
    if len(first) == block.labels.n:
        return block
    here = np.ascontiguousarray(block.present)
    conflict = np.empty(3, np.int64)
    if apart and block.histograms is not None and find_conflict(ids, len(first), here, conflict):
        kinds = (block.float_present, block.histogram_present)
        return VectorBlock.concat([unique_rows(filled_rows(block.where(present))) for present in kinds])
    if strict or find_conflict(ids, len(first), here, conflict):
        raise QueryError(SAME_LABELSET)
    shape = (len(first), block.values.shape[1])
    values, present = np.empty(shape), np.empty(shape, bool)
    merge_rows(ids, np.ascontiguousarray(block.values), here, values, present)
    merged = VectorBlock(block.labels.take(first), values, present, block.drop_name[first])
    if block.histograms is None:
        return merged
    index = np.empty(shape, np.int64)
    merge_index(ids, np.ascontiguousarray(block.histograms.index), here, index)
    return replace(merged, histograms=HistogramCells(index, block.histograms.rows, block.histograms.weights))


def filled_rows(block: VectorBlock) -> VectorBlock:
    """Return the block without series that are never present."""
    cells = block.present.size
    if cells and count_true(block.present) == cells:
        return block
    filled = block.present.any(axis=1)
    return block if filled.all() else block.take(filled)


def format_labels(labels: Mapping[str, str]) -> str:
    """Print a label set as Prometheus's `Labels.String`: `{a="b", "c.d"="e"}`."""
    return "{" + ", ".join(f"{quote_name(name)}={go_quote(value)}" for name, value in sorted(labels.items())) + "}"


def row_labels(frame: LabelFrame, row: int) -> dict[str, str]:
    """Return the labels of one series."""
    return frame.take(np.array([row])).to_dicts()[0]


def _varies(frame: LabelFrame, names: Sequence[str]) -> bool:
    """Whether any of the labels differs between series, so that dropping them may make label sets equal."""
    if frame.n < 2:
        return False
    columns = (frame.column(name) for name in names)
    return any(c is not None and c[0].min() != c[0].max() for c in columns)
