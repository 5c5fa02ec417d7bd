import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.errors import RecordCorrupt, RecordVersionUnsupported
from mimir_ingest.wire.control import Control, decode_control, encode_flush, encode_settings

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.none() | st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4))
def test_a_flush_names_its_tenants_once_each_or_nobody(tenants):
    expected = None if tenants is None else tuple(sorted(set(tenants)))
    assert decode_control(encode_flush(tenants)) == Control(tenants=expected)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), INT64, max_size=4))
def test_settings_survive_as_they_are(settings):
    assert decode_control(encode_settings(settings)) == Control(settings=settings)


def test_equal_commands_have_equal_bytes():
    assert encode_flush(["b", "a", "b"]) == encode_flush(["a", "b"]) == b'{"kind":"flush","tenants":["a","b"]}'
    assert encode_settings({"b": 1, "a": 2}) == b'{"kind":"settings","settings":{"a":2,"b":1}}'


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"{}",
        b'{"kind":1}',
        b'{"kind":"flush","tenants":"a"}',
        b'{"kind":"flush","tenants":[1]}',
        b'{"kind":"flush","since":1}',
        b'{"kind":"settings"}',
        b'{"kind":"settings","settings":[]}',
        b'{"kind":"settings","settings":{"a":true}}',
        b'{"kind":"settings","settings":{"a":1.5}}',
        b"\xff\xfe",
    ],
)
def test_what_is_not_a_command_is_corrupt(value):
    with pytest.raises(RecordCorrupt):
        decode_control(value)


def test_a_kind_of_a_later_version_stops_the_reader():
    with pytest.raises(RecordVersionUnsupported, match="'merge' is not known"):
        decode_control(b'{"kind":"merge"}')


@given(st.binary(max_size=60))
def test_any_bytes_are_a_command_or_an_error_of_ours(value):
    with contextlib.suppress(RecordCorrupt, RecordVersionUnsupported):
        assert isinstance(decode_control(value), Control)
