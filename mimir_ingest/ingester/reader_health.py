"""Whether a partition's reader can be relied on: pure judgements of what it says about itself.

    stopped       a record that must not be passed over: for good, until the program is replaced
    catching up   the state is being recovered, or has not reached the log's end as it was then
    stalled       nothing was fetched, not even an empty answer, for a while
    advancing     everything else

A stalled reader still answers queries from what it has, for its data is as true as it was; the process is not ready, so
that whoever looks at readiness prefers another one. Source: ingest storage 5.8, and 6.3 for the allowed delay.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReaderFacts:
    """A reader as it stands."""

    partition: int
    failed: str | None
    """Why the partition is not consumed any more."""
    next_offset: int | None
    """First offset not applied; None while the state is being recovered."""
    target_offset: int
    """Log's end when the reader started."""
    caught_up: bool
    silent_s: float
    """Since the last successful fetch, or since the start."""
    error: str | None
    """What went wrong last, if nothing went right since."""
    joining: bool = False
    """Taken over while the process runs and not yet caught up: nobody relies on it, its other owner serves."""


def explain_unreadable(facts: ReaderFacts) -> str | None:
    """Return why queries cannot be answered from the partition, or None."""
    if facts.failed is not None:
        return f"partition {facts.partition} is stopped: {facts.failed}"
    if facts.caught_up:
        return None
    at = "recovering" if facts.next_offset is None else f"at offset {facts.next_offset} of {facts.target_offset}"
    error = "" if facts.error is None else f" ({facts.error})"
    return f"partition {facts.partition} is catching up: {at}{error}"


def explain_unready(facts: ReaderFacts, *, stalled_after_s: float) -> str | None:
    """Return why the partition keeps its process from being ready, or None."""
    reason = explain_unreadable(facts)
    stalled = facts.silent_s > stalled_after_s
    if facts.joining and facts.failed is None and not (stalled and facts.error):
        return None
    if reason is not None or not stalled:
        return reason
    error = facts.error or "the last fetch is not done"
    return f"partition {facts.partition} has read nothing for {facts.silent_s:.0f} s: {error}"


def bound_delay(*, at_end_age_s: float | None, newest_record_age_s: float | None) -> float:
    """Return how old (s) the newest write missing from a view can be at most; infinite before anything was read.

    Parameters
    ----------
    at_end_age_s : since the reader was last seen at the log's end
    newest_record_age_s : since the log's stamp of the newest record applied
    """
    known = [age for age in (at_end_age_s, newest_record_age_s) if age is not None]
    return max(0.0, min(known, default=float("inf")))
