"""Metrics of heads under the names of Prometheus's TSDB: a tenant's own, written when they are asked for, and those of
all tenants that come counted already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from mimir_ingest.kernels.head import BEHIND_BOUNDS_MS


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


class OutOfOrderDeltas(Collector):
    """`cortex_ingester_tsdb_sample_out_of_order_delta_seconds`, of all tenants (spec: ingest storage, 9.11).

    By how much samples that came out of order, accepted or not, were behind their tenant's newest.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._bounds = [floatToGoString(bound / 1000) for bound in BEHIND_BOUNDS_MS] + ["+Inf"]
        self._counts = np.zeros(len(self._bounds), np.int64)
        self._sum_ms = 0
        registry.register(self)

    def add(self, counts: np.ndarray, sum_ms: int) -> None:
        """Add samples: int64[bounds + 1], by bucket, not cumulated."""
        self._counts = self._counts + counts
        self._sum_ms += sum_ms

    def collect(self) -> Iterator[Metric]:
        """Give the histogram."""
        cumulated = accumulate(self._counts.tolist())
        yield HistogramMetricFamily(
            "cortex_ingester_tsdb_sample_out_of_order_delta_seconds",
            "Time (seconds) by which samples out of order were behind the newest, accepted or not.",
            buckets=list(zip(self._bounds, cumulated, strict=True)),
            sum_value=self._sum_ms / 1000,
        )
