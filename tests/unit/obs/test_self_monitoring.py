"""The program's own metrics as a batch."""

import itertools

from mimir_ingest.model.labels import decode_label_bytes
from mimir_ingest.obs.metrics import DistributorMetrics, new_registry
from mimir_ingest.obs.self_monitoring import MAX_TENANT_CHILDREN, batch_of

NOW_MS = 1_700_000_000_000


def names_in(batch):
    text = batch.labels.tobytes()
    ends = batch.label_offsets.tolist()
    return [dict(decode_label_bytes(text[a:b]))["__name__"] for a, b in itertools.pairwise(ends)]


def test_families_of_too_many_tenants_are_left_out():
    registry = new_registry()
    metrics = DistributorMetrics.create(registry)
    for tenant in range(MAX_TENANT_CHILDREN + 1):
        metrics.samples_in.labels(f"t{tenant}").inc()
        metrics.instance_rejected_requests.labels(f"r{tenant}").inc()
        if tenant:
            metrics.received_samples.labels(f"t{tenant}").inc()
    names = names_in(batch_of(registry, {"job": "j"}, now_ms=NOW_MS))
    assert names.count("cortex_distributor_samples_in_total") == 0
    assert names.count("cortex_distributor_received_samples_total") == MAX_TENANT_CHILDREN
    assert names.count("cortex_distributor_instance_rejected_requests_total") == MAX_TENANT_CHILDREN + 1
    assert names.count("up") == 1
