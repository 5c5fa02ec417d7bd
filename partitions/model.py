"""States of a partition (spec: ingest storage, section 4.3)."""

from __future__ import annotations

import enum


class PartitionState(enum.IntEnum):
    """State of a partition, by its number on the wire."""

    UNKNOWN = 0
    """Never stored on purpose; what a missing field decodes to."""
    PENDING = 1
    """Created, waiting for owners: neither written nor read."""
    ACTIVE = 2
    """Written and read."""
    INACTIVE = 3
    """Read only, on its way out."""
    DELETED = 4
    """Gone; kept for a while so that the deletion spreads."""
