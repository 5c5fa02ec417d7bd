"""Faults, lower resolutions and stored forms of native histograms are those of the plain twin."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels.histogram_check import reduce_histograms
from mimir_ingest.model.histograms import Histograms
from tests.reference import histogram_check as reference
from tests.support.histograms import STALE_BITS, Row, as_rows, bits, histogram_rows, of_rows

COUNTS = st.sampled_from([-1.0, 0.0, 1.0, 2.0, float(2**53), float(2**60)])
BOUNDS = st.lists(st.sampled_from([-1.0, 0.0, 1.0, 2.0, math.inf, math.nan]), max_size=3).map(tuple)
SIDES = st.dictionaries(st.integers(-2, 4), COUNTS, max_size=3).map(lambda d: tuple(sorted(d.items())))


@st.composite
def strange_rows(draw) -> Row:
    """Histograms with anything wrong, some with nothing wrong."""
    row = draw(histogram_rows())
    changes = {
        "schema": st.sampled_from([-53, -4, 8, 9, -5, -128]),
        "negative": SIDES,
        "positive": SIDES,
        "custom": BOUNDS,
        "count": COUNTS,
        "zero_count": COUNTS,
        "is_float": st.booleans(),
        "sum_bits": st.sampled_from([0, bits(math.nan), STALE_BITS]),
    }
    for name in draw(st.lists(st.sampled_from(sorted(changes)), max_size=3)):
        row = row._replace(**{name: draw(changes[name])})
    return row


@given(st.lists(strange_rows(), max_size=5))
def test_faults_and_stored_forms_are_those_of_the_twin(rows):
    values = of_rows(rows)
    assert values.faults().tolist() == [reference.fault(row) for row in rows]
    same = [(repr(a), repr(b)) for a, b in zip(as_rows(values.stored()), map(reference.stored, rows), strict=True)]
    assert all(a == b for a, b in same)


@given(st.lists(histogram_rows().filter(lambda r: r.schema != -53 and not r.is_float), max_size=5), st.integers(1, 8))
def test_resolution_is_halved_until_buckets_are_fewer_than_the_limit(rows, limit):
    values = of_rows(rows)
    m, b = len(values), len(values.bucket_index)
    schema, offsets, refused = np.empty(m, np.int8), np.empty(2 * m + 1, np.int64), np.empty(m, np.uint8)
    index, count = np.empty(b, np.int32), np.empty(b, np.float64)
    reduce_histograms(values.columns, limit, schema, offsets, index, count, refused)
    lower = Histograms(
        schema, values.reset_hint, values.is_float, values.zero_threshold, values.zero_count, values.count, values.sum,
        offsets, index, count, values.custom_offsets, values.custom_values,
    )  # fmt: skip
    for row, found, stuck in zip(rows, as_rows(lower), refused.tolist(), strict=True):
        wanted = reference.reduced(row, limit)
        assert stuck == (wanted is None)
        if wanted is not None:
            assert found == wanted


@given(st.lists(histogram_rows(), min_size=1, max_size=6))
def test_digests_tell_histograms_apart_whatever_their_hints(rows):
    digests = of_rows(rows).digests().tolist()
    again = of_rows([row._replace(reset_hint=3 - row.reset_hint) for row in rows]).digests().tolist()
    assert digests == again
    different = {row._replace(reset_hint=0) for row in rows}
    assert len(set(digests)) == len(different)
