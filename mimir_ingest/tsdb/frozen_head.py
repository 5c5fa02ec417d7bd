"""What a head hands over at a cut, and what it keeps of it for readers. Values; see tsdb/head.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mimir_ingest.tsdb.delta_totals import TotalsOfSeries
from mimir_ingest.tsdb.segment import Segment
from mimir_ingest.tsdb.series_table import SeriesTable, TableView


class Held(NamedTuple):
    """Samples of one range that no cut has taken yet."""

    samples: int
    """As accepted: a timestamp that came twice out of order counts twice."""
    first_offset: int
    """Offset of the first record that contributed."""


@dataclass(frozen=True, slots=True)
class Retained:
    """What a cut has shipped and readers still get from here."""

    cut_offset: int
    table: SeriesTable
    segments: tuple[Segment, ...]
    before_ms: int
    """Samples before this time were shipped; later ones of the same segments are held elsewhere."""


@dataclass(frozen=True, slots=True)
class FrozenHead:
    """A head at a cut point: everything a cut's blocks and checkpoint are made of. Immutable."""

    tenant: str
    table: TableView
    segments: tuple[Segment, ...]
    before_ms: int
    """Samples before this time are cut, the others stay."""
    live: np.ndarray
    """int32[n], ascending: series still known after the cut."""
    last_ts: np.ndarray
    """int64[n] (ms): last sample of each live series."""
    last_value: np.ndarray
    """float64[n]."""
    totals: TotalsOfSeries
    """What the deltas of each live series come to."""
    max_ts: int
    window_ms: int
    cut: dict[int, Held]
    """What of each range is cut, by range number (a range's samples begin at number * range)."""
    held: dict[int, Held]
    """What of each range is held after the cut."""


def count_held(held: dict[int, Held], timestamps: np.ndarray, extremes: np.ndarray, range_ms: int, offset: int) -> None:
    """Add a record's accepted samples to those held.

    `timestamps` is int64[m] (ms), m at least 1; `extremes` (int64[2]) are their smallest and largest.
    """
    numbers, sizes = [int(extremes[0]) // range_ms], [len(timestamps)]
    if numbers[0] != int(extremes[1]) // range_ms:
        numbers, sizes = (c.tolist() for c in np.unique(timestamps // range_ms, return_counts=True))
    for number, size in zip(numbers, sizes, strict=True):
        known = held.get(number, Held(0, offset))
        held[number] = Held(known.samples + size, known.first_offset)
