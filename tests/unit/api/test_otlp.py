"""OTLP over HTTP: one row a rule: request, status, body, header, counter, and what is stored afterwards."""

from __future__ import annotations

import gzip
import itertools
import json
import math

import cramjam
import numpy as np
import pytest
from google.protobuf import json_format
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from mimir_ingest.api.otlp import OtlpEdge
from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.errors import LogUnavailable
from mimir_ingest.wire.otlp_histograms import ZERO_THRESHOLD
from mimir_ingest.wire.otlp_labels import OtlpSettings
from tests.support.histograms import STALE_BITS, as_rows, bits
from tests.support.memory_log import MemoryLog
from tests.support.otlp_corpus import (
    CUMULATIVE,
    DELTA,
    NOW_MS,
    SERVICE,
    STALE_FLAG,
    attributes,
    gauge,
    histogram,
    point,
    request,
    summary,
    total,
)
from tests.support.push_target import NOW_MS as TARGET_NOW_MS
from tests.support.push_target import PushTarget, record_labels
from tests.support.random_batches import starts_of

JSON = {"Content_Type": "application/json"}
OK_BODY = request(gauge("up", point({"a": "b"}, asDouble=2)), resource=SERVICE).SerializeToString()
OK_STORED = [
    ([(b"__name__", b"up"), (b"a", b"b"), (b"instance", b"i-1"), (b"job", b"eu/shop")], [(NOW_MS, 2.0)]),
]
LABEL_TOO_LONG = (
    "received a metric whose attribute value length of 12 exceeds the limit of 11, attribute: 'a', "
    "value: 'xxxxxxxxxxxx' (truncated) metric: 'up{a=\"xxxxxxxxxxxx\"}'. See: https://grafana.com/docs/grafana-cloud/"
    "send-data/otlp/otlp-format-considerations/#metrics-ingestion-limits"
)


def edge(max_bytes: int = 100_000, **settings) -> OtlpEdge:
    return OtlpEdge(max_bytes=max_bytes, settings_for=lambda _: OtlpSettings(**settings))


def stored(target: PushTarget) -> list:
    return [(labels, samples) for _, labels, samples in target.stored()]


def status_of(answer) -> tuple[int, int, str]:
    """Return the HTTP status, the Status's code and its message; fails unless the answer has the form of all errors."""
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Length"] == str(len(answer.content))
    if answer.headers["Content-Type"] == "application/json":
        tree = json.loads(answer.content)
        assert set(tree) == {"code", "message"}
        return answer.status_code, tree["code"], tree["message"]
    assert answer.headers["Content-Type"] == "application/x-protobuf"
    status = Status.FromString(answer.content)
    return answer.status_code, status.code, status.message


def test_the_clocks_of_corpus_and_target_agree():
    assert NOW_MS == TARGET_NOW_MS


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("", bytes),
        ("gzip", gzip.compress),
        ("zstd", lambda body: bytes(cramjam.zstd.compress(body))),
        ("lz4", lambda body: bytes(cramjam.lz4.compress(body))),
    ],
)
async def test_a_request_is_stored_and_answered_in_its_own_encoding(encoding, compress):
    tree = json_format.MessageToDict(ExportMetricsServiceRequest.FromString(OK_BODY))
    for body, headers, empty in ((OK_BODY, {}, b""), (json.dumps(tree).encode(), JSON, b"{}")):
        async with PushTarget(edge=edge()) as target:
            answer = await target.post(
                compress(body), **headers, **({"Content_Encoding": encoding} if encoding else {})
            )
            assert (answer.status_code, answer.content) == (200, empty)
            assert answer.headers["Content-Type"] == headers.get("Content_Type", "application/x-protobuf")
            assert answer.headers["Content-Length"] == str(len(empty))
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "X-Read-Consistency-Offsets" in answer.headers
            assert stored(target) == OK_STORED
            assert [batch.source for _, batch in target.batches()] == [2]
            assert target.stored_metadata()[0][1] == (2, b"up", b"", b"")
            families = ("cortex_distributor_requests_in", "cortex_distributor_otlp_requests")
            media_type = answer.headers["Content-Type"]
            assert target.counters(*families) == {
                "cortex_distributor_requests_in_total{version=otlp}": 1,
                "cortex_distributor_otlp_requests_total": 1,
                f"cortex_distributor_otlp_requests_by_content_type_total{{content_type={media_type}}}": 1,
            }
            lists = target.counters("cortex_distributor_otlp_array_lengths_sum")
            assert lists == {
                f"cortex_distributor_otlp_array_lengths_sum{{field={name}}}": 1
                for name in ("resource_metrics", "scope_metrics", "metrics")
            }


