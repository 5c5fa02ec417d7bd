"""Attribute values as label values: OTLP's `AnyValue` as OpenTelemetry's Go collector prints it.

Strings stay; numbers and booleans as in JSON; bytes in base64; arrays and maps as JSON in Go's manner, keys sorted.
"""

from __future__ import annotations

import base64
import math
import re

from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from mimir_ingest.model.numbers import format_value

_SPECIAL = re.compile('[\x00-\x1f"\\\\\u2028\u2029]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class _NoJson(Exception):
    """A number that JSON has no form for."""


def value_text(value: AnyValue) -> str:
    """Return the label value of an attribute's value; empty for an empty one."""
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "int_value":
            return str(value.int_value)
        case "bool_value":
            return "true" if value.bool_value else "false"
        case "double_value":
            return _number(value.double_value)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "array_value" | "kvlist_value":
            try:
                return _json(value)
            except _NoJson:
                return ""
    return ""


def _json(value: AnyValue) -> str:
    match value.WhichOneof("value"):
        case "array_value":
            return f"[{','.join(_json(item) for item in value.array_value.values)}]"
        case "kvlist_value":
            pairs = {pair.key: pair.value for pair in value.kvlist_value.values}
            return f"{{{','.join(f'{_quoted(key)}:{_json(pairs[key])}' for key in sorted(pairs))}}}"
        case "string_value":
            return _quoted(value.string_value)
        case "bytes_value":
            # Go's copy of no bytes is nil, and that is null.
            return f'"{base64.b64encode(value.bytes_value).decode()}"' if value.bytes_value else "null"
        case "double_value":
            if not math.isfinite(value.double_value):
                raise _NoJson
            return _number(value.double_value)
        case "int_value" | "bool_value":
            return value_text(value)
    return "null"


def _number(value: float) -> str:
    """Return a number as in JSON: an exponent below 1e-6 and from 1e21 on, without zeros in front when negative."""
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return format_value(value).replace("e-0", "e-")


def _quoted(text: str) -> str:
    return f'"{_SPECIAL.sub(_escape, text)}"'


def _escape(found: re.Match[str]) -> str:
    return _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}"
