"""Histograms of which an observation costs one call; the library's takes two locks, and walks the buckets."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

import prometheus_client
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString


class Histogram(prometheus_client.Histogram):
    """The library's, for a single process: same names, labels and text.

    A child's counts are changed by single steps of the interpreter, so that any thread may observe.
    """

    def _metric_init(self) -> None:
        self._counts = [0] * len(self._upper_bounds)
        self._total = 0.0

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Count one observation; exemplars are not kept."""
        self._counts[bisect_left(self._upper_bounds, amount)] += 1
        self._total += amount

    def show(self, child: Histogram, *labels: str) -> None:
        """Show a child of another metric with the same bounds as well, so that what both count is counted once."""
        with self._lock:
            self._metrics[labels] = child

    def totals(self) -> list[float]:
        """Return what a scrape shows: observations up to each bound, all of them, and, if that can be, their sum."""
        running = list(accumulate(map(float, self._counts)))
        return [*running, running[-1], self._total] if self._upper_bounds[0] >= 0 else [*running, running[-1]]

    def _child_samples(self) -> Iterable[Sample]:
        names = [("_bucket", {"le": floatToGoString(bound)}) for bound in self._upper_bounds]
        rest = zip([*names, ("_count", {}), ("_sum", {})], self.totals(), strict=False)
        return tuple(Sample(name, labels, value, None, None) for (name, labels), value in rest)
