"""Fixtures for every test: real peers, a real Kafka, and the check that the kernels are compiled."""

import hypothesis
import pytest
from numba import config as numba_config

pytest_plugins = ["tests.support.peers", "tests.support.kafka_broker"]

# How long an example takes, or its making, depends on who else uses the machine. With CI set, hypothesis's own profile
# lies below this one: the same examples in every run.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def _kernels_are_compiled():
    """The suite proves nothing about the kernels if the JIT is off."""
    assert not numba_config.DISABLE_JIT


def pytest_make_parametrize_id(val):
    """Name no test by bytes: compressed ones hold the time, others a salt; every process must have the same names."""
    return f"{len(val)} bytes" if isinstance(val, bytes | bytearray) else None
