"""What a selector gives: series with their raw samples, as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mimir_ingest.model.labels import LabelFrame


@dataclass(frozen=True, slots=True)
class SeriesSamples:
    """Raw samples of n series.

    Within a series timestamps ascend strictly. Label sets are distinct. Values are bit-exact; staleness markers are
    still in.
    """

    labels: LabelFrame
    """n label sets."""
    offsets: np.ndarray
    """int64[n + 1]: series i has the samples `offsets[i]:offsets[i + 1]`."""
    timestamps: np.ndarray
    """int64[m]: ms since the Unix epoch."""
    values: np.ndarray
    """float64[m]."""

    @classmethod
    def empty(cls) -> SeriesSamples:
        """Return no series."""
        return cls(LabelFrame.empty(), np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))

    @property
    def series_count(self) -> int:
        """Number of series."""
        return len(self.offsets) - 1

    @property
    def sample_count(self) -> int:
        """Number of samples."""
        return len(self.timestamps)
