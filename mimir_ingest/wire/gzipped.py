"""Gzip bodies, decompressed within a bound."""

from __future__ import annotations

import zlib

from mimir_ingest.errors import InvalidRequest

_GZIP = 16 + zlib.MAX_WBITS


class TooLong(Exception):
    """The content is longer than the caller takes."""


def announced_size(body: bytes) -> int:
    """Return the size that the body's last member announces (modulo 2^32); an estimate, nothing relies on it."""
    return int.from_bytes(body[-4:], "little") if len(body) >= 18 else 0


def decompress(body: bytes, *, max_bytes: int) -> bytes:
    """Return the content of all members.

    Raises
    ------
    InvalidRequest
        The bytes are no gzip, or end early.
    TooLong
        There are more than `max_bytes`; no more than that was held.
    """
    parts: list[bytes] = []
    left, rest = max_bytes, body
    while True:
        member = zlib.decompressobj(_GZIP)
        try:
            parts.append(member.decompress(rest, left + 1))
        except zlib.error as error:
            raise InvalidRequest(f"create gzip reader: {error}") from error
        left -= len(parts[-1])
        if left < 0:
            raise TooLong
        if not member.eof:
            raise InvalidRequest("decompress gzip: unexpected EOF")
        rest = member.unused_data
        if not rest:
            return b"".join(parts)
