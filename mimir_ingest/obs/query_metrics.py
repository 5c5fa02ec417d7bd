"""What queries cost, by tenant: Mimir's counters of its query-frontend, part of the catalogue that `metrics` begins."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric

IDLE_S = 1200.0
"""Tenants that ask nothing for so long are forgotten; Mimir's time."""
_SWEEP_S = 180.0
"""Between looks for such tenants."""

_STATISTICS = (
    ("fetched_series", "Series fetched to execute queries."),
    ("fetched_chunks", "Chunks fetched to execute queries."),
    ("fetched_chunk_bytes", "Bytes of chunks fetched to execute queries."),
    ("samples_processed", "Samples processed to execute queries."),
)


class TenantQueries:
    """Counts of one tenant. Changed from one event loop, and by additions alone: that is all a request pays."""

    __slots__ = (
        "asked",
        "fetched_chunk_bytes",
        "fetched_chunks",
        "fetched_series",
        "last_s",
        "samples_processed",
        "seconds",
    )

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        """Requests by kind."""
        self.seconds = 0.0
        """Spent processing them, without waiting for their turn."""
        self.fetched_series = self.fetched_chunks = self.fetched_chunk_bytes = self.samples_processed = 0
        self.last_s = 0.0
        """When the tenant last asked (monotonic clock)."""

    def add(self, seconds: float, series: int, chunks: int, chunk_bytes: int, samples: int) -> None:
        """Add what one request cost; one that failed has no samples, and its time may be the wait."""
        self.seconds += seconds
        self.fetched_series += series
        self.fetched_chunks += chunks
        self.fetched_chunk_bytes += chunk_bytes
        self.samples_processed += samples


class QueryMetrics:
    """`cortex_query_frontend_queries_total`, and what is told of queries by `-query-frontend.query-stats-enabled`."""

    def __init__(self, *, statistics: bool, clock: Callable[[], float]) -> None:
        self.statistics, self._clock = statistics, clock
        self._tenants: dict[str, TenantQueries] = {}
        self._swept_s = clock()

    @classmethod
    def create(
        cls, registry: CollectorRegistry, *, statistics: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> QueryMetrics:
        """Register the metrics; without `statistics` only the number of queries."""
        metrics = cls(statistics=statistics, clock=clock)
        registry.register(metrics)
        return metrics

    def asked(self, tenant: str, kind: str) -> TenantQueries:
        """Count a request that comes, and return where to add what it costs."""
        now_s = self._clock()
        found = self._tenants.get(tenant)
        if found is None:
            self._sweep(now_s)
            found = self._tenants[tenant] = TenantQueries()
        found.asked[kind] += 1
        found.last_s = now_s
        return found

    def _sweep(self, now_s: float) -> None:
        """Forget idle tenants, from time to time. why: names of tenants are the clients' to make up."""
        if now_s - self._swept_s < _SWEEP_S:
            return
        self._swept_s = now_s
        self._tenants = {name: held for name, held in self._tenants.items() if now_s - held.last_s < IDLE_S}

    def collect(self) -> Iterator[Metric]:
        """Yield the families; tenants that have been idle for long are not among them."""
        now_s = self._clock()
        tenants = [(name, held) for name, held in list(self._tenants.items()) if now_s - held.last_s < IDLE_S]
        queries = CounterMetricFamily(
            "cortex_query_frontend_queries", "Requests to the query API.", labels=("op", "user")
        )
        for tenant, held in tenants:
            for kind, count in list(held.asked.items()):
                queries.add_metric((kind, tenant), count)
        yield queries
        if not self.statistics:
            return
        seconds = CounterMetricFamily(
            "cortex_query_seconds", "Time (seconds) spent processing queries.", labels=("user", "sharded")
        )
        for tenant, held in tenants:
            seconds.add_metric((tenant, "false"), held.seconds)
        yield seconds
        for name, text in _STATISTICS:
            family = CounterMetricFamily(f"cortex_query_{name}", text, labels=("user",))
            for tenant, held in tenants:
                family.add_metric((tenant,), getattr(held, name))
            yield family
