"""The tombstones file of a block: deleted time intervals of series.

    magic 0x0130BA30 u32 BE | version 1 u8 | (uvarint series ref, varint min time, varint max time)* | crc32c u32 BE

The checksum covers the entries only; both ends of an interval are included. Source: Prometheus
tsdb/docs/format/tombstones.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mimir_ingest.errors import BlockCorrupt
from mimir_ingest.kernels.crc32c import crc32c
from mimir_ingest.model.labels import get_uvarint, put_uvarint

_HEADER = bytes.fromhex("0130ba3001")

Intervals = Mapping[int, list[tuple[int, int]]]
"""Series reference (its offset in the index, over 16) to intervals (min, max) in ms, both included."""


def encode_tombstones(intervals: Intervals | None = None) -> bytes:
    """Return the file for these intervals; without any, the nine bytes of every block that has no deletions."""
    entries = bytearray()
    for ref, spans in sorted((intervals or {}).items()):
        for start, end in spans:
            put_uvarint(entries, ref)
            put_uvarint(entries, _zigzag(start))
            put_uvarint(entries, _zigzag(end))
    return _HEADER + bytes(entries) + crc32c(bytes(entries)).to_bytes(4, "big")


def decode_tombstones(file: bytes) -> dict[int, list[tuple[int, int]]]:
    """Return the intervals of each series; raises `BlockCorrupt`."""
    if len(file) < 9 or file[:4] != _HEADER[:4]:
        raise BlockCorrupt(f"tombstones: no header of magic 0x0130ba30 in {len(file)} bytes")
    if file[4] != 1:
        raise BlockCorrupt(f"tombstones: version {file[4]} at byte 4, only 1 is known")
    entries = file[5:-4]
    if crc32c(entries) != int.from_bytes(file[-4:], "big"):
        raise BlockCorrupt(f"tombstones: checksum at byte {len(file) - 4} differs")
    intervals: dict[int, list[tuple[int, int]]] = {}
    for ref, start, end in _triples(entries):
        intervals.setdefault(ref, []).append((start, end))
    return intervals


def _triples(entries: bytes) -> Iterable[tuple[int, int, int]]:
    at = 0
    while at < len(entries):
        try:
            ref, after_ref = get_uvarint(entries, at)
            start, after_start = get_uvarint(entries, after_ref)
            end, after_end = get_uvarint(entries, after_start)
        except ValueError as error:
            raise BlockCorrupt(f"tombstones: entry at byte {5 + at}: {error}") from error
        yield ref, _unzigzag(start), _unzigzag(end)
        at = after_end


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _unzigzag(value: int) -> int:
    value &= (1 << 64) - 1
    return (value >> 1) ^ -(value & 1)
