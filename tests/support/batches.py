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


def write_batch(rows: Sequence[tuple[dict[str, str], Sequence[tuple[int, float | Row]]]]) -> WriteBatch:
    """Return a batch of (labels, samples) rows; a sample's value may be a native histogram."""
    keys = [encode_label_bytes(labels) for labels, _ in rows]
    histograms = [[s for s in group if isinstance(s[1], Row)] for _, group in rows]
    rows = [(labels, [s for s in group if not isinstance(s[1], Row)]) for labels, group in rows]
    samples = [s for _, group in rows for s in group]
    return WriteBatch(
        np.frombuffer(b"".join(keys), np.uint8),
        np.cumsum([0, *map(len, keys)], dtype=np.int64),
        np.array([xxhash.xxh64_intdigest(k) for k in keys], np.uint64),
        np.cumsum([0, *(len(group) for _, group in rows)], dtype=np.int64),
        np.array([t for t, _ in samples], np.int64),
        np.array([v for _, v in samples], np.float64),
        histograms=histogram_samples(histograms) if any(histograms) else None,
    )


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
