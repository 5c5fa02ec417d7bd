"""ULIDs as the specification writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.tsdb.ulid import MAX_TIME_MS, format_ulid, is_ulid, parse_ulid


@given(st.integers(0, MAX_TIME_MS), st.binary(min_size=10, max_size=10))
def test_a_ulid_keeps_time_and_entropy(time_ms: int, entropy: bytes) -> None:
    text = format_ulid(time_ms, entropy)
    assert len(text) == 26
    assert parse_ulid(text) == (time_ms, entropy)


def test_the_specification_s_example() -> None:
    """github.com/ulid/spec: 01ARYZ6S41 is the time 1469918176385."""
    assert parse_ulid("01ARYZ6S41TSV4RRFFQ69G5FAV")[0] == 1_469_918_176_385
    assert format_ulid(1_469_918_176_385, bytes(10)) == "01ARYZ6S410000000000000000"
    assert format_ulid(MAX_TIME_MS, b"\xff" * 10) == "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"


def test_times_outside_48_bits_are_clamped_and_text_order_is_time_order() -> None:
    assert parse_ulid(format_ulid(-5, bytes(10)))[0] == 0
    assert parse_ulid(format_ulid(1 << 60, bytes(10)))[0] == MAX_TIME_MS
    assert format_ulid(999, b"\xff" * 10) < format_ulid(1000, bytes(10))


@pytest.mark.parametrize(
    "text", ["", "01ARYZ6S41", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "01ARYZ6S41TSV4RRFFQ69G5FAU", "01aryz6s41tsv4rrffq69g5fav"]
)
def test_other_names_are_no_ulids(text: str) -> None:
    assert not is_ulid(text)
