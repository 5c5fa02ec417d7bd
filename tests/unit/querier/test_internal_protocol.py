"""What processes say to each other in headers and errors survives the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.api.internal import decode_ask
from mimir_ingest.errors import ClientError, InvalidRequest, LogUnavailable, OwnerError, QueryError, TenantError
from mimir_ingest.querier.internal_protocol import (
    answer_headers,
    ask_headers,
    decode_error,
    encode_error,
    read_answer_headers,
)
from mimir_ingest.querier.owner import HeadAsk
from partitions.errors import OffsetWaitTimeout

PARTITIONS = st.frozensets(st.integers(0, 2**31 - 1), min_size=1, max_size=20)
OFFSETS = st.dictionaries(st.integers(0, 50), st.integers(0, 2**62), max_size=20)


def lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@given(PARTITIONS, OFFSETS, st.none() | st.integers(1, 10**12))
def test_what_is_asked_arrives(partitions, offsets, delay_ns):
    ask = HeadAsk("team-a", partitions, wait_offsets=offsets, max_delay_s=None if delay_ns is None else delay_ns / 1e9)
    found = decode_ask("team-a", lower(ask_headers(ask)), frozenset())
    assert found.partitions == partitions
    assert found.wait_offsets == {p: offset for p, offset in offsets.items() if p in partitions}
    if not found.wait_offsets:
        assert found.max_delay_s == ask.max_delay_s


@given(OFFSETS, OFFSETS)
def test_what_is_answered_arrives(next_offsets, cut_offsets):
    assert read_answer_headers(answer_headers(next_offsets, cut_offsets)) == (next_offsets, cut_offsets)


def test_without_headers_everything_that_is_owned_is_asked_for():
    ask = decode_ask("t", {}, frozenset({1, 5}))
    assert (ask.partitions, ask.wait_offsets, ask.max_delay_s) == ({1, 5}, {}, None)


@pytest.mark.parametrize("text", ["", "a", "1,", ",1", "1,,2", "-1", "1 2", "99999999999"])
def test_partitions_that_are_no_numbers_are_refused(text):
    with pytest.raises(InvalidRequest):
        decode_ask("t", {"x-mimir-partitions": text}, frozenset())


def test_an_answer_without_offsets_is_none():
    with pytest.raises(InvalidRequest):
        read_answer_headers({})


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (LogUnavailable("recovering"), OwnerError),
        (OffsetWaitTimeout(partition=1, last_offset=2, next_offset=1, timeout_s=1), OwnerError),
        (QueryError("too many", error_type="execution"), QueryError),
        (InvalidRequest("what?"), ClientError),
        (TenantError("no org id"), ClientError),
    ],
)
def test_errors_keep_what_the_edge_reads_of_them(error, kind):
    found = decode_error(error.http_status, encode_error(error), "ingester-0")
    assert isinstance(found, kind)
    attributes = ("message", "error_id", "blame", "retriable", "http_status")
    assert [getattr(found, a) for a in attributes] == [getattr(error, a) for a in attributes]
    if kind is QueryError:
        assert found.error_type == error.error_type


def test_an_owners_time_out_is_its_own_and_not_the_querys():
    found = decode_error(503, encode_error(QueryError("late", error_type="timeout")), "ingester-0")
    assert (found.message, found.blame, found.retriable) == ("ingester-0: late", "server", True)


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway", b"[]", b'{"error": "x"}', b"null", b"\xff"])
def test_an_error_of_somebody_else_names_the_owner_and_is_tried_elsewhere(body):
    found = decode_error(502, body, "ingester-0")
    assert found.message.startswith("ingester-0 answered 502")
    assert (found.blame, found.retriable) == ("server", True)
