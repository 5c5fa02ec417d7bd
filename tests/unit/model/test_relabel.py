"""Relabelling rules: what each action does, and what is refused."""

from __future__ import annotations

import hashlib

import pytest

from mimir_ingest.model.labels import decode_label_bytes, encode_label_bytes
from mimir_ingest.model.relabel import Relabelling, RelabelRule, parse_rules

SERIES = {"__name__": "http_total", "job": "api", "pod": "API-7", "env": "prod"}


def relabelled(*rules: dict, drop: tuple[str, ...] = (), series: dict[str, str] = SERIES) -> dict[str, str] | None:
    found = Relabelling(parse_rules(rules), drop).apply(encode_label_bytes(series), "team-a")
    return None if found is None else dict(decode_label_bytes(found))


@pytest.mark.parametrize(
    ("rule", "changed"),
    [
        ({"source_labels": ["job"], "target_label": "app"}, {"app": "api"}),
        ({"source_labels": ["job", "env"], "regex": "(.*);(.*)", "target_label": "${2}_x", "replacement": "$1!"},
         {"prod_x": "api!"}),
        ({"source_labels": ["job", "env"], "separator": "/", "target_label": "both"}, {"both": "api/prod"}),
        ({"source_labels": ["job"], "regex": "web", "target_label": "app"}, {}),
        ({"source_labels": ["job"], "regex": "ap", "target_label": "app"}, {}),
        ({"target_label": "fixed", "replacement": "a$$b"}, {"fixed": "a$b"}),
        ({"target_label": "env", "replacement": ""}, {"env": None}),
        ({"source_labels": ["pod"], "regex": "(.*)", "target_label": "$1", "replacement": "x"}, {}),
        ({"source_labels": ["__meta_tenant_id"], "target_label": "tenant"}, {"tenant": "team-a"}),
        ({"source_labels": ["pod"], "target_label": "pod", "action": "lowercase"}, {"pod": "api-7"}),
        ({"source_labels": ["env"], "target_label": "env", "action": "Uppercase"}, {"env": "PROD"}),
        ({"regex": "(j)(ob)", "replacement": "${1}_$2", "action": "labelmap"}, {"j_ob": "api"}),
        ({"regex": "p.*|e.*", "action": "labeldrop"}, {"pod": None, "env": None}),
        ({"regex": "__.*|job", "action": "labelkeep"}, {"pod": None, "env": None}),
    ],
)  # fmt: skip
def test_labels_are_changed_by_each_action(rule, changed):
    expected = {name: value for name, value in {**SERIES, **changed}.items() if value is not None}
    assert relabelled(rule) == expected


def test_hashmod_is_the_md5s_second_half():
    number = int.from_bytes(hashlib.md5(b"api").digest()[8:], "big") % 16
    rule = {"source_labels": ["job"], "target_label": "shard", "modulus": 16, "action": "hashmod"}
    assert relabelled(rule) == {**SERIES, "shard": str(number)}


@pytest.mark.parametrize(
    ("rule", "stays"),
    [
        ({"source_labels": ["env"], "regex": "prod", "action": "keep"}, True),
        ({"source_labels": ["env"], "regex": "dev", "action": "keep"}, False),
        ({"source_labels": ["env"], "regex": "prod", "action": "drop"}, False),
        ({"source_labels": ["env"], "regex": "pro", "action": "drop"}, True),
        ({"source_labels": ["env"], "target_label": "job", "action": "keepequal"}, False),
        ({"source_labels": ["job"], "target_label": "job", "action": "keepequal"}, True),
        ({"source_labels": ["job"], "target_label": "job", "action": "dropequal"}, False),
    ],
)
def test_series_are_kept_or_dropped(rule, stays):
    assert relabelled(rule) == (SERIES if stays else None)


def test_dropped_labels_go_last_and_a_series_without_labels_goes_silently():
    assert relabelled({"source_labels": ["pod"], "target_label": "job"}, drop=("pod", "none")) == {
        "__name__": "http_total",
        "job": "API-7",
        "env": "prod",
    }
    assert relabelled(drop=tuple(SERIES)) is None


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"action": "explode"}, 'unknown relabel action "explode"'),
        ({"source_label": ["a"]}, "field source_label not found"),
        ({"action": "hashmod", "target_label": "x"}, "non-zero modulus"),
        ({"source_labels": ["a"]}, "requires 'target_label' value"),
        ({"target_label": "a-b"}, "invalid 'target_label' for replace action"),
        ({"target_label": "${1}", "action": "uppercase"}, "invalid 'target_label' for uppercase action"),
        ({"target_label": "a", "replacement": "x", "action": "lowercase"}, "'replacement' can not be set"),
        ({"target_label": "a", "regex": "x", "action": "keepequal"}, "requires only 'source_labels' and"),
        ({"regex": "a", "target_label": "b", "action": "labeldrop"}, "requires only 'regex'"),
        ({"regex": "(", "target_label": "b"}, "error parsing regexp"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule, reason):
    with pytest.raises(ValueError) as refused:
        RelabelRule.from_yaml(rule)
    assert reason in str(refused.value)


def test_what_is_no_proper_label_set_is_left_to_validation():
    broken = encode_label_bytes({"a": "b"}).replace(b"b", b"\xff")
    assert Relabelling(drop_labels=("a",)).apply(broken, "t") == broken
