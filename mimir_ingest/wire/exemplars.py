"""Exemplars in protobuf: those of a write request to columns, columns to the fields of a series (spec 1.2)."""

from __future__ import annotations

import itertools
import struct

import numpy as np

from mimir_ingest.errors import InvalidRequest
from mimir_ingest.kernels import exemplar_wire as kernels
from mimir_ingest.kernels import symbols as label_kernels
from mimir_ingest.kernels.label_order import sort_labels
from mimir_ingest.kernels.series_fields import locate_fields
from mimir_ingest.model.exemplars import Exemplars
from mimir_ingest.model.labels import get_uvarint, put_uvarint

TIME_SERIES, TIME_SERIES_RW2 = (1, 3), (5, 4)
"""Fields of the series in a request and of the exemplars in a series, of both shapes."""

_MAX_LABEL_BYTES = 64 << 20
"""Of the exemplars of one request. why: a reference of one byte may stand for a megabyte."""


def decode_exemplars(
    data: np.ndarray, begin: int, *, series: int, count: int, symbols: np.ndarray | None = None
) -> Exemplars:
    """Return the exemplars of a request whose form was checked.

    Parameters
    ----------
    data, begin
        uint8[...], and where the request begins in it.
    series, count
        Series and exemplars in it.
    symbols : int64[2 * s], optional
        Bounds of the symbols (kernels.symbols) of a request with a symbol table.

    Raises InvalidRequest for labels that are too large once their references are resolved.
    """
    fields = TIME_SERIES if symbols is None else TIME_SERIES_RW2
    starts, ends, offsets = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(series + 1, np.int64)
    locate_fields(data, begin, *fields, starts, ends, offsets)
    size = int((ends - starts).sum())
    timestamps, values = np.empty(count, np.int64), np.empty(count, np.float64)
    label_offsets = np.empty(count + 1, np.int64)
    if symbols is None:
        labels, most = np.empty(size + 16, np.uint8), np.empty(2, np.int64)
        used = kernels.fill_exemplars(data, starts, ends, labels, label_offsets, timestamps, values, most)
        labels = labels[:used]
    else:
        refs, ref_offsets, counts = np.empty(size, np.int32), np.empty(count + 1, np.int64), np.empty(3, np.int64)
        found = kernels.fill_exemplar_refs(data, starts, ends, symbols, refs, ref_offsets, timestamps, values)
        total = label_kernels.measure_labels(data, symbols, refs[:found], ref_offsets, label_offsets, counts)
        if total > _MAX_LABEL_BYTES:
            raise InvalidRequest(f"exemplars with labels of {total} bytes, over {_MAX_LABEL_BYTES}")
        labels = np.empty(total, np.uint8)
        label_kernels.write_labels(data, symbols, refs[:found], labels)
        most = counts[1:]
    if most[0] > 1:
        scratch = [np.empty(most[0] + 1, np.int64) for _ in range(3)]
        sort_labels(label_offsets, labels, np.empty(most[1], np.uint8), *scratch)
    return Exemplars(offsets, timestamps, values, labels, label_offsets)


def encode_exemplars(exemplars: Exemplars) -> list[bytes]:
    """Return the exemplars of each series as fields of a TimeSeries."""
    messages = [
        _field(3, _labels(labels) + _double(2, value) + _varint(3, timestamp))
        for labels, value, timestamp in zip(
            exemplars.label_bytes(), exemplars.values.tolist(), exemplars.timestamps.tolist(), strict=True
        )
    ]
    bounds = exemplars.offsets.tolist()
    return [b"".join(messages[a:b]) for a, b in itertools.pairwise(bounds)]


def _labels(label_bytes: bytes) -> bytes:
    out, at = b"", 0
    while at < len(label_bytes):
        size, start = get_uvarint(label_bytes, at)
        name = label_bytes[start : start + size]
        size, start = get_uvarint(label_bytes, start + size)
        value = label_bytes[start : start + size]
        out += _field(1, (_field(1, name) if name else b"") + _field(2, value))
        at = start + size
    return out


def _field(number: int, content: bytes) -> bytes:
    out = bytearray([number << 3 | 2])
    put_uvarint(out, len(content))
    return bytes(out + content)


def _double(number: int, value: float) -> bytes:
    packed = struct.pack("<d", value)
    return bytes([number << 3 | 1]) + packed if packed != bytes(8) else b""


def _varint(number: int, value: int) -> bytes:
    out = bytearray([number << 3])
    put_uvarint(out, value % 2**64)
    return bytes(out) if value else b""
