"""Flags as Go's flag package takes them, YAML with positions, environment expansion as Go's os.Expand."""

import pytest

from mimir_ingest.config.durations import Duration
from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.keys import registry
from mimir_ingest.config.parse import expand_env, parse_file, parse_flags

FLAGS = [
    (["-server.http-listen-port=9"], {"server.http_listen_port": 9}),
    (["--server.http-listen-port=9"], {"server.http_listen_port": 9}),
    (["-server.http-listen-port", "9"], {"server.http_listen_port": 9}),
    (["--server.http-listen-port", "9"], {"server.http_listen_port": 9}),
    (["-server.http-listen-port=9", "-server.http-listen-port=10"], {"server.http_listen_port": 10}),
    (["-auth.multitenancy-enabled"], {"multitenancy_enabled": True}),
    (["-auth.multitenancy-enabled=false"], {"multitenancy_enabled": False}),
    (["-auth.multitenancy-enabled=0"], {"multitenancy_enabled": False}),
    (["-auth.multitenancy-enabled", "-target=querier"], {"multitenancy_enabled": True, "target": "querier"}),
    (["-target="], {"target": ""}),
    (["-target", "-all"], {"target": "-all"}),
    (["-target=a=b"], {"target": "a=b"}),
    (["-querier.timeout=1h30m"], {"querier.timeout": Duration(5400 * 10**9)}),
    (["-validation.create-grace-period=1d"], {"limits.creation_grace_period": Duration(86400 * 10**9)}),
    (["-memberlist.join=a", "-memberlist.join", "b"], {"memberlist.join_members": ("a", "b")}),
    (["-compactor.block-ranges=2h,12h"],
     {"compactor.block_ranges": (Duration(7200 * 10**9), Duration(43200 * 10**9))}),
    (["-distributor.ingestion-rate-limit=1e6"], {"limits.ingestion_rate": 1e6}),
    (["-distributor.max-recv-msg-size=100MiB"], {"distributor.max_recv_msg_size": 104857600}),
    (["-ingester.active-series-custom-trackers=dev:{a=\"b\"};prod:{c=\"d\"}"],
     {"limits.active_series_custom_trackers": {"dev": '{a="b"}', "prod": '{c="d"}'}}),
    (['-ruler.max-rules-per-rule-group-by-namespace={"a": 3}'],
     {"limits.ruler_max_rules_per_rule_group_by_namespace": {"a": 3}}),
    (["-target=all", "--"], {"target": "all"}),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "values"), FLAGS, ids=lambda part: " ".join(part) if isinstance(part, list) else "")
def test_flags_are_read_in_mimirs_form(argv, values):
    assert parse_flags(argv, registry()).explicit.values == values


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-server.http-listen-port"], "needs a value"),
        (["-server.http-listen-port=many"], '-server.http-listen-port: "many" is not a whole number'),
        (["-auth.multitenancy-enabled=maybe"], '"maybe" is not a boolean'),
        (["-auth.multitenancy-enabled", "false"], "write -auth.multitenancy-enabled=false"),
        (["-querier.timeout=5"], "missing unit"),
        (["-querier.timeout=1d"], "write it like 30s or 1h30m"),
        (["-distributor.ingestion-rate-limit=fast"], "is not a number"),
        (["serve"], 'unexpected argument "serve"'),
        (["-target=all", "x"], 'unexpected argument "x"'),
        (["-=x"], "is not a flag"),
        (["---target=x"], "is not a flag"),
        (["-"], "unexpected argument"),
        (["--", "x"], "unexpected argument"),
        (["-nonsense-zzzz=1"], "unknown flag -nonsense-zzzz"),
        (["-ingester.active-series-custom-trackers=dev"], "is not a tracker"),
        (["-ruler.max-rules-per-rule-group-by-namespace=[]"], "expected a JSON object"),
        (["-config.expand-env=perhaps"], "is not a boolean"),
    ],
)
def test_a_flag_that_cannot_be_read_is_refused_with_the_reason(argv, message):
    with pytest.raises(ConfigError) as error:
        parse_flags(argv, registry())
    assert message in str(error.value)


