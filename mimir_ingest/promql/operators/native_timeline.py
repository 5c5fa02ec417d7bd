"""Floats and histograms of series in one order, for functions that look from sample to sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mimir_ingest.kernels.native_resets import find_changes
from mimir_ingest.model.histograms import gather_rows
from mimir_ingest.promql.native import columns_of
from mimir_ingest.promql.operators.base import HISTOGRAM_CELLS, Evaluation
from mimir_ingest.promql.operators.native_selectors import resets_of
from mimir_ingest.promql.values import RangeBlock


@dataclass(frozen=True, slots=True)
class Timeline:
    """All samples of k series, one series after another, by time."""

    evaluation: Evaluation
    block: RangeBlock
    offsets: np.ndarray
    """int64[k + 1]."""
    timestamps: np.ndarray
    """int64[m]: ms."""
    is_histogram: np.ndarray
    """bool[m]."""
    places: np.ndarray
    """int64[m]: place in the block's histograms or floats."""

    @classmethod
    def of(cls, evaluation: Evaluation, block: RangeBlock, series: np.ndarray) -> Timeline:
        """Put the samples of some series (int64[k]) of a block with histograms in order."""
        floats, float_bounds = gather_rows(block.offsets, series)
        points, point_bounds = gather_rows(block.histograms.offsets, series)
        places = np.concatenate((floats, points))
        is_histogram = np.repeat((False, True), (len(floats), len(points)))
        timestamps = np.concatenate((block.timestamps[floats], block.histograms.timestamps[points]))
        owners = np.arange(len(series))
        owner = np.concatenate((np.repeat(owners, np.diff(float_bounds)), np.repeat(owners, np.diff(point_bounds))))
        order = np.lexsort((timestamps, owner))
        return cls(
            evaluation, block, float_bounds + point_bounds, timestamps[order], is_histogram[order], places[order]
        )

    def _compare(self, of_floats: np.ndarray, of_histograms: np.ndarray) -> np.ndarray:
        """Return int64[m]: 1 where a sample differs from the one before it in its series, by kind or as said.

        `of_floats` and `of_histograms` are bool[m]; they count where a sample and the one before are of that kind.
        """
        before = np.concatenate((self.is_histogram[:1], self.is_histogram[:-1]))
        same = before == self.is_histogram
        moved = np.where(same, np.where(self.is_histogram, of_histograms, of_floats), True)
        moved[self.offsets[:-1]] = False
        return moved.astype(np.int64)

    def _pairs(self, is_histogram: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return places (on the line) of samples that follow one of the same kind; their and the former's places."""
        before = np.concatenate((~self.is_histogram[:1], self.is_histogram[:-1]))
        at = np.flatnonzero((self.is_histogram == is_histogram) & (before == is_histogram))
        return at, self.places[at], self.places[np.maximum(at - 1, 0)]

    def resets(self) -> np.ndarray:
        """Return int64[m]: 1 where a counter was reset before a sample, or the kind changed."""
        falls, fell = np.zeros((2, len(self.places)), bool)
        at, now, before = self._pairs(False)
        falls[at] = self.block.values[now] < self.block.values[before]
        at, now, _ = self._pairs(True)
        fell[at] = resets_of(self.evaluation, self.block.histograms)[now]
        return self._compare(falls, fell)

    def changes(self) -> np.ndarray:
        """Return int64[m]: 1 where a sample differs from the one before; NaN is NaN."""
        moves, moved = np.zeros((2, len(self.places)), bool)
        at, now, before = self._pairs(False)
        a, b = self.block.values[now], self.block.values[before]
        moves[at] = (a != b) & ~(np.isnan(a) & np.isnan(b))
        at, now, before = self._pairs(True)
        rows = self.block.histograms.rows
        changed = np.empty(len(at), bool)
        columns = columns_of(self.block.histograms.histograms)
        for part in self.evaluation.pieces(len(at), HISTOGRAM_CELLS):
            find_changes(columns, rows[now[part]], rows[before[part]], changed[part])
        moved[at] = changed
        return self._compare(moves, moved)
