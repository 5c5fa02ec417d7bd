"""Functions of range vectors: every window of every series reduced to a value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from mimir_ingest.errors import QueryError
from mimir_ingest.kernels import over_time, trend, windows
from mimir_ingest.kernels.lookback import locate_windows
from mimir_ingest.model.labels import METRIC_NAME, LabelFrame
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.promql import annotations as texts
from mimir_ingest.promql.nodes import PosRange
from mimir_ingest.promql.number_text import format_fixed
from mimir_ingest.promql.operators.base import Evaluation, filled_rows
from mimir_ingest.promql.operators.native_rollups import Rolled, RollupCall, count_windows, roll_up_histograms
from mimir_ingest.promql.operators.selectors import range_samples, samples_in
from mimir_ingest.promql.plan_nodes import Call, PlanNode, RangeSelect, Subquery
from mimir_ingest.promql.values import RangeBlock, Steps, VectorBlock

_USUAL_SAMPLES = 16
_LONGEST_ROW = 1 << 19
# why: 10 to 100 ms in a kernel that looks at all samples of each window, as for most cells of other operators.

_COUNTER_SUFFIXES = ("_total", "_sum", "_count", "_bucket")
_KEEPS_NAME = frozenset(("first_over_time", "last_over_time"))
_ANCHORED = ("changes", "delta", "increase", "rate", "resets")
_SMOOTHED = ("delta", "increase", "rate")

_RATES = {
    "rate": windows.COUNTER | windows.PER_SECOND,
    "increase": windows.COUNTER,
    "delta": 0,
}
_REDUCTIONS = {
    "avg_over_time": over_time.AVG,
    "changes": over_time.CHANGES,
    "count_over_time": over_time.COUNT,
    "first_over_time": over_time.FIRST,
    "idelta": over_time.IDELTA,
    "irate": over_time.IRATE,
    "last_over_time": over_time.LAST,
    "max_over_time": over_time.MAX,
    "min_over_time": over_time.MIN,
    "present_over_time": over_time.PRESENT,
    "resets": over_time.RESETS,
    "stddev_over_time": over_time.STDDEV,
    "stdvar_over_time": over_time.STDVAR,
    "sum_over_time": over_time.SUM,
    "ts_of_first_over_time": over_time.FIRST_TIME,
    "ts_of_last_over_time": over_time.LAST_TIME,
    "ts_of_max_over_time": over_time.MAX_TIME,
    "ts_of_min_over_time": over_time.MIN_TIME,
}
_TRENDS = {
    "deriv": trend.DERIV,
    "predict_linear": trend.PREDICT_LINEAR,
    "double_exponential_smoothing": trend.DOUBLE_EXPONENTIAL,
}
_RANKS = ("mad_over_time", "quantile_over_time")

ROLLUPS = frozenset((*_RATES, *_REDUCTIONS, *_TRENDS, *_RANKS, "absent_over_time"))
"""Names of the functions that `roll_up` evaluates."""


def roll_up(evaluation: Evaluation, node: Call, steps: Steps) -> VectorBlock:
    """Evaluate a function of a range vector."""
    at = next(i for i, arg in enumerate(node.args) if _is_range(arg))
    ranged = node.args[at]
    _check_modifiers(node.name, ranged)
    block, ends, range_ms = range_samples(evaluation, ranged, steps)
    scalars = [evaluation.scalar(arg, steps) for i, arg in enumerate(node.args) if i != at]
    reads = isinstance(ranged, RangeSelect)
    plain = not (reads and (ranged.anchored or ranged.smoothed))
    windowed = _Windows(evaluation, block, ends, range_ms, reads=reads, plain=plain)
    if node.name in _RATES:
        values, present = _rate(windowed, node.name, ranged)
    elif node.name in _TRENDS:
        values, present = _fit(windowed, node.name, scalars, steps)
    elif node.name in _RANKS:
        values, present = _rank(windowed, node, scalars)
    else:
        values, present = _reduce(windowed, node.name, ranged)
    # Prometheus evaluates a subquery into a range vector that has no position of its own.
    pos = ranged.pos if reads else PosRange(0, 0)
    if evaluation.stats.per_step:
        windowed.count_steps(ranged)
    rolled = Rolled(values, present)
    if block.histograms is not None:
        mode = _RATES.get(node.name, 0) | _extension(ranged)
        first_pos = pos if at == 0 else node.args[0].pos
        anchored = isinstance(ranged, RangeSelect) and ranged.anchored
        series, sizes = roll_up_histograms(
            RollupCall(evaluation, node.name, block, ends, range_ms, mode, anchored, reads, pos, first_pos), rolled
        )
        if sizes.size:
            windowed.longest[series], windowed.last[series] = sizes.max(axis=1), sizes[:, -1]
    result = VectorBlock(block.labels, values, present, block.drop_name, rolled.histograms)
    evaluation.hold_windows(windowed.longest, windowed.last, result.points_by_row)
    if not reads:
        evaluation.release(samples_in(block))
    if node.name == "absent_over_time":
        return VectorBlock(*_absent(ranged, present))
    if node.name == "ts_of_last_over_time":
        np.maximum(values, 0.0, out=values)  # the latest of 0, the last number and the last histogram
    result = filled_rows(result)
    if node.name in ("rate", "increase"):
        _note_non_counters(evaluation, result, pos)
    if node.name not in _KEEPS_NAME:
        result = evaluation.drop_name(result, strict=True)
    return result


def _is_range(node: PlanNode) -> bool:
    return isinstance(node, RangeSelect | Subquery)


def _check_modifiers(name: str, node: PlanNode) -> None:
    """Raise QueryError if the function does not take `anchored` or `smoothed` range vectors."""
    if not isinstance(node, RangeSelect):
        return
    for modifier, used, allowed in (("anchored", node.anchored, _ANCHORED), ("smoothed", node.smoothed, _SMOOTHED)):
        if used and name not in allowed:
            raise QueryError(f"{modifier} modifier can only be used with: {', '.join(allowed)} - not with {name}")


class _Windows:
    """The windows of one range vector, ready for a kernel."""

    def __init__(
        self, evaluation: Evaluation, block: RangeBlock, ends: np.ndarray, range_ms: int, *, reads: bool, plain: bool
    ) -> None:
        self.evaluation, self.block, self.ends, self.range_ms = evaluation, block, ends, range_ms
        self._reads = reads
        self._plain = plain
        """Whether the windows are neither `anchored` nor `smoothed`."""
        self.longest = self.last = np.zeros(block.labels.n, np.int64)
        """int64[n] each, once run: the samples of each series' longest window and of its last."""

    @property
    def _weight(self) -> int:
        """How much longer a window takes than a usual one, from the samples that it has on average."""
        if not len(self.ends) or not self.block.labels.n:
            return 1
        span_ms = int(self.ends[-1] - self.ends[0]) + self.range_ms
        samples = len(self.block.timestamps) // self.block.labels.n * self.range_ms // max(1, span_ms)
        return max(1, samples // _USUAL_SAMPLES)

    def run(
        self, kernel: Callable, *arguments: np.ndarray, by_step: np.ndarray | None = None, counts: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Run a kernel over all series, a chunk at a time; return (values, present), both [n, steps].

        `by_step` (float64[..., steps]) is a last argument that goes with the steps. A single series with many long
        windows is worked on a few steps at a time.

        `counts`: whether the kernel takes `counts_out`; else the windows are measured beside it.
        """
        block, ends, stats = self.block, self.ends, self.evaluation.stats
        shape = (block.labels.n, len(ends))
        self.evaluation.reserve(*shape)
        values, present = np.empty(shape), np.empty(shape, bool)
        counts_of_chunks, weight, sizes = [], self._weight, np.zeros((shape[0], 2), np.int64)
        long_rows = self._plain and len(ends) * weight > _LONGEST_ROW

        def chunk(a: int, b: int) -> int:
            counted = np.zeros(2 + 2 * (b - a), np.int64)
            offsets, found = block.offsets[a : b + 1], 0
            measured = long_rows or not counts
            if measured:
                windows.measure_windows(offsets, block.timestamps, ends, self.range_ms, counted)
            for at in self.evaluation.pieces(len(ends), 4 * weight) if long_rows else (slice(None),):
                own = arguments if by_step is None else (*arguments, np.ascontiguousarray(by_step[..., at]))
                out = (values[a:b, at], present[a:b, at])
                told = () if not counts else (np.zeros_like(counted),) if measured else (counted,)
                found += kernel(offsets, block.timestamps, block.values, ends[at], *own, *out, *told)
            counts_of_chunks.append(counted[:2])
            sizes[a:b] = counted[2:].reshape(-1, 2)
            return found

        self.evaluation.run_chunks(*shape, chunk, weight=weight)
        self.longest, self.last = sizes.T
        counted = sum(counts_of_chunks, np.zeros(2, np.int64))
        stats.total_queryable_samples += int(counted[0])
        if self._reads:
            stats.samples_read += int(counted[1])
        return values, present

    def count_steps(self, node: PlanNode) -> None:
        """Add the floats of the windows to the counts of each step."""
        lookback = self.evaluation.lookback_ms
        reach = np.array((self.range_ms, 0))
        if isinstance(node, RangeSelect) and (node.anchored or node.smoothed):
            reach += (lookback, lookback if node.smoothed else 0)
        counts = []

        def chunk(a: int, b: int) -> int:
            first, last = np.empty((2, b - a, len(self.ends)), np.int64)
            locate_windows(self.block.offsets[a : b + 1], self.block.timestamps, self.ends, reach, first, last)
            counts.append(count_windows(first, last))
            return 0

        self.evaluation.run_chunks(self.block.labels.n, len(self.ends), chunk)
        for total, read in counts:
            self.evaluation.stats.add_steps(total, read if self._reads else 0)


def _extension(node: PlanNode) -> int:
    """Return ANCHORED or SMOOTHED of a range vector, 0 if it is plain."""
    if not isinstance(node, RangeSelect):
        return 0
    return windows.ANCHORED if node.anchored else windows.SMOOTHED if node.smoothed else 0


def _rate(windowed: _Windows, name: str, node: PlanNode) -> tuple[np.ndarray, np.ndarray]:
    mode = _RATES[name] | _extension(node)
    if mode & (windows.ANCHORED | windows.SMOOTHED):
        window = np.array((windowed.range_ms, mode, windowed.evaluation.lookback_ms))
        return windowed.run(windows.extend_rate, window)
    return windowed.run(windows.extrapolate_rate, np.array((windowed.range_ms, mode)))


def _reduce(windowed: _Windows, name: str, node: PlanNode) -> tuple[np.ndarray, np.ndarray]:
    anchor_ms = windowed.evaluation.lookback_ms if isinstance(node, RangeSelect) and node.anchored else 0
    operation = _REDUCTIONS.get(name, over_time.PRESENT)
    return windowed.run(over_time.reduce_windows, np.array((windowed.range_ms, operation, anchor_ms)))


def _fit(windowed: _Windows, name: str, scalars: list[np.ndarray], steps: Steps) -> tuple[np.ndarray, np.ndarray]:
    arguments = np.zeros((3, steps.count))
    arguments[0] = steps.times_ms
    for row, scalar in enumerate(scalars, 1):
        arguments[row] = scalar
    values, present = windowed.run(
        trend.fit_windows, np.array((windowed.range_ms, _TRENDS[name])), by_step=arguments, counts=False
    )
    if name == "double_exponential_smoothing":
        _check_factors(windowed, arguments)
    return values, present


def _check_factors(windowed: _Windows, arguments: np.ndarray) -> None:
    """Raise QueryError for the first step whose factors are not in (0, 1), if any series has samples there.

    Histograms are samples, too.
    """
    valid = (arguments[1:] > 0) & (arguments[1:] < 1)
    # Prometheus compares with <= and >=, so NaN passes.
    valid |= np.isnan(arguments[1:])
    if valid.all():
        return
    used = windowed.run(over_time.reduce_windows, np.array((windowed.range_ms, over_time.PRESENT, 0)))[1].any(axis=0)
    points = windowed.block.histograms
    if points is not None:
        first, last = np.empty((2, len(points.offsets) - 1, len(windowed.ends)), np.int64)
        locate_windows(points.offsets, points.timestamps, windowed.ends, np.array((windowed.range_ms, 0)), first, last)
        used |= (last > first).any(axis=0)
    bad = np.flatnonzero(used & ~valid.all(axis=0))
    if len(bad):
        row = 0 if not valid[0, bad[0]] else 1
        name, symbol = (("smoothing", "sf"), ("trend", "tf"))[row]
        got = format_fixed(float(arguments[1 + row, bad[0]]))
        raise QueryError(f"invalid {name} factor. Expected: 0 < {symbol} < 1, got: {got}")


def _rank(windowed: _Windows, node: Call, scalars: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    window = np.array((windowed.range_ms,))
    if not scalars:
        return windowed.run(over_time.deviation_windows, window, counts=False)
    quantiles = np.ascontiguousarray(scalars[0])
    values, present = windowed.run(over_time.quantile_windows, window, by_step=quantiles, counts=False)
    outside = ~((quantiles >= 0) & (quantiles <= 1)) & present.any(axis=0)
    for q in np.unique(quantiles[outside]):
        windowed.evaluation.annotations.warn(texts.invalid_quantile(float(q)), node.args[0].pos)
    return values, present


def _absent(node: PlanNode, present: np.ndarray) -> tuple[LabelFrame, np.ndarray, np.ndarray, np.ndarray]:
    """Return the columns of `absent_over_time`: one series where no window has samples, none if all have."""
    absent = ~present.any(axis=0)[None, :]
    matchers = node.matchers if isinstance(node, RangeSelect) else ()
    frame = LabelFrame.from_dicts([absent_labels(matchers)])
    rows = slice(None) if absent.any() else slice(0)
    index = np.arange(1)[rows]
    return frame.take(index), np.ones(absent.shape)[rows], absent[rows], np.zeros(1, bool)[rows]


def absent_labels(matchers: Sequence[Matcher]) -> dict[str, str]:
    """Return the labels of an absent series: those that one matcher alone is about, which is a `=`."""
    times = Counter(matcher.name for matcher in matchers)
    return {
        m.name: m.value for m in matchers if m.type is MatchType.EQUAL and times[m.name] == 1 and m.name != METRIC_NAME
    }


def _note_non_counters(evaluation: Evaluation, block: VectorBlock, pos: PosRange) -> None:
    """Add an info for every metric with a number as result that does not look like a counter."""
    if block.histograms is not None:
        block = block.take(block.float_present.any(axis=1))
    column = block.labels.column(METRIC_NAME)
    if column is None:
        return
    if evaluation.type_and_unit_labels:
        pairs = set(zip(block.labels.strings(METRIC_NAME), block.labels.strings("__type__"), strict=True))
        for name, kind in sorted(pairs):
            if name and kind not in ("counter", "histogram"):
                evaluation.annotations.inform(texts.possible_non_counter_type(name, kind), pos)
        return
    codes, values = column
    for code in sorted(set(codes.tolist()) - {-1}):
        if not values[code].endswith(_COUNTER_SUFFIXES):
            evaluation.annotations.inform(texts.possible_non_counter(values[code]), pos)
