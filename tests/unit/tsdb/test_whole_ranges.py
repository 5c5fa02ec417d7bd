"""Histograms of a head have the buckets of their chunk, whichever of its samples are asked for."""

import itertools

from mimir_ingest.kernels.histogram_cuts import RANGE_MS
from mimir_ingest.tsdb import whole_ranges
from tests.support import histogram_corpus as corpus
from tests.support.histograms import as_rows
from tests.support.series_notation import HistogramValue
from tests.support.store_target import StoreTarget

BEGIN_MS = 10 * RANGE_MS


def histogram(*buckets: int) -> HistogramValue:
    """One observation in each bucket."""
    return HistogramValue(count=float(len(buckets)), positive=dict.fromkeys(buckets, 1.0))


def buckets_in(target: StoreTarget, start_ms: int, end_ms: int) -> list[list[list[int]]]:
    """Return the numbers of the buckets of each sample, by series."""
    (found,) = target.head.view([]).select([], BEGIN_MS + start_ms, BEGIN_MS + end_ms)
    listed = [[index for index, _ in row.positive] for row in as_rows(found.histograms.values)]
    bounds = found.histograms.offsets.tolist()
    return [listed[a:b] for a, b in itertools.pairwise(bounds)]


def pushed(seal_samples: int) -> StoreTarget:
    """One series grows, one stays as it is; the next range begins with new chunks."""
    target = StoreTarget(seal_samples=seal_samples)
    grown = [(0, histogram(1)), (15_000, histogram(1, 4)), (RANGE_MS, histogram(1, 4, 5))]
    for at, value in grown:
        series = [({"__name__": "a"}, [(BEGIN_MS + at, value)]), ({"__name__": "b"}, [(BEGIN_MS + at, histogram(2))])]
        target.push(corpus.body(series))
    return target


def test_a_window_is_read_with_the_buckets_of_what_lies_around_it_in_its_range():
    for seal_samples in (1, 1000):
        target = pushed(seal_samples)
        assert buckets_in(target, 0, 1) == [[[1, 4]], [[2]]]
        assert buckets_in(target, 0, RANGE_MS) == [[[1, 4], [1, 4]], [[2], [2]]]
        assert buckets_in(target, 15_000, RANGE_MS + 1) == [[[1, 4], [1, 4, 5]], [[2], [2]]]


def test_of_too_many_the_samples_asked_for_decide_alone(monkeypatch):
    monkeypatch.setattr(whole_ranges, "_MOST_SAMPLES", 1)
    target = pushed(1)
    assert buckets_in(target, 0, 1) == [[[1]], [[2]]]
    assert buckets_in(target, 0, RANGE_MS) == [[[1, 4], [1, 4]], [[2], [2]]]
