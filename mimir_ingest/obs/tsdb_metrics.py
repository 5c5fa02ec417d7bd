"""A tenant's own metrics, under the names of Prometheus's TSDB, written when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily


@dataclass(frozen=True, slots=True)
class TenantTsdb:
    """What `/ingester/tsdb_metrics` shows of a tenant; times in ms."""

    series: int
    series_created: int
    chunks: int
    min_ms: int
    max_ms: int
    blocks: int

    def collect(self) -> Iterator[Metric]:
        """Give the `prometheus_tsdb_*` families."""
        gauges = {
            "head_series": ("Series in the head.", self.series),
            "head_chunks": ("Chunks in the head.", self.chunks),
            "head_min_time": ("Oldest sample in the head (ms).", self.min_ms),
            "head_max_time": ("Newest sample in the head (ms).", self.max_ms),
            "head_min_time_seconds": ("Oldest sample in the head (Unix seconds).", self.min_ms / 1000),
            "head_max_time_seconds": ("Newest sample in the head (Unix seconds).", self.max_ms / 1000),
            "blocks_loaded": ("Blocks of recent cuts.", self.blocks),
        }
        counters = {
            "head_series_created": ("Series created in the head.", self.series_created),
            "head_series_removed": ("Series that the head has forgotten.", self.series_created - self.series),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"prometheus_tsdb_{name}", text, value=value)
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"prometheus_tsdb_{name}", text, value=value)


def render_tsdb(tsdb: TenantTsdb) -> bytes:
    """Return the exposition text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(tsdb)
    return generate_latest(registry)
