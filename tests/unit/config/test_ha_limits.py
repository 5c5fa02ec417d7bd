"""Settings of the HA tracker: where they go, and which are refused."""

import pytest

from mimir_ingest import wiring
from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.settings import load
from mimir_ingest.distributor.ha_election import HaLimits

FLAG = "-distributor.ha-tracker."


def limits_of(*flags):
    settings, _ = load(flags, {})
    return wiring.distributor_limits(settings, lambda _: settings.limits)("t").ha


def test_defaults_are_mimirs_and_off():
    assert limits_of() is None
    assert limits_of(f"{FLAG}enable-for-all-users=true") == HaLimits()


def test_every_setting_arrives():
    flags = {
        "cluster": "az",
        "replica": "pod",
        "max-clusters": "7",
        "update-timeout": "3s",
        "update-timeout-jitter-max": "1s",
        "failover-timeout": "1m",
        "failover-sample-timeout": "90s",
    }
    assert limits_of(f"{FLAG}enable-for-all-users=true", *(f"{FLAG}{k}={v}" for k, v in flags.items())) == HaLimits(
        cluster_label=b"az",
        replica_label=b"pod",
        max_clusters=7,
        update_timeout_ms=3000,
        update_timeout_jitter_max_ms=1000,
        failover_timeout_ms=60_000,
        sample_failover_timeout_ms=90_000,
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["failover-timeout=20999ms"], "ha_tracker_failover_timeout is 20.999s; it must be at least 1s more than"),
        (["update-timeout=25s"], r"limits.ha_tracker_update_timeout \(25s\)"),
        (["update-timeout-jitter-max=-1s"], "ha_tracker_update_timeout_jitter_max is -1s; it cannot be negative"),
        (["cluster="], "ha_cluster_label is empty"),
        (["replica="], "ha_replica_label is empty"),
        (["max-clusters=-1"], "ha_max_clusters is -1; it cannot be negative"),
    ],
)
def test_what_cannot_work_is_refused(flags, said):
    with pytest.raises(ConfigError, match=said):
        load([f"{FLAG}{flag}" for flag in flags], {})


def test_a_replica_that_is_written_down_in_time_may_just_fail_over():
    assert limits_of(f"{FLAG}enable-for-all-users=true", f"{FLAG}failover-timeout=21s").failover_timeout_ms == 21_000
