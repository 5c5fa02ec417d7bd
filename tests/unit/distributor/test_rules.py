"""Every validation rule over HTTP: status, text, counters, and what reached the log."""

import hashlib

import cramjam
import pytest
import xxhash

from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.service import DistributorOptions
from mimir_ingest.distributor.validate import shorten_value
from mimir_ingest.model.labels import encode_label_bytes
from tests.support.push_target import NOW_MS, PushTarget, named, write_request

GOOD = named(b"up", (b"job", b"node"))
LATE = 600_000


def tenant_limit(flag):
    return f"To adjust the related per-tenant limit, configure -{flag}, or contact your service administrator."


def many(count):
    return [(b"l%02d" % i, b"v") for i in range(count - 1)]


SMALL = DistributorLimits(
    max_label_names_per_series=3, max_label_names_per_info_series=4, max_label_name_length=8, max_label_value_length=6
)
UTF8 = DistributorLimits(name_validation_scheme="utf8")
PAST = DistributorLimits(past_grace_period_ms=1000, out_of_order_time_window_ms=500)

RULES = {
    "no metric name": (
        DistributorLimits(),
        ([(b"job", b"node")], [(NOW_MS, 1)]),
        "missing_metric_name",
        "received series has no metric name (err-mimir-missing-metric-name)",
    ),
    "an empty metric name is none": (
        DistributorLimits(),
        ([(b"__name__", b""), (b"job", b"node")], [(NOW_MS, 1)]),
        "missing_metric_name",
        "received series has no metric name (err-mimir-missing-metric-name)",
    ),
    "metric name with a dash": (
        DistributorLimits(),
        named(b"a-b"),
        "metric_name_invalid",
        "received a series with invalid metric name: 'a-b' (err-mimir-metric-name-invalid)",
    ),
    "metric name with a digit in front": (
        DistributorLimits(),
        named(b"9lives"),
        "metric_name_invalid",
        "received a series with invalid metric name: '9lives' (err-mimir-metric-name-invalid)",
    ),
    "metric name beyond ASCII": (
        DistributorLimits(),
        named("caf\u00e9_total".encode()),
        "metric_name_invalid",
        "received a series with invalid metric name: 'caf_total (non-ascii characters removed)' "
        "(err-mimir-metric-name-invalid)",
    ),
    "long metric name": (
        DistributorLimits(),
        named(b"-" * 300),
        "metric_name_invalid",
        f"received a series with invalid metric name: '{'-' * 200}' (err-mimir-metric-name-invalid)",
    ),
    "metric name that is not UTF-8": (
        UTF8,
        named(b"a\xff"),
        "metric_name_invalid",
        "received a series with invalid metric name: 'a (non-ascii characters removed)' "
        "(err-mimir-metric-name-invalid)",
    ),
    "too many labels": (
        SMALL,
        named(b"up", *many(4)),
        "max_label_names_per_series",
        "received a series whose number of labels exceeds the limit (actual: 4, limit: 3) series: "
        '\'up{l00="v", l01="v", l02="v"}\' (err-mimir-max-label-names-per-series). '
        + tenant_limit("validation.max-label-names-per-series"),
    ),
    "far too many labels": (
        DistributorLimits(),
        named(b"up", *many(31)),
        "max_label_names_per_series",
        "received a series whose number of labels exceeds the limit (actual: 31, limit: 30) series: '"
        + ("up{" + ", ".join(f'l{i:02d}="v"' for i in range(30)))[:200]
        + "…' (err-mimir-max-label-names-per-series). "
        + tenant_limit("validation.max-label-names-per-series"),
    ),
    "too many labels of an info metric": (
        SMALL,
        named(b"a_info", *many(5)),
        "max_label_names_per_info_series",
        "received an info series whose number of labels exceeds the limit (actual: 5, limit: 4) series: "
        '\'a_info{l00="v", l01="v", l02="v", l03="v"}\' (err-mimir-max-label-names-per-info-series). '
        + tenant_limit("validation.max-label-names-per-info-series"),
    ),
    "label name with a dot": (
        DistributorLimits(),
        named(b"up", (b"a.b", b"v")),
        "label_invalid",
        "received a series with an invalid label: 'a.b' series: 'up{a.b=\"v\"}' (err-mimir-label-invalid)",
    ),
    "label name that is empty": (
        UTF8,
        named(b"up", (b"", b"v")),
        "label_invalid",
        "received a series with an invalid label: '' series: 'up{=\"v\"}' (err-mimir-label-invalid)",
    ),
    "label name that is not UTF-8": (
        UTF8,
        named(b"up", (b"a\xff\xfe", b"v")),
        "label_invalid",
        "received a series with an invalid label: 'a�' series: 'up{a�=\"v\"}' (err-mimir-label-invalid)",
    ),
    "label name too long": (
        SMALL,
        named(b"up", (b"a23456789", b"v")),
        "label_name_too_long",
        "received a series whose label name length exceeds the limit, label: 'a23456789' series: 'up{a23456789=\"v\"}' "
        "(err-mimir-label-name-too-long). " + tenant_limit("validation.max-length-label-name"),
    ),
    "label value that is not UTF-8": (
        DistributorLimits(),
        named(b"up", (b"a", b"x\xff\xfey"), (b"b", b"ok")),
        "label_value_invalid",
        "received a series with invalid value in label 'a': 'x�y' metric: 'up' (err-mimir-label-value-invalid)",
    ),
    "label value too long": (
        DistributorLimits(max_label_value_length=250),
        named(b"up", (b"a", b"x" * 251)),
        "label_value_too_long",
        f"received a series whose label value length of 251 exceeds the limit of 250, label: 'a', value: '{'x' * 200}' "
        f"(truncated) series: 'up{{a=\"{'x' * 194}' (err-mimir-label-value-too-long). "
        + tenant_limit("validation.max-length-label-value"),
    ),
    "an over-long value before an invalid name": (
        DistributorLimits(max_label_value_length=5),
        named(b"up", (b"a", b"123456"), (b"b-", b"v")),
        "label_value_too_long",
        "received a series whose label value length of 6 exceeds the limit of 5, label: 'a', value: '123456' "
        '(truncated) series: \'up{a="123456", b-="v"}\' (err-mimir-label-value-too-long). '
        + tenant_limit("validation.max-length-label-value"),
    ),
    "duplicate label": (
        DistributorLimits(),
        named(b"up", (b"a", b"1"), (b"b", b"2"), (b"a", b"3")),
        "duplicate_label_names",
        'received a series with duplicate label name, label: \'a\' series: \'up{a="1", a="3", b="2"}\' '
        "(err-mimir-duplicate-label-names)",
    ),
    "too far in the future": (
        DistributorLimits(),
        named(b"up", at=[NOW_MS, NOW_MS + LATE + 1, NOW_MS + LATE + 2]),
        "too_far_in_future",
        f"received a sample whose timestamp is too far in the future, timestamp: {NOW_MS + LATE + 1} series: 'up' "
        "(err-mimir-too-far-in-future). " + tenant_limit("validation.create-grace-period"),
    ),
    "too far in the past": (
        PAST,
        named(b"up", at=[NOW_MS, NOW_MS - 1501]),
        "too_far_in_past",
        f"received a sample whose timestamp is too far in the past, timestamp: {NOW_MS - 1501} series: 'up' "
        "(err-mimir-too-far-in-past). " + tenant_limit("validation.past-grace-period"),
    ),
}


