"""When a partition can be read, when it keeps its process from being ready, and what is said about it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mimir_ingest.ingester.reader_health import ReaderFacts, bound_delay, explain_unreadable, explain_unready

GOOD = ReaderFacts(partition=3, failed=None, next_offset=10, target_offset=8, caught_up=True, silent_s=1.0, error=None)
RECOVERING = replace(GOOD, next_offset=None, caught_up=False)
BEHIND = replace(GOOD, next_offset=5, caught_up=False)


@pytest.mark.parametrize(
    ("facts", "unreadable", "unready"),
    [
        (GOOD, None, None),
        (replace(GOOD, error="a blip"), None, None),
        (RECOVERING, "partition 3 is catching up: recovering", ...),
        (replace(RECOVERING, error="s3 is down"), "partition 3 is catching up: recovering (s3 is down)", ...),
        (BEHIND, "partition 3 is catching up: at offset 5 of 8", ...),
        (replace(GOOD, failed="record 7: version 9"), "partition 3 is stopped: record 7: version 9", ...),
        (replace(GOOD, silent_s=31.0, error="no broker"), None, "partition 3 has read nothing for 31 s: no broker"),
        (replace(GOOD, silent_s=31.0), None, "partition 3 has read nothing for 31 s: the last fetch is not done"),
        (replace(BEHIND, joining=True), "partition 3 is catching up: at offset 5 of 8", None),
        (replace(BEHIND, joining=True, silent_s=31.0), "partition 3 is catching up: at offset 5 of 8", None),
        (replace(BEHIND, joining=True, error="x"), "partition 3 is catching up: at offset 5 of 8 (x)", None),
        (
            replace(BEHIND, joining=True, silent_s=31.0, error="x"),
            "partition 3 is catching up: at offset 5 of 8 (x)",
            ...,
        ),
        (replace(BEHIND, joining=True, failed="x"), "partition 3 is stopped: x", ...),
    ],
)
def test_reasons(facts, unreadable, unready):
    assert explain_unreadable(facts) == unreadable
    assert explain_unready(facts, stalled_after_s=30.0) == (unreadable if unready is ... else unready)


def test_what_may_be_missing_is_as_old_as_the_newest_thing_known():
    assert bound_delay(at_end_age_s=None, newest_record_age_s=None) == math.inf
    assert bound_delay(at_end_age_s=4.0, newest_record_age_s=None) == 4.0
    assert bound_delay(at_end_age_s=4.0, newest_record_age_s=2.0) == 2.0
    assert bound_delay(at_end_age_s=4.0, newest_record_age_s=3600.0) == 4.0
    assert bound_delay(at_end_age_s=None, newest_record_age_s=-0.5) == 0.0
