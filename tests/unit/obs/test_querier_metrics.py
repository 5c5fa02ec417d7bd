import pytest
from prometheus_client import CollectorRegistry

from mimir_ingest.obs.querier_metrics import HeadReadMetrics, IngesterClientMetrics, OffsetLookupMetrics


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


def test_reads_of_heads_are_counted_by_what_was_read_and_how_it_ended():
    registry = CollectorRegistry()
    metrics = HeadReadMetrics.create(registry)
    for method in ("QueryStream", "QueryStream", "QueryExemplars"):
        with metrics.timed(method):
            pass
    with pytest.raises(ValueError, match="x"), metrics.timed("QueryExemplars"):
        raise ValueError("x")

    def count(method: str, status: str) -> float | None:
        labels = {"method": f"Distributor.{method}", "status_code": status}
        return registry.get_sample_value("cortex_distributor_query_duration_seconds_count", labels)

    assert [count("QueryStream", s) for s in ("200", "500")] == [2, None]
    assert [count("QueryExemplars", s) for s in ("200", "500")] == [1, 1]


def test_lookups_of_ends_are_counted_with_their_failures():
    registry = CollectorRegistry()
    metrics = OffsetLookupMetrics.create(registry, topic="ingest")
    metrics.looked_up(3, 0.5, True)
    name, labels = "cortex_ingest_storage_reader_last_produced_offset", {"topic": "ingest", "partition": "3"}
    value = registry.get_sample_value
    assert [value(f"{name}_{kind}_total", labels) for kind in ("requests", "failures")] == [1, 0]
    metrics.looked_up(3, 1.0, False)
    assert [value(f"{name}_{kind}_total", labels) for kind in ("requests", "failures")] == [2, 1]
    assert value(f"{name}_request_duration_seconds_sum", labels) == 1.5