@pytest.mark.parametrize("case", RULES)
async def test_a_series_that_breaks_a_rule_costs_only_itself(case):
    limits, bad, reason, text = RULES[case]
    async with PushTarget(limits) as target:
        response = await target.push(GOOD, bad, named(b"down"))
        assert (response.status_code, response.text) == (400, text + "\n")
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "retry-after" not in response.headers
        assert target.stored() == [(0, *GOOD), (0, *named(b"down"))]
        assert target.counters("cortex_discarded") == {
            f"cortex_discarded_samples_total{{reason={reason}}}": len(bad[1])
        }


ACCEPTED = {
    "utf8 names under that scheme": (UTF8, named("caf\u00e9.total".encode(), ("l\u00e4bel".encode(), b"v"))),
    "colons in a metric name": (DistributorLimits(), named(b"job:up:sum")),
    "as many labels as allowed": (DistributorLimits(), named(b"up", *many(30))),
    "an info metric over the general limit": (DistributorLimits(), named(b"target_info", *many(80))),
    "values as long as allowed": (DistributorLimits(), named(b"up", (b"a", b"x" * 2048))),
    "names as long as allowed": (DistributorLimits(), named(b"up", (b"a" * 1024, b"x"))),
    "as far in the future as allowed": (DistributorLimits(), named(b"up", at=[NOW_MS + LATE])),
    "any time in the past": (DistributorLimits(), named(b"up", at=[-(2**63)])),
    "as far in the past as allowed": (PAST, named(b"up", at=[NOW_MS - 1500])),
    "values beyond ASCII": (DistributorLimits(), named(b"up", (b"a", "\u20ac \U0001f600".encode()))),
}


