"""Kernels of native histograms and their twins in dictionaries agree."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.kernels import native_fold, native_pairs, native_quantile, native_rate, native_resets
from mimir_ingest.kernels.native_bounds import exp2_of, exponential_bound, log2_of
from mimir_ingest.kernels.native_buckets import list_buckets, weigh_histograms
from mimir_ingest.kernels.native_columns import ABSENT, Points
from mimir_ingest.kernels.native_extended import extend_histograms
from mimir_ingest.kernels.windows import ANCHORED, COUNTER, PER_SECOND, SMOOTHED
from tests.reference import native_bounds, native_merge
from tests.reference import native_quantile as plain_quantile
from tests.reference import native_rate as plain_rate
from tests.reference.native_merge import GAUGE, Plain
from tests.reference.native_trim import trim
from tests.support.native_cases import columns, plain_histograms, room, same, works, written

_WHOLE = st.integers(0, 12).map(float)
_PAIR = st.booleans().flatmap(lambda c: st.tuples(plain_histograms(custom=c), plain_histograms(custom=c)))


@given(st.integers(-1100, 1100), st.integers(-4, 8))
def test_bounds_are_those_of_the_schema_up_to_rounding(index, schema):
    """Powers of two are exact; the others differ by at most four ulps, as Prometheus's table does."""
    ours, exact = exponential_bound(index, schema), native_bounds.exact_bound(index, schema)
    assert abs(ours - exact) <= 4 * math.ulp(exact) if math.isfinite(exact) else ours == exact
    if schema <= 0 or index % 2**schema == 0:
        assert ours == exact


@given(st.floats(2.0**-300, 2.0**300), st.floats(-300, 300))
def test_logarithms_and_powers_are_right_to_the_last_digits_and_exact_for_powers_of_two(x, y):
    """They are computed as in Go, which rounds otherwise than the C library."""
    assert log2_of(x) == pytest.approx(math.log2(x), rel=1e-15, abs=1e-15)
    assert exp2_of(y) == pytest.approx(2**y, rel=1e-15)
    assert log2_of(2.0 ** round(y)) == round(y)
    assert exp2_of(float(round(y))) == 2.0 ** round(y)


@given(_PAIR, st.sampled_from([1, -1]))
def test_two_histograms_are_added_and_subtracted_in_what_resolution_both_have(pair, sign):
    """Bucket for bucket, with zero buckets and custom bounds reconciled, and what was found on the way."""
    left, right = pair
    output = room(1)
    native_pairs.combine_pairs(columns([left]), columns([right]), np.array([[0, 0]]), sign, works(3), output)
    flags = native_merge.merge(left, right, float(sign), False)
    if flags & native_merge.COLLISION:
        assert output.flags[0] == flags | ABSENT
        return
    native_merge.compact(left)
    left.hint = GAUGE if sign < 0 else left.hint
    assert output.flags[0] == flags
    assert same(written(output)[0], left)


@given(plain_histograms(custom=True), plain_histograms(custom=False))
def test_exponential_and_custom_buckets_do_not_mix(custom, exponential):
    """There is no result, either way round."""
    for left, right in ((custom, exponential), (exponential, custom)):
        output = room(1)
        native_pairs.combine_pairs(columns([left]), columns([right]), np.array([[0, 0]]), 1, works(3), output)
        assert output.flags[0] == native_merge.INCOMPATIBLE | ABSENT
        assert output.cursor.tolist() == [1, 0]


@given(plain_histograms(), st.floats(-1e3, 1e3) | st.sampled_from([0.0, -0.0, math.inf, math.nan]), st.booleans())
def test_histograms_are_multiplied_and_divided(h, factor, by_division):
    """A division by zero removes the buckets."""
    output = room(1)
    operation = native_pairs.DIVIDE if by_division else native_pairs.MULTIPLY
    native_pairs.apply_factors(columns([h]), np.array([0]), np.array([factor]), operation, works(3), output)
    native_merge.scale(h, factor, by_division)
    native_merge.compact(h)
    assert same(written(output)[0], h)


@given(
    plain_histograms(schemas=(-1, 0, 1), counts=_WHOLE),
    st.floats(-9, 9) | st.sampled_from([0.0, 1.0, -2.0, math.inf, -math.inf]),
    st.booleans(),
)
def test_observations_above_or_below_a_number_are_cut_off(h, limit, below):
    """Inside a bucket by interpolation; count and sum are estimated anew."""
    output = room(1)
    operation = native_pairs.TRIM_UPPER if below else native_pairs.TRIM_LOWER
    native_pairs.apply_factors(columns([h]), np.array([0]), np.array([limit]), operation, works(3), output)
    trim(h, limit, below)
    got = written(output)[0]
    for a, b in zip(got.numbers(), h.numbers(), strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key][0] == pytest.approx(b[key][0], rel=1e-12, abs=1e-12, nan_ok=True)


