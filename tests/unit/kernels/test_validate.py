import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.kernels.validate import UNORDERED, WITHOUT_SAMPLES, SeriesRule, check_series
from mimir_ingest.kernels.varint import WireStatus
from mimir_ingest.model.labels import put_uvarint
from tests.reference import validate as reference

HAS_PLACE = {
    SeriesRule.MAX_LABEL_NAMES,
    SeriesRule.MAX_LABEL_NAMES_INFO,
    SeriesRule.LABEL_INVALID,
    SeriesRule.LABEL_NAME_TOO_LONG,
    SeriesRule.LABEL_VALUE_INVALID,
    SeriesRule.LABEL_VALUE_TOO_LONG,
    SeriesRule.DUPLICATE_LABEL_NAMES,
    SeriesRule.TOO_FAR_IN_FUTURE,
    SeriesRule.TOO_FAR_IN_PAST,
}
NAME = st.one_of(
    st.sampled_from([b"__name__", b"", b"job", b"instance", b"a_rather_long_label_name", b"a_rather_long_label_nami"]),
    st.text("aZ_09:-é", max_size=20).map(str.encode),
    st.binary(max_size=4),
)
VALUE = st.one_of(
    st.sampled_from([b"up", b"node_info", b"a:b", b"0up", b"x" * 127, b"x" * 128, b"x" * 200]),
    st.text(min_size=1, max_size=12).map(lambda t: t.encode("utf-8", "surrogatepass")),
    st.binary(min_size=1, max_size=12),
)
PAIRS = st.lists(st.tuples(NAME, VALUE), max_size=8).map(lambda pairs: sorted(pairs, key=lambda p: p[0]))
NAMED = PAIRS.map(lambda pairs: sorted([(b"__name__", b"up"), *pairs], key=lambda p: p[0]))
TIMESTAMPS = st.lists(st.integers(-3, 3), max_size=4)


def label_bytes(pairs):
    out = bytearray()
    for name, value in pairs:
        for text in (name, value):
            put_uvarint(out, len(text))
            out += text
    return bytes(out)


def run(series, limits, cut=0):
    joined = b"".join(label_bytes(pairs) for pairs, _ in series)
    ends = np.cumsum([0, *(len(label_bytes(pairs)) for pairs, _ in series)])
    sample_offsets = np.cumsum([0, *(len(ts) for _, ts in series)])
    timestamps = np.array([t for _, ts in series for t in ts], np.int64)
    n = len(series)
    codes, at, counts = np.empty(n, np.uint8), np.empty(n, np.int64), np.empty(2, np.int64)
    labels = np.frombuffer(joined, np.uint8)
    failed = check_series(
        labels[: len(labels) - cut],
        np.minimum(ends, len(labels) - cut),
        sample_offsets,
        timestamps,
        np.array([limits[name] for name in LIMITS], np.int64),
        codes,
        at,
        counts,
    )
    return failed, codes, at, counts, sample_offsets


@settings(max_examples=200)
@given(
    st.lists(st.tuples(PAIRS | NAMED, TIMESTAMPS), max_size=5),
    st.fixed_dictionaries(
        {
            "max_label_names": st.sampled_from([2, 5, 30]),
            "max_label_names_info": st.sampled_from([3, 80]),
            "max_name_bytes": st.sampled_from([6, 1024]),
            "max_value_bytes": st.sampled_from([5, 127, 150, 2048]),
            "utf8": st.booleans(),
            "skip_label_names": st.booleans(),
            "skip_label_count": st.booleans(),
            "shorten_values": st.booleans(),
            "min_timestamp": st.sampled_from([-(2**63), -2]),
            "max_timestamp": st.sampled_from([2**63 - 1, 2]),
        }
    ),
)
def test_the_kernel_finds_the_rule_and_the_place_that_the_twin_finds(series, limits):
    failed, codes, at, counts, sample_offsets = run(series, limits)
    unordered = without_samples = 0
    for i, (pairs, timestamps) in enumerate(series):
        rule, place = reference.check(pairs, timestamps, **limits)
        assert codes[i] == rule
        if rule in HAS_PLACE:
            timed = rule in (SeriesRule.TOO_FAR_IN_FUTURE, SeriesRule.TOO_FAR_IN_PAST)
            assert at[i] == place + (sample_offsets[i] if timed else 0)
        if rule in (SeriesRule.OK, SeriesRule.VALUES_TO_SHORTEN):
            unordered += any(b <= a for a, b in itertools.pairwise(timestamps))
            without_samples += not timestamps
    assert failed == np.count_nonzero(codes)
    assert counts[UNORDERED] == unordered
    assert counts[WITHOUT_SAMPLES] == without_samples


LIMITS = {
    "max_label_names": 30,
    "max_label_names_info": 80,
    "max_name_bytes": 1024,
    "max_value_bytes": 2048,
    "utf8": 0,
    "skip_label_names": 0,
    "skip_label_count": 0,
    "shorten_values": 0,
    "min_timestamp": -(2**63),
    "max_timestamp": 2**62,
}


@pytest.mark.parametrize("byte", range(256))
@pytest.mark.parametrize("position", [0, 1, 7, 8, 9, 15])
def test_every_byte_at_every_place_of_a_name_is_judged_as_the_twin_does(byte, position):
    name = bytearray(b"abcdefghijklmnop")
    name[position] = byte
    padding = ([(b"__name__", b"padding_behind")], [])
    for pairs in ([(b"__name__", b"up"), (bytes(name), b"v")], [(b"__name__", bytes(name))]):
        pairs = sorted(pairs)
        for utf8 in (0, 1):
            limits = LIMITS | {"utf8": utf8}
            _, codes, _, _, _ = run([(pairs, []), padding, padding], limits)
            assert codes[0] == reference.check(pairs, [], **limits)[0]


def test_label_bytes_that_end_early_are_a_status_and_not_a_crash():
    series = [([(b"__name__", b"up"), (b"job", b"node")], [1])]
    for cut in range(1, len(label_bytes(series[0][0]))):
        failed, *_ = run(series, LIMITS, cut)
        assert failed in (0, 1) or failed == WireStatus.CUT_OFF
