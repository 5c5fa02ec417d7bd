"""A head in plain Python: one dict a series, decisions sample by sample (architecture: acceptance)."""

from __future__ import annotations

import math
import struct

REASONS = (
    "accepted",
    "timestamp-too-old",
    "out-of-order",
    "too-old",
    "new-value",
    "too-far-in-future",
    "series-limit",
    "repeated",
)


def bits(value: float) -> int:
    """The 64 bits of a float."""
    return struct.unpack("<Q", struct.pack("<d", value))[0]


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

    def append(
        self, rows, *, newest_ms: int, max_series: int, window_ms: int, log: list | None = None
    ) -> dict[str, int]:
        """Take (labels, samples) rows; return samples by outcome. `log` gets the time of each accepted one."""
        counts = dict.fromkeys(REASONS, 0)
        in_order = self.max_ts - self.range_ms // 2
        out_of_order = self.max_ts - window_ms
        highest = self.max_ts
        self.window_ms = window_ms
        for labels, samples in rows:
            key = tuple(sorted(labels.items()))
            for t, v in samples:
                outcome = self._judge(key, t, v, in_order, out_of_order, newest_ms, window_ms, max_series)
                counts[outcome] += 1
                if outcome == "accepted":
                    highest = max(highest, t)
                    if log is not None:
                        log.append(t)
                    if key not in self.last or t > self.last[key][0]:
                        self.last[key] = (t, v)
                    self.samples.setdefault(key, {}).setdefault(t, v)
        self.max_ts = highest
        return counts

    def _judge(self, key, t, v, in_order, out_of_order, newest_ms, window_ms, max_series) -> str:
        known = key in self.last
        last = self.last[key][0] if known else -math.inf
        if t > newest_ms:
            return "too-far-in-future"
        passes = (t >= in_order and t > last) or (window_ms > 0 and t >= out_of_order)
        if known and t == last and (t >= in_order or passes):
            return "repeated" if bits(v) == bits(self.last[key][1]) else "new-value"
        if not passes:
            if window_ms > 0:
                return "too-old"
            return "timestamp-too-old" if t < in_order else "out-of-order"
        if not known and max_series and len(self.last) >= max_series:
            return "series-limit"
        return "accepted"

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
        return taken