BOMB = b"\x0a" + b"\x00" * 1_000_000


@pytest.mark.parametrize(
    ("body", "headers", "status", "text"),
    [
        (OK_BODY, {"Content_Encoding": "br"}, 415,
         'unsupported compression: br. Only "gzip", "lz4", "zstd", or no compression supported'),
        (OK_BODY, {"Content_Encoding": "br", "Content_Type": "text/plain"}, 415,
         'unsupported compression: br. Only "gzip", "lz4", "zstd", or no compression supported'),
        (OK_BODY, {"Content_Type": "text/plain"}, 415,
         "unsupported content type: text/plain, supported: [application/json, application/x-protobuf]"),
        (b"{}", {"Content_Type": "application/json; charset=utf-8"}, 415,
         "unsupported content type: application/json; charset=utf-8, supported: "
         "[application/json, application/x-protobuf]"),
        (b"x" * 100_001, {}, 413,
         "the incoming OTLP request has been rejected because its message size of 100001 bytes (uncompressed) is "
         "larger than the allowed limit of 100000 bytes (err-mimir-distributor-max-otlp-request-size). To adjust the "
         "related limit, configure -distributor.max-otlp-request-size, or contact your service administrator."),
        *(
            (compress(BOMB), {"Content_Encoding": encoding}, 413,
             "the incoming OTLP request has been rejected because its message size is larger than the allowed limit of "
             "100000 bytes (err-mimir-distributor-max-otlp-request-size). To adjust the related limit, configure "
             "-distributor.max-otlp-request-size, or contact your service administrator.")
            for encoding, compress in (
                ("gzip", gzip.compress),
                ("zstd", lambda body: bytes(cramjam.zstd.compress(body))),
                ("lz4", lambda body: bytes(cramjam.lz4.compress(body))),
            )
        ),
        (OK_BODY, {"Content_Encoding": "gzip"}, 400, "create gzip reader: "),
        (OK_BODY, {"Content_Encoding": "zstd"}, 400, "decompress zstd: "),
        (OK_BODY, {"Content_Encoding": "lz4"}, 400, "decompress lz4: "),
        (b"\xff\xff", {}, 400, "the body is no ExportMetricsServiceRequest: "),
        (b"[1]", JSON, 400, "the body is no ExportMetricsServiceRequest: "),
        (b"", JSON, 400, "the body is no ExportMetricsServiceRequest: "),
        (b'{"resourceMetrics": 5}', JSON, 400, "the body is no ExportMetricsServiceRequest: "),
        (b'{"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"sum": {"dataPoints": [{"exemplars": '
         b'[{"traceId": "xyz"}]}]}}]}]}]}', JSON, 400, "the body is no ExportMetricsServiceRequest: "),
    ],
)  # fmt: skip
async def test_what_cannot_be_read_is_refused_with_its_status_as_code(body, headers, status, text):
    async with PushTarget(edge=edge()) as target:
        answer = await target.post(body, **headers)
        assert status_of(answer)[:2] == (status, status)
        assert status_of(answer)[2].startswith(text)
        assert target.stored() == []


async def test_a_request_without_anything_is_taken():
    async with PushTarget(edge=edge()) as target:
        assert (await target.post(b"")).status_code == 200
        assert (await target.post(b'{"unknown": [1]}', **JSON)).content == b"{}"
        assert target.stored() == []


GOOD, LONG = point({"n": 1}, asInt=1), point({"a": "x" * 12}, asInt=1)


