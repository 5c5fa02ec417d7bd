"""OTLP's JSON to messages: protobuf's JSON mapping, with trace and span ids in hex.

Fields have their lowerCamelCase names or those of the schema, enums their numbers or names, 64-bit integers are numbers
or strings; null is an absent value, what the schema does not know is left out, and of a oneof the last field counts.
The schema itself is read from the messages' descriptors. Source: OTLP specification, "JSON Protobuf Encoding".
"""

from __future__ import annotations

import base64
import binascii
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from mimir_ingest.errors import InvalidRequest

MAX_DEPTH = 100
"""Messages within one another, as in protobuf's binary form."""

_ID_BYTES = {"trace_id": 16, "span_id": 8}
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_INTEGERS = (
    *(FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_SINT32),
    *(FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64),
    *(FieldDescriptor.TYPE_SFIXED64, FieldDescriptor.TYPE_FIXED32),
)

Reader = Callable[[Any, int], Any]
"""Returns what a message's constructor takes for a value at a depth. Raises ValueError."""


def parse_json(body: bytes) -> ExportMetricsServiceRequest:
    """Return the request. Raises InvalidRequest."""
    try:
        tree = _loaded(body)
        return ExportMetricsServiceRequest(**_message(ExportMetricsServiceRequest.DESCRIPTOR)(tree, 0))
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"the body is no ExportMetricsServiceRequest: {error}") from error


def _loaded(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "surrogate" not in str(error):
            raise
        # Half of a pair, as when a string was cut within a character: JavaScript writes it like this.
        return orjson.loads(_ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], body))


@functools.cache
def _message(descriptor: Descriptor) -> Reader:
    """Return the reader of one type of message."""
    fields: dict[str, tuple[str, bool, Reader]] = {}

    def read(tree: Any, depth: int) -> dict[str, Any]:
        if tree is None:
            return {}
        if type(tree) is not dict:
            raise ValueError(f"{descriptor.name} is an object, not {_shown(tree)}")
        if depth > MAX_DEPTH:
            raise ValueError(f"values lie deeper than {MAX_DEPTH} within one another")
        if not fields:
            fields.update(_fields(descriptor))
        made: dict[str, Any] = {}
        for key, value in tree.items():
            if value is None or (field := fields.get(key)) is None:
                continue
            name, repeated, of_value = field
            if not repeated:
                made[name] = of_value(value, depth + 1)
            elif type(value) is not list:
                raise ValueError(f"{key} is an array, not {_shown(value)}")
            elif of_value is _integer:
                made[name] = _integers(value)
            else:
                made[name] = [of_value(item, depth + 1) for item in value]
        return made

    return read


def _fields(descriptor: Descriptor) -> dict[str, tuple[str, bool, Reader]]:
    """Return each field's name, whether it is repeated, and its reader, by both of its names."""
    found = {}
    for field in descriptor.fields:
        entry = (field.name, field.is_repeated, _reader(field))
        found |= {field.name: entry, field.camelcase_name: entry}
    return found


def _reader(field: FieldDescriptor) -> Reader:
    if field.name in _ID_BYTES:
        return functools.partial(_id, _ID_BYTES[field.name])
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            return _message(field.message_type)
        case FieldDescriptor.TYPE_ENUM:
            numbers = {value.name: value.number for value in field.enum_type.values}
            return functools.partial(_enum, numbers)
        case FieldDescriptor.TYPE_DOUBLE:
            return _double
        case FieldDescriptor.TYPE_BYTES:
            return _bytes
        case kind if kind in _INTEGERS:
            return _integer
        case FieldDescriptor.TYPE_BOOL:
            return _bool
    return _text


def _text(value: Any, depth: int) -> str:
    return value  # what is none is refused by the constructor


def _bool(value: Any, depth: int) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{_shown(value)} is neither true nor false")
    return value


def _integer(value: Any, depth: int) -> int:
    kind = type(value)
    if kind is int:
        return value
    if kind is str:
        if _DIGITS.fullmatch(value):
            return int(value)
        value = _double(value, depth)
    if type(value) is float and value.is_integer():
        return int(value)
    raise ValueError(f"{_shown(value)} is no integer")


def _integers(values: list[Any]) -> list[int]:
    """Return the numbers of an array at one go where all are of a kind: buckets are most of many a request."""
    kinds = set(map(type, values))
    if kinds == {int}:
        return values
    if kinds == {str} and "" not in values and _ALL_DIGITS.fullmatch("".join(values)):
        return list(map(int, values))
    return [_integer(value, 0) for value in values]


def _double(value: Any, depth: int) -> float:
    kind = type(value)
    if kind is float or kind is int:
        return float(value)
    if kind is str and _PLAIN.fullmatch(value):
        found = float(value)
        if not math.isinf(found) or "n" in value.lower():
            return found
    raise ValueError(f"{_shown(value)} is no number")


_DIGITS, _ALL_DIGITS, _PLAIN = re.compile(r"-?[0-9]+"), re.compile(r"[0-9]+"), re.compile(r"[0-9A-Za-z.+-]+")
"""What Python takes for a number besides is none in JSON: spaces around it, underscores, digits of other scripts."""


def _enum(numbers: dict[str, int], value: Any, depth: int) -> int:
    if type(value) is not str:
        return _integer(value, depth)
    if value not in numbers:
        raise ValueError(f"{_shown(value)} is none of {', '.join(numbers)}")
    return numbers[value]


def _id(size: int, value: Any, depth: int) -> bytes:
    found = bytes.fromhex(value)
    if value and len(value) != 2 * size:
        raise ValueError(f"an id has {size} bytes, not {_shown(value)}")
    return found


def _bytes(value: Any, depth: int) -> bytes:
    if type(value) is not str:
        raise ValueError(f"{_shown(value)} is no base64")
    plain = value.translate(_FROM_URL).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"{_shown(value)} is no base64: {error}") from error


_FROM_URL = str.maketrans("-_", "+/")


def _shown(value: Any) -> str:
    return repr(value)[:100]


def transcode(body: bytes) -> bytes:
    """Return a request in JSON as protobuf. Raises as `parse_json`."""
    return parse_json(body).SerializeToString()
