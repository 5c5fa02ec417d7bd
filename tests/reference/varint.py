"""Plain-Python protobuf primitives, with the texts of gogo/protobuf's decoders."""

from __future__ import annotations


class Refused(Exception):
    """Why a message does not decode."""


def put(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def uvarint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise Refused("unexpected EOF")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value % 2**64, at
    raise Refused("proto: integer overflow")


def signed(value: int, bits: int) -> int:
    value %= 2**bits
    return value - 2**bits if value >> bits - 1 else value


def content(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = uvarint(data, at)
    if signed(size, 64) < 0:
        raise Refused("proto: negative length found during unmarshaling")
    if size > len(data) - at:
        raise Refused("unexpected EOF")
    return data[at : at + size], at + size


def fields(data: bytes, message: str):
    """Give (field, wire type, raw value, reader) one by one; the consumer's errors come in order."""
    at = 0
    while at < len(data):
        tag, at = uvarint(data, at)
        field, wire_type = signed(tag >> 3, 32), tag & 7
        if wire_type == 4:
            raise Refused(f"proto: {message}: wiretype end group for non-group")
        if field <= 0:
            raise Refused(f"proto: {message}: illegal tag {field} (wire type {tag})")
        start = at

        def read(wire_type=wire_type, start=start):
            if wire_type == 0:
                return uvarint(data, start)
            if wire_type == 2:
                return content(data, start)
            if wire_type in (1, 5):
                end = start + (8 if wire_type == 1 else 4)
                if end > len(data):
                    raise Refused("unexpected EOF")
                return data[start:end], end
            raise Refused(f"proto: illegal wireType {wire_type}")

        yield field, wire_type, read
        _, at = read()
