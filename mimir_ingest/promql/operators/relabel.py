"""Functions that change labels: `label_replace`, `label_join`. They work on dictionaries of values, not on samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import re2

from mimir_ingest.errors import QueryError
from mimir_ingest.model.go_regexp import compile_anchored, expand, full_match
from mimir_ingest.model.labels import METRIC_NAME, LabelFrame
from mimir_ingest.promql.operators.base import Evaluation, unique_rows
from mimir_ingest.promql.plan_nodes import Call
from mimir_ingest.promql.values import Steps, VectorBlock

_CHARS_A_SAMPLE = 16
"""Text takes memory as samples do. why: each of a few nested calls may make its text ten times as long."""


def label_replace(evaluation: Evaluation, node: Call, steps: Steps) -> VectorBlock:
    """Evaluate `label_replace(v, dst, replacement, src, regex)`."""
    target, replacement, source, pattern = (arg.value for arg in node.args[1:])
    try:
        regexp = compile_anchored(pattern)
    except (re2.error, UnicodeEncodeError) as error:
        raise QueryError(f"invalid regular expression in label_replace(): {pattern}") from error
    _check_name(target, "invalid destination label name in label_replace(): ")
    block = evaluation.vector(node.args[0], steps)
    column = block.labels.column(source)
    codes, values = column if column is not None else (np.full(block.labels.n, -1, np.int32), ())
    # The extra last entry stands for series without the label, whose code is -1.
    references, room = replacement.count("$"), _Room(evaluation)
    results: list[str | None] = []
    for value in evaluation.watched((*values, "")):
        match = full_match(regexp, value)
        if match is not None:
            room.take(len(replacement) + references * len(value))
        results.append(None if match is None else expand(regexp, match, replacement))
    return _relabelled(block, target, results, codes)


def label_join(evaluation: Evaluation, node: Call, steps: Steps) -> VectorBlock:
    """Evaluate `label_join(v, dst, separator, src...)`."""
    target, separator, *sources = (arg.value for arg in node.args[1:])
    for source in sources:
        _check_name(source, "invalid source label name in label_join(): ")
    _check_name(target, "invalid destination label name in label_join(): ")
    block = evaluation.vector(node.args[0], steps)
    kept = block.labels.keep(sources)
    ids, first = kept.group_ids()
    sets = kept.take(first).to_dicts()
    results, room = [], _Room(evaluation)
    for labels in evaluation.watched(sets):
        parts = [labels.get(source, "") for source in sources]
        room.take(sum(map(len, parts)) + len(separator) * len(parts))
        results.append(separator.join(parts))
    return _relabelled(block, target, results, ids)


class _Room:
    """How much text a function may still make: as many bytes as the samples that the query may hold take."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self._chars = 0

    def take(self, chars: int) -> None:
        """Count a text before it is made, `chars` long at most. Raises QueryError."""
        self._chars += chars
        self._evaluation.limit_samples(self._chars // _CHARS_A_SAMPLE)


def _relabelled(block: VectorBlock, target: str, results: Sequence[str | None], codes: np.ndarray) -> VectorBlock:
    """Set a label of each series to `results[code]`; None leaves the series as it is, "" removes the label.

    Series with equal labels are merged.
    """
    old = block.labels.column(target)
    old_codes, old_values = old if old is not None else (np.full(block.labels.n, -1, np.int32), ())
    dictionary: dict[str, int] = {value: code for code, value in enumerate(old_values)}
    new_of = np.array([-2 if r is None else dictionary.setdefault(r, len(dictionary)) if r else -1 for r in results])
    new_codes = new_of[codes] if len(results) else old_codes
    changed = new_codes != -2
    labels = block.labels.with_column(target, np.where(changed, new_codes, old_codes), list(dictionary))
    drop_name = block.drop_name & ~changed if target == METRIC_NAME else block.drop_name
    return unique_rows(replace(block, labels=labels, drop_name=drop_name), apart=True)


def _check_name(name: str, message: str) -> None:
    if not name or any("\udc80" <= char <= "\udcff" for char in name):
        raise QueryError(f"{message}{name}")


def dropped_names(frame: LabelFrame, drop: np.ndarray, names: Sequence[str]) -> LabelFrame:
    """Return the frame without labels `names` in the series where `drop` (bool[n]) says so."""
    if not drop.any():
        return frame
    if drop.all():
        return frame.drop(names)
    for name in names:
        column = frame.column(name)
        if column is not None:
            frame = frame.with_column(name, np.where(drop, -1, column[0]), column[1])
    return frame
