"""Distinct columns, numbered by first appearance."""

from __future__ import annotations

from collections.abc import Sequence


def group(columns: Sequence[tuple[int, ...]]) -> tuple[list[int], list[int]]:
    """Return (group of each column, first column of each group)."""
    known: dict[tuple[int, ...], int] = {}
    ids = [known.setdefault(column, len(known)) for column in columns]
    return ids, [ids.index(g) for g in range(len(known))]
