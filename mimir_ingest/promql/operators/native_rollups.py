"""Native histograms in functions of range vectors.

The float kernels have done their part when this begins; here the series that have histograms are gone through again,
and their cells are set anew where a window holds histograms. Source: Prometheus 3.14 `promql/functions.go`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mimir_ingest.kernels import windows
from mimir_ingest.kernels.lookback import locate_windows
from mimir_ingest.kernels.native_columns import ABSENT, Output, Points
from mimir_ingest.kernels.native_extended import extend_histograms
from mimir_ingest.kernels.native_fold import AVERAGE, fold_histograms
from mimir_ingest.kernels.native_merge import COLLISION, INCOMPATIBLE, RECONCILED
from mimir_ingest.kernels.native_pairs import RECONCILED_ADD, RECONCILED_SUB
from mimir_ingest.kernels.native_rate import NOT_COUNTER, NOT_GAUGE, extrapolate_histograms, last_increase
from mimir_ingest.model.histograms import Histograms, gather_rows
from mimir_ingest.model.labels import METRIC_NAME
from mimir_ingest.promql import annotations as texts
from mimir_ingest.promql.native import cells_of, columns_of, run_items, workspaces
from mimir_ingest.promql.nodes import PosRange
from mimir_ingest.promql.operators.base import Evaluation
from mimir_ingest.promql.operators.native_selectors import resets_of
from mimir_ingest.promql.operators.native_timeline import Timeline
from mimir_ingest.promql.values import HistogramCells, HistogramPoints, RangeBlock

_SUMS = {"avg_over_time": AVERAGE, "sum_over_time": 0}


@dataclass(frozen=True, slots=True)
class RollupCall:
    """What a function of a range vector is called with."""

    evaluation: Evaluation
    name: str
    block: RangeBlock
    ends: np.ndarray
    """int64[steps] (ms)."""
    range_ms: int
    mode: int
    """For rates: flags of `kernels.windows`, else 0."""
    anchored: bool
    reads: bool
    """Whether the samples come from storage and not from a subquery."""
    pos: PosRange
    """Of the range vector; Prometheus gives that of a subquery none."""
    first_pos: PosRange
    """Of the first argument."""


@dataclass(slots=True)
class Rolled:
    """A result in the making, float64[n, steps] and bool[n, steps]."""

    values: np.ndarray
    present: np.ndarray
    histograms: HistogramCells | None = None


class _Windows:
    """The windows of the series that have histograms."""

    def __init__(self, call: RollupCall) -> None:
        block, points = call.block, call.block.histograms
        self.call = call
        self.points: HistogramPoints = points
        self.series = np.flatnonzero(np.diff(points.offsets))
        """int64[k]."""
        self.names = block.labels.take(self.series).strings(METRIC_NAME)
        lookback = call.evaluation.lookback_ms
        extended = call.anchored or call.mode & windows.SMOOTHED
        self.reach = np.array(
            (call.range_ms + (lookback if extended else 0), lookback if call.mode & windows.SMOOTHED else 0)
        )
        self.first, self.last = self.find(points.offsets, points.timestamps)
        """int64[k, steps] each: places in the points."""
        first, last = self.find(block.offsets, block.timestamps)
        self.floats = last - first
        """int64[k, steps]: number of floats."""

    def find(self, offsets: np.ndarray, timestamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the windows of the series begin and end among some samples."""
        at, bounds = gather_rows(offsets, self.series)
        shape = (len(self.series), len(self.call.ends))
        first, last = np.empty(shape, np.int64), np.empty(shape, np.int64)
        locate_windows(bounds, timestamps[at], self.call.ends, self.reach, first, last)
        shift = (offsets[self.series] - bounds[:-1])[:, None]
        return first + shift, last + shift

    @property
    def filled(self) -> np.ndarray:
        """bool[k, steps]: where a window has histograms."""
        return self.last > self.first

    @property
    def mixed(self) -> np.ndarray:
        """bool[k, steps]: where a window has floats, too."""
        return self.filled & (self.floats > 0)

    def count(self) -> np.ndarray:
        """Take the histograms of all windows into account; return int64[k, steps]: the samples of each window."""
        evaluation = self.call.evaluation
        weights = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.points.weights[self.points.rows])])
        sizes = weights[self.last] - weights[self.first]
        total, read = count_windows(weights[self.first], weights[self.last])
        evaluation.stats.total_queryable_samples += int(total.sum())
        if self.call.reads:
            evaluation.stats.samples_read += int(read.sum())
        evaluation.stats.add_steps(total, read if self.call.reads else 0)
        return sizes + self.floats

    def warn_each(self, rows: np.ndarray, text: Callable[[str], str], pos: PosRange) -> None:
        """Warn of each metric that has any of the cells, bool[k, steps]."""
        for i in np.flatnonzero(rows.any(axis=1)).tolist():
            self.call.evaluation.annotations.warn(text(self.names[i]), pos)


