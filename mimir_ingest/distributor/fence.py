"""The fence: when a distributor may acknowledge what it wrote by its view of the ring. Pure.

A partition that is being removed is INACTIVE for 20 s before its last record is decided. A distributor that has not
heard of it goes on writing there, so it may acknowledge only while it can be sure that nobody decided yet: its view
was read up to the ring log's end less than 10 s before the append's acknowledgement came, or, if the append took longer
than that, a newer view still has the partition ACTIVE. Times are monotonic seconds of this process; no two clocks are
compared. Source: architecture, section 6.
"""

from __future__ import annotations

from collections.abc import Iterable

FENCE_S = 10.0
"""why: half of the 20 s that scale-in waits, so that as much again may pass between an append and its check."""


def fresh(confirmed_s: float, now_s: float) -> bool:
    """Say whether a view of the ring confirmed at a time may still be relied on."""
    return now_s - confirmed_s < FENCE_S


def may_acknowledge(
    partitions: Iterable[int],
    *,
    routed_confirmed_s: float,
    active: Iterable[int],
    confirmed_s: float,
    now_s: float,
) -> bool:
    """Say whether records in these partitions may be acknowledged.

    Parameters
    ----------
    partitions : where the records are
    routed_confirmed_s : when the view that chose these partitions was confirmed (monotonic s)
    active : the ACTIVE partitions of the newest view
    confirmed_s : when that one was confirmed (monotonic s)
    now_s : not before the last append's acknowledgement (monotonic s)
    """
    if fresh(routed_confirmed_s, now_s):
        return True
    return fresh(confirmed_s, now_s) and set(partitions) <= set(active)
