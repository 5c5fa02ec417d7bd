"""Remote read requests: what the protobuf library writes is read; hostile bytes are refused and nothing else."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.errors import InvalidRequest
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.wire.read_request import ReadHints, ReadQuery, ResponseType, decode_request, encode_request, negotiate
from tests.support.protobuf_schema import ReadRequest

INT64 = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 1, -1, 1_700_000_000_000]))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TYPES = [MatchType.EQUAL, MatchType.NOT_EQUAL, MatchType.REGEXP, MatchType.NOT_REGEXP]
MATCHER = st.one_of(
    st.tuples(st.integers(0, 1), TEXT, TEXT), st.tuples(st.integers(2, 3), TEXT, st.sampled_from(["", "a|b", ".+"]))
)
HINTS = st.fixed_dictionaries(
    {
        "step_ms": INT64,
        "func": TEXT,
        "start_ms": INT64,
        "end_ms": INT64,
        "grouping": st.lists(TEXT, max_size=3),
        "by": st.booleans(),
        "range_ms": INT64,
    }
)
QUERY = st.tuples(INT64, INT64, st.lists(MATCHER, max_size=4), st.none() | HINTS)


def message(queries, accepted=()):
    request = ReadRequest(accepted_response_types=accepted)
    for start, end, matchers, hints in queries:
        query = request.queries.add(start_timestamp_ms=start, end_timestamp_ms=end)
        for kind, name, value in matchers:
            query.matchers.add(type=kind, name=name.encode(), value=value.encode())
        if hints is not None:
            query.hints.SetInParent()
            for name, value in hints.items():
                if name == "grouping":
                    query.hints.grouping.extend(value)
                else:
                    setattr(query.hints, name, value)
    return request


def expected_query(start, end, matchers, hints):
    found = tuple(Matcher(TYPES[kind], name, value) for kind, name, value in matchers)
    if hints is not None:
        hints = ReadHints(**{**hints, "grouping": tuple(hints["grouping"])})
    return ReadQuery(start, end, found, hints)


@given(st.lists(QUERY, max_size=3), st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4))
def test_what_the_protobuf_library_writes_is_read(queries, accepted):
    request = decode_request(message(queries, accepted).SerializeToString())
    assert request.queries == tuple(expected_query(*query) for query in queries)
    assert request.accepted_response_types == tuple(accepted)


def test_accepted_types_are_read_one_by_one_too_and_unknown_fields_are_skipped():
    body = bytes([0x10, 1, 0x10, 0, 0x78, 5, 0x7A, 2, 1, 2, 0x79, *range(8), 0x7D, *range(4)])
    assert decode_request(body).accepted_response_types == (1, 0)


def test_fields_of_hints_that_come_in_parts_are_merged_and_the_last_scalar_wins():
    query = bytes([0x08, 1, 0x08, 2, 0x22, 4, 0x18, 7, 0x20, 8, 0x22, 2, 0x18, 9])
    [found] = decode_request(b"\x0a" + bytes([len(query)]) + query).queries
    assert found == ReadQuery(2, 0, (), ReadHints(start_ms=9, end_ms=8))


BODY = message(
    [
        (1_700_000_000_000, 1_700_000_300_000, [(0, "__name__", "up"), (2, "job", "a.*|b")], None),
        (-5, 5, [(3, "zone", "[a-z]{2,9}"), (1, "ü", "é")], {"func": "rate", "grouping": ["a", "b"], "start_ms": 3}),
    ],
    [1, 0],
).SerializeToString()


def decode_or_refuse(body):
    try:
        return decode_request(body)
    except InvalidRequest:
        return None


def test_every_truncation_is_read_or_refused():
    refused = [size for size in range(len(BODY)) if decode_or_refuse(BODY[:size]) is None]
    assert len(refused) > len(BODY) - 6


def test_every_bit_flip_is_read_or_refused():
    outcomes = set()
    for position in range(len(BODY) * 8):
        changed = bytearray(BODY)
        changed[position // 8] ^= 1 << position % 8
        outcomes.add(decode_or_refuse(bytes(changed)) is None)
    assert outcomes == {True, False}


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body):
    decode_or_refuse(body)


@given(st.integers(0, 2**32), st.integers(1, 8))
def test_any_change_is_read_or_refused(seed, changes):
    source = random.Random(seed)
    body = bytearray(BODY)
    for _ in range(changes):
        at = source.randrange(len(body))
        body[at : at + source.randrange(3)] = source.randbytes(source.randrange(4))
    decode_or_refuse(bytes(body))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\x0a\x05\x08", "unexpected EOF"),
        (b"\x0a", "unexpected EOF"),
        (b"\x79\x00", "unexpected EOF"),
        (b"\x0a" + b"\xff" * 9 + b"\x01", "proto: negative length found during unmarshaling"),
        (b"\x0a" + b"\xff" * 10, "proto: integer overflow"),
        (b"\x08\x01", "proto: wrong wireType = 0 for field Queries"),
        (b"\x15\0\0\0\0", "proto: wrong wireType = 5 for field AcceptedResponseTypes"),
        (b"\x0a\x02\x0a\x00", "proto: wrong wireType = 2 for field StartTimestampMs"),
        (b"\x0c", "proto: ReadRequest: wiretype end group for non-group"),
        (b"\x00\x00", "proto: ReadRequest: illegal tag 0 (wire type 0)"),
        (b"\x7b\x00", "proto: illegal wireType 3"),
        (b"\x7f\x00", "proto: illegal wireType 7"),
        (message([(0, 0, [(4, "a", "b")], None)]).SerializeToString(), "invalid matcher type"),
        (message([(0, 0, [(-1, "a", "b")], None)]).SerializeToString(), "invalid matcher type"),
        (
            message([(0, 0, [(2, "a", "b(")], None)]).SerializeToString(),
            "error parsing regexp: missing closing ): `b(`",
        ),
        (b"\x0a\x05\x1a\x03\x12\x01\xff", "proto: LabelMatcher: field Name is not valid UTF-8"),
    ],
)
def test_a_refusal_says_what_is_wrong(body, text):
    with pytest.raises(InvalidRequest) as raised:
        decode_request(body)
    assert raised.value.message == text


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ((), ResponseType.SAMPLES),
        ((0,), ResponseType.SAMPLES),
        ((1, 0), ResponseType.STREAMED_XOR_CHUNKS),
        ((0, 1), ResponseType.SAMPLES),
        ((9, -1, 1), ResponseType.STREAMED_XOR_CHUNKS),
    ],
)
def test_the_first_type_that_we_have_is_chosen(accepted, chosen):
    assert negotiate(accepted) is chosen


def test_types_that_we_do_not_have_are_refused():
    with pytest.raises(InvalidRequest, match=r"requested response types: \[2 7\]; supported: map\[SAMPLES"):
        negotiate((2, 7))


@pytest.mark.parametrize(
    ("hints", "expected"),
    [
        (None, (10, 20)),
        (ReadHints(), (10, 20)),
        (ReadHints(start_ms=12), (12, 20)),
        (ReadHints(end_ms=15), (10, 15)),
        (ReadHints(start_ms=5, end_ms=25), (5, 25)),
        (ReadHints(start_ms=-5, end_ms=-7), (10, 20)),
        (ReadHints(start_ms=30), (30, 20)),
        (ReadHints(start_ms=1, end_ms=3), (1, 3)),
    ],
)
def test_positive_hints_stand_in_the_place_of_the_range(hints, expected):
    assert ReadQuery(10, 20, (), hints).time_range() == expected


@given(st.lists(QUERY, max_size=3), st.lists(st.sampled_from(ResponseType), max_size=2))
def test_what_is_written_the_protobuf_library_reads(queries, accepted):
    wanted = [expected_query(start, end, matchers, None) for start, end, matchers, _ in queries]
    body = encode_request(wanted, accepted)
    without_hints = message([(*query[:3], None) for query in queries], accepted)
    assert ReadRequest.FromString(body) == without_hints
    assert decode_request(body).queries == tuple(wanted)
