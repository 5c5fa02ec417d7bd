"""Plain-Python reading of streamed remote read frames: bytes to labels and chunks, or a reason why not."""

from __future__ import annotations

from tests.reference.crc32c import crc32c
from tests.reference.varint import Refused, put, signed, uvarint

MAX_FRAME_BYTES = 50_000_000

Series = tuple[list[tuple[bytes, bytes]], list[tuple[int, bytes]]]
"""Label pairs, and (type, data) of the chunks."""


def fields(data: bytes):
    """Yield (number, wire type, value): an integer, or bytes."""
    at = 0
    while at < len(data):
        tag, at = uvarint(data, at)
        number, wire_type = signed(tag >> 3, 32), tag & 7
        if number <= 0 or wire_type in (3, 4, 6, 7):
            raise Refused("tag")
        if wire_type == 0:
            value, at = uvarint(data, at)
        else:
            size = {1: 8, 5: 4}.get(wire_type)
            if size is None:
                size, at = uvarint(data, at)
            value = data[at : at + size]
            if len(value) != size:
                raise Refused("cut off")
            at += size
        yield number, wire_type, value


def pair(data: bytes) -> tuple[bytes, bytes]:
    found = list(fields(data))
    if [(n, w) for n, w, _ in found] != [(1, 2), (2, 2)] or not all(v for _, _, v in found):
        raise Refused("label form")
    (_, _, name), (_, _, value) = found
    if data != b"\x0a" + put(len(name)) + name + b"\x12" + put(len(value)) + value:
        raise Refused("label form")
    return name, value


def chunk(data: bytes) -> tuple[int, bytes]:
    kind, content = 0, b""
    for number, wire_type, value in fields(data):
        if number <= 4 and wire_type != (2 if number == 4 else 0):
            raise Refused("wire type")
        if number == 3:
            kind = signed(value, 64)
        if number == 4:
            content = value
    if len(content) < 11:
        raise Refused("chunk too short")
    return kind, content


def series(data: bytes) -> Series:
    labels, chunks = [], []
    for number, wire_type, value in fields(data):
        if number <= 2 and wire_type != 2:
            raise Refused("wire type")
        if number == 1:
            labels.append(pair(value))
        if number == 2:
            chunks.append(chunk(value))
    names = [name for name, _ in labels]
    if names != sorted(set(names)):
        raise Refused("label order")
    if not chunks:
        raise Refused("no chunks")
    return labels, chunks


def frames(data: bytes) -> tuple[int, list[Series]]:
    """Return (bytes of the whole frames, their series). Raises Refused."""
    at, done, found = 0, 0, []
    while at < len(data):
        try:
            size, start = uvarint(data, at)
        except Refused as error:
            if len(data) - at >= 10:
                raise Refused("too large") from error
            break
        if size > MAX_FRAME_BYTES:
            raise Refused("too large")
        message = data[start + 4 : start + 4 + size]
        if start + 4 + size > len(data):
            break
        if int.from_bytes(data[start : start + 4], "big") != crc32c(message):
            raise Refused("checksum")
        for number, wire_type, value in fields(message):
            if number <= 2 and wire_type != (2 if number == 1 else 0):
                raise Refused("wire type")
            if number == 1:
                found.append(series(value))
            if number == 2 and value:
                raise Refused("query index")
        at = done = start + 4 + size
    return done, found
