"""Where a replay begins: the last place at or before what was asked for that the log still follows."""

import pytest

from mimir_ingest.errors import InvalidRequest, LogError
from mimir_ingest.ingester.replay.plan import LogPlace, plan_replay


@pytest.mark.parametrize(
    ("log_range", "checkpoints", "asked", "expected"),
    [
        # (checkpoint, next_offset, from_offset, to_offset, unreachable, exact)
        ((0, 100), [], (None, None), (None, 0, 0, 100, None, True)),
        ((0, 100), [30, 60], (None, None), (None, 0, 0, 100, None, True)),
        ((0, 100), [30, 60], (60, None), (60, 60, 60, 100, None, True)),
        ((0, 100), [30, 60], (59, 70), (30, 30, 59, 70, None, True)),
        ((0, 100), [30, 60], (5, 999), (None, 0, 5, 100, None, True)),
        ((30, 100), [30, 60], (None, None), (30, 30, 30, 100, None, True)),
        ((31, 100), [30, 60], (None, None), (60, 60, 60, 100, None, True)),
        ((31, 100), [30, 60], (40, None), (60, 60, 60, 100, (40, 60), True)),
        ((31, 100), [30, 60], (10, 80), (60, 60, 60, 80, (10, 60), True)),
        ((31, 100), [], (None, None), (None, 31, 31, 100, None, False)),
        ((31, 100), [], (7, None), (None, 31, 31, 100, (7, 31), False)),
        ((0, 100), [30, 160], (None, None), (None, 0, 0, 100, None, True)),
    ],
)
def test_the_last_place_before_what_was_asked_for_is_taken(log_range, checkpoints, asked, expected):
    plan = plan_replay(
        partition=3,
        log_start_offset=log_range[0],
        log_end_offset=log_range[1],
        checkpoints=checkpoints,
        from_offset=asked[0],
        to_offset=asked[1],
    )
    found = (plan.checkpoint, plan.next_offset, plan.from_offset, plan.to_offset, plan.unreachable, plan.exact)
    assert found == expected


@pytest.mark.parametrize(
    ("log_range", "checkpoints", "asked", "text"),
    [
        ((61, 100), [30, 60], (None, None), "begins at offset 61, the newest checkpoint is at 60"),
        ((0, 100), [], (100, None), "nothing to replay"),
        ((0, 100), [], (50, 50), "nothing to replay"),
        ((0, 0), [], (None, None), "nothing to replay"),
        ((31, 100), [60], (31, 60), "cannot be rebuilt"),
    ],
)
def test_a_range_that_gives_nothing_is_refused(log_range, checkpoints, asked, text):
    with pytest.raises(LogError, match=text):
        plan_replay(
            partition=3,
            log_start_offset=log_range[0],
            log_end_offset=log_range[1],
            checkpoints=checkpoints,
            from_offset=asked[0],
            to_offset=asked[1],
        )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("0", LogPlace(offset=0)),
        ("1700000000", LogPlace(offset=1_700_000_000)),
        ("@1700000000", LogPlace(time_ms=1_700_000_000_000)),
        ("@1700000000.0015", LogPlace(time_ms=1_700_000_000_002)),
        ("2023-11-14T22:13:20Z", LogPlace(time_ms=1_700_000_000_000)),
        ("2023-11-14T23:13:20+01:00", LogPlace(time_ms=1_700_000_000_000)),
        ("2023-11-14T22:13:20", LogPlace(time_ms=1_700_000_000_000)),
    ],
)
def test_places_are_offsets_or_times(text, place):
    assert LogPlace.parse(text) == place


@pytest.mark.parametrize("text", ["", "-1", "@", "@-1", "yesterday", "1e9", "12:00"])
def test_what_is_no_place_is_refused(text):
    with pytest.raises(InvalidRequest, match="no place in a log"):
        LogPlace.parse(text)
