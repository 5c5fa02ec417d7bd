"""An `ExportMetricsServiceRequest` as tables: resources, scopes, metrics, data points, exemplars, and all attributes.

Rows of a table are in the order of the request. Of a field that may come once the last one counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from mimir_ingest.errors import InvalidRequest
from mimir_ingest.kernels import otlp_fields as kernels
from mimir_ingest.kernels.otlp_fields import (
    BYTES,
    CHILD,
    FIELDS,
    FIXED,
    FIXED_LIST,
    MARK,
    SKIP,
    TEXT,
    VARINT,
    VARINT_LIST,
    ZIGZAG,
)
from mimir_ingest.kernels.otlp_labels import number_strings
from mimir_ingest.kernels.varint import WireStatus
from mimir_ingest.wire.otlp_text import value_text

MAX_BYTES = (1 << 31) - 1
"""Of a body. why: places in it are int32."""

GAUGE, SUM, HISTOGRAM, EXPONENTIAL, SUMMARY = 5, 7, 9, 10, 11
"""Kinds of metrics, by their fields in Metric; 0 is none."""

MARKED, START, TIME, VALUE, FLAGS, COUNT, SCALE, ZEROS, POSITIVE, NEGATIVE = 0, 1, 2, 3, 4, 5, 6, 7, 8, 10
"""Columns of data points; of an exemplar POSITIVE and NEGATIVE are its trace and its span. Bits of int64."""

_STRING = 1
_TEXTS = {
    kernels.NOT_UTF8: "text that is no UTF-8",
    WireStatus.CUT_OFF: "unexpected end",
    WireStatus.OVERFLOW: "integer overflow",
    WireStatus.NEGATIVE_LENGTH: "negative length",
    WireStatus.WRONG_WIRE_TYPE: "wrong wire type",
    WireStatus.ILLEGAL_TAG: "illegal tag",
    WireStatus.END_GROUP: "end of a group",
    WireStatus.ILLEGAL_WIRE_TYPE: "illegal wire type",
}


def invalid(why: str) -> InvalidRequest:
    """Return the error for a body that is no request."""
    return InvalidRequest(f"the body is no ExportMetricsServiceRequest: {why}")


@dataclass(frozen=True, slots=True, eq=False)
class _Type:
    """One type of message, as the kernel takes it."""

    kinds: np.ndarray
    columns: np.ndarray
    width: int


def _type(width: int, fields: dict[int, int | tuple[int, int]]) -> _Type:
    """Return a type of messages; `fields` gives what each field is, and its column."""
    kinds, columns = np.full(FIELDS, SKIP, np.uint8), np.zeros(FIELDS, np.uint8)
    for field, entry in fields.items():
        kinds[field], columns[field] = entry if isinstance(entry, tuple) else (entry, 0)
    return _Type(kinds, columns, width)


_REQUEST = _type(1, {1: CHILD})
_RESOURCE_METRICS = _type(2, {1: (BYTES, 0), 2: CHILD})
_SCOPE_METRICS = _type(4, {1: (BYTES, 0), 2: CHILD, 3: (TEXT, 2)})
_RESOURCE = _type(1, {1: CHILD})
_SCOPE = _type(4, {1: (TEXT, 0), 2: (TEXT, 2), 3: CHILD})
_METRIC = _type(
    9,
    {1: (TEXT, 1), 2: (TEXT, 3), 3: (TEXT, 5)}
    | dict.fromkeys((GAUGE, SUM, HISTOGRAM, EXPONENTIAL, SUMMARY), (BYTES | MARK, 7)),
)
_DATA = _type(2, {1: CHILD, 2: (VARINT, 0), 3: (VARINT, 1)})
_TIMES = {2: (FIXED, START), 3: (FIXED, TIME)}
_NUMBER_POINT = _type(
    5, _TIMES | {4: (FIXED | MARK, VALUE), 5: CHILD, 6: (FIXED | MARK, VALUE), 7: CHILD, 8: (VARINT, FLAGS)}
)
_HISTOGRAM_POINT = _type(
    6,
    _TIMES
    | {4: (FIXED, COUNT), 5: (FIXED | MARK, VALUE), 6: FIXED_LIST, 7: FIXED_LIST}
    | {8: CHILD, 9: CHILD, 10: (VARINT, FLAGS)},
)
_EXPONENTIAL_POINT = _type(
    12,
    _TIMES
    | {1: CHILD, 4: (FIXED, COUNT), 5: (FIXED, VALUE), 6: (ZIGZAG, SCALE), 7: (FIXED, ZEROS)}
    | {8: (BYTES, POSITIVE), 9: (BYTES, NEGATIVE), 10: (VARINT, FLAGS), 11: CHILD},
)
_SUMMARY_POINT = _type(6, _TIMES | {4: (FIXED, COUNT), 5: (FIXED, VALUE), 6: CHILD, 7: CHILD, 8: (VARINT, FLAGS)})
_EXEMPLAR = _type(
    12,
    {2: (FIXED, TIME), 3: (FIXED | MARK, VALUE), 6: (FIXED | MARK, VALUE)}
    | {4: (BYTES, NEGATIVE), 5: (BYTES, POSITIVE), 7: CHILD},
)
_BUCKETS = _type(1, {1: (ZIGZAG, 0), 2: VARINT_LIST})
_QUANTILE = _type(2, {1: (FIXED, 0), 2: (FIXED, 1)})

_POINTS = ((_NUMBER_POINT, 7, 5), (_HISTOGRAM_POINT, 9, 8), (_EXPONENTIAL_POINT, 1, 11), (_SUMMARY_POINT, 7, 0))
"""Types of data points, and the fields of their attributes and exemplars."""
_PLACE_OF_KIND = {GAUGE: 0, SUM: 0, HISTOGRAM: 1, EXPONENTIAL: 2, SUMMARY: 3}


@dataclass(frozen=True, slots=True, eq=False)
class Children:
    """Fields within messages: int32[k] each, in the order of their messages."""

    parents: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def offsets(self, n: int) -> np.ndarray:
        """Return int64[n + 1]: where the children of each of n messages begin."""
        return bounds_of(np.bincount(self.parents, minlength=n))


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Messages of one type."""

    rows: np.ndarray
    """int64[n, width]."""
    parents: np.ndarray
    fields: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def children(self, field: int) -> Children:
        """Return the children in one field."""
        chosen = self.fields == field
        if chosen.all():
            return Children(self.parents, self.starts, self.ends)
        return Children(self.parents[chosen], self.starts[chosen], self.ends[chosen])

    def spans(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the places (int32[n] each) of a field of bytes."""
        return self.rows[:, column].astype(np.int32), self.rows[:, column + 1].astype(np.int32)


def bounds_of(sizes: np.ndarray) -> np.ndarray:
    """Return int64[n + 1]: where runs of these sizes begin, and where the last one ends."""
    bounds = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=bounds[1:])
    return bounds


def _read(data: np.ndarray, of: _Type, starts: np.ndarray, ends: np.ndarray) -> Table:
    """Return the messages `data[starts[i]:ends[i]]`. Raises InvalidRequest."""
    rows, error = np.zeros(len(starts) * of.width, np.int64), np.zeros(4, np.int64)
    room = int((ends - starts).sum(dtype=np.int64)) // 16 + 4 if (of.kinds & 0x7F >= CHILD).any() else 0
    while True:
        parents, first, last = (np.empty(room, np.int32) for _ in range(3))
        fields = np.empty(room, np.uint8)
        found = kernels.read_messages(
            data, starts, ends, of.kinds, of.columns, of.width, rows, parents, fields, first, last, error
        )
        _check(found)
        if found <= room:
            break
        room = found
    return Table(rows.reshape(-1, of.width), parents[:found], fields[:found], first[:found], last[:found])


def _check(status: int) -> None:
    if status < 0:
        raise invalid(_TEXTS[status])


@dataclass(frozen=True, slots=True, eq=False)
class Attributes:
    """All attributes of a request: of its resources, scopes, data points and exemplars, one after another."""

    text: np.ndarray
    """uint8[...]: the request, and behind it values that are no strings as text."""
    keys: list[str]
    """Distinct keys."""
    key_of: np.ndarray
    """int32[n]: number of each attribute's key."""
    value_starts: np.ndarray
    value_ends: np.ndarray
    """int64[n]: where each value lies in `text`."""

    def pairs(self, first: int, last: int) -> list[tuple[str, str]]:
        """Return keys and values of some attributes."""
        return [
            (self.keys[key], self.text[a:b].tobytes().decode())
            for key, a, b in zip(
                self.key_of[first:last].tolist(),
                self.value_starts[first:last].tolist(),
                self.value_ends[first:last].tolist(),
                strict=True,
            )
        ]


def numbered(text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, list[bytes]]:
    """Return the number of each string `text[starts[i]:ends[i]]` (int32[n]) among the distinct ones, and those."""
    n = len(starts)
    slots = np.zeros(1 << (2 * n).bit_length(), np.int32)
    firsts, numbers = np.empty(n, np.int32), np.empty(n, np.int32)
    count = number_strings(text, starts, ends, slots, np.zeros(n, np.int32), firsts, numbers)
    places = zip(starts[firsts[:count]].tolist(), ends[firsts[:count]].tolist(), strict=True)
    return numbers, [text[a:b].tobytes() for a, b in places]


def _read_attributes(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Attributes:
    """Return the KeyValue messages `data[starts[i]:ends[i]]` (int32[n]). Raises InvalidRequest."""
    n, error = len(starts), np.zeros(4, np.int64)
    key_starts, key_ends, value_starts, value_ends = (np.empty(n, np.int64) for _ in range(4))
    kinds = np.empty(n, np.uint8)
    _check(kernels.read_attributes(data, starts, ends, key_starts, key_ends, kinds, value_starts, value_ends, error))
    key_of, keys = numbered(data, key_starts, key_ends)
    others = np.flatnonzero(kinds != _STRING)
    text = data
    if len(others):
        numbers, values = numbered(data, value_starts[others], value_ends[others])
        texts = [_value(value) for value in values]
        places = bounds_of(np.array([len(one) for one in texts])) + len(data)
        value_starts[others], value_ends[others] = places[numbers], places[numbers + 1]
        text = np.concatenate([data, np.frombuffer(b"".join(texts), np.uint8)])
    return Attributes(text, [key.decode() for key in keys], key_of, value_starts, value_ends)


def _value(message: bytes) -> bytes:
    try:
        return value_text(AnyValue.FromString(message)).encode()
    except DecodeError as error:
        raise invalid(str(error)) from error


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Data points: all numbers, then explicit histograms, exponential ones and summaries."""

    number: np.ndarray
    """int64[n]: place of each in the request."""
    metric: np.ndarray
    """int64[n]."""
    bounds: list[int]
    """Where each of the four kinds begins, and the last one ends."""
    tables: list[Table]
    """Of each kind; tables of no data points may be empty."""
    exemplars: Table
    exemplar_points: np.ndarray
    """int64[e]: data point of each exemplar."""

    def column(self, column: int) -> np.ndarray:
        """Return a column that all kinds have, as int64[n]."""
        return np.concatenate([table.rows[:, column] for table in self.tables])


@dataclass(frozen=True, slots=True, eq=False)
class RequestTables:
    """One request."""

    data: np.ndarray
    """uint8[...]: the body."""
    resource_count: int
    scope_resources: np.ndarray
    """int64[scopes]: resource of each scope."""
    scopes: Table
    """InstrumentationScope: name and version."""
    schema_urls: np.ndarray
    """int64[scopes, 2]: where each lies."""
    metric_scopes: np.ndarray
    """int64[metrics]."""
    metrics: np.ndarray
    """int64[metrics, 7]: kind; where name, description and unit lie."""
    temporality: np.ndarray
    monotonic: np.ndarray
    """int64[metrics] and bool[metrics]."""
    points: Points
    attributes: Attributes
    attribute_offsets: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    """Where the attributes of each resource, scope, data point and exemplar begin, int64[n + 1] each."""

    def string(self, first: int, last: int) -> str:
        """Return a text of the body."""
        return self.data[first:last].tobytes().decode()


def read_request(body: bytes) -> RequestTables:
    """Read a request in protobuf. Raises InvalidRequest."""
    if len(body) > MAX_BYTES:
        raise invalid(f"{len(body)} bytes are too many")
    data = np.frombuffer(body, np.uint8)
    whole = _read(data, _REQUEST, np.zeros(1, np.int32), np.array([len(data)], np.int32))
    resource_metrics = _read(data, _RESOURCE_METRICS, whole.starts, whole.ends)
    resources = _read(data, _RESOURCE, *resource_metrics.spans(0))
    scope_metrics = _read(data, _SCOPE_METRICS, resource_metrics.starts, resource_metrics.ends)
    scopes = _read(data, _SCOPE, *scope_metrics.spans(0))
    metrics = _read(data, _METRIC, scope_metrics.starts, scope_metrics.ends)
    held = _read(data, _DATA, *metrics.spans(7))
    points, attributes = _read_points(data, metrics.rows[:, MARKED], held)
    groups = [(resources.children(1), len(resources.rows)), (scopes.children(3), len(scopes.rows)), attributes]
    groups.append((points.exemplars.children(7), len(points.exemplars.rows)))
    all_attributes = _read_attributes(
        data, *(np.concatenate([getattr(one, name) for one, _ in groups]) for name in ("starts", "ends"))
    )
    offsets, begin = [], 0
    for children, n in groups:
        offsets.append(children.offsets(n) + begin)
        begin += len(children.starts)
    return RequestTables(
        data,
        len(resource_metrics.rows),
        resource_metrics.parents.astype(np.int64),
        scopes,
        scope_metrics.rows[:, 2:4],
        scope_metrics.parents.astype(np.int64),
        metrics.rows[:, :7],
        held.rows[:, 0].astype(np.int32).astype(np.int64),
        held.rows[:, 1] != 0,
        points,
        all_attributes,
        tuple(offsets),
    )


def _read_points(data: np.ndarray, kinds: np.ndarray, held: Table) -> tuple[Points, tuple[Children, int]]:
    """Return the data points of all metrics, and their attributes."""
    places = np.full(SUMMARY + 1, -1)
    places[list(_PLACE_OF_KIND)] = list(_PLACE_OF_KIND.values())
    place = places[kinds[held.parents]]
    numbers, tables, bounds = [], [], [0]
    found: list[list[Children]] = [[], []]
    for which, (of, *fields) in enumerate(_POINTS):
        chosen = np.flatnonzero(place == which)
        table = _read(data, of, held.starts[chosen], held.ends[chosen])
        for children, field in zip(found, fields, strict=True):
            one = table.children(field)
            children.append(Children(one.parents + np.int32(bounds[-1]), one.starts, one.ends))
        numbers.append(chosen)
        tables.append(table)
        bounds.append(bounds[-1] + len(chosen))
    attributes, exemplars = (
        Children(*(np.concatenate([getattr(one, name) for one in all_of]) for name in Children.__slots__))
        for all_of in found
    )
    number = np.concatenate(numbers)
    of_exemplars = _read(data, _EXEMPLAR, exemplars.starts, exemplars.ends)
    points = Points(
        number, held.parents[number].astype(np.int64), bounds, tables, of_exemplars, exemplars.parents.astype(np.int64)
    )
    return points, (attributes, len(number))


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """Lists of numbers, back to back."""

    values: np.ndarray
    offsets: np.ndarray
    """int64[n + 1]."""


def read_doubles(data: np.ndarray, children: Children, n: int) -> Lists:
    """Return the lists of FIXED_LIST children of n messages, as float64."""
    sizes = (children.ends - children.starts) // 8
    values = np.empty(int(sizes.sum(dtype=np.int64)), np.float64)
    kernels.read_doubles(data, children.starts, children.ends, values)
    return Lists(values, bounds_of(np.bincount(children.parents, sizes, n).astype(np.int64)))


def read_buckets(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, Lists]:
    """Return offsets (int64[n]) and counts (uint64) of `Buckets` messages. Raises InvalidRequest."""
    table = _read(data, _BUCKETS, starts, ends)
    sizes = np.empty(len(table.starts), np.int64)
    values = np.empty(kernels.count_varints(data, table.starts, table.ends, sizes), np.uint64)
    _check(kernels.read_varints(data, table.starts, table.ends, values))
    lists = Lists(values, bounds_of(np.bincount(table.parents, sizes, len(starts)).astype(np.int64)))
    return table.rows[:, 0], lists


def read_quantiles(data: np.ndarray, children: Children) -> tuple[np.ndarray, np.ndarray]:
    """Return the quantiles and values of `ValueAtQuantile` children, float64[k] each. Raises InvalidRequest."""
    rows = _read(data, _QUANTILE, children.starts, children.ends).rows
    return np.ascontiguousarray(rows[:, 0]).view(np.float64), np.ascontiguousarray(rows[:, 1]).view(np.float64)


def texts_at(tables: RequestTables, places: np.ndarray) -> Sequence[str]:
    """Return the texts at int64[k, 2] places of the body."""
    return [tables.string(first, last) for first, last in places.tolist()]
