"""Offsets of partitions in a header: `v1=0:1240,1:-1` (spec ingest-storage 6.1).

In `X-Read-Consistency-Offsets` a number is the last offset (next offset - 1; -1 for an empty partition),
in `X-Mimir-Cuts` a cut offset, the first one that an owner has not let go of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mimir_ingest.errors import InvalidRequest

READ_CONSISTENCY_OFFSETS = "X-Read-Consistency-Offsets"
CUTS = "X-Mimir-Cuts"

MAX_HEADER_BYTES = 60_000
"""why: room for 2,500 partitions; HTTP servers take headers of 64 KiB together."""

_VERSION = re.compile(r"v[0-9]+=")
_ENTRY = re.compile(r"(0|[1-9][0-9]{0,9}):(-1|0|[1-9][0-9]{0,18})")
_MAX_PARTITION = (1 << 31) - 1
_MAX_OFFSET = (1 << 63) - 2
"""The offset after it has to be an int64, too."""


def encode_offsets(offsets: Mapping[int, int]) -> str:
    """Return the header's value, partitions ascending; none give `v1=`."""
    return "v1=" + ",".join(f"{partition}:{offsets[partition]}" for partition in sorted(offsets))


def decode_offsets(text: str) -> dict[int, int] | None:
    """Return partition → offset, or None for another version than 1, which says nothing to this program.

    Of a partition that is named twice the greater offset counts. Raises InvalidRequest for anything else.
    """
    if len(text) > MAX_HEADER_BYTES:
        raise InvalidRequest(f"offsets of partitions take {len(text)} bytes, over the limit of {MAX_HEADER_BYTES}")
    text = text.strip()
    if not text.startswith("v1="):
        if _VERSION.match(text):
            return None
        raise InvalidRequest(f"offsets of partitions are not in the form v1=0:1240,1:-1: {text[:60]!r}")
    offsets: dict[int, int] = {}
    for entry in text[3:].split(",") if len(text) > 3 else ():
        found = _ENTRY.fullmatch(entry.strip())
        if found is None or int(found[1]) > _MAX_PARTITION or int(found[2]) > _MAX_OFFSET:
            raise InvalidRequest(f"{entry[:60]!r} is not a partition and its offset, such as 0:1240")
        partition, offset = int(found[1]), int(found[2])
        offsets[partition] = max(offset, offsets.get(partition, -1))
    return offsets
