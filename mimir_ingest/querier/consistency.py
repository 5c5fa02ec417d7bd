"""Which writes a query has to see: a pure decision from its headers and its tenant's default (spec ingest-storage 6.1).

    strong      everything that was acknowledged before the query came
    eventual    what the partitions' owners have; with a greatest delay, nothing older may be missing
    offsets     besides either of these: exactly what the query names, such as the answer to a push did

Differs from the reference on purpose: offsets count without `X-Read-Consistency: strong`, and a list of a version that
this program does not know is read as strong, which is never less.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mimir_ingest.wire.offsets_header import READ_CONSISTENCY_OFFSETS, decode_offsets

LEVEL_HEADER = "x-read-consistency"
OFFSETS_HEADER = READ_CONSISTENCY_OFFSETS.lower()
MAX_DELAY_HEADER = "x-read-consistency-max-delay"


class Level(enum.StrEnum):
    """Read consistency, as the header and the tenant's limit spell it."""

    STRONG = "strong"
    EVENTUAL = "eventual"


@dataclass(frozen=True, slots=True)
class ReadConsistency:
    """What a query demands."""

    level: Level = Level.EVENTUAL
    offsets: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    """Partition → last offset that the query has to see; -1 is none."""
    max_delay_s: float | None = None
    """Age (s) of the newest write that may be missing from an eventual read."""
    report: bool = False
    """Whether the answer names the offsets that it saw."""


def decide_consistency(
    headers: Mapping[str, str], *, tenant_default: str, max_delay_s: float | None = None
) -> ReadConsistency:
    """Return what a query demands.

    Parameters
    ----------
    headers
        By lower-case name; others than `X-Read-Consistency*` are passed over.
    tenant_default
        The limit `ingest_storage_read_consistency`, for queries that name no level.
    max_delay_s
        `X-Read-Consistency-Max-Delay` (s) if it is a positive duration.

    Raises
    ------
    InvalidRequest
        The offsets are malformed: passing over them would break what the query relies on.
    """
    named = headers.get(LEVEL_HEADER, "")
    level = Level(named if named in (Level.STRONG, Level.EVENTUAL) else tenant_default)
    offsets: Mapping[int, int] | None = {}
    if OFFSETS_HEADER in headers and named != Level.EVENTUAL:
        offsets = decode_offsets(headers[OFFSETS_HEADER])
        if offsets is None:
            level = Level.STRONG
    report = any(name in headers for name in (LEVEL_HEADER, OFFSETS_HEADER, MAX_DELAY_HEADER))
    return ReadConsistency(level, MappingProxyType(dict(offsets or {})), max_delay_s, report)
