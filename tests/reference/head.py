"""A head in plain Python: one dict a series, decisions sample by sample (architecture: acceptance)."""

from __future__ import annotations

import math
import struct

from tests.reference import histogram_totals as totals
from tests.support.histograms import STALE_BITS, Row, filled, from_bits, stored

NAN = from_bits(totals.NAN_BITS)

REASONS = (
    "accepted",
    "timestamp-too-old",
    "out-of-order",
    "too-old",
    "new-value",
    "too-far-in-future",
    "series-limit",
    "repeated",
    "invalid-histogram",
    "metric-series-limit",
)


def bits(value: float | Row) -> int | Row:
    """The 64 bits of a float; what is stored of a native histogram, without empty buckets."""
    return filled(stored(value)) if isinstance(value, Row) else struct.unpack("<Q", struct.pack("<d", value))[0]


def consistent(value: float | Row) -> bool:
    """Whether a sample is none, or a histogram whose counts fit."""
    if not isinstance(value, Row) or value.is_float or value.sum_bits == STALE_BITS:
        return True
    return value.count == value.zero_count + sum(c for side in (value.negative, value.positive) for _, c in side)


class PlainHead:
    """What `tsdb.head.Head` must hold and answer."""

    def __init__(self, range_ms: int) -> None:
        self.range_ms = range_ms
        self.max_ts = -math.inf
        self.window_ms = 0
        self.last: dict[tuple, tuple[int, float]] = {}
        """Known series → last sample."""
        self.samples: dict[tuple, dict[int, float]] = {}
        """Held, first of equal timestamps."""
        self.shipped: dict[tuple, dict[int, float]] = {}
        self.totals: dict[tuple, float | Row] = {}
        """(Series, kind) → what its deltas come to."""
        self.behind_ms: list[float] = []
        """By how much the last record's samples out of order, accepted or not, were behind the newest before it."""

    def append(self, rows, *, newest_ms: int, limits, window_ms: int, log: list | None = None) -> dict[str, int]:
        """Take rows (tests.support.batches); return samples by outcome. `log` gets the time of each accepted one."""
        counts = dict.fromkeys([*REASONS, "accepted-late"], 0)
        in_order = self.max_ts - self.range_ms // 2
        out_of_order = self.max_ts - window_ms
        highest = self.max_ts
        self.window_ms = window_ms
        self.behind_ms = []
        judge = in_order, out_of_order, newest_ms, window_ms
        over_any, over_metric, before = set(), set(), set(self.last)
        for labels, samples, *_ in rows:
            key = tuple(sorted(labels.items()))
            passing = [t for t, v, *_ in samples if consistent(v) and self._passes(-math.inf, t, *judge)]
            if not passing or key in self.last:
                continue
            over_any.add(key)
            if limits.max_series and len(self.last) >= limits.max_series:
                continue
            name = labels.get("__name__", "")
            limited = limits.max_series_per_metric and name.encode() not in limits.unlimited_metrics
            if limited and sum(dict(k).get("__name__", "") == name for k in self.last) >= limits.max_series_per_metric:
                over_metric.add(key)
                continue
            over_any.discard(key)
            self.last[key] = (-math.inf, 0.0)
        # Of a row, floats come before histograms.
        for labels, samples, *delta in rows:
            for kind in (float, Row):
                key = tuple(sorted(labels.items()))
                passing = any(consistent(v) and self._passes(-math.inf, t, *judge) for t, v, *_ in samples)
                # A row without a sample that passes by time does not look for a series that other rows made.
                known = key in before or (passing and key in self.last)
                is_delta = any(delta)
                for t, v, *start in samples:
                    if not isinstance(v, kind):
                        continue
                    outcome = self._judge(key, known, t, v, is_delta, *judge) if consistent(v) else "invalid-histogram"
                    if not (passing and key in over_any) and outcome not in ("invalid-histogram", "too-far-in-future"):
                        appended = t >= in_order and (not known or t >= self.last[key][0])
                        if not appended and (t >= in_order or window_ms > 0) and t < self.max_ts:
                            self.behind_ms.append(self.max_ts - t)
                    if outcome == "series-limit" and key in over_metric:
                        outcome = "metric-series-limit"
                    counts[outcome] += 1
                    if outcome != "accepted":
                        continue
                    counts["accepted-late"] += t < in_order or t <= self.last[key][0]
                    oldest = min(in_order, out_of_order) if is_delta and window_ms > 0 else in_order
                    began = self._before(key, v, is_delta)
                    taken = [(t, self._stored(key, v) if is_delta else v)]
                    if start and start[0] > 0 and oldest <= start[0] < t and start[0] > self.last[key][0]:
                        taken.insert(0, (start[0], began))
                        counts["accepted"] += 1
                    if t > self.last[key][0]:
                        self.last[key] = (t, v if isinstance(v, Row) else taken[-1][1])
                    held = self.samples.setdefault(key, {})
                    for at, value in taken:
                        highest = max(highest, at)
                        if log is not None:
                            log.append(at)
                        if isinstance(value, float) and isinstance(held.get(at), Row):
                            held[at] = value  # a float stands before a histogram
                        held.setdefault(at, value)
        self.max_ts = highest
        return counts

    def _before(self, key: tuple, value: float | Row, is_delta: bool) -> float | Row:
        """Return what stands where counting began: zero, or what the deltas came to before."""
        held = self.totals.get((key, type(value))) if is_delta else None
        if held is not None:
            return held
        return totals.empty(stored(value)) if isinstance(value, Row) else 0.0

    def _stored(self, key: tuple, delta: float | Row) -> float | Row:
        """Add a delta up; return what is stored."""
        place = key, type(delta)
        held = self.totals.get(place)
        if bits(delta) == STALE_BITS or (isinstance(delta, Row) and delta.sum_bits == STALE_BITS):
            return delta
        if isinstance(delta, Row):
            total = totals.first(stored(delta)) if held is None else totals.add(held, stored(delta))
            finite = totals.finite(total)
        else:
            total = delta + (held or 0.0)
            total = total if total == total else NAN
            finite = math.isfinite(total)
        self.totals.pop(place, None)
        if finite:
            self.totals[place] = total
        return total

    @staticmethod
    def _passes(last, t, in_order, out_of_order, newest_ms, window_ms) -> bool:
        return t <= newest_ms and ((t >= in_order and t > last) or (window_ms > 0 and t >= out_of_order))

    def _judge(self, key, known, t, v, is_delta, in_order, out_of_order, newest_ms, window_ms) -> str:
        last = self.last[key][0] if known else -math.inf
        if t > newest_ms:
            return "too-far-in-future"
        passes = self._passes(last, t, in_order, out_of_order, newest_ms, window_ms)
        if known and is_delta and t <= last:
            return "repeated" if t == last else "out-of-order"
        if known and t == last and (t >= in_order or passes):
            return "repeated" if bits(v) == bits(self.last[key][1]) else "new-value"
        if not passes:
            if window_ms > 0:
                return "too-old"
            return "timestamp-too-old" if t < in_order else "out-of-order"
        return "accepted" if known else "series-limit"

    def cut(self, before_ms: float) -> dict[tuple, dict[int, float]]:
        """Take out samples before a time, forget series; return what was taken."""
        taken: dict[tuple, dict[int, float]] = {}
        for key, samples in list(self.samples.items()):
            old = {t: v for t, v in samples.items() if t < before_ms}
            if old:
                taken[key] = old
            self.samples[key] = {t: v for t, v in samples.items() if t >= before_ms}
        floor = self.max_ts - max(self.range_ms // 2, self.window_ms)
        self.last = {k: s for k, s in self.last.items() if s[0] >= floor or s[0] >= before_ms}
        self.totals = {place: total for place, total in self.totals.items() if place[0] in self.last}
        return taken