_MEMBERS = st.booleans().flatmap(
    lambda c: st.lists(
        plain_histograms(custom=c) | st.none() if not c else plain_histograms(custom=c), min_size=1, max_size=6
    )
) | st.lists(plain_histograms(), min_size=1, max_size=4)


@settings(max_examples=200)
@given(_MEMBERS, st.booleans(), st.booleans())
def test_many_histograms_are_summed_and_averaged_with_what_each_addition_lost(members, average, packed):
    """Floats among them, other schemas, overflow: as one by one."""
    if not any(members):
        return
    rows = [h for h in members if h is not None]
    places = iter(range(len(rows)))
    index = np.array([-1 if h is None else next(places) for h in members])
    output, failed = room(1), np.empty(1, np.int64)
    mode = (native_fold.AVERAGE if average else 0) | (native_fold.COMPACT if packed else 0)
    spans = np.array([[0, len(members)]])
    native_fold.fold_histograms(columns(rows), index, spans, mode, works(2), output, failed)
    wanted, flags = native_merge.fold(members, average, packed)
    assert output.flags[0] & ~ABSENT == flags
    got = written(output)
    assert same(got[0] if got else None, wanted)


@given(_PAIR.map(list) | st.lists(plain_histograms(counts=_WHOLE), min_size=2, max_size=5))
def test_resets_are_found_from_sample_to_sample(samples):
    """By hints, counts, and buckets of whatever resolution."""
    resets = np.empty(len(samples), bool)
    rows = np.arange(len(samples))
    native_resets.find_resets(columns(samples), np.array([0, len(samples)]), rows, *works(2), resets)
    wanted = [False, *(native_merge.was_reset(b, a) for a, b in itertools.pairwise(samples))]
    assert resets.tolist() == wanted


@given(st.lists(plain_histograms(counts=_WHOLE), min_size=1, max_size=4))
def test_a_histogram_equals_itself_and_no_other(samples):
    """Empty buckets count, hints do not."""
    native, n = columns(samples), len(samples)
    pairs = [(i, j) for i in range(n) for j in range(n)]
    equal = np.empty(n * n, bool)
    left, right = (np.array(side) for side in zip(*pairs, strict=True))
    native_resets.compare_rows(native, native, left, right, equal)
    for (i, j), found in zip(pairs, equal.tolist(), strict=True):
        a, b = samples[i].clone(), samples[j].clone()
        a.hint = b.hint = 0
        assert found == same(a, b)
    changed = np.empty(n * n, bool)
    native_resets.find_changes(native, left, right, changed)
    assert (changed == ~equal).all()


_COUNTERS = st.booleans().flatmap(
    lambda c: st.lists(plain_histograms(custom=c, counts=_WHOLE, hints=(0, 0, 2, 3)), min_size=2, max_size=6)
) | st.lists(plain_histograms(counts=_WHOLE), min_size=2, max_size=4)


def _points(samples: list[Plain]) -> tuple[Points, list[int]]:
    times = [1000 * (7 * i + i % 3) for i in range(len(samples))]
    resets = np.empty(len(samples), bool)
    rows = np.arange(len(samples))
    native_resets.find_resets(columns(samples), np.array([0, len(samples)]), rows, *works(2), resets)
    return Points(rows, np.array(times), resets), times


@settings(max_examples=200)
@given(_COUNTERS, st.sampled_from([0, COUNTER, COUNTER | PER_SECOND]))
def test_a_window_grows_by_its_increase_extrapolated_to_its_borders(samples, mode):
    """Over resets, changes of schema and gauges, with flags for each of these."""
    points, times = _points(samples)
    start, end = -3000, times[-1] + 5000
    output = room(1)
    window = np.array([end - start, mode])
    spans = np.array([[0, len(samples), start, end]])
    native_rate.extrapolate_histograms(columns(samples), points, spans, window, works(3), output)
    per_second = (end - start) / 1000 if mode & PER_SECOND else None
    pairs = list(zip(times, samples, strict=True))
    wanted, flags = plain_rate.extrapolated(pairs, start, end, bool(mode & COUNTER), per_second)
    assert output.flags[0] & ~ABSENT == flags
    got = written(output)
    assert same(got[0] if got else None, wanted)


@given(_COUNTERS, st.booleans())
def test_the_last_two_samples_give_irate_and_idelta(samples, per_second):
    """The difference, or the newer sample after a reset."""
    points, times = _points(samples)
    output, at = room(1), len(samples) - 1
    native_rate.last_increase(columns(samples), points, np.array([at]), int(per_second), works(3), output)
    pairs = list(zip(times, samples, strict=True))
    wanted, flags = plain_rate.last_step(pairs[-2], pairs[-1], per_second)
    assert output.flags[0] & ~ABSENT == flags
    got = written(output)
    assert same(got[0] if got else None, wanted)


