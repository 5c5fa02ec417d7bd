"""Limits of this process on the requests it handles at a time (spec: ingest storage 8.4, "Instance limits").

Used on the event loop only. Everything counted here is given back when the request ends, whatever its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mimir_ingest.distributor.messages import with_instance_flag
from mimir_ingest.distributor.rate_limit import MovingRate, move_rate
from mimir_ingest.errors import LimitExceeded
from mimir_ingest.obs.metrics import DistributorMetrics

_PREFIX = "the write request has been rejected because the distributor exceeded the "
_TEXTS = {
    "max-inflight-push-requests": "allowed number of inflight push requests",
    "max-ingestion-rate": "ingestion rate limit",
    "max-inflight-push-requests-bytes": "allowed total size in bytes of inflight push requests",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceLimits:
    """`distributor.instance_limits`; 0 is no limit."""

    max_ingestion_rate: float = 0.0
    """Items a second, as a moving average."""
    max_inflight_push_requests: int = 2000
    max_inflight_push_requests_bytes: int = 0


class Admission:
    """Counts of what this process handles now, and its moving ingestion rate; `limits` gives those in force."""

    def __init__(
        self,
        limits: Callable[[], InstanceLimits],
        metrics: DistributorMetrics,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._metrics = metrics
        self._monotonic_s = monotonic_s
        self._rate = MovingRate(0.0, 0, monotonic_s())
        self.requests = 0
        """Push requests being handled."""
        self.bytes = 0
        """Their bytes, as received and decompressed."""
        metrics.inflight_push_requests.set_function(lambda: self.requests)
        metrics.inflight_push_requests_bytes.set_function(lambda: self.bytes)
        metrics.ingestion_rate_samples_per_second.set_function(self.ingestion_rate)
        for name in ("max_ingestion_rate", "max_inflight_push_requests", "max_inflight_push_requests_bytes"):
            metrics.instance_limits.labels(name).set_function(lambda name=name: getattr(limits(), name))

    def ingestion_rate(self) -> float:
        """Return the moving average of items a second."""
        self._rate = move_rate(self._rate, 0, now_s=self._monotonic_s())
        return self._rate.rate

    def count_items(self, items: int) -> None:
        """Count what was taken from a request."""
        self._rate = move_rate(self._rate, items, now_s=self._monotonic_s())

    def enter(self) -> None:
        """Count a request in. Raises LimitExceeded, with nothing counted."""
        limits = self._limits()
        if 0 < limits.max_inflight_push_requests <= self.requests:
            raise self._reject("max-inflight-push-requests")
        if 0 < limits.max_ingestion_rate <= self.ingestion_rate():
            raise self._reject("max-ingestion-rate")
        self.requests += 1

    def add_bytes(self, size: int) -> None:
        """Count bytes of a request. Raises LimitExceeded, with nothing counted."""
        if 0 < self._limits().max_inflight_push_requests_bytes < self.bytes + size:
            raise self._reject("max-inflight-push-requests-bytes")
        self.bytes += size

    def leave(self, size: int) -> None:
        """Give back a request and its bytes."""
        self.requests -= 1
        self.bytes -= size

    def _reject(self, name: str) -> LimitExceeded:
        error_id = f"err-mimir-distributor-{name}"
        self._metrics.instance_rejected_requests.labels(f"distributor_{name}".replace("-", "_")).inc()
        text = with_instance_flag(_PREFIX + _TEXTS[name], error_id, f"distributor.instance-limits.{name}")
        return LimitExceeded(text, error_id=error_id, http_status=500)
