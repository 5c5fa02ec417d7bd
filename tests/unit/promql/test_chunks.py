"""Vectors worked on in chunks, by two threads: the same answers, counts and ends as in one piece."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from mimir_ingest.errors import QueryError
from mimir_ingest.promql.operators import base
from tests.support.engine_target import EngineTarget
from tests.support.promqltest import Sample

EXPRESSIONS = (
    "m_total",
    "rate(m_total[1m])",
    "max_over_time(m_total[2m])",
    "quantile_over_time(0.9, m_total[2m])",
    "predict_linear(m_total[2m], 60)",
    "m_total smoothed",
    "sum by (half) (rate(m_total[1m]))",
)


@pytest.fixture(scope="module")
def target() -> EngineTarget:
    """Forty counters of different length, 10 s apart."""
    target = EngineTarget(delayed_name_removal=False)
    for i in range(40):
        labels = {"__name__": "m_total", "i": str(i), "half": str(i % 2)}
        target.append(labels, [Sample(t * 10_000, float(t * (i + 1) % 97)) for t in range(60 + i)])
    return target


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_chunks_give_what_one_piece_gives(target, monkeypatch, expression):
    whole = target.query(expression, 0, 900_000, 10_000)
    monkeypatch.setattr(base, "_CHUNK_CELLS", 3 * 91)
    chunked = target.query(expression, 0, 900_000, 10_000)
    assert chunked.value.labels.to_dicts() == whole.value.labels.to_dicts()
    np.testing.assert_array_equal(chunked.value.offsets, whole.value.offsets)
    np.testing.assert_array_equal(chunked.value.values.view(np.int64), whole.value.values.view(np.int64))
    assert chunked.stats == whole.stats


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_limit_or_a_deadline_ends_the_chunks_of_all_threads(target, monkeypatch, expression):
    """A limit that the first chunks keep; a deadline that passes while they are worked on."""
    monkeypatch.setattr(base, "_CHUNK_CELLS", 91)
    # Prometheus does not count the points of `smoothed`, but the last window of each series.
    limit = 500 if "smoothed" in expression else 1_000
    with pytest.raises(QueryError, match="too many samples"):
        target.query(expression, 0, 900_000, 10_000, max_samples=limit)
    lock, asked = threading.Lock(), [0]

    def over() -> bool:
        with lock:
            asked[0] += 1
            return asked[0] > 12

    with pytest.raises(QueryError, match="timed out"):
        target.query(expression, 0, 900_000, 10_000, deadline=over)
    # Each of two threads asks once more at most.
    assert asked[0] <= 14
