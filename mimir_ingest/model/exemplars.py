"""Exemplars as columns: what the wire and records carry beside samples (spec ingest-storage 1.2)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from mimir_ingest.kernels.gather import gather_bytes
from mimir_ingest.model.histograms import gather_rows


@dataclass(frozen=True, slots=True)
class Exemplars:
    """Exemplars of a number of series. Arrays may be read-only views over a record's bytes."""

    offsets: np.ndarray
    """int64[series + 1]: series i has the exemplars `offsets[i]:offsets[i + 1]`."""
    timestamps: np.ndarray
    """int64[m]: ms since the Unix epoch."""
    values: np.ndarray
    """float64[m]."""
    labels: np.ndarray
    """uint8[...]: label bytes (model.labels) of all exemplars, back to back; names ascend."""
    label_offsets: np.ndarray
    """int64[m + 1]: exemplar j is `labels[label_offsets[j]:label_offsets[j + 1]]`."""

    @property
    def count(self) -> int:
        """Number of exemplars."""
        return len(self.timestamps)

    def label_bytes(self) -> list[bytes]:
        """Return the label bytes of each exemplar."""
        text, ends = self.labels.tobytes(), self.label_offsets.tolist()
        return [text[a:b] for a, b in itertools.pairwise(ends)]

    def take(self, index: np.ndarray) -> Exemplars:
        """Return the series at `index` (int64[k]) with their exemplars."""
        rows, offsets = gather_rows(self.offsets, np.asarray(index, np.int64))
        return self._rows(rows, offsets)

    def pick(self, rows: np.ndarray) -> Exemplars:
        """Return the exemplars `rows` (int64[k], in the order of their series); the series stay."""
        chosen = np.zeros(self.count + 1, np.int64)
        np.add.at(chosen, rows + 1, 1)
        return self._rows(rows, np.cumsum(chosen)[self.offsets])

    def _rows(self, rows: np.ndarray, offsets: np.ndarray) -> Exemplars:
        rows = np.ascontiguousarray(rows, np.int64)
        label_offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(np.diff(self.label_offsets)[rows], out=label_offsets[1:])
        labels = np.empty(label_offsets[-1], np.uint8)
        gather_bytes(self.labels, self.label_offsets, rows, label_offsets, labels)
        return Exemplars(offsets, self.timestamps[rows], self.values[rows], labels, label_offsets)
