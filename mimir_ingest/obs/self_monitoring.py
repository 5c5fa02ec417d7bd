"""This program's own metrics, written into itself, so that the first query has data."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping

import numpy as np
import structlog
from prometheus_client import CollectorRegistry, Metric

from mimir_ingest.errors import IngestError
from mimir_ingest.model.batch import METRIC_TYPES, MetadataColumns, WriteBatch
from mimir_ingest.model.labels import METRIC_NAME, encode_label_bytes

log = structlog.get_logger()

MAX_TENANT_CHILDREN = 1000
"""why: a hundred thousand series of all families together, about as many as a tenant may have by default."""


def batch_of(registry: CollectorRegistry, target: Mapping[str, str], *, now_ms: int) -> WriteBatch:
    """Return all samples of a registry as a scrape at `now_ms` would give them, with metadata.

    Families by tenant are left out once they have more than `MAX_TENANT_CHILDREN` children: they would be half a
    million series of ten thousand tenants. `/metrics` has them.

    Parameters
    ----------
    target : labels of this process (`job`, `instance`); they win over a metric's own
    """
    sets: list[bytes] = []
    values: list[float] = []
    types: list[int] = []
    texts: list[bytes] = []
    for family in _families(registry):
        types.append(METRIC_TYPES.index(family.type) if family.type in METRIC_TYPES else 0)
        name = f"{family.name}_total" if family.type == "counter" else family.name
        texts += [name.encode(), family.documentation.encode(), family.unit.encode()]
        for sample in family.samples:
            sets.append(encode_label_bytes({**sample.labels, **target, METRIC_NAME: sample.name}))
            values.append(sample.value)
    sets.append(encode_label_bytes({METRIC_NAME: "up", **target}))
    values.append(1.0)
    metadata = MetadataColumns(
        np.array(types, np.uint8),
        np.frombuffer(b"".join(texts), np.uint8),
        np.cumsum([0, *map(len, texts)]).astype(np.int64),
    )
    return WriteBatch.of_samples(sets, [now_ms] * len(sets), values, metadata)


def _families(registry: CollectorRegistry) -> Iterator[Metric]:
    for collector in list(registry._collector_to_names):
        children = getattr(collector, "_metrics", ())
        if len(children) <= MAX_TENANT_CHILDREN or "user" not in collector._labelnames:
            yield from collector.collect()


async def run_self_monitoring(
    registry: CollectorRegistry,
    push: Callable[[str, WriteBatch], Awaitable[object]],
    *,
    tenant: str,
    target: Mapping[str, str],
    interval_s: float,
    now_ms: Callable[[], int],
) -> None:
    """Push the registry every `interval_s` until cancelled; a push that fails is logged and the next one goes on."""
    while True:
        try:
            batch = await asyncio.to_thread(batch_of, registry, target, now_ms=now_ms())
            await push(tenant, batch)
        except IngestError as error:
            log.warning("own metrics were not written", err=str(error))
        await asyncio.sleep(interval_s)
