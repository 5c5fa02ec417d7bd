"""Newest samples against their plain twin."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.kernels.newest import newest_of_chunks, newest_of_staged
from mimir_ingest.tsdb.segment import positions_of
from tests.reference import newest as plain

SAMPLES = st.dictionaries(st.integers(0, 40), st.sampled_from([0.0, -0.0, 2.5, float("nan")]), min_size=1, max_size=6)
PARTS = st.lists(
    st.dictionaries(st.integers(0, 6), SAMPLES.map(lambda s: sorted(s.items())), max_size=5), min_size=1, max_size=3
)
REFS = st.lists(st.integers(0, 7), max_size=6, unique=True).map(sorted)
RANGE = st.tuples(st.integers(0, 41), st.integers(0, 42))


def chunks_of(samples: list[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """Two samples a chunk."""
    return [samples[i : i + 2] for i in range(0, len(samples), 2)]


def bits(found: list) -> list:
    return [None if s is None else (s[0], np.float64(s[1]).tobytes()) for s in found]


@settings(max_examples=300)
@given(PARTS, REFS, RANGE)
def test_the_newest_samples_of_chunks_are_those_of_the_plain_twin(parts, refs, times):
    n = len(refs)
    found, unsure = np.zeros(n, bool), np.zeros(n, bool)
    ts, values, counts, sizes = np.empty(n, np.int64), np.empty(n), np.zeros(n, np.int64), np.zeros(n, np.int64)
    listed = [[(r, c) for r in sorted(part) for c in chunks_of(part[r])] for part in parts]
    overlapping = 0
    for part in listed:
        first, last = (np.array([c[i][0] for _, c in part], np.int64) for i in (0, -1))
        ends = np.arange(1, len(part) + 1) * 10
        newest = np.array([c[-1][1] for _, c in part], np.float64)
        columns = np.array([r for r, _ in part], np.int32), first, last, ends, newest
        out = found, unsure, ts, values, counts, sizes
        overlapping += newest_of_chunks(np.array(refs, np.int32), *columns, *times, *out)
    wanted = plain.newest_of(refs, listed, *times)
    got = [(int(ts[i]), values[i]) if found[i] else None for i in range(n)]
    assert (bits(got), unsure.tolist(), counts.tolist()) == (bits(wanted[0]), *wanted[1:])
    assert overlapping == sum(wanted[2])
    assert (sizes == 10 * counts).all()


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 40), st.floats()), max_size=12), REFS, RANGE)
def test_the_newest_staged_samples_are_those_of_chunks_with_one_sample_each(staged, refs, times):
    n = len(refs)
    found, ts, values = np.zeros(n, bool), np.empty(n, np.int64), np.empty(n)
    series, at, numbers = (list(column) for column in zip(*staged, strict=True)) if staged else ([], [], [])
    columns = np.array(series, np.int32), np.array(at, np.int64), np.array(numbers, np.float64)
    places = positions_of(np.array(refs, np.int32), 8)
    inside = newest_of_staged(*columns, places, *times, found, ts, values)
    before = [[(r, [(t, v)])] for r, t, v in staged if times[0] <= t < times[1]]
    got = [(int(ts[i]), values[i]) if found[i] else None for i in range(n)]
    wanted, _, counts = plain.newest_of(refs, before, *times)
    assert bits(got) == bits(wanted)
    assert inside == sum(counts)
