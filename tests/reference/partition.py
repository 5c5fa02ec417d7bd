"""A partition in plain Python: which samples each cut takes, record by record (architecture: cut points)."""

from __future__ import annotations

from mimir_ingest.tsdb.series_limits import SeriesLimits
from tests.reference.head import PlainHead


class PlainPartition:
    """Consumes (offset, stamp, tenant, rows, settings); rows of a flush are its tenants, its tenant None."""

    def __init__(self, range_ms: int, grace_ms: int, cut_max_samples: int, idle_ms: int) -> None:
        self.range_ms, self.grace_ms, self.cut_max_samples, self.idle_ms = range_ms, grace_ms, cut_max_samples, idle_ms
        self.record_time: int | None = None
        self.boundary = 0
        self.heads: dict[str, PlainHead] = {}
        self.held: dict[str, list[int]] = {}
        """Tenant → time of every sample accepted and not cut."""
        self.dirty = False
        self.cuts: list[tuple[int, dict[tuple[str, int], dict]]] = []
        """(cut offset, (tenant, range's start) → series → samples)."""

    def consume(self, offset, stamp, tenant, rows, settings) -> None:
        first = self.record_time is None
        self.record_time = stamp if first else max(self.record_time, stamp)
        due = (self.record_time - self.grace_ms) // self.range_ms * self.range_ms
        if first:
            self.boundary = due + self.range_ms
        elif due >= self.boundary and not (self.cuts and self.cuts[-1][0] == offset):
            self.boundary = due + self.range_ms
            if self.dirty or any(self.held.values()):
                self._cut(offset, due, None)
        if tenant is None:
            if self.dirty or any(self.held.values()):
                self._cut(offset + 1, 1 << 60, rows)
            return
        if not any(samples for _, samples, *_ in rows):
            return
        self.dirty = True
        head = self.heads.setdefault(tenant, PlainHead(self.range_ms))
        taken = self.held.setdefault(tenant, [])
        counts = head.append(
            rows,
            newest_ms=self.record_time + settings.creation_grace_ms,
            limits=SeriesLimits(settings.max_series, settings.max_series_per_metric, settings.unlimited_metrics),
            window_ms=settings.out_of_order_window_ms,
            log=taken,
        )
        assert counts["accepted"] >= 0
        if sum(map(len, self.held.values())) >= self.cut_max_samples:
            self._cut(offset + 1, 1 << 60, None)

    def _cut(self, cut_offset, before, tenants) -> None:
        blocks: dict[tuple[str, int], dict] = {}
        for tenant, head in list(self.heads.items()):
            if not self.held.get(tenant) and head.max_ts < self.record_time - self.idle_ms:
                del self.heads[tenant]
        for tenant, head in self.heads.items():
            mine = before if tenants is None or tenant in tenants else -(1 << 60)
            for key, samples in head.cut(mine).items():
                for t, v in samples.items():
                    start = t // self.range_ms * self.range_ms
                    blocks.setdefault((tenant, start), {}).setdefault(key, {})[t] = v
            self.held[tenant] = [t for t in self.held.get(tenant, []) if t >= mine]
        self.dirty = False
        self.cuts.append((cut_offset, blocks))