@pytest.mark.parametrize("case", ACCEPTED)
async def test_what_is_within_the_limits_is_stored(case):
    limits, series = ACCEPTED[case]
    async with PushTarget(limits) as target:
        response = await target.push(series)
        assert (response.status_code, response.content) == (200, b"")
        assert target.stored() == [(0, list(series[0]), series[1])]
        assert target.counters("cortex_discarded") == {}


async def test_the_first_broken_rule_of_the_request_is_told_and_all_are_counted():
    async with PushTarget() as target:
        response = await target.push(
            named(b"a-b", at=[1, 2]), ([(b"x", b"y")], []), named(b"up", (b"a.b", b"c")), named(b"c-d")
        )
        assert "invalid metric name: 'a-b'" in response.text
        assert target.counters("cortex_discarded") == {
            "cortex_discarded_samples_total{reason=metric_name_invalid}": 3,
            "cortex_discarded_samples_total{reason=missing_metric_name}": 1,
            "cortex_discarded_samples_total{reason=label_invalid}": 1,
        }
        assert target.stored() == []
        assert target.log.records == {0: []}


async def test_series_without_labels_or_samples_vanish_silently():
    async with PushTarget() as target:
        response = await target.push(([], [(NOW_MS, 1)]), ([(b"a", b"")], [(NOW_MS, 1)]), named(b"up", at=[]), GOOD)
        assert response.status_code == 200
        assert target.stored() == [(0, *GOOD)]
        assert (await target.push(([], [(NOW_MS, 1)]))).status_code == 200
        assert len(target.log.records[0]) == 1
        assert target.counters("cortex_discarded") == {}


async def test_the_first_sample_of_a_timestamp_is_kept_and_the_others_counted():
    samples = [(5, 1.0), (3, 2.0), (5, 3.0), (4, 4.0), (3, 5.0)]
    async with PushTarget() as target:
        labels = [(b"__name__", b"up")]
        response = await target.push((labels, samples), (labels, [(5, 9.0)]), GOOD)
        assert response.status_code == 200
        assert target.stored() == [
            (0, labels, [(5, 1.0), (3, 2.0), (4, 4.0)]),
            (0, labels, [(5, 9.0)]),
            (0, *GOOD),
        ]
        assert target.counters("cortex_discarded") == {
            "cortex_discarded_samples_total{reason=sample_duplicate_timestamp}": 2
        }


@pytest.mark.parametrize("strategy", ["truncate", "drop"])
async def test_over_long_values_are_shortened_with_their_hash(strategy):
    limits = DistributorLimits(max_label_value_length=80, label_value_length_over_limit_strategy=strategy)
    value = b"y" * 81
    mark = f"(hash:{hashlib.blake2b(value, digest_size=32).hexdigest()})".encode()
    shortened = value[:9] + mark if strategy == "truncate" else mark
    async with PushTarget(limits) as target:
        response = await target.push(GOOD, named(b"up", (b"a", value), (b"b", b"z" * 80)), named(b"last"))
        assert response.status_code == 200
        expected = [(b"__name__", b"up"), (b"a", shortened), (b"b", b"z" * 80)]
        assert [labels for _, labels, _ in target.stored()] == [list(GOOD[0]), expected, [(b"__name__", b"last")]]
        bad = await target.push(named(b"up", (b"a", value), (b"b-", b"v")))
        assert "invalid label: 'b-'" in bad.text
        assert shortened.decode() in bad.text
        key = encode_label_bytes({n.decode(): v.decode() for n, v in expected})
        assert int(target.batches()[0][1].hashes[1]) == xxhash.xxh64_intdigest(key)


