"""Classic histograms: the kernels and their twins agree."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels import buckets
from tests.reference import buckets as reference
from tests.support.columns import grid, same

bounds_of = st.sampled_from([-1.0, 0.0, 0.1, 0.5, 1.0, 2.5, 10.0, math.inf])
counts = st.one_of(st.integers(0, 30).map(float), st.floats(0, 1e3), st.sampled_from([1e15, 1e15 + 0.25, math.nan]))


@st.composite
def histograms(draw):
    """Return (upper bounds of each histogram, rows, steps)."""
    steps = draw(st.integers(1, 3))
    uppers = [draw(st.lists(bounds_of, min_size=1, max_size=7)) for _ in range(draw(st.integers(1, 3)))]
    cells = st.one_of(st.none(), counts)
    rows = [draw(st.lists(cells, min_size=steps, max_size=steps)) for bounds in uppers for _ in bounds]
    return uppers, rows, steps


def _columns(uppers):
    flat = np.array([u for bounds in uppers for u in bounds])
    ids = np.repeat(np.arange(len(uppers)), [len(b) for b in uppers])
    members = np.lexsort((flat, ids))
    return members, np.cumsum([0, *(len(b) for b in uppers)]), flat[members]


def _at(uppers, rows, histogram, step):
    first = sum(len(b) for b in uppers[:histogram])
    pairs = zip(uppers[histogram], rows[first:], strict=False)
    return [(bound, row[step]) for bound, row in pairs if row[step] is not None]


@given(histograms(), st.sampled_from([0.0, 0.1, 0.5, 0.99, 1.0, -0.1, 1.1, math.nan]))
def test_quantiles_and_repairs_are_the_twins(case, q):
    """Also with equal bounds, falling counts, no +Inf bucket and missing ones."""
    uppers, rows, steps = case
    values = np.full((len(uppers), steps), 77.0)
    repaired, repairs = np.empty((len(uppers), steps), bool), np.empty((len(uppers), 3))
    count = buckets.quantile_buckets(
        *_columns(uppers), *grid(rows, steps), np.full(steps, q), values, repaired, repairs
    )
    for h in range(len(uppers)):
        for s in range(steps):
            present = _at(uppers, rows, h, s)
            wanted, forced = reference.quantile(q, present) if present else (0.0, False)
            assert same(float(values[h, s]), wanted)
            assert repaired[h, s] == forced
        assert (repairs[h, buckets.LARGEST_DROP] > 0) == repaired[h].any()
    assert count == repaired.any(axis=1).sum()


@given(
    histograms(), st.sampled_from([-2.0, 0.0, 0.3, 1.0]), st.sampled_from([-1.5, 0.05, 0.5, 3.0, math.inf, math.nan])
)
def test_fractions_are_the_twins(case, lower, upper):
    """Linear inside a bucket, nothing of a bucket without a finite bound."""
    uppers, rows, steps = case
    values = np.full((len(uppers), steps), 77.0)
    buckets.fraction_buckets(
        *_columns(uppers), *grid(rows, steps), np.full(steps, lower), np.full(steps, upper), values
    )
    for h in range(len(uppers)):
        for s in range(steps):
            present = _at(uppers, rows, h, s)
            assert same(float(values[h, s]), reference.fraction(lower, upper, present) if present else 0.0)
