"""Heads and blocks are joined without a gap or a double."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.samples import SeriesSamples
from mimir_ingest.querier.merge import merge_frames, merge_samples
from tests.reference.merge import merge_series

label_sets = st.dictionaries(st.sampled_from(["a", "b", "__name__"]), st.sampled_from(["", "1", "2"]), max_size=3)
source = st.dictionaries(
    label_sets.map(lambda s: tuple(sorted((k, v) for k, v in s.items() if v))),
    st.dictionaries(st.integers(0, 30), st.floats(allow_nan=False), max_size=12).map(lambda d: sorted(d.items())),
    max_size=5,
)


def columns(series):
    """SeriesSamples of a mapping from label pairs to sorted samples."""
    samples = [s for part in series.values() for s in part]
    return SeriesSamples(
        LabelFrame.from_dicts([dict(k) for k in series]),
        np.cumsum([0, *(len(v) for v in series.values())]).astype(np.int64),
        np.array([t for t, _ in samples], np.int64),
        np.array([v for _, v in samples], np.float64),
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(source, max_size=4))
def test_sources_merge_like_the_plain_twin(sources):
    merged = merge_samples([columns(s) for s in sources])
    keys = sorted({k for s in sources for k in s})
    expected = merge_series([[s.get(k, []) for s in sources] for k in keys])
    got = [tuple(sorted(d.items())) for d in merged.labels.to_dicts()]
    assert got == keys
    for i, series in enumerate(expected):
        lo, hi = merged.offsets[i], merged.offsets[i + 1]
        assert list(zip(merged.timestamps[lo:hi].tolist(), merged.values[lo:hi].tolist(), strict=True)) == series


@given(st.lists(st.lists(label_sets, max_size=5), max_size=3))
def test_label_sets_are_distinct_and_in_label_order(frames):
    merged = merge_frames([LabelFrame.from_dicts(f) for f in frames])
    expected = sorted({tuple(sorted((k, v) for k, v in s.items() if v)) for f in frames for s in f})
    assert [tuple(sorted(d.items())) for d in merged.to_dicts()] == expected
