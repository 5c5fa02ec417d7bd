"""The rules and limits of a push, one row each (spec ingest-storage 8.4, 8.5, 8.7; texts: spec http-api 15).

A row is a tenant with its own overrides: what it pushes, and the status, text, counters and stored series after that.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.support.protobuf_schema import WriteRequest
from tests.support.write_requests import exemplars, histogram, many, metadata, one_bad


@dataclass
class Rule:
    """What is pushed, in order; the last answer is judged."""

    name: str
    pushes: Sequence[Callable[[int], WriteRequest]]
    status: int
    text: str = ""
    """A regular expression, matched whole but for the newline; `{now}` is the time of the push."""
    counters: Mapping[str, float] = field(default_factory=dict)
    """Discard counter and reason -> value."""
    stored: Mapping[str, int] = field(default_factory=lambda: {"good": 1})
    """Query -> number of series."""
    overrides: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def tenant(self) -> str:
        return re.sub("[^a-z0-9]+", "-", self.name)


def tenant_flags(*flags: str) -> str:
    limit = "limits" if len(flags) > 1 else "limit"
    return (
        f"To adjust the related per-tenant {limit}, configure {' and '.join('-' + flag for flag in flags)}, or contact "
        "your service administrator."
    )


def samples(reason: str, count: float = 1) -> dict[str, float]:
    return {f"samples {reason}": count}


def literal(text: str) -> str:
    return re.escape(text).replace(re.escape("{now}"), "{now}")


LONG = "v" * 130
HASHED = f"(hash:{hashlib.blake2b(LONG.encode(), digest_size=32).hexdigest()})"
RATE = (
    "This limit is applied on the total number of samples, exemplars and metadata received across all distributors "
    "(err-mimir-tenant-max-ingestion-rate). "
)
NAMELESS = "received series has no metric name (err-mimir-missing-metric-name)"
RULES = [
    Rule("no metric name", [one_bad(None, ("a", "b"))], 400, literal(NAMELESS), samples("missing_metric_name")),
    Rule(
        "metric name",
        [one_bad("a-é")],
        400,
        literal(
            "received a series with invalid metric name: 'a- (non-ascii characters removed)' "
            "(err-mimir-metric-name-invalid)"
        ),
        samples("metric_name_invalid"),
    ),
    Rule(
        "utf8 names",
        [one_bad("a-é", ("x.y", "1"))],
        200,
        stored={"good": 1, '{"a-é","x.y"="1"}': 1},
        overrides={"name_validation_scheme": "utf8"},
    ),
    Rule(
        "label count",
        [one_bad("up", ("a", "1"), ("b", "2"))],
        400,
        literal(
            "received a series whose number of labels exceeds the limit (actual: 3, limit: 2) series: "
            '\'up{a="1", b="2"}\' (err-mimir-max-label-names-per-series). '
            + tenant_flags("validation.max-label-names-per-series")
        ),
        samples("max_label_names_per_series"),
        overrides={"max_label_names_per_series": 2},
    ),
    Rule(
        "label count of info",
        [one_bad("up_info", ("a", "1"), ("b", "2"), ("c", "3"))],
        400,
        literal(
            "received an info series whose number of labels exceeds the limit (actual: 4, limit: 3) series: "
            '\'up_info{a="1", b="2", c="3"}\' (err-mimir-max-label-names-per-info-series). '
            + tenant_flags("validation.max-label-names-per-info-series")
        ),
        samples("max_label_names_per_info_series"),
        overrides={"max_label_names_per_series": 2, "max_label_names_per_info_series": 3},
    ),
    Rule(
        "info series may have more",
        [one_bad("up_info", ("a", "1"), ("b", "2"))],
        200,
        stored={"good": 1, "up_info": 1},
        overrides={"max_label_names_per_series": 2, "max_label_names_per_info_series": 3},
    ),
    Rule(
        "label name",
        [one_bad("up", ("a.b", "1"))],
        400,
        literal("received a series with an invalid label: 'a.b' series: 'up{a.b=\"1\"}' (err-mimir-label-invalid)"),
        samples("label_invalid"),
    ),
    Rule(
        "label name skipped",
        [one_bad("up", ("a.b", "1"), skip_label_validation=True)],
        200,
        stored={"good": 1, "up": 1},
        headers={"X-Mimir-SkipLabelNameValidation": "true"},
    ),
    Rule(
        "label name skipped by header alone",
        [one_bad("up", ("a.b", "1"))],
        400,
        ".*err-mimir-label-invalid.*",
        samples("label_invalid"),
        headers={"X-Mimir-SkipLabelNameValidation": "true"},
    ),
    Rule(
        "label name length",
        [one_bad("up", ("long_name", "1"))],
        400,
        literal(
            "received a series whose label name length exceeds the limit, label: 'long_name' series: "
            "'up{long_name=\"1\"}' (err-mimir-label-name-too-long). " + tenant_flags("validation.max-length-label-name")
        ),
        samples("label_name_too_long"),
        overrides={"max_label_name_length": 8},
    ),
    Rule(
        "label value",
        [one_bad("up", ("a", b"x\xff"))],
        400,
        literal(
            "received a series with invalid value in label 'a': 'x\ufffd' metric: 'up' (err-mimir-label-value-invalid)"
        ),
        samples("label_value_invalid"),
    ),
    Rule(
        "label value length",
        [one_bad("up", ("a", LONG))],
        400,
        literal(
            f"received a series whose label value length of 130 exceeds the limit of 100, label: 'a', value: '{LONG}' "
            f"(truncated) series: 'up{{a=\"{LONG}\"}}' (err-mimir-label-value-too-long). "
            + tenant_flags("validation.max-length-label-value")
        ),
        samples("label_value_too_long"),
        overrides={"max_label_value_length": 100},
    ),
    Rule(
        "label value truncated",
        [one_bad("up", ("a", LONG))],
        200,
        stored={"good": 1, f'up{{a="{LONG[:29]}{HASHED}"}}': 1},
        overrides={"max_label_value_length": 100, "label_value_length_over_limit_strategy": "truncate"},
    ),
    Rule(
        "label value dropped",
        [one_bad("up", ("a", LONG))],
        200,
        stored={"good": 1, f'up{{a="{HASHED}"}}': 1},
        overrides={"max_label_value_length": 100, "label_value_length_over_limit_strategy": "drop"},
    ),
    Rule(
        "label twice",
        [one_bad("up", ("a", "1"), ("b", "1"), ("a", "2"))],
        400,
        r"received a series with duplicate label name, label: 'a' series: 'up\{.*\}' "
        r"\(err-mimir-duplicate-label-names\)",
        samples("duplicate_label_names"),
    ),
    Rule("labels in any order", [one_bad("up", ("b", "1"), ("a", "2"))], 200, stored={"good": 1, 'up{a="2"}': 1}),
    Rule("an empty value is no label", [one_bad("up", ("b", ""))], 200, stored={"good": 1, 'up{b=""}': 1}),
    Rule(
        "a sample costs its series",
        [one_bad("up", at=(0, 700_000))],
        400,
        r"received a sample whose timestamp is too far in the future, timestamp: \d+ series: 'up' "
        + literal("(err-mimir-too-far-in-future). " + tenant_flags("validation.create-grace-period")),
        samples("too_far_in_future", 2),
        stored={"good": 1, "up": 0},
    ),
    Rule(
        "too old",
        [one_bad("up", at=(-200_000,))],
        400,
        r"received a sample whose timestamp is too far in the past, timestamp: \d+ series: 'up' "
        + literal("(err-mimir-too-far-in-past). " + tenant_flags("validation.past-grace-period")),
        samples("too_far_in_past"),
        overrides={"past_grace_period": "1m", "out_of_order_time_window": "1m"},
    ),
    Rule(
        "a time twice",
        [one_bad("up", at=(-5000, -5000, 0))],
        200,
        "",
        samples("sample_duplicate_timestamp"),
        {"good": 1, "up": 1},
    ),
    Rule(
        "schema",
        [histogram(9, 1)],
        400,
        literal(
            "received a native histogram sample with an invalid schema: 9 (err-mimir-invalid-native-histogram-schema)"
        ),
        samples("invalid_native_histogram_schema"),
    ),
    Rule(
        "buckets",
        [histogram(0, 1, 1, 1)],
        400,
        r"received a native histogram sample with too many buckets, timestamp: \d+ series: h, buckets: 3, limit: 2 "
        r"\(err-mimir-max-native-histogram-buckets\)",
        samples("max_native_histogram_buckets"),
        overrides={"max_native_histogram_buckets": 2, "reduce_native_histogram_over_max_buckets": False},
    ),
    Rule(
        "buckets reduced",
        [histogram(3, *[1] * 16)],
        200,
        stored={"good": 1, "histogram_count(h) == 16": 1},
        overrides={"max_native_histogram_buckets": 10},
    ),
    Rule(
        "buckets not reducible",
        [histogram(-4, 1, 1, 1, 1)],
        400,
        r"received a native histogram sample with too many buckets and cannot reduce, timestamp: \d+ series: h, "
        r"buckets: 4, limit: 2 \(err-mimir-not-reducible-native-histogram\)",
        samples("not_reducible_native_histogram"),
        overrides={"max_native_histogram_buckets": 2},
    ),
    Rule(
        "custom buckets",
        [histogram(-53, 1, 1, 1, bounds=(1, 2, 3))],
        400,
        r"received a native histogram sample with more custom buckets than the limit, timestamp: \d+ series: h, "
        r"buckets: 3, limit: 2 \(err-mimir-native-histogram-custom-buckets-not-reducible\)",
        samples("native_histogram_custom_buckets_not_reducible"),
        overrides={"max_native_histogram_buckets": 2},
    ),
    Rule(
        "no native histograms",
        [histogram(0, 1)],
        200,
        stored={"good": 1, "h": 0},
        overrides={"native_histograms_ingestion_enabled": False},
    ),
    Rule(
        "relabelled",
        [many("gone_x", "up_x", x="1")],
        200,
        stored={"gone_x": 0, 'up_x{x="",y="relabelled"}': 1},
        overrides={
            "metric_relabel_configs": [
                {"source_labels": ["__name__"], "regex": "gone_.*", "action": "drop"},
                {"source_labels": ["__meta_tenant_id"], "target_label": "y"},
            ],
            "drop_labels": ["x"],
        },
    ),
    Rule(
        "exemplars",
        [
            exemplars(
                ([("t", "1")], -2),
                ([], -1),
                ([("t", "1")], 0),
                ([("t", "x" * 128)], -1),
                ([("", "x")], -1),
                ([("t", "1")], -301_000),
                ([("t", "1")], 700_000),
                ([("t", "2")], -1),
                ([("t", "3")], -1),
            )
        ],
        200,
        counters={
            f"exemplars {reason}": 1
            for reason in (
                "exemplar_labels_missing",
                "exemplar_timestamp_invalid",
                "exemplar_labels_too_long",
                "exemplar_labels_blank",
                "exemplar_too_old",
                "exemplar_too_far_in_future",
                "too_many_exemplars_per_series_per_request",
            )
        },
        overrides={"max_global_exemplars_per_user": 100, "max_exemplars_per_series_per_request": 8},
    ),
    Rule(
        "metadata without a name",
        [metadata(("", "h", ""), ("b", "h", ""))],
        400,
        literal("received a metric metadata with no metric name (err-mimir-metadata-missing-metric-name)"),
        {"metadata missing_metric_name": 1},
    ),
    Rule(
        "metadata name length",
        [metadata(("ninechars", "0123456789", ""))],
        400,
        literal(
            "received a metric metadata whose metric name length exceeds the limit, metric name: 'ninechars' "
            "(err-mimir-metric-name-too-long). " + tenant_flags("validation.max-metadata-length")
        ),
        {"metadata metric_name_too_long": 1},
        overrides={"max_metadata_length": 8},
    ),
    Rule(
        "metadata unit length",
        [metadata(("x", "h", "ninechars"))],
        400,
        literal(
            "received a metric metadata whose unit name length exceeds the limit, unit: 'ninechars' metric name: 'x' "
            "(err-mimir-unit-too-long). " + tenant_flags("validation.max-metadata-length")
        ),
        {"metadata unit_too_long": 1},
        overrides={"max_metadata_length": 8},
    ),
    Rule(
        "metadata of a tenant",
        [metadata(("a", "1", ""), ("b", "1", ""), ("a", "2", ""))],
        200,
        counters={"metadata per_user_metadata_limit": 1},
        overrides={"max_global_metadata_per_user": 1},
    ),
    Rule(
        "metadata of a metric",
        [metadata(("a", "1", ""), ("a", "2", ""), ("a", "1", ""))],
        200,
        counters={"metadata per_metric_metadata_limit": 1},
        overrides={"max_global_metadata_per_metric": 1},
    ),
    Rule(
        "burst",
        [many("good", "up")],
        429,
        literal(
            "the request has been rejected because the tenant exceeded the ingestion burst size limit, set to 1, with "
            "2 items. " + RATE + tenant_flags("distributor.ingestion-burst-size")
        ),
        samples("rate_limited", 2),
        {"good": 0},
        overrides={"ingestion_burst_size": 1},
    ),
    Rule(
        "ingestion rate",
        [many("good"), many("up")],
        429,
        literal(
            "the request has been rejected because the tenant exceeded the ingestion rate limit, set to 0.0001 items/s "
            "with a maximum allowed burst of 1. "
            + RATE
            + tenant_flags("distributor.ingestion-rate-limit", "distributor.ingestion-burst-size")
        ),
        samples("rate_limited"),
        {"good": 1, "up": 0},
        overrides={"ingestion_rate": 0.0001, "ingestion_burst_size": 1},
    ),
    Rule(
        "burst factor",
        [many("good", "up", "down")],
        429,
        ".*ingestion burst size limit, set to 2, with 3 items.*",
        samples("rate_limited", 3),
        {"good": 0},
        overrides={"ingestion_rate": 1, "ingestion_burst_factor": 2},
    ),
    Rule(
        "request rate",
        [many("good"), many("up")],
        429,
        literal(
            "the request has been rejected because the tenant exceeded the request rate limit, set to 0.0001 "
            "requests/s across all distributors with a maximum allowed burst of 1 (err-mimir-tenant-max-request-rate). "
            + tenant_flags("distributor.request-rate-limit", "distributor.request-burst-size")
        ),
        {"requests rate_limited": 1},
        {"good": 1, "up": 0},
        overrides={"request_rate": 0.0001, "request_burst_size": 1},
    ),
    Rule(
        "series of a tenant",
        [many("good", "up/1"), many("good", "up/1", "up/2")],
        400,
        literal(
            "per-user series limit of 2 exceeded (err-mimir-max-series-per-user). "
            + tenant_flags("ingester.max-global-series-per-user")
        ),
        samples("per_user_series_limit"),
        {"good": 1, "up": 1},
        overrides={"max_global_series_per_user": 2},
    ),
    Rule(
        "series of a metric",
        [many("good", "up/1"), many("good", "up/1", "up/2", "free_metric/1", "free_metric/2", "more/1")],
        400,
        literal(
            "per-metric series limit of 1 exceeded (err-mimir-max-series-per-metric). "
            + tenant_flags("ingester.max-global-series-per-metric")
            + ' This is for series up{i="2"}'
        ),
        samples("per_metric_series_limit"),
        {"good": 1, "up": 1, "free_metric": 2, "more": 1},
        overrides={"max_global_series_per_metric": 1},
    ),
    Rule(
        "nothing valid",
        [many("/1")],
        400,
        literal(NAMELESS),
        samples("missing_metric_name"),
        {"good": 0},
    ),
]
