"""The function `info`: labels of info series (`target_info` by default) joined to the series of a vector.

Series belong together by `instance` and `job`. Source: Prometheus 3.14 `promql/info.go`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mimir_ingest.errors import QueryError
from mimir_ingest.model.labels import METRIC_NAME, LabelFrame
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import SeriesSamples
from mimir_ingest.promql.operators.base import Evaluation, filled_rows, format_labels, row_labels, unique_rows
from mimir_ingest.promql.operators.peak import most_at_a_step
from mimir_ingest.promql.operators.selectors import latest, reference_times
from mimir_ingest.promql.plan_nodes import InfoJoin
from mimir_ingest.promql.values import Steps, VectorBlock

_IDENTIFYING = ("instance", "job")


def join_info(evaluation: Evaluation, node: InfoJoin, steps: Steps) -> VectorBlock:
    """Evaluate `info(v, label_selector)`."""
    base = filled_rows(evaluation.vector(node.child, steps))
    plain = _matching(base.labels, node.name_matchers)
    joinable = base.take(~plain)
    samples = _identified(evaluation.data[node.select], joinable.labels)
    ends = reference_times(node.shift, steps)
    _check_numbers(samples, ends, evaluation.lookback_ms)
    info = latest(evaluation, samples, ends, timestamps=True)
    wanted = {m.name for m in node.label_matchers}
    parts = [base.take(plain), *_joined(evaluation, joinable, _newest_by_target(evaluation, info), info, wanted)]
    if any(not m.matches_empty for m in node.label_matchers):
        parts = [p for i, p in enumerate(parts) if i != 1]
    result = unique_rows(filled_rows(VectorBlock.concat(parts)))
    # The base and the info series stay held beside the result.
    evaluation.hold(info.points)
    evaluation.note_samples(most_at_a_step((base, info), result))
    evaluation.hold(result.points)
    return result


def _matching(frame: LabelFrame, matchers: Sequence[Matcher]) -> np.ndarray:
    """Return bool[n]: the series that satisfy all matchers, which are on the metric name."""
    hit = np.ones(frame.n, bool)
    column = frame.column(METRIC_NAME)
    codes, values = column if column is not None else (np.full(frame.n, -1, np.int32), ())
    for matcher in matchers:
        hit &= np.append(matcher.match_all(values), matcher.matches_empty)[codes]
    return hit


def _identified(samples: SeriesSamples, base: LabelFrame) -> SeriesSamples:
    """Return the info series whose identifying labels have values that occur in `base`."""
    hit = np.ones(samples.series_count, bool)
    known = 0
    for name in _IDENTIFYING:
        values = set(base.strings(name)) - {""}
        if values:
            known += 1
            hit &= np.array([v in values for v in samples.labels.strings(name)], bool)
    rows = np.flatnonzero(hit if known else np.zeros_like(hit))
    sizes = np.diff(samples.offsets)[rows]
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
    at = np.repeat(samples.offsets[:-1][rows] - offsets[:-1], sizes) + np.arange(offsets[-1])
    histograms = None if samples.histograms is None else samples.histograms.take(rows)
    return SeriesSamples(samples.labels.take(rows), offsets, samples.timestamps[at], samples.values[at], histograms)


def _check_numbers(samples: SeriesSamples, ends: np.ndarray, lookback_ms: int) -> None:
    """Raise QueryError if an info series is a native histogram where the query looks (`ends`, ms)."""
    if samples.histograms is None or not len(ends):
        return
    for row in np.flatnonzero(np.diff(samples.histograms.offsets)).tolist():
        bounds = samples.histograms.offsets[row : row + 2].tolist()
        at = samples.histograms.timestamps[bounds[0] : bounds[1]]
        if np.any((at[:, None] <= ends) & (at[:, None] > ends - lookback_ms)):
            labels = format_labels(row_labels(samples.labels, row))
            raise QueryError(f"this should be an info metric, with float samples: {labels}")


def _newest_by_target(evaluation: Evaluation, info: VectorBlock) -> dict[tuple[str, str, str], np.ndarray]:
    """Return, by (instance, job, metric name), int64[steps]: the newest info series at each step, -1 for none.

    Raises QueryError if two are equally new.
    """
    newest: dict[tuple[str, str, str], np.ndarray] = {}
    keys = zip(*(info.labels.strings(name) for name in (*_IDENTIFYING, METRIC_NAME)), strict=True)
    for row, key in enumerate(evaluation.watched(keys)):
        here = info.present[row]
        rows = newest.setdefault(key, np.full(len(here), -1, np.int64))
        held = np.where(rows >= 0, info.values[rows, np.arange(len(here))], -np.inf) if len(here) else rows
        equal = np.flatnonzero(here & (held == info.values[row]))
        if len(equal):
            step = int(equal[0])
            first, second = (format_labels(info.labels.take(np.array([r])).to_dicts()[0]) for r in (rows[step], row))
            at = int(info.values[row, step])
            raise QueryError(f"found duplicate series for info metric: existing {first} @ {at}, new {second} @ {at}")
        rows[here & (held < info.values[row])] = row
    return newest


def _joined(
    evaluation: Evaluation,
    base: VectorBlock,
    newest: dict[tuple[str, str, str], np.ndarray],
    info: VectorBlock,
    wanted: set[str],
) -> list[VectorBlock]:
    """Return two blocks: where series of `base` have no info series, and where they have some, with their labels."""
    by_target: dict[tuple[str, str], list[np.ndarray]] = {}
    for (instance, job, _), rows in sorted(newest.items(), key=lambda item: item[0]):
        by_target.setdefault((instance, job), []).append(rows)
    info_sets, base_sets = info.labels.to_dicts(), base.labels.to_dicts()
    bare = base.present.copy()
    index, present, sets = [], [], []
    for i, labels in enumerate(evaluation.watched(base_sets)):
        columns = by_target.get((labels.get("instance", ""), labels.get("job", "")))
        if not columns:
            continue
        found, at = np.unique(np.stack(columns), axis=1, return_inverse=True)
        for j in range(found.shape[1]):
            rows = [int(r) for r in found[:, j] if r >= 0]
            here = base.present[i] & (at.reshape(-1) == j)
            if not rows or not here.any():
                continue
            bare[i] &= ~here
            index.append(i)
            present.append(here)
            sets.append({**_info_labels(rows, info_sets, labels, wanted), **labels})
    without = base.where(bare)
    if not index:
        return [without]
    enriched = base.take(np.array(index)).where(np.stack(present))
    return [without, enriched.relabelled(LabelFrame.from_dicts(sets))]


def _info_labels(
    rows: list[int], info_sets: Sequence[dict[str, str]], base: dict[str, str], wanted: set[str]
) -> dict[str, str]:
    """Return the labels that info series add to one base series; QueryError if they contradict each other."""
    added: dict[str, str] = {}
    for row in rows:
        for name, value in info_sets[row].items():
            if name == METRIC_NAME or (wanted and name not in wanted):
                continue
            if added.get(name, value) != value:
                raise QueryError(f"conflicting label: {name}")
            if name not in base:
                added[name] = value
    return added
