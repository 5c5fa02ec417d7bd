"""Time and size settings of a partition's consumer; none of them changes any content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TRIM_DELAY_S = 15.0
"""why: an owner sees another process's record within 20 ms; this forgives it a busy machine and a long batch. One that
is later still resumes from the checkpoint, and answers no queries meanwhile."""

STALLED_AFTER_S = 30.0
"""why: longer than an election of a partition's leader takes, shorter than people wait before they look."""

STRONG_READ_TIMEOUT_S = 20.0
"""Mimir's default of `ingest_storage.kafka.wait_strong_read_consistency_timeout`."""


@dataclass(frozen=True, slots=True)
class TrackingKnobs:
    """How active series and ingestion rates are told; defaults are Mimir's."""

    metrics_enabled: bool = True
    """Whether active series have gauges; they are known in any case."""
    update_period_s: float = 60.0
    """Between two updates of these gauges."""
    idle_timeout_s: float = 1200.0
    """How long after its last sample a series is active."""
    owned_period_s: float = 15.0
    """Between two counts of owned series."""
    rate_period_s: float = 15.0
    """Between two updates of the ingestion rates."""


@dataclass(frozen=True, slots=True)
class ConsumerKnobs:
    """What a consumer is told about pace, places and patience."""

    group: str
    """Consumer group whose offset is committed."""
    snapshot_folder: Path | None
    """Where snapshots are kept; None: nowhere."""
    snapshot_interval_s: float
    """Between two snapshots; 0: none."""
    idle_timeout_s: float
    """A partition without records this long that holds samples is flushed; 0: never."""
    retention_s: float
    """How long shipped samples are still served, so that every reader's list of blocks has their blocks."""
    trim_delay_s: float
    """How long what was cut stays in the log, so that another owner that is a little behind still finds it."""
    fetch_max_bytes: int
    fetch_max_wait_s: float
    append_timeout_s: float
    stalled_after_s: float = STALLED_AFTER_S
    """A reader without a fetch this long (besides `fetch_max_wait_s`) makes the process not ready."""
    min_backoff_s: float = 0.25
    max_backoff_s: float = 2.0
