"""Influx line protocol: lines of points to columns.

    measurement[,tag=value…] field=value[,field=value…] [timestamp]

A numeric or boolean field of a point becomes a series with one sample; string fields are left out. Names are cleaned to
what Prometheus allows. Plain Python, one line at a time. Source: spec ingest-storage 8.10, http-api 4.3;
InfluxData's line protocol reference for the grammar.
"""

from __future__ import annotations

import bisect
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
_ESCAPED = re.compile(r"\\([,= \\])")
_UNCLEAN = re.compile(r"[^A-Za-z0-9_]")
_NAME = METRIC_NAME.encode()
_SOURCE = (SOURCE_LABEL.encode(), b"influx", encode_label_bytes({SOURCE_LABEL: "influx"}))


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
    labels = _Labels()
    for number, line in _lines(text):
        try:
            for of_series, timestamp_ms, value in _point(line, unit_ns, now_ms, labels):
                sets.append(of_series)
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


class _Labels:
    """Label bytes of a request's series. Names, and tags with their values, are made once each."""

    def __init__(self) -> None:
        self._tags: dict[tuple[str, str], tuple[bytes, bytes, bytes]] = {}
        self._names: dict[tuple[str, str], bytes] = {}

    def of_tags(self, tags: list[tuple[str, str]]) -> tuple[bytes, bytes]:
        """Return the label bytes of a point's tags, as they are written: those before and behind the metric's name."""
        pairs = sorted([_SOURCE, *(self._tags.get(tag) or self._tag(tag) for tag in tags)])
        first = bisect.bisect_left(pairs, (_NAME, b"", b""))
        return b"".join(one[2] for one in pairs[:first]), b"".join(one[2] for one in pairs[first:])

    def of_name(self, base: str, field: str) -> bytes:
        """Return the label bytes of the name that a field's series has."""
        made = self._names.get((base, field))
        if made is None:
            name = _clean(base if field == "value" else f"{base}_{field}")
            made = self._names[base, field] = encode_label_bytes([(METRIC_NAME, name)])
        return made

    def _tag(self, tag: tuple[str, str]) -> tuple[bytes, bytes, bytes]:
        """Return a tag's name, value and label bytes; the last are empty where it becomes no label."""
        name, value = _unescape(tag[0]), _unescape(tag[1])
        kept = name not in (METRIC_NAME, SOURCE_LABEL)
        pair = (_clean(name), value)
        made = (pair[0].encode(), value.encode(), encode_label_bytes([pair]) if kept else b"")
        self._tags[tag] = made
        return made


def _point(line: str, unit_ns: int, now_ms: int, labels: _Labels) -> Iterator[tuple[bytes, int, float]]:
    """Yield (label bytes, timestamp in ms, value) of a line's numeric fields. Raises ValueError."""
    measurement = _MEASUREMENT.match(line)
    if measurement is None:
        raise ValueError("it begins with no measurement")
    at = measurement.end()
    tags = []
    while tag := _TAG.match(line, at):
        tags.append((tag[1], tag[2]))
        at = tag.end()
    fields, at = _fields(line, at)
    timestamp_ms = _timestamp_ms(line[at:].strip(" "), unit_ns, now_ms)
    base = _unescape(measurement[0])
    before, behind = labels.of_tags(tags)
    for field, value in fields:
        yield before + labels.of_name(base, field) + behind, timestamp_ms, value


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
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text


def _clean(name: str) -> str:
    """Return a name of letters, digits and underscores that starts with no digit."""
    cleaned = _UNCLEAN.sub("_", name)
    return f"_{cleaned}" if cleaned[:1].isdigit() else cleaned