@pytest.mark.parametrize(
    ("metrics", "rejected", "text"),
    [
        ([gauge("up", GOOD, LONG, LONG)], 2, LABEL_TOO_LONG),
        ([gauge("up", GOOD), total("d", GOOD, GOOD, temporality=DELTA)], 2,
         'otlp parse error: invalid temporality and type combination for metric "d"'),
        ([gauge("up", GOOD), {"name": "nothing"}], 0,
         "otlp parse error: could not get aggregation temporality for nothing as it has unsupported metric type Empty"),
        ([gauge("up", GOOD), gauge("none", unit="s") | {"gauge": {}}], 0,
         "otlp parse error: empty data points. none is dropped"),
        ([gauge("up", GOOD), histogram("e", point(scale=-5, zeroCount=1, count=1), kind="exponentialHistogram")], 1,
         "otlp parse error: cannot convert exponential to native histogram. Scale must be >= -4, was -5"),
        ([gauge("up", GOOD, LONG), gauge("___"), gauge("---")], 2,
         'otlp parse error: normalization for metric "---" resulted in empty name\n' + LABEL_TOO_LONG),
        ([gauge("up", GOOD, point({"": "x"}, asInt=1), point({"--": "x"}, asInt=1))], 2,
         "otlp parse error: label name is empty"),
        # Every bucket of a histogram with such an attribute is refused: one data point.
        ([gauge("up", GOOD), histogram("h", point({"a": "x" * 12}, count=1, sum=1, bucketCounts=[1, 0],
         explicitBounds=[1]))], 1, LABEL_TOO_LONG.replace("up{", "h_sum{")),
        # A native histogram that contradicts itself.
        ([gauge("up", GOOD), histogram("e", point(count=2, zeroCount=1), kind="exponentialHistogram")], 1,
         "err: 1 observations found in buckets, but the Count field is 2: histogram's observation count should equal "
         "the number of observations found in the buckets (in absence of NaN). timestamp=2023-11-14T22:13:20Z, "
         "series=[{__name__ e}] (err-mimir-native-histogram-count-mismatch)"),
    ],
)  # fmt: skip
async def test_a_part_that_cannot_be_stored_is_a_partial_success_with_the_number_of_points(metrics, rejected, text):
    limits = DistributorLimits(max_label_value_length=11)
    body = request(*metrics).SerializeToString()
    async with PushTarget(limits, edge=edge()) as target:
        answer = await target.post(body)
        assert answer.status_code == 200
        partial = ExportMetricsServiceResponse.FromString(answer.content).partial_success
        assert (partial.rejected_data_points, partial.error_message) == (rejected, text)
        assert stored(target)[0] == ([(b"__name__", b"up"), (b"n", b"1")], [(NOW_MS, 1.0)])
        tree = json_format.MessageToDict(ExportMetricsServiceRequest.FromString(body))
        answer = await target.post(json.dumps(tree).encode(), **JSON)
        told = {"rejectedDataPoints": str(rejected)} if rejected else {}
        assert answer.json() == {"partialSuccess": {**told, "errorMessage": text}}


async def test_metrics_that_cannot_be_converted_are_counted():
    async with PushTarget(edge=edge()) as target:
        body = request(gauge("up"), {"name": "a"}, total("b", GOOD, GOOD, temporality=DELTA)).SerializeToString()
        await target.post(body)
        assert target.counters("cortex_discarded") == {"cortex_discarded_samples_total{reason=otlp_parse_error}": 2}


async def test_a_long_conversion_error_is_cut_at_a_character():
    metrics = [{"name": f"{i}ü" * 30} for i in range(40)]
    async with PushTarget(edge=edge()) as target:
        _, _, text = status_of(await target.post(request(*metrics, total("x", temporality=0)).SerializeToString()))
        assert text.startswith("otlp parse error: could not get ")
        assert 1020 <= len(text.encode()) <= 1024


@pytest.mark.parametrize(
    ("metric", "code", "text"),
    [
        (gauge("up", LONG), 3, LABEL_TOO_LONG.replace("\"}'", '", instance="i-1", job="eu/shop"}\'')),
        (total("d", temporality=DELTA), 400, "otlp parse error: invalid temporality and type combination for metric "
         '"d"'),
    ],
)  # fmt: skip
async def test_a_request_of_which_nothing_can_be_stored_is_a_400(metric, code, text):
    async with PushTarget(DistributorLimits(max_label_value_length=11), edge=edge()) as target:
        body = request(metric, resource={**SERVICE, "os": "linux"}).SerializeToString()
        assert status_of(await target.post(body)) == (400, code, text)


