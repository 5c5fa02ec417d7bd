"""The catalogue of metric names: every metric of this program is declared here and nowhere else.

One frozen dataclass a component, built once from a `CollectorRegistry` by its `create` classmethod and passed down by
the composition root. Names, labels and meanings are Mimir's where the metric is the same; per-tenant metrics carry the
label `user`. A component never registers a metric of its own and never touches the default global registry.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge, Histogram, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

REQUEST_SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)
"""Upper bounds (seconds) of request durations; those of Mimir's server library."""

BYTES_BUCKETS = tuple(float(1 << power) for power in range(10, 28, 2))
"""Upper bounds (bytes) of body sizes: 1 KiB to 64 MiB."""


def new_registry() -> CollectorRegistry:
    """Return an empty registry for one process, without `_created` series (Mimir has none)."""
    disable_created_metrics()
    return CollectorRegistry()


@dataclass(frozen=True)
class ProcessMetrics:
    """The process itself: build information, and what prometheus-client collects about process, platform and GC."""

    build_info: Gauge

    @classmethod
    def create(cls, registry: CollectorRegistry, *, version: str, revision: str, branch: str) -> ProcessMetrics:
        """Register `process_*`, `python_*` and `cortex_build_info` (always 1)."""
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        build_info = Gauge(
            "cortex_build_info",
            "Constant 1, labelled by version, revision and branch of the build and by the runtime's version.",
            ["version", "revision", "branch", "goversion"],
            registry=registry,
        )
        runtime = f"python{platform.python_version()}"
        build_info.labels(version=version, revision=revision, branch=branch, goversion=runtime).set(1)
        return cls(build_info=build_info)


@dataclass(frozen=True)
class ServerMetrics:
    """The HTTP server."""

    request_duration_seconds: Histogram
    inflight_requests: Gauge
    request_message_bytes: Histogram
    response_message_bytes: Histogram

    @classmethod
    def create(cls, registry: CollectorRegistry) -> ServerMetrics:
        """Register the `cortex_request_*` family."""
        return cls(
            request_duration_seconds=Histogram(
                "cortex_request_duration_seconds",
                "Time (seconds) spent serving HTTP requests.",
                ["method", "route", "status_code", "ws"],
                buckets=REQUEST_SECONDS_BUCKETS,
                registry=registry,
            ),
            inflight_requests=Gauge(
                "cortex_inflight_requests", "Requests being served.", ["method", "route"], registry=registry
            ),
            request_message_bytes=Histogram(
                "cortex_request_message_bytes",
                "Size (bytes) of request bodies as received.",
                ["method", "route"],
                buckets=BYTES_BUCKETS,
                registry=registry,
            ),
            response_message_bytes=Histogram(
                "cortex_response_message_bytes",
                "Size (bytes) of response bodies as sent.",
                ["method", "route"],
                buckets=BYTES_BUCKETS,
                registry=registry,
            ),
        )


@dataclass(frozen=True)
class RuntimeConfigMetrics:
    """Reloading of the runtime configuration file."""

    last_reload_successful: Gauge
    config_hash: Gauge

    @classmethod
    def create(cls, registry: CollectorRegistry) -> RuntimeConfigMetrics:
        """Register the `cortex_runtime_config_*` family."""
        return cls(
            last_reload_successful=Gauge(
                "cortex_runtime_config_last_reload_successful",
                "1 if the last reload of the runtime configuration succeeded, else 0.",
                registry=registry,
            ),
            config_hash=Gauge(
                "cortex_runtime_config_hash",
                "Constant 1, labelled by the hash of the runtime configuration in force.",
                ["sha256"],
                registry=registry,
            ),
        )