@settings(max_examples=200)
@given(
    _COUNTERS,
    st.sampled_from([0, COUNTER, COUNTER | PER_SECOND]),
    st.sampled_from([ANCHORED, SMOOTHED]),
    st.integers(0, 30),
    st.integers(1, 30),
)
def test_anchored_and_smoothed_windows_grow_between_their_borders(samples, mode, how, begin, length):
    """From the sample before the border, or from what lies between two; resets inside are made up for."""
    points, times = _points(samples)
    start, end = 1000 * begin, 1000 * (begin + length)
    output = room(1)
    window, spans = np.array([end - start, mode | how]), np.array([[0, len(samples), start, end]])
    extend_histograms(columns(samples), points, spans, window, works(7), output)
    pairs = list(zip(times, samples, strict=True))
    per_second = float(length) if mode & PER_SECOND else None
    wanted, flags = plain_rate.extended(pairs, start, end, bool(mode & COUNTER), how == SMOOTHED, per_second)
    assert output.flags[0] & ~ABSENT == flags
    got = written(output)
    assert same(got[0] if got else None, wanted)


@given(plain_histograms(counts=_WHOLE), st.floats(-0.2, 1.2) | st.sampled_from([0.0, 0.5, 1.0, math.nan]))
def test_quantiles_are_interpolated_inside_their_bucket(h, q):
    """Exponentially, or linearly in custom and zero buckets."""
    values, flags = np.empty(1), np.empty(1, np.int64)
    native_quantile.quantile_histograms(columns([h]), np.array([0]), np.array([q]), values, flags)
    assert values[0] == pytest.approx(plain_quantile.quantile(h, q), rel=1e-12, nan_ok=True)


@given(plain_histograms(counts=_WHOLE), st.floats(-9, 9), st.floats(-9, 9) | st.just(math.inf))
def test_fractions_are_what_lies_between_two_values(h, low, high):
    """Of all observations, also those that are NaN."""
    values, flags = np.empty(1), np.empty(1, np.int64)
    native_quantile.fraction_histograms(columns([h]), np.array([0]), np.array([low]), np.array([high]), values, flags)
    assert values[0] == pytest.approx(plain_quantile.fraction(h, low, high), rel=1e-9, abs=1e-12, nan_ok=True)


@given(plain_histograms(counts=_WHOLE))
def test_variance_buckets_and_weight_are_those_of_the_twin(h):
    """The list is what JSON shows: populated buckets by rising bounds."""
    native, values, weights = columns([h]), np.empty(1), np.empty(1, np.int64)
    native_quantile.variance_histograms(native, np.array([0]), values)
    assert values[0] == pytest.approx(plain_quantile.variance(h), rel=1e-9, nan_ok=True)
    for more in (0, 8):
        assert weigh_histograms(native, more, weights) == weights[0] == plain_quantile.weight(h, more)
    offsets, kinds = np.empty(2, np.int64), np.empty(16, np.int64)
    lower, upper, count = np.empty((3, 16))
    size = list_buckets(native, np.array([0]), 0, offsets, kinds, lower, upper, count)
    wanted = [b for b in plain_quantile.buckets(h) if b[2]]
    got = list(zip(lower[:size].tolist(), upper[:size].tolist(), count[:size].tolist(), strict=True))
    assert len(got) == len(wanted) == offsets[1]
    for a, b in zip(got, wanted, strict=True):
        assert a == pytest.approx(b, rel=1e-14)


def test_a_kernel_that_runs_out_of_room_goes_on_where_it_stopped():
    """Items are written once, whatever room there is."""
    samples = [Plain(positive={k: (float(k), 0.0) for k in range(1, 9)}) for _ in range(5)]
    native, rows, factors = columns(samples), np.arange(5), np.full(5, 2.0)
    output = room(5)
    small = output._replace(
        columns=output.columns._replace(bucket_index=np.zeros(20, np.int32), bucket_count=np.zeros(20))
    )
    assert native_pairs.apply_factors(native, rows, factors, native_pairs.MULTIPLY, works(3), small) == 2
    assert small.cursor.tolist() == [2, 2]
    rest = room(5)
    rest.cursor[0] = 2
    assert native_pairs.apply_factors(native, rows, factors, native_pairs.MULTIPLY, works(3), rest) == 5
    assert len(written(small)) + len(written(rest)) == 5


def test_a_reader_of_statistics_knows_the_sample_before_unless_it_jumped():
    """Only unknown hints are made out; where the query lands after a jump, nothing is known."""
    offsets, times = np.array([0, 6]), np.array([0, 10, 20, 100, 110, 120])
    hints = np.array([0, 0, GAUGE, 0, 0, 0], np.uint8)
    resets = np.array([False, True, False, True, True, False])
    found = np.empty(6, np.uint8)
    looked = np.array([25, 120])
    assert native_resets.detect_hints(offsets, times, hints, resets, looked, 30, found) == 4
    assert found.tolist() == [
        0,
        native_merge.RESET,
        GAUGE,
        native_merge.RESET,
        native_merge.RESET,
        native_merge.NO_RESET,
    ]
    assert native_resets.detect_hints(offsets, times, hints, resets, looked, 15, found) == 1
    assert found.tolist() == [0, 0, GAUGE, 0, 0, native_merge.NO_RESET]
