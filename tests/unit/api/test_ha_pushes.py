"""Pushes of replicas through every protocol: who is taken, what the others are told, and what is stored and counted."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace

import cramjam
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client import CollectorRegistry

from mimir_ingest.api.influx import InfluxEdge
from mimir_ingest.api.otlp import OtlpEdge
from mimir_ingest.distributor.ha_election import HaLimits
from mimir_ingest.distributor.ha_tracker import HaTracker
from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.model.relabel import Relabelling, parse_rules
from mimir_ingest.obs.ha_metrics import HaTrackerMetrics
from mimir_ingest.wire.otlp_labels import OtlpSettings
from partitions.kv.memory import MemoryRing
from partitions.watch import RingWatcher
from tests.support.protobuf_schema import WriteRequest
from tests.support.push_target import NOW_MS, PushTarget, named
from tests.support.ring_stores import UnsteadyRingStore

HA = HaLimits()
LIMITS = DistributorLimits(ha=HA, max_global_exemplars_per_user=100)
V2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
REFUSED = "replicas did not match, rejecting sample: replica=r1, elected=r0\n"


@asynccontextmanager
async def target(limits=LIMITS, *, tracked=True, **options):
    store = UnsteadyRingStore(MemoryRing())
    tracker = HaTracker(
        RingWatcher(store, writer="d"),
        limits_for=lambda _: limits.ha,
        metrics=HaTrackerMetrics.create(CollectorRegistry()),
        timeout_s=2.0,
        now_ms=lambda: NOW_MS,
    )
    async with PushTarget(limits, ha_tracker=tracker if tracked else None, **options) as running:
        await tracker.start()
        running.election_store = store
        try:
            yield running
        finally:
            await tracker.close()


def from_replica(replica, name=b"up", cluster=b"eu"):
    return named(name, (b"__replica__", replica), (b"cluster", cluster))


STRIPPED = named(b"up", (b"cluster", b"eu"))


async def test_the_elected_replicas_samples_are_stored_without_its_label():
    async with target() as running:
        answer = await running.push(from_replica(b"r0"))
        assert (answer.status_code, answer.text) == (200, "")
        answer = await running.push(from_replica(b"r1"))
        assert (answer.status_code, answer.text) == (202, REFUSED)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert "retry-after" not in answer.headers
        assert running.stored() == [(0, *STRIPPED)]


async def test_the_first_series_decides_for_the_whole_request():
    others = [named(b"a", (b"job", b"x")), from_replica(b"r9", b"b", b"us"), from_replica(b"r1", b"c")]
    async with target() as running:
        assert (await running.push(from_replica(b"r0"), *others)).status_code == 200
        assert [labels for _, labels, _ in running.stored()] == [
            STRIPPED[0],
            named(b"a", (b"job", b"x"))[0],
            named(b"b", (b"cluster", b"us"))[0],
            named(b"c", (b"cluster", b"eu"))[0],
        ]
    async with target() as running:
        assert (await running.push(named(b"a"), from_replica(b"r0"), from_replica(b"r1"))).status_code == 200
        replicas = [dict(labels).get(b"__replica__") for _, labels, _ in running.stored()]
        assert replicas == [None, b"r0", b"r1"], "not of a replica, so nothing is taken off"
        assert running.counters("cortex_distributor_non_ha") == {"cortex_distributor_non_ha_samples_received_total": 3}


@pytest.mark.parametrize(
    ("labels", "status"),
    [
        ([(b"cluster", b"eu")], 200),
        ([(b"__replica__", b"r0")], 200),
        ([(b"__replica__", b""), (b"cluster", b"eu")], 200),
        ([(b"__replica__", b"r" * 81), (b"cluster", b"eu")], 400),
        ([(b"__replica__", b"\xff"), (b"cluster", b"eu")], 400),
    ],
)
async def test_samples_without_both_labels_are_nobodys_replicas(labels, status):
    async with target(replace(LIMITS, max_label_value_length=80)) as running:
        for _ in range(2):
            assert (await running.push(named(b"up", *labels))).status_code == status
        kept = named(b"up", *[pair for pair in labels if pair[1]])
        assert running.stored() == ([(0, *kept)] * 2 if status == 200 else [])
        assert running.counters("cortex_distributor_non_ha") == {"cortex_distributor_non_ha_samples_received_total": 2}


async def test_metadata_of_every_replica_is_taken():
    async with target() as running:
        await running.push(from_replica(b"r0"))
        answer = await running.push(metadata=[(1, b"up", b"help", b"")])
        assert answer.status_code == 200
        assert len(running.stored_metadata()) == 1


async def test_replicas_come_before_relabelling_and_see_labels_as_they_were_sent():
    rules = [
        {"source_labels": ["__replica__"], "target_label": "seen"},
        {"action": "labeldrop", "regex": "cluster"},
    ]
    limits = replace(LIMITS, relabelling=Relabelling(parse_rules(rules), ()))
    async with target(limits) as running:
        assert (await running.push(from_replica(b"r0"))).status_code == 200
        assert (await running.push(from_replica(b"r1"))).status_code == 202
        assert running.stored() == [(0, *named(b"up"))]


async def test_a_tenant_whose_replicas_nobody_tracks_loses_the_label_all_the_same():
    async with target(tracked=False) as running:
        for replica in (b"r0", b"r1"):
            assert (await running.push(from_replica(replica))).status_code == 200
        assert running.stored() == [(0, *STRIPPED)] * 2


async def test_a_tenant_that_sends_through_no_replicas_keeps_its_labels():
    async with target(replace(LIMITS)) as running:
        running.distributor._limits_for = lambda _: replace(LIMITS, ha=None)
        for replica in (b"r0", b"r1"):
            assert (await running.push(from_replica(replica))).status_code == 200
        assert [dict(labels)[b"__replica__"] for _, labels, _ in running.stored()] == [b"r0", b"r1"]


async def test_one_cluster_too_many_is_refused_and_counted():
    limits = replace(LIMITS, ha=HaLimits(max_clusters=1), separate_metrics_group_label="cluster")
    async with target(limits) as running:
        assert (await running.push(from_replica(b"r0"))).status_code == 200
        answer = await running.push(from_replica(b"r0", cluster=b"us"))
        assert answer.status_code == 400
        assert "(limit: 1) (err-mimir-tenant-too-many-ha-clusters). To adjust the related" in answer.text
        discarded = {"user": "t", "group": "us", "reason": "too_many_ha_clusters"}
        assert running.registry.get_sample_value("cortex_discarded_samples_total", discarded) == 1


@pytest.mark.parametrize("protocol", ["remote write", "otlp", "influx"])
async def test_a_new_cluster_fails_while_elections_cannot_be_stored(protocol):
    edges = {"otlp": otlp_edge(), "influx": influx_edge()}
    async with target(edge=edges.get(protocol)) as running:
        running.election_store.down = True
        answer = await send(running, protocol, "r0")
        assert answer.status_code == (500 if protocol == "remote write" else 503)
        assert running.stored() == []


def otlp_edge():
    return OtlpEdge(max_bytes=1 << 20, settings_for=lambda _: OtlpSettings(strategy="UnderscoreEscapingWithSuffixes"))


def influx_edge():
    return InfluxEdge(max_bytes=1 << 20, now_ms=lambda: NOW_MS)


def remote_write_2(replica, cluster="eu"):
    symbols = [b"", b"__name__", b"up", b"cluster", cluster.encode(), b"__replica__", replica.encode()]
    request = WriteRequest(symbols=symbols)
    for _ in range(2):
        series = request.timeseries_rw2.add(labels_refs=[1, 2, 3, 4, 5, 6])
        series.samples.add(value=1.0, timestamp=NOW_MS)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


def written(answer):
    kinds = ("samples", "histograms", "exemplars")
    return [int(answer.headers[f"x-prometheus-remote-write-{kind}-written"]) for kind in kinds]


async def send(running, protocol, replica, cluster="eu"):
    if protocol == "remote write":
        return await running.push(from_replica(replica.encode(), cluster=cluster.encode()))
    if protocol == "remote write 2":
        return await running.post(remote_write_2(replica, cluster), Content_Type=V2)
    if protocol == "influx":
        return await running.post(f"up,cluster={cluster},__replica__={replica} value=1 {NOW_MS}000000".encode())
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="up")
    point = metric.gauge.data_points.add(time_unix_nano=NOW_MS * 1_000_000, as_double=1.0)
    for name, value in (("cluster", cluster), ("__replica__", replica)):
        point.attributes.add(key=name).value.string_value = value
    return await running.post(request.SerializeToString())


async def test_otlp_has_its_own_words_for_it():
    async with target(edge=otlp_edge()) as running:
        assert (await send(running, "otlp", "r0")).status_code == 200
        answer = await send(running, "otlp", "r1")
        assert answer.status_code == 202
        assert answer.headers["content-type"] == "application/x-protobuf"
        assert answer.content.startswith(b"\x08\x06\x12"), "google.rpc.Status, code 6: already exists"
        assert REFUSED.strip().encode() in answer.content
        assert [dict(labels).get(b"__replica__") for _, labels, _ in running.stored()] == [None]


@pytest.mark.parametrize("protocol", ["remote write 2", "otlp", "influx"])
async def test_one_cluster_too_many_is_an_error_in_every_protocol(protocol):
    edges = {"otlp": otlp_edge(), "influx": influx_edge()}
    async with target(replace(LIMITS, ha=HaLimits(max_clusters=1)), edge=edges.get(protocol)) as running:
        assert (await send(running, protocol, "r0")).is_success
        answer = await send(running, protocol, "r0", cluster="us")
        assert answer.status_code == 400
        if protocol == "otlp":
            assert answer.content.startswith(b"\x08\x09\x12"), "google.rpc.Status, code 9: failed precondition"
        elif protocol == "influx":
            assert answer.content == b""
        else:
            assert written(answer) == [0, 0, 0]
        assert len(running.stored()) == (2 if protocol == "remote write 2" else 1)


async def test_influx_has_no_words_for_it():
    async with target(edge=influx_edge()) as running:
        assert (await send(running, "influx", "r0")).status_code == 204
        answer = await send(running, "influx", "r1")
        assert (answer.status_code, answer.content) == (202, b"")
        assert len(running.stored()) == 1


async def test_remote_write_2_counts_what_was_dropped_on_purpose_as_written():
    async with target() as running:
        for replica, status in (("r0", 200), ("r1", 202)):
            answer = await send(running, "remote write 2", replica)
            assert (answer.status_code, written(answer)) == (status, [2, 0, 0])
        assert len(running.stored()) == 2
