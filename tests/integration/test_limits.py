"""Every limit and validation rule of a push against the running program, a row of `push_rules` each.

Then what is no row: sizes, groups of discards, limits that change while it runs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cramjam
import httpx
import pytest
import yaml

from tests.support.program import Program
from tests.support.protobuf_schema import WriteRequest
from tests.support.push_rules import RULES, Rule
from tests.support.write_requests import many

FLAGS = [
    "-runtime-config.file=runtime.yaml",
    "-runtime-config.reload-period=500ms",
    "-api.skip-label-name-validation-header-enabled=true",
    "-distributor.max-recv-msg-size=2097152",
    "-ingester.ignore-series-limit-for-metric-names=free_metric,other_metric",
    "-max-separate-metrics-groups-per-user=2",
    "-ingest-storage.embedded.partitions=1",
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
    return program.http.post("/api/v1/push", content=content, headers=sent)


def count(program: Program, tenant: str, query: str) -> int:
    """Series that a query finds, of everything acknowledged before."""
    answer = program.http.get(
        "/prometheus/api/v1/query",
        params={"query": query, "time": time.time() + 1},
        headers={"X-Scope-OrgID": tenant, "X-Read-Consistency": "strong"},
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
    deadline = time.monotonic() + 120
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