METADATA = {
    "no family": (
        (1, b"", b"h", b"u"),
        "missing_metric_name",
        "received a metric metadata with no metric name (err-mimir-metadata-missing-metric-name)",
    ),
    "family too long": (
        (1, b"f" * 1025, b"h", b"u"),
        "metric_name_too_long",
        f"received a metric metadata whose metric name length exceeds the limit, metric name: '{'f' * 200}' "
        "(err-mimir-metric-name-too-long). " + tenant_limit("validation.max-metadata-length"),
    ),
    "unit too long": (
        (1, b"fam", b"h", b"u" * 1025),
        "unit_too_long",
        f"received a metric metadata whose unit name length exceeds the limit, unit: '{'u' * 200}' metric name: 'fam' "
        "(err-mimir-unit-too-long). " + tenant_limit("validation.max-metadata-length"),
    ),
}


@pytest.mark.parametrize("case", METADATA)
async def test_a_metadata_item_that_breaks_a_rule_costs_only_itself(case):
    bad, reason, text = METADATA[case]
    good = (2, b"fam", b"help", b"bytes")
    async with PushTarget() as target:
        response = await target.push(GOOD, metadata=[good, bad, good])
        assert (response.status_code, response.text) == (400, text + "\n")
        assert target.stored_metadata() == [(0, good), (0, good)]
        assert target.stored() == [(0, *GOOD)]
        assert target.counters("cortex_discarded") == {f"cortex_discarded_metadata_total{{reason={reason}}}": 1}
        assert target.counters("cortex_distributor_received_metadata") == {
            "cortex_distributor_received_metadata_total": 2
        }


async def test_an_error_of_a_series_is_told_before_one_of_metadata():
    async with PushTarget() as target:
        response = await target.push(named(b"a-b"), metadata=[(1, b"", b"h", b"u")])
        assert "a-b" in response.text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (b"x" * 1024, b"x" * 1024),
        (b"x" * 1025, b"x" * 1024),
        (b"x" * 1023 + "é".encode(), b"x" * 1023),
        (b"x" * 1022 + "\U0001f600".encode(), b"x" * 1022),
        ("é".encode() * 600, "é".encode() * 512),
        (b"\x80" * 1100, b"\x80" * 1024),
    ],
)
async def test_a_long_help_text_ends_at_a_whole_character(text, kept):
    async with PushTarget() as target:
        response = await target.push(metadata=[(1, b"f", text, b"u"), (1, b"g", b"", b"")])
        assert response.status_code == 200
        assert target.stored_metadata() == [(0, (1, b"f", kept, b"u")), (0, (1, b"g", b"", b""))]


async def test_metadata_without_a_family_passes_when_that_is_not_enforced():
    async with PushTarget(DistributorLimits(enforce_metadata_metric_name=False)) as target:
        assert (await target.push(metadata=[(1, b"", b"h", b"u")])).status_code == 200
        assert target.stored_metadata() == [(0, (1, b"", b"h", b"u"))]


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("in_body", [False, True])
async def test_label_checks_are_skipped_only_if_setting_header_and_body_agree(header, enabled, in_body):
    options = DistributorOptions(skip_label_name_validation_header=enabled, skip_label_count_validation_header=enabled)
    async with PushTarget(DistributorLimits(max_label_names_per_series=2), options=options) as target:
        series = named(b"up", (b"a.b", b"x"), (b"c", b"d"))
        flags = {"skip_label_validation": in_body, "skip_label_count_validation": in_body}
        body = bytes(cramjam.snappy.compress_raw(write_request([series], **flags)))
        headers = {"X-Mimir-SkipLabelNameValidation": "true", "X-Mimir-SkipLabelCountValidation": "true"}
        response = await target.post(body, **(headers if header else {}))
        assert response.status_code == (200 if header and enabled and in_body else 400)


@pytest.mark.parametrize("label", [(b"", b"x"), (b"a\xff", b"x"), (b"a", b"x\xff")])
async def test_what_no_block_can_hold_is_refused_whatever_checks_are_skipped(label):
    options = DistributorOptions(skip_label_name_validation_header=True)
    async with PushTarget(options=options) as target:
        body = bytes(cramjam.snappy.compress_raw(write_request([named(b"up", label)], skip_label_validation=True)))
        response = await target.post(body, **{"X-Mimir-SkipLabelNameValidation": "true"})
        assert response.status_code == 400


@pytest.mark.parametrize("length", range(90, 100))
def test_a_value_that_is_cut_ends_with_a_whole_character(length):
    limits = DistributorLimits(max_label_value_length=length, label_value_length_over_limit_strategy="truncate")
    cut = shorten_value("aü€😀".encode() * 40, limits)
    assert len(cut) <= length
    assert ("aü€😀" * 40).startswith(cut.decode().partition("(hash:")[0])
