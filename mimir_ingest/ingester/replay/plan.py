"""Where a replay begins and ends: a pure choice among the checkpoints in the bucket and the log's start.

A block is a function of the log only together with the state before its records, so a replay begins at a checkpoint
whose next record the log still has, or at the first record of all. What lies before the earliest such place cannot be
rebuilt exactly and is named. A log without any checkpoint is read from where it begins, as a new owner would do; if
retention has trimmed it before, what comes out is not certain to be what earlier owners made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from mimir_ingest.errors import InvalidRequest, LogError

_OFFSET = re.compile(r"[0-9]+")
_UNIX = re.compile(r"@([0-9]+(?:\.[0-9]+)?)")


@dataclass(frozen=True, slots=True)
class LogPlace:
    """A place in a partition's log: an offset, or the first record stamped at or after a time. One of the two."""

    offset: int | None = None
    time_ms: int | None = None

    @classmethod
    def parse(cls, text: str) -> LogPlace:
        """Read an offset (1200), a time (2026-01-31T10:00:00Z; UTC without a zone) or Unix seconds (@1700000000.5).

        Raises InvalidRequest.
        """
        if _OFFSET.fullmatch(text):
            return cls(offset=int(text))
        if unix := _UNIX.fullmatch(text):
            return cls(time_ms=math.ceil(float(unix[1]) * 1000))
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise InvalidRequest(
                f'"{text}" is no place in a log: give an offset (1200), a time (2026-01-31T10:00:00Z) '
                "or Unix seconds (@1700000000)"
            ) from None
        return cls(time_ms=math.ceil((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000))


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What a replay reads and what it compares."""

    checkpoint: int | None
    """Cut offset of the checkpoint to begin with; None: with nothing, at the log's start."""
    next_offset: int
    """First offset that is read."""
    from_offset: int
    """Cuts that hold records from here on are compared."""
    to_offset: int
    """Everything below is in the cuts that are compared, as far as the log has reached a cut point."""
    unreachable: tuple[int, int] | None
    """Offsets `[first, last)` that were asked for and cannot be rebuilt exactly."""
    exact: bool
    """Whether the state at `next_offset` is known to be what every owner had there."""


def plan_replay(
    *,
    partition: int,
    log_start_offset: int,
    log_end_offset: int,
    checkpoints: Iterable[int],
    from_offset: int | None,
    to_offset: int | None,
) -> ReplayPlan:
    """Choose where to begin.

    Parameters
    ----------
    log_start_offset, log_end_offset
        The log's range as it stands.
    checkpoints
        Cut offsets of the partition's checkpoints that can be read.
    from_offset, to_offset
        What was asked for; None is the earliest place that can be rebuilt, and the log's end.

    Raises LogError for a range that is empty or outside the log, and when nothing that the log has can be rebuilt.
    """
    known = sorted(checkpoints)
    places = [offset for offset in known if log_start_offset <= offset <= log_end_offset]
    if log_start_offset == 0 or not known:
        places.insert(0, log_start_offset)
    if not places:
        raise LogError(
            f"the log of partition {partition} begins at offset {log_start_offset}, the newest checkpoint is at "
            f"{known[-1]}: of what lies between, and of what follows from it, nothing can be rebuilt"
        )
    end = log_end_offset if to_offset is None else min(to_offset, log_end_offset)
    first = places[0] if from_offset is None else from_offset
    if first >= end:
        raise LogError(
            f"there is nothing to replay in partition {partition} from offset {first} to {end}; "
            f"the log has {log_start_offset} to {log_end_offset}"
        )
    begin = max((place for place in places if place <= first), default=places[0])
    if begin >= end:
        raise LogError(
            f"offsets {first} to {end} of partition {partition} cannot be rebuilt: the first place to begin at that "
            f"the log still has is {begin}"
        )
    checkpoint = begin if begin in known else None
    return ReplayPlan(
        checkpoint=checkpoint,
        next_offset=begin,
        from_offset=max(first, begin),
        to_offset=end,
        unreachable=(first, begin) if first < begin else None,
        exact=checkpoint is not None or begin == 0,
    )
