"""Durations and byte sizes are read and printed by Go's and Prometheus's rules."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mimir_ingest.config.durations import (
    Duration,
    format_duration,
    parse_byte_size,
    parse_go_duration,
    parse_int,
    parse_limit_duration,
    parse_prometheus_duration,
)
from tests.reference import durations as reference

# Answers of Go 1.26's time.ParseDuration and Duration.String to these texts.
READ_BY_GO = [
    ("0", 0, "0s"),
    ("5s", 5_000_000_000, "5s"),
    ("1h30m", 5_400_000_000_000, "1h30m0s"),
    ("1.5h", 5_400_000_000_000, "1h30m0s"),
    ("-1.5h", -5_400_000_000_000, "-1h30m0s"),
    ("+5s", 5_000_000_000, "5s"),
    ("100us", 100_000, "100µs"),
    ("100µs", 100_000, "100µs"),
    ("100μs", 100_000, "100µs"),
    ("1h2m3s4ms5us6ns", 3_723_004_005_006, "1h2m3.004005006s"),
    ("39h9m14.425s", 140_954_425_000_000, "39h9m14.425s"),
    ("9223372036854775.807us", (1 << 63) - 1, "2562047h47m16.854775807s"),
    ("-9223372036854775808ns", -(1 << 63), "-2562047h47m16.854775808s"),
    ("0.9223372036854775807h", 3_320_413_933_267, "55m20.413933267s"),
    ("0.830103483285477580700h", 2_988_372_539_827, "49m48.372539827s"),
    ("0.3333333333333333333h", 1_200_000_000_000, "20m0s"),
    (".5s", 500_000_000, "500ms"),
    ("5.s", 5_000_000_000, "5s"),
    ("1100us", 1_100_000, "1.1ms"),
]
REFUSED_BY_GO = [
    ("9223372036854775808ns", "invalid duration"),
    ("-9223372036854775809ns", "invalid duration"),
    ("3000000h", "invalid duration"),
    ("", "invalid duration"),
    ("3", "missing unit"),
    ("-", "invalid duration"),
    ("s", "invalid duration"),
    (".", "invalid duration"),
    ("+.s", "invalid duration"),
    ("1d", 'unknown unit "d"'),
    ("1h30", "missing unit"),
    ("1 h", 'unknown unit " h"'),
    ("--1s", "invalid duration"),
    ("1e3s", 'unknown unit "e"'),
    ("1h-30m", 'unknown unit "h-"'),
    ("١s", "invalid duration"),
]


@pytest.mark.parametrize(("text", "ns", "printed"), READ_BY_GO)
def test_texts_that_go_reads_give_the_same_value_and_print_alike(text, ns, printed):
    assert parse_go_duration(text) == ns
    assert str(parse_go_duration(text)) == printed
    assert (reference.parse(text), reference.show(ns)) == (ns, printed)


@pytest.mark.parametrize(("text", "message"), REFUSED_BY_GO)
def test_texts_that_go_refuses_are_refused_with_its_reason(text, message):
    with pytest.raises(ValueError, match=message):
        parse_go_duration(text)
    assert reference.parse(text) is None


NUMBER = st.one_of(
    st.integers(0, 10**20).map(str),
    st.tuples(st.integers(0, 10**6), st.integers(0, 10**20)).map(lambda pair: f"{pair[0]}.{pair[1]}"),
    st.sampled_from([".5", "5.", ".", "", "0"]),
)
UNIT = st.sampled_from(["ns", "us", "µs", "μs", "ms", "s", "m", "h", "d", "", "x", " "])
TERMS = st.lists(st.tuples(NUMBER, UNIT).map("".join), max_size=4).map("".join)
TEXT = st.one_of(
    st.tuples(st.sampled_from(["", "-", "+"]), TERMS).map("".join), st.text("0123456789.hmsnuµ-+d ", max_size=8)
)


@given(TEXT)
@example("2562047h47m16.854775807s")
def test_any_text_is_read_or_refused_as_by_the_rules_of_go(text):
    expected = reference.parse(text)
    try:
        assert parse_go_duration(text) == expected
    except ValueError:
        assert expected is None


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_a_printed_duration_reads_back_as_itself(ns):
    text = format_duration(ns)
    assert text == reference.show(ns)
    assert parse_go_duration(text) == ns


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("1d", 86400),
        ("2w", 14 * 86400),
        ("1y", 365 * 86400),
        ("1h30m", 5400),
        ("1d12h", 129600),
        ("5ms", 0.005),
    ],
)
def test_prometheus_durations_have_days_weeks_and_years(text, seconds):
    assert parse_prometheus_duration(text).seconds == seconds


@pytest.mark.parametrize("text", ["", "1.5h", "1m1h", "1d1d", "-1d", "1", "300y", "d", "١d"])
def test_prometheus_durations_out_of_order_or_range_are_refused(text):
    with pytest.raises(ValueError):
        parse_prometheus_duration(text)


def test_limits_take_both_forms():
    assert parse_limit_duration("1d") == parse_limit_duration("24h0m0s") == parse_limit_duration("24.0h")


@pytest.mark.parametrize(("ns", "ms"), [(1_999_999, 1), (-1_999_999, -1), ((1 << 63) - 1, 9_223_372_036_854), (0, 0)])
def test_milliseconds_round_toward_zero(ns, ms):
    assert Duration(ns).ms == ms


@pytest.mark.parametrize(
    ("text", "value"),
    [("10", 10), ("-3", -3), ("0x10", 16), ("0b11", 3), ("010", 8), ("0o17", 15), ("1_000", 1000), ("0", 0),
     ("16MB", 16_000_000), ("64KiB", 65_536), ("1.5GiB", 3 << 29), ("5B", 5)],
)  # fmt: skip
def test_whole_numbers_are_read_by_the_rules_of_go_or_as_byte_sizes(text, value):
    assert parse_int(text) == value


@pytest.mark.parametrize("text", ["", "1__0", "_1", "09", "0x", "1.5", "ten", "1 2", "99999999999999999999", "5XB"])
def test_other_texts_are_no_whole_numbers(text):
    with pytest.raises(ValueError):
        parse_int(text)


@given(st.integers(0, 1 << 40))
def test_a_size_in_kibibytes_is_1024_times_its_number(number):
    assert parse_byte_size(f"{number}KiB") == number * 1024
