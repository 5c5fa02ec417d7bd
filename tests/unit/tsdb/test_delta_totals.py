"""Histograms of deltas come to what the plain twin says, however many come at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.model.histograms import HistogramSamples
from mimir_ingest.tsdb import delta_totals
from mimir_ingest.tsdb.delta_totals import DeltaTotals
from tests.reference import histogram_totals as reference
from tests.support.histograms import STALE_BITS, Row, as_rows, bits, histogram_rows, of_rows

STALE = Row(0, 0, False, 0.0, 0.0, 0.0, STALE_BITS, (), ())


def spread(low: int, high: int, schema: int = 8) -> Row:
    """Return a histogram with a first and a last bucket far apart."""
    return Row(schema, 0, False, 0.0, 0.0, 2.0, bits(1.0), (), ((low, 1.0), (high, 1.0)))


def padded(row: Row, empty: set[int]) -> Row:
    """Return a histogram that lists these buckets, too, empty ones where it has none."""
    listed = dict.fromkeys((i for i in empty if row.schema != -53 or 0 <= i <= len(row.custom)), 0.0)
    return row._replace(reset_hint=0, positive=tuple(sorted((listed | dict(row.positive)).items())))


ROWS = st.one_of(
    histogram_rows().map(lambda row: row._replace(reset_hint=0)),
    st.builds(padded, histogram_rows(), st.sets(st.integers(-200, 200), max_size=4)),
    st.builds(spread, st.integers(-300, 0), st.integers(1, 300), st.integers(-4, 8)),
    st.sampled_from(
        [
            STALE,
            spread(-(1 << 31), (1 << 31) - 1),
            spread(0, 1)._replace(sum_bits=bits(float("inf"))),
            spread(0, 1)._replace(sum_bits=bits(float("-inf"))),
            spread(0, 1)._replace(sum_bits=bits(float("nan"))),
        ]
    ),
)
# (series, histogram, whether it is a delta, whether one stands in front of it)
RECORDS = st.lists(
    st.lists(st.tuples(st.integers(0, 3), ROWS, st.sampled_from([True, True, False]), st.booleans()), max_size=6),
    max_size=6,
)


def comparable(row: Row) -> tuple:
    return row._replace(sum_bits="nan" if row.sum_bits & (1 << 63) - 1 > 0x7FF << 52 != STALE_BITS else row.sum_bits)


@settings(deadline=None)
@given(records=RECORDS, slice_buckets=st.sampled_from([1, 700, 1 << 20]), restarts=st.booleans())
def test_records_one_after_another_are_stored_as_the_twin_says(records, slice_buckets, restarts):
    totals, plain = DeltaTotals(), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delta_totals, "_SLICE_BUCKETS", slice_buckets)
        patch.setattr(delta_totals, "_MOST_DEAD", 2)
        for record in records:
            if not record:
                continue
            values = [row for _, row, _, _ in record]
            deltas = np.array([delta for _, _, delta, _ in record])
            accepted = [
                (series, number)
                for i, (series, row, _, in_front) in enumerate(record)
                for number in ((-1 - i, i) if in_front and row is not STALE else (i,))
            ]
            refs = np.array([series for series, _ in accepted], np.int32)
            rows = np.array([number for _, number in accepted], np.int64)
            samples = HistogramSamples(np.arange(len(record) + 1), np.zeros(len(record), np.int64), of_rows(values))
            found = totals.stored(samples, deltas, refs, rows)
            of = [-1 - n if n < 0 else n for _, n in accepted]
            slots = [series if deltas[i] else -1 for (series, _), i in zip(accepted, of, strict=True)]
            wanted = reference.fold(values, rows.tolist(), slots, plain)
            assert list(map(comparable, as_rows(found))) == list(map(comparable, wanted))
            held = totals.take(np.arange(4))
            assert held.places.tolist() == sorted(plain)
            assert as_rows(held.histograms) == [plain[series] for series in sorted(plain)]
            if restarts:
                totals = DeltaTotals.of(held)
    totals.forget(np.array([0, 2]))
    assert totals.take(np.arange(4)).places.tolist() == sorted(set(plain) - {0, 2})


def test_a_total_is_as_fine_as_the_span_of_all_its_buckets_allows():
    totals = DeltaTotals()

    def stored(row: Row) -> Row:
        samples = HistogramSamples(np.array([0, 1]), np.zeros(1, np.int64), of_rows([row]))
        return as_rows(totals.stored(samples, np.array([True]), np.zeros(1, np.int32), np.zeros(1, np.int64)))[0]

    assert stored(spread(1, 160)).schema == 8
    assert stored(spread(2, 161)).schema == 7
    assert stored(spread(1, 2, schema=8)).schema == 7
    assert stored(spread(1, 2, schema=3)).schema == 3
    last = stored(spread(1, 2, schema=8))
    assert (last.schema, last.count, sum(count for _, count in last.positive)) == (3, 10.0, 10.0)


def test_other_bounds_begin_a_new_total_with_a_reset():
    totals = DeltaTotals()
    rows = [
        Row(-53, 0, False, 0.0, 0.0, 1.0, bits(1.0), (), ((0, 1.0),), bounds) for bounds in ((1.0,), (1.0,), (2.0,))
    ]
    samples = HistogramSamples(np.array([0, 3]), np.zeros(3, np.int64), of_rows(rows))
    found = as_rows(totals.stored(samples, np.array([True]), np.zeros(3, np.int32), np.arange(3)))
    assert [(row.count, row.reset_hint, row.custom) for row in found] == [
        (1, 0, (1.0,)),
        (2, 0, (1.0,)),
        (1, 1, (2.0,)),
    ]


def test_a_total_has_the_resolution_that_its_filled_buckets_need_and_lists_these_alone():
    # As the SDK sends them: 160 buckets from the first filled one on, the last of them empty.
    deltas = [
        Row(
            3,
            0,
            False,
            0.0,
            0.0,
            3.0,
            bits(1.0),
            ((1, 0.0),),
            tuple((first + i, float(i in (0, 7, 150))) for i in range(160)),
        )
        for first in (-40, -48, -41)
    ]
    series, first = np.zeros(3, np.int32), np.arange(3)
    samples = HistogramSamples(np.array([0, 3]), first, of_rows(deltas))
    stored = as_rows(DeltaTotals().stored(samples, np.ones(1, bool), series, first))
    plain: dict[int, float] = {}
    for delta, total in zip(deltas, stored, strict=True):
        for bucket, count in delta.positive:
            if count:
                plain[bucket] = plain.get(bucket, 0.0) + count
        assert (total.schema, total.negative, total.positive) == (3, (), tuple(sorted(plain.items())))
    (kept,) = as_rows(
        DeltaTotals().stored(
            HistogramSamples(np.array([0, 1]), first[:1], of_rows(deltas[:1])), np.zeros(1, bool), series[:1], first[:1]
        )
    )
    assert kept == deltas[0]
