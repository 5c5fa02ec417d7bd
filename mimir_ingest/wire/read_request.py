"""Remote read requests: an uncompressed `prometheus.ReadRequest` to values and back.

A cold path, in plain Python. Rules of decoding are those of Mimir's generated decoders (gogo/protobuf): the last of a
repeated scalar wins, unknown fields are skipped, groups are refused; strings must be UTF-8. Source: spec http-api 6.9.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mimir_ingest.errors import InvalidRequest
from mimir_ingest.model.labels import get_uvarint, put_uvarint
from mimir_ingest.model.matchers import Matcher, MatchType, check_regexp


class ResponseType(enum.IntEnum):
    """Forms of an answer, by their number on the wire."""

    SAMPLES = 0
    STREAMED_XOR_CHUNKS = 1


@dataclass(frozen=True, slots=True)
class ReadHints:
    """What the client will do with the data."""

    step_ms: int = 0
    func: str = ""
    start_ms: int = 0
    end_ms: int = 0
    grouping: tuple[str, ...] = ()
    by: bool = False
    range_ms: int = 0


@dataclass(frozen=True, slots=True)
class ReadQuery:
    """One selector over a range of time, inclusive at both ends."""

    start_ms: int
    end_ms_incl: int
    matchers: tuple[Matcher, ...]
    hints: ReadHints | None = None

    def time_range(self) -> tuple[int, int]:
        """Return the inclusive (start, end) in ms that is read; may be empty: end < start.

        Positive times in the hints stand in the place of the query's own, as in Mimir: they are what the client's
        selector needs of its query.
        """
        start, end = self.start_ms, self.end_ms_incl
        if self.hints is not None:
            start = self.hints.start_ms if self.hints.start_ms > 0 else start
            end = self.hints.end_ms if self.hints.end_ms > 0 else end
        return start, end


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Queries, and the answers that the client can read, the best one first."""

    queries: tuple[ReadQuery, ...]
    accepted_response_types: tuple[int, ...]


_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_PACKED = -1
"""Stands for a repeated varint: one by one or many in a field of bytes."""

_Schema = Mapping[int, tuple[str, int]]
_READ_REQUEST = {1: ("Queries", _BYTES), 2: ("AcceptedResponseTypes", _PACKED)}
_QUERY = {
    1: ("StartTimestampMs", _VARINT),
    2: ("EndTimestampMs", _VARINT),
    3: ("Matchers", _BYTES),
    4: ("Hints", _BYTES),
}
_LABEL_MATCHER = {1: ("Type", _VARINT), 2: ("Name", _BYTES), 3: ("Value", _BYTES)}
_READ_HINTS = {
    1: ("StepMs", _VARINT),
    2: ("Func", _BYTES),
    3: ("StartMs", _VARINT),
    4: ("EndMs", _VARINT),
    5: ("Grouping", _BYTES),
    6: ("By", _VARINT),
    7: ("RangeMs", _VARINT),
}
_MATCH_TYPES = (MatchType.EQUAL, MatchType.NOT_EQUAL, MatchType.REGEXP, MatchType.NOT_REGEXP)


def decode_request(body: bytes | memoryview) -> ReadRequest:
    """Decode a request. The caller has bounded its size. Raises InvalidRequest."""
    queries, accepted = [], []
    for number, value in _fields(memoryview(body), "ReadRequest", _READ_REQUEST):
        if number == 1:
            queries.append(_query(value))
        elif isinstance(value, int):
            accepted.append(_signed(value, 32))
        else:
            at = 0
            while at < len(value):
                item, at = _uvarint(value, at)
                accepted.append(_signed(item, 32))
    return ReadRequest(tuple(queries), tuple(accepted))


def negotiate(accepted: tuple[int, ...]) -> ResponseType:
    """Return the first type that we have; SAMPLES when none is named. Raises InvalidRequest if we have none of them."""
    if not accepted:
        return ResponseType.SAMPLES
    for number in accepted:
        if number in (ResponseType.SAMPLES, ResponseType.STREAMED_XOR_CHUNKS):
            return ResponseType(number)
    named = " ".join(map(str, accepted[:10]))
    raise InvalidRequest(
        f"server does not support any of the requested response types: [{named}]; "
        "supported: map[SAMPLES:{} STREAMED_XOR_CHUNKS:{}]"
    )


def encode_request(queries: Sequence[ReadQuery], accepted: Sequence[ResponseType]) -> bytes:
    """Return the message of these queries, hints left out."""
    out = bytearray()
    for query in queries:
        body = bytearray()
        _put_number(body, 1, query.start_ms)
        _put_number(body, 2, query.end_ms_incl)
        for matcher in query.matchers:
            condition = bytearray()
            _put_number(condition, 1, _MATCH_TYPES.index(matcher.type))
            _put_bytes(condition, 2, matcher.name.encode())
            _put_bytes(condition, 3, matcher.value.encode())
            _put_bytes(body, 3, condition)
        _put_bytes(out, 1, body)
    _put_bytes(out, 2, bytes(accepted))
    return bytes(out)


