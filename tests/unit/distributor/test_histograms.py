"""Rules of native histograms over HTTP: status, text, counters, and what reached the log."""

import math

import cramjam
import pytest

from mimir_ingest.distributor.limits import DistributorLimits
from tests.support.histograms import Row, bits, put_histogram
from tests.support.protobuf_schema import WriteRequest
from tests.support.push_target import NOW_MS, PushTarget
from tests.support.random_batches import histograms_of

GOOD = Row(3, 0, False, 0.0, 1.0, 6.0, bits(7.5), ((-1, 2.0),), ((0, 1.0), (4, 2.0)))
CUSTOM = Row(-53, 0, False, 0.0, 0.0, 3.0, bits(7.5), (), ((0, 1.0), (2, 2.0)), (0.5, 2.0))
WIDE = Row(8, 0, False, 0.0, 0.0, 20.0, 0, (), tuple((i, 1.0) for i in range(-10, 10)))
SERIES = 'latency{pod="a"}'
AT = "timestamp=2023-11-14T22:13:20Z, series=[{__name__ latency} {pod a}]"
TEN = DistributorLimits(max_native_histogram_buckets=10)
NO_REDUCTION = DistributorLimits(max_native_histogram_buckets=10, reduce_native_histogram_over_max_buckets=False)
TWO = DistributorLimits(max_native_histogram_buckets=1)


def request(*samples, edit=None) -> bytes:
    """A body with one series of (timestamp, Row), and a good one."""
    body = WriteRequest()
    for name, rows in ((b"latency", samples), (b"other", [(NOW_MS, GOOD)])):
        series = body.timeseries.add()
        series.labels.add(name=b"__name__", value=name)
        series.labels.add(name=b"pod", value=b"a")
        for timestamp, row in rows:
            put_histogram(series.histograms.add(), timestamp, row)
    if edit:
        edit(body.timeseries[0].histograms[-1])
    return bytes(cramjam.snappy.compress_raw(body.SerializeToString()))


def stored(target):
    """Rows in the log by metric name."""
    found = {}
    for _, batch in target.batches():
        for i, rows in enumerate(histograms_of(batch.histograms)):
            text = batch.labels[batch.label_offsets[i] : batch.label_offsets[i + 1]].tobytes()
            found["latency" if b"latency" in text else "other"] = rows
    return found


def negative_offset(message):
    message.positive_spans[1].offset = -3


def short_span(message):
    message.positive_spans[1].length = 5


RULES = {
    "too far in the future": (
        DistributorLimits(),
        request((NOW_MS + 600_001, GOOD)),
        "too_far_in_future",
        "received a sample whose timestamp is too far in the future, timestamp: 1700000600001 series: 'latency' "
        "(err-mimir-too-far-in-future). To adjust the related per-tenant limit, configure "
        "-validation.create-grace-period, or contact your service administrator.",
    ),
    "too far in the past": (
        DistributorLimits(past_grace_period_ms=1000),
        request((NOW_MS - 1001, GOOD)),
        "too_far_in_past",
        "received a sample whose timestamp is too far in the past, timestamp: 1699999998999 series: 'latency' "
        "(err-mimir-too-far-in-past). To adjust the related per-tenant limit, configure "
        "-validation.past-grace-period, or contact your service administrator.",
    ),
    "unknown schema": (
        DistributorLimits(),
        request((NOW_MS, GOOD._replace(schema=1000))),
        "invalid_native_histogram_schema",
        "received a native histogram sample with an invalid schema: 1000 (err-mimir-invalid-native-histogram-schema)",
    ),
    "too many buckets": (
        NO_REDUCTION,
        request((NOW_MS, WIDE)),
        "max_native_histogram_buckets",
        f"received a native histogram sample with too many buckets, timestamp: {NOW_MS} series: {SERIES}, "
        "buckets: 20, limit: 10 (err-mimir-max-native-histogram-buckets)",
    ),
    "too many custom buckets": (
        TWO,
        request((NOW_MS, CUSTOM)),
        "native_histogram_custom_buckets_not_reducible",
        f"received a native histogram sample with more custom buckets than the limit, timestamp: {NOW_MS} "
        f"series: {SERIES}, buckets: 2, limit: 1 (err-mimir-native-histogram-custom-buckets-not-reducible)",
    ),
    "buckets that cannot be fewer": (
        TWO,
        request((NOW_MS, GOOD)),
        "not_reducible_native_histogram",
        f"received a native histogram sample with too many buckets and cannot reduce, timestamp: {NOW_MS} "
        f"series: {SERIES}, buckets: 3, limit: 1 (err-mimir-not-reducible-native-histogram)",
    ),
    "span with a negative offset": (
        DistributorLimits(),
        request((NOW_MS, GOOD), edit=negative_offset),
        "invalid-native-histogram",
        f"err: positive side: span number 2 with offset -3: histogram has a span whose offset is negative. {AT} "
        "(err-mimir-native-histogram-span-negative-offset)",
    ),
    "spans without buckets": (
        DistributorLimits(),
        request((NOW_MS, GOOD), edit=short_span),
        "invalid-native-histogram",
        "err: positive side: spans need 6 buckets, have 2 buckets: histogram spans specify different number of buckets "
        f"than provided. {AT} (err-mimir-native-histogram-spans-buckets-mismatch)",
    ),
    "count that does not match": (
        DistributorLimits(),
        request((NOW_MS, GOOD._replace(count=7.0))),
        "invalid-native-histogram",
        "err: 6 observations found in buckets, but the Count field is 7: histogram's observation count should equal "
        f"the number of observations found in the buckets (in absence of NaN). {AT} "
        "(err-mimir-native-histogram-count-mismatch)",
    ),
    "count that is not big enough": (
        DistributorLimits(),
        request((NOW_MS, GOOD._replace(count=5.0, sum_bits=bits(math.nan)))),
        "invalid-native-histogram",
        "err: 6 observations found in buckets, but the Count field is 5: histogram's observation count should be at "
        f"least the number of observations found in the buckets. {AT} "
        "(err-mimir-native-histogram-count-not-big-enough)",
    ),
    "negative bucket": (
        DistributorLimits(),
        request((NOW_MS, GOOD._replace(positive=((0, 1.0), (1, -1.0)), count=3.0))),
        "invalid-native-histogram",
        f"err: histogram has a bucket whose observation count is negative. {AT} "
        "(err-mimir-native-histogram-negative-bucket-count)",
    ),
    "bounds out of order": (
        DistributorLimits(),
        request((NOW_MS, CUSTOM._replace(custom=(2.0, 0.5)))),
        "invalid-native-histogram",
        f"err: custom buckets: histogram custom bounds must be in strictly increasing order. {AT} "
        "(err-mimir-native-histogram-custom-buckets-invalid)",
    ),
    "infinite bound": (
        DistributorLimits(),
        request((NOW_MS, CUSTOM._replace(custom=(0.5, math.inf)))),
        "invalid-native-histogram",
        "err: custom buckets: last +Inf bound must not be explicitly defined: histogram custom bounds must be finite. "
        f"{AT} (err-mimir-native-histogram-custom-buckets-infinite)",
    ),
    "too few bounds": (
        DistributorLimits(),
        request((NOW_MS, CUSTOM._replace(custom=(0.5,)))),
        "invalid-native-histogram",
        f"err: custom buckets: histogram custom bounds are too few. {AT} "
        "(err-mimir-native-histogram-custom-buckets-mismatch)",
    ),
}


