"""Runtime configuration: overrides, merging, reload that keeps the last good one."""

import asyncio

import pytest
import yaml
from prometheus_client import CollectorRegistry

from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.runtime import RuntimeConfigWatcher, parse_runtime_config, runtime_yaml
from mimir_ingest.config.settings import load
from mimir_ingest.obs.metrics import RuntimeConfigMetrics

DEFAULTS = load(["-distributor.ingestion-rate-limit=7"], {})[0].limits


def parse(*texts):
    return parse_runtime_config([(f"f{number}", text) for number, text in enumerate(texts)], DEFAULTS)


def test_overrides_stand_on_the_default_limits():
    loaded = parse("overrides:\n  a:\n    max_global_series_per_user: 5\n    out_of_order_time_window: 1d\n")
    limits = loaded.overrides["a"]
    assert (limits.max_global_series_per_user, limits.ingestion_rate) == (5, 7)
    assert limits.out_of_order_time_window.ms == 86_400_000
    assert limits.values["out_of_order_time_window"] == limits.out_of_order_time_window


def test_several_files_merge_deeply_and_the_later_wins():
    first = "overrides: {a: {ingestion_rate: 1, request_rate: 1}, b: {ingestion_rate: 2}}"
    second = "overrides: {a: {ingestion_rate: 3}}\ndistributor_limits: {max_inflight_push_requests: 9}"
    loaded = parse(first, second)
    assert (loaded.overrides["a"].ingestion_rate, loaded.overrides["a"].request_rate) == (3, 1)
    assert loaded.overrides["b"].ingestion_rate == 2
    assert loaded.instance == {"distributor.instance_limits.max_inflight_push_requests": 9}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("overides: {}", 'f0 line 1: unknown key "overides"; a runtime configuration has overrides'),
        ("overrides:\n  a:\n    ingestion_rat: 1", 'f0 line 3: unknown key "overrides.a.ingestion_rat"; did you'),
        ("overrides: {a: {ingestion_rate: fast}}", "overrides.a.ingestion_rate"),
        ("overrides: {a: {ingestion_rate: -1}}", "negative"),
        ("overrides: {a: {name_validation_scheme: x}}", "legacy, utf8"),
        ("overrides: {a: {label_value_length_over_limit_strategy: drop, max_label_value_length: 70}}", "at least 71"),
        ("overrides: [a]", "to be a map"),
        ("overrides: {a: 1}", "to be a map"),
        ("overrides: {a: {}, a: {}}", "already stands"),
        ("distributor_limits: {max_tenants: 1}", "unknown key"),
        ("multi_kv_config: {secondary: x}", "unknown key"),
        ("a: {", "not valid YAML"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused_whole(text, message):
    with pytest.raises(ConfigError) as error:
        parse(text)
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["", "overrides:\n", "overrides: {a: }", "multi_kv_config: {mirror_enabled: true}"])
def test_empty_parts_change_nothing(text):
    assert parse(text).overrides.get("a", DEFAULTS).values == DEFAULTS.values


def test_views_show_complete_limits_or_what_differs():
    loaded = parse(
        "overrides: {a: {ingestion_rate: 50000, out_of_order_time_window: 1h}, b: {ingestion_rate: 7}}\n"
        "ingester_limits: {max_series: 3}"
    )
    full = yaml.safe_load(runtime_yaml(loaded, DEFAULTS, diff=False))
    assert list(full) == ["overrides", "multi_kv_config", "ingester_limits", "distributor_limits"]
    assert len(full["overrides"]["a"]) > 100
    assert full["overrides"]["a"]["out_of_order_time_window"] == "1h0m0s"
    assert yaml.safe_load(runtime_yaml(loaded, DEFAULTS, diff=True)) == {
        "overrides": {"a": {"ingestion_rate": 50000, "out_of_order_time_window": "1h0m0s"}, "b": {}},
        "ingester_limits": {"max_series": 3},
    }


def watcher(files, read_text, registry, period_s=3600.0):
    metrics = RuntimeConfigMetrics.create(registry)
    return RuntimeConfigWatcher(files=files, period_s=period_s, defaults=DEFAULTS, metrics=metrics, read_text=read_text)


SUCCESS = "cortex_runtime_config_last_reload_successful"


def test_a_bad_file_keeps_the_last_good_configuration_in_force():
    texts, registry = {"x": "overrides: {a: {ingestion_rate: 1}}"}, CollectorRegistry()
    watched = watcher("x", texts.__getitem__, registry)
    watched.load()
    assert (watched.for_tenant("a").ingestion_rate, watched.for_tenant("b").ingestion_rate) == (1, 7)
    assert registry.get_sample_value(SUCCESS) == 1
    good = registry.get_sample_value("cortex_runtime_config_hash", {"sha256": watched.current.sha256})
    assert good == 1

    texts["x"] = "overrides: {a: {ingestion_rat: 1}}"
    with pytest.raises(ConfigError):
        watched.load()
    assert watched.for_tenant("a").ingestion_rate == 1
    assert registry.get_sample_value(SUCCESS) == 0

    texts["x"] = "overrides: {a: {ingestion_rate: 2}}\ndistributor_limits: {max_inflight_push_requests: 5}"
    watched.load()
    assert watched.for_tenant("a").ingestion_rate == 2
    main = {"max_inflight_push_requests": 1, "max_ingestion_rate": 1}
    assert watched.instance_limits("distributor.instance_limits.", main) == {
        "max_inflight_push_requests": 5,
        "max_ingestion_rate": 1,
    }
    assert registry.get_sample_value(SUCCESS) == 1


async def test_the_file_is_read_again_every_period_and_errors_do_not_end_it(tmp_path):
    file, registry = tmp_path / "runtime.yaml", CollectorRegistry()
    file.write_text("overrides: {a: {ingestion_rate: 1}}")
    watched = watcher(f" {file} ,", None, registry, period_s=0.01)
    await watched.start()

    def state():
        return registry.get_sample_value(SUCCESS), watched.for_tenant("a").ingestion_rate

    try:
        for text, metric, rate in [
            ("overrides: [", 0, 1),
            ("overrides: {a: {ingestion_rate: 2}}", 1, 2),
        ]:
            file.write_text(text)
            async with asyncio.timeout(120):
                while (seen := state()) != (metric, rate):  # noqa: ASYNC110 (a file has no event to wait for)
                    await asyncio.sleep(0.01)
            assert seen == (metric, rate)
    finally:
        await watched.close()
        await watched.close()


async def test_a_missing_file_stops_the_start(tmp_path):
    watched = watcher(f"{tmp_path}/none.yaml", None, CollectorRegistry())
    with pytest.raises(ConfigError, match=r"cannot read runtime_config\.file"):
        await watched.start()
    assert watched.current is None


async def test_addresses_are_refused_and_no_files_is_no_configuration():
    with pytest.raises(ConfigError, match="only local files"):
        await watcher("http://x/y", None, CollectorRegistry()).start()
    idle = watcher("", None, CollectorRegistry())
    await idle.start()
    assert (idle.configured, idle.current, idle.for_tenant("x")) == (False, None, DEFAULTS)
    await idle.close()