def _put_number(out: bytearray, number: int, value: int) -> None:
    put_uvarint(out, number << 3)
    put_uvarint(out, value & 0xFFFF_FFFF_FFFF_FFFF)


def _put_bytes(out: bytearray, number: int, value: bytes | bytearray) -> None:
    put_uvarint(out, number << 3 | _BYTES)
    put_uvarint(out, len(value))
    out += value


def _query(data: memoryview) -> ReadQuery:
    times, matchers, hints = {1: 0, 2: 0}, [], None
    for number, value in _fields(data, "Query", _QUERY):
        if number == 3:
            matchers.append(_matcher(value))
        elif number == 4:
            hints = _hints(value, hints or ReadHints())
        else:
            times[number] = _signed(value, 64)
    return ReadQuery(times[1], times[2], tuple(matchers), hints)


def _matcher(data: memoryview) -> Matcher:
    kind, texts = 0, {2: "", 3: ""}
    for number, value in _fields(data, "LabelMatcher", _LABEL_MATCHER):
        if number == 1:
            kind = _signed(value, 32)
        else:
            texts[number] = _text(value, "LabelMatcher", _LABEL_MATCHER[number][0])
    if not 0 <= kind < len(_MATCH_TYPES):
        raise InvalidRequest("invalid matcher type")
    matcher = Matcher(_MATCH_TYPES[kind], texts[2], texts[3])
    if matcher.type in (MatchType.REGEXP, MatchType.NOT_REGEXP):
        reason = check_regexp(matcher.value)
        if reason is not None:
            raise InvalidRequest(reason)
    return matcher


def _hints(data: memoryview, before: ReadHints) -> ReadHints:
    """Return the hints of a message, merged into those that an earlier field gave."""
    numbers = {1: before.step_ms, 3: before.start_ms, 4: before.end_ms, 6: int(before.by), 7: before.range_ms}
    func, grouping = before.func, list(before.grouping)
    for number, value in _fields(data, "ReadHints", _READ_HINTS):
        if number == 2:
            func = _text(value, "ReadHints", "Func")
        elif number == 5:
            grouping.append(_text(value, "ReadHints", "Grouping"))
        else:
            numbers[number] = _signed(value, 64)
    return ReadHints(numbers[1], func, numbers[3], numbers[4], tuple(grouping), numbers[6] != 0, numbers[7])


def _fields(data: memoryview, message: str, schema: _Schema) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (number, value) of the known fields, in order: a uint64, or a view of the bytes. Raises InvalidRequest."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _uvarint(data, at)
        number, wire_type = _signed(tag >> 3, 32), tag & 7
        if wire_type == 4:
            raise InvalidRequest(f"proto: {message}: wiretype end group for non-group")
        if number <= 0:
            raise InvalidRequest(f"proto: {message}: illegal tag {number} (wire type {tag})")
        name, wanted = schema.get(number, ("", wire_type))
        if wire_type != wanted and not (wanted == _PACKED and wire_type in (_VARINT, _BYTES)):
            raise InvalidRequest(f"proto: wrong wireType = {wire_type} for field {name}")
        value: int | memoryview = 0
        if wire_type == _VARINT:
            value, at = _uvarint(data, at)
        elif wire_type in (_FIXED64, _FIXED32):
            at += 8 if wire_type == _FIXED64 else 4
        elif wire_type == _BYTES:
            size, at = _uvarint(data, at)
            if size >= 1 << 63:
                raise InvalidRequest("proto: negative length found during unmarshaling")
            if size <= end - at:
                value = data[at : at + size]
            at += size
        else:
            raise InvalidRequest(f"proto: illegal wireType {wire_type}")
        if at > end:
            raise InvalidRequest("unexpected EOF")
        if name:
            yield number, value


def _uvarint(data: memoryview, at: int) -> tuple[int, int]:
    """Return (uint64, next position). Raises InvalidRequest."""
    try:
        value, after = get_uvarint(data, at)
    except ValueError as error:
        raise InvalidRequest("proto: integer overflow" if len(data) - at >= 10 else "unexpected EOF") from error
    return value & 0xFFFF_FFFF_FFFF_FFFF, after


def _signed(value: int, bits: int) -> int:
    """Return the low bits of a number as two's complement."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _text(data: memoryview, message: str, field: str) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"proto: {message}: field {field} is not valid UTF-8") from error
