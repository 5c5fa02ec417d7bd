"""OTLP's JSON: what protobuf's own library writes is read as it was, and the rest of the rules."""

from __future__ import annotations

import base64
import json

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from mimir_ingest.errors import InvalidRequest
from mimir_ingest.wire.otlp_json import MAX_DEPTH, parse_json
from tests.support import otlp_corpus as corpus
from tests.support.otlp_random import RandomOtlp

TIME = '"timeUnixNano":"1700000000000000000"'
TRACE, SPAN = "5B8EFFF798038103D269B633813FC60C", "eee19b7ec3c1b174"


def with_hex_ids(tree: object) -> object:
    """Return protobuf's JSON as OTLP's: ids in hex instead of base64."""
    if isinstance(tree, list):
        return [with_hex_ids(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ids = {"traceId", "spanId", "trace_id", "span_id"} & tree.keys()
    return {key: base64.b64decode(v).hex() if key in ids else with_hex_ids(v) for key, v in tree.items()}


@pytest.mark.parametrize("schema_names", [False, True])
@pytest.mark.parametrize("enum_numbers", [False, True])
def test_every_request_is_read_as_the_library_wrote_it(schema_names, enum_numbers):
    written = [*corpus.labels(), *corpus.types(), *corpus.unusable(), *RandomOtlp(11).requests(40)]
    for request in written:
        tree = json_format.MessageToDict(
            request, preserving_proto_field_name=schema_names, use_integers_for_enums=enum_numbers
        )
        found = parse_json(json.dumps(with_hex_ids(tree)).encode())
        assert found.SerializeToString(deterministic=True) == request.SerializeToString(deterministic=True)


def parsed(point: str, kind: str = "gauge", more: str = "") -> ExportMetricsServiceRequest:
    body = f'{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"{kind}":{{{more}"dataPoints":[{point}]}}}}]}}]}}]}}'
    return parse_json(body.encode())


def point_of(text: str, kind: str = "gauge"):
    metric = parsed(f"{{{TIME},{text}}}", kind).resource_metrics[0].scope_metrics[0].metrics[0]
    return getattr(metric, metric.WhichOneof("data")).data_points[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"asInt":"5"', 5),
        ('"asInt":-5', -5),
        ('"as_int":"9223372036854775807"', (1 << 63) - 1),
        ('"asInt":5.0', 5),
        ('"asInt":"5e2"', 500),
        ('"asDouble":5', 5.0),
        ('"asDouble":"-2.5"', -2.5),
        ('"asDouble":"Infinity"', float("inf")),
        ('"asDouble":"-Infinity"', float("-inf")),
        ('"asInt":1,"asDouble":2', 2.0),
        ('"asInt":null', None),
        ('"unknown":{"traceId":"no hex",  "a":[1,null,{}]},"asInt":1', 1),
    ],
)
def test_numbers_are_numbers_or_text(text, value):
    point = point_of(text)
    kind = point.WhichOneof("value")
    assert (getattr(point, kind) if kind else None) == value
    assert point.time_unix_nano == 1_700_000_000_000_000_000


def test_nan_is_text():
    assert str(point_of('"asDouble":"NaN"').as_double) == "nan"


@pytest.mark.parametrize(
    ("value", "field", "wanted"),
    [
        ('{"bytesValue":"AQID"}', "bytes_value", b"\x01\x02\x03"),
        ('{"bytesValue":"_-8"}', "bytes_value", b"\xff\xef"),
        ('{"boolValue":true}', "bool_value", True),
        ('{"intValue":"7"}', "int_value", 7),
        ('{"string_value":"\\ud83d\\ude00"}', "string_value", "\U0001f600"),
        ('{"stringValue":"\\\\ud800 \\ud83d!"}', "string_value", "\\ud800 \ufffd!"),
        ('{"stringValue":null}', None, None),
        ("{}", None, None),
        ("null", None, None),
    ],
)
def test_values_of_attributes(value, field, wanted):
    (pair,) = point_of(f'"attributes":[{{"key":"k","value":{value}}}]').attributes
    assert pair.value.WhichOneof("value") == field
    assert field is None or getattr(pair.value, field) == wanted


def test_null_in_an_array_is_an_empty_value():
    (pair,) = point_of('"attributes":[{"key":"k","value":{"arrayValue":{"values":[null,{"intValue":1}]}}}]').attributes
    assert [item.WhichOneof("value") for item in pair.value.array_value.values] == [None, "int_value"]


def test_ids_are_hex_of_either_case():
    (exemplar,) = point_of(f'"exemplars":[{{"traceId":"{TRACE}","span_id":"{SPAN}","asInt":1}}]').exemplars
    assert (exemplar.trace_id.hex(), exemplar.span_id.hex()) == (TRACE.lower(), SPAN)
    (exemplar,) = point_of('"exemplars":[{"traceId":"","spanId":null}]').exemplars
    assert (exemplar.trace_id, exemplar.span_id) == (b"", b"")


@pytest.mark.parametrize("body", [b"{}", b" {}\n", b"null", b'{"resourceMetrics":null}', b'{"resourceSpans":[{}]}'])
def test_a_document_without_metrics_is_an_empty_request(body):
    assert parse_json(body) == ExportMetricsServiceRequest()


@pytest.mark.parametrize("body", [b"", b" ", b"[]", b"1", b'"x"', b"{} x", b"\xef\xbb\xbf{}", b'{"a":NaN}', b"\xff"])
def test_what_is_no_document_is_refused(body):
    with pytest.raises(InvalidRequest, match="the body is no ExportMetricsServiceRequest: "):
        parse_json(body)


@pytest.mark.parametrize(
    "text",
    [
        *('"asInt":"x"', '"asInt":5.5', '"asInt":true', '"asInt":""', '"asInt":"9223372036854775808"', '"asInt":[]'),
        *('"asDouble":"x"', '"asDouble":false', '"asDouble":{}', '"timeUnixNano":-1', '"flags":4294967296'),
        *('"attributes":{}', '"attributes":[1]', '"attributes":[{"key":5}]', '"attributes":[{"key":"k","value":"v"}]'),
        *('"asInt":" 5"', '"asInt":"1_0"', '"asInt":"\u0665"', '"asInt":"1e400"', '"asInt":"Infinity"'),
        *('"asDouble":" 5"', '"asDouble":"1_0"', '"asDouble":"\u0665"', '"asDouble":"1e400"', '"asDouble":"-1e309"'),
        '"attributes":[{"key":"k","value":{"boolValue":"true"}}]',
        '"attributes":[{"key":"k","value":{"boolValue":0}}]',
        '"exemplars":[{"spanId":"eee19b7e c3c1b174"}]',
        '"attributes":[{"key":"k","value":{"bytesValue":"!!!!"}}]',
        '"attributes":[{"key":"k","value":{"bytesValue":5}}]',
        *('"exemplars":[{"traceId":"5B8E"}]', '"exemplars":[{"spanId":"W47/95gDgQM="}]', '"exemplars":[{"spanId":5}]'),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_refused(text):
    with pytest.raises(InvalidRequest, match="the body is no ExportMetricsServiceRequest: "):
        point_of(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            '"bucketCounts":["1"," 2"]',
            '"bucketCounts":["1_0"]',
            '"bucketCounts":[1,"\u0665"]',
            '"bucketCounts":["1",""]',
        ),
        *('"explicitBounds":["1"," 2"]', '"explicitBounds":[1,"1e400"]', '"explicitBounds":["1_0"]'),
    ],
)
def test_a_number_of_an_array_is_held_to_the_same(text):
    with pytest.raises(InvalidRequest, match="the body is no ExportMetricsServiceRequest: "):
        point_of(text, "histogram")


def test_numbers_of_an_array_are_numbers_or_text():
    made = point_of('"bucketCounts":["1",2,"3e2"],"explicitBounds":["-2.5",3,"Infinity"]', "histogram")
    assert list(made.bucket_counts) == [1, 2, 300]
    assert list(made.explicit_bounds) == [-2.5, 3.0, float("inf")]


@pytest.mark.parametrize(
    ("temporality", "number"), [("2", 2), ("9", 9), ('"AGGREGATION_TEMPORALITY_DELTA"', 1), ("null", 0)]
)
def test_enums_are_numbers_or_names(temporality, number):
    request = parsed("{}", "sum", f'"aggregationTemporality":{temporality},')
    assert request.resource_metrics[0].scope_metrics[0].metrics[0].sum.aggregation_temporality == number
    for wrong in ('"2"', '"DELTA"', "2.5"):
        with pytest.raises(InvalidRequest):
            parsed("{}", "sum", f'"aggregationTemporality":{wrong},')


def test_values_within_values_have_an_end():
    def nested(depth: int) -> str:
        return '{"arrayValue":{"values":[' * depth + "{}" + "]}}" * depth

    assert point_of(f'"attributes":[{{"key":"k","value":{nested(MAX_DEPTH // 2 - 5)}}}]')
    for depth in (MAX_DEPTH // 2 + 1, 5000):
        with pytest.raises(InvalidRequest):
            point_of(f'"attributes":[{{"key":"k","value":{nested(depth)}}}]')
