"""Write batches for tests, built with the reference encoder and a foreign hash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xxhash

from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.model.exemplars import Exemplars
from mimir_ingest.model.labels import encode_label_bytes
from tests.support.histograms import Row
from tests.support.random_batches import histogram_samples

Sample = tuple[int, float | Row] | tuple[int, float | Row, int]
"""(ms, value), or with the time at which what it counts began."""
WriteRow = tuple[dict[str, str], Sequence[Sample]] | tuple[dict[str, str], Sequence[Sample], bool]
"""(labels, samples), or with whether the samples are deltas."""


def write_batch(rows: Sequence[WriteRow]) -> WriteBatch:
    """Return a batch of rows; a sample's value may be a native histogram."""
    keys = [encode_label_bytes(labels) for labels, *_ in rows]
    deltas = [any(delta) for _, _, *delta in rows]
    native = [[s for s in group if isinstance(s[1], Row)] for _, group, *_ in rows]
    rows = [(labels, [s for s in group if not isinstance(s[1], Row)]) for labels, group, *_ in rows]
    samples = [s for _, group in rows for s in group]
    histograms = histogram_samples([[s[:2] for s in group] for group in native]) if any(native) else None
    if histograms is not None:
        histograms = replace(histograms, starts=_starts([s for group in native for s in group]))
    return WriteBatch(
        np.frombuffer(b"".join(keys), np.uint8),
        np.cumsum([0, *map(len, keys)], dtype=np.int64),
        np.array([xxhash.xxh64_intdigest(k) for k in keys], np.uint64),
        np.cumsum([0, *(len(group) for _, group in rows)], dtype=np.int64),
        np.array([s[0] for s in samples], np.int64),
        np.array([s[1] for s in samples], np.float64),
        histograms=histograms,
        starts=_starts(samples),
        deltas=np.array(deltas) if any(deltas) else None,
    )


def _starts(samples: Sequence[Sample]) -> np.ndarray | None:
    if not any(s[2:] for s in samples):
        return None
    return np.array([sum(s[2:]) for s in samples], np.int64)


def exemplar_batch(*series: tuple[dict[str, str], Sequence[tuple[int, float, dict[str, str]]]]) -> WriteBatch:
    """Return a batch of (labels, [(ms, value, exemplar's labels)]) without samples."""
    rows = [row for _, exemplars in series for row in exemplars]
    texts = [encode_label_bytes(labels) for _, _, labels in rows]
    exemplars = Exemplars(
        np.cumsum([0, *(len(group) for _, group in series)]),
        np.array([t for t, _, _ in rows], np.int64),
        np.array([v for _, v, _ in rows], np.float64),
        np.frombuffer(b"".join(texts), np.uint8),
        np.cumsum([0, *map(len, texts)], dtype=np.int64),
    )
    return replace(write_batch([(labels, []) for labels, _ in series]), exemplars=exemplars)
