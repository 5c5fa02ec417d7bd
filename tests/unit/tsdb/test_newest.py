"""Queries of one moment read the newest sample of each series, and say what they say when they read all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.errors import QueryError
from mimir_ingest.model.batch import STALE_NAN_BITS
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.model.samples import FetchLimits, SampleBudget
from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.segment import Segment, Staged, read_samples
from mimir_ingest.tsdb.series_limits import SeriesLimits
from tests.support.batches import write_batch

STALE = float(np.uint64(STALE_NAN_BITS).view(np.float64))
ALL = (Matcher(MatchType.REGEXP, "__name__", "m.*"),)
SERIES = 80


def head_of(rounds: list[list[tuple[int, int, float]]], *, last_staged: bool = True) -> Head:
    """A head with a segment a round of (series, time, value), but perhaps for the last."""
    head = Head("t")
    every = [({"__name__": "m", "i": str(i)}, [(0, 0.0)] if i % 2 else []) for i in range(SERIES)]
    for offset, samples in enumerate([[], *rounds]):
        rows = every if not offset else [({"__name__": "m", "i": str(i)}, [(t, v)]) for i, t, v in samples]
        head.append(
            write_batch(rows), offset=offset, newest_ms=1000, range_ms=100_000, limits=SeriesLimits(), window_ms=90_000
        )
        if not last_staged or offset < len(rounds):
            head.seal(force=True)
    return head


def newest_by_labels(found, *, last: bool) -> dict[str, tuple[int, bytes]]:
    """Label `i` → the last sample of what was read; with `last` nothing else may have been read."""
    names, newest = [], {}
    for part in found:
        names = part.labels.strings("i")
        for row, name in enumerate(names):
            a, b = int(part.offsets[row]), int(part.offsets[row + 1])
            assert b - a == 1 if last else b > a
            newest[name] = (int(part.timestamps[b - 1]), part.values[b - 1].tobytes())
    return newest


SAMPLES = st.tuples(st.integers(0, SERIES - 1), st.integers(1, 60), st.sampled_from([1.0, 2.0, -0.0, STALE]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(SAMPLES, max_size=25), max_size=4), st.integers(0, 60), st.integers(1, 70), st.booleans())
def test_the_newest_sample_is_that_of_a_whole_read(rounds, start, end, last_staged):
    view = head_of(rounds, last_staged=last_staged).view(ALL)
    whole = newest_by_labels(view.select(ALL, start, end), last=False)
    assert newest_by_labels(view.select(ALL, start, end, SampleBudget(0), newest_only=True), last=True) == whole


def test_a_read_of_newest_samples_takes_one_of_each_series_from_the_budget_and_all_chunks():
    view = head_of([[(i, t, 1.0) for i in range(SERIES) for t in range(1, 31)]], last_staged=False).view(ALL)
    taken = []
    for newest_only in (True, False):
        budget = SampleBudget(0)
        view.select(ALL, 1, 31, budget, newest_only=newest_only)
        taken.append(budget.taken)
    (few, chunks, size), (many, *all_chunks) = taken
    assert (few, many) == (SERIES, SERIES * 30)
    assert [chunks, size] == all_chunks
    # A range that ends inside a chunk can only be told by decoding it.
    budget = SampleBudget(0)
    view.select(ALL, 1, 20, budget, newest_only=True)
    assert budget.taken[1:] == (chunks, size)


@pytest.mark.parametrize("end", [31, 20])
def test_a_read_of_newest_samples_keeps_to_the_limits(end):
    view = head_of([[(i, t, 1.0) for i in range(SERIES) for t in range(1, 31)]], last_staged=False).view(ALL)
    for limits in (FetchLimits(max_series=SERIES - 1), FetchLimits(max_chunks=5), FetchLimits(max_chunk_bytes=100)):
        with pytest.raises(QueryError, match="exceeded"):
            view.select(ALL, 1, end, SampleBudget(0, limits), newest_only=True)
    with pytest.raises(QueryError, match="too many samples"):
        view.select(ALL, 1, 31, SampleBudget(SERIES - 1), newest_only=True)
    assert len(view.select(ALL, 1, end, SampleBudget(0, FetchLimits(max_series=SERIES)), newest_only=True)) == 1


def test_a_segment_that_is_told_no_newest_values_reads_them_from_its_chunks():
    head = head_of([[(i, t, float(i * t)) for i in range(SERIES) for t in range(1, 50)]], last_staged=False)
    for segment in head.segments:
        columns = segment.refs, segment.ends, segment.min_ts, segment.max_ts, segment.data
        again = Segment(*columns, segment.sample_count, segment.level)
        assert again.newest.tobytes() == segment.newest.tobytes()
        assert again.nbytes == segment.nbytes
    assert len(Segment.empty().newest) == 0
    offsets, _, values = read_samples(head.segments, Staged.empty(), np.arange(SERIES, dtype=np.int32), SERIES, 1, 60)
    assert head.segments[-1].newest.tobytes() == values[offsets[1:] - 1].tobytes()
