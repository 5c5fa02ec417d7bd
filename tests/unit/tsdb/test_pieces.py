"""A large read is decoded in parts, by several threads: it gives what one read gives."""

from __future__ import annotations

import numpy as np
import pytest

from mimir_ingest.model.samples import FetchLimits, SampleBudget
from mimir_ingest.tsdb import pieces, segment, small_reads
from mimir_ingest.tsdb.segment import Staged, build_segment, read_samples

SERIES = 40


@pytest.fixture(scope="module")
def stored():
    """Two segments that overlap in time, and staged samples of some series, also older ones and equal times."""
    random = np.random.default_rng(7)
    segments = []
    for number in range(2):
        sizes = random.integers(0, 300, SERIES)
        refs = np.flatnonzero(sizes).astype(np.int32)
        offsets = np.concatenate([[0], np.cumsum(sizes[refs])])
        times = np.concatenate([np.sort(random.choice(4000, size, replace=False)) for size in sizes[refs]])
        segments.append(build_segment(refs, offsets, times + 2000 * number, random.normal(size=len(times))))
    m = 3000
    staged = Staged(random.integers(0, SERIES, m).astype(np.int32), random.integers(0, 8000, m), random.normal(size=m))
    return segments, staged


@pytest.mark.parametrize(("start_ms", "end_ms"), [(0, 10_000), (1500, 4500), (8000, 9000)])
@pytest.mark.parametrize("step", [1, 3, SERIES])
def test_parts_give_what_one_read_gives(stored, monkeypatch, start_ms, end_ms, step):
    segments, staged = stored
    refs = np.arange(0, SERIES, step, dtype=np.int32)
    whole = read_samples(segments, staged, refs, SERIES, start_ms, end_ms)
    joined = []
    join_into = pieces.Pieces._join_into
    monkeypatch.setattr(pieces.Pieces, "_join_into", lambda *args: joined.append(1) or join_into(*args))
    monkeypatch.setattr(pieces, "_PART_SAMPLES", 100)
    monkeypatch.setattr(segment, "FEW_SERIES", 0)
    in_parts = read_samples(segments, staged, refs, SERIES, start_ms, end_ms)
    for expected, got in zip(whole, in_parts, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert len(joined) > 1 or len(refs) == 1 or start_ms == 8000


def test_a_rank_gives_each_series_its_place(stored):
    segments, staged = stored
    refs = np.arange(SERIES, dtype=np.int32)
    offsets, times, values = read_samples(segments, staged, refs, SERIES, 0, 10_000)
    ranked = read_samples(segments, staged, refs, SERIES, 0, 10_000, refs[::-1].astype(np.int64))
    for i in range(SERIES):
        here, there = slice(*offsets[i : i + 2]), slice(*ranked[0][SERIES - 1 - i : SERIES - i + 1])
        np.testing.assert_array_equal(ranked[1][there], times[here])
        np.testing.assert_array_equal(ranked[2][there], values[here])


class Counting(SampleBudget):
    """A budget that remembers what was asked of it."""

    def __init__(self) -> None:
        super().__init__(0, FetchLimits(max_series=1000))
        self.asked: list[tuple] = []

    def check_series(self, count: int) -> None:
        self.asked.append(("series", count))

    def take_chunks(self, count: int, size_bytes: int) -> None:
        self.asked.append(("chunks", count, size_bytes))

    def take(self, samples: int) -> None:
        self.asked.append(("samples", samples))


@pytest.mark.parametrize(("start_ms", "end_ms"), [(0, 10_000), (1500, 4500), (8000, 9000), (9000, 9001)])
@pytest.mark.parametrize("refs", [[], [3], [0, 17, 39], list(range(30))])
def test_a_small_read_is_counted_and_answered_as_a_large_one(stored, monkeypatch, start_ms, end_ms, refs):
    segments, staged = stored
    answers = []
    for few in (32, 0):
        monkeypatch.setattr(segment, "FEW_SERIES", few)
        budget = Counting()
        found = read_samples(segments, staged, np.array(refs, np.int32), SERIES, start_ms, end_ms, budget=budget)
        answers.append((budget.asked, *(column.tolist() for column in found)))
    assert answers[0] == answers[1]
    assert [asked[0] for asked in answers[0][0]] == ["series", "chunks", "samples"]


def test_what_is_too_much_for_a_small_read_is_read_as_a_large_one(stored, monkeypatch):
    segments, staged = stored
    refs = np.arange(30, dtype=np.int32)
    whole = read_samples(segments, staged, refs, SERIES, 0, 10_000)
    twice = Staged(*(np.tile(column, 2) for column in (staged.refs, staged.timestamps, staged.values)))
    for columns in ((segments * 9, staged), (segments, twice)):
        assert small_reads.read_few(*columns, refs, 0, 10_000) is None
        for expected, got in zip(whole, read_samples(*columns, refs, SERIES, 0, 10_000), strict=True):
            np.testing.assert_array_equal(got, expected)
