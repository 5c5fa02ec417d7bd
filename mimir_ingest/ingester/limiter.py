"""What the ingester of this process would refuse, asked before the log: the sender is told, and nothing is appended.

Content follows the log alone, so these answers decide nothing that is in it: they are those of this moment, for
partitions that are owned here. Limits: spec ingest-storage 8.7 and 9.9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mimir_ingest.errors import LimitExceeded
from mimir_ingest.ingester.consumer import PartitionConsumer
from mimir_ingest.ingester.service import Ingester
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.obs.limit_metrics import IngesterLimitMetrics
from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.series_limits import SeriesLimits
from mimir_ingest.wire.record import RecordSettings

_HELD = {"max-tenants": "allowed number of tenants", "max-series": "allowed number of in-memory series"}


@dataclass(frozen=True, slots=True, kw_only=True)
class IngesterLimits:
    """`ingester.instance_limits`; 0 is no limit."""

    max_tenants: int = 0
    max_series: int = 0


class LocalLimiter:
    """Answers for the partitions owned here. Any thread.

    Parameters
    ----------
    limits
        Those of this process that are in force.
    """

    def __init__(self, ingester: Ingester, limits: Callable[[], IngesterLimits], metrics: IngesterLimitMetrics) -> None:
        self._ingester, self._limits, self._metrics = ingester, limits, metrics
        for name in ("max_tenants", "max_series"):
            metrics.instance_limits.labels(name).set_function(lambda name=name: getattr(limits(), name))

    def over_limits(
        self, partition: int, tenant: str, batch: WriteBatch, settings: RecordSettings
    ) -> np.ndarray | None:
        """Return what the limits of a record say of its rows: int32[n] as `Head.over_limits`, None for nothing.

        Raises LimitExceeded (503) when this process holds as much as it may, and the batch would add to it.
        """
        consumer = self._ingester.consumer(partition)
        state = None if consumer is None or not consumer.caught_up else consumer.state
        if state is None:
            return None
        head = state.heads.get(tenant)
        self._check_instance(tenant, head, batch)
        limits = SeriesLimits(settings.max_series, settings.max_series_per_metric, settings.unlimited_metrics)
        return (head or Head(tenant)).over_limits(batch, limits)

    def _check_instance(self, tenant: str, head: Head | None, batch: WriteBatch) -> None:
        limits = self._limits()
        if not (limits.max_tenants or limits.max_series) or (head is not None and not len(head.new_rows(batch))):
            return
        held = [h for consumer in self._consumers() if consumer.state for h in list(consumer.state.heads.values())]
        tenants = {h.tenant for h in held if h.live_count}
        if tenant not in tenants and 0 < limits.max_tenants <= len(tenants):
            raise self._reject("max-tenants")
        if 0 < limits.max_series <= sum(h.live_count for h in held):
            raise self._reject("max-series")

    def _consumers(self) -> list[PartitionConsumer]:
        found = (self._ingester.consumer(partition) for partition in self._ingester.owned)
        return [consumer for consumer in found if consumer is not None]

    def _reject(self, name: str) -> LimitExceeded:
        self._metrics.instance_rejected_requests.labels(f"ingester_{name}".replace("-", "_")).inc()
        error_id = f"err-mimir-ingester-{name}"
        text = (
            f"the write request has been rejected because the ingester exceeded the {_HELD[name]} ({error_id}). To "
            f"adjust the related limit, configure -ingester.instance-limits.{name}, or contact your service "
            "administrator."
        )
        return LimitExceeded(text, error_id=error_id, http_status=503)
