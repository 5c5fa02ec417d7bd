"""Heads and blocks are joined without a gap or a double."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.errors import QueryError
from mimir_ingest.kernels.merge import place_series as place_series_kernel
from mimir_ingest.model import histograms as histograms_module
from mimir_ingest.model.histograms import HistogramSamples
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.samples import SampleBudget, SeriesSamples
from mimir_ingest.querier import merge
from mimir_ingest.querier.merge import merge_frames, merge_samples
from tests.reference.merge import merge_series, place_series
from tests.support.histograms import Row, as_rows, of_rows

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


@given(st.lists(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 9)), max_size=4), min_size=1, max_size=5), st.data())
def test_series_are_placed_like_the_plain_twin_places_them(series, data):
    chosen = data.draw(st.permutations(range(len(series))))[: data.draw(st.integers(0, len(series)))]
    at = np.cumsum([1, *(len(series[number]) + 1 for number in chosen)])
    ts_out, values_out = np.full(at[-1], -1), np.empty(at[-1])
    flat = [sample for one in series for sample in one]
    found = place_series_kernel(
        np.cumsum([0, *map(len, series)]),
        np.array(chosen, np.int64),
        np.array([ts for ts, _ in flat], np.int64),
        np.array([value for _, value in flat], np.float64),
        at[:-1],
        ts_out,
        values_out,
    )
    placed = place_series(series, chosen, at[:-1].tolist(), len(ts_out))
    assert found == sum(len(series[number]) for number in chosen)
    assert ts_out.tolist() == [-1 if sample is None else sample[0] for sample in placed]
    assert all(values_out[i] == sample[1] for i, sample in enumerate(placed) if sample is not None)


class Patience(SampleBudget):
    """A budget whose reads are given up when it was asked so many times."""

    def __init__(self, questions: float = float("inf")) -> None:
        super().__init__(0)
        self.asked, self._questions = 0, questions

    def check(self) -> None:
        """Count the question."""
        self.asked += 1
        if self.asked > self._questions:
            self.end()
        super().check()


def many_sources() -> list[SeriesSamples]:
    """Three sources of 20 series that overlap, of 10 floats and 5 histograms each."""
    rows = of_rows(
        [Row(3, k % 4, False, 0.0, 0.0, 3.0 + k, k, ((-k, 1.0),), ((1, 2.0), (2 * k, 3.0))) for k in range(1, 6)]
    )
    sources = []
    for k in range(3):
        names = [(("i", f"{(7 * i) % 20:02}"),) for i in range(k, 20 + k)]
        floats = columns({name: [(t * (k + 1), float(t)) for t in range(10)] for name in names})
        times = np.tile(np.arange(5) * (k + 2) + 100, len(names))
        values = rows.take(np.tile(np.arange(5), len(names)))
        histograms = HistogramSamples(np.arange(len(names) + 1) * 5, times, values)
        sources.append(SeriesSamples(floats.labels, floats.offsets, floats.timestamps, floats.values, histograms))
    return sources


def told(samples: SeriesSamples) -> list:
    """Everything in samples, as lists."""
    own = samples.histograms
    lists = [
        samples.labels.to_dicts(),
        samples.offsets,
        samples.timestamps,
        samples.values,
        own.offsets,
        own.timestamps,
    ]
    return [list(map(str, column)) for column in (*lists, as_rows(own.values))]


@pytest.mark.parametrize("count", [1, 3])
def test_a_merge_works_in_pieces_and_stops_between_them(monkeypatch, count):
    """Each budget is asked more often when pieces are small; the answer stays; given up at any question, it ends."""
    sources = many_sources()[:count]
    whole = Patience()
    expected = told(merge_samples(sources, whole))
    for module, name, size in (
        (merge, "_PIECE_SAMPLES", 50),
        (merge, "_PIECE_HISTOGRAMS", 20),
        (histograms_module, "_SPAN_ROWS", 30),
    ):
        monkeypatch.setattr(module, name, size)
    pieces = Patience()
    assert told(merge_samples(sources, pieces)) == expected
    assert pieces.asked >= whole.asked + 5
    for questions in (0, pieces.asked // 2, pieces.asked - 1):
        patience = Patience(questions)
        with pytest.raises(QueryError, match="given up"):
            merge_samples(sources, patience)
        assert patience.asked == questions + 1


@given(st.lists(st.lists(label_sets, max_size=5), max_size=3))
def test_label_sets_are_distinct_and_in_label_order(frames):
    merged = merge_frames([LabelFrame.from_dicts(f) for f in frames])
    expected = sorted({tuple(sorted((k, v) for k, v in s.items() if v)) for f in frames for s in f})
    assert [tuple(sorted(d.items())) for d in merged.to_dicts()] == expected
