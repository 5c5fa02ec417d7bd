"""How many areas of memory the process has mapped, of those that the system allows (Linux; Mimir's metrics)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class MemoryMapCollector(Collector):
    """Counts them at each scrape; without a file of that kind, its metric is left out."""

    def __init__(self, registry: CollectorRegistry, *, proc: Path = Path("/proc")) -> None:
        """Register `process_memory_map_areas` and `process_memory_map_areas_limit`."""
        self._maps, self._limit = proc / "self" / "maps", proc / "sys" / "vm" / "max_map_count"
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        if (maps := _read(self._maps)) is not None:
            yield GaugeMetricFamily("process_memory_map_areas", "Number of memory map areas.", maps.count(b"\n"))
        if (limit := _read(self._limit)) is not None:
            text = "Limit on active number of memory map areas."
            yield GaugeMetricFamily("process_memory_map_areas_limit", text, int(limit))


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
