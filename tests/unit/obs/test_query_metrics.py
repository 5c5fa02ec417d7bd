"""What queries cost is counted by tenant, and forgotten with the tenant."""

from prometheus_client import CollectorRegistry, generate_latest

from mimir_ingest.obs.exposition import write_exposition
from mimir_ingest.obs.histograms import Histogram
from mimir_ingest.obs.query_metrics import IDLE_S, QueryMetrics


def test_requests_are_counted_by_kind_and_costs_are_summed():
    registry = CollectorRegistry()
    metrics = QueryMetrics.create(registry)
    metrics.asked("a", "query").add(0.5, 1, 2, 30, 4)
    metrics.asked("a", "query_range").add(0.25, 10, 20, 300, 40)
    metrics.asked("a", "query").add(0.0, 0, 0, 0, 0)
    metrics.asked("b", "other")
    value = registry.get_sample_value
    assert value("cortex_query_frontend_queries_total", {"op": "query", "user": "a"}) == 2
    assert value("cortex_query_frontend_queries_total", {"op": "query_range", "user": "a"}) == 1
    assert value("cortex_query_frontend_queries_total", {"op": "other", "user": "b"}) == 1
    assert value("cortex_query_seconds_total", {"user": "a", "sharded": "false"}) == 0.75
    names = ("fetched_series", "fetched_chunks", "fetched_chunk_bytes", "samples_processed")
    assert [value(f"cortex_query_{name}_total", {"user": "a"}) for name in names] == [11, 22, 330, 44]
    assert [value(f"cortex_query_{name}_total", {"user": "b"}) for name in names] == [0, 0, 0, 0]


def test_without_statistics_only_the_number_of_queries_is_told():
    registry = CollectorRegistry()
    QueryMetrics.create(registry, statistics=False).asked("a", "query").add(1.0, 1, 1, 1, 1)
    assert [family.name for family in registry.collect()] == ["cortex_query_frontend_queries"]


def test_tenants_that_ask_no_more_are_neither_shown_nor_held():
    now = [0.0]
    registry = CollectorRegistry()
    metrics = QueryMetrics.create(registry, clock=lambda: now[0])
    for tenant in ("a", "b"):
        metrics.asked(tenant, "query")
    now[0] = IDLE_S - 1
    metrics.asked("b", "query")
    now[0] = IDLE_S
    metrics.asked("c", "query")

    def count(tenant: str) -> float | None:
        return registry.get_sample_value("cortex_query_frontend_queries_total", {"op": "query", "user": tenant})

    assert [count(tenant) for tenant in "abc"] == [None, 2, 1]
    metrics.asked("a", "query")
    assert count("a") == 1


def test_a_child_that_two_metrics_show_is_counted_once():
    registry = CollectorRegistry()
    first, second = (Histogram(name, "Help.", ["x"], buckets=(1.0,), registry=registry) for name in ("one", "two"))
    child = first.labels("a")
    second.show(child, "a")
    child.observe(0.5)
    shown = b"".join(write_exposition(registry, generate_latest)).decode()
    for name in ("one", "two"):
        assert f'{name}_count{{x="a"}} 1.0\n' in shown
        assert registry.get_sample_value(f"{name}_sum", {"x": "a"}) == 0.5
