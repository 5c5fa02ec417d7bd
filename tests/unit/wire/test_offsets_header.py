import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.errors import InvalidRequest
from mimir_ingest.wire.offsets_header import MAX_HEADER_BYTES, decode_offsets, encode_offsets

OFFSETS = st.dictionaries(st.integers(0, 2**31 - 1), st.integers(-1, 2**63 - 2), max_size=50)


@given(OFFSETS)
def test_offsets_survive(offsets):
    assert decode_offsets(encode_offsets(offsets)) == offsets


def test_the_text_is_the_one_that_mimir_writes():
    assert encode_offsets({1: -1, 0: 1240}) == "v1=0:1240,1:-1"
    assert encode_offsets({}) == "v1="
    assert decode_offsets("v1=0:1240,1:-1,7:99") == {0: 1240, 1: -1, 7: 99}
    assert decode_offsets(" v1=7:99, 0:5 ") == {7: 99, 0: 5}


def test_of_a_partition_named_twice_the_greater_offset_counts():
    assert decode_offsets("v1=0:3,0:9,0:4") == {0: 9}


def test_another_version_says_nothing():
    assert decode_offsets("v2=anything") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v1",
        "0:1",
        "v1=0",
        "v1=0:",
        "v1=:5",
        "v1=0:1,",
        "v1=0:-2",
        "v1=-1:0",
        "v1=0:1;1:2",
        "v1=00:1",
        "v1=٣:1",
        "v1=2147483648:0",
        "v1=0:9223372036854775807",
        "v1=" + "0:1," * MAX_HEADER_BYTES,
    ],
)
def test_what_is_no_list_of_offsets_is_refused(text):
    with pytest.raises(InvalidRequest):
        decode_offsets(text)


@given(st.text(max_size=40) | st.text(alphabet="v12=:,- 0", max_size=40))
def test_any_text_is_offsets_nothing_or_an_error_of_ours(text):
    with contextlib.suppress(InvalidRequest):
        decode_offsets(text)
