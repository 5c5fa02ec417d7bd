"""Names of metrics and labels, by the rules of the published translator (spec ingest-storage 8.9)."""

from __future__ import annotations

import pytest

from mimir_ingest.wire.otlp_names import STRATEGIES, UnusableName, label_name, metric_name, strategy_of, unit_name

WITH, WITHOUT = "UnderscoreEscapingWithSuffixes", "UnderscoreEscapingWithoutSuffixes"
UTF8_WITH, UTF8 = "NoUTF8EscapingWithSuffixes", "NoTranslation"


@pytest.mark.parametrize(
    ("name", "unit", "kind", "made"),
    [
        ("http.server.duration", "s", "other", ("http_server_duration{}", "http.server.duration{}", "_seconds")),
        ("requests", "1", "counter", ("requests{}", "requests{}", "_total")),
        ("requests.total", "", "counter", ("requests_total", "requests_total", "")),
        ("load", "1", "gauge", ("load{}", "load{}", "_ratio")),
        ("load", "1", "other", ("load", "load", "")),
        ("io", "By/s", "gauge", ("io{}", "io{}", "_bytes_per_second")),
        ("io", "By/s", "counter", ("io{}", "io{}", "_bytes_per_second_total")),
        ("io.bytes", "By", "gauge", ("io_bytes", "io.bytes", "")),
        ("wait", "{thread}/s", "gauge", ("wait{}", "wait{}", "_per_second")),
        ("0a", "d", "gauge", ("_0a{}", "0a{}", "_days")),
    ],
)  # fmt: skip
def test_a_metric_is_named_by_strategy_unit_and_kind(name, unit, kind, made):
    escaped, kept, suffix = made
    assert metric_name(name, unit, kind, WITH) == escaped.format(suffix)
    if name != "requests.total":
        assert metric_name(name, unit, kind, UTF8_WITH) == kept.format(suffix)
        assert metric_name(name, unit, kind, WITHOUT) == escaped.format("")
    assert metric_name(name, unit, kind, UTF8) == name


@pytest.mark.parametrize("unit", ["", "s", "By/s"])
@pytest.mark.parametrize("name", ["", "___", "-", "€"])
def test_a_metric_of_which_nothing_is_left_has_no_name(name, unit):
    if name != "___":
        with pytest.raises(UnusableName, match="resulted in empty name"):
            metric_name(name, unit, "other", WITHOUT)
    if not unit:
        with pytest.raises(UnusableName, match="resulted in empty name"):
            metric_name(name, unit, "other", WITH)


@pytest.mark.parametrize(
    ("name", "made", "not_prefixed", "not_kept"),
    [
        ("a.b", "a_b", "a_b", "a_b"),
        ("a..b__c", "a__b__c", "a__b__c", "a_b_c"),
        ("_a", "key_a", "_a", "key_a"),
        ("__a", "__a", "__a", "key_a"),
        ("9a", "key_9a", "key_9a", "key_9a"),
        ("ü", "key_", None, "key_"),
    ],
)
def test_an_attribute_is_named_by_the_two_settings(name, made, not_prefixed, not_kept):
    assert label_name(name, escape=True, prefix_underscore=True, keep_underscores=True) == made
    assert label_name(name, escape=True, prefix_underscore=True, keep_underscores=False) == not_kept
    assert label_name(name, escape=False, prefix_underscore=True, keep_underscores=False) == name
    if not_prefixed is None:
        with pytest.raises(UnusableName, match="resulted in invalid name"):
            label_name(name, escape=True, prefix_underscore=False, keep_underscores=True)
    else:
        assert label_name(name, escape=True, prefix_underscore=False, keep_underscores=True) == not_prefixed


@pytest.mark.parametrize("escape", [True, False])
def test_an_attribute_needs_a_name(escape):
    with pytest.raises(UnusableName, match="label name is empty"):
        label_name("", escape=escape, prefix_underscore=True, keep_underscores=True)


def test_names_too_long_to_be_remembered_are_made_all_the_same():
    assert metric_name("a." * 500, "s", "other", WITH) == "a_" * 500 + "seconds"
    assert label_name("a." * 500, escape=True, prefix_underscore=True, keep_underscores=True) == "a_" * 500


def test_each_pair_of_the_two_settings_has_its_strategy():
    assert {strategy_of(scheme, suffixes) for scheme in ("legacy", "utf8") for suffixes in (False, True)} == set(
        STRATEGIES
    )
    assert strategy_of("legacy", False) == WITHOUT


@pytest.mark.parametrize(
    ("unit", "told"),
    [
        *(("", ""), ("1", ""), ("s", "seconds"), (" By ", "bytes"), ("By/s", "bytes_per_second"), ("µs", "s")),
        *(("{req}", ""), ("{req}/s", "per_second"), ("m/{x}", "meters"), ("s/", "seconds"), ("/s", "per_second")),
        *(("%", "percent"), ("widgets", "widgets"), ("a-b", "a_b"), ("_u_", "u"), ("a/b/c", "a_per_b_c"), ("é", "")),
    ],
)
def test_metadata_tells_the_unit_in_the_words_of_prometheus(unit, told):
    assert unit_name(unit) == told
