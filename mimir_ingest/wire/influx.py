"""Influx line protocol: lines of points to columns.

    measurement[,tag=value…] field=value[,field=value…] [timestamp]

A numeric or boolean field of a point becomes a series with one sample; string fields are left out. Names are cleaned to
what Prometheus allows. A cold path: plain Python, one line at a time. Source: spec ingest-storage 8.10, http-api 4.3;
InfluxData's line protocol reference for the grammar.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from mimir_ingest.errors import InvalidRequest
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.model.labels import METRIC_NAME, encode_label_bytes

SOURCE_LABEL = "__proxy_source__"
"""Label that tells these series from others; its value is `influx`."""

PRECISIONS_NS = {
    "": 1,
    "n": 1,
    "ns": 1,
    "u": 1_000,
    "us": 1_000,
    "µ": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
"""Nanoseconds of a timestamp's unit, by the parameter `precision`."""

_COMMENT = re.compile(r"[^\n]*+")
_LINE = re.compile(r'(?:\\.|[^ \n\\])*+(?: (?:"(?:\\.|[^"\\])*+"|\\.|[^"\n\\]|")*+)?', re.DOTALL)
"""A line; quotes count only after the first blank, where the fields begin."""
_KEY = r"(?:\\.|[^,= \\]|\\$)+"
_MEASUREMENT = re.compile(r"(?:\\.|[^, \\]|\\$)+")
_TAG = re.compile(rf",({_KEY})=({_KEY})")
_FIELD = re.compile(rf'({_KEY})=(?:"((?:\\.|[^"\\])*)"|([^," ]+))')
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"([+-]?[0-9]+)i|([0-9]+)u")
_TIMESTAMP = re.compile(r"-?[0-9]{1,19}")
_BOOLEANS = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), 1.0),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), 0.0),
}
_UNCLEAN = re.compile(r"[^A-Za-z0-9_]")


def decode(body: bytes | memoryview, *, precision: str, now_ms: int) -> WriteBatch:
    """Decode lines; points without a timestamp get `now_ms`.

    Raises
    ------
    InvalidRequest
        `precision` is unknown, the text is not UTF-8, or a line is no point; it names the line.
    """
    unit_ns = PRECISIONS_NS.get(precision)
    if unit_ns is None:
        raise InvalidRequest(f"precision {precision!r} is unknown; it is one of ns, us, ms, s, m, h")
    try:
        text = bytes(body).decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8 at byte {error.start}") from error
    sets: list[bytes] = []
    timestamps: list[int] = []
    values: list[float] = []
    for number, line in _lines(text):
        try:
            for labels, timestamp_ms, value in _point(line, unit_ns, now_ms):
                sets.append(encode_label_bytes(labels))
                timestamps.append(timestamp_ms)
                values.append(value)
        except ValueError as error:
            raise InvalidRequest(f"line {number}: {error}") from error
    return WriteBatch.of_samples(sets, timestamps, values)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number, line) without blank lines and comments; a quoted string may hold line breaks."""
    number, at = 1, 0
    while at < len(text):
        found = (_COMMENT if text.startswith("#", at) else _LINE).match(text, at)
        end = found.end() if found else at
        line = text[at:end].strip(" \r\t")
        if line and not line.startswith("#"):
            yield number, line
        number += text.count("\n", at, end + 1)
        at = end + 1


def _point(line: str, unit_ns: int, now_ms: int) -> Iterator[tuple[list[tuple[str, str]], int, float]]:
    """Yield (labels, timestamp in ms, value) of a line's numeric fields. Raises ValueError."""
    measurement = _MEASUREMENT.match(line)
    if measurement is None:
        raise ValueError("it begins with no measurement")
    at = measurement.end()
    labels = [(SOURCE_LABEL, "influx")]
    while tag := _TAG.match(line, at):
        name = _unescape(tag[1])
        if name not in (METRIC_NAME, SOURCE_LABEL):
            labels.append((_clean(name), _unescape(tag[2])))
        at = tag.end()
    fields, at = _fields(line, at)
    timestamp_ms = _timestamp_ms(line[at:].strip(" "), unit_ns, now_ms)
    base = _unescape(measurement[0])
    for field, value in fields:
        name = _clean(base if field == "value" else f"{base}_{field}")
        yield [*labels, (METRIC_NAME, name)], timestamp_ms, value


def _fields(line: str, at: int) -> tuple[list[tuple[str, float]], int]:
    """Return the numeric fields from `at` on, and where they end."""
    begin = at
    while at < len(line) and line[at] == " ":
        at += 1
    if at == begin:
        raise ValueError(f"a tag or a blank before the fields is expected at character {at + 1}")
    found: list[tuple[str, float]] = []
    while True:
        field = _FIELD.match(line, at)
        if field is None:
            raise ValueError(f"a field is expected at character {at + 1}")
        if field[2] is None:
            found.append((_unescape(field[1]), _number(field[3])))
        at = field.end()
        if at == len(line) or line[at] == " ":
            return found, at
        if line[at] != ",":
            raise ValueError(f"a comma or a blank is expected at character {at + 1}")
        at += 1


def _number(text: str) -> float:
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _FLOAT.fullmatch(text):
        if math.isinf(number := float(text)):
            raise ValueError(f"{text[:100]!r} is out of range")
        return number
    integer = _INTEGER.fullmatch(text)
    if integer is None:
        raise ValueError(f"{text[:100]!r} is no field value")
    value = int(integer[1] or integer[2])
    low, high = (-(1 << 63), (1 << 63) - 1) if integer[1] else (0, (1 << 64) - 1)
    if not low <= value <= high:
        raise ValueError(f"{text[:100]!r} is out of range")
    return float(value)


def _timestamp_ms(text: str, unit_ns: int, now_ms: int) -> int:
    if not text:
        return now_ms
    if not _TIMESTAMP.fullmatch(text):
        raise ValueError(f"{text[:100]!r} is no timestamp")
    nanoseconds = int(text) * unit_ns
    if not -(1 << 63) <= nanoseconds < 1 << 63:
        raise ValueError(f"timestamp {text} is out of range")
    return nanoseconds // 1_000_000


def _unescape(text: str) -> str:
    return re.sub(r"\\([,= \\])", r"\1", text)


def _clean(name: str) -> str:
    """Return a name of letters, digits and underscores that starts with no digit."""
    cleaned = _UNCLEAN.sub("_", name)
    return f"_{cleaned}" if cleaned[:1].isdigit() else cleaned
