"""Classic histograms of a `load_with_nhcb`, as native histograms with custom buckets."""

from __future__ import annotations

import bisect
import math

from tests.support.series_notation import HistogramValue, LiteralError, SeriesValue, parse_signed_number

LabelSet = tuple[tuple[str, str], ...]
_SUFFIXES = ("_bucket", "_count", "_sum")


class _Classic:
    """The classic series of one histogram at one time."""

    def __init__(self) -> None:
        self.bounds: list[float] = []
        self.counts: list[float] = []
        self.count: float | None = None
        self.sum = 0.0

    def set_bucket(self, bound: float, count: float) -> None:
        at = bisect.bisect_left(self.bounds, bound)
        if at == len(self.bounds) or self.bounds[at] != bound:
            self.bounds.insert(at, bound)
            self.counts.insert(at, count)

    def convert(self) -> HistogramValue:
        if any(later < earlier for earlier, later in zip(self.counts, self.counts[1:], strict=False)):
            raise ValueError("count is not cumulative")
        total = self.count if self.count is not None else self.counts[-1] if self.counts else 0.0
        if not self.bounds or self.bounds[-1] != math.inf:
            self.bounds.append(math.inf)
            self.counts.append(total)
        if total != self.counts[-1]:
            raise ValueError(f"count mismatch: count={total} != le={self.bounds[-1]} count={self.counts[-1]}")
        buckets = {}
        before = 0.0
        for index, count in enumerate(self.counts):
            buckets[index] = count - before
            before = count
        return HistogramValue(
            schema=-53, count=total, sum=self.sum, positive=buckets, custom_values=tuple(self.bounds[:-1])
        )


def convert_classic(
    series: list[tuple[dict[str, str], list[tuple[int, SeriesValue]]]],
) -> list[tuple[dict[str, str], list[tuple[int, SeriesValue]]]]:
    """Return the native series that the classic ones among `series` (labels, [(ms, value)]) amount to."""
    found: dict[LabelSet, dict[int, _Classic]] = {}
    for labels, samples in series:
        name = labels.get("__name__", "")
        suffix = next((s for s in _SUFFIXES if name.endswith(s)), None)
        if suffix is None:
            continue
        bound = 0.0
        if suffix == "_bucket":
            try:
                bound = parse_signed_number(labels["le"])
            except LiteralError:
                continue
        base = {k: v for k, v in labels.items() if k != "le"} | {"__name__": name.removesuffix(suffix)}
        times = found.setdefault(tuple(sorted(base.items())), {})
        for at, value in samples:
            if not isinstance(value, float):
                continue
            classic = times.setdefault(at, _Classic())
            if suffix == "_bucket":
                classic.set_bucket(bound, value)
            elif suffix == "_count":
                classic.count = value
            else:
                classic.sum = value
    return [
        (dict(key), [(at, classic.convert()) for at, classic in sorted(times.items())]) for key, times in found.items()
    ]
