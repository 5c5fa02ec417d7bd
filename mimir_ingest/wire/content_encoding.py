"""Compressed bodies of HTTP, decompressed within a bound: gzip, zstd and lz4 frames."""

from __future__ import annotations

import cramjam
import numpy as np

from mimir_ingest.errors import InvalidRequest
from mimir_ingest.wire import gzipped
from mimir_ingest.wire.gzipped import TooLong

ENCODINGS = ("gzip", "lz4", "zstd")
_CODECS = {"lz4": cramjam.lz4, "zstd": cramjam.zstd}
_ASSUMED_RATIO = 8
"""Of a body that announces no size. why: what write requests commonly shrink by."""


def announced_size(body: bytes, encoding: str) -> int:
    """Return the size that the body announces once decompressed; an estimate, nothing relies on it."""
    if encoding == "gzip":
        return gzipped.announced_size(body)
    return _ASSUMED_RATIO * len(body) if encoding else len(body)


def decompress(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """Return the content of a body; `encoding` is one of ENCODINGS, or empty for none.

    Raises
    ------
    InvalidRequest
        The bytes are not what the encoding says.
    TooLong
        There are more than `max_bytes`; no more than that was held.
    """
    if encoding == "gzip":
        return gzipped.decompress(body, max_bytes=max_bytes)
    if not encoding:
        return body
    # Memory is taken as it is written, so that the bound costs nothing.
    room = np.empty(max_bytes + 1, np.uint8)
    try:
        size = _CODECS[encoding].decompress_into(body, room)
    except cramjam.DecompressionError as error:
        if "whole buffer" in str(error):
            raise TooLong from error
        raise InvalidRequest(f"decompress {encoding}: {error}") from error
    if size > max_bytes:
        raise TooLong
    return room[:size].tobytes()
