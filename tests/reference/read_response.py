"""Plain-Python remote read responses, field by field."""

from __future__ import annotations

import struct

from tests.reference.crc32c import crc32c
from tests.reference.varint import put


def field(number: int, content: bytes) -> bytes:
    return put(number << 3 | 2) + put(len(content)) + content


def number(number: int, value: int) -> bytes:
    return put(number << 3) + put(value % 2**64) if value else b""


def labels(pairs: list[tuple[str, str]]) -> bytes:
    return b"".join(field(1, field(1, n.encode()) + field(2, v.encode())) for n, v in pairs)


def samples_result(series: list[tuple[list[tuple[str, str]], list[tuple[int, bytes]]]]) -> bytes:
    """`series` in order; a value is its eight bytes."""
    out = b""
    for pairs, samples in series:
        body = labels(pairs)
        for timestamp, bits in samples:
            body += field(2, (b"\x09" + bits if any(bits) else b"") + number(2, timestamp))
        out += field(1, body)
    return out


def frame(message: bytes) -> bytes:
    return put(len(message)) + struct.pack(">I", crc32c(message)) + message


def frames(series: list[tuple[list[tuple[str, str]], list[tuple[int, int, bytes]]]], index: int, limit: int) -> bytes:
    """`series` with chunks (min, max, data)."""
    out = b""
    for pairs, chunks in series:
        waiting = [field(2, number(1, a) + number(2, b) + number(3, 1) + field(4, data)) for a, b, data in chunks]
        while waiting:
            body = labels(pairs)
            body += waiting.pop(0)
            while waiting and len(body) < limit:
                body += waiting.pop(0)
            out += frame(field(1, body) + number(2, index))
    return out