@pytest.mark.parametrize("name", RULES)
async def test_a_histogram_that_breaks_a_rule_takes_its_series_with_it_and_the_rest_is_stored(name):
    limits, body, reason, text = RULES[name]
    # The other series has too many buckets for the smallest limit, too: only the first error is told.
    async with PushTarget(limits) as target:
        answer = await target.post(body)
        assert (answer.status_code, answer.text) == (400, text + "\n")
        kept = {} if limits is TWO else {"other": [(NOW_MS, GOOD)]}
        assert stored(target) == kept
        discarded = target.counters("cortex_discarded_samples_total")
        assert discarded[f"cortex_discarded_samples_total{{reason={reason}}}"] >= 1


async def test_histograms_are_stored_and_counted_beside_floats():
    async with PushTarget() as target:
        answer = await target.post(request((NOW_MS, CUSTOM), (NOW_MS + 1, GOOD._replace(is_float=True))))
        assert answer.status_code == 200, answer.text
        rows = [(NOW_MS, CUSTOM), (NOW_MS + 1, GOOD._replace(is_float=True))]
        assert stored(target) == {"latency": rows, "other": [(NOW_MS, GOOD)]}
        counters = target.counters("cortex_distributor_received", "cortex_distributor_samples_in")
        assert counters == {
            "cortex_distributor_received_requests_total": 1,
            "cortex_distributor_received_samples_total": 3,
            "cortex_distributor_received_native_histogram_samples_total": 3,
            "cortex_distributor_received_native_histogram_buckets_total": 8,
            "cortex_distributor_samples_in_total": 3,
        }


async def test_resolution_is_lowered_until_buckets_are_below_the_limit():
    async with PushTarget(TEN) as target:
        answer = await target.post(request((NOW_MS, GOOD), (NOW_MS + 1, WIDE)))
        assert answer.status_code == 200
        (first, (_, lower)) = stored(target)["latency"]
        assert first == (NOW_MS, GOOD)
        assert lower.schema == 6
        assert lower.positive == ((-2, 3.0), (-1, 4.0), (0, 4.0), (1, 4.0), (2, 4.0), (3, 1.0))


async def test_a_tenant_that_stores_no_histograms_drops_the_valid_ones_and_says_so_in_a_counter():
    async with PushTarget(DistributorLimits(native_histograms_ingestion_enabled=False)) as target:
        answer = await target.post(request((NOW_MS, GOOD)))
        assert answer.status_code == 200
        assert list(target.batches()) == []
        dropped = target.counters("cortex_distributor_dropped")
        assert dropped == {"cortex_distributor_dropped_native_histograms_total": 2}
        assert (await target.post(request((NOW_MS, GOOD._replace(count=1.0))))).status_code == 400


async def test_the_first_histogram_of_a_time_stays():
    async with PushTarget() as target:
        other = GOOD._replace(sum_bits=bits(1.0))
        answer = await target.post(request((NOW_MS + 5, GOOD), (NOW_MS, GOOD), (NOW_MS, other)))
        assert answer.status_code == 200
        assert stored(target)["latency"] == [(NOW_MS + 5, GOOD), (NOW_MS, GOOD)]
        reason = "cortex_discarded_samples_total{reason=sample_duplicate_timestamp}"
        assert target.counters("cortex_discarded")[reason] == 1


async def test_histograms_count_for_the_rate_limit():
    limits = DistributorLimits(ingestion_rate=1, ingestion_burst_size=2)
    async with PushTarget(limits) as target:
        answer = await target.post(request((NOW_MS, GOOD), (NOW_MS + 1, GOOD)))
        assert answer.status_code == 429
        assert "err-mimir-tenant-max-ingestion-rate" in answer.text
        assert target.counters("cortex_discarded")["cortex_discarded_samples_total{reason=rate_limited}"] == 3
