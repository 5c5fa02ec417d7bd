"""Columns of native histograms keep each histogram's parts together."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.model.histograms import Histograms, HistogramSamples
from tests.support.histograms import as_rows, histogram_rows, of_rows


@given(st.lists(histogram_rows()), st.data())
def test_taking_gives_the_same_histograms_in_the_new_order(rows, data):
    columns = of_rows(rows)
    index = data.draw(st.lists(st.integers(0, len(rows) - 1))) if rows else []
    assert as_rows(columns.take(np.array(index, np.int64))) == [rows[i] for i in index]
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), bool)
    assert as_rows(columns.take(mask)) == [row for row, kept in zip(rows, mask, strict=True) if kept]


@given(st.lists(st.lists(histogram_rows(), max_size=3), max_size=4))
def test_parts_follow_one_another(parts):
    joined = Histograms.concat([of_rows(part) for part in parts])
    assert as_rows(joined) == [row for part in parts for row in part]


@given(st.lists(st.lists(histogram_rows(), max_size=3), min_size=1, max_size=4), st.data())
def test_series_keep_their_samples(series, data):
    flat = [row for rows in series for row in rows]
    offsets = np.cumsum([0, *map(len, series)])
    samples = HistogramSamples(offsets, np.arange(len(flat)), of_rows(flat))
    index = data.draw(st.lists(st.integers(0, len(series) - 1)))
    twice = HistogramSamples.concat([samples.take(np.array(index, np.int64)), samples])
    wanted = [series[i] for i in index] + series
    assert twice.offsets.tolist() == np.cumsum([0, *map(len, wanted)]).tolist()
    assert as_rows(twice.values) == [row for rows in wanted for row in rows]
    late = twice.keep(twice.timestamps >= 1)
    assert late.timestamps.tolist() == [t for t in twice.timestamps.tolist() if t >= 1]
    assert late.offsets[-1] == len(late.values)
