"""Compare a block that was built again with the one in the bucket, file by file and byte by byte."""

from __future__ import annotations

from mimir_ingest.bucket.layout import block_file
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import BlockNotFound
from mimir_ingest.tsdb.block_writer import BuiltBlock

_PIECE_BYTES = 8 << 20
"""why: bounds what is held of the bucket's copy; a request for less costs as much."""


def find_differences(bucket: Bucket, tenant: str, built: BuiltBlock) -> list[str]:
    """Return what is wrong with the bucket's copy of a block, a sentence a file; [] if every byte is the same.

    Files that others have put beside the block's own (markers) do not count. Raises StoreUnavailable.
    """
    found = [
        _compare_file(bucket, block_file(tenant, built.ulid, path), path, data) for path, data in built.files.items()
    ]
    return [problem for problem in found if problem]


def _compare_file(bucket: Bucket, location: str, path: str, data: bytes) -> str:
    size = bucket.size(location)
    if size is None:
        return f"{path} is missing"
    if size != len(data):
        return f"{path} has {size} bytes, it should have {len(data)}"
    view = memoryview(data)
    for start in range(0, size, _PIECE_BYTES):
        expected = view[start : start + _PIECE_BYTES]
        try:
            stored = bucket.read_range(location, start, start + len(expected))
        except BlockNotFound:
            return f"{path} is missing"
        if stored != expected:
            return f"{path} differs from byte {start + _first_difference(stored, expected)} on"
    return ""


def _first_difference(stored: bytes, expected: memoryview) -> int:
    low, high = 0, min(len(stored), len(expected))
    if stored[:high] == expected[:high]:
        return high
    while low + 1 < high:  # the first difference is in [low, high)
        middle = (low + high) // 2
        if stored[low:middle] == expected[low:middle]:
            low = middle
        else:
            high = middle
    return low
