"""Reading of a head within a budget of samples."""

from __future__ import annotations

import numpy as np
import pytest

from mimir_ingest.errors import QueryError
from mimir_ingest.model.samples import TOO_MANY_SAMPLES, FetchLimits, SampleBudget
from mimir_ingest.tsdb import pieces, segment
from mimir_ingest.tsdb.segment import Staged, build_segment, read_samples

SERIES, LENGTH = 50, 400


@pytest.fixture(scope="module")
def segments():
    """Two segments of all series, the second one after and between the first one's samples."""
    offsets = np.arange(SERIES + 1, dtype=np.int64) * LENGTH
    refs = np.arange(SERIES, dtype=np.int32)
    times = np.tile(np.arange(LENGTH, dtype=np.int64) * 10, SERIES)
    values = np.arange(SERIES * LENGTH, dtype=np.float64)
    return [build_segment(refs, offsets, times, values), build_segment(refs, offsets, times + 2005, -values)]


@pytest.mark.parametrize(("start_ms", "end_ms"), [(0, 10_000), (1500, 2500), (3999, 4000)])
def test_slices_give_what_one_read_gives(segments, monkeypatch, start_ms, end_ms):
    refs = np.arange(0, SERIES, 3, dtype=np.int32)
    whole = read_samples(segments, Staged.empty(), refs, SERIES, start_ms, end_ms)
    monkeypatch.setattr(segment, "_SLICE_SAMPLES", 700)
    sliced = read_samples(segments, Staged.empty(), refs, SERIES, start_ms, end_ms, budget=SampleBudget(1_000_000))
    for expected, got in zip(whole, sliced, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("slice_samples", [1 << 20, 700])
def test_more_than_the_budget_is_refused_before_it_is_decoded(segments, monkeypatch, slice_samples):
    decoded = []
    decode = pieces.decode_xor
    monkeypatch.setattr(segment, "_SLICE_SAMPLES", slice_samples)
    monkeypatch.setattr(pieces, "decode_xor", lambda *args: decoded.append(args[3][-1] - args[3][0]) or decode(*args))
    refs = np.arange(SERIES, dtype=np.int32)
    read_samples(segments, Staged.empty(), refs, SERIES, 0, 10_000, budget=SampleBudget(2 * SERIES * LENGTH))
    assert sum(decoded) == 2 * SERIES * LENGTH
    decoded.clear()
    with pytest.raises(QueryError, match=TOO_MANY_SAMPLES):
        read_samples(segments, Staged.empty(), refs, SERIES, 0, 10_000, budget=SampleBudget(5000))
    assert sum(decoded) <= 5000


@pytest.mark.parametrize(
    "limits", [FetchLimits(max_chunks=99), FetchLimits(max_chunk_bytes=99), FetchLimits(max_series=49)]
)
def test_more_chunks_or_series_than_a_tenant_may_read_are_refused_before_any_is_decoded(segments, monkeypatch, limits):
    monkeypatch.setattr(pieces, "decode_xor", lambda *_: pytest.fail("decoded"))
    refs = np.arange(SERIES, dtype=np.int32)
    with pytest.raises(QueryError, match="err-mimir-max-"):
        read_samples(segments, Staged.empty(), refs, SERIES, 0, 10_000, budget=SampleBudget(0, limits))


def test_chunks_and_series_up_to_the_limit_are_read(segments):
    refs = np.arange(SERIES, dtype=np.int32)
    chunks = sum(len(s.refs) for s in segments)
    limits = FetchLimits(max_chunks=chunks, max_series=SERIES)
    found = read_samples(segments, Staged.empty(), refs, SERIES, 0, 10_000, budget=SampleBudget(0, limits))
    assert found[0][-1] == 2 * SERIES * LENGTH
    # Of series without chunks in the range none counts.
    few = FetchLimits(max_series=1)
    read_samples(segments, Staged.empty(), refs, SERIES, -10, -5, budget=SampleBudget(0, few))
