"""Rows of one label set, as lists of `float | None`."""

from __future__ import annotations

from collections.abc import Sequence


def conflict(groups: Sequence[int], rows: Sequence[Sequence[float | None]]) -> tuple[int, int, int] | None:
    """Return (step, earlier row, later row) of the earliest step with two rows of one group; the lowest later row."""
    steps = len(rows[0]) if rows else 0
    for step in range(steps):
        seen: dict[int, int] = {}
        for row, group in enumerate(groups):
            if group < 0 or rows[row][step] is None:
                continue
            if group in seen:
                return step, seen[group], row
            seen[group] = row
    return None
