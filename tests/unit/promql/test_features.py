import pytest

from mimir_ingest.promql.features import find_disabled_feature
from mimir_ingest.promql.parser import parse_expr


def disabled(query, functions=(), selectors=()):
    found = find_disabled_feature(
        parse_expr(query), enabled_functions=functions, enabled_extended_range_selectors=selectors
    )
    return found and found.not_enabled


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("sum(rate(x[5m]))", None),
        ("first_over_time(x[5m])", None),
        ("rate(x[step() + 1m]) + fill (2) y", None),
        ("1 + abs(mad_over_time(x[5m]))", 'experimental function "mad_over_time" is not enabled for tenant'),
        ("vector(step())", 'experimental function "step" is not enabled for tenant'),
        ("sum(limitk(2, x))", 'experimental aggregation "limitk" is not enabled for tenant'),
        ("LIMIT_RATIO(0.5, x)", 'experimental aggregation "limit_ratio" is not enabled for tenant'),
        (
            "rate(x[5m] smoothed)",
            'experimental extended range selector modifier "smoothed" is not enabled for tenant',
        ),
        ("x anchored", 'experimental extended range selector modifier "anchored" is not enabled for tenant'),
        (
            "sort_by_label(rate(x[5m] anchored), 'a')",
            'experimental function "sort_by_label" is not enabled for tenant',
        ),
    ],
)
def test_without_switches_the_first_experimental_feature_is_refused_with_mimirs_text(query, reason):
    assert disabled(query) == reason


def test_switches_enable_by_name_or_all_and_each_its_own_kind():
    query = "limitk(2, mad_over_time(x[5m] smoothed))"
    assert disabled(query, ["limitk"]).startswith('experimental function "mad_over_time"')
    assert disabled(query, ["limitk", "mad_over_time"]).startswith("experimental extended")
    assert disabled(query, ["all", "smoothed"]).startswith("experimental extended")
    assert disabled(query, ["all"], ["anchored"]).startswith("experimental extended")
    assert disabled(query, ["all"], ["smoothed"]) is None
    assert disabled(query, ["limitk", "mad_over_time"], ["all"]) is None
