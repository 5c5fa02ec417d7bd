"""Instant selection from lists of (timestamp, value). Source: Prometheus 3.14 promql/engine.go."""

from __future__ import annotations

import struct
from collections.abc import Sequence

Samples = Sequence[tuple[int, float]]
_STALE = struct.pack("<Q", 0x7FF0000000000002)


def is_stale(value: float) -> bool:
    """Whether a value is the staleness marker."""
    return struct.pack("<d", value) == _STALE


def latest(samples: Samples, end: int, lookback_ms: int) -> tuple[int, float] | None:
    """Return the newest sample in (end - lookback, end] unless it is stale."""
    found = [s for s in samples if s[0] <= end]
    if not found or found[-1][0] <= end - lookback_ms or is_stale(found[-1][1]):
        return None
    return found[-1]


def interpolated(samples: Samples, end: int, lookback_ms: int) -> float | None:
    """Return the value at `end` between the samples within a lookback on both sides."""
    near = [s for s in samples if end - lookback_ms < s[0] <= end + lookback_ms]
    before = [s for s in near if s[0] <= end]
    after = [s for s in near if s[0] > end]
    if not before:
        return None
    t1, y1 = before[-1]
    if t1 == end or not after:
        return y1
    t2, y2 = after[0]
    return y1 + (y2 - y1) * float(end - t1) / float(t2 - t1)
