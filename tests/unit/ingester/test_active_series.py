"""Gauges of active series and custom trackers (spec ingest-storage.md 9.8)."""

import re

from prometheus_client import CollectorRegistry, generate_latest

from mimir_ingest.ingester.active_series import ActiveSeriesGauges, count_active
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.ingester.tenant_facts import describe_tenants
from mimir_ingest.log.contract import Record
from mimir_ingest.obs.active_series_metrics import ActiveSeriesMetrics
from mimir_ingest.promql.parser import parse_metric_selector
from mimir_ingest.wire.record import VERSION_COLUMNAR, RecordSettings, encode_columnar
from tests.support.batches import write_batch

LIMITS = RecordSettings(max_series=0, out_of_order_window_ms=0, creation_grace_ms=600_000)
T0 = 1_700_000_000_000


def partition(number, *records):
    """Return a partition that got (record time, tenant, numbers of series)."""
    state = PartitionState("t", number, settings=PartitionSettings(), default_record_settings=lambda _: LIMITS)
    for offset, (at_ms, tenant, numbers) in enumerate(records):
        rows = [({"__name__": "m", "i": str(i)}, [(at_ms, 1.0)]) for i in numbers]
        value = encode_columnar(write_batch(rows), LIMITS)
        state.apply([Record(number, offset, at_ms, tenant.encode(), value, VERSION_COLUMNAR)])
    return state


def shown(registry):
    text = generate_latest(registry).decode()
    return dict(re.findall(r"^cortex_ingester_active_(\S+) (\S+)$", text, re.MULTILINE))


def test_a_tenants_series_are_counted_over_partitions_by_the_records_time():
    trackers = {
        "a": {"odd": parse_metric_selector('{i=~".*[13579]"}'), "none": parse_metric_selector("nothing")},
        "b": {},
    }
    states = [
        partition(0, (T0, "a", range(10)), (T0 + 60_000, "a", range(4)), (T0 + 60_000, "b", range(2))),
        partition(1, (T0 + 60_000, "a", range(10, 15))),
    ]
    registry = CollectorRegistry()
    gauges = ActiveSeriesGauges(ActiveSeriesMetrics.create(registry))
    heads = describe_tenants(dict(enumerate(states)))

    def show(counts):
        gauges.show(counts, heads)

    show(count_active(states, trackers.__getitem__, T0))
    assert shown(registry) == {
        'series{user="a"}': "15.0",
        'series{user="b"}': "2.0",
        'series_custom_tracker{name="odd",user="a"}': "7.0",
    }
    show(count_active(states, trackers.__getitem__, T0 + 1))
    assert shown(registry) == {
        'series{user="a"}': "9.0",
        'series{user="b"}': "2.0",
        'series_custom_tracker{name="odd",user="a"}': "4.0",
    }
    # A changed tracker counts at once; what has no series any more has no gauge.
    trackers["a"] = {"teens": parse_metric_selector('{i=~"1."}')}
    show(count_active(states, trackers.__getitem__, T0 + 1))
    assert shown(registry)['series_custom_tracker{name="teens",user="a"}'] == "5.0"
    assert 'series_custom_tracker{name="odd",user="a"}' not in shown(registry)
    show(count_active(states, trackers.__getitem__, T0 + 60_001))
    assert shown(registry) == {}
    assert registry.get_sample_value("cortex_ingester_tsdb_head_min_timestamp_seconds") == T0 / 1000
    assert registry.get_sample_value("cortex_ingester_tsdb_head_max_timestamp_seconds") == T0 / 1000 + 60
