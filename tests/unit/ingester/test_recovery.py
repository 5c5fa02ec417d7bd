"""Where an owner resumes, case by case."""

from __future__ import annotations

import pytest

from mimir_ingest.ingester.checkpoint import PartitionFacts
from mimir_ingest.ingester.cut import CutSummary
from mimir_ingest.ingester.recovery import ResumeFrom, plan_resume
from mimir_ingest.ingester.settings import PartitionSettings


def facts(next_offset: int, *, topic: str = "t", partition: int = 1, cut: int = 10) -> PartitionFacts:
    return PartitionFacts(topic, partition, next_offset, 5, 6, PartitionSettings(), (CutSummary(cut, 1, ()),))


CASES = {
    "nothing at all": (0, 50, None, None, True, (ResumeFrom.LOG_START, 0, None)),
    "a trimmed log and nothing else": (7, 50, None, None, True, (ResumeFrom.LOG_START, 7, None)),
    "a checkpoint": (0, 50, 20, None, True, (ResumeFrom.CHECKPOINT, 20, None)),
    "a snapshot further than the checkpoint": (0, 50, 20, facts(30), True, (ResumeFrom.SNAPSHOT, 30, None)),
    "a checkpoint further than the snapshot": (0, 50, 40, facts(30), True, (ResumeFrom.CHECKPOINT, 40, None)),
    "a snapshot whose cut nobody knows": (0, 50, None, facts(30), False, (ResumeFrom.LOG_START, 0, None)),
    "a snapshot of another topic": (0, 50, 20, facts(30, topic="u"), True, (ResumeFrom.CHECKPOINT, 20, None)),
    "a snapshot of another partition": (0, 50, 20, facts(30, partition=2), True, (ResumeFrom.CHECKPOINT, 20, None)),
    "a snapshot past the log's end": (0, 25, 20, facts(30), True, (ResumeFrom.CHECKPOINT, 20, None)),
    "a log that begins after the checkpoint": (33, 50, 20, None, True, (ResumeFrom.CHECKPOINT, 33, (20, 33))),
    "a log that begins after the snapshot": (33, 50, 20, facts(30), True, (ResumeFrom.SNAPSHOT, 33, (30, 33))),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_furthest_trusted_state_wins_and_a_gap_is_named(case):
    start, end, checkpoint, snapshot, known, wanted = case
    plan = plan_resume(
        topic_id="t",
        partition=1,
        log_start_offset=start,
        log_end_offset=end,
        checkpoint_cut_offset=checkpoint,
        snapshot=snapshot,
        snapshot_cut_known=known,
    )
    assert (plan.source, plan.next_offset, plan.lost) == wanted
    assert (plan.snapshot_refused is None) == (snapshot is None or plan.source is ResumeFrom.SNAPSHOT)
