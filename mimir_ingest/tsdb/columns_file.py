"""One container for everything that is stored as named columns: checkpoints and snapshots.

    0   8 bytes   magic "MIMIRCOL"
    8   u32 LE    container version, 1
    12  u32 LE    h, length of the header
    16  h bytes   header: JSON, keys sorted, no blanks:
                  {"kind", "version", "meta", "sections": [{"name", "dtype", "count", "crc"}]}
    .   u32 LE    CRC-32C of all bytes before it
    .   zeros     up to a multiple of 8; then each section's bytes, little-endian, each padded so with zeros

Equal contents give equal bytes. A section's checksum covers its bytes without padding. docs/format/checkpoint.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mimir_ingest.errors import StorageError
from mimir_ingest.kernels.crc32c import crc32c

MAGIC = b"MIMIRCOL"
CONTAINER_VERSION = 1
_DTYPES = {"u1": np.uint8, "i4": np.int32, "i8": np.int64, "u8": np.uint64, "f8": np.float64}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}


class ColumnsFileCorrupt(StorageError):
    """A columns file whose bytes contradict the format; the message names the part and the byte offset."""

    error_id = "columns-file-corrupt"


@dataclass(frozen=True, slots=True)
class ColumnsFile:
    """The contents of a file. Arrays are read-only views of its bytes."""

    kind: str
    version: int
    meta: dict
    """JSON values."""
    columns: Mapping[str, np.ndarray]


def encode_parts(kind: str, version: int, meta: dict, columns: Mapping[str, np.ndarray]) -> list[bytes | memoryview]:
    """Return the file's bytes in pieces. Columns are uint8, int32, int64, uint64 or float64, and keep their order."""
    arrays = {name: np.ascontiguousarray(column) for name, column in columns.items()}
    sections = [
        {"name": name, "dtype": _CODES[a.dtype], "count": len(a), "crc": crc32c(a.view(np.uint8))}
        for name, a in arrays.items()
    ]
    header = json.dumps(
        {"kind": kind, "version": version, "meta": meta, "sections": sections}, sort_keys=True, separators=(",", ":")
    ).encode()
    front = MAGIC + CONTAINER_VERSION.to_bytes(4, "little") + len(header).to_bytes(4, "little") + header
    parts: list[bytes | memoryview] = [front, crc32c(front).to_bytes(4, "little"), bytes(-(len(front) + 4) % 8)]
    for array in arrays.values():
        parts += [array.view(np.uint8).data, bytes(-array.nbytes % 8)]
    return parts


def encode_columns(kind: str, version: int, meta: dict, columns: Mapping[str, np.ndarray]) -> bytes:
    """Return the file's bytes, see `encode_parts`."""
    return b"".join(encode_parts(kind, version, meta, columns))


def header_size(front: bytes) -> int:
    """Return where the header ends, checksum included, from the first 16 bytes. Raises ColumnsFileCorrupt."""
    if len(front) < 16 or front[:8] != MAGIC or int.from_bytes(front[8:12], "little") != CONTAINER_VERSION:
        raise ColumnsFileCorrupt(f"no columns file: {len(front)} bytes, begins with {front[:12].hex()}")
    return 20 + int.from_bytes(front[12:16], "little")


def decode_meta(front: bytes, *, kind: str, versions: tuple[int, ...]) -> dict:
    """Return the `meta` of a file, of which the header is enough. Raises ColumnsFileCorrupt."""
    return _decode_header(front, kind, versions)["meta"]


def _decode_header(data: bytes, kind: str, versions: tuple[int, ...]) -> dict:
    size = header_size(data)
    if size > len(data):
        raise ColumnsFileCorrupt(f"header ends at {size}, the file at {len(data)}")
    header_end = size - 4
    if crc32c(data[:header_end]) != int.from_bytes(data[header_end:size], "little"):
        raise ColumnsFileCorrupt(f"header checksum at {header_end} differs")
    header = json.loads(data[16:header_end])
    if header["kind"] != kind or header["version"] not in versions:
        expected = f"{kind} {' or '.join(map(str, versions))}"
        raise ColumnsFileCorrupt(f"{header['kind']} version {header['version']} where {expected} was expected")
    return header


def decode_columns(data: bytes, *, kind: str, versions: tuple[int, ...]) -> ColumnsFile:
    """Read a file of this kind and of one of these versions. Raises ColumnsFileCorrupt."""
    header = _decode_header(data, kind, versions)
    size = len(data)
    columns: dict[str, np.ndarray] = {}
    at = header_size(data)
    for section in header["sections"]:
        at += -at % 8
        dtype = np.dtype(_DTYPES[section["dtype"]])
        end = at + section["count"] * dtype.itemsize
        if end > size:
            raise ColumnsFileCorrupt(f"section {section['name']} ends at {end}, the file at {size}")
        column = np.frombuffer(data, dtype, section["count"], at)
        if crc32c(column.view(np.uint8)) != section["crc"]:
            raise ColumnsFileCorrupt(f"checksum of section {section['name']} at {at} differs")
        columns[section["name"]] = column
        at = end
    return ColumnsFile(header["kind"], header["version"], header["meta"], columns)
