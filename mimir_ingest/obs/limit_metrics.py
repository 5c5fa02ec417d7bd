"""Metrics of an ingester's limits (spec: ingest storage, 9.9 and 9.11)."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge


@dataclass(frozen=True)
class IngesterLimitMetrics:
    """Limits of the process and of its tenants."""

    instance_limits: Gauge
    instance_rejected_requests: Counter

    @classmethod
    def create(cls, registry: CollectorRegistry) -> IngesterLimitMetrics:
        """Register `cortex_ingester_instance_limits` and what goes with it."""
        return cls(
            instance_limits=Gauge(
                "cortex_ingester_instance_limits",
                "Limits on what this process holds; 0 is none.",
                ["limit"],
                registry=registry,
            ),
            instance_rejected_requests=Counter(
                "cortex_ingester_instance_rejected_requests_total",
                "Requests over a limit on what this process holds.",
                ["reason"],
                registry=registry,
            ),
        )
