"""Programs that the tests judge against, found through MIMIR_INGEST_PEERS (a folder), else on PATH.

A missing peer skips the test, with the reason; with CI set it fails, so that a green run proves what it claims.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
from pathlib import Path

import pytest

_PORTS = range(10_000, 32_000)
"""why: the system gives those from 32,768 on to connections, which could take one before its listener does."""
_given: set[int] = set()


def require(reason: str) -> None:
    """Skip the calling test for `reason`, or fail it where nothing may be missing (CI)."""
    if os.environ.get("CI"):
        pytest.fail(f"CI is set, and {reason}")
    pytest.skip(reason)


def find_peer(name: str) -> Path:
    """Return the path of a peer program; skips or fails when it is not there."""
    folder = os.environ.get("MIMIR_INGEST_PEERS")
    if folder and (candidate := Path(folder) / name).is_file() and os.access(candidate, os.X_OK):
        return candidate
    if (found := shutil.which(name)) is not None:
        return Path(found)
    require(f"`{name}` is neither in MIMIR_INGEST_PEERS ({folder or 'not set'}) nor on PATH")
    raise AssertionError("unreachable")


def pick_free_port() -> int:
    """Return a loopback port that nobody uses; never the same one twice, and each process of the suite has its own."""
    own, of_all = os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:], int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    while True:
        port = random.SystemRandom().choice(_PORTS[int(own) % of_all :: of_all])
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


@pytest.fixture(scope="session")
def prometheus_bin() -> Path:
    return find_peer("prometheus")


@pytest.fixture(scope="session")
def promtool_bin() -> Path:
    return find_peer("promtool")


@pytest.fixture(scope="session")
def victoria_metrics_bin() -> Path:
    return find_peer("victoria-metrics")