def count_windows(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int64[steps] twice: the samples of windows `first:last` (int64[n, steps]), and those not seen before."""
    seen = np.concatenate([first[:, :1], last[:, :-1]], axis=1)
    return (last - first).sum(axis=0), (last - np.maximum(first, seen)).sum(axis=0)


def roll_up_histograms(call: RollupCall, rolled: Rolled) -> tuple[np.ndarray, np.ndarray]:
    """Set the cells of windows that hold histograms; `rolled` holds what the float kernels made of the floats.

    Returns the series that have histograms, int64[k], and for how many samples their windows count, int64[k, steps].
    """
    found = _Windows(call)
    sizes = found.count()
    name = call.name
    if name in ("rate", "increase", "delta"):
        _drop_mixed(found, rolled)
        _rates(found, rolled)
    elif name in _SUMS:
        _drop_mixed(found, rolled)
        _sums(found, rolled)
    elif name in ("irate", "idelta"):
        _last_increases(found, rolled)
    elif name in ("count_over_time", "present_over_time", "absent_over_time"):
        _counts(found, rolled)
    elif name in ("first_over_time", "last_over_time"):
        _ends(found, rolled)
    elif name in ("ts_of_first_over_time", "ts_of_last_over_time"):
        _end_times(found, rolled)
    elif name in ("changes", "resets"):
        _transitions(found, rolled)
    else:
        _ignore(found)
    return found.series, sizes


def _drop_mixed(found: _Windows, rolled: Rolled) -> None:
    mixed = found.mixed
    found.warn_each(mixed, texts.mixed_samples, found.call.first_pos)
    rolled.present[found.series] &= ~mixed


def _ignore(found: _Windows) -> None:
    """Tell that histograms were ignored where a window has floats that count."""
    call = found.call
    for i in np.flatnonzero(found.mixed.any(axis=1)).tolist():
        call.evaluation.annotations.inform(texts.ignored_in_range(found.names[i]), call.first_pos)


def _points_of(found: _Windows) -> Points:
    points = found.points
    return Points(
        np.require(points.rows, np.int64, ("C", "W")),
        np.require(points.timestamps, np.int64, ("C", "W")),
        resets_of(found.call.evaluation, points),
    )


def _run(
    found: _Windows, at: tuple[np.ndarray, np.ndarray], step: Callable[[Output], int], rolled: Rolled
) -> np.ndarray:
    """Run a kernel over the cells `at`, (rows of the series, steps), and set them; return the flags of each."""
    evaluation, members = found.call.evaluation, found.last[at] - found.first[at]
    rows, flags = run_items(step, len(at[0]), evaluation.check, evaluation.limit_samples, members)
    _set(found, at, flags & ABSENT == 0, np.arange(len(rows)), rows, rolled)
    return flags


def _set(
    found: _Windows,
    at: tuple[np.ndarray, np.ndarray],
    hit: np.ndarray,
    index: np.ndarray,
    rows: Histograms,
    rolled: Rolled,
) -> None:
    """Set cells to the histograms `rows[index]`, or where they are no `hit`, to nothing."""
    cells = (found.series[at[0]], at[1])
    rolled.present[cells] = hit
    rolled.values[cells] = 0.0
    places = np.full(rolled.values.shape, -1, np.int64)
    places[cells[0][hit], cells[1][hit]] = index
    rolled.histograms = cells_of(places, rows)


def _rates(found: _Windows, rolled: Rolled) -> None:
    call = found.call
    extended = call.mode & (windows.ANCHORED | windows.SMOOTHED)
    at = np.nonzero(found.filled & ~found.mixed & (found.last - found.first > (0 if extended else 1)))
    if not len(at[0]):
        return
    ends = call.ends[at[1]]
    spans = np.stack((found.first[at], found.last[at], ends - call.range_ms, ends), axis=1)
    columns, points = columns_of(found.points.histograms), _points_of(found)
    works = workspaces([columns], 7 if extended else 3)
    window = np.array((call.range_ms, call.mode))
    kernel = extend_histograms if extended else extrapolate_histograms
    flags = _run(found, at, lambda output: kernel(columns, points, spans, window, works, output), rolled)
    _annotate(found, at, flags, call.first_pos)


def _annotate(found: _Windows, at: tuple[np.ndarray, np.ndarray], flags: np.ndarray, pos: PosRange) -> None:
    """Add the annotations that the flags of differences stand for."""
    annotations = found.call.evaluation.annotations
    for flag, text in (
        (NOT_COUNTER, texts.not_a_counter),
        (NOT_GAUGE, texts.not_a_gauge),
        (INCOMPATIBLE, texts.mixed_schemas),
    ):
        for i in np.unique(at[0][flags & flag != 0]).tolist():
            annotations.warn(text(found.names[i]), pos)
    for flag, operation in ((RECONCILED_SUB, "subtraction"), (RECONCILED_ADD, "addition")):
        if (flags & flag).any():
            annotations.inform(texts.reconciled_bounds(operation), pos)


def _sums(found: _Windows, rolled: Rolled) -> None:
    call = found.call
    at = np.nonzero(found.filled & ~found.mixed)
    if not len(at[0]):
        return
    spans = np.stack((found.first[at], found.last[at]), axis=1)
    columns, mode = columns_of(found.points.histograms), _SUMS[call.name]
    works, failed = workspaces([columns], 2), np.empty(len(spans), np.int64)
    members = found.points.rows
    flags = _run(
        found, at, lambda output: fold_histograms(columns, members, spans, mode, works, output, failed), rolled
    )
    annotations = call.evaluation.annotations
    bad = flags & INCOMPATIBLE != 0
    for i in np.unique(at[0][bad]).tolist():
        annotations.warn(texts.mixed_schemas(found.names[i]), call.first_pos)
    if (flags[~bad] & COLLISION).any():
        annotations.warn(texts.conflicting_resets("aggregation"), call.first_pos)
    if (flags[~bad] & RECONCILED).any():
        annotations.inform(texts.reconciled_bounds("aggregation"), call.first_pos)


def _counts(found: _Windows, rolled: Rolled) -> None:
    number = found.last - found.first
    if found.call.name == "count_over_time":
        rolled.values[found.series] += number
    else:
        rolled.values[found.series] = 1.0
    rolled.present[found.series] |= number > 0


def _timeline(found: _Windows) -> Timeline:
    return Timeline.of(found.call.evaluation, found.call.block, found.series)


def _windows_of(found: _Windows, line: Timeline) -> tuple[np.ndarray, np.ndarray]:
    """Return int64[k, steps] twice: the windows on a timeline."""
    first, last = np.empty(found.first.shape, np.int64), np.empty(found.first.shape, np.int64)
    locate_windows(line.offsets, line.timestamps, found.call.ends, found.reach, first, last)
    return first, last


def _ends(found: _Windows, rolled: Rolled) -> None:
    line = _timeline(found)
    first, last = _windows_of(found, line)
    at = np.nonzero(last > first)
    place = first[at] if found.call.name == "first_over_time" else last[at] - 1
    hit = line.is_histogram[place]
    at = (at[0][hit], at[1][hit])
    points = found.points
    rows = points.rows[line.places[place[hit]]]
    _set(found, at, np.ones(len(rows), bool), rows, points.histograms, rolled)


def _end_times(found: _Windows, rolled: Rolled) -> None:
    line = _timeline(found)
    first, last = _windows_of(found, line)
    at = np.nonzero(last > first)
    place = first[at] if found.call.name == "ts_of_first_over_time" else last[at] - 1
    cells = (found.series[at[0]], at[1])
    rolled.values[cells] = line.timestamps[place] / 1000.0
    rolled.present[cells] = True


def _last_increases(found: _Windows, rolled: Rolled) -> None:
    """Set the cells whose last two samples are not both floats."""
    call, line = found.call, _timeline(found)
    first, last = _windows_of(found, line)
    at = np.nonzero(last - first > 1)
    place = last[at] - 1
    newest, before = line.is_histogram[place], line.is_histogram[place - 1]
    mixed = newest != before
    rolled.present[found.series[at[0][mixed]], at[1][mixed]] = False
    for i in np.unique(at[0][mixed]).tolist():
        call.evaluation.annotations.warn(texts.mixed_samples(found.names[i]), call.first_pos)
    both = newest & before
    # A window with one histogram among the last two has a float too few for the float kernel's answer to stand.
    at = (at[0][both], at[1][both])
    if not len(at[0]):
        return
    columns, points = columns_of(found.points.histograms), _points_of(found)
    places, works = line.places[place[both]], workspaces([columns], 3)
    per_second = int(call.name == "irate")
    flags = _run(found, at, lambda output: last_increase(columns, points, places, per_second, works, output), rolled)
    _annotate(found, at, flags, call.first_pos)


def _transitions(found: _Windows, rolled: Rolled) -> None:
    """Count changes or resets from sample to sample, whichever kind these are."""
    call, line = found.call, _timeline(found)
    moves = line.resets() if call.name == "resets" else line.changes()
    counted = np.concatenate([np.zeros(1, np.int64), np.cumsum(moves)])
    first, last = _windows_of(found, line)
    hit = last > first
    if call.anchored:
        inside = np.empty(first.shape, np.int64)
        locate_windows(line.offsets, line.timestamps, call.ends, np.array((call.range_ms, 0)), inside, last)
        hit = last > inside
        first = np.maximum(first, inside - 1)
    values = counted[last] - counted[np.minimum(first + 1, last)]
    rolled.values[found.series] = np.where(hit, values, 0.0)
    rolled.present[found.series] = hit
