"""What a frame of few series remembers of itself is what a new frame says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.model.labels import LabelFrame

LABELS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["1", "2", "10"]), max_size=4)
CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("keep"), st.lists(st.sampled_from("abcd"), max_size=3)),
        st.tuples(st.just("drop"), st.lists(st.sampled_from("abcd"), max_size=3)),
        st.tuples(st.just("take"), st.lists(st.integers(0, 4), max_size=4)),
        st.tuples(st.just("filter"), st.lists(st.booleans(), min_size=5, max_size=5)),
    ),
    min_size=1,
    max_size=40,
)


def call(frame: LabelFrame, what: str, argument: list) -> LabelFrame:
    if what == "take":
        return frame.take(np.array(argument, np.int64))
    return frame.take(np.array(argument, bool)) if what == "filter" else getattr(frame, what)(argument)


@settings(deadline=None)
@given(st.lists(LABELS, min_size=5, max_size=5), CALLS)
def test_what_is_asked_again_is_answered_as_the_first_time(sets, calls):
    frame = LabelFrame.from_dicts(sets)
    for what, argument in [*calls, *calls]:
        got, fresh = call(frame, what, argument), call(LabelFrame.from_dicts(sets), what, argument)
        assert got.to_dicts() == fresh.to_dicts()
        for _ in range(2):
            np.testing.assert_array_equal(got.sort_order(), fresh.sort_order())
            for again, first in zip(got.group_ids(), fresh.group_ids(), strict=True):
                np.testing.assert_array_equal(again, first)


def test_an_index_of_booleans_is_not_taken_for_one_of_numbers_with_the_same_bytes():
    frame = LabelFrame.from_dicts([{"a": str(i)} for i in range(8)])
    mask = np.array([1, 0, 0, 0, 0, 0, 0, 0], bool)
    assert frame.take(mask).to_dicts() == [{"a": "0"}]
    assert frame.take(mask.view(np.int64)).to_dicts() == [{"a": "1"}]


def test_groups_that_are_shared_cannot_be_written_to():
    frame = LabelFrame.from_dicts([{"a": "1"}, {"a": "1"}])
    for array in frame.group_ids():
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7


def test_memory_of_a_frame_is_bounded():
    frame = LabelFrame.from_dicts([{"a": str(i)} for i in range(20)])
    for i in range(500):
        frame.take(np.array([i % 20, i // 20 % 20]))
    assert len(frame._made) <= 16
