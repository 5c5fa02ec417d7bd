"""Gauges and counters of what the heads hold, from looks at all of them every few seconds."""

from __future__ import annotations

from collections.abc import Mapping

from mimir_ingest.ingester.consumption import ConsumptionMetrics
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.tsdb.head import Head


class HeadGauges:
    """Remembers what it saw of each head last, so that series that came and went are counted once."""

    def __init__(self, metrics: ConsumptionMetrics) -> None:
        self._metrics = metrics
        self._seen: dict[tuple[int, str], tuple[Head, int, int]] = {}

    def update(
        self,
        states: Mapping[int, PartitionState | None],
        *,
        metadata_count: int,
        exemplars: Mapping[str, tuple[int, int, int]],
    ) -> None:
        """Look at all partitions; what is not among them any more has gone with its series.

        `exemplars` is what `ExemplarStore.held` says.
        """
        self._metrics.exemplars_held(exemplars)
        series, tenants = 0, set()
        created: dict[str, int] = {}
        removed: dict[str, int] = {}
        present = {(partition, tenant) for partition, state in states.items() if state for tenant in list(state.heads)}
        lost = [key for key in self._seen if key not in present]
        for key in lost:
            _, made, gone = self._seen.pop(key)
            removed[key[1]] = removed.get(key[1], 0) + made - gone
        for partition, state in states.items():
            heads = [] if state is None else list(state.heads.values())
            for head in heads:
                series += head.live_count
                if head.live_count:
                    tenants.add(head.tenant)
                known, made, gone = self._seen.get((partition, head.tenant), (head, 0, 0))
                if known is not head:
                    removed[head.tenant] = removed.get(head.tenant, 0) + made - gone
                    made = gone = 0
                now_made, now_gone = head.created_count, head.created_count - head.live_count
                created[head.tenant] = created.get(head.tenant, 0) + now_made - made
                removed[head.tenant] = removed.get(head.tenant, 0) + now_gone - gone
                self._seen[partition, head.tenant] = (head, now_made, now_gone)
            self._metrics.head_bytes(partition, sum(head.nbytes for head in heads))
        self._metrics.memory(
            series=series, tenants=len(tenants), metadata=metadata_count, created=created, removed=removed
        )
        if forgotten := {tenant for _, tenant in lost} - {tenant for _, tenant in present}:
            self._metrics.forget(forgotten)
