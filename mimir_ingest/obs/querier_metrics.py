"""Metrics of the querier, part of the catalogue that `metrics` begins (Mimir's names)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter

from mimir_ingest.obs.histograms import Histogram
from mimir_ingest.obs.metrics import REQUEST_SECONDS_BUCKETS


@dataclass(frozen=True)
class IngesterClientMetrics:
    """Requests to ingesters of other processes."""

    request_duration_seconds: Histogram

    @classmethod
    def create(cls, registry: CollectorRegistry) -> IngesterClientMetrics:
        """Register the metric."""
        return cls(
            Histogram(
                "cortex_ingester_client_request_duration_seconds",
                "Time (seconds) of requests to ingesters, until the last byte of the answer.",
                ["operation", "status_code"],
                buckets=REQUEST_SECONDS_BUCKETS,
                registry=registry,
            )
        )

    def observe(self, operation: str, status: int | None, seconds: float) -> None:
        """Count a request to a path; `status` is None when there was no whole answer (it failed or was given up)."""
        code = "error" if status is None else f"{status // 100}xx"
        self.request_duration_seconds.labels(operation, code).observe(seconds)


@dataclass(frozen=True)
class OffsetLookupMetrics:
    """Requests to the log for where a partition ends, which strong reads wait for (spec: ingest storage, 5.10)."""

    requests: Counter
    failures: Counter
    request_duration_seconds: Histogram
    topic: str
    """Value of the label `topic`."""

    @classmethod
    def create(cls, registry: CollectorRegistry, *, topic: str) -> OffsetLookupMetrics:
        """Register the `cortex_ingest_storage_reader_last_produced_offset_*` family."""
        prefix, labels = "cortex_ingest_storage_reader_last_produced_offset_", ["topic", "partition"]
        return cls(
            requests=Counter(
                f"{prefix}requests",
                "Total number of requests issued to get the last produced offset.",
                labels,
                registry=registry,
            ),
            failures=Counter(
                f"{prefix}failures",
                "Total number of failed requests to get the last produced offset.",
                labels,
                registry=registry,
            ),
            request_duration_seconds=Histogram(
                f"{prefix}request_duration_seconds",
                "The duration of requests to fetch the last produced offset of a given partition.",
                labels,
                buckets=REQUEST_SECONDS_BUCKETS,
                registry=registry,
            ),
            topic=topic,
        )

    def looked_up(self, partition: int, seconds: float, succeeded: bool) -> None:
        """Count a request, also one that failed."""
        labels = self.topic, str(partition)
        self.requests.labels(*labels).inc()
        self.failures.labels(*labels).inc(0 if succeeded else 1)
        self.request_duration_seconds.labels(*labels).observe(seconds)


@dataclass(frozen=True)
class QuerierRequestMetrics:
    """Requests to the querier's routes, which are some of the server's."""

    request_duration_seconds: Histogram

    @classmethod
    def create(cls, registry: CollectorRegistry) -> QuerierRequestMetrics:
        """Register the metric."""
        return cls(
            Histogram(
                "cortex_querier_request_duration_seconds",
                "Time (seconds) spent serving HTTP requests to the querier.",
                ["method", "route", "status_code", "ws"],
                buckets=REQUEST_SECONDS_BUCKETS,
                registry=registry,
            )
        )


@dataclass(frozen=True)
class HeadReadMetrics:
    """Reads of heads for a query, in this process and in others."""

    query_duration_seconds: Histogram
    _children: dict[tuple[str, bool], Histogram] = field(default_factory=dict, repr=False)

    @classmethod
    def create(cls, registry: CollectorRegistry) -> HeadReadMetrics:
        """Register the metric."""
        return cls(
            Histogram(
                "cortex_distributor_query_duration_seconds",
                "Time (seconds) of reading samples, or exemplars, from all partitions' heads.",
                ["method", "status_code"],
                buckets=REQUEST_SECONDS_BUCKETS,
                registry=registry,
            )
        )

    @contextmanager
    def timed(self, method: str) -> Iterator[None]:
        """Count a read: `QueryStream` (samples) or `QueryExemplars`, by whether it raises (500) or not (200)."""
        began, failed = time.monotonic(), True
        try:
            yield
            failed = False
        finally:
            self.observe(method, time.monotonic() - began, failed=failed)

    def observe(self, method: str, seconds: float, *, failed: bool = False) -> None:
        """Count one that has taken so long."""
        child = self._children.get((method, failed))
        if child is None:
            child = self.query_duration_seconds.labels(f"Distributor.{method}", "500" if failed else "200")
            self._children[method, failed] = child
        child.observe(seconds)
