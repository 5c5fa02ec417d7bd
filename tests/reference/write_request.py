"""Plain-Python encoder of WriteRequest items; twin of mimir_ingest.kernels.write_request."""

from __future__ import annotations

from tests.reference.varint import put


def _field(number: int, content: bytes) -> bytes:
    return put(number << 3 | 2) + put(len(content)) + content


def _text(number: int, content: bytes) -> bytes:
    return _field(number, content) if content else b""


def series(labels: list[tuple[bytes, bytes]], samples: list[tuple[int, bytes]]) -> bytes:
    """One TimeSeries as field 1; samples are (timestamp, eight bytes of the value)."""
    out = b"".join(_field(1, _text(1, name) + _text(2, value)) for name, value in labels)
    for timestamp, bits in samples:
        value = b"\x09" + bits if bits != bytes(8) else b""
        out += _field(2, value + (b"\x10" + put(timestamp % 2**64) if timestamp else b""))
    return _field(1, out)


def metadata(kind: int, family: bytes, text: bytes, unit: bytes) -> bytes:
    """One MetricMetadata as field 3."""
    number = b"\x08" + put(kind) if kind else b""
    return _field(3, number + _text(2, family) + _text(4, text) + _text(5, unit))
