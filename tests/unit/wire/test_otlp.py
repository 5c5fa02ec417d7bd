"""OTLP to columns, where no other receiver is a judge."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.model.labels import decode_label_bytes
from mimir_ingest.wire import otlp
from mimir_ingest.wire.otlp_labels import OtlpSettings
from tests.support.otlp_corpus import NOW_MS, attributes, gauge, histogram, point, request, total

COUNTS = st.lists(st.sampled_from([0, 0, 1, 2, 1 << 40]), max_size=40)


def native_of(**fields):
    """Return the write of one exponential histogram."""
    body = request(histogram("e", point(**fields), kind="exponentialHistogram")).SerializeToString()
    return otlp.decode(body, OtlpSettings(), json=False)


@given(st.integers(-4, 20), st.integers(-100, 100), COUNTS)
def test_a_bucket_holds_what_lies_within_its_bounds_at_any_resolution(scale, offset, counts):
    held = native_of(scale=scale, positive={"offset": offset, "bucketCounts": counts}).batch.histograms.values
    expected: dict[int, float] = {}
    for i, count in enumerate(counts):
        # OTLP's bucket k lies in (base**k, base**(k + 1)], Prometheus's in (base**(k - 1), base**k].
        upper = (offset + i + 1) / 2.0**scale
        number = int(np.ceil(upper * 2.0 ** held.schema[0]))
        if count:
            expected[number] = expected.get(number, 0) + count
    assert held.schema[0] == min(scale, 8)
    found = zip(held.bucket_index.tolist(), held.bucket_count.tolist(), strict=True)
    assert {number: count for number, count in found if count} == expected


@pytest.mark.parametrize("offset", [(1 << 31) - 1, -(1 << 31)])
def test_a_bucket_number_that_does_not_fit_is_refused(offset):
    write = native_of(positive={"offset": offset, "bucketCounts": [0, 1]})
    if offset > 0:
        assert "No bucket has the number 2147483649" in write.data_points.error
        assert write.batch.series_count == 0
    else:
        assert write.batch.histograms.values.bucket_index.tolist() == [offset + 1, offset + 2]


@pytest.mark.parametrize(
    ("counts", "offset", "down", "listed"),
    [
        ([1, 0, 0, 1, 0, 0, 0, 1, 0], -3, 0, [-2, -1, 0, 1, 5, 6]),
        ([0, 0, 1, 0, 0, 0, 0], 0, 0, [1, 2, 3, 7]),
        ([0, 0, 0, 1], 0, 0, [4]),
        ([0, 0, 0], 5, 0, [6, 7, 8]),
        ([0, 0, 0, 0], 5, 0, [9]),
        ([0, 1, 0, 0, 1, 0, 0], 0, 1, [1, 2, 3, 4]),
        ([0, 1, 0, 0], (1 << 31) - 3, 0, [(1 << 31) - 2, (1 << 31) - 1]),
    ],
)
def test_the_last_bucket_is_listed_and_so_are_short_gaps(counts, offset, down, listed):
    held = native_of(scale=8 + down, negative={"offset": offset, "bucketCounts": counts}).batch.histograms.values
    assert held.bucket_index.tolist() == listed
    assert held.bucket_count.sum() == sum(counts)


def test_custom_buckets_are_listed_from_the_first_filled_one_to_the_last_of_all():
    def listed(counts):
        sent = point(bucketCounts=counts, explicitBounds=[float(i) for i in range(len(counts) - 1)])
        write = otlp.decode(
            request(histogram("h", sent)).SerializeToString(),
            OtlpSettings(convert_histograms_to_nhcb=True),
            json=False,
        )
        return write.batch.histograms.values.bucket_index.tolist()

    assert listed([0, 0, 1, 0, 2, 0]) == [2, 3, 4, 5]
    assert listed([0, 1, 0, 0, 0, 1, 0, 0, 0]) == [1, 5, 6, 7, 8]
    assert listed([0, 0, 0]) == []


def test_buckets_are_counted_as_they_are_sent():
    sides = {"positive": {"bucketCounts": [1, 0, 0, 1, 0, 0, 0, 1]}, "negative": {"bucketCounts": [2]}}
    body = request(histogram("e", point(count=5, **sides), kind="exponentialHistogram")).SerializeToString()
    write = otlp.decode(body, OtlpSettings(), json=False)
    # Of the gaps, that of two is filled, that of three is not.
    assert write.histogram_facts.buckets.tolist() == [6]
    assert write.histogram_count == 1


def test_an_exemplar_of_a_classic_histogram_sits_on_the_bucket_that_holds_its_value():
    exemplars = [{"asDouble": value, "timeUnixNano": NOW_MS * 1_000_000} for value in (9, 1, 0.5, 1.5, -1)]
    classic = point(count=5, bucketCounts=[3, 1, 1], explicitBounds=[1, 2], exemplars=exemplars)
    write = otlp.decode(request(histogram("h", classic)).SerializeToString(), OtlpSettings(), json=False)
    # Rows: count, le 1, le 2, +Inf.
    assert write.batch.exemplars.offsets.tolist() == [0, 0, 3, 4, 5]
    assert write.batch.exemplars.values.tolist() == [1, 0.5, -1, 1.5, 9]
    assert write.exemplar_count == 5


def test_rows_know_their_data_points():
    metrics = [gauge("g", point(asInt=1)), histogram("h", point(count=1, sum=1)), {"name": "x"}, total("t")]
    body = request(*metrics, resource={"service.name": "s", "k": "v"}).SerializeToString()
    points = otlp.decode(body, OtlpSettings(), json=False).data_points
    assert points.of_series.tolist() == [0, 1, 1, 1, 2, -1]
    assert (points.received, points.unconverted, points.unconverted_metrics) == (3, 0, 1)
    assert points.refused(np.array([False, True, True, False, False, True])) == 1
    assert points.take(np.array([4, 5])).of_series.tolist() == [2, -1]


def test_metadata_is_told_once_with_the_name_of_the_series():
    metrics = [total("a.b", unit="s"), total("a.b", unit="s"), total("a.b", unit="s", temporality=1)]
    body = request(*metrics).SerializeToString()
    settings = OtlpSettings(strategy="UnderscoreEscapingWithSuffixes", native_delta_ingestion=True)
    metadata = otlp.decode(body, settings, json=False).batch.metadata
    assert metadata.types.tolist() == [1, 0]
    assert metadata.text.tobytes() == b"a_b_seconds_totalseconds" * 2


def test_a_stale_histogram_has_its_marker():
    stale = point(flags=1, scale=1, count=3)
    body = request(histogram("e", stale, kind="exponentialHistogram")).SerializeToString()
    held = otlp.decode(body, OtlpSettings(), json=False).batch.histograms.values
    assert held.stale.tolist() == [True]


START_MS = NOW_MS - 10_000
STARTED = {"startTimeUnixNano": START_MS * 1_000_000}


def converted(metric, **settings):
    return otlp.decode(request(metric).SerializeToString(), OtlpSettings(**settings), json=False).batch


def starts(batch) -> list[int]:
    """Return when what the samples count began, floats first."""
    floats = [] if batch.starts is None else batch.starts.tolist()
    return floats if batch.histograms is None else floats + batch.histograms.starts.tolist()


CLASSIC = point(count=3, sum=4, bucketCounts=[1, 2], explicitBounds=[1], **STARTED)
EXPONENTIAL = point(count=1, sum=4, positive={"bucketCounts": [1]}, **STARTED)


@pytest.mark.parametrize(
    ("metric", "samples"),
    [
        (total("c", point(asInt=1, **STARTED)), 1),
        (histogram("h", CLASSIC), 4),
        (histogram("e", EXPONENTIAL, kind="exponentialHistogram"), 1),
    ],
)
def test_a_point_of_a_counter_says_when_its_count_began_if_the_tenant_asks_for_zeros(metric, samples):
    assert starts(converted(metric, created_timestamp_zero_ingestion=True)) == [START_MS] * samples
    without = converted(metric)
    assert without.starts is None
    assert without.histograms is None or without.histograms.starts is None


@pytest.mark.parametrize("start_ms", [0, NOW_MS, NOW_MS + 1, NOW_MS - 300_001])
def test_a_start_that_is_unknown_or_not_before_its_point_or_long_ago_is_none(start_ms):
    metric = total("c", point(asInt=1, startTimeUnixNano=start_ms * 1_000_000))
    assert converted(metric, created_timestamp_zero_ingestion=True).starts is None
    gauges = gauge("g", point(asInt=1, **STARTED))
    assert converted(gauges, created_timestamp_zero_ingestion=True).starts is None


@pytest.mark.parametrize(
    ("metric", "kind"),
    [
        (total("c", point(asInt=1, **STARTED), temporality=1), 1),
        (total("u", point(asInt=1, **STARTED), temporality=1, monotonic=False), 2),
        (histogram("h", CLASSIC, temporality=1), 3),
        (histogram("e", EXPONENTIAL, kind="exponentialHistogram", temporality=1), 3),
    ],
)
def test_deltas_are_marked_as_such_and_those_of_counters_say_when_they_began(metric, kind):
    batch = converted(metric, accumulate_deltas=True)
    assert batch.deltas.all()
    assert set(starts(batch)) == (set() if kind == 2 else {START_MS})
    assert batch.metadata.types.tolist() == [kind]
    assert batch.histograms is None or batch.histograms.values.reset_hint.tolist() == [0]
    raw = converted(metric, accumulate_deltas=True, native_delta_ingestion=True)
    assert raw.deltas is None
    assert raw.starts is None
    assert raw.metadata.types.tolist() == [0]


def labels_of(write) -> list[dict[str, str]]:
    ends = write.batch.label_offsets.tolist()
    return [dict(decode_label_bytes(write.batch.labels[a:b].tobytes())) for a, b in itertools.pairwise(ends)]


@pytest.mark.parametrize(
    ("attributes", "resource", "settings", "labels"),
    [
        # What the resource does not say, the point may.
        ({"instance": "a"}, {"service.name": "s", "service.instance.id": ""}, {}, {"instance": "a", "job": "s"}),
        ({"__name__": "mine"}, {}, {"label_name_preserve_multiple_underscores": False}, {}),
        ({}, {"a.b": "1", "a_b": "2"}, {"promote_resource_attributes": frozenset({"a.b", "a_b"})}, {"a_b": "2"}),
        ({"a": [b"", b"\x01"]}, {}, {}, {"a": '[null,"AQ=="]'}),
    ],
)  # fmt: skip
def test_labels_that_only_random_requests_had_found(attributes, resource, settings, labels):
    message = request(gauge("g"), resource=resource)
    point_ = message.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0]
    for key, value in attributes.items():
        pair = point_.attributes.add(key=key)
        if isinstance(value, list):
            for item in value:
                pair.value.array_value.values.add(bytes_value=item)
        else:
            pair.value.string_value = value
    found = labels_of(otlp.decode(message.SerializeToString(), OtlpSettings(**settings), json=False))
    assert found == [{"__name__": "g", **labels}]


def test_an_empty_attribute_of_an_exemplar_takes_nothing_away():
    exemplar = {
        "asDouble": 1,
        "traceId": "AAAAAAAAAAAAAAAAAAAAAQ==",
        "filteredAttributes": attributes({"trace_id": "", "k": "v"}),
    }
    body = request(total("t", point(asInt=1, exemplars=[exemplar]))).SerializeToString()
    held = otlp.decode(body, OtlpSettings(), json=False).batch.exemplars
    assert decode_label_bytes(held.label_bytes()[0]) == [("k", "v"), ("trace_id", "0" * 31 + "1")]


@pytest.mark.parametrize(
    ("start_ns", "delta_start", "cumulative_start"),
    [(NOW_MS * 1_000_000, NOW_MS - 1, 0), (NOW_MS * 1_000_000 + 400_000, 0, 0), (0, 0, 0)],
)
def test_a_delta_of_less_than_a_millisecond_has_a_place_for_its_start(start_ns, delta_start, cumulative_start):
    at = {"timeUnixNano": NOW_MS * 1_000_000 + 400_000, "startTimeUnixNano": start_ns}
    settings = {"accumulate_deltas": True, "created_timestamp_zero_ingestion": True}
    for temporality, wanted in ((1, delta_start), (2, cumulative_start)):
        batch = converted(total("c", {"asInt": 1, **at}, temporality=temporality), **settings)
        assert starts(batch) == ([wanted] if wanted else [])
