from prometheus_client import CollectorRegistry

from mimir_ingest.obs.querier_metrics import IngesterClientMetrics


def test_requests_are_counted_by_operation_and_class_of_status():
    registry = CollectorRegistry()
    metrics = IngesterClientMetrics.create(registry)
    metrics.observe("/read", 200, 0.5)
    metrics.observe("/read", 200, 1.5)
    metrics.observe("/read", 500, 0.1)
    metrics.observe("/labels", None, 2.0)
    name = "cortex_ingester_client_request_duration_seconds"
    value = registry.get_sample_value
    assert value(f"{name}_sum", {"operation": "/read", "status_code": "2xx"}) == 2.0
    assert value(f"{name}_count", {"operation": "/read", "status_code": "5xx"}) == 1
    assert value(f"{name}_count", {"operation": "/labels", "status_code": "error"}) == 1
