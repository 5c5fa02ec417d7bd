import pytest
from hypothesis import given
from hypothesis import strategies as st

from partitions.clock import HybridClock
from partitions.model import NEVER, Version
from tests.support.ring import versions


@given(st.lists(st.tuples(st.integers(0, 5), st.one_of(st.just(NEVER), versions)), min_size=1, max_size=12))
def test_each_version_is_above_what_was_seen_and_above_every_earlier_one(moments):
    clock, floor = HybridClock("w"), NEVER
    for now_ms, seen in moments:
        version = clock.next(now_ms, seen)
        floor = max(floor, seen)
        assert version > floor
        assert version.ms >= now_ms
        assert version.writer == "w"
        floor = version


def test_a_version_is_the_wall_clock_while_that_is_ahead():
    clock = HybridClock("w")
    assert clock.next(100) == Version(100, 0, "w")
    assert clock.next(100) == Version(100, 1, "w")
    assert clock.next(90) == Version(100, 2, "w")
    assert clock.next(101) == Version(101, 0, "w")
    assert clock.next(102, Version(500, 7, "z")) == Version(500, 8, "w")


def test_two_writers_never_stamp_one_version():
    assert HybridClock("a").next(5) != HybridClock("b").next(5)


def test_a_clock_needs_a_writer():
    with pytest.raises(ValueError, match="name"):
        HybridClock("")