async def test_failures_that_may_pass_are_503_and_rates_429_both_with_a_hint():
    log = MemoryLog()
    log.failures[0] = LogUnavailable("no broker")
    async with PushTarget(edge=edge(), log=log) as target:
        answer = await target.post(OK_BODY)
        assert status_of(answer)[:2] == (503, 13)
        assert "no broker" in status_of(answer)[2]
        assert 6 <= int(answer.headers["Retry-After"]) <= 9
    async with PushTarget(DistributorLimits(ingestion_rate=1, ingestion_burst_size=1), edge=edge()) as target:
        answer = await target.post(OK_BODY, **JSON | {"Content_Type": "application/x-protobuf"})
        assert status_of(answer)[:2] == (429, 8)
        assert "err-mimir-tenant-max-ingestion-rate" in status_of(answer)[2]
        assert "Retry-After" in answer.headers
    target = PushTarget(edge=edge())
    answer = await target.post(b"{}", **JSON)
    assert status_of(answer) == (503, 13, "distributor is unavailable (current state: New)")


async def test_a_request_without_a_tenant_is_the_text_of_every_route():
    async with PushTarget(edge=edge(), tenants=TenantResolver()) as target:
        answer = await target.post(OK_BODY, X_Scope_OrgID="")
        assert (answer.status_code, answer.text) == (401, "no org id\n")


async def test_counters_only_carry_their_start():
    start = {"startTimeUnixNano": (NOW_MS - 60_000) * 1_000_000}
    old = {"startTimeUnixNano": (NOW_MS - 300_001) * 1_000_000}
    same = {"startTimeUnixNano": NOW_MS * 1_000_000}
    buckets = {"bucketCounts": [1, 1], "explicitBounds": [1]}
    metrics = [
        gauge("g", point(asInt=1, **start)),
        total("ud", point(asInt=2, **start), monotonic=False),
        total("t", point(asInt=3, **start), point({"n": 1}, asInt=4, **old), point({"n": 2}, asInt=5, **same)),
        histogram("h", point(count=2, **buckets, **start)),
        summary("s", point(count=6, sum=7, quantileValues=[{"quantile": 0.5, "value": 1}], **start)),
        histogram("e", point(count=2, zeroCount=2, sum=1, **start), kind="exponentialHistogram"),
    ]
    async with PushTarget(edge=edge(created_timestamp_zero_ingestion=True)) as target:
        assert (await target.post(request(*metrics).SerializeToString())).content == b""
        ((_, batch),) = target.batches()
        names = [tuple(value.decode() for _, value in labels) for labels, _ in stored(target)]
        began = NOW_MS - 60_000
        assert dict(zip(names, starts_of(batch), strict=True)) == {
            ("g",): [0],
            ("ud",): [0],
            ("t",): [began],
            ("t", "1"): [0],
            ("t", "2"): [0],
            ("h_count",): [began],
            ("h_bucket", "1"): [began],
            ("h_bucket", "+Inf"): [began],
            ("s_count",): [began],
            ("s_sum",): [began],
            ("s", "0.5"): [0],
            ("e",): [],
        }
        assert batch.histograms.starts.tolist() == [began]
        assert [(row.count, row.zero_threshold) for row in as_rows(batch.histograms.values)] == [(2, ZERO_THRESHOLD)]


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({}, b"a_b"),
        ({"X_Mimir_OTLP_AddSuffixes": "true"}, b"a_b_seconds_total"),
        ({"X_Mimir_OTLP_AddSuffixes": "0"}, b"a_b"),
        ({"X_Mimir_OTLP_TranslationStrategy": "NoUTF8EscapingWithSuffixes"}, b"a.b_seconds_total"),
        ({"X_Mimir_OTLP_TranslationStrategy": "NoTranslation", "X_Mimir_OTLP_AddSuffixes": "true"}, b"a.b"),
    ],
)
async def test_a_request_chooses_its_names_where_it_may(headers, name):
    body = request(total("a.b", GOOD, unit="s")).SerializeToString()
    asking = OtlpEdge(max_bytes=1000, settings_for=lambda _: OtlpSettings(), translation_headers=True)
    limits = DistributorLimits(name_validation_scheme="utf8")
    for allowed, wanted in ((asking, name), (edge(), b"a_b")):
        async with PushTarget(limits, edge=allowed) as target:
            assert (await target.post(body, **headers)).status_code == 200
            assert dict(stored(target)[0][0])[b"__name__"] == wanted