def test_program_flags_are_kept_apart_from_keys():
    line = parse_flags(["-config.file=a.yaml", "-config.expand-env", "-mem-ballast-size-bytes=1"], registry())
    assert line.program == {"config.file": "a.yaml", "config.expand-env": "true"}
    assert (line.has("config.expand-env"), line.has("version")) == (True, False)
    assert not line.explicit.values
    assert list(line.ignored) == ["mem-ballast-size-bytes"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("# nothing\n", {}),
        ("server:\n", {}),
        ("server: {http_listen_port: 9}", {"server.http_listen_port": 9}),
        ("server: {http_listen_port: 0x10}", {"server.http_listen_port": 16}),
        ("no_auth_tenant: 007", {"no_auth_tenant": "007"}),
        ("no_auth_tenant: 1.10", {"no_auth_tenant": "1.10"}),
        ("no_auth_tenant: 2026-01-02", {"no_auth_tenant": "2026-01-02"}),
        ("multitenancy_enabled: off", {"multitenancy_enabled": False}),
        ("limits: {creation_grace_period: 1d}", {"limits.creation_grace_period": Duration(86400 * 10**9)}),
        ("limits: {ingestion_rate: 1e6}", {"limits.ingestion_rate": 1e6}),
        ("memberlist: {join_members: [a, b]}", {"memberlist.join_members": ("a", "b")}),
        ("limits: {blocked_queries: [{pattern: x, regex: true}]}",
         {"limits.blocked_queries": ({"pattern": "x", "regex": True},)}),
        ("limits: {active_series_custom_trackers: {dev: '{a=\"b\"}'}}",
         {"limits.active_series_custom_trackers": {"dev": '{a="b"}'}}),
        ("server: &s {http_listen_port: 9}\n", {"server.http_listen_port": 9}),
        ("common: {storage: {s3: &s {region: r}}}\nblocks_storage: {s3: {<<: *s, bucket_name: b}}",
         {"common.storage.s3.region": "r", "blocks_storage.s3.region": "r", "blocks_storage.s3.bucket_name": "b"}),
        ("querier: {timeout: null}", {"querier.timeout": Duration(120 * 10**9)}),
    ],
)  # fmt: skip
def test_yaml_is_read_by_the_text_of_its_scalars(text, values):
    assert parse_file(text, name="c", registry=registry()).values == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server: 5", "c line 1: server is a section"),
        ("server: [1]", "server is a section"),
        ("- a", "expected a map"),
        ("target: {a: b}", "target: expected a string, not a map"),
        ("multitenancy_enabled: 'true'", "is not a boolean"),
        ("multitenancy_enabled: 1", "is not a boolean"),
        ("\n\nserver:\n  http_listen_port: eighty", 'c line 4: server.http_listen_port: "eighty"'),
        ("querier: {timeout: 30}", "missing unit"),
        ("target: a\ntarget: b", 'line 2: key "target" already stands in line 1'),
        ("a: b: c", "not valid YAML"),
        ("server: {", "not valid YAML"),
        ("target: a\n---\ntarget: b", "not valid YAML"),
        ("? [a]\n: b", "expected a name"),
        ("limits: {blocked_queries: {a: b}}", "expected a list, not a map"),
        ("limits: {blocked_queries: [!!python/object/apply:os.system [x]]}", "constructor"),
        ("limits: {ruler_max_rules_per_rule_group_by_namespace: {a: b}}", "expected a map of string to int"),
    ],
)
def test_a_yaml_that_cannot_be_used_is_refused_with_its_line(text, message):
    with pytest.raises(ConfigError) as error:
        parse_file(text, name="c", registry=registry())
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("a: ${X}", "a: value"),
        ("a: $X", "a: value"),
        ("a: ${MISSING}", "a: "),
        ("a: ${MISSING:other}", "a: other"),
        ("a: ${EMPTY:other}", "a: other"),
        ("a: ${X:other}", "a: value"),
        ("a: ${MISSING:http://h:1}", "a: http://h:1"),
        ("${LINES}", "onetwo"),
        ("a$", "a$"),
        ("a$ b", "a$ b"),
        ("a${}b", "ab"),
        ("a${b", "ab"),
        ("$X$X-${X}.", "valuevalue-value."),
        ("cost: 5$!", "cost: 5"),
    ],
)
def test_environment_variables_expand_as_in_go(text, expanded):
    assert expand_env(text, {"X": "value", "EMPTY": "", "LINES": "one\ntwo"}) == expanded
