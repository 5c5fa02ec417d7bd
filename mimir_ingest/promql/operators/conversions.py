"""Functions between scalars and vectors, and those that look at presence or time and not at values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.promql.operators.base import Evaluation
from mimir_ingest.promql.operators.elementwise import go_maximum, go_minimum
from mimir_ingest.promql.operators.rollups import absent_labels
from mimir_ingest.promql.operators.selectors import latest, reference_times
from mimir_ingest.promql.plan_nodes import Call, InstantSelect, Number, Plus, RangeSelect, StepInvariant
from mimir_ingest.promql.values import HistogramCells, Steps, VectorBlock


def number(_evaluation: Evaluation, node: Number, steps: Steps) -> np.ndarray:
    """Evaluate a constant."""
    return np.full(steps.count, node.value)


def step_invariant(evaluation: Evaluation, node: StepInvariant, steps: Steps) -> VectorBlock | np.ndarray:
    """Evaluate the child at the first step and repeat it at all others."""
    if steps.at_once or not steps.count:
        return evaluation.evaluate(node.child, steps)
    stats = evaluation.stats
    once = Steps(steps.start_ms, steps.step_ms, 1, True)
    with evaluation.counting_apart(once, per_step=False) as counted:
        value = evaluation.evaluate(node.child, once)
    stats.total_queryable_samples += counted.total_queryable_samples * steps.count
    stats.samples_read += counted.samples_read
    read = np.zeros(steps.count, np.int64)
    read[0] = counted.samples_read
    stats.add_steps(counted.total_queryable_samples, read)
    evaluation.hold((value.points if isinstance(value, VectorBlock) else 1) * (steps.count - 1))
    if not isinstance(value, VectorBlock):
        return np.repeat(value, steps.count)
    evaluation.reserve(value.labels.n, steps.count)
    cells = value.histograms
    if cells is not None:
        cells = HistogramCells(np.repeat(cells.index, steps.count, axis=1), cells.rows, cells.weights)
    return VectorBlock(
        value.labels,
        np.repeat(value.values, steps.count, axis=1),
        np.repeat(value.present, steps.count, axis=1),
        value.drop_name,
        cells,
    )


def time_of_steps(_evaluation: Evaluation, _node: Call, steps: Steps) -> np.ndarray:
    """Evaluate `time()`: the time of each step (s)."""
    return steps.times_ms / 1000


def unchanged(evaluation: Evaluation, node: Plus, steps: Steps) -> VectorBlock | np.ndarray:
    """Evaluate unary plus."""
    return evaluation.evaluate(node.child, steps)


def pi(_evaluation: Evaluation, _node: Call, steps: Steps) -> np.ndarray:
    """Evaluate `pi()`."""
    return np.full(steps.count, np.pi)


def extreme_of(evaluation: Evaluation, node: Call, steps: Steps) -> np.ndarray:
    """Evaluate `max_of` and `min_of`."""
    a, b = (evaluation.scalar(arg, steps) for arg in node.args)
    return go_maximum(a, b) if node.name == "max_of" else go_minimum(a, b)


def vector_of_scalar(evaluation: Evaluation, node: Call, steps: Steps) -> VectorBlock:
    """Evaluate `vector()`."""
    return VectorBlock.of_scalar(evaluation.scalar(node.args[0], steps))


def scalar_of_vector(evaluation: Evaluation, node: Call, steps: Steps) -> np.ndarray:
    """Evaluate `scalar()`: the value of the only series present, else NaN."""
    block = evaluation.vector(node.args[0], steps)
    present = block.float_present
    if not len(present):
        return np.full(steps.count, np.nan)
    values = block.values[np.argmax(present, axis=0), np.arange(steps.count)]
    return np.where(np.count_nonzero(present, axis=0) == 1, values, np.nan)


def absent(evaluation: Evaluation, node: Call, steps: Steps) -> VectorBlock:
    """Evaluate `absent()`: 1 where no series is present."""
    block = evaluation.vector(node.args[0], steps)
    missing = ~block.present.any(axis=0)[None, :]
    if not missing.any():
        return VectorBlock.empty(steps.count)
    selector = node.args[0]
    matchers = selector.matchers if isinstance(selector, InstantSelect | RangeSelect) else ()
    frame = LabelFrame.from_dicts([absent_labels(matchers)])
    return VectorBlock(frame, np.ones(missing.shape), missing, np.zeros(1, bool))


def timestamp(evaluation: Evaluation, node: Call, steps: Steps) -> VectorBlock:
    """Evaluate `timestamp()`: the time of a selector's samples, or of the step for any other vector (s)."""
    selector = node.args[0]
    if isinstance(selector, InstantSelect):
        block = _latest_times(evaluation, selector, steps)
        values = block.values / 1000
    else:
        block = evaluation.vector(selector, steps)
        values = np.broadcast_to(steps.times_ms / 1000, block.values.shape)
    return evaluation.drop_name(block.of_numbers(values, block.present))


def _latest_times(evaluation: Evaluation, selector: InstantSelect, steps: Steps) -> VectorBlock:
    """Return the times (ms) of a selector's newest samples.

    With `@` they are looked for at that time, among the samples that the offset selects. Source: Prometheus 3.14
    `promql/engine.go`, where `@` takes the offset's place.
    """
    shift = selector.shift if selector.shift.at_ms is None else replace(selector.shift, offset_ms=0)
    return latest(evaluation, evaluation.data[selector.select], reference_times(shift, steps), timestamps=True)


def start_timestamp(evaluation: Evaluation, node: Call, steps: Steps) -> VectorBlock:
    """Evaluate `start_timestamp()`: nothing, since start timestamps are not stored.

    So does Prometheus without `use-start-timestamps`; the samples of a selector are looked up and counted even so.
    """
    selector = node.args[0]
    if isinstance(selector, InstantSelect):
        found = _latest_times(evaluation, selector, steps)
        evaluation.note_samples(int(np.count_nonzero(found.present, axis=0).max(initial=0)))
    else:
        evaluation.vector(selector, steps)
    return VectorBlock.empty(steps.count)
