"""Every limit and validation rule of a push, one row each, against the running program (spec ingest-storage 8).

A row is a tenant with its own overrides: what it pushes, and the status, text, counters and stored series after that.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cramjam
import httpx
import pytest
import yaml

from tests.support.program import Program
from tests.support.protobuf_schema import WriteRequest

PATIENCE_S = 150
"""why: the first native histogram compiles kernels, unless a run before has left them in the cache."""

FLAGS = [
    "-runtime-config.file=runtime.yaml",
    "-runtime-config.reload-period=500ms",
    "-api.skip-label-name-validation-header-enabled=true",
    "-distributor.max-recv-msg-size=2097152",
    "-ingester.ignore-series-limit-for-metric-names=free_metric,other_metric",
    "-max-separate-metrics-groups-per-user=2",
    "-ingest-storage.embedded.partitions=1",
]


def request(**flags: bool) -> WriteRequest:
    return WriteRequest(**flags)


def series(to: WriteRequest, now_ms: int, name: str | None, *labels: tuple[str, str | bytes], at: Sequence[int] = (0,)):
    """Add a series with a sample of value 1 at each time, ms from now."""
    one = to.timeseries.add()
    for key, value in [("__name__", name), *labels] if name is not None else labels:
        one.labels.add(name=key.encode(), value=value if isinstance(value, bytes) else value.encode())
    for ms in at:
        one.samples.add(value=1, timestamp=now_ms + ms)
    return one


def one_bad(name: str | None, *labels, at=(0,), **flags: bool) -> Callable[[int], WriteRequest]:
    """A request with a series that is judged, and a good one."""

    def build(now_ms: int) -> WriteRequest:
        to = request(**flags)
        series(to, now_ms, name, *labels, at=at)
        series(to, now_ms, "good")
        return to

    return build


def many(*names: str, **labels: str) -> Callable[[int], WriteRequest]:
    """A request with a series for each name, of which the part behind `/` is the label `i`."""

    def build(now_ms: int) -> WriteRequest:
        to = request()
        for name in names:
            metric, _, i = name.partition("/")
            series(to, now_ms, metric, *labels.items(), *([("i", i)] if i else []))
        return to

    return build


def histogram(schema: int, *buckets: int, bounds: Sequence[float] = ()) -> Callable[[int], WriteRequest]:
    """A native histogram with these counts in neighbouring buckets, and a good series."""

    def build(now_ms: int) -> WriteRequest:
        to = one_bad("good")(now_ms)
        row = to.timeseries.add()
        row.labels.add(name=b"__name__", value=b"h")
        one = row.histograms.add(schema=schema, count_int=sum(buckets), timestamp=now_ms, custom_values=bounds)
        one.positive_spans.add(offset=0, length=len(buckets))
        one.positive_deltas.extend(b - a for a, b in zip((0, *buckets), buckets, strict=False))
        return to

    return build


def exemplars(*items: tuple[Sequence[tuple[str, str]], int]) -> Callable[[int], WriteRequest]:
    """A good series with exemplars (labels, ms from now; 0 means no timestamp)."""

    def build(now_ms: int) -> WriteRequest:
        to = request()
        one = series(to, now_ms, "good")
        for labels, ms in items:
            exemplar = one.exemplars.add(value=1, timestamp=now_ms + ms if ms else 0)
            for key, value in labels:
                exemplar.labels.add(name=key.encode(), value=value.encode())
        return to

    return build


def metadata(*items: tuple[str, str, str]) -> Callable[[int], WriteRequest]:
    """A good series with metadata (family, help, unit)."""

    def build(now_ms: int) -> WriteRequest:
        to = one_bad("good")(now_ms)
        for family, text, unit in items:
            to.metadata.add(type=1, metric_family_name=family.encode(), help=text.encode(), unit=unit.encode())
        return to

    return build


def tenant_flags(*flags: str) -> str:
    limit = "limits" if len(flags) > 1 else "limit"
    return (
        f"To adjust the related per-tenant {limit}, configure {' and '.join('-' + flag for flag in flags)}, or contact "
        "your service administrator."
    )


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


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("limits")
    write_runtime(folder, {})
    with Program(folder, *FLAGS, multitenancy=True).start() as running:
        yield running


def write_runtime(folder: Path, more: Mapping[str, object]) -> None:
    overrides = {rule.tenant: dict(rule.overrides) for rule in RULES if rule.overrides}
    overrides["grouped"] = {"separate_metrics_group_label": "team"}
    (folder / "runtime.yaml").write_text(yaml.safe_dump({"overrides": overrides, **more}))


def send(program: Program, tenant: str, body: WriteRequest, **headers: str) -> httpx.Response:
    sent = {"X-Scope-OrgID": tenant, "Content-Type": "application/x-protobuf", **headers}
    content = bytes(cramjam.snappy.compress_raw(body.SerializeToString()))
    return program.http.post("/api/v1/push", content=content, headers=sent, timeout=PATIENCE_S)


def count(program: Program, tenant: str, query: str) -> int:
    """Series that a query finds, of everything acknowledged before."""
    answer = program.http.get(
        "/prometheus/api/v1/query",
        params={"query": query, "time": time.time() + 1},
        headers={"X-Scope-OrgID": tenant, "X-Read-Consistency": "strong"},
        timeout=PATIENCE_S,
    )
    assert answer.status_code == 200, answer.text
    return len(answer.json()["data"]["result"])


def counters(program: Program, tenant: str) -> dict[str, float]:
    """Return what was discarded of a tenant, as `kind reason [group]`."""
    found = {}
    pattern = r"cortex_discarded_(\w+)_total\{(.*?)\} (\S+)"
    for kind, labels, value in re.findall(pattern, program.http.get("/metrics").text):
        by = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if by["user"] == tenant and float(value):
            found[" ".join(filter(None, (kind, by["reason"], by.get("group"))))] = float(value)
    return found


def eventually(look: Callable[[], object], wanted: object, program: Program) -> None:
    deadline = time.monotonic() + 30
    while (seen := look()) != wanted:
        assert time.monotonic() < deadline, (seen, wanted, program.log_tail(1000))
        time.sleep(0.05)


def eventually_refused(program: Program) -> httpx.Response:
    """Return the first answer that is none of success."""
    answers: list[httpx.Response] = []

    def status() -> bool:
        answers.append(send(program, "late", many("good")(int(time.time() * 1000))))
        return answers[-1].is_success

    eventually(status, False, program)
    return answers[-1]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_is_answered_counted_and_applied_as_mimir_does(program: Program, rule: Rule):
    now_ms = int(time.time() * 1000)
    for push in rule.pushes[:-1]:
        assert send(program, rule.tenant, push(now_ms)).status_code == 200
        assert count(program, rule.tenant, "good") == 1
    answer = send(program, rule.tenant, rule.pushes[-1](now_ms), **rule.headers)
    assert answer.status_code == rule.status, answer.text
    assert re.fullmatch(rule.text, answer.text.rstrip("\n")), answer.text
    if rule.status == 429:
        assert 6 <= int(answer.headers["Retry-After"]) <= 9
    else:
        assert "Retry-After" not in answer.headers
    assert {query: count(program, rule.tenant, query) for query in rule.stored} == rule.stored
    eventually(lambda: counters(program, rule.tenant), rule.counters, program)


def test_a_body_over_the_limit_is_refused_by_the_size_it_announces(program: Program):
    answer = program.http.post(
        "/api/v1/push", content=bytes(cramjam.snappy.compress_raw(bytes(3 << 20))), headers={"X-Scope-OrgID": "big"}
    )
    assert answer.status_code == 400
    assert answer.text == (
        "the incoming push request has been rejected because its message size of 3145728 bytes (uncompressed) is "
        "larger than the allowed limit of 2097152 bytes (err-mimir-distributor-max-write-message-size). To adjust the "
        "related limit, configure -distributor.max-recv-msg-size, or contact your service administrator.\n"
    )


def test_what_is_discarded_is_counted_by_the_group_of_the_first_series_and_groups_are_bounded(program: Program):
    for team in ("a", "b", "c", "a"):
        body = many("9bad", team=team)(int(time.time() * 1000))
        assert send(program, "grouped", body).status_code == 400
    wanted = {f"samples metric_name_invalid {group}": n for group, n in (("a", 2), ("b", 1), ("other", 1))}
    eventually(lambda: counters(program, "grouped"), wanted, program)


def test_limits_follow_the_file_and_a_bad_one_changes_nothing(program: Program):
    """Instance limits, too; the tenants of the table keep theirs."""

    def limit_of(name: str) -> float:
        found = re.search(
            rf'cortex_ingester_instance_limits\{{limit="{name}"\}} (\S+)', program.http.get("/metrics").text
        )
        return float(found[1])

    now_ms = int(time.time() * 1000)
    assert send(program, "late", many("good")(now_ms)).status_code == 200
    assert count(program, "late", "good") == 1
    try:
        write_runtime(program.directory, {"ingester_limits": {"max_series": 1}})
        eventually(lambda: limit_of("max_series"), 1, program)
        known = send(program, "late", many("good")(now_ms + 1))
        assert known.status_code == 200, known.text
        answer = send(program, "late", many("good", "new")(now_ms + 2))
        assert answer.status_code == 503
        assert answer.text == (
            "the write request has been rejected because the ingester exceeded the allowed number of in-memory series "
            "(err-mimir-ingester-max-series). To adjust the related limit, configure "
            "-ingester.instance-limits.max-series, or contact your service administrator.\n"
        )
        assert "Retry-After" in answer.headers
        (program.directory / "runtime.yaml").write_text("overrides: {late: {ingestion_rate: -1}}")
        last = "cortex_runtime_config_last_reload_successful "
        eventually(lambda: f"\n{last}0.0\n" in program.http.get("/metrics").text, True, program)
        assert limit_of("max_series") == 1
        write_runtime(program.directory, {"ingester_limits": {"max_tenants": 1}})
        eventually(lambda: (limit_of("max_series"), limit_of("max_tenants")), (0, 1), program)
        answer = send(program, "nobody-yet", many("good")(now_ms))
        assert answer.status_code == 503
        assert "(err-mimir-ingester-max-tenants)" in answer.text
        assert send(program, "late", many("new")(now_ms)).status_code == 200
        write_runtime(program.directory, {"distributor_limits": {"max_inflight_push_requests_bytes": 1}})
        answer = eventually_refused(program)
        assert answer.status_code == 500
        assert answer.text == (
            "the write request has been rejected because the distributor exceeded the allowed total size in bytes of "
            "inflight push requests (err-mimir-distributor-max-inflight-push-requests-bytes). To adjust the related "
            "limit, configure -distributor.instance-limits.max-inflight-push-requests-bytes, or contact your service "
            "administrator.\n"
        )
        assert "Retry-After" in answer.headers
        headers = {"X-Scope-OrgID": "late", "Content-Type": "application/x-protobuf"}
        assert program.http.post("/otlp/v1/metrics", content=b"xx", headers=headers).status_code == 503
        rejected = (
            'cortex_distributor_instance_rejected_requests_total{reason="distributor_max_inflight_push_requests_bytes"}'
        )
        assert f"{rejected} 2.0\n" in program.http.get("/metrics").text
    finally:
        write_runtime(program.directory, {})
        eventually(lambda: limit_of("max_tenants"), 0, program)
        eventually(lambda: send(program, "late", many("good")(now_ms)).status_code, 200, program)
    shown = yaml.safe_load(program.http.get("/runtime_config", params={"mode": "diff"}).text)
    assert shown["overrides"]["series-of-a-tenant"] == {"max_global_series_per_user": 2}
    share = 'cortex_ingester_local_limits{limit="max_global_series_per_user",user="series-of-a-tenant"} 2.0'
    eventually(lambda: share in program.http.get("/metrics").text, True, program)
    limits = program.http.get("/api/v1/user_limits", headers={"X-Scope-OrgID": "series-of-a-tenant"}).json()
    assert limits == {
        "compactor_blocks_retention_period_seconds": 0,
        "ingestion_rate": 10000,
        "ingestion_burst_size": 200000,
        "ingestion_burst_factor": 0,
        "max_global_series_per_user": 2,
        "max_global_series_per_metric": 0,
        "max_global_exemplars_per_user": 0,
        "max_fetched_chunks_per_query": 2000000,
        "max_fetched_series_per_query": 0,
        "max_fetched_chunk_bytes_per_query": 0,
        "ruler_max_rules_per_rule_group": 20,
        "ruler_max_rule_groups_per_tenant": 70,
    }
