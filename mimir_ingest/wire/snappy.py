"""Snappy block format: bodies of remote write and remote read.

Sizes are settled before anything is allocated: the compressed size by the caller's header, the declared size here. A
declared size that no snappy body of that length could expand to is refused as corrupt, so that a few bytes never cost
the memory of a whole request. Source: snappy format description; spec http-api 4.1 and 15.
"""

from __future__ import annotations

import cramjam
import numpy as np

from mimir_ingest.errors import InvalidRequest, RequestTooLarge
from mimir_ingest.model.labels import get_uvarint

# A two-byte-offset copy gives at most 64 bytes for 3: no element expands further.
_MAX_EXPANSION = 22


def check_size(size: int, *, max_bytes: int, compressed: bool) -> None:
    """Raise RequestTooLarge when a push body of `size` bytes is over the limit, with Mimir's text."""
    if size > max_bytes:
        raise RequestTooLarge(
            "the incoming push request has been rejected because its message size of "
            f"{size} bytes ({'compressed' if compressed else 'uncompressed'}) is larger than the allowed limit of "
            f"{max_bytes} bytes (err-mimir-distributor-max-write-message-size). To adjust the related limit, configure "
            "-distributor.max-recv-msg-size, or contact your service administrator."
        )


def decoded_length(body: bytes) -> int:
    """Return the size that a snappy block declares. Raises InvalidRequest."""
    try:
        size, _ = get_uvarint(body[:10], 0)
    except ValueError:
        size = 1 << 32
    if size >= 1 << 32:
        raise InvalidRequest("getting snappy decoded length: snappy: corrupt input")
    return size


def decompress(body: bytes, *, max_bytes: int) -> memoryview:
    """Return the content of a snappy block, as a view over memory that nobody else holds.

    Raises
    ------
    InvalidRequest
        The bytes are not a snappy block.
    RequestTooLarge
        The declared size is over `max_bytes`; nothing has been allocated.
    """
    size = decoded_length(body)
    check_size(size, max_bytes=max_bytes, compressed=False)
    if size > _MAX_EXPANSION * len(body):
        raise InvalidRequest("decompress snappy: snappy: corrupt input")
    out = np.empty(size, np.uint8)
    try:
        written = cramjam.snappy.decompress_raw_into(body, out)
    except cramjam.DecompressionError as error:
        raise InvalidRequest("decompress snappy: snappy: corrupt input") from error
    if written != size:
        raise InvalidRequest("decompress snappy: snappy: corrupt input")
    return out.data


def compress(content: bytes) -> bytes:
    """Return `content` as a snappy block."""
    return bytes(cramjam.snappy.compress_raw(content))
