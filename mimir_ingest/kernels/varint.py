"""Protobuf's wire primitives: varints, lengths, tags, and skipping what is not known.

Helpers for other kernels. A position is returned as the next one to read, or as a negative `WireStatus`. Rules are
those of the generated decoders of Mimir (gogo/protobuf): a varint has at most ten bytes and loses bits over 64; a field
number is the low 32 bits of `tag >> 3`; groups are refused.
Twin: tests/reference/varint.py.
"""

from __future__ import annotations

import enum

import numpy as np

from mimir_ingest.kernels._jit import inline_checked


class WireStatus(enum.IntEnum):
    """Why bytes are not a message."""

    CUT_OFF = -1
    OVERFLOW = -2
    NEGATIVE_LENGTH = -3
    WRONG_WIRE_TYPE = -4
    ILLEGAL_TAG = -5
    END_GROUP = -6
    ILLEGAL_WIRE_TYPE = -7
    RW2_SYMBOLS = -8
    RW2_TIMESERIES = -9
    RW1_TIMESERIES = -10
    RW1_METADATA = -11
    RW2_BAD_SYMBOLS = -12
    RW2_ODD_LABELS = -13
    RW2_ODD_EXEMPLAR_LABELS = -14
    RW2_BAD_LABEL = -15
    RW2_BAD_EXEMPLAR_LABEL = -16
    RW2_BAD_HELP = -17
    RW2_BAD_UNIT = -18


CUT_OFF = np.int64(WireStatus.CUT_OFF)
OVERFLOW = np.int64(WireStatus.OVERFLOW)
NEGATIVE_LENGTH = np.int64(WireStatus.NEGATIVE_LENGTH)
WRONG_WIRE_TYPE = np.int64(WireStatus.WRONG_WIRE_TYPE)
ILLEGAL_TAG = np.int64(WireStatus.ILLEGAL_TAG)
END_GROUP = np.int64(WireStatus.END_GROUP)
ILLEGAL_WIRE_TYPE = np.int64(WireStatus.ILLEGAL_WIRE_TYPE)


@inline_checked
def read_uvarint(data, at, end):
    """Return (uint64, next position or status) of the varint at `data[at:end]`."""
    value = np.uint64(0)
    shift = np.uint64(0)
    while True:
        if shift >= np.uint64(64):
            return value, OVERFLOW
        if at >= end:
            return value, CUT_OFF
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return value, at
        shift += np.uint64(7)


@inline_checked
def read_length(data, at, end):
    """Return (size, position of the first content byte or status); the content lies within `end`."""
    if at < end and data[at] < 0x80:
        size = np.int64(data[at])
        at += 1
    else:
        value, at = read_uvarint(data, at, end)
        size = np.int64(value)
        if at < 0:
            return size, at
        if size < 0:
            return size, NEGATIVE_LENGTH
    if size > end - at:
        return size, CUT_OFF
    return size, at


@inline_checked
def read_tag(data, at, end, error_out):
    """Return (field, wire type, next position or status); `error_out[2]` gets the whole tag when it is refused."""
    tag, at = read_uvarint(data, at, end)
    field = np.int64(np.int32(np.uint32(tag >> np.uint64(3))))
    wire_type = np.int64(tag & np.uint64(7))
    if at >= 0:
        if wire_type == 4:
            error_out[2] = np.int64(tag)
            return field, wire_type, END_GROUP
        if field <= 0:
            error_out[1] = field
            error_out[2] = np.int64(tag)
            return field, wire_type, ILLEGAL_TAG
    return field, wire_type, at


@inline_checked
def skip_field(data, at, end, wire_type, error_out):
    """Return the position behind a field's content, or a status."""
    if wire_type == 0:
        _, at = read_uvarint(data, at, end)
        return at
    if wire_type == 2:
        size, at = read_length(data, at, end)
        return at + size if at >= 0 else at
    if wire_type == 1 or wire_type == 5:
        size = 8 if wire_type == 1 else 4
        return at + size if size <= end - at else CUT_OFF
    error_out[2] = wire_type
    return ILLEGAL_WIRE_TYPE


@inline_checked
def write_uvarint(value, out, at):
    """Write a uint64 as a varint at `out[at:]`; return the position behind it."""
    while value >= np.uint64(0x80):
        out[at] = np.uint8(value & np.uint64(0x7F)) | np.uint8(0x80)
        value >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(value)
    return at + 1


@inline_checked
def uvarint_size(value):
    """Return how many bytes a uint64 takes as a varint."""
    size = 1
    while value >= np.uint64(0x80):
        value >>= np.uint64(7)
        size += 1
    return size