@pytest.mark.parametrize("header", ["X_Mimir_OTLP_AddSuffixes", "X_Mimir_OTLP_TranslationStrategy"])
async def test_a_choice_of_names_that_is_none_is_a_400(header):
    asking = OtlpEdge(max_bytes=1000, settings_for=lambda _: OtlpSettings(), translation_headers=True)
    async with PushTarget(edge=asking) as target:
        answer = await target.post(OK_BODY, **{header: "maybe"})
        assert (answer.status_code, status_of(answer)[1]) == (400, 400)
        assert "maybe" in status_of(answer)[2]
        assert stored(target) == []


async def test_data_points_of_series_over_a_limit_are_refused_and_the_others_stored():
    body = request(
        gauge("g", *[point({"i": str(i)}, asInt=1) for i in range(3)]),
        histogram("h", point(bucketCounts=[1, 2], explicitBounds=[1], count=3, sum=1)),
    ).SerializeToString()
    limits = DistributorLimits(max_global_series_per_user=5)
    over = {"g": 2, "h": 3}

    def over_limits(partition, tenant, batch, settings):
        assert settings.max_series == 5
        sets = [batch.labels[a:b].tobytes() for a, b in itertools.pairwise(batch.label_offsets)]
        names = [dict(record_labels(labels))[b"__name__"].decode().partition("_")[0] for labels in sets]
        return np.array([-2 if names[:i].count(name) >= over[name] else 0 for i, name in enumerate(names)], np.int32)

    async with PushTarget(limits, edge=edge(), over_limits=over_limits) as target:
        partial = ExportMetricsServiceResponse.FromString((await target.post(body)).content).partial_success
        assert partial.rejected_data_points == 2
        assert "(err-mimir-max-series-per-user)" in partial.error_message
        assert len(stored(target)) == 5
        over |= {"g": 0, "h": 0}
        assert status_of(await target.post(body))[:2] == (400, 9)
        assert len(stored(target)) == 5


async def test_no_recorded_value_is_the_staleness_marker_bit_for_bit():
    stale = {"flags": STALE_FLAG}
    async with PushTarget(edge=edge()) as target:
        await target.post(request(gauge("g", point(asInt=1, **stale))).SerializeToString())
        ((_, _, [(_, value)]),) = target.stored()
        assert math.isnan(value)
        assert bits(value) == STALE_BITS


async def test_exemplars_of_a_request_in_json_have_their_ids_in_hex():
    trace, span = "5b8aa5a2d2c872e8321cf37308d69df2", "051581bf3cb55c13"
    exemplar = {
        "asDouble": 1,
        "timeUnixNano": str(NOW_MS * 1_000_000),
        "traceId": trace.upper(),
        "spanId": span,
        "filteredAttributes": attributes({"k": "v"}),
    }
    tree = {
        "resourceMetrics": [
            {
                "scopeMetrics": [
                    {"metrics": [total("t", point(asInt="5", exemplars=[exemplar]), temporality=CUMULATIVE)]}
                ]
            }
        ]
    }
    async with PushTarget(DistributorLimits(max_global_exemplars_per_user=10), edge=edge()) as target:
        assert (await target.post(json.dumps(tree).encode(), **JSON)).content == b"{}"
        ((_, batch),) = target.batches()
        (labels,) = batch.exemplars.label_bytes()
        assert labels == b"\x01k\x01v\x07span_id\x10" + span.encode() + b"\x08trace_id\x20" + trace.encode()
        assert batch.exemplars.timestamps.tolist() == [NOW_MS]


@pytest.mark.parametrize("strategy", ["NoTranslation", "NoUTF8EscapingWithSuffixes"])
async def test_a_metric_without_a_name_is_refused_where_names_stay_as_they_are(strategy):
    limits = DistributorLimits(name_validation_scheme="utf8")
    async with PushTarget(limits, edge=edge(strategy=strategy)) as target:
        body = request(
            gauge("", point({"a": "b"}, asInt=1)), gauge("ü x", point({"é.y": "z"}, asInt=1))
        ).SerializeToString()
        partial = ExportMetricsServiceResponse.FromString((await target.post(body)).content).partial_success
        assert partial.rejected_data_points == 1
        assert partial.error_message == "received series has no metric name (err-mimir-missing-metric-name)"
        assert stored(target) == [([(b"__name__", "ü x".encode()), ("é.y".encode(), b"z")], [(NOW_MS, 1.0)])]
