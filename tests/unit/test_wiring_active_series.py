"""How active series and rates are told: what configuration may say, and what becomes of it."""

import json

import pytest

from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.settings import load
from mimir_ingest.wiring import custom_trackers


def test_additional_trackers_come_on_top_of_the_others():
    limits = load(['-ingester.active-series-custom-trackers=api:{job="api"};all:{job=~".+"}'], {})[0].limits
    more = {"active_series_additional_custom_trackers": {"api": '{job=~"api.*"}', "db": "up{job='db'}"}}
    of = {"a": limits.overridden(more), "b": limits}
    trackers = custom_trackers(of.__getitem__)
    shown = {name: " ".join(map(str, matchers)) for name, matchers in trackers("a").items()}
    assert shown == {"api": 'job=~"api.*"', "all": 'job=~".+"', "db": 'job="db" __name__="up"'}
    assert list(trackers("b")) == ["api", "all"]
    assert trackers("a") is trackers("a")


@pytest.mark.parametrize(
    "flag",
    [
        "rate-update-period",
        "active-series-metrics-update-period",
        "active-series-metrics-idle-timeout",
        "owned-series-update-interval",
    ],
)
def test_periods_of_counting_are_above_zero(flag):
    with pytest.raises(ConfigError, match="must be above zero"):
        load([f"-ingester.{flag}=0s"], {})


@pytest.mark.parametrize("selector", ["{", "{job=}", '{job=~"("}', "rate(x[5m])", "{}{}"])
def test_a_tracker_that_is_no_selector_is_refused(selector):
    with pytest.raises(ConfigError, match='tracker "bad" has no selector'):
        load([f"-ingester.active-series-custom-trackers=bad:{selector}"], {})


def test_more_additional_trackers_than_allowed_are_refused_and_none_is_no_limit(tmp_path):
    flag = "-validation.max-active-series-additional-custom-trackers="
    trackers = {f"t{i}": f'{{i="{i}"}}' for i in range(3)}
    path = tmp_path / "config.yaml"
    path.write_text(f"limits: {{active_series_additional_custom_trackers: {json.dumps(trackers)}}}")
    with pytest.raises(ConfigError, match=r"number of custom trackers \[3\] exceeds the configured limit \[2\]"):
        load([f"{flag}2", f"-config.file={path}"], {})
    base = "-ingester.active-series-custom-trackers=" + ";".join(f"{name}:{{}}" for name in "abcd")
    for most in (0, 3):
        limits = load([f"{flag}{most}", base, f"-config.file={path}"], {})[0].limits
        assert len(custom_trackers(lambda _, limits=limits: limits)("a")) == 7
