"""What became of the data points of an OTLP request, so that a partial success can say how many were refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True, slots=True)
class DataPoints:
    """Data points of one request, numbered from 0."""

    of_series: np.ndarray
    """int64[n]: data point of each series of the batch, -1 for none."""
    received: int
    """Data points in the request."""
    unconverted: int = 0
    """Those of them that could not become series."""
    unconverted_metrics: int = 0
    """Metrics with such data points, or without any."""
    error: str | None = None
    """Why, for the sender."""
    array_lengths: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """How long each list of a kind was in the request: resource_metrics, scope_metrics, metrics."""

    def take(self, index: np.ndarray) -> DataPoints:
        """Return the data points of the series at `index` (int64[k]); all of them still count as received."""
        return replace(self, of_series=self.of_series[index])

    def refused(self, broken: np.ndarray) -> int:
        """Return how many data points are not, or not wholly, stored when these series are not (bool[n])."""
        points = self.of_series[broken]
        return self.unconverted + len(np.unique(points[points >= 0]))
