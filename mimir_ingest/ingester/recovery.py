"""Where a partition's owner resumes: a pure choice among its snapshot, its newest checkpoint and the log's start.

The furthest of them wins, for each holds everything below its offset. A snapshot counts only for this topic, and only
if the checkpoint of its last cut exists: else what that cut shipped might be nowhere. Below the log's start there is a
gap that nothing can fill; it is named, loudly, and reading goes on at the start.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mimir_ingest.ingester.checkpoint import PartitionFacts


class ResumeFrom(enum.StrEnum):
    """What the state is built from."""

    SNAPSHOT = "snapshot"
    CHECKPOINT = "checkpoint"
    LOG_START = "log start"


@dataclass(frozen=True, slots=True)
class ResumePlan:
    """Where to resume, and what is known to be lost."""

    source: ResumeFrom
    next_offset: int
    lost: tuple[int, int] | None
    """Offsets `[first, last)` that neither the state nor the log holds."""
    snapshot_refused: str | None
    """Why a snapshot is not used, if there is one."""


def plan_resume(
    *,
    topic_id: str,
    partition: int,
    log_start_offset: int,
    log_end_offset: int,
    checkpoint_cut_offset: int | None,
    snapshot: PartitionFacts | None,
    snapshot_cut_known: bool,
) -> ResumePlan:
    """Choose where to resume.

    Parameters
    ----------
    log_start_offset, log_end_offset
        The log's range as it stands.
    checkpoint_cut_offset
        Of the partition's newest checkpoint for this topic, None without one.
    snapshot
        Facts of the local snapshot, None without one.
    snapshot_cut_known
        Whether the checkpoint of the snapshot's last cut exists (True when it has had no cut).
    """
    refused = None
    if snapshot is not None:
        if (snapshot.topic_id, snapshot.partition) != (topic_id, partition):
            refused = f"it is of partition {snapshot.partition} of topic {snapshot.topic_id}"
        elif not snapshot_cut_known:
            refused = f"the checkpoint of its last cut at {snapshot.cuts[-1].cut_offset} does not exist"
        elif snapshot.next_offset > log_end_offset:
            refused = f"its offset {snapshot.next_offset} is past the log's end {log_end_offset}"
        elif checkpoint_cut_offset is not None and snapshot.next_offset <= checkpoint_cut_offset:
            refused = f"the checkpoint at {checkpoint_cut_offset} is further than its offset {snapshot.next_offset}"
    if snapshot is not None and refused is None:
        source, resumed = ResumeFrom.SNAPSHOT, snapshot.next_offset
    elif checkpoint_cut_offset is not None:
        source, resumed = ResumeFrom.CHECKPOINT, checkpoint_cut_offset
    else:
        # Without any state the log's start is where everything begins; whether it was trimmed before cannot be known.
        return ResumePlan(ResumeFrom.LOG_START, log_start_offset, None, refused)
    lost = (resumed, log_start_offset) if resumed < log_start_offset else None
    return ResumePlan(source, max(resumed, log_start_offset), lost, refused)
