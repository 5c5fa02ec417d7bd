"""Plain-Python decoder of remote write 1.0, front to back, one Python object at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.reference.varint import Refused, fields, put, signed, uvarint

_VARINT, _DOUBLE, _BYTES = 0, 1, 2

_CHECKED = {
    "Exemplar": {1: ("Labels", "LabelPair"), 2: ("Value", _DOUBLE), 3: ("TimestampMs", _VARINT)},
    "LabelPair": {1: ("Name", _BYTES), 2: ("Value", _BYTES)},
    "BucketSpan": {1: ("Offset", _VARINT), 2: ("Length", _VARINT)},
    "Histogram": {
        1: ("CountInt", _VARINT),
        2: ("CountFloat", _DOUBLE),
        3: ("Sum", _DOUBLE),
        4: ("Schema", _VARINT),
        5: ("ZeroThreshold", _DOUBLE),
        6: ("ZeroCountInt", _VARINT),
        7: ("ZeroCountFloat", _DOUBLE),
        8: ("NegativeSpans", "BucketSpan"),
        9: ("NegativeDeltas", [_VARINT]),
        10: ("NegativeCounts", [_DOUBLE]),
        11: ("PositiveSpans", "BucketSpan"),
        12: ("PositiveDeltas", [_VARINT]),
        13: ("PositiveCounts", [_DOUBLE]),
        14: ("ResetHint", _VARINT),
        15: ("Timestamp", _VARINT),
        16: ("CustomValues", [_DOUBLE]),
    },
}


@dataclass
class Request:
    series: list[tuple[bytes, list[tuple[int, bytes]]]] = field(default_factory=list)
    """(canonical label bytes, [(timestamp, eight bytes of the value)])."""
    starts: list[list[int]] = field(default_factory=list)
    """When what each sample counts began, 0 where nobody says."""
    metadata: list[tuple[int, bytes, bytes, bytes]] = field(default_factory=list)
    source: int = 0
    exemplars: int = 0
    histograms: int = 0
    skip_names: bool = False
    skip_count: bool = False


def _typed(wire_type: int, wanted: int, name: str, read):
    if wire_type != wanted:
        raise Refused(f"proto: wrong wireType = {wire_type} for field {name}")
    return read()[0]


def _check(data: bytes, message: str) -> None:
    for number, wire_type, read in fields(data, message):
        if number not in _CHECKED[message]:
            continue
        name, kind = _CHECKED[message][number]
        if isinstance(kind, str):
            _check(_typed(wire_type, _BYTES, name, read), kind)
        elif isinstance(kind, list) and wire_type == _BYTES:
            packed, at = read()[0], 0
            while at < len(packed):
                if kind[0] == _VARINT:
                    _, at = uvarint(packed, at)
                else:
                    at += 8
                    if at > len(packed):
                        raise Refused("unexpected EOF")
        else:
            _typed(wire_type, kind[0] if isinstance(kind, list) else kind, name, read)


def _series(data: bytes, request: Request) -> None:
    labels, samples, created = [], [], 0
    for number, wire_type, read in fields(data, "TimeSeries"):
        if number == 1:
            pair = {1: b"", 2: b""}
            for part, kind, read_part in fields(_typed(wire_type, _BYTES, "Labels", read), "LabelPair"):
                if part in pair:
                    pair[part] = _typed(kind, _BYTES, {1: "Name", 2: "Value"}[part], read_part)
            if pair[2]:
                labels.append((pair[1], pair[2]))
        elif number == 2:
            value, timestamp = bytes(8), 0
            for part, kind, read_part in fields(_typed(wire_type, _BYTES, "Samples", read), "Sample"):
                if part == 1:
                    value = _typed(kind, _DOUBLE, "Value", read_part)
                elif part == 2:
                    timestamp = signed(_typed(kind, _VARINT, "TimestampMs", read_part), 64)
            samples.append((timestamp, value))
        elif number == 3:
            _check(_typed(wire_type, _BYTES, "Exemplars", read), "Exemplar")
            request.exemplars += 1
        elif number == 4:
            _check(_typed(wire_type, _BYTES, "Histograms", read), "Histogram")
            request.histograms += 1
        elif number == 6:
            created = signed(_typed(wire_type, _VARINT, "CreatedTimestamp", read), 64) or created
    labels.sort(key=lambda pair: pair[0])
    request.series.append((b"".join(put(len(part)) + part for pair in labels for part in pair), samples))
    request.starts.append([created] * len(samples))


def _metadata(data: bytes) -> tuple[int, bytes, bytes, bytes]:
    item: dict[int, object] = {1: 0, 2: b"", 4: b"", 5: b""}
    names = {1: "Type", 2: "MetricFamilyName", 4: "Help", 5: "Unit"}
    for number, wire_type, read in fields(data, "MetricMetadata"):
        if number in item:
            item[number] = _typed(wire_type, _VARINT if number == 1 else _BYTES, names[number], read)
    return (item[1] if item[1] < 8 else 0, item[2], item[4], item[5])


def decode(body: bytes) -> Request:
    request = Request()
    for number, wire_type, read in fields(body, "WriteRequest"):
        if number == 1:
            _series(_typed(wire_type, _BYTES, "Timeseries", read), request)
        elif number == 2:
            value = signed(_typed(wire_type, _VARINT, "Source", read), 32)
            request.source = value if value in (0, 1, 2) else 0
        elif number == 3:
            request.metadata.append(_metadata(_typed(wire_type, _BYTES, "Metadata", read)))
        elif number in (4, 5):
            name = "Symbols" if number == 4 else "Timeseries"
            raise Refused(f"proto: Remote Write 2.0 field {name} in non-Remote Write 2.0 message")
        elif number == 1000:
            request.skip_names = _typed(wire_type, _VARINT, "SkipLabelValidation", read) != 0
        elif number == 1001:
            request.skip_count = _typed(wire_type, _VARINT, "SkipLabelCountValidation", read) != 0
    return request
